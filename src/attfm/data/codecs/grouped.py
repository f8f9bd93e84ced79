"""What the target was in the rows of groups: sums over them, of the other rows where a row is one of them itself."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

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
    timed : bool, whether those are earlier times: what is known of a group then is told as it would be of all rows
    mean : float64 (outputs,) or None, that of all rows, where these are only some
    """

    values: Floats
    weight: Floats
    folds: Integers
    is_rate: bool
    ordered: bool = False
    timed: bool = False
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
        return replace(self, values=self.values[rows], weight=self.weight[rows], folds=self.folds[rows], mean=None)

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
        """Return the totals that columns of sums hold: of each output, of the weight, of the rows.

        What fades is as nothing below half a row.
        """
        rows = np.round(columns[:, -1])
        weight = np.where(rows > 0, np.maximum(columns[:, -2], 0), 0)  # what is left of a difference is no weight
        return cls(np.where(rows[:, None] > 0, columns[:, :-2], 0), weight, rows)

    @property
    def columns(self) -> Floats:
        """The columns that `of` takes, float64 (groups, outputs + 2)."""
        return np.column_stack([self.sums, self.weight, self.rows])

    def __add__(self, other: Self) -> Self:
        return type(self)(self.sums + other.sums, self.weight + other.weight, self.rows + other.rows)

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
            return cls.of_cells(keys, outcomes.folds, columns, outcomes)
        within = np.argsort(keys[by_fold], kind="stable")
        order = by_fold[within]
        sorted_keys, sorted_folds = keys[order], outcomes.folds[order]
        key_changes = np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1]])
        changes = key_changes | np.concatenate([[True], sorted_folds[1:] != sorted_folds[:-1]])
        starts = np.flatnonzero(changes)  # of the parts of a group in one fold
        parts = np.add.reduceat(columns[within], starts, axis=0)
        cells = cls.of_cells(sorted_keys[starts], sorted_folds[starts], parts, outcomes)
        return cls(cells.keys, cells.all_rows, cells.others.spread(order, np.cumsum(changes) - 1))

    @classmethod
    def of_cells(cls, keys: Integers, folds: Integers, sums: Floats, outcomes: Outcomes) -> Self:
        """Return the statistics of groups that are summed by fold; `others` is then of the cells.

        Parameters
        ----------
        keys : int64 (cells,), of the group of each cell, rising; those of a group in order of their folds
        folds : int64 (cells,), of each
        sums : float64 (cells, outputs + 2), see `Outcomes.by_fold`
        outcomes : of some of the rows, or of none: which folds a cell's others are of is told by them
        """
        if not len(keys):
            none = Totals.of(np.zeros((0, outcomes.outputs + 2)))
            return cls(np.empty(0, np.int64), none, none)
        key_changes = np.concatenate([[True], keys[1:] != keys[:-1]])
        first_cells = np.flatnonzero(key_changes)
        totals = np.add.reduceat(sums, first_cells, axis=0)
        group = np.cumsum(key_changes) - 1
        if outcomes.ordered:
            before = np.cumsum(sums, axis=0) - sums
            left = before - before[first_cells][group]
        else:
            left = totals[group] - sums
        others = Totals.of(left)
        if outcomes.timed:
            others = _as_of_all(others, folds, sums, is_rate=outcomes.is_rate)
        # A copy, not a view, which would hold all sums.
        return cls(keys[key_changes], Totals.of(totals), others, sums[:, -1].copy())

    def after(self, earlier: "Earlier", own: Integers) -> Self:
        """Return the statistics of these rows and of earlier ones, which are others to all of these.

        own : int64 (rows or cells,), the key of each of `others`
        """
        keys = np.union1d(self.keys, earlier.keys)
        before = Grouped(earlier.keys, earlier.totals, earlier.totals)
        every = self.all_rows.take(self.find(keys)) + earlier.totals.take(before.find(keys))
        return type(self)(keys, every, self.others + earlier.totals.take(before.find(own)), self.times)

    def find(self, keys: Integers) -> Integers:
        """Return the group of each key, int64; -1 where no training row has it."""
        if not len(self.keys):
            return np.full(len(keys), -1)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, places, -1)


def _as_of_all(earlier: Totals, folds: Integers, sums: Floats, *, is_rate: bool) -> Totals:
    """Return totals of earlier times as they would be of all rows, of which new rows will have theirs.

    The first rows have short histories, of a time when the target was another. That says when they were and nothing of
    their groups, so that counts are scaled as all rows are to the earlier ones, and means moved (those of rates as
    logits) by what all rows differ from these.

    Parameters
    ----------
    earlier : Totals (cells,), of the rows of each cell's group in earlier folds
    folds, sums : of the cells, see `Grouped.of_cells`
    """
    of_fold = np.stack([np.bincount(folds, column) for column in sums.T], 1)
    total = of_fold.sum(0)
    before = (np.cumsum(of_fold, axis=0) - of_fold)[folds]
    known = before[:, -2] > 0
    weight = np.where(known, before[:, -2], 1.0)[:, None]
    past, whole = before[:, :-2] / weight, total[:-2] / max(total[-2], 1e-300)
    mean = earlier.sums / np.where(earlier.weight > 0, earlier.weight, 1.0)[:, None]
    if is_rate:
        past, whole = (np.clip(rate, _LEAST_RATE, 1 - _LEAST_RATE) for rate in (past, whole))
        odds = mean * whole * (1 - past)
        rest = (1 - mean) * (1 - whole) * past
        moved = odds / np.where(odds + rest > 0, odds + rest, 1.0)
    else:
        moved = mean + whole - past
    sums = np.where(known[:, None], moved * earlier.weight[:, None], earlier.sums)
    longer = np.where(before[:, -1] > 0, total[-1] / np.maximum(before[:, -1], 1.0), 1.0)
    return Totals(sums, earlier.weight, earlier.rows * longer)


@dataclass(frozen=True)
class Earlier:
    """Sums of earlier trainings over the rows of groups: keys, int64 (groups,), rising; totals of each."""

    keys: Integers
    totals: Totals

    @classmethod
    def of_all(cls, columns: Floats) -> Self:
        """Return those of the groups 0, 1, 2, ..., whose columns of sums are given."""
        return cls(np.arange(len(columns)), Totals.of(columns))
