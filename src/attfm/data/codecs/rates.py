"""What the target was in the rows of an id: rates and counts, of the other rows where a row is one of them itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RATE_BINS = 32
RATE_PRIOR = 10.0  # rows of the base rate that every id begins with
_MOST_DRAWN = 500_000  # training rows that bins are cut on, where these are told by cells
_LEAST_RATE = 1e-4  # rates nearer to 0 and 1 have the same logit


@dataclass(frozen=True)
class Outcomes:
    """What is predicted in the training rows, as numbers whose means are rates, and the folds of the rows.

    Attributes
    ----------
    values : float64 (rows, outputs)
        0 or 1: the second of two classes, or each of several; of a regression the standardised target.
    weight : float64 (rows,), relative, of mean 1
    folds : int64 (rows,), a row's statistics are those of the rows in other folds
    is_rate : bool, whether means lie between 0 and 1, and are compared as logits
    ordered : bool, whether a row's statistics are of rows in earlier folds only
    mean : float64 (outputs,) or None, that of all rows, where these are only some
    """

    values: Floats
    weight: Floats
    folds: Integers
    is_rate: bool
    ordered: bool = False
    mean: Floats | None = None

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return int(self.values.shape[1])

    @cached_property
    def base(self) -> Floats:
        """Mean of all rows, float64 (outputs,)."""
        mean: Floats = (self.weight @ self.values) / self.weight.sum() if self.mean is None else self.mean
        return mean

    @cached_property
    def columns(self) -> Floats:
        """What is summed of each row: weighted outcomes, weight, 1; float64 (rows, outputs + 2)."""
        return np.column_stack([self.values * self.weight[:, None], self.weight, np.ones(len(self.weight))])

    @cached_property
    def by_fold(self) -> tuple[Integers, Floats]:
        """Rows in order of their folds, int64 (rows,), and what is summed of each, float64 (rows, outputs + 2)."""
        weighted = self.columns
        order = np.argsort(self.folds, kind="stable")
        return order, weighted[order]

    def take(self, rows: Integers) -> Self:
        """Return the outcomes of the given rows, in their order; a row may come more than once."""
        return type(self)(self.values[rows], self.weight[rows], self.folds[rows], self.is_rate, self.ordered)

    def link(self, rate: Floats) -> Floats:
        """Return the logits of rates; means of a regression as they are."""
        if not self.is_rate:
            return rate
        rate = np.clip(rate, _LEAST_RATE, 1 - _LEAST_RATE)
        return np.log(rate / (1 - rate))

    def inverse_link(self, logit: Floats) -> Floats:
        """Return the rates of logits; means of a regression as they are."""
        return 1 / (1 + np.exp(-logit)) if self.is_rate else logit


@dataclass(frozen=True)
class Totals:
    """Sums over the rows of each of some groups.

    Attributes
    ----------
    sums : float64 (groups, outputs), weighted sums of the outcomes
    weight, rows : float64 (groups,), summed weight and number of the rows
    """

    sums: Floats
    weight: Floats
    rows: Floats

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, columns: Floats) -> Self:
        """Return the totals that columns of sums hold: of each output, of the weight, of the rows."""
        rows = np.round(columns[:, -1])
        weight = np.where(rows > 0, np.maximum(columns[:, -2], 0), 0)  # what is left of a difference is no weight
        return cls(np.where(rows[:, None] > 0, columns[:, :-2], 0), weight, rows)

    def take(self, groups: Integers) -> Self:
        """Return the totals of the given groups; nothing of the group -1."""
        known = groups >= 0
        places = np.where(known, groups, 0)
        if not len(self):
            return type(self)(np.zeros((len(groups), self.sums.shape[1])), *np.zeros((2, len(groups))))
        return type(self)(
            self.sums[places] * known[:, None], self.weight[places] * known, self.rows[places] * known
        )  # fmt: skip

    def spread(self, places: Integers, groups: Integers) -> Self:
        """Return the totals of rows: that of the row `places[n]` is the group `groups[n]`'s."""
        of_rows = np.empty(len(places), np.int64)
        of_rows[places] = groups
        return type(self)(self.sums[of_rows], self.weight[of_rows], self.rows[of_rows])

    def rate(self, towards: Floats, prior: float) -> Floats:
        """Return the mean outcomes, (groups, outputs), with `prior` rows whose outcome is `towards` added to each."""
        rate: Floats = (self.sums + prior * towards) / (self.weight + prior)[:, None]
        return rate


