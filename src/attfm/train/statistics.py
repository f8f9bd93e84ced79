"""What a model learns from beside its ids: rates of ids, and the memory of value pairs, out of fold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from attfm.config import Config, ModelConfig
from attfm.data.batch import Batch
from attfm.data.cache import CachedDataset
from attfm.data.codecs.codec import FIRST_VALUE, Field
from attfm.data.codecs.grouped import Floats, Integers, Outcomes
from attfm.data.codecs.pairs import PairKeys, PairLevels, PairStatistics, PairSums, SingleRates, least_rows_for
from attfm.data.codecs.rates import Composition, FieldRates, RateSums
from attfm.data.dataset import Examples, InMemoryDataset, gathered
from attfm.data.dealing import FOLDS
from attfm.data.encoder import Encoder
from attfm.data.folds import Grouping
from attfm.model.knots import Knots, has_knots, knots_for
from attfm.model.modules import FactorizationMachine
from attfm.model.sums import TrainingSums, base_of
from attfm.train.outcomes import outcome_values, relative, total_of
from attfm.train.screening import screen
from attfm.train.statistical_machine import BinLayout, BinnedPairs, KnownPairs, StatisticalMachine
from attfm.train.streamed_statistics import renewed_bins, statistics_of
from attfm.train.trainer import TrainingData


@dataclass(frozen=True)
class Enriched:
    """Rows with the statistics that a machine learns from: composed ids and bins of remembered pairs.

    composition : of the ids that have rates; knots : of numeric fields, or None; pairs : what is remembered, or None
    data : what is trained on
    sums : by which the machine can learn on later
    straddling : fields of the pairs whose groups seem to stand on both sides of the split
    """

    composition: Composition
    knots: Knots | None
    pairs: BinnedPairs | None
    data: TrainingData
    sums: TrainingSums
    straddling: tuple[tuple[int, int], ...] = ()

    def machine(self, fields: int, outputs: int, config: ModelConfig) -> StatisticalMachine:
        """Return an untrained machine."""
        return StatisticalMachine(self.composition, self.knots, self.pairs, fields, outputs, config, self.sums)


Enriching = Callable[..., Enriched | None]  # as `enrich`


def enrich(
    data: TrainingData, encoder: Encoder, config: Config, *, chosen: Sequence[tuple[int, int]] | None = None,
    start: FactorizationMachine | None = None,
) -> Enriched | None:  # fmt: skip
    """Return the rows with the statistics that the settings ask for, or None where there are none.

    Statistics of the training rows are out of fold (of earlier folds, where rows are in order of time); those of
    validation rows are of all training rows.

    Parameters
    ----------
    chosen : field pairs to remember; None: those that earn it
    start : a machine that learns on: its fields and pairs keep their statistics, and earlier rows are among them
    """
    settings, task = config.train, data.task
    earlier = None if start is None else start.sums
    if start is not None:
        rated, chosen = ([], []) if earlier is None else (list(earlier.rates), list(earlier.pairs))
        most_pairs = len(chosen)
    else:
        most_pairs = int(config.model.of_task(task.name).memory_pairs)
        rated = [f for f, of in enumerate(encoder.fields) if settings.rates and is_rated(of, settings.rate_levels)]
    remembers = most_pairs > 0 and config.model.pairs and len(encoder.fields) > 1
    most = knots_for(settings.knots, len(data.train))
    knotted = has_knots(encoder.fields, most) or (earlier is not None and earlier.knots is not None)
    if not rated and not remembers and not knotted:
        return None
    kept = None if earlier is None else earlier.knots
    if isinstance(data.train, CachedDataset):
        if start is None and _one_fold(data.grouping):
            rated, remembers = [], False
        found = statistics_of(
            data, data.train, encoder, config, rated=rated, most_pairs=most_pairs if remembers else 0, chosen=chosen,
            start=start,
        )  # fmt: skip
        knots = knots_of(encoder, data.train.rows.counts_of_ordered, most) if knotted and kept is None else kept
        enriched = replace(data, train=found.train, valid=found.valid)
        sums = replace(found.sums, stored_knots=None if knots is None else knots.to_arrays())
        return Enriched(found.composition, knots, found.pairs, enriched, sums, found.straddling)
    examples = gathered(data.train)
    knots = kept
    if knotted and kept is None:
        knots = knots_of(encoder, feature_counts(encoder.fields, examples.rows), most)
    codes = examples.target.numpy() if task.is_classification else None
    folds = data.grouping.folds(len(examples), FOLDS, settings.seed, codes)
    if folds.count < 2 and start is None:  # all rows are of one group, or of one time
        rated, remembers = [], False
        if knots is None:
            return None
    mean, deviation = map(float, task.scale(data.train.statistics)) if earlier is None else earlier.scale

    def summed(of: Examples) -> tuple[Floats, Floats]:
        return outcome_values(task, of.target.double().numpy(), (mean, deviation)), relative(of.weight.numpy())

    outcomes = Outcomes(*summed(examples), folds.number, task.is_classification, folds.ordered, timed=folds.ordered)
    outcomes, sums = _with_total(outcomes, (mean, deviation), knots, earlier)
    ids, composition, rates = _composed(examples.rows, encoder.fields, rated, outcomes, encoder.n_features, earlier)
    sums = replace(sums, rates=rates)
    rows, pairs, valid = replace(examples.rows, ids=ids), None, None if data.valid is None else gathered(data.valid)
    straddling: tuple[tuple[int, int], ...] = ()
    if remembers:
        if start is not None and start.memory is not None:
            levels = start.memory.levels
        else:
            levels = PairLevels.of(encoder.fields, feature_counts(encoder.fields, examples.rows))
        held_out = None if valid is None else (valid.rows, *summed(valid))
        if chosen is None:
            screened = screen(examples.rows, outcomes, levels, held_out, seed=settings.seed)
            straddling = tuple(pair.fields for pair in screened if pair.straddles)
            chosen = [pair.fields for pair in screened if pair.is_kept][:most_pairs]
        if chosen:
            remembered = _remembered(examples.rows, valid, levels, chosen, outcomes, config.model, earlier)
            pairs, rows = remembered.pairs, replace(rows, bins=remembered.bins)
            valid = None if valid is None else replace(valid, rows=replace(valid.rows, bins=remembered.bins_of_valid))
            sums = replace(sums, levels=remembered.levels, pairs=remembered.sums)
    if pairs is None and not rated and not straddling and knots is None:
        return None
    train = InMemoryDataset(replace(examples, rows=rows))
    train = replace(train, given=replace(train.statistics, seen=_seen(train.statistics.seen, composition)))
    held = None if valid is None else InMemoryDataset(valid)
    return Enriched(composition, knots, pairs, replace(data, train=train, valid=held), sums, straddling)


def _with_total(
    outcomes: Outcomes, scale: tuple[float, float], knots: Knots | None, earlier: TrainingSums | None
) -> tuple[Outcomes, TrainingSums]:
    """Return outcomes whose base rate is that of all rows, earlier ones among them, and the sums over all rows."""
    total = outcomes.columns.sum(0) + (0 if earlier is None else earlier.total)
    sums = TrainingSums(total, scale, stored_knots=None if knots is None else knots.to_arrays())
    return outcomes if earlier is None else replace(outcomes, mean=sums.base), sums


def with_rows(
    sums: TrainingSums | None, data: TrainingData, encoder: Encoder, earlier: TrainingSums | None
) -> TrainingSums:
    """Return sums with how many training rows had each feature, and what is summed of all rows where nothing else is.

    data : before it was enriched; earlier : of a machine that has learned on
    """
    rows = np.zeros(encoder.n_features)
    for part in data.train.ordered():
        rows += np.bincount(part.rows.ids.flatten().numpy(), minlength=encoder.n_features)
    known = earlier is not None and len(earlier.rows) == len(rows)
    rows = rows + earlier.rows if earlier is not None and known else rows
    if sums is None:
        mean, deviation = map(float, data.task.scale(data.train.statistics)) if earlier is None else earlier.scale
        total = total_of(data.task, data.train.statistics, (mean, deviation))
        sums = TrainingSums(total if earlier is None else total + earlier.total, (mean, deviation))
    return replace(sums, rows=rows)


def _one_fold(grouping: Grouping) -> bool:
    """Return whether rows whose folds were dealt by groups or times are all of one."""
    known = grouping.times if grouping.groups is None else grouping.groups
    return known is not None and bool((known == known[0]).all())


def knots_of(encoder: Encoder, counts: Mapping[int, Integers], most: int) -> Knots:
    """Return the knots of the fields, as the training rows lie; counts : see `feature_counts`."""
    return Knots.of(encoder.fields, counts, [encoder.bin_edges(f) for f in range(len(encoder.fields))], most=most)


def feature_counts(fields: Sequence[Field], rows: Batch) -> dict[int, Integers]:
    """Return how many rows each feature of an ordered field has, int64 (size,), by field."""
    return {
        f: np.bincount(rows.field(f).ids - field.start, minlength=field.size)
        for f, field in enumerate(fields) if field.ordered
    }  # fmt: skip


def is_rated(field: Field, few: int) -> bool:
    """Return whether the features of a field get rates: those of more than a few categories without order."""
    return not field.ordered and field.kind in ("categorical", "multi-valued") and field.size - FIRST_VALUE > few


def _seen(composed: Tensor, composition: Composition) -> Tensor:
    """Return which rows of V some training row reads, bool (rows of V,), from which composed ids it has."""
    ids, rows = composed.nonzero()[:, 0], composition.rows
    seen = torch.zeros(rows, dtype=torch.bool)
    seen[ids[ids < rows]] = True
    seen[torch.from_numpy(composition.parts)[ids[ids >= rows] - rows].flatten()] = True
    return seen


def _composed(
    batch: Batch, fields: tuple[Field, ...], rated: list[int], outcomes: Outcomes, features: int,
    earlier: TrainingSums | None,
) -> tuple[Tensor, Composition, dict[int, RateSums]]:  # fmt: skip
    """Return the ids of the training rows, composed where their field has rates, the composition, and the sums."""
    ids = batch.ids.long().clone()
    rates, own, places = [], [], []
    for f in rated:
        entries = batch.field(f)
        numbers = entries.ids.astype(np.int64)
        of_entries = outcomes if entries.counts is None else outcomes.take(entries.rows)
        before = None if earlier is None else earlier.rates[f]
        if before is not None:
            of_entries = replace(of_entries, mean=base_of(of_entries.columns.sum(0) + before.columns.sum(0)))
        rates.append((fields[f].start, FieldRates.of(numbers - fields[f].start, fields[f].size, of_entries, before)))
        own.append(numbers)
        places.append((slice(None), f) if batch.offsets is None else batch.entries(f)[0])
    if not rated:
        width = outcomes.outputs + 2
        none = np.empty((0, width), np.int64)
        return batch.ids, Composition(features, features, none, none, np.empty(0, np.int64)), {}
    composition, composed = Composition.of(features, rates, own)
    for place, numbers in zip(places, composed, strict=True):
        ids[place] = torch.from_numpy(numbers)
    return ids.int(), composition, {f: of.sums for f, (_, of) in zip(rated, rates, strict=True)}


@dataclass(frozen=True)
class _Remembered:
    """The value pairs of the chosen field pairs, their bins in training and validation rows, and sums over rows."""

    pairs: BinnedPairs
    bins: Tensor
    bins_of_valid: Tensor | None
    levels: dict[int, Floats]
    sums: dict[tuple[int, int], PairSums]


def _remembered(
    batch: Batch, valid: Examples | None, levels: PairLevels, chosen: Sequence[tuple[int, int]], outcomes: Outcomes,
    config: ModelConfig, earlier: TrainingSums | None,
) -> _Remembered:  # fmt: skip
    pairs = np.array(sorted(chosen), np.int64)
    keys = levels.keys(pairs)
    own = {f: levels.of_rows(batch, f) for f in np.unique(pairs).tolist()}
    others = {} if valid is None else {f: levels.of_rows(valid.rows, f) for f in own}
    before = TrainingSums(np.empty(0), (0.0, 1.0)) if earlier is None else earlier
    singles = {f: SingleRates.of(own[f], int(levels.sizes[f]), outcomes, before.levels.get(f)) for f in own}
    width = outcomes.outputs + 1
    of_rows = np.zeros((len(batch), width, len(pairs)), np.uint8)
    of_valid = np.zeros((0 if valid is None else len(valid), width, len(pairs)), np.uint8)
    layout = BinLayout(outcomes.outputs, len(pairs))
    known: list[KnownPairs] = []
    sums: dict[tuple[int, int], PairSums] = {}
    least_rows = _least_rows(keys, own, config)
    for p, (i, j) in enumerate(pairs.tolist()):
        of_pair = before.pairs.get((i, j))
        statistics = PairStatistics.of(keys, p, (own[i], own[j]), (singles[i], singles[j]), outcomes, of_pair)
        bins = (
            statistics.bins(least_rows=least_rows)
            if of_pair is None
            else renewed_bins(statistics, of_pair, len(pairs), config)
        )
        layout.add(p, bins)
        of_rows[:, :, p] = np.column_stack(bins.find(statistics.of_rows, statistics.rows))
        if valid is not None:
            of_valid[:, :, p] = np.column_stack(bins.find(*statistics.elsewhere(others[i], others[j])))
        frequent, first, second = statistics.known(least_rows=bins.least_rows)
        statistic, rows = statistics.elsewhere(first, second)
        found = np.column_stack(bins.find(statistic, rows)).astype(np.uint8)
        known.append(KnownPairs(frequent, np.full(len(frequent), p), found, rows.astype(np.int64)))
        sums[i, j] = statistics.sums(bins)
    binned = BinnedPairs(levels, keys, layout, KnownPairs.concatenate(known))
    return _Remembered(
        binned, torch.from_numpy(of_rows), None if valid is None else torch.from_numpy(of_valid),
        {f: single.columns for f, single in singles.items()}, sums,
    )  # fmt: skip


def _least_rows(keys: PairKeys, levels: Mapping[int, Integers], config: ModelConfig) -> int:
    """Return in how many training rows a value pair must be to be remembered.

    That is `memory_min_count`; where it leaves more than `memory_entries` value pairs, the least number that leaves no
    more. Value pairs of equally many rows are kept or left out together, so that fewer may be remembered.

    Parameters
    ----------
    levels : int64 (rows,) for each field of the remembered pairs, of the training rows
    """
    rows = max(map(len, levels.values()))
    if rows * len(keys.pairs) <= config.memory_entries:  # there can't be more
        return config.memory_min_count
    of_rows = np.zeros(rows + 2, np.int64)  # how many value pairs have so many rows
    for p, (i, j) in enumerate(keys.pairs.tolist()):
        counts = np.unique(keys.of(p, levels[i], levels[j]), return_counts=True)[1]
        of_rows += np.bincount(counts, minlength=rows + 2)
    return max(config.memory_min_count, least_rows_for(of_rows, config.memory_entries))
