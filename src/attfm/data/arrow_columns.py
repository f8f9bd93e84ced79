"""Arrow columns as numbers, categories, bags and dates: the one place that knows Arrow's types."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from attfm.data.bad_values import BadValues, Fault
from attfm.data.batch import FieldFeatures
from attfm.data.texts import parse_dates, parse_numbers
from attfm.errors import AttfmError, DataError

_TICKS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}  # per second
_NOT_NUMBERS = Fault("is not a number", "are not numbers", "Clean them, or declare the column categorical.")
_INFINITE = Fault("is infinite", "are infinite", "Replace them by finite numbers, or leave them empty.")
_NOT_DATES = Fault(
    "is not a date",
    "are not dates",
    "Write them as ISO 8601 (2024-03-01 or 2024-03-01T12:30:00), or declare the column categorical.",
)
_WEIGHTS = Fault("has a weight that is not finite", "have a weight that is not finite", "Give finite weights.")


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


def chunks(column: pa.Array | pa.ChunkedArray, row: int = 0) -> Iterator[tuple[int, pa.Array]]:
    """Yield the contiguous pieces of a column, at least one, each with the number of its first row, from `row` on."""
    pieces = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    for piece in pieces or [pa.array([], column.type)]:
        yield row, piece
        row += len(piece)


def n_missing(array: pa.Array) -> int:
    """Return how many values are null or NaN."""
    array = plain(array)
    if types.is_floating(array.type):
        return int(pc.is_null(array, nan_is_null=True).true_count)
    return int(array.null_count)


def read_numbers(array: pa.Array, *, column: str, row: int, bad: BadValues) -> NDArray[np.float64]:
    """Return numbers, durations, times, booleans or text as float64 (rows,), NaN where missing or not a finite number.

    Here and below, `column` and `row`, the number of the first row, are for the messages that `bad` gathers.
    """
    array = plain(array)
    if types.is_dictionary(array.type) or is_text(array.type):
        codes, values = _encoded(array)
        x, unreadable = _numbers(values)
        if x is not None:
            x = np.append(x, np.nan)[codes]
            unreadable = None if unreadable is None else np.append(unreadable, False)[codes]
    else:
        x, unreadable = _numbers(array)
    if x is None:
        bad.add(
            f"Column '{column}' is of type {array.type}, not numbers. "
            "Convert it, or declare it ignored or of another kind."
        )
        return np.full(len(array), np.nan)
    if unreadable is not None:
        bad.add_values(column, unreadable, array, row=row, fault=_NOT_NUMBERS)
    infinite = np.isinf(x)
    if infinite.any():
        bad.add_values(column, infinite, array, row=row, fault=_INFINITE)
        x = np.where(infinite, np.nan, x)
    return x


def read_column(
    column: pa.Array | pa.ChunkedArray, *, name: str, error: type[AttfmError] = DataError, before: str = ""
) -> NDArray[np.float64]:
    """Return all numbers of a column; raise an error, whose message begins with `before`, where some can't be read."""
    bad = BadValues()
    numbers = [read_numbers(chunk, column=name, row=row, bad=bad) for row, chunk in chunks(column)]
    bad.raise_if_any(len(column), error, before=before)
    return np.concatenate(numbers)


def read_categories(array: pa.Array, *, column: str, bad: BadValues) -> tuple[NDArray[Any], pa.Array]:
    """Return codes (-1 where missing) and the values that they stand for, large_string, null where missing.

    The values are canonical and distinct: int 3, float 3.0 and "3" are the same one.
    """
    array = plain(array)
    if not is_scalar(value_type(array.type)):
        bad.add(
            f"Column '{column}' is of type {array.type}, whose values can't be categories. "
            "Convert it, or declare it ignored or of another kind."
        )
        array = pa.nulls(len(array))
    codes, values = _encoded(array)
    return codes, _canonical(values, column, bad)


