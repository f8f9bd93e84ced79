"""Arrow columns as numbers, categories, bags and dates."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from attfm.data.arrow_types import is_list, is_number, is_scalar, is_text, plain, value_type
from attfm.data.bad_values import (
    INFINITE,
    NO_CATEGORIES,
    NO_DATES,
    NO_NUMBERS,
    NO_WEIGHTS,
    NOT_AMOUNTS,
    NOT_DATES,
    NOT_NUMBERS,
    NOT_UTF8,
    WEIGHTS,
    BadValues,
    Fault,
    no_members,
)
from attfm.data.batch import FieldFeatures
from attfm.data.canonical_text import canonical_text
from attfm.data.texts import TICKS, parse_dates, parse_numbers
from attfm.errors import AttfmError, DataError


def chunks(column: pa.Array | pa.ChunkedArray, row: int = 0) -> Iterator[tuple[int, pa.Array]]:
    """Yield the contiguous pieces of a column, at least one, each with the number of its first row, from `row` on."""
    pieces = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    for piece in pieces or [pa.array([], column.type)]:
        yield row, piece
        row += len(piece)


def n_missing(array: pa.Array) -> int:
    """Return how many values are null or NaN."""
    array = plain(array)
    if types.is_dictionary(array.type) and array.dictionary.null_count:
        return int(array.null_count + pc.sum(array.dictionary.is_null().take(array.indices)).as_py() or 0)
    if types.is_floating(array.type):
        return int(pc.is_null(array, nan_is_null=True).true_count)
    return int(array.null_count)


def read_numbers(
    array: pa.Array, *, column: str, row: int, bad: BadValues, fault: Fault = NOT_NUMBERS
) -> NDArray[np.float64]:
    """Return numbers, durations, times, booleans or text as float64 (rows,), NaN where missing or not a finite number.

    A text that is no number is the `fault`. Here and below, `column` and `row`, the number of the first row, are for
    the messages that `bad` gathers.
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
        bad.add(NO_NUMBERS.format(column=column, type=array.type))
        return np.full(len(array), np.nan)
    if unreadable is not None:
        bad.add_values(column, unreadable, array, row=row, fault=fault)
    infinite = np.isinf(x)
    if infinite.any():
        bad.add_values(column, infinite, array, row=row, fault=INFINITE)
        x = np.where(infinite, np.nan, x)
    return x


def read_column(
    column: pa.Array | pa.ChunkedArray, *, name: str, error: type[AttfmError] = DataError, before: str = ""
) -> NDArray[np.float64]:
    """Return all numbers of a column; raise an error, whose message begins with `before`, where some can't be read."""
    bad = BadValues()
    pieces = chunks(column)
    numbers = [read_numbers(chunk, column=name, row=row, bad=bad, fault=NOT_AMOUNTS) for row, chunk in pieces]
    bad.raise_if_any(len(column), error, before=before)
    return np.concatenate(numbers)


def read_categories(array: pa.Array, *, column: str, bad: BadValues) -> tuple[NDArray[Any], pa.Array]:
    """Return codes (-1 where missing) and the values that they stand for, large_string, null where missing.

    The values are canonical and distinct: int 3, float 3.0 and "3" are the same one.
    """
    array = plain(array)
    if not is_scalar(value_type(array.type)):
        bad.add(NO_CATEGORIES.format(column=column, type=array.type))
        array = pa.nulls(len(array))
    codes, values = _encoded(array)
    return codes, _texts(values, column, bad)


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
        texts = pa.concat_arrays([_texts(values, column, bad), pa.nulls(1, pa.large_string())])
        bags, members = _list_members(pc.split_pattern(texts, separator), column, bad)
        return bags.take(codes), members
    if types.is_map(t) and is_scalar(value_type(t.key_type)):
        return _map_members(array, column, row, bad)
    if is_list(t) and is_scalar(value_type(t.value_type)):
        return _list_members(array, column, bad)
    if not types.is_null(t):
        bad.add(no_members(column, array.type, is_text=is_text(t)))
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
            bad.add_values(column, np.append(unreadable, False)[codes], array, row=row, fault=NOT_DATES)
        else:
            seconds, missing = read_seconds(values, column=column, row=row, bad=bad)
        return np.append(seconds, 0)[codes], np.append(missing, True)[codes]
    if types.is_date(t):
        array = array.cast(pa.timestamp("ms"))
    if not types.is_timestamp(array.type):
        if not types.is_null(t):
            bad.add(NO_DATES.format(column=column, type=t))
        return np.zeros(len(array), np.int64), np.ones(len(array), np.bool_)
    local = array if array.type.tz is None else pc.local_timestamp(array)
    ticks = pc.fill_null(local.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    return ticks // TICKS[local.type.unit], local.is_null().to_numpy(zero_copy_only=False)


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
        ticks = TICKS[t.unit]
        whole = values.cast(pa.int32() if types.is_time32(t) else pa.int64())
        return whole.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) / ticks, None
    elif not is_number(t):
        return None, None
    x: NDArray[np.float64] = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return x, None


def _texts(values: pa.Array, column: str, bad: BadValues) -> pa.Array:
    """Return values as canonical text."""
    if is_scalar(values.type):
        return canonical_text(values)
    bad.add(NOT_UTF8.format(column=column))
    return pa.nulls(len(values), pa.large_string())


def _members(values: pa.Array, column: str, bad: BadValues) -> pa.Array:
    """Return members as canonical text without spaces around it, null where nothing is left."""
    texts = pc.utf8_trim_whitespace(_texts(values, column, bad))
    return pc.if_else(pc.equal(texts, ""), None, texts)


def _list_members(array: pa.Array, column: str, bad: BadValues) -> tuple[FieldFeatures, pa.Array]:
    counts = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    flat = plain(pc.list_flatten(array))
    codes, values = _encoded(flat)
    return _bags(codes, None, counts, _members(values, column, bad))


def _map_members(array: pa.Array, column: str, row: int, bad: BadValues) -> tuple[FieldFeatures, pa.Array]:
    starts = array.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    counts = np.where(array.is_null().to_numpy(zero_copy_only=False), 0, np.diff(starts))
    ends = np.cumsum(counts)
    entries = np.repeat(starts[:-1] - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)
    items = array.items.take(pa.array(entries))
    weights, _ = _numbers(items)
    if weights is None:
        bad.add(NO_WEIGHTS.format(column=column, type=array.type))
        weights = np.ones(len(entries))
    missing = items.is_null().to_numpy(zero_copy_only=False)
    bad_rows = np.zeros(len(array), np.bool_)
    bad_rows[np.repeat(np.arange(len(array)), counts)[~np.isfinite(weights) & ~missing]] = True
    bad.add_values(column, bad_rows, array, row=row, fault=WEIGHTS)
    codes, values = _encoded(plain(array.keys.take(pa.array(entries))))
    return _bags(codes, np.where(missing, 1, weights).astype(np.float32), counts, _members(values, column, bad))


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
