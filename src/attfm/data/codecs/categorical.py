"""Categorical columns: one feature for each distinct value of the training rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from attfm.config import DataConfig
from attfm.data.arrow_columns import read_categories
from attfm.data.arrow_types import is_text, value_type
from attfm.data.bad_values import BadValues
from attfm.data.batch import FieldFeatures
from attfm.data.codecs.codec import (
    FIRST_VALUE,
    MISSING,
    UNKNOWN,
    Check,
    Codec,
    ColumnKind,
    Cuts,
    Field,
    Lookup,
    Renewal,
    Scale,
    integer,
)
from attfm.data.codecs.hashing import Buckets, HashIndex, hash_strings
from attfm.data.schema import Column, damaged
from attfm.data.spellings import SPELLINGS

_POINT_ZERO = r"^([+-]?\d+)\.0+$"


@dataclass(frozen=True)
class Vocabulary:
    """The known values of a field.

    Attributes
    ----------
    values : large_string (size,), canonical and distinct
    counts : int64 (size,), how often each occurred
    days : int32 (size,) or None, when each was seen last, in days since 1970; None: all in the one training
    """

    values: pa.Array
    counts: NDArray[np.int64]
    days: NDArray[np.int32] | None = None

    @cached_property
    def _index(self) -> HashIndex:
        return HashIndex(hash_strings(self.values))

    @cached_property
    def has_whole(self) -> bool:
        """Whether some values are whole numbers, and none is one with zeros behind its point."""
        whole = pc.any(pc.match_substring_regex(self.values, r"^[+-]?\d+$")).as_py()
        return bool(whole) and not pc.any(pc.match_substring_regex(self.values, _POINT_ZERO)).as_py()

    @cached_property
    def _by_folded(self) -> dict[str, int]:
        """The position of the first known value of each folded text."""
        texts = _folded(self.values).to_pylist()
        return {text: place for place, text in reversed(list(enumerate(texts)))}

    def spellings(self) -> dict[str, int]:
        """Return the position of the first value that each folded text is another way to write, where they differ."""
        texts = self.labels()
        differ = {text for text, value in zip(_folded(self.values).to_pylist(), texts, strict=True) if text != value}
        return {text: place for text, place in self._by_folded.items() if text in differ}

    @property
    def size(self) -> int:
        """Number of known values."""
        return len(self.values)

    def find(self, values: pa.Array, *, alike: bool = False) -> NDArray[np.int32]:
        """Return the number of each value's feature: UNKNOWN, MISSING, or from FIRST_VALUE on.

        With `alike`, for values that were no text in a column of text, a known text counts that is another way to
        write the value: "True" for true, "1.50" for 1.5, "00501" for 501, "2024-03-01T00:00" for that midnight.
        """
        positions = self._positions(values)
        if not alike and self.has_whole and (positions < 0).any():
            # What a column of several types holds as 1.0 is "1" there, and "1.0" in its CSV.
            positions = np.where(positions < 0, self._positions(_without_point(values)), positions)
        if alike and (unknown := np.flatnonzero(positions < 0)).size:
            folded, known = _folded(values.take(pa.array(unknown))), self._by_folded
            positions[unknown] = [known.get(text, -1) for text in folded.to_pylist()]
        found = positions + FIRST_VALUE
        found[found < FIRST_VALUE] = UNKNOWN
        if values.null_count:
            found[values.is_null().to_numpy(zero_copy_only=False)] = MISSING
        return found.astype(np.int32)

    def _positions(self, values: pa.Array) -> NDArray[np.int64]:
        """Return the position of each value, -1 where it is not in the vocabulary."""
        if self.size == 0:
            return np.full(len(values), -1, np.int64)
        if self._index.collides:
            return np.array(pc.fill_null(pc.index_in(values, self.values), -1), np.int64)
        positions = self._index.positions(hash_strings(values))
        # An unseen value may have the hash of a known one.
        hits = np.flatnonzero(positions >= 0)
        same = pc.equal(self.values.take(pa.array(positions[hits])), values.take(pa.array(hits)))
        positions[hits[~pc.fill_null(same, False).to_numpy(zero_copy_only=False)]] = -1
        return positions

    def expected_unknown(self, min_count: int) -> float | None:
        """Return the share of new values that is expected to be unknown; None of an empty vocabulary.

        The share of rows whose value is the rarest that is known, as Good (1953) estimates it: that of the values seen
        once is the chance of one never seen.
        """
        return float(self.counts[self.counts <= min_count].sum() / self.counts.sum()) if self.size else None

    def labels(self) -> list[str]:
        """Return the values as they are."""
        return list(self.values.to_pylist())

    def rows(self) -> dict[str, pa.Array]:
        """Return the columns value and count of the encoder file, and day where it is known."""
        days = {} if self.days is None else {"day": pa.array(self.days)}
        return {"value": self.values, "count": pa.array(self.counts), **days}

    def renewed(self, new: Self, renewal: Renewal, *, min_count: int) -> tuple[Self, NDArray[np.int64]]:
        """Return these values, without those to forget, and new ones after them; and where each was here, -1: nowhere.

        A new value is one that occurred `min_count` times. An earlier occurrence counts as much as `renewal` says, but
        one of each value stays.
        """
        days = np.full(self.size, renewal.before, np.int32) if self.days is None else self.days
        places = self._positions(new.values) if self.size else np.full(new.size, -1)
        counts, latest = np.maximum(np.round(self.counts * renewal.kept), 1).astype(np.int64), days.copy()
        known = places >= 0
        counts[places[known]] += new.counts[known]
        latest[places[known]] = renewal.today
        oldest = -np.inf if renewal.evict_unseen is None else renewal.today - renewal.evict_unseen
        kept, added = np.flatnonzero(latest >= oldest), np.flatnonzero(~known & (new.counts >= min_count))
        values = [self.values.take(pa.array(kept)), new.values.take(pa.array(added))]
        return type(self)(
            pa.concat_arrays(values), np.concatenate([counts[kept], new.counts[added]]),
            np.concatenate([latest[kept], np.full(len(added), renewal.today, np.int32)]),
        ), np.concatenate([kept, np.full(len(added), -1)])  # fmt: skip

    @classmethod
    def from_rows(cls, field: str, rows: pa.Table) -> Self:
        """Return the vocabulary with these rows in the encoder file; raise RunFolderError where it can't be one."""
        if rows["value"].null_count or rows["count"].null_count:
            raise damaged(f"a value of field '{field}' is empty")
        values = pa.concat_arrays([pa.array([], pa.large_string()), *rows["value"].chunks])
        if len(values.unique()) < len(values):
            raise damaged(f"a value of field '{field}' occurs twice")
        days = rows["day"] if "day" in rows.schema.names else None
        if days is None or days.null_count == len(days):
            return cls(values, rows["count"].to_numpy())
        if days.null_count:
            raise damaged(f"a value of field '{field}' has no day")
        return cls(values, rows["count"].to_numpy(), days.to_numpy())