def read_members(
    array: pa.Array, *, column: str, separator: str | None, row: int, bad: BadValues
) -> tuple[FieldFeatures, pa.Array]:
    """Return a multi-valued column as bags of codes into its distinct members, and those members.

    Lists and maps to weights are read as they are, strings are split at `separator`. Null and empty members
    are left out, so a missing value is an empty bag. The bags have codes instead of ids, and weights only where the
    column has them; the members are large_string, canonical.
    """
    array = plain(array)
    t = value_type(array.type)
    if is_text(t) and separator is not None:
        codes, values = _encoded(array)
        # A missing value has the code -1, the last text: null, and so an empty bag.
        texts = pa.concat_arrays([values.cast(pa.large_string()), pa.nulls(1, pa.large_string())])
        bags, members = _list_members(pc.split_pattern(texts, separator), column, bad, trim=True)
        return bags.take(codes), members
    if types.is_map(t) and is_scalar(value_type(t.key_type)):
        return _map_members(array, column, row, bad)
    if is_list(t) and is_scalar(value_type(t.value_type)):
        return _list_members(array, column, bad, trim=False)
    if not types.is_null(t):
        need = "a separator for its strings, as {'separator': '|'}" if is_text(t) else "lists, or a map to weights"
        bad.add(f"Column '{column}' is of type {array.type}, but a multi-valued column needs {need}.")
    return FieldFeatures(np.empty(0, np.int32), counts=np.zeros(len(array), np.int64)), pa.array([], pa.large_string())


