"""Categorical columns: one feature for each distinct value of the training rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from attfm.config import DataConfig
from attfm.data.arrow_columns import read_categories
from attfm.data.bad_values import BadValues
from attfm.data.batch import FieldFeatures
from attfm.data.codecs.codec import FIRST_VALUE, MISSING, UNKNOWN, Check, Codec, ColumnKind, Field, integer
from attfm.data.codecs.hashing import Buckets, hash_strings
from attfm.data.schema import Column, damaged


@dataclass(frozen=True)
class Vocabulary:
    """The known values of a field, large_string (size,), canonical and distinct, and how often each occurred."""

    values: pa.Array
    counts: NDArray[np.int64]

    @cached_property
    def _lookup(self) -> tuple[NDArray[np.uint64], NDArray[np.int64], bool]:
        # Sorted hashes (with their order, and whether some are the same) cost a small batch nothing to use, unlike
        # pyarrow's index_in.
        hashes = hash_strings(self.values)
        order = np.argsort(hashes)
        return hashes[order], order, bool((hashes[order[1:]] == hashes[order[:-1]]).any())

    @property
    def size(self) -> int:
        """Number of known values."""
        return len(self.values)

    def find(self, values: pa.Array) -> NDArray[np.int32]:
        """Return the number of each value's feature: UNKNOWN, MISSING, or from FIRST_VALUE on."""
        found = self._positions(values) + FIRST_VALUE
        found[found < FIRST_VALUE] = UNKNOWN
        if values.null_count:
            found[values.is_null().to_numpy(zero_copy_only=False)] = MISSING
        return found.astype(np.int32)

    def _positions(self, values: pa.Array) -> NDArray[np.int64]:
        """Return the position of each value, -1 where it is not in the vocabulary."""
        if self.size == 0:
            return np.full(len(values), -1, np.int64)
        known, order, collides = self._lookup
        if collides:
            return np.array(pc.fill_null(pc.index_in(values, self.values), -1), np.int64)
        hashes = hash_strings(values)
        slots = np.minimum(np.searchsorted(known, hashes), self.size - 1)
        positions = np.where(known[slots] == hashes, order[slots], -1)
        # An unseen value may have the hash of a known one.
        hits = np.flatnonzero(positions >= 0)
        same = pc.equal(self.values.take(pa.array(positions[hits])), values.take(pa.array(hits)))
        positions[hits[~pc.fill_null(same, False).to_numpy(zero_copy_only=False)]] = -1
        return positions

    def labels(self) -> list[str]:
        """Return the values as they are."""
        return list(self.values.to_pylist())

    def rows(self) -> dict[str, pa.Array]:
        """Return the columns value and count of the encoder file."""
        return {"value": self.values, "count": pa.array(self.counts)}

    @classmethod
    def from_rows(cls, field: str, rows: pa.Table) -> Self:
        """Return the vocabulary with these rows in the encoder file; raise RunFolderError where it can't be one."""
        if rows["value"].null_count or rows["count"].null_count:
            raise damaged(f"a value of field '{field}' is empty")
        values = pa.concat_arrays([pa.array([], pa.large_string()), *rows["value"].chunks])
        if len(values.unique()) < len(values):
            raise damaged(f"a value of field '{field}' occurs twice")
        return cls(values, rows["count"].to_numpy())


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


class CategoricalCodec(Codec):
    """One feature for each value of a vocabulary, or for each hash bucket."""

    def __init__(self, column: Column, values: Vocabulary | Buckets) -> None:
        self.column = column
        self.values = values
        self.fields = (Field(column.name, column.name, column.kind, FIRST_VALUE + values.size),)

    def encode(self, chunk: pa.Array, *, row: int, bad: BadValues) -> list[FieldFeatures]:
        codes, values = read_categories(chunk, column=self.column.name, bad=bad)
        feature_of = np.append(self.values.find(values), np.int32(MISSING))
        return [FieldFeatures(feature_of[codes])]

    def labels(self, field: int = 0) -> list[str]:
        return self.values.labels()

    def rows(self, field: int = 0) -> dict[str, pa.Array]:
        return self.values.rows()


class CategoricalLearner:
    """Counts the values of a categorical column."""

    codec_type: ClassVar[type[CategoricalCodec]] = CategoricalCodec

    def __init__(self, column: Column) -> None:
        self.column = column
        self._counter = Counter()

    def add(self, chunk: pa.Array, *, row: int, bad: BadValues) -> None:
        self.count(*read_categories(chunk, column=self.column.name, bad=bad))

    def count(self, codes: NDArray[Any], values: pa.Array) -> None:
        """Take in the codes of a chunk (-1 is missing) into its distinct values."""
        if self.column.hash_buckets is None:
            self._counter.add(codes, values)

    def codec(self) -> Codec:
        least, buckets = self.column.min_count or 1, self.column.hash_buckets
        known = self._counter.vocabulary(min_count=least) if buckets is None else Buckets(buckets)
        return self.codec_type(self.column, known)


class Categorical(ColumnKind):
    """Columns whose values have no order."""

    learner_type: ClassVar[type[CategoricalLearner]] = CategoricalLearner
    settings: ClassVar[Mapping[str, Check]] = {"min_count": integer(1, 2**31), "hash_buckets": integer(1, 2**31)}

    def defaults(self, config: DataConfig) -> dict[str, Any]:
        return {"min_count": config.min_count}

    def learner(self, column: Column, seed: list[int]) -> CategoricalLearner:
        return self.learner_type(column)

    def codec(self, column: Column, rows: Mapping[str, pa.Table]) -> Codec:
        name, buckets = column.name, column.hash_buckets
        known = Vocabulary.from_rows(name, rows[name]) if buckets is None else Buckets(buckets)
        return self.learner_type.codec_type(column, known)