def _without_point(texts: pa.Array) -> pa.Array:
    """Return texts, whole numbers without a point and zeros behind it."""
    return pc.replace_substring_regex(texts, _POINT_ZERO, r"\1")


def _folded(texts: pa.Array) -> pa.Array:
    """Return texts with one way to write a truth, a number and a time."""
    lower = pc.utf8_lower(texts)
    texts = pc.if_else(pc.is_in(lower, pa.array(["true", "false"], lower.type)), lower, texts)
    for pattern, plain in SPELLINGS:
        texts = pc.replace_substring_regex(texts, pattern, plain)
    return texts


class Counter:
    """Counts the values of a column over batches.

    Of more than `MOST` values those of the fewest rows are forgotten, as if their rows so far had not been (Misra and
    Gries 1982, in blocks): what is left out is rare.
    """

    MOST = 5_000_000
    _MERGE_ABOVE = 1 << 17

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
        if len(table) > 2 * self.MOST:
            table = _most_frequent_first(table).slice(0, self.MOST).combine_chunks()
        self._parts, self._pending, self._merged = [table], 0, len(table)
        return table

    def vocabulary(self, *, min_count: int, order: Sequence[str] = ()) -> Vocabulary:
        """Return the values that occurred at least `min_count` times, in the given order.

        Without one the most frequent is the first, and of two that occurred as often the lesser.
        """
        if not self._parts:
            return Vocabulary(pa.array([], pa.large_string()), np.empty(0, np.int64))
        table = self._merge()
        table = table.filter(pc.greater_equal(table["count"], min_count))
        if len(table) > self.MOST:
            table = _most_frequent_first(table).slice(0, self.MOST)
        if order:
            places = pc.index_in(table["value"], pa.array(order, pa.large_string()))
            table = table.take(pc.array_sort_indices(pa.concat_arrays(places.chunks))).combine_chunks()
        else:
            table = _most_frequent_first(table).combine_chunks()
        values = pa.concat_arrays([pa.array([], pa.large_string()), *table["value"].chunks])
        return Vocabulary(values, table["count"].to_numpy())


