"""What people call the value of a field in a row, and on which of its values its effects are averaged."""

import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from attfm.data.batch import Batch, FieldFeatures
from attfm.data.codecs.codec import FIRST_VALUE
from attfm.data.codecs.numeric import Bins
from attfm.data.encoder import Encoder

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST_CUTS = 31  # of a scaled field, whose values are averaged within quantile bins


class Levels:
    """The levels of each field: what the conditional means of the background are kept for.

    A field with one feature a row has a level for each feature. A scaled field has the levels unknown, missing and
    its quantile bins. A multi-valued field has a level for each feature too, and a row has several of them.

    Attributes
    ----------
    cuts : dict of float64 arrays by field number, inner edges of the bins of each scaled field, in scaled units
    names, kinds : tuple of str, of the fields
    ordered : tuple of bool, whether neighbouring levels are neighbouring values
    sizes, offsets : int64 (fields,), number of levels of each field, and place of its first level among all
    """

    def __init__(self, encoder: Encoder, cuts: Mapping[int, Floats]) -> None:
        self.encoder = encoder
        self.cuts = cuts
        self.names = tuple(field.name for field in encoder.fields)
        self.kinds = tuple(field.kind for field in encoder.fields)
        self.ordered = tuple(field.ordered or field.kind == "scaled" for field in encoder.fields)
        sizes = [
            FIRST_VALUE + 1 + len(cuts[f]) if f in cuts else field.stop - field.start
            for f, field in enumerate(encoder.fields)
        ]
        self.sizes = np.array(sizes, np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(self.sizes)])[:-1].astype(np.int64)
        self._features: dict[int, NDArray[np.object_]] = {}

    @classmethod
    def of_rows(cls, encoder: Encoder, rows: Batch) -> "Levels":
        """Return the levels with the cuts of scaled fields at the quantiles of the rows."""
        cuts = {}
        for f, field in enumerate(encoder.fields):
            if field.kind == "scaled":
                features = rows.field(f)
                x = features.values[features.ids == field.start + FIRST_VALUE] if features.values is not None else ()
                inner = np.linspace(0, 1, MOST_CUTS + 2)[1:-1]
                cuts[f] = np.unique(np.quantile(np.asarray(x, np.float64), inner)) if len(x) else np.empty(0)
        return cls(encoder, cuts)

    def of(self, rows: Batch) -> Batch:
        """Return the levels of each row as ids, from 0 in each field; each once a row, with the summed x of a bag."""
        return Batch.of_fields([self.of_field(f, rows.field(f)) for f in range(rows.fields)])

    def of_field(self, f: int, features: FieldFeatures) -> FieldFeatures:
        """Return the levels of one field in some rows, as `of` does."""
        level = features.ids - np.int32(self.encoder.fields[f].start)
        if f in self.cuts and features.values is not None:
            known = level == FIRST_VALUE
            x = features.values[known].astype(np.float64)
            level[known] += np.searchsorted(self.cuts[f], x, side="right").astype(np.int32)
        if features.counts is None and self.encoder.fields[f].kind != "multi-valued":
            return FieldFeatures(level)
        rows = len(features.ids if features.counts is None else features.counts)
        return _once(FieldFeatures(level, features.values, features.counts), rows)

    def features(self, f: int) -> NDArray[np.object_]:
        """Return what a field's features are called, from its start, as an array of strings."""
        if f not in self._features:
            self._features[f] = np.array(self.encoder.feature_names(f), dtype=object)
        return self._features[f]

    def labels(self, f: int) -> list[str]:
        """Return what a field's levels are called."""
        if f not in self.cuts:
            return list(self.features(f))
        low, high = self.encoder.value_range(f)
        bins = Bins(low + self.cuts[f] * (high - low), low, high, np.full(len(self.cuts[f]) + 1, np.nan))
        return ["unknown", "missing", *bins.labels()]

    def edges(self, f: int) -> Floats | None:
        """Return the edges of an ordered field's bins in the column's unit, (bins + 1,); None for other fields."""
        if f not in self.cuts:
            return self.encoder.bin_edges(f)
        low, high = self.encoder.value_range(f)
        return np.concatenate([[low], low + self.cuts[f] * (high - low), [high]])

    def row_labels(self, rows: Batch) -> NDArray[np.object_]:
        """Return what each field's value is called in each row, (rows, fields) strings."""
        labels = np.empty((len(rows), rows.fields), dtype=object)
        for f, field in enumerate(self.encoder.fields):
            features = rows.field(f)
            level = features.ids - field.start
            names = self.features(f)[level]
            if field.kind == "scaled" and features.values is not None:
                low, high = self.encoder.value_range(f)
                known = np.flatnonzero(level == FIRST_VALUE)
                x = low + features.values[known].astype(np.float64) * (high - low)
                names[known] = [f"{value:.6g}" for value in x.tolist()]
            if features.counts is not None:
                offsets = np.concatenate([[0], np.cumsum(features.counts)]).tolist()
                labels[:, f] = [", ".join(names[a:b]) for a, b in itertools.pairwise(offsets)]
            else:
                labels[:, f] = names
        return labels


def _once(features: FieldFeatures, rows: int) -> FieldFeatures:
    """Return the levels of each row, rising, none twice, with summed weights."""
    code = features.rows * np.int64(2**31) + features.ids
    distinct, place = np.unique(code, return_inverse=True)
    weights = None if features.values is None else np.asarray(features.values, np.float64)
    summed = np.bincount(place.ravel(), weights, minlength=len(distinct)).astype(np.float32)
    counts = np.bincount(distinct >> 31, minlength=rows)
    return FieldFeatures((distinct & (2**31 - 1)).astype(np.int32), summed, counts)


def field_weights(levels: FieldFeatures) -> Floats:
    """Return the weight of each entry of a field's levels, float64 (entries,)."""
    return np.ones(len(levels.ids)) if levels.values is None else levels.values.astype(np.float64)


def level_sums(levels: FieldFeatures, values: Floats) -> Floats:
    """Return Σ weight · values[level] over each row's levels of one field, float64 (rows, outputs)."""
    if levels.counts is None and levels.values is None:
        return values[levels.ids]
    terms = field_weights(levels)[:, None] * values[levels.ids]
    rows = len(levels.ids) if levels.counts is None else len(levels.counts)
    columns = [np.bincount(levels.rows, term, minlength=rows) for term in terms.T]
    return np.stack(columns, axis=1).astype(np.float64)


def cells(first: FieldFeatures, second: FieldFeatures) -> tuple[Ints, Ints, Ints]:
    """Return row, level of the first and of the second field of each combination that a row has; int64 (cells,)."""
    if first.counts is None and second.counts is None:
        return first.rows, first.ids.astype(np.int64), second.ids.astype(np.int64)
    count = np.bincount(second.rows, minlength=int(first.rows[-1]) + 1 if len(first.ids) else 0)
    start = np.cumsum(count) - count
    times = count[first.rows]
    within = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    row = np.repeat(first.rows, times)
    return row, np.repeat(first.ids, times).astype(np.int64), second.ids[start[row] + within].astype(np.int64)
