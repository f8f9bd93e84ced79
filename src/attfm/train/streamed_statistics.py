"""Rates and pair memory of rows that are not in memory: summed by value and fold, block by block."""

import os
import shutil
import socket
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attfm.config import Config, ModelConfig
from attfm.data.cache import CachedDataset, CachedRows
from attfm.data.codecs.pairs import PairKeys, PairLevels, PairStatistics, SingleRates, least_rows_for
from attfm.data.codecs.rates import Composition, FieldRates, Floats, Grouped, Integers, Outcomes
from attfm.data.column_file import ColumnFile, ColumnWriter
from attfm.data.dataset import Dataset, Examples
from attfm.data.dealing import FOLDS
from attfm.data.encoder import Encoder
from attfm.errors import RunFolderError
from attfm.model.task import Task
from attfm.train.outcomes import outcome_values, relative
from attfm.train.screening import MOST_ROWS, screen
from attfm.train.statistical_machine import BinLayout, BinnedPairs, KnownPairs
from attfm.train.trainer import TrainingData

_PENDING = 1 << 21  # rows of cells that wait to be merged
_LARGEST_KEY = 2**63 // FOLDS


class Cells:
    """Sums over training rows by group and fold.

    Beyond `most` groups those of the fewest rows are forgotten, as if their rows so far had not been (Misra and Gries
    1982, in blocks): what is left out is rare.
    """

    def __init__(self, width: int, *, ordered: bool, most: int | None = None) -> None:
        self._parts: list[tuple[Integers, Floats]] = []
        self._width, self._ordered, self._most = width, ordered, most
        self._pending, self._merged = 0, 0

    def add(self, groups: Integers, folds: Integers, columns: Floats) -> None:
        """Take in rows; columns : float64 (rows, outputs + 2), see `Outcomes.columns`."""
        self._parts.append(_summed(groups * FOLDS + folds, columns))
        self._pending += len(self._parts[-1][0])
        if self._pending > max(_PENDING, self._merged):
            self._merge()

    def _merge(self) -> tuple[Integers, Floats]:
        if not self._parts:
            return np.empty(0, np.int64), np.zeros((0, self._width))
        keys, sums = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
        keys, sums = _summed(keys, sums)
        if self._most is not None:
            keys, sums = _of_most_rows(keys, sums, self._most)
        self._parts, self._pending, self._merged = [(keys, sums)], 0, len(keys)
        return keys, sums

    @cached_property
    def keys(self) -> Integers:
        """The cells, rising: group · FOLDS + fold."""
        return self._merge()[0]

    @property
    def sums(self) -> Floats:
        """What is summed of each cell, float64 (cells, outputs + 2)."""
        return self._merge()[1]

    @cached_property
    def grouped(self) -> Grouped:
        """The statistics of the groups, `others` of each cell."""
        keys, sums = self._merge()
        if not len(keys):
            return Grouped.of_cells(np.empty(0, np.int64), sums, ordered=self._ordered)
        return Grouped.of_cells(keys // FOLDS, sums, ordered=self._ordered)

    def find(self, groups: Integers, folds: Integers) -> Integers:
        """Return the place of each row's cell; -1 of one that was forgotten."""
        wanted, back = np.unique(groups * FOLDS + folds, return_inverse=True)
        if not len(self.keys):
            return np.full(len(groups), -1)
        places = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        found: Integers = np.where(self.keys[places] == wanted, places, -1)[back.reshape(-1)]
        return found


def _summed(keys: Integers, columns: Floats) -> tuple[Integers, Floats]:
    """Return the distinct keys, rising, and the summed rows of each."""
    order = np.argsort(keys, kind="stable")
    in_order = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], in_order[1:] != in_order[:-1]])) if len(keys) else order
    return in_order[starts], np.add.reduceat(columns[order], starts, axis=0) if len(keys) else columns