def read_seconds(
    array: pa.Array, *, column: str, row: int, bad: BadValues
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return dates, timestamps or ISO 8601 text as local seconds since 1970, int64 (rows,), and which are missing.

    Local: an hour is the hour in the column's time zone, or as written in an ISO 8601 string.
    """
    array = plain(array)
    t = array.type
    if types.is_dictionary(t) or is_text(t):
        codes, values = _encoded(array)
        if is_text(values.type) or types.is_null(values.type):
            seconds, missing, unreadable = parse_dates(values.cast(pa.large_string()))
            bad.add_values(column, np.append(unreadable, False)[codes], array, row=row, fault=_NOT_DATES)
        else:
            seconds, missing = read_seconds(values, column=column, row=row, bad=bad)
        return np.append(seconds, 0)[codes], np.append(missing, True)[codes]
    if types.is_date(t):
        array = array.cast(pa.timestamp("ms"))
    if not types.is_timestamp(array.type):
        if not types.is_null(t):
            sentence = f"Column '{column}' is of type {t}, not dates."
            bad.add(f"{sentence} Convert it, or declare it ignored or of another kind.")
        return np.zeros(len(array), np.int64), np.ones(len(array), np.bool_)
    local = array if array.type.tz is None else pc.local_timestamp(array)
    ticks = pc.fill_null(local.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    return ticks // _TICKS[local.type.unit], local.is_null().to_numpy(zero_copy_only=False)


def _encoded(array: pa.Array) -> tuple[NDArray[Any], pa.Array]:
    """Return codes (-1 where null) and the values that they stand for."""
    if types.is_null(array.type):
        return np.full(len(array), -1, np.int32), pa.array([], pa.large_string())
    if not types.is_dictionary(array.type):
        array = array.dictionary_encode()
    codes = array.indices
    if codes.null_count:
        codes = pc.fill_null(codes.cast(pa.int64()), -1)
    return codes.to_numpy(zero_copy_only=False), plain(array.dictionary)


def _numbers(values: pa.Array) -> tuple[NDArray[np.float64] | None, NDArray[np.bool_] | None]:
    """Return float64 values with NaN for missing (None: not that kind of type), and a mask of unreadable ones."""
    t = values.type
    if types.is_null(t):
        return np.full(len(values), np.nan), None
    if is_text(t):
        return parse_numbers(values.cast(pa.large_string()))
    if types.is_boolean(t):
        values = values.cast(pa.uint8())
    elif types.is_duration(t) or types.is_time(t):
        # In seconds, so that a column means the same in whatever unit it arrives.
        ticks = _TICKS[t.unit]
        whole = values.cast(pa.int32() if types.is_time32(t) else pa.int64())
        return whole.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) / ticks, None
    elif not is_number(t):
        return None, None
    x: NDArray[np.float64] = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return x, None


def _canonical(values: pa.Array, column: str, bad: BadValues) -> pa.Array:
    """Return values as text (large_string): whole floats like integers, other floats as Python's repr."""
    t = values.type
    if not is_scalar(t):  # bytes that plain could not read as text
        bad.add(f"Column '{column}' holds bytes that are not UTF-8 text. Decode it, or declare it ignored.")
        return pa.nulls(len(values), pa.large_string())
    if types.is_floating(t):
        return _canonical_floats(values)
    if types.is_decimal(t) and t.scale != 0:
        return _canonical_floats(values.cast(pa.float64(), safe=False))
    return values.cast(pa.large_string())


def _canonical_floats(values: pa.Array) -> pa.Array:
    missing = pc.is_null(values, nan_is_null=True).to_numpy(zero_copy_only=False)
    x = np.where(missing, 0, values.fill_null(0).to_numpy(zero_copy_only=False))
    # Shortest digits that give the value back in its own precision: a float32 0.1 is "0.1", as a float64 0.1 is.
    texts = pa.array(x.astype("U32"), pa.large_string())
    with np.errstate(invalid="ignore"):
        whole = (np.abs(x) < 2.0**63) & (x == np.trunc(x))
        integers = np.where(whole, x, 0).astype(np.int64)
    texts = pc.if_else(pa.array(whole), pa.array(integers).cast(pa.large_string()), texts)
    return pc.if_else(pa.array(missing), None, texts)


def _list_members(array: pa.Array, column: str, bad: BadValues, *, trim: bool) -> tuple[FieldFeatures, pa.Array]:
    counts = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    flat = plain(pc.list_flatten(array))
    if trim:
        flat = pc.utf8_trim_whitespace(flat)
        flat = pc.if_else(pc.equal(flat, ""), None, flat)
    codes, values = _encoded(flat)
    return _bags(codes, None, counts, _canonical(values, column, bad))


def _map_members(array: pa.Array, column: str, row: int, bad: BadValues) -> tuple[FieldFeatures, pa.Array]:
    starts = array.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    counts = np.where(array.is_null().to_numpy(zero_copy_only=False), 0, np.diff(starts))
    ends = np.cumsum(counts)
    entries = np.repeat(starts[:-1] - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)
    items = array.items.take(pa.array(entries))
    weights, _ = _numbers(items)
    if weights is None:
        bad.add(f"Column '{column}' is of type {array.type}: the weights of its members must be numbers.")
        weights = np.ones(len(entries))
    missing = items.is_null().to_numpy(zero_copy_only=False)
    bad_rows = np.zeros(len(array), np.bool_)
    bad_rows[np.repeat(np.arange(len(array)), counts)[~np.isfinite(weights) & ~missing]] = True
    bad.add_values(column, bad_rows, array, row=row, fault=_WEIGHTS)
    codes, values = _encoded(plain(array.keys.take(pa.array(entries))))
    return _bags(codes, np.where(missing, 1, weights).astype(np.float32), counts, _canonical(values, column, bad))


def _bags(
    codes: NDArray[Any], weights: NDArray[np.float32] | None, counts: NDArray[Any], members: pa.Array
) -> tuple[FieldFeatures, pa.Array]:
    """Return the bags of `counts` members a row, without the missing members."""
    missing = np.append(members.is_null().to_numpy(zero_copy_only=False), True)[codes]
    if missing.any():
        rows = np.repeat(np.arange(len(counts)), counts)[~missing]
        codes, weights = codes[~missing], None if weights is None else weights[~missing]
        counts = np.bincount(rows, minlength=len(counts))
    return FieldFeatures(codes.astype(np.int32), weights, counts.astype(np.int64)), members
