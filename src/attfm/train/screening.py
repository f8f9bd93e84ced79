"""Which field pairs are remembered: those that explain what no single field does, in training and validation rows."""

import itertools
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from attfm.data.batch import Batch
from attfm.data.codecs.codec import FIRST_VALUE
from attfm.data.codecs.grouped import Floats, Grouped, Integers, Outcomes
from attfm.data.codecs.pairs import PairLevels, PairStatistics, SingleRates
from attfm.data.codecs.rates import RATE_BINS, RATE_PRIOR, StatisticBins

MOST_ROWS = 50_000  # rows that pairs are screened on
LEAST_GAIN = 3.0  # nats
# Below this correlation of a row's target with the rates of the others of its group, what was seen of groups says the
# opposite of what is to come: rows of one group stand on both sides.
_LEAST_RELATION = -0.1
_MOST_EXPLAINED = 0.8  # share of the loss that no pair explains by honest means
_ROUNDS = 8
_EFFECT_PRIOR = 2.0  # ridge of the additive model's effects, in rows
_FEW_LEVELS = 20  # of a field whose values are effects of their own in the additive model


@dataclass(frozen=True)
class ScreenedPair:
    """What one field pair explains beyond main effects.

    Attributes
    ----------
    fields : tuple of int, the two
    gain : float, decrease of the summed loss of the training rows in nats, less half a nat a bin
    valid_gain : float or None, decrease of the summed loss of the validation rows; None without any
    share : float, gain as a share of the loss of the training rows
    relation : float
        Correlation of the out-of-fold statistic with what is left to explain; NaN where the gain is too small to ask.
    """

    fields: tuple[int, int]
    gain: float
    valid_gain: float | None
    share: float
    relation: float = math.nan

    @property
    def straddles(self) -> bool:
        """Whether rows of one group seem to stand on both sides of the folds, and of every split by row."""
        return self.gain > LEAST_GAIN and (self.relation < _LEAST_RELATION or self.share > _MOST_EXPLAINED)

    @property
    def is_kept(self) -> bool:
        """Whether the pair earns a memory."""
        honest = not self.relation < _LEAST_RELATION
        return honest and self.gain > LEAST_GAIN and (self.valid_gain is None or self.valid_gain > 0)


@dataclass(frozen=True)
class _Residual:
    """What an additive model leaves to explain: logits, targets and weights, each float64 (rows, outputs)."""

    logits: Floats
    values: Floats
    weight: Floats
    is_rate: bool

    def gain(self, steps: Sequence[Floats], bins: Integers) -> float:
        """Return by how much the summed loss falls when each bin takes its step; bins : int64 (rows, outputs)."""
        step = np.stack([of_output[column] for of_output, column in zip(steps, bins.T, strict=True)], 1)
        return float(((self._losses(self.logits) - self._losses(self.logits + step)) * self.weight).sum())

    def loss(self) -> float:
        """Return the summed loss of all rows."""
        return float((self._losses(self.logits) * self.weight).sum())

    def correlation(self, statistic: Floats) -> float:
        """Return the lowest correlation, over the outputs, of a statistic (rows, outputs) with what is left."""
        mean = 1 / (1 + np.exp(-self.logits)) if self.is_rate else self.logits
        left = (self.values - mean) * self.weight
        if not (len(left) > 1 and statistic.std(0).all() and left.std(0).all()):
            return 0.0
        return float(min(np.corrcoef(a, b)[0, 1] for a, b in zip(statistic.T, left.T, strict=True)))

    def _losses(self, z: Floats) -> Floats:
        losses: Floats = np.logaddexp(0, z) - self.values * z if self.is_rate else 0.5 * (z - self.values) ** 2
        return losses

    def newton(self, bins: Integers, size: int, output: int, prior: float) -> tuple[Floats, Floats]:
        """Return gradient and curvature of each bin, float64 (size,), for one output."""
        mean = 1 / (1 + np.exp(-self.logits[:, output])) if self.is_rate else self.logits[:, output]
        weight = self.weight[:, output]
        gradient = np.bincount(bins, weight * (self.values[:, output] - mean), size).astype(np.float64)
        curvature = np.bincount(bins, weight * (mean * (1 - mean) if self.is_rate else 1.0), size) + prior
        return gradient, curvature.astype(np.float64)

    @classmethod
    def of(cls, outcomes: Outcomes, weight: Floats) -> Self:
        """Return the residual of the base rate."""
        start = np.broadcast_to(outcomes.link(outcomes.base), outcomes.values.shape).copy()
        columns = np.broadcast_to(weight[:, None], outcomes.values.shape)
        return cls(start, outcomes.values, columns, outcomes.is_rate)