def _of_most_rows(keys: Integers, sums: Floats, most: int) -> tuple[Integers, Floats]:
    groups, places = np.unique(keys // FOLDS, return_inverse=True)
    if len(groups) <= most:
        return keys, sums
    rows = np.bincount(places, sums[:, -1])
    kept = np.zeros(len(groups), np.bool_)
    kept[np.argpartition(-rows, most)[:most]] = True
    return keys[kept[places]], sums[kept[places]]


@dataclass(frozen=True)
class _Rows:
    """Training rows block by block, with their outcomes as the statistics have them.

    scale : mean and deviation of a regression's target; base : mean outcome of all rows
    """

    rows: CachedRows
    task: Task
    scale: tuple[float, float]
    base: Floats
    ordered: bool

    def values(self, target: Floats | Integers) -> Floats:
        """Return what is summed of targets, float64 (rows, outputs)."""
        return outcome_values(self.task, target, self.scale)

    def outcomes(self, start: int, stop: int) -> Outcomes:
        """Return the outcomes of some rows; weights relative to the mean of all."""
        weight = self.rows.column("weight", start, stop).astype(np.float64)
        mean = max(self.rows.known["weight"] / max(len(self.rows), 1), 1e-300)
        folds = self.rows.column("fold", start, stop).astype(np.int64)
        values = self.values(self.rows.column("target", start, stop))
        return Outcomes(values, weight / mean, folds, self.task.is_classification, self.ordered, self.base)

    def entries(self, f: int, start: int, stop: int) -> tuple[Integers, Outcomes]:
        """Return the features of a field in some rows, counted from its start, and the outcomes of each."""
        features, outcomes = self.rows.features(f, start, stop), self.outcomes(start, stop)
        own = features.ids.astype(np.int64) - self.rows.fields[f].start
        return own, outcomes if features.counts is None else outcomes.take(features.rows)


class _Columns:
    """Columns of statistics in a folder of their own, which goes when nothing reads them any more."""

    def __init__(self, beside: Path) -> None:
        prefix = f"statistics.{socket.gethostname()}.{os.getpid()}."
        self.path = Path(tempfile.mkdtemp(prefix=prefix, suffix=".part", dir=beside))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def write(self, name: str, dtype: Any, parts: Iterator[Any], *, width: int = 1) -> ColumnFile:
        """Write a column, piece after piece, and open it."""
        writer = ColumnWriter(self.path / name, dtype)
        try:
            for values in parts:
                writer.add(values)
            writer.close()
        except OSError as error:
            raise RunFolderError(
                f"The cache '{self.path.parent}' can't be written ({error.strerror}): make room there."
            ) from error
        column = ColumnFile(self.path / name, dtype, width)
        column.folder = self  # which must stay as long as it is read
        return column


@dataclass(frozen=True)
class StreamedStatistics:
    """What `enrich` says of rows in memory, of rows in a cache.

    composition, pairs, train, valid, straddling : see `attfm.train.statistics.Enriched`
    """

    composition: Composition
    pairs: BinnedPairs | None
    train: Dataset
    valid: Dataset | None
    straddling: tuple[tuple[int, int], ...]


def statistics_of(
    data: TrainingData, train: CachedDataset, encoder: Encoder, config: Config, *, rated: Sequence[int],
    most_pairs: int, chosen: Sequence[tuple[int, int]] | None,
) -> StreamedStatistics:  # fmt: skip
    """Return the statistics of training rows in a cache.

    Parameters
    ----------
    rated : fields whose features have rates
    most_pairs : how many field pairs may be remembered, 0: none
    chosen : those that are; None: those that earn it, as a sample of the rows tells
    """
    task, statistics = data.task, train.statistics
    mean, deviation = map(float, task.scale(statistics))
    totals = statistics.class_totals.numpy()
    base = np.zeros(1)
    if task.is_classification:
        shares = totals / totals.sum()
        base = shares[1:2] if len(task.outputs) == 1 else shares
    rows = _Rows(train.rows, task, (mean, deviation), base, data.grouping.times is not None)
    columns = _Columns(train.rows.folder.parent)
    composition, composed = _composed(rows, rated, encoder.n_features, columns)
    pairs, valid = None, data.valid
    bins: tuple[ColumnFile, ...] = ()
    straddling: tuple[tuple[int, int], ...] = ()
    if most_pairs:
        levels = PairLevels.of(encoder.fields, train.rows.counts_of_ordered)
        if chosen is None:
            screened = _screened(rows, data, train, levels, config.train.seed)
            straddling = tuple(pair.fields for pair in screened if pair.straddles)
            chosen = [pair.fields for pair in screened if pair.is_kept][:most_pairs]
        chosen = [(i, j) for i, j in chosen if int(levels.sizes[i]) * int(levels.sizes[j]) < _LARGEST_KEY]
        if chosen:
            pairs, bins, valid = _remembered(rows, data.valid, levels, chosen, config.model, columns)
    seen = torch.zeros(composition.rows, dtype=torch.bool)
    seen[: len(statistics.seen)] = statistics.seen
    seen[torch.from_numpy(composition.parts).flatten()] = True
    enriched = CachedDataset(replace(train.rows, composed=composed, bins=bins), replace(statistics, seen=seen))
    return StreamedStatistics(composition, pairs, enriched, valid, straddling)


def _composed(
    rows: _Rows, rated: Sequence[int], features: int, columns: _Columns
) -> tuple[Composition, dict[int, tuple[ColumnFile, int]]]:
    """Return the composition of the fields that have rates, and the columns of composed ids with what is added."""
    width = len(rows.base) + 2
    if not rated:
        none = np.empty((0, width), np.int64)
        return Composition(features, features, none, none, np.empty(0, np.int64)), {}
    fields = rows.rows.fields

    def gathered(f: int) -> Cells:
        cells = Cells(width, ordered=rows.ordered)
        for start, stop in rows.rows.blocks:
            own, outcomes = rows.entries(f, start, stop)
            cells.add(own, outcomes.folds, outcomes.columns)
        return cells

    def of_field(f: int, cells: Cells) -> FieldRates:
        some = rows.outcomes(0, 0)
        if fields[f].kind == "multi-valued":  # whose entries have a mean of their own
            total = cells.sums.sum(0)
            some = replace(some, mean=total[:-2] / max(total[-2], 1e-300))
        return FieldRates.of_groups(cells.grouped, fields[f].size, some)

    def numbered(f: int) -> tuple[Composition, ColumnFile]:
        """Return the composition of one field, and the column of its composed features, counted from 0."""
        cells = gathered(f)
        own = fields[f].start + cells.keys // FOLDS
        composition, (ids,) = Composition.of(features, [(fields[f].start, of_field(f, cells))], [own])
        ids -= composition.rows

        def parts() -> Iterator[Integers]:
            for start, stop in rows.rows.blocks:
                entries, outcomes = rows.entries(f, start, stop)
                yield ids[cells.find(entries, outcomes.folds)]

        return composition, columns.write(f"{f}.composed", np.uint32, parts())

    # Two fields at a time: the sums of all of them may take more memory than the model.
    with ThreadPoolExecutor(2) as threads:
        every = list(threads.map(numbered, rated))
    whole = Composition.joined([composition for composition, _ in every])
    starts = whole.rows + np.cumsum([0, *(len(composition.parts) for composition, _ in every)])
    return whole, {f: (column, int(start)) for f, (_, column), start in zip(rated, every, starts[:-1], strict=True)}


def _screened(rows: _Rows, data: TrainingData, train: CachedDataset, levels: PairLevels, seed: int) -> Any:
    """Return what pairs explain, as `screen` does, of samples of the training and of the validation rows."""
    examples, folds = _sampled(train, MOST_ROWS, seed)

    def summed(of: Examples) -> tuple[Floats, Floats]:
        return rows.values(of.target.numpy()), relative(of.weight.numpy())

    outcomes = Outcomes(*summed(examples), folds, data.task.is_classification, rows.ordered)
    held_out = None
    if isinstance(data.valid, CachedDataset):
        valid, _ = _sampled(data.valid, MOST_ROWS, seed)
        held_out = valid.rows, *summed(valid)
    return screen(examples.rows, outcomes, levels, held_out, seed=seed)


def _sampled(dataset: CachedDataset, most: int, seed: int) -> tuple[Examples, Integers]:
    """Return at most so many rows by chance, and their folds."""
    kept = np.arange(len(dataset))
    if len(dataset) > most:
        kept = np.sort(np.random.default_rng(seed).choice(len(dataset), most, replace=False))
    folds = dataset.rows.whole(lambda start, stop: dataset.rows.column("fold", start, stop))[kept]
    return dataset.take(kept).examples, folds.astype(np.int64)


def _remembered(
    rows: _Rows, valid: Dataset | None, levels: PairLevels, chosen: Sequence[tuple[int, int]], config: ModelConfig,
    columns: _Columns,
) -> tuple[BinnedPairs, tuple[ColumnFile, ...], Dataset | None]:  # fmt: skip
    """Return the value pairs of the chosen field pairs, and the bins of training and of validation rows."""
    pairs = np.array(sorted(chosen), np.int64)
    keys = levels.keys(pairs)
    outputs = len(rows.base)
    some, width = rows.outcomes(0, 0), outputs + 1
    held_out = valid.rows if isinstance(valid, CachedDataset) else None

    def levels_in(of: CachedRows, f: int, start: int, stop: int) -> Integers:
        return levels.of_feature[of.features(f, start, stop).ids].astype(np.int64)

    def gathered(groups: Callable[[int, int], Integers], most: int | None) -> Cells:
        cells = Cells(outputs + 2, ordered=rows.ordered, most=most)
        for start, stop in rows.rows.blocks:
            outcomes = rows.outcomes(start, stop)
            cells.add(groups(start, stop), outcomes.folds, outcomes.columns)
        return cells

    def single(f: int) -> tuple[Cells, SingleRates]:
        cells = gathered(lambda start, stop: levels_in(rows.rows, f, start, stop), None)
        return cells, SingleRates.of_groups(cells.grouped, int(levels.sizes[f]), some)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        fields = np.unique(pairs).tolist()
        singles = dict(zip(fields, threads.map(single, fields), strict=True))

        def of_pair(p: int) -> "_OfPair":
            i, j = pairs[p].tolist()
            one = PairKeys(pairs[p : p + 1], keys.width[p : p + 1], np.zeros(1, np.int64))
            cells = gathered(
                lambda start, stop: one.of(
                    0, levels_in(rows.rows, i, start, stop), levels_in(rows.rows, j, start, stop)
                ),
                config.memory_entries,
            )
            first, second = np.divmod(cells.keys // FOLDS, int(keys.width[p]))
            folds = cells.keys % FOLDS
            of_cells = tuple(
                SingleRates(rates.of_rows[found.find(level, folds)], rates.of_levels)
                for (found, rates), level in ((singles[i], first), (singles[j], second))
            )
            statistics = PairStatistics(one, 0, cells.grouped, (of_cells[0], of_cells[1]), some)
            least = _least_rows(cells.grouped.all_rows.rows, config, len(pairs))
            bins = statistics.bins(least_rows=least)
            of_cells_bins = np.column_stack(bins.find(statistics.of_rows, statistics.rows)).astype(np.uint8)
            none = np.zeros((1, width), np.uint8)
            of_cells_bins = np.concatenate([of_cells_bins, none])  # -1: a cell that was forgotten

            def of_training() -> Iterator[Any]:
                for start, stop in rows.rows.blocks:
                    group = one.of(0, levels_in(rows.rows, i, start, stop), levels_in(rows.rows, j, start, stop))
                    folds = rows.rows.column("fold", start, stop).astype(np.int64)
                    yield of_cells_bins[cells.find(group, folds)]

            def of_valid(held: CachedRows) -> Iterator[Any]:
                for start, stop in held.blocks:
                    statistic, n = statistics.elsewhere(
                        levels_in(held, i, start, stop), levels_in(held, j, start, stop)
                    )
                    yield np.column_stack(bins.find(statistic, n))

            frequent, first, second = statistics.known(least_rows=least)
            statistic, n = statistics.elsewhere(first, second)
            found = np.column_stack(bins.find(statistic, n)).astype(np.uint8)
            return _OfPair(
                bins, KnownPairs(frequent + keys.offset[p], np.full(len(frequent), p), found, n.astype(np.int64)),
                columns.write(f"{p}.bins", np.uint8, of_training(), width=width),
                None if held_out is None else columns.write(f"{p}.valid", np.uint8, of_valid(held_out), width=width),
            )  # fmt: skip

        every = list(threads.map(of_pair, range(len(pairs))))
    layout = BinLayout(outputs, len(pairs))
    for p, of in enumerate(every):
        layout.add(p, of.bins)
    binned = BinnedPairs(levels, keys, layout, KnownPairs.concatenate([of.known for of in every]))
    if held_out is not None:
        files = tuple(of.valid for of in every if of.valid is not None)
        valid = CachedDataset(replace(held_out, bins=files))
    return binned, tuple(of.train for of in every), valid


@dataclass(frozen=True)
class _OfPair:
    """What is made of one field pair."""

    bins: Any
    known: KnownPairs
    train: ColumnFile
    valid: ColumnFile | None


def _least_rows(rows: Floats, config: ModelConfig, pairs: int) -> int:
    """Return in how many rows a value pair must be to be remembered: each field pair has its share of the entries."""
    share = max(config.memory_entries // pairs, 1)
    if len(rows) <= share:
        return config.memory_min_count
    counts = np.bincount(rows.astype(np.int64), minlength=int(rows.max()) + 2)
    return max(config.memory_min_count, least_rows_for(counts, share))