def _most_frequent_first(table: pa.Table) -> pa.Table:
    """Return values and counts, the most frequent first, and of two that occurred as often the lesser."""
    return table.sort_by([("count", "descending"), ("value", "ascending")])


class CategoricalCodec(Codec):
    """One feature for each value of a vocabulary, or for each hash bucket."""

    rule: Cuts | Scale | Lookup | None = Lookup()

    def __init__(self, column: Column, values: Vocabulary | Buckets) -> None:
        self.column = column
        self.values = values
        size = FIRST_VALUE + values.size
        self.fields = (Field(column.name, column.name, column.kind, size, ordered=column.ordered),)

    def encode(self, chunk: pa.Array, *, row: int, bad: BadValues) -> list[FieldFeatures]:
        codes, values = read_categories(chunk, column=self.column.name, bad=bad)
        if isinstance(self.values, Vocabulary):
            alike = is_text(self.column.stored_type) and not is_text(value_type(chunk.type))
            found = self.values.find(values, alike=alike)
        else:
            found = self.values.find(values)
        feature_of = np.append(found, np.int32(MISSING))
        return [FieldFeatures(feature_of[codes])]

    def renewed(self, other: Codec, renewal: Renewal) -> tuple[Codec, list[NDArray[np.int64]]]:
        if not isinstance(self.values, Vocabulary):
            return super().renewed(other, renewal)
        assert isinstance(other, CategoricalCodec)
        assert isinstance(other.values, Vocabulary)
        values, places = self.values.renewed(other.values, renewal, min_count=self.column.min_count or 1)
        origin = np.concatenate([[UNKNOWN, MISSING], np.where(places < 0, UNKNOWN, places + FIRST_VALUE)])
        return type(self)(self.column, values), [origin]

    def labels(self, field: int = 0) -> list[str]:
        return self.values.labels()

    def known(self, texts: Sequence[str]) -> list[str]:
        if not isinstance(self.values, Vocabulary):
            return []
        found = self.values.find(pa.array(texts, pa.large_string()))
        return [text for text, feature in zip(texts, found, strict=True) if feature >= FIRST_VALUE]

    def expected_unknown(self, field: int = 0) -> float | None:
        return self.values.expected_unknown(self.column.min_count or 1) if isinstance(self.values, Vocabulary) else None

    def rows(self, field: int = 0) -> dict[str, pa.Array]:
        return self.values.rows()


class CategoricalLearner:
    """Counts the values of a categorical column."""

    codec_type: ClassVar[type[CategoricalCodec]] = CategoricalCodec

    def __init__(self, column: Column) -> None:
        self.column = column
        self._counter = Counter()
        self._order: dict[str, None] = {}  # of the categories, where they have one

    def add(self, chunk: pa.Array, *, row: int, bad: BadValues) -> None:
        self.count(*read_categories(chunk, column=self.column.name, bad=bad))

    def count(self, codes: NDArray[Any], values: pa.Array) -> None:
        """Take in the codes of a chunk (-1 is missing) into its distinct values."""
        if self.column.hash_buckets is None:
            self._counter.add(codes, values)
        if self.column.ordered:
            self._order.update(dict.fromkeys(values.to_pylist()))

    def codec(self) -> Codec:
        least, buckets = self.column.min_count or 1, self.column.hash_buckets
        order = list(self._order)
        known = self._counter.vocabulary(min_count=least, order=order) if buckets is None else Buckets(buckets)
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