def screen(
    batch: Batch, outcomes: Outcomes, levels: PairLevels, valid: tuple[Batch, Floats, Floats] | None, *, seed: int
) -> list[ScreenedPair]:
    """Return what every pair of fields that take part explains, the best first.

    A row's statistics are those of the rows before it, in a random order (of time, where the folds are): out-of-fold
    ones are negatively related to the row's own target, which looks like a gain on any target.

    Parameters
    ----------
    batch, outcomes : the training rows
    valid : rows, values (rows, outputs) and weights (rows,) of validation rows, or None
    """
    rng = np.random.default_rng(seed)
    rows = np.arange(len(batch))
    if len(rows) > MOST_ROWS:
        rows = np.sort(rng.choice(len(rows), MOST_ROWS, replace=False))
    place = np.empty(len(rows), np.int64)
    first = outcomes.folds[rows] if outcomes.ordered else np.zeros(len(rows), np.int64)
    place[np.lexsort((rng.random(len(rows)), first))] = np.arange(len(rows))
    before = Outcomes(outcomes.values[rows], outcomes.weight[rows], place, outcomes.is_rate, ordered=True)
    out_of_fold = outcomes.take(rows)
    fields = levels.fields
    own = {f: levels.of_rows(batch, f)[rows] for f in fields}
    others = None if valid is None else {f: levels.of_rows(valid[0], f) for f in fields}
    singles = {f: SingleRates.of(own[f], int(levels.sizes[f]), before) for f in fields}
    trained, held_out = _additive(own, others, levels, before, valid)

    def judge(pair: tuple[int, int]) -> ScreenedPair:
        i, j = pair
        keys = levels.keys(np.array([pair]))
        statistics = PairStatistics.of(keys, 0, (own[i], own[j]), (singles[i], singles[j]), before)
        bins = statistics.bins()
        found, _ = bins.find(statistics.of_rows, statistics.rows)
        steps = [
            _steps(trained, column, size, o) for o, (column, size) in enumerate(zip(found.T, bins.sizes, strict=True))
        ]
        gain = trained.gain(steps, found) - 0.5 * sum(bins.sizes)
        share = gain / max(trained.loss(), 1e-300)
        if held_out is None or others is None:
            return ScreenedPair(pair, gain, None, share)
        there, _ = bins.find(*statistics.elsewhere(others[i], others[j]))
        return ScreenedPair(pair, gain, held_out.gain(steps, there), share)

    def related(pair: ScreenedPair) -> ScreenedPair:
        i, j = pair.fields
        keys = levels.keys(np.array([pair.fields]))
        singles_of = [SingleRates.of(own[f], int(levels.sizes[f]), out_of_fold) for f in (i, j)]
        statistics = PairStatistics.of(keys, 0, (own[i], own[j]), (singles_of[0], singles_of[1]), out_of_fold)
        return replace(pair, relation=trained.correlation(statistics.of_rows))

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        judged = sorted(threads.map(judge, itertools.combinations(fields, 2)), key=lambda pair: -pair.gain)
        promising = [pair for pair in judged if pair.gain > LEAST_GAIN]
        return [*threads.map(related, promising), *judged[len(promising) :]]


def _steps(residual: _Residual, bins: Integers, size: int, output: int) -> Floats:
    gradient, curvature = residual.newton(bins, size, output, 1.0)
    steps: Floats = gradient / curvature
    return steps


def _additive(
    own: dict[int, Integers],
    others: dict[int, Integers] | None,
    levels: PairLevels,
    outcomes: Outcomes,
    valid: tuple[Batch, Floats, Floats] | None,
) -> tuple[_Residual, _Residual | None]:
    """Fit effects of single fields by Newton steps, one field after the other; return what they leave to explain.

    Fields of many levels have effects of the bins of their rate and count: an effect of each level would know the
    targets of its rows.
    """
    trained = _Residual.of(outcomes, outcomes.weight)
    held_out = None
    if valid is not None:
        start = np.broadcast_to(outcomes.link(outcomes.base), valid[1].shape).copy()
        columns = np.broadcast_to(valid[2][:, None], valid[1].shape)
        held_out = _Residual(start, valid[1], columns, outcomes.is_rate)
    terms = [
        term
        for f in own
        for term in _terms(own[f], None if others is None else others[f], int(levels.sizes[f]), outcomes)
    ]
    for output in range(outcomes.outputs):
        effects = [np.zeros(term.sizes[output]) for term in terms]
        for _ in range(_ROUNDS):
            for effect, term in zip(effects, terms, strict=True):
                bins = term.own[:, output]
                gradient, curvature = trained.newton(bins, term.sizes[output], output, _EFFECT_PRIOR)
                step = (gradient - _EFFECT_PRIOR * effect) / curvature
                effect += step
                trained.logits[:, output] += step[bins]
        for effect, term in zip(effects, terms, strict=True):
            if held_out is not None and term.others is not None:
                held_out.logits[:, output] += effect[term.others[:, output]]
    return trained, held_out


@dataclass(frozen=True)
class _Term:
    """A term of the additive model: bins of the rows, int64 (rows, outputs), and their number for each output."""

    own: Integers
    others: Integers | None
    sizes: Sequence[int]


def _terms(own: Integers, others: Integers | None, size: int, outcomes: Outcomes) -> list[_Term]:
    """Return the terms of a field: its levels where they are few, else bins of their rates and of their counts."""

    def each(bins: Integers) -> Integers:
        return np.broadcast_to(bins[:, None], (len(bins), outcomes.outputs))

    if size <= _FEW_LEVELS + FIRST_VALUE:
        return [_Term(each(own), None if others is None else each(others), [size] * outcomes.outputs)]
    grouped = Grouped.of(own, outcomes)
    rates = grouped.others.rate(outcomes.base, RATE_PRIOR)
    bins = StatisticBins.of(rates, grouped.others.rows, bins=RATE_BINS)
    found, counts = bins.find(rates, grouped.others.rows)
    there = there_counts = None
    if others is not None:
        totals = grouped.all_rows.take(grouped.find(others))
        there, binned = bins.find(totals.rate(outcomes.base, RATE_PRIOR), totals.rows)
        there_counts = each(binned)
    return [
        _Term(found, there, bins.sizes),
        _Term(each(counts), there_counts, [bins.count_size] * outcomes.outputs),
    ]  # fmt: skip
