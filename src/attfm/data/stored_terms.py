"""A column of any table in the terms of the training column: a value means the same, whatever type brings it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from attfm.config import Reading
from attfm.data.arrow_types import is_list, is_number, is_scalar, is_text, plain, value_type
from attfm.data.bad_values import BadValues
from attfm.data.canonical_text import canonical_text
from attfm.data.schema import Column, Kind
from attfm.data.texts import PLAIN, as_dates, parse_numbers, tidied, typed


@dataclass(frozen=True)
class StoredTerms:
    """What the values of one column mean: the type that they had in training, and how its text is read.

    Attributes
    ----------
    name : str, of the column, for messages
    stored : pyarrow.DataType, of its values in training, without dictionaries
    reading : Reading, how text is read
    kept : tuple of str, usual markers of missing values that are values here
    kind : str, of the column: text that was declared numeric or a date is read as such
    """

    name: str
    stored: pa.DataType
    reading: Reading = PLAIN
    kept: tuple[str, ...] = ()
    kind: Kind = "categorical"

    @classmethod
    def of(cls, column: Column, reading: Reading, *, also_kept: Sequence[str] = ()) -> Self:
        """Return the terms of a column of the schema, with some more markers that are values."""
        kept = tuple(dict.fromkeys((*column.kept, *also_kept)))
        return cls(column.name, column.stored_type, reading, kept, column.kind)

    @property
    def keeps_texts(self) -> bool:
        """Whether what a text means depends on no other text of its column: all are categories as they stand."""
        return self.kind == "categorical" and is_text(self.stored)

    @property
    def keeps_numbers(self) -> bool:
        """Whether a number stays as it is, but for the precision of 32 bits (`is_short`), whatever is beside it."""
        is_number = types.is_integer(self.stored) or types.is_float64(self.stored) or self.is_short
        return is_number and not len(self._null_numbers)

    @property
    def is_short(self) -> bool:
        """Whether numbers have the precision of 32 bits."""
        return bool(types.is_float32(self.stored))

    def apply(self, array: pa.Array, bad: BadValues) -> pa.Array:
        """Return a piece of the column as if it had come in the stored type, as far as that can be.

        Text is read as the stored type, and stays text where it can't be (the values that can are canonical text
        then); spaces around it, and markers of missing values, are gone. `bad` is told of zones that don't fit.
        """
        array = plain(array)
        t = value_type(array.type)
        if is_list(t):
            return self._members(array, bad)
        if not is_scalar(t) or types.is_null(t):
            return array
        if is_text(t):
            if is_list(self.stored) or types.is_map(self.stored):
                return array
            encoded = array if types.is_dictionary(array.type) else array.dictionary_encode()
            texts = plain(encoded.dictionary)
            if not is_text(texts.type):  # bytes that are no text
                return array
            return pa.DictionaryArray.from_arrays(encoded.indices, self._read(texts, bad))
        if types.is_dictionary(array.type):
            return pa.DictionaryArray.from_arrays(array.indices, self._converted(plain(array.dictionary), bad))
        return self._converted(array, bad)

    def _read(self, texts: pa.Array, bad: BadValues) -> pa.Array:
        """Return texts as values of the stored type; as texts where some can't be."""
        texts = texts if types.is_large_string(texts.type) else texts.cast(pa.large_string())
        texts = tidied(texts, self.reading, self.kept)
        stored = self.stored
        if is_text(stored) and self.kind == "numeric":
            stored = pa.float64()
        if types.is_timestamp(stored) or (is_text(stored) and self.kind == "datetime"):
            values, lost, misplaced = as_dates(texts, getattr(stored, "tz", None), self.reading)
            if misplaced.any() and types.is_timestamp(stored):
                self._warn_of_zone(bad)
        elif is_scalar(stored) and not is_text(stored) and not types.is_null(stored):
            values, lost = typed(texts, stored, self.reading)
        else:
            return texts
        values = self._converted(values, bad)
        return pc.if_else(pa.array(lost), texts, canonical_text(values)) if lost.any() else values

    def _converted(self, values: pa.Array, bad: BadValues) -> pa.Array:
        """Return values of another type than text as what they would be in the stored type."""
        t, stored = values.type, self.stored
        if is_number(t):
            values = self._without_markers(values)
        if types.is_boolean(stored) and is_number(t):
            return _as_truths(values)
        if is_number(stored):
            return _as_number(values, stored)
        if types.is_timestamp(t) and types.is_timestamp(stored) and (t.tz is None) != (stored.tz is None):
            if values.null_count < len(values):
                self._warn_of_zone(bad)
            return pc.local_timestamp(values) if stored.tz is None else _localised(values, stored.tz)
        if types.is_timestamp(t) and types.is_timestamp(stored) and t.tz != stored.tz:
            return values.cast(pa.timestamp(t.unit, stored.tz))
        return values

    def _members(self, array: pa.Array, bad: BadValues) -> pa.Array:
        """Return lists whose members are in the terms of the stored lists' members."""
        if not is_list(self.stored):
            return array
        members = StoredTerms(self.name, self.stored.value_type, self.reading)
        flat, wanted = plain(pc.list_flatten(array)), members.stored
        if is_text(wanted) or value_type(flat.type) == wanted or not is_scalar(value_type(flat.type)):
            return array
        counts = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int64())
        return pa.LargeListArray.from_arrays(offsets, members.apply(flat, bad))

    @cached_property
    def null_numbers(self) -> NDArray[np.float64]:
        """Numbers that mean missing."""
        numbers, _ = parse_numbers(pa.array(self.reading.null_values, pa.large_string()))
        return numbers[~np.isnan(numbers)]

    def _without_markers(self, values: pa.Array) -> pa.Array:
        """Return numbers, null where they are among the cells that mean missing."""
        if not len(self.null_numbers):
            return values
        numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return pc.if_else(pa.array(np.isin(numbers, self.null_numbers)), None, values)

    def _warn_of_zone(self, bad: BadValues) -> None:
        bad.warn_of_zone(self.name, self.stored.tz)


def _as_truths(numbers: pa.Array) -> pa.Array:
    """Return 1 and 0 as truths, as text where there are other numbers."""
    if pc.all(pc.or_(pc.equal(numbers, 0), pc.equal(numbers, 1))).as_py() is not False:
        return pc.equal(numbers, 1)
    words = pa.array(["false", "true"], pa.large_string())
    return pc.coalesce(words.take(pc.index_in(canonical_text(numbers), pa.array(["0", "1"], pa.large_string()))),
                       canonical_text(numbers))  # fmt: skip


def _as_number(values: pa.Array, stored: pa.DataType) -> pa.Array:
    """Return values as the numbers that the stored type can hold."""
    if types.is_boolean(values.type):
        return values.cast(pa.uint8())
    short = types.is_float32(stored) or types.is_float16(stored)
    if short and is_number(values.type):
        kind = np.float32 if types.is_float32(stored) else np.float16
        with np.errstate(over="ignore", invalid="ignore"):
            numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(kind)
        return pa.array(numbers.astype(np.float32), from_pandas=True)
    if types.is_decimal(stored) and types.is_floating(values.type):
        try:
            return values.cast(pa.decimal128(38, stored.scale))
        except pa.ArrowInvalid:  # too large, not finite, or NaN
            return values
    return values


def _localised(values: pa.Array, zone: str) -> pa.Array:
    return pc.assume_timezone(values, zone, ambiguous="earliest", nonexistent="earliest")
