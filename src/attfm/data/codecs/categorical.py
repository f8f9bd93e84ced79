"""Vocabularies: the distinct values of a column in training, each with its number."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from attfm.data.codecs.hashing import hash_strings

UNKNOWN, MISSING, FIRST_VALUE = 0, 1, 2  # the numbers of a field's features, from its start


@dataclass(frozen=True)
class Vocabulary:
    """The known values of a field.

    values : large_string array (size,), canonical and distinct
    counts : int64 (size,), how often each occurred in training
    """

    values: pa.Array
    counts: NDArray[np.int64]
    _hashes: NDArray[np.uint64] = field(init=False, repr=False)
    _order: NDArray[np.int64] = field(init=False, repr=False)
    _collides: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Sorted hashes are a lookup table that costs a small batch nothing to use, unlike pyarrow's index_in.
        hashes = hash_strings(self.values)
        order = np.argsort(hashes)
        object.__setattr__(self, "_hashes", hashes[order])
        object.__setattr__(self, "_order", order)
        object.__setattr__(self, "_collides", bool((hashes[order[1:]] == hashes[order[:-1]]).any()))

    @property
    def size(self) -> int:
        """Number of known values."""
        return len(self.values)

    def find(self, values: pa.Array) -> NDArray[np.int32]:
        """Return the number of each value's feature, int32 (distinct,): UNKNOWN, MISSING, or from FIRST_VALUE on."""
        found = self._positions(values) + FIRST_VALUE
        found[found < FIRST_VALUE] = UNKNOWN
        if values.null_count:
            found[values.is_null().to_numpy(zero_copy_only=False)] = MISSING
        return found.astype(np.int32)

    def _positions(self, values: pa.Array) -> NDArray[np.int64]:
        """Return the position of each value, int64 (distinct,), -1 where it is not in the vocabulary."""
        if self.size == 0:
            return np.full(len(values), -1, np.int64)
        if self._collides:
            positions = pc.fill_null(pc.index_in(values, self.values), -1)
            return np.array(positions, np.int64)
        hashes = hash_strings(values)
        slots = np.minimum(np.searchsorted(self._hashes, hashes), self.size - 1)
        positions = np.where(self._hashes[slots] == hashes, self._order[slots], -1)
        # An unseen value may have the hash of a known one.
        hits = np.flatnonzero(positions >= 0)
        same = pc.equal(self.values.take(pa.array(positions[hits])), values.take(pa.array(hits)))
        positions[hits[~pc.fill_null(same, False).to_numpy(zero_copy_only=False)]] = -1
        return positions

    def labels(self) -> list[str]:
        """Return the values as they are."""
        labels: list[str] = self.values.to_pylist()
        return labels


@dataclass(frozen=True)
class Buckets:
    """Hash buckets in place of a vocabulary that would be too large."""

    size: int

    def find(self, values: pa.Array) -> NDArray[np.int32]:
        """Return the number of each value's feature, int32 (distinct,): MISSING, or from FIRST_VALUE on."""
        found = (hash_strings(values) % np.uint64(self.size)).astype(np.int64) + FIRST_VALUE
        if values.null_count:
            found[values.is_null().to_numpy(zero_copy_only=False)] = MISSING
        return found.astype(np.int32)

    def labels(self) -> list[str]:
        """Return "bucket 0", "bucket 1", ..."""
        return [f"bucket {i}" for i in range(self.size)]


class Counter:
    """Counts the values of a column over batches."""

    _MERGE_ABOVE = 1 << 20

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []
        self._pending = 0
        self._merged = 0

    def add(self, codes: NDArray[Any], values: pa.Array) -> None:
        """Take in the codes of a batch's rows (-1 is missing) into its distinct values."""
        counts = np.bincount(codes[codes >= 0], minlength=len(values))
        part = pa.table({"value": values, "count": pa.array(counts.astype(np.int64))})
        self._parts.append(part.filter(pc.and_(pc.is_valid(part["value"]), pc.greater(part["count"], 0))))
        self._pending += len(values)
        if self._pending > max(self._MERGE_ABOVE, self._merged):
            self._merge()

    def _merge(self) -> pa.Table:
        table = pa.concat_tables(self._parts).group_by("value").aggregate([("count", "sum")])
        table = table.rename_columns(["value", "count"])
        self._parts, self._pending, self._merged = [table], 0, len(table)
        return table

    def vocabulary(self, *, min_count: int) -> Vocabulary:
        """Return the values that occurred at least `min_count` times, most frequent first, ties by value."""
        if not self._parts:
            return Vocabulary(pa.array([], pa.large_string()), np.empty(0, np.int64))
        table = self._merge()
        table = table.filter(pc.greater_equal(table["count"], min_count))
        table = table.sort_by([("count", "descending"), ("value", "ascending")]).combine_chunks()
        values = pa.concat_arrays([pa.array([], pa.large_string()), *table["value"].chunks])
        return Vocabulary(values, table["count"].to_numpy())
