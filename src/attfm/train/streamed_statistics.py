"""Rates and pair memory of rows that are not in memory: summed by value and fold, block by block."""

import glob
import os
import shutil
import socket
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attfm.config import Config, ModelConfig
from attfm.data.cache import CachedDataset, CachedRows
from attfm.data.codecs.grouped import Floats, Integers, Outcomes
from attfm.data.codecs.pairs import PairKeys, PairLevels, PairStatistics, PairSums, SingleRates
from attfm.data.codecs.rates import Composition, FieldRates, RateSums, StatisticBins
from attfm.data.column_file import ColumnFile, ColumnWriter
from attfm.data.dataset import Dataset, Examples
from attfm.data.dealing import FOLDS
from attfm.data.encoder import Encoder
from attfm.errors import RunFolderError
from attfm.model.modules import FactorizationMachine
from attfm.model.sums import TrainingSums, base_of
from attfm.model.task import Task
from attfm.train.begun import locked
from attfm.train.cells import Cells
from attfm.train.freed_memory import give_back
from attfm.train.outcomes import outcome_values, relative, total_of
from attfm.train.screening import MOST_ROWS, screen
from attfm.train.statistical_machine import BinLayout, BinnedPairs, KnownPairs
from attfm.train.trainer import TrainingData

_LARGEST_KEY = 2**63 // FOLDS
OF_PAIR_CELL = 250  # bytes of a value pair in one fold, while the sums of its field pair are made
_SUMS_AT_ONCE = 1_000_000_000  # bytes of these, of field pairs side by side


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
        return Outcomes(
            values, weight / mean, folds, self.task.is_classification, self.ordered, timed=self.ordered, mean=self.base
        )

    def entries(self, f: int, start: int, stop: int) -> tuple[Integers, Outcomes]:
        """Return the features of a field in some rows, counted from its start, and the outcomes of each."""
        features, outcomes = self.rows.features(f, start, stop), self.outcomes(start, stop)
        own = features.ids.astype(np.int64) - self.rows.fields[f].start
        return own, outcomes if features.counts is None else outcomes.take(features.rows)


# Of remembered pairs: by field those of its levels, and by two fields those of their value pairs.
_Sums = tuple[dict[int, Floats], dict[tuple[int, int], PairSums]]


class _Columns:
    """Columns of statistics in a folder of their own, which goes when nothing reads them any more.

    Where the process is killed it stays, and goes when the next one of this machine makes such a folder.
    """

    def __init__(self, beside: Path) -> None:
        start = f"statistics.{socket.gethostname()}."
        _remove_left(beside, start)
        new = Path(tempfile.mkdtemp(prefix=f"{start}{os.getpid()}.", suffix=".new", dir=beside))
        lock = locked(new)  # before others can see it
        self.path = new.rename(new.with_suffix(".part"))
        weakref.finalize(self, _remove, self.path, lock)

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


