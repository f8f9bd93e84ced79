"""Arrow columns of every type as those of a few: no views, run ends or extension types, also inside of others."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from attfm.data.arrow_types import is_list
from attfm.data.sources.extension_types import Extension
from attfm.errors import SchemaError

_VIEWS = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}


def plain_schema(schema: pa.Schema, where: str) -> pa.Schema:
    """Return the schema that `plain_array` gives; raise SchemaError where a time zone is unknown."""
    plain = pa.schema([pa.field(field.name, plain_type(field)) for field in schema])
    unknown = [f"'{field.name}' ({zone})" for field in plain if (zone := _unknown_zone(field.type))]
    if unknown:
        raise SchemaError(
            f"Column {', '.join(unknown)} of {where} has an unknown time zone. Convert it to UTC, or to a zone of the "
            "IANA list, such as Europe/Paris."
        )
    return plain


def plain_type(field: pa.Field) -> pa.DataType:
    """Return the type of a field without views, run ends, small decimals and extensions.

    Lists of every kind become lists, dictionaries have indices of 32 or 64 bits, and values that are no lists.
    """
    t = field.type
    extension = Extension.of(field)
    if extension is not None and extension.plain_type is not None:
        return extension.plain_type
    if isinstance(t, pa.BaseExtensionType):
        return plain_type(pa.field("", t.storage_type))
    if types.is_run_end_encoded(t):
        return plain_type(pa.field("", t.value_type))
    if types.is_dictionary(t):
        value = plain_type(pa.field("", t.value_type))
        if types.is_dictionary(value):
            return pa.dictionary(_index_type(t), value.value_type, value.ordered or t.ordered)
        return value if types.is_nested(value) else pa.dictionary(_index_type(t), value, t.ordered)
    if types.is_map(t):
        return pa.map_(plain_type(t.key_field), plain_type(t.item_field))
    if is_list(t):
        is_large = types.is_large_list(t) or types.is_large_list_view(t)
        return (pa.large_list if is_large else pa.list_)(plain_type(t.value_field))
    if types.is_struct(t):
        return pa.struct([pa.field(child.name, plain_type(child)) for child in t])
    if types.is_decimal(t) and t.bit_width < 128:
        return pa.decimal128(t.precision, t.scale)
    return _VIEWS.get(t, t)


def plain_array(array: pa.Array, field: pa.Field) -> pa.Array:
    """Return the values of a field in its plain type."""
    t = plain_type(field)
    extension = Extension.of(field)
    if extension is not None and extension.plain_type is not None:
        return extension.plain(array.storage if isinstance(array.type, pa.BaseExtensionType) else array)
    if array.type == t and t == field.type:
        return array
    if isinstance(array.type, pa.BaseExtensionType):
        return plain_array(array.storage, pa.field("", array.type.storage_type))
    if types.is_run_end_encoded(array.type):
        return plain_array(pc.run_end_decode(array), pa.field("", array.type.value_type))
    if types.is_dictionary(array.type):
        return _dictionary(array, t)
    if types.is_map(array.type):
        offsets = array.offsets.to_numpy(zero_copy_only=False)
        entries = slice(int(offsets[0]), int(offsets[-1]))
        keys = plain_array(array.keys[entries], array.type.key_field)
        items = plain_array(array.items[entries], array.type.item_field)
        return pa.MapArray.from_arrays(_offsets(np.diff(offsets), array, pa.int32()), keys, items)
    if is_list(array.type):
        # Not by its offsets: views may share their values, and values of a null may stand in between.
        counts = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        values = plain_array(array.flatten(), array.type.value_field)
        if types.is_large_list(t):
            return pa.LargeListArray.from_arrays(_offsets(counts, array, pa.int64()), values)
        return pa.ListArray.from_arrays(_offsets(counts, array, pa.int32()), values)
    if types.is_struct(array.type):
        children = [plain_array(child, inner) for child, inner in zip(array.flatten(), array.type, strict=True)]
        return pa.StructArray.from_arrays(children, fields=list(t), mask=array.is_null())
    return array.cast(t)


def plain_column(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """Return a whole column in its plain type; an ordered dictionary is the same one in all chunks."""
    t = plain_type(field)
    if is_ordered(t):
        levels = Levels(field)
        for chunk in column.chunks:
            levels.add(chunk)
        dictionary = levels.dictionary()
        return pa.chunked_array([recoded(plain_array(chunk, field), dictionary) for chunk in column.chunks], t)
    if t == field.type and Extension.of(field) is None:
        return column
    return pa.chunked_array([plain_array(chunk, field) for chunk in column.chunks], t)


def is_ordered(t: pa.DataType) -> bool:
    """Return whether a type is an ordered dictionary."""
    return bool(types.is_dictionary(t) and t.ordered)


class Levels:
    """Gathers the values of an ordered dictionary over chunks that may have different ones."""

    def __init__(self, field: pa.Field) -> None:
        self._field = pa.field("", field.type.value_type) if types.is_dictionary(field.type) else field
        self._values: list[pa.Array] = []

    def add(self, chunk: pa.Array) -> None:
        """Take in the values of a chunk."""
        if types.is_dictionary(chunk.type):
            values = chunk.dictionary
        else:  # intervals: one row of each
            codes = plain_array(chunk, self._field).indices.fill_null(-1)
            values = chunk.take(pa.array(np.unique(codes, return_index=True)[1]))
        if not any(values.equals(seen) for seen in self._values):
            self._values.append(values)

    def dictionary(self) -> pa.Array:
        """Return all values in order: intervals by their ends, others as they first stood in a dictionary."""
        values = pa.concat_arrays(self._values) if self._values else pa.array([], self._field.type)
        plain = plain_array(values, self._field)
        if types.is_dictionary(plain.type):
            return plain.dictionary
        return plain if len(self._values) == 1 else plain.unique()


def recoded(array: pa.DictionaryArray, dictionary: pa.Array) -> pa.DictionaryArray:
    """Return an ordered dictionary array with other values, which hold those that it has."""
    if array.dictionary.equals(dictionary):
        return array
    places = pc.index_in(array.dictionary, dictionary).cast(array.type.index_type)
    return pa.DictionaryArray.from_arrays(places.take(array.indices), dictionary, ordered=True)


def _dictionary(array: pa.DictionaryArray, t: pa.DataType) -> pa.Array:
    values = plain_array(array.dictionary, pa.field("", array.type.value_type))
    if not types.is_dictionary(t):
        return values.take(array.indices)
    indices = array.indices
    if types.is_dictionary(values.type):  # of intervals, sorted
        indices, values = values.indices.take(indices), values.dictionary
    return pa.DictionaryArray.from_arrays(indices.cast(t.index_type), values, ordered=t.ordered)


def _index_type(t: pa.DictionaryType) -> pa.DataType:
    return pa.int32() if t.index_type.bit_width < 32 or t.index_type == pa.int32() else pa.int64()


def _offsets(counts: Sequence[int], array: pa.Array, t: pa.DataType) -> pa.Array:
    """Return offsets of lists with so many values, null where the array is."""
    starts = np.concatenate([[0], np.cumsum(counts)])
    missing = np.append(array.is_null().to_numpy(zero_copy_only=False), False)
    return pa.array(starts, t, mask=missing)


def _unknown_zone(t: pa.DataType) -> str:
    """Return the time zone of a type, or of one inside it, that Arrow does not know."""
    if types.is_timestamp(t) and t.tz is not None:
        try:
            pc.local_timestamp(pa.array([0], t))
        except pa.ArrowException:
            return str(t.tz) or "''"
    if types.is_dictionary(t):
        return _unknown_zone(t.value_type)
    return next((zone for i in range(t.num_fields) if (zone := _unknown_zone(t.field(i).type))), "")
