"""What an Arrow type holds, behind dictionaries, run ends and extensions."""

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types


def is_text(t: pa.DataType) -> bool:
    """Return whether a type holds strings."""
    return bool(types.is_string(t) or types.is_large_string(t) or types.is_string_view(t))


def is_list(t: pa.DataType) -> bool:
    """Return whether a type holds lists (maps not counted)."""
    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(test(t) for test in tests)


def is_number(t: pa.DataType) -> bool:
    """Return whether a type holds integers, floats or decimals."""
    return bool(types.is_integer(t) or types.is_floating(t) or types.is_decimal(t))


def is_scalar(t: pa.DataType) -> bool:
    """Return whether each value of a type can be one category."""
    is_time = types.is_temporal(t) and not types.is_interval(t)  # a month has no fixed length
    return bool(is_text(t) or is_number(t) or types.is_boolean(t) or is_time or types.is_null(t))


def value_type(t: pa.DataType) -> pa.DataType:
    """Return the type of the values behind dictionaries, run ends and extensions; text for binary."""
    if isinstance(t, pa.BaseExtensionType):
        return value_type(t.storage_type)
    if types.is_dictionary(t) or types.is_run_end_encoded(t):
        return value_type(t.value_type)
    if types.is_binary(t) or types.is_large_binary(t) or types.is_binary_view(t) or types.is_fixed_size_binary(t):
        return pa.large_string()
    return t


def plain(array: pa.Array) -> pa.Array:
    """Return an array without extension type, run ends, half floats or bytes (which stay if they are not UTF-8)."""
    if isinstance(array.type, pa.BaseExtensionType):
        return plain(array.storage)
    if types.is_run_end_encoded(array.type):
        return plain(pc.run_end_decode(array))
    if types.is_float16(array.type):  # most of Arrow's functions don't take them
        return array.cast(pa.float32())
    if not types.is_dictionary(array.type) and value_type(array.type) != array.type:
        try:
            return array.cast(pa.large_string())
        except pa.ArrowInvalid:
            return array
    return array