@dataclass(frozen=True)
class Grouped:
    """Statistics of groups of training rows.

    Attributes
    ----------
    keys : int64 (groups,), rising, of the groups that training rows have
    all_rows : Totals (groups,), of all training rows, for rows that are none of them
    others : Totals (rows,), for each training row those of its group's rows in the other (or earlier) folds
    times : float64 or None, how many rows each of `others` is of, where it is of cells: those of one group and fold
    """

    keys: Integers
    all_rows: Totals
    others: Totals
    times: Floats | None = None

    @classmethod
    def of(cls, keys: Integers, outcomes: Outcomes) -> Self:
        """Return the statistics of the groups that int64 (rows,) keys make."""
        by_fold, columns = outcomes.by_fold
        if not len(keys):
            none = Totals.of(np.zeros((0, outcomes.outputs + 2)))
            return cls(np.empty(0, np.int64), none, none)
        within = np.argsort(keys[by_fold], kind="stable")
        order = by_fold[within]
        sorted_keys, sorted_folds = keys[order], outcomes.folds[order]
        key_changes = np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1]])
        changes = key_changes | np.concatenate([[True], sorted_folds[1:] != sorted_folds[:-1]])
        starts = np.flatnonzero(changes)  # of the parts of a group in one fold
        parts = np.add.reduceat(columns[within], starts, axis=0)
        cells = cls.of_cells(sorted_keys[starts], parts, ordered=outcomes.ordered)
        return cls(cells.keys, cells.all_rows, cells.others.spread(order, np.cumsum(changes) - 1))

    @classmethod
    def of_cells(cls, keys: Integers, sums: Floats, *, ordered: bool) -> Self:
        """Return the statistics of groups that are summed by fold; `others` is then of the cells.

        Parameters
        ----------
        keys : int64 (cells,), of the group of each cell, rising; those of a group in order of their folds
        sums : float64 (cells, outputs + 2), see `Outcomes.by_fold`
        ordered : whether the others of a cell are those of earlier folds only
        """
        key_changes = np.concatenate([[True], keys[1:] != keys[:-1]])
        first_cells = np.flatnonzero(key_changes)
        totals = np.add.reduceat(sums, first_cells, axis=0)
        group = np.cumsum(key_changes) - 1
        if ordered:
            before = np.cumsum(sums, axis=0) - sums
            left = before - before[first_cells][group]
        else:
            left = totals[group] - sums
        return cls(keys[key_changes], Totals.of(totals), Totals.of(left), sums[:, -1])

    def find(self, keys: Integers) -> Integers:
        """Return the group of each key, int64; -1 where no training row has it."""
        if not len(self.keys):
            return np.full(len(keys), -1)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, places, -1)


@dataclass(frozen=True)
class StatisticBins:
    """Bins of a statistic of groups, and of their counts; bin 0 of each is that of groups that no row is known of.

    Attributes
    ----------
    edges : tuple of float64 arrays, for each output the edges between its bins from the second on
    most_rows : int, the last count bin; bin b holds counts from 2^b - 1 on
    least_rows : int, with fewer rows a group counts as unknown
    """

    edges: tuple[Floats, ...]
    most_rows: int
    least_rows: int = 1

    @classmethod
    def of(
        cls, statistic: Floats, rows: Floats, *, bins: int, least_rows: int = 1, times: Floats | None = None
    ) -> Self:
        """Return at most `bins` bins that share the training rows evenly, for each output.

        Parameters
        ----------
        statistic : float64 (rows, outputs), of each training row; rows : float64 (rows,), its count
        times : float64 (rows,) or None, how many training rows each of them stands for; None: itself
        """
        if times is not None and len(times):
            through = np.cumsum(times)
            draws = min(int(through[-1]), _MOST_DRAWN)
            drawn = np.searchsorted(through, (np.arange(draws) + 0.5) * (through[-1] / draws), side="right")
            statistic, rows = statistic[drawn], rows[drawn]
        known = rows >= max(least_rows, 1)
        quantiles = np.linspace(0, 1, bins + 1)[1:-1]
        edges = tuple(
            np.unique(np.quantile(column[known], quantiles)) if known.any() else np.empty(0) for column in statistic.T
        )
        most = int(np.log2(rows[known].max() + 1)) if known.any() else 0
        return cls(edges, most, least_rows)

    @property
    def sizes(self) -> list[int]:
        """Number of bins of each output."""
        return [len(edges) + 2 for edges in self.edges]

    @property
    def count_size(self) -> int:
        """Number of count bins."""
        return self.most_rows + 1

    def find(self, statistic: Floats, rows: Floats) -> tuple[Integers, Integers]:
        """Return the bins of statistics (groups, outputs), int64 of that shape, and of counts, int64 (groups,)."""
        known = rows >= max(self.least_rows, 1)
        columns = [
            np.where(known, np.searchsorted(edges, column, side="right") + 1, 0)
            for edges, column in zip(self.edges, statistic.T, strict=True)
        ]
        counts = np.minimum(np.log2(rows + 1).astype(np.int64), self.most_rows)
        return np.stack(columns, 1), np.where(known, counts, 0)


