"""What the target was in the rows of an id: rates and counts, of the other rows where a row is one of them itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from attfm.data.codecs.grouped import Earlier, Floats, Grouped, Integers, Outcomes, Totals

RATE_BINS = 32
RATE_PRIOR = 10.0  # rows of the base rate that every id begins with
_MOST_DRAWN = 500_000  # training rows that bins are cut on, where these are told by cells


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
class RateSums:
    """What trainings know of the features of one field.

    Attributes
    ----------
    columns : float64 (size, outputs + 2), sums over the rows of each, see `Totals.of`
    base : float64 (outputs,), towards which rates are shrunk
    bins : StatisticBins
    """

    columns: Floats
    base: Floats
    bins: StatisticBins

    @property
    def sizes(self) -> list[int]:
        """Number of bins of each rate, and of the count."""
        return [*self.bins.sizes, self.bins.count_size]

    @cached_property
    def of_features(self) -> Integers:
        """Rate bins and count bin of each feature in rows that are no training rows, int64 (size, outputs + 1)."""
        totals = Totals.of(self.columns)
        return np.column_stack(self.bins.find(totals.rate(self.base, RATE_PRIOR), totals.rows))


@dataclass(frozen=True)
class FieldRates:
    """The rate and count bins of one field's features.

    Attributes
    ----------
    sums : RateSums, of all rows
    of_entries : int64 (entries, outputs + 1), rate bins and count bin of each training row's features, out of fold
    """

    sums: RateSums
    of_entries: Integers

    @classmethod
    def of(cls, features: Integers, size: int, outcomes: Outcomes, earlier: RateSums | None = None) -> Self:
        """Return the bins of a field.

        Parameters
        ----------
        features : int64 (entries,), numbers within the field, 0 to size - 1
        outcomes : of the entries: what that of their row is
        earlier : what earlier trainings know of the features; its bins are kept
        """
        return cls.of_groups(Grouped.of(features, outcomes), features, size, outcomes, earlier)

    @classmethod
    def of_groups(
        cls, grouped: Grouped, own: Integers, size: int, outcomes: Outcomes, earlier: RateSums | None = None
    ) -> Self:
        """Return the bins of features as groups; `of_entries` is of what `grouped.others` is of: entries, or cells.

        own : int64 (entries or cells,), the feature of each
        """
        grouped = grouped if earlier is None else grouped.after(Earlier.of_all(earlier.columns), own)
        others, everywhere = grouped.others, grouped.all_rows.take(grouped.find(np.arange(size)))
        rates = others.rate(outcomes.base, RATE_PRIOR)
        if earlier is None:
            bins = StatisticBins.of(rates, others.rows, bins=RATE_BINS, times=grouped.times)
        else:
            bins = earlier.bins
        of_entries = np.column_stack(bins.find(rates, others.rows))
        return cls(RateSums(everywhere.columns, outcomes.base, bins), of_entries)


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
            offsets = rows + np.concatenate([[0], np.cumsum(rates.sums.sizes)])
            rows = int(offsets[-1])
            bins = rates.sums.bins.sizes
            # Bin 0 of a rate is that of unknown ids, and has no neighbour.
            neighbours += [np.arange(at + 1, at + size - 1) for at, size in zip(offsets, bins, strict=False)]
            neighbours.append(np.arange(offsets[-2], rows - 1))
            every = start + np.arange(len(rates.sums.of_features))
            folded.append(np.column_stack([every, rates.sums.of_features + offsets[:-1]]))
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