def _remove(folder: Path, lock: int | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        os.close(lock)


def _remove_left(beside: Path, start: str) -> None:
    """Remove the folders whose names begin so and whose process is no more."""
    for folder in beside.glob(f"{glob.escape(start)}*.part"):
        lock = locked(folder)
        if lock is not None:
            _remove(folder, lock)


@dataclass(frozen=True)
class StreamedStatistics:
    """What `enrich` says of rows in memory, of rows in a cache.

    composition, pairs, train, valid, sums, straddling : see `attfm.train.statistics.Enriched`
    """

    composition: Composition
    pairs: BinnedPairs | None
    train: Dataset
    valid: Dataset | None
    sums: TrainingSums
    straddling: tuple[tuple[int, int], ...]


def statistics_of(
    data: TrainingData, train: CachedDataset, encoder: Encoder, config: Config, *, rated: Sequence[int],
    most_pairs: int, chosen: Sequence[tuple[int, int]] | None, start: FactorizationMachine | None = None,
) -> StreamedStatistics:  # fmt: skip
    """Return the statistics of training rows in a cache.

    Parameters
    ----------
    rated : fields whose features have rates
    most_pairs : how many field pairs may be remembered, 0: none
    chosen : those that are; None: those that earn it, as a sample of the rows tells
    start : a machine that learns on, see `attfm.train.statistics.enrich`
    """
    task, statistics = data.task, train.statistics
    earlier = None if start is None else start.sums
    mean, deviation = map(float, task.scale(statistics)) if earlier is None else earlier.scale
    total = total_of(task, statistics, (mean, deviation))
    rows = _Rows(train.rows, task, (mean, deviation), base_of(total), data.grouping.times is not None)
    if earlier is not None:
        total = total + earlier.total
        rows = replace(rows, base=base_of(total))
    before = TrainingSums(total, (mean, deviation)) if earlier is None else replace(earlier, total=total)
    columns = _Columns(train.rows.folder.parent)
    composition, composed, rates = _composed(rows, rated, encoder.n_features, columns, before)
    sums = TrainingSums(total, (mean, deviation), rates)
    pairs, valid = None, data.valid
    bins: tuple[ColumnFile, ...] = ()
    straddling: tuple[tuple[int, int], ...] = ()
    if most_pairs:
        give_back()
        if start is not None and start.memory is not None:
            levels = start.memory.levels
        else:
            levels = PairLevels.of(encoder.fields, train.rows.counts_of_ordered)
        if chosen is None:
            screened = _screened(rows, data, train, levels, config.train.seed)
            straddling = tuple(pair.fields for pair in screened if pair.straddles)
            chosen = [pair.fields for pair in screened if pair.is_kept][:most_pairs]
        chosen = [(i, j) for i, j in chosen if int(levels.sizes[i]) * int(levels.sizes[j]) < _LARGEST_KEY]
        if chosen:
            give_back()
            pairs, bins, valid, of_pairs = _remembered(rows, data.valid, levels, chosen, config.model, columns, before)
            sums = replace(sums, levels=of_pairs[0], pairs=of_pairs[1])
    seen = torch.zeros(composition.rows, dtype=torch.bool)
    seen[: len(statistics.seen)] = statistics.seen
    seen[torch.from_numpy(composition.parts).flatten()] = True
    enriched = CachedDataset(replace(train.rows, composed=composed, bins=bins), replace(statistics, seen=seen))
    return StreamedStatistics(composition, pairs, enriched, valid, sums, straddling)


def _composed(
    rows: _Rows, rated: Sequence[int], features: int, columns: _Columns, before: TrainingSums
) -> tuple[Composition, dict[int, tuple[ColumnFile, int]], dict[int, RateSums]]:
    """Return the composition of the fields that have rates, the columns of composed ids and what is added, and sums."""
    width = len(rows.base) + 2
    if not rated:
        none = np.empty((0, width), np.int64)
        return Composition(features, features, none, none, np.empty(0, np.int64)), {}, {}
    fields = rows.rows.fields

    def gathered(f: int) -> Cells:
        cells = Cells(width)
        for start, stop in rows.rows.blocks:
            own, outcomes = rows.entries(f, start, stop)
            cells.add(own, outcomes.folds, outcomes.columns)
        return cells

    def of_field(f: int, cells: Cells) -> FieldRates:
        some, earlier = rows.outcomes(0, 0), before.rates.get(f)
        if earlier is not None:
            some = replace(some, mean=base_of(cells.sums.sum(0) + earlier.columns.sum(0)))
        elif fields[f].kind == "multi-valued":  # whose entries have a mean of their own
            some = replace(some, mean=base_of(cells.sums.sum(0)))
        return FieldRates.of_groups(cells.grouped(some), cells.keys // FOLDS, fields[f].size, some, earlier)

    def numbered(f: int) -> tuple[Composition, ColumnFile, RateSums]:
        """Return the composition of one field, the column of its composed features, counted from 0, and its sums."""
        cells = gathered(f)
        own, rates = fields[f].start + cells.keys // FOLDS, of_field(f, cells)
        composition, (ids,) = Composition.of(features, [(fields[f].start, rates)], [own])
        ids -= composition.rows

        def parts() -> Iterator[Integers]:
            for start, stop in rows.rows.blocks:
                entries, outcomes = rows.entries(f, start, stop)
                yield ids[cells.find(entries, outcomes.folds)]

        return composition, columns.write(f"{f}.composed", np.uint32, parts()), rates.sums

    # Two fields at a time: the sums of all of them may take more memory than the model.
    with ThreadPoolExecutor(2) as threads:
        every = list(threads.map(numbered, rated))
    whole = Composition.joined([composition for composition, _, _ in every])
    starts = whole.rows + np.cumsum([0, *(len(composition.parts) for composition, _, _ in every)])
    columns_of = {f: (of[1], int(start)) for f, of, start in zip(rated, every, starts[:-1], strict=True)}
    return whole, columns_of, {f: sums for f, (_, _, sums) in zip(rated, every, strict=True)}


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
    columns: _Columns, before: TrainingSums,
) -> tuple[BinnedPairs, tuple[ColumnFile, ...], Dataset | None, _Sums]:  # fmt: skip
    """Return the value pairs of the chosen field pairs, the bins of training and of validation rows, and the sums."""
    pairs = np.array(sorted(chosen), np.int64)
    keys = levels.keys(pairs)
    outputs = len(rows.base)
    some, width = rows.outcomes(0, 0), outputs + 1
    held_out = valid.rows if isinstance(valid, CachedDataset) else None

    def levels_in(of: CachedRows, f: int, start: int, stop: int) -> Integers:
        return levels.of_feature[of.features(f, start, stop).ids].astype(np.int64)

    def gathered(groups: Callable[[int, int], Integers], most: int | None) -> Cells:
        cells = Cells(outputs + 2, most=most)
        for start, stop in rows.rows.blocks:
            outcomes = rows.outcomes(start, stop)
            cells.add(groups(start, stop), outcomes.folds, outcomes.columns)
        return cells

    def single(f: int) -> tuple[Cells, SingleRates]:
        cells = gathered(lambda start, stop: levels_in(rows.rows, f, start, stop), None)
        own, earlier = cells.keys // FOLDS, before.levels.get(f)
        return cells, SingleRates.of_groups(cells.grouped(some), own, int(levels.sizes[f]), some, earlier)

    with ThreadPoolExecutor(pairs_at_once(len(rows.rows))) as threads:
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
                replace(rates, of_rows=rates.of_rows[found.find(level, folds)])
                for (found, rates), level in ((singles[i], first), (singles[j], second))
            )
            of_pair, grouped = before.pairs.get((i, j)), cells.grouped(some)
            if of_pair is not None:
                grouped = grouped.after(of_pair.earlier(one, 0), cells.keys // FOLDS)
            statistics = PairStatistics(one, 0, grouped, (of_cells[0], of_cells[1]), some)
            if of_pair is None:
                share = max(config.memory_entries // len(pairs), 1)
                least = statistics.least_rows_within(share, at_least=config.memory_min_count)
                bins = statistics.bins(least_rows=least)
            else:
                bins = renewed_bins(statistics, of_pair, len(pairs), config)
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

            frequent, first, second = statistics.known(least_rows=bins.least_rows)
            statistic, n = statistics.elsewhere(first, second)
            found = np.column_stack(bins.find(statistic, n)).astype(np.uint8)
            return _OfPair(
                statistics.sums(bins),
                KnownPairs(frequent + keys.offset[p], np.full(len(frequent), p), found, n.astype(np.int64)),
                columns.write(f"{p}.bins", np.uint8, of_training(), width=width),
                None if held_out is None else columns.write(f"{p}.valid", np.uint8, of_valid(held_out), width=width),
            )  # fmt: skip

        every = list(threads.map(of_pair, range(len(pairs))))
    layout = BinLayout(outputs, len(pairs))
    for p, of in enumerate(every):
        layout.add(p, of.sums.bins)
    binned = BinnedPairs(levels, keys, layout, KnownPairs.concatenate([of.known for of in every]))
    if held_out is not None:
        files = tuple(of.valid for of in every if of.valid is not None)
        valid = CachedDataset(replace(held_out, bins=files))
    sums = {(i, j): of.sums for (i, j), of in zip(pairs.tolist(), every, strict=True)}
    learned_from = {f: rates.columns for f, (_, rates) in singles.items()}, sums
    return binned, tuple(of.train for of in every), valid, learned_from


def pairs_at_once(rows: int) -> int:
    """Return how many field pairs' sums are made side by side: each may have a value pair in a fold for every row."""
    return int(np.clip(_SUMS_AT_ONCE // (OF_PAIR_CELL * max(rows, 1)), 2, max(os.cpu_count() or 1, 2)))


@dataclass(frozen=True)
class _OfPair:
    """What is made of one field pair."""

    sums: PairSums
    known: KnownPairs
    train: ColumnFile
    valid: ColumnFile | None


def renewed_bins(statistics: PairStatistics, earlier: PairSums, pairs: int, config: ModelConfig) -> StatisticBins:
    """Return the bins of an earlier training; what is known stays within the pair's share of the memory's entries."""
    share = max(config.memory_entries // pairs, 1)
    return replace(earlier.bins, least_rows=statistics.least_rows_within(share, at_least=earlier.bins.least_rows))