@dataclass(frozen=True)
class FieldRates:
    """The rate and count bins of one field's features.

    Attributes
    ----------
    bins : StatisticBins
    of_entries : int64 (entries, outputs + 1), rate bins and count bin of each training row's features, out of fold
    of_features : int64 (size, outputs + 1), those of the field's features in every other row
    """

    bins: StatisticBins
    of_entries: Integers
    of_features: Integers

    @classmethod
    def of(cls, features: Integers, size: int, outcomes: Outcomes) -> Self:
        """Return the bins of a field.

        Parameters
        ----------
        features : int64 (entries,), numbers within the field, 0 to size - 1
        outcomes : of the entries: what that of their row is
        """
        return cls.of_groups(Grouped.of(features, outcomes), size, outcomes)

    @classmethod
    def of_groups(cls, grouped: Grouped, size: int, outcomes: Outcomes) -> Self:
        """Return the bins of features as groups; `of_entries` is of what `grouped.others` is of: entries, or cells."""
        others, everywhere = grouped.others, grouped.all_rows.take(grouped.find(np.arange(size)))
        rates = [part.rate(outcomes.base, RATE_PRIOR) for part in (others, everywhere)]
        bins = StatisticBins.of(rates[0], others.rows, bins=RATE_BINS, times=grouped.times)
        of_entries, of_features = (
            np.column_stack(bins.find(rate, part.rows))
            for rate, part in zip(rates, (others, everywhere), strict=True)
        )  # fmt: skip
        return cls(bins, of_entries, of_features)

    @property
    def sizes(self) -> list[int]:
        """Number of bins of each rate, and of the count."""
        return [*self.bins.sizes, self.bins.count_size]


@dataclass(frozen=True)
class Composition:
    """Features that are sums: an id's embedding is V[id] + V[bin of its rate] + V[bin of its count].

    The bins are rows of V after the features, one field after the other. A composed feature is one distinct sum that
    training rows have; its id follows those of all rows of V.

    Attributes
    ----------
    features : int, ids of the encoder
    rows : int, rows of V: features and bins
    parts : int64 (composed, outputs + 2), rows of V that each composed feature is the sum of
    folded : int64 (n, outputs + 2), the same of every feature that has a rate, outside the training rows
    neighbours : int64 (n,), rows of V whose next is a neighbouring bin
    """

    features: int
    rows: int
    parts: Integers
    folded: Integers
    neighbours: Integers

    @classmethod
    def of(
        cls, features: int, fields: Sequence[tuple[int, FieldRates]], ids: Sequence[Integers]
    ) -> tuple[Self, list[Integers]]:
        """Return the composition of some fields, and the composed ids of their entries, field by field.

        Parameters
        ----------
        fields : of each the first feature id, and its rates
        ids : int64 (entries,) of each, feature ids of the training rows
        """
        rows, composed = features, 0
        parts, folded, neighbours, numbers = [], [], [], []
        for (start, rates), own in zip(fields, ids, strict=True):
            offsets = rows + np.concatenate([[0], np.cumsum(rates.sizes)])
            rows = int(offsets[-1])
            bins = rates.bins.sizes
            # Bin 0 of a rate is that of unknown ids, and has no neighbour.
            neighbours += [np.arange(at + 1, at + size - 1) for at, size in zip(offsets, bins, strict=False)]
            neighbours.append(np.arange(offsets[-2], rows - 1))
            every = start + np.arange(len(rates.of_features))
            folded.append(np.column_stack([every, rates.of_features + offsets[:-1]]))
            whole = np.column_stack([own, rates.of_entries + offsets[:-1]])
            distinct, place = _distinct_rows(whole)
            parts.append(distinct)
            numbers.append(composed + place)
            composed += len(distinct)
        return (
            cls(features, rows, np.concatenate(parts), np.concatenate(folded), np.concatenate(neighbours)),
            [rows + own for own in numbers],
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the composition of fields that were composed one by one, each as if it were the only one.

        The bins of each follow those of the one before, and so do its composed features.
        """
        features, rows = parts[0].features, parts[0].features
        moved: list[tuple[Integers, Integers, Integers]] = []
        for part in parts:
            shift = rows - features
            moved.append((_shifted(part.parts, shift), _shifted(part.folded, shift), part.neighbours + shift))
            rows += part.rows - features
        return cls(features, rows, *(np.concatenate(arrays) for arrays in zip(*moved, strict=True)))


def _shifted(rows: Integers, shift: int) -> Integers:
    """Return rows of V that are summed, (n, outputs + 2), with those of bins moved; the first is the id's own."""
    moved = rows.copy()
    moved[:, 1:] += shift
    return moved


def _distinct_rows(rows: Integers) -> tuple[Integers, Integers]:
    """Return the distinct rows of an array, and the place of each row among them."""
    low = rows.min(0, initial=0) if len(rows) else np.zeros(rows.shape[1], np.int64)
    spans = (rows.max(0, initial=0) - low + 1).tolist()
    key = np.zeros(len(rows), np.int64)
    for column, (least, span) in enumerate(zip(low, spans, strict=True)):
        key = key * span + (rows[:, column] - least)
        if column + 1 < len(spans):  # numbered again, so that no product of spans leaves 64 bits
            key = np.unique(key, return_inverse=True)[1].reshape(-1)
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    return rows[first], place.reshape(-1)
