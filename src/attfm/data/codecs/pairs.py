"""Pairs of values: which value pair a row has in two fields, and what the target was in the rows that had it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from attfm.data.batch import Batch
from attfm.data.codecs.codec import FIRST_VALUE, Field
from attfm.data.codecs.grouped import Earlier, Floats, Grouped, Integers, Outcomes, Totals
from attfm.data.codecs.rates import RATE_PRIOR, StatisticBins

PAIR_BINS = 32
NUMERIC_LEVELS = 32  # coarse bins of an ordered field, in pairs
_PAIR_PRIOR = 3.0  # rows of what the two values predict that every value pair begins with
_KINDS = ("categorical", "numeric")


@dataclass(frozen=True)
class PairLevels:
    """What counts as one value of a field in pairs: a category, or one of at most 32 coarse bins.

    Attributes
    ----------
    of_feature : int32 (features,), level of each feature id within its field
    sizes : int64 (fields,), number of levels; 0 of a field that takes no part (multi-valued and scaled ones)
    """

    of_feature: NDArray[np.int32]
    sizes: Integers

    @classmethod
    def of(cls, fields: Sequence[Field], counts: Mapping[int, Integers]) -> Self:
        """Return the levels of all fields.

        counts : how many training rows each feature of an ordered field has, int64 (size,), by field
        """
        level = np.zeros(fields[-1].stop if fields else 0, np.int32)
        sizes = np.zeros(len(fields), np.int64)
        for f, field in enumerate(fields):
            if field.kind not in _KINDS or field.size <= FIRST_VALUE:
                continue
            levels = np.arange(field.size)
            if field.ordered and field.size > NUMERIC_LEVELS + FIRST_VALUE:
                rows = counts[f][FIRST_VALUE:]
                middle = (np.cumsum(rows) - rows / 2) / max(rows.sum(), 1)
                coarse = np.minimum((middle * NUMERIC_LEVELS).astype(np.int64), NUMERIC_LEVELS - 1)
                levels[FIRST_VALUE:] = FIRST_VALUE + np.unique(coarse, return_inverse=True)[1].reshape(-1)
            level[field.start : field.stop] = levels
            sizes[f] = levels.max() + 1
        return cls(level, sizes)

    @property
    def fields(self) -> list[int]:
        """The fields that take part."""
        return np.flatnonzero(self.sizes).tolist()

    def of_rows(self, batch: Batch, field: int) -> Integers:
        """Return the level that each row has in a field that takes part, int64 (rows,)."""
        return self.of_feature[batch.field(field).ids].astype(np.int64)

    def keys(self, pairs: Integers) -> "PairKeys":
        """Return how value pairs of these field pairs, int64 (pairs, 2), are numbered."""
        first, second = self.sizes[pairs[:, 0]], self.sizes[pairs[:, 1]]
        # Fields have at most 2^31 features together, so that all products sum to less than 2^62.
        return PairKeys(pairs, second, np.cumsum(first * second) - first * second)


@dataclass(frozen=True)
class PairKeys:
    """One number for each pair of values of some field pairs: offset + first level · width + second level.

    pairs : int64 (pairs, 2), fields; width, offset : int64 (pairs,)
    """

    pairs: Integers
    width: Integers
    offset: Integers

    def of(self, pair: int, first: Integers, second: Integers) -> Integers:
        """Return the keys of the levels that rows have in the two fields."""
        keys: Integers = self.offset[pair] + first * self.width[pair] + second
        return keys


def least_rows_for(value_pairs: Integers, most: int) -> int:
    """Return the least number of training rows that at most `most` value pairs have.

    value_pairs : int64 (n,), how many value pairs have 0, 1, 2, ... rows; the last are 0
    """
    at_least = np.cumsum(value_pairs[::-1])[::-1]
    return int(np.argmax(at_least <= most))


@dataclass(frozen=True)
class SingleRates:
    """What single values predict: the logits of their shrunk rates, to which those of pairs are compared.

    Attributes
    ----------
    of_rows : float64 (rows, outputs), of each training row's level in a field, from the rows of the other folds
    of_levels : float64 (levels, outputs), of each level in rows that are no training rows
    columns : float64 (levels, outputs + 2), sums over the rows of each level, see `Totals.of`
    """

    of_rows: Floats
    of_levels: Floats
    columns: Floats

    @classmethod
    def of(cls, levels: Integers, size: int, outcomes: Outcomes, earlier: Floats | None = None) -> Self:
        """Return those of a field of so many levels, of which the training rows have `levels`, int64 (rows,).

        earlier : `columns` of earlier trainings
        """
        return cls.of_groups(Grouped.of(levels, outcomes), levels, size, outcomes, earlier)

    @classmethod
    def of_groups(
        cls, grouped: Grouped, own: Integers, size: int, outcomes: Outcomes, earlier: Floats | None = None
    ) -> Self:
        """Return those of levels as groups; `of_rows` is then what `grouped.others` is of: rows, or cells of them.

        own : int64 (rows or cells,), the level of each
        """
        grouped = grouped if earlier is None else grouped.after(Earlier.of_all(earlier), own)
        every = grouped.all_rows.take(grouped.find(np.arange(size)))
        return cls(
            outcomes.link(grouped.others.rate(outcomes.base, RATE_PRIOR)),
            outcomes.link(every.rate(outcomes.base, RATE_PRIOR)),
            every.columns,
        )


@dataclass(frozen=True)
class PairSums:
    """What trainings know of the value pairs of two fields.

    Attributes
    ----------
    first, second : int64 (n,), the levels of each value pair
    columns : float64 (n, outputs + 2), sums over the rows of each, see `Totals.of`
    bins : StatisticBins
    """

    first: Integers
    second: Integers
    columns: Floats
    bins: StatisticBins

    def earlier(self, keys: "PairKeys", pair: int) -> Earlier:
        """Return the sums by key, given the number of the field pair."""
        numbers = keys.of(pair, self.first, self.second)
        order = np.argsort(numbers)
        return Earlier(numbers[order], Totals.of(self.columns[order]))


class PairStatistics:
    """What the pairs of values of two fields say beyond their values.

    The statistic is logit(rate) - logit(π), rate = (Σy + prior · π) / (n + prior), where π is what the two values
    predict: logit(π) = logit(rate of the first) + logit(rate of the second) - logit(base rate).

    Parameters
    ----------
    keys, pair : PairKeys, and the number of the field pair in it
    grouped : Grouped, the training rows (or cells of them) by the keys of their value pairs
    singles : two SingleRates, of the two fields, of the same rows (or cells)
    outcomes : of the training rows

    Attributes
    ----------
    of_rows : float64 (rows, outputs), the statistic of the training rows: each from the rows of the other folds
    rows : float64 (rows,), how many these are
    """

    def __init__(
        self, keys: PairKeys, pair: int, grouped: Grouped, singles: tuple[SingleRates, SingleRates], outcomes: Outcomes
    ) -> None:
        self._keys, self._pair, self._singles, self._outcomes = keys, pair, singles, outcomes
        self._grouped = grouped
        self.of_rows = self._beyond(grouped.others, *(single.of_rows for single in singles))
        self.rows = grouped.others.rows

    @classmethod
    def of(
        cls,
        keys: PairKeys,
        pair: int,
        levels: tuple[Integers, Integers],
        singles: tuple[SingleRates, SingleRates],
        outcomes: Outcomes,
        earlier: PairSums | None = None,
    ) -> Self:
        """Return the statistics of training rows.

        levels : two int64 (rows,), theirs in the two fields; earlier : what earlier trainings know
        """
        own = keys.of(pair, *levels)
        grouped = Grouped.of(own, outcomes)
        grouped = grouped if earlier is None else grouped.after(earlier.earlier(keys, pair), own)
        return cls(keys, pair, grouped, singles, outcomes)

    def elsewhere(self, first: Integers, second: Integers) -> tuple[Floats, Floats]:
        """Return statistic (n, outputs) and count (n,) of levels in rows that are no training rows."""
        totals = self._grouped.all_rows.take(self._grouped.find(self._keys.of(self._pair, first, second)))
        one, other = self._singles
        return self._beyond(totals, one.of_levels[first], other.of_levels[second]), totals.rows

    def known(self, *, least_rows: int = 1) -> tuple[Integers, Integers, Integers]:
        """Return the keys of the value pairs of enough training rows, rising, and their levels in the two fields."""
        keys = self._grouped.keys[self._grouped.all_rows.rows >= least_rows]
        return keys, *np.divmod(keys - self._keys.offset[self._pair], self._keys.width[self._pair])

    def least_rows_within(self, most: int, *, at_least: int) -> int:
        """Return in how many rows value pairs must be that at most `most` of them are known."""
        rows = self._grouped.all_rows.rows.astype(np.int64)
        if len(rows) <= most:
            return at_least
        return max(at_least, least_rows_for(np.bincount(rows, minlength=int(rows.max()) + 2), most))

    def sums(self, bins: StatisticBins) -> PairSums:
        """Return what is known of the value pairs of enough training rows, given the bins."""
        keys, first, second = self.known(least_rows=bins.least_rows)
        return PairSums(first, second, self._grouped.all_rows.take(self._grouped.find(keys)).columns, bins)

    def bins(self, *, least_rows: int = 1) -> StatisticBins:
        """Return the bins of the statistic and of the counts."""
        return StatisticBins.of(
            self.of_rows, self.rows, bins=PAIR_BINS, least_rows=least_rows, times=self._grouped.times
        )

    def _beyond(self, totals: Totals, first: Floats, second: Floats) -> Floats:
        outcomes = self._outcomes
        expected = outcomes.inverse_link(first + second - outcomes.link(outcomes.base))
        beyond: Floats = outcomes.link(totals.rate(expected, _PAIR_PRIOR)) - outcomes.link(expected)
        return beyond
