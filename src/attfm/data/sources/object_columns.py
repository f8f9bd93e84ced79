"""Columns of Python objects as Arrow columns: which type they have together, and the text of several types."""

import datetime
import decimal
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from attfm.data.texts import is_unicode
from attfm.errors import SchemaError, SourceError

FAILED = (pa.ArrowException, TypeError, ValueError, OverflowError)  # what pyarrow raises at values it can't take
_LISTS = (list, tuple, np.ndarray, set, frozenset)
_WHOLE = 2**63  # below it, floats without a fraction are written like integers
# A value is of the first family whose class it is an instance of.
_FAMILIES: tuple[tuple[str, Any], ...] = (
    ("text", str),
    ("bool", bool),
    ("int", int),
    ("float", float),
    ("decimal", decimal.Decimal),
    ("datetime", datetime.datetime),
    ("date", datetime.date),
    ("time", datetime.time),
    ("duration", datetime.timedelta),
    ("bytes", (bytes, bytearray)),
    ("uuid", uuid.UUID),
    ("list", _LISTS),
    ("dict", dict),
)


def object_column(cells: Sequence[Any], name: str, rows: Callable[[int], int] = int) -> pa.Array | pa.ChunkedArray:
    """Return Python objects as a column.

    None, NaN, pandas' NA and NaT are missing; NumPy's scalars are the Python values that they hold. Objects of one
    type keep it. Booleans with integers, and either with floats or decimals, are numbers; dates with datetimes are
    datetimes. Datetimes of one time zone keep it, of several zones they become UTC; with and without a zone is an
    error. ISO 8601 text stays text, and bytes that are UTF-8 become text. Members of a list follow the same rules.

    Values of several other types become text: whole numbers "1" whatever their type, other numbers as Python's repr,
    booleans "True" and "False", dates "2024-03-01", datetimes "2024-03-01" at midnight and "2024-03-01 12:30:00"
    else, with the offset if they have one; durations, times, UUIDs, periods and intervals as `str` prints them.

    Parameters
    ----------
    cells : sequence of objects
    name : str, of the column
    rows : function from a place among the cells to the number of its row, for messages

    Raises
    ------
    SchemaError : a value is no cell of a table, is text that is not Unicode, or is a datetime without a time zone
        where others have one
    SourceError : numbers are complex
    """
    values = list(cells)
    families = _families(values)
    if len(families) > 1 or not families <= {"text", "bool", "int", "float"}:
        values = [_python_value(cell) for cell in values]
        families = _families(values)
    if "complex" in families:
        raise SourceError(f"Column '{name}' is complex. Complex data not supported: split it into two columns.")
    if families <= {"text"}:
        return _texts(values, name, rows) if families else pa.nulls(len(values))
    if families <= {"date", "datetime"} and "datetime" in families:
        return _timestamps(values, name, rows)
    if families == {"bytes"}:
        return _bytes(values)
    if families <= {"list"}:
        return _lists(values, name, rows)
    if len(families) == 1 and families != {"other"} and families != {"uuid"}:
        try:
            return pa.array(values, from_pandas=True)
        except FAILED:
            if families == {"dict"}:
                raise _no_cell(values, name, rows, ("dict",)) from None
    if families <= {"bool", "int", "float", "decimal"} and families != {"int"}:
        numbers = _numbers(values, families)
        if numbers is not None:
            return numbers
    return _texts([None if cell is None else _text(cell, name, rows(i)) for i, cell in enumerate(values)], name, rows)


def _families(values: Sequence[Any]) -> set[str]:
    """Return the families of the values that are not missing."""
    return {_family(kind) for kind in set(map(type, values))} - {""}


def _family(kind: type) -> str:
    """Return the family of a class; "" for None, "numpy" for what `_python_value` has to look at."""
    if kind is type(None):
        return ""
    if issubclass(kind, complex | np.complexfloating):
        return "complex"
    if issubclass(kind, np.generic) and not issubclass(kind, str | bytes | float):
        return "numpy"
    return next((family for family, classes in _FAMILIES if issubclass(kind, classes)), "other")


def _python_value(cell: Any) -> Any:
    """Return None for a missing value, and what a NumPy scalar holds."""
    if type(cell) in (str, int, bool):
        return cell
    if isinstance(cell, np.ndarray) and cell.ndim == 0:
        cell = cell[()]
    if isinstance(cell, np.datetime64 | np.timedelta64):
        if np.isnat(cell):
            return None
        kind = "M8" if isinstance(cell, np.datetime64) else "m8"
        is_date = kind == "M8" and np.datetime_data(cell.dtype)[0] in ("Y", "M", "W", "D")
        return cell.astype(f"{kind}[{'D' if is_date else 'us'}]").item()
    if isinstance(cell, np.floating):
        cell = float(cell)
    elif isinstance(cell, np.generic):
        cell = cell.item()
    if isinstance(cell, bytearray):
        return bytes(cell)
    return None if is_missing(cell) else cell


def is_missing(cell: object) -> bool:
    """Return whether a cell is None, NaN, or pandas' NA or NaT."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(cell, decimal.Decimal):
        return cell.is_nan()
    return isinstance(cell, float | np.floating) and bool(np.isnan(cell))


def is_scalar(cell: object) -> bool:
    """Return whether an object can be one cell of a table that is no list."""
    cell = _python_value(cell)
    return cell is None or _family(type(cell)) not in ("list", "dict", "other") or _is_pandas_scalar(cell)


def _is_pandas_scalar(cell: object) -> bool:
    return type(cell).__module__.partition(".")[0] == "pandas" and type(cell).__name__ in ("Period", "Interval")


def _numbers(values: Sequence[Any], families: set[str]) -> pa.Array | None:
    """Return booleans, integers, floats, decimals as one type, floats if need be; None where some are too large."""
    whole = [int(cell) if isinstance(cell, bool) else cell for cell in values]
    try:
        if "float" not in families:
            return pa.array(whole)
    except FAILED:
        if "decimal" not in families:
            return None
    try:
        return pa.array([np.nan if cell is None else float(cell) for cell in whole], pa.float64(), from_pandas=True)
    except OverflowError:
        return None


def _timestamps(values: Sequence[Any], name: str, rows: Callable[[int], int]) -> pa.Array:
    """Return dates and datetimes as timestamps: in their time zone where they have the same, else in UTC."""
    times = [
        _midnight(cell) if cell is not None and not isinstance(cell, datetime.datetime) else cell for cell in values
    ]
    zoned = [cell is not None and cell.utcoffset() is not None for cell in times]
    if not any(zoned):
        return pa.array([None if cell is None else cell.replace(tzinfo=None) for cell in times], pa.timestamp("us"))
    naive = next((i for i, cell in enumerate(times) if cell is not None and not zoned[i]), None)
    if naive is not None:
        aware = zoned.index(True)
        raise SchemaError(
            f"Column '{name}' holds datetimes without and with a time zone: {times[naive]} in row {rows(naive)}, "
            f"{times[aware]} in row {rows(aware)}. Give all of them a zone, or none."
        )
    zones = {_zone(zone) for zone in {id(cell.tzinfo): cell.tzinfo for cell in times if cell is not None}.values()}
    return pa.array(times, pa.timestamp("us", tz=zones.pop() if len(zones) == 1 else "UTC"))


def _midnight(date: datetime.date) -> datetime.datetime:
    return datetime.datetime(date.year, date.month, date.day)


def _zone(zone: datetime.tzinfo | None) -> str:
    """Return Arrow's name of a time zone, UTC where it has none."""
    try:
        return str(pa.array([datetime.datetime(2000, 1, 1, tzinfo=zone)]).type.tz)
    except FAILED:
        return "UTC"


def _bytes(values: Sequence[bytes | None]) -> pa.Array | pa.ChunkedArray:
    """Return bytes as text where all of them are UTF-8."""
    array = pa.array(values)
    try:
        return array.cast(pa.large_string())
    except pa.ArrowInvalid:
        return array


def _lists(values: Sequence[Any], name: str, rows: Callable[[int], int]) -> pa.Array | pa.ChunkedArray:
    """Return lists of one type as Arrow has them, of several types as lists of what `object_column` makes of them."""
    members = [[] if cell is None else list(cell) for cell in values]
    flat = [member for cell in members for member in cell]
    row_of = np.repeat(np.arange(len(values)), [len(cell) for cell in members])
    families = _families(flat)
    if len(families) < 2 and families <= {"text", "bool", "int", "float", "list", "dict"}:
        try:
            return pa.array(values, from_pandas=True)
        except FAILED:  # perhaps lists beside arrays, or text that is not Unicode: by its members, then
            pass
    if not all(is_scalar(member) for member in flat):
        raise _no_cell(values, name, rows, ("list",))
    column = object_column(flat, name, lambda i: rows(int(row_of[i])))
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    starts = np.concatenate([[0], np.cumsum([len(cell) for cell in members])])
    missing = np.array([*(cell is None for cell in values), False])
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32(), mask=missing), column)


def _texts(values: Sequence[str | None], name: str, rows: Callable[[int], int]) -> pa.Array | pa.ChunkedArray:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        i = next(i for i, text in enumerate(values) if text is not None and not is_unicode(text))
    raise SchemaError(
        f"Column '{name}' has text that is not Unicode in row {rows(i)}: {values[i]!r:.60} (half of a surrogate pair). "
        "Clean it, for example by text.encode('utf-8', 'replace').decode()."
    )


def _text(cell: Any, name: str, row: int) -> str:
    """Return a value as text, by the rule of `object_column`."""
    family = _family(type(cell))
    if family == "text":
        return str.__str__(cell)
    if family in ("float", "decimal"):
        whole = abs(cell) < _WHOLE and cell == int(cell)
        return str(int(cell)) if whole else repr(float(cell))
    if family == "datetime":
        return str(cell.date()) if cell.utcoffset() is None and cell.time() == datetime.time() else str(cell)
    if family == "bytes":
        try:
            return cell.decode()  # type: ignore[no-any-return]
        except UnicodeDecodeError:
            raise SchemaError(
                f"Column '{name}' holds bytes that are not UTF-8 text in row {row}: {cell!r:.60}. Decode them."
            ) from None
    if family in ("list", "dict") or (family == "other" and not _is_pandas_scalar(cell)):
        raise _no_cell([cell], name, lambda _: row, (family,))
    return str(cell)


def _no_cell(values: Sequence[Any], name: str, rows: Callable[[int], int], families: Sequence[str]) -> SchemaError:
    """Return the error of the first value of these families."""
    i, cell = next((i, cell) for i, cell in enumerate(values) if cell is not None and _family(type(cell)) in families)
    return SchemaError(
        f"Column '{name}' can't be read: in row {rows(i)} stands a {type(cell).__name__}: {cell!r:.60}. Make its "
        "values all numbers, all strings or all lists."
    )
