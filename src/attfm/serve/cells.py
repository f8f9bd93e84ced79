"""One value of a row as `attfm.data` would have it in an Arrow column of its own; Arrow is not needed for it.

This is the twin of `attfm.data.sources.object_columns`, for one value: tests hold them together.
"""

import datetime
import decimal
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attfm.errors import SchemaError, SourceError

EPOCH = datetime.datetime(1970, 1, 1)
_UTC_EPOCH = EPOCH.replace(tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)
# Arrow's clocks are not moved any more after 2037, the last year of the lists of time zones: so ours are not.
LAST_RULE = (datetime.datetime(2037, 12, 31) - EPOCH) // _MICROSECOND
_INT64 = range(-(2**63), 2**63)
_MOST_DIGITS = 76  # of Arrow's decimals
_LISTS = (list, tuple, np.ndarray, set, frozenset)


@dataclass(frozen=True, slots=True)
class Cell:
    """A value with the type that Arrow would give it.

    Attributes
    ----------
    family : str
        "null", "text", "bool", "int", "float", "float32", "decimal", "date", "datetime", "time", "duration", "bytes",
        "list" or "map"
    value : object
        Of a datetime the microseconds since 1970, of its instant or, without a zone, as written; of a time or a
        duration (ticks, ticks per second); of a list a tuple of cells; of a map a tuple of (key, weight) cells.
    zone : str or None, time zone of a datetime
    offset : int, microseconds that local time is ahead of UTC
    """

    family: str
    value: Any = None
    zone: str | None = None
    offset: int = 0

    @property
    def arrow_type(self) -> str:
        """What messages call its type: Arrow's name."""
        if self.family == "decimal":
            digits, scale = _digits(self.value)
            return f"decimal{128 if digits <= 38 else 256}({digits}, {scale})"
        if self.family == "int":
            return "int64" if self.value in _INT64 else "uint64"
        if self.family == "datetime":
            return "timestamp[us]" if self.zone is None else f"timestamp[us, tz={self.zone}]"
        if self.family in ("time", "duration"):
            unit = "us" if self.value[1] == 1_000_000 else "ns"
            return f"{'time64' if self.family == 'time' else 'duration'}[{unit}]"
        if self.family == "list":
            members = {member.arrow_type for member in self.value} - {"null"}
            return f"list<item: {members.pop() if len(members) == 1 else 'string' if members else 'null'}>"
        if self.family == "map":
            return f"struct<{', '.join(f'{key.value}: {weight.arrow_type}' for key, weight in self.value)}>"
        names = {"text": "string", "float": "double", "float32": "float", "date": "date32[day]", "bytes": "binary"}
        return names.get(self.family, self.family)

    @property
    def local(self) -> int:
        """Microseconds since 1970 of a datetime, as the clock of its zone shows it."""
        return int(self.value) + self.offset


MISSING = Cell("null")


def cell_of(value: Any, column: str, row: int = 0) -> Cell:
    """Return what a value of a column is; `row` is its number, for messages.

    Raises
    ------
    SchemaError : it is no cell of a table, or text that is not Unicode
    SourceError : it is a complex number
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, Cell):
        return value
    if is_missing(value):
        return MISSING
    if isinstance(value, str):
        return Cell("text", _checked_text(str.__str__(value), column, row))
    if isinstance(value, complex | np.complexfloating):
        raise SourceError(f"Column '{column}' is complex. Complex data not supported: split it into two columns.")
    if isinstance(value, np.generic) and not isinstance(value, bytes | float):
        return cell_of(_python_value(value), column, row)
    if isinstance(value, bool):
        return Cell("bool", bool(value))
    if isinstance(value, int):
        return Cell("int", int(value)) if int(value) in _INT64 else Cell("text", str(int(value)))
    if isinstance(value, float):
        return Cell("float", float(value))
    if isinstance(value, decimal.Decimal):
        return _of_decimal(value)
    if isinstance(value, datetime.datetime):
        return _of_datetime(value)
    if isinstance(value, datetime.date):
        return Cell("date", value)
    return _of_rare(value, column, row)


def is_missing(value: object) -> bool:
    """Return whether a value is None, NaN, or pandas' NA or NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, decimal.Decimal):
        return value.is_nan()
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return isinstance(value, float | np.floating) and bool(value != value)


def is_scalar(value: object) -> bool:
    """Return whether a value can be one cell of a table that is no list or map."""
    return not isinstance(value, (*_LISTS, dict)) or (isinstance(value, np.ndarray) and value.ndim == 0)


def _of_rare(value: Any, column: str, row: int) -> Cell:
    if isinstance(value, datetime.time):
        ticks = ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
        return Cell("time", (ticks, 1_000_000))
    if isinstance(value, datetime.timedelta):
        ticks = value // _MICROSECOND
        return Cell("duration", (ticks, 1_000_000)) if ticks in _INT64 else Cell("text", str(value))
    if isinstance(value, bytes | bytearray):
        try:
            return Cell("text", bytes(value).decode())
        except UnicodeDecodeError:
            return Cell("bytes", bytes(value))
    if isinstance(value, uuid.UUID) or _is_pandas_scalar(value):
        return Cell("text", str(value))
    if isinstance(value, _LISTS):
        members = tuple(value.tolist() if isinstance(value, np.ndarray) else value)
        nested = [not is_scalar(member) for member in members if member is not None]
        if any(nested) and not all(nested):
            raise no_cell(value, column, row)
        return Cell("list", _alike([cell_of(member, column, row) for member in members]))
    if isinstance(value, dict):
        return Cell("map", tuple((cell_of(k, column, row), cell_of(v, column, row)) for k, v in value.items()))
    raise no_cell(value, column, row)


def _is_pandas_scalar(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas" and type(value).__name__ in ("Period", "Interval")


def no_cell(value: object, column: str, row: int) -> SchemaError:
    """Return the error of a value that is no cell of a table."""
    return SchemaError(
        f"Column '{column}' can't be read: in row {row} stands a {type(value).__name__}: {value!r:.60}. Make its "
        "values all numbers, all strings or all lists."
    )


def _checked_text(text: str, column: str, row: int) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SchemaError(
            f"Column '{column}' has text that is not Unicode in row {row}: {text!r:.60} (half of a surrogate pair). "
            "Clean it, for example by text.encode('utf-8', 'replace').decode()."
        ) from None
    return text


def _python_value(value: np.generic) -> Any:
    if isinstance(value, np.datetime64 | np.timedelta64):
        kind = "M8" if isinstance(value, np.datetime64) else "m8"
        is_date = kind == "M8" and np.datetime_data(value.dtype)[0] in ("Y", "M", "W", "D")
        return value.astype(f"{kind}[{'D' if is_date else 'us'}]").item()
    return float(value) if isinstance(value, np.floating) else value.item()


def _of_decimal(value: decimal.Decimal) -> Cell:
    if not value.is_finite() or _digits(value)[0] > _MOST_DIGITS:
        return Cell("float", float(value))
    return Cell("decimal", value)


def _digits(value: decimal.Decimal) -> tuple[int, int]:
    """Return precision and scale of the type that Arrow gives a finite decimal."""
    _, digits, exponent = value.as_tuple()
    scale = max(0, -int(exponent))
    return max(len(digits) + max(0, int(exponent)), scale, 1), scale


def _of_datetime(value: datetime.datetime) -> Cell:
    offset = value.utcoffset()
    if offset is None:
        return Cell("datetime", (value.replace(tzinfo=None) - EPOCH) // _MICROSECOND)
    zone = _zone_name(value.tzinfo)
    instant = (value - _UTC_EPOCH) // _MICROSECOND
    if zone is None:  # Arrow has no name for it
        return Cell("datetime", instant, "UTC")
    if instant > LAST_RULE:
        offset = (_UTC_EPOCH + LAST_RULE * _MICROSECOND).astimezone(value.tzinfo).utcoffset() or offset
    return Cell("datetime", instant, zone, offset // _MICROSECOND)


def _zone_name(zone: datetime.tzinfo | None) -> str | None:
    """Return Arrow's name of a time zone, None where it has none."""
    if zone is datetime.UTC:
        return "UTC"
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)
    if name:
        return str(name)
    fixed = None if zone is None else zone.utcoffset(None)
    if fixed is None:
        return None
    minutes = fixed // datetime.timedelta(minutes=1)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def _alike(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Return the members of a list as values of the one type that Arrow gives them."""
    families = {cell.family for cell in cells} - {"null"}
    if len(families) < 2:
        return tuple(cells)
    if families == {"date", "datetime"}:
        return tuple(_midnight(cell) if cell.family == "date" else cell for cell in cells)
    if families <= {"bool", "int", "float", "decimal"}:
        kind = "float" if "float" in families else "decimal" if "decimal" in families else "int"
        make = {"float": float, "int": int, "decimal": decimal.Decimal}[kind]
        return tuple(cell if cell.family == "null" else Cell(kind, make(cell.value)) for cell in cells)
    return tuple(cell if cell.family in ("null", "text") else Cell("text", _text(cell)) for cell in cells)


def _midnight(cell: Cell) -> Cell:
    day = cell.value
    return Cell("datetime", (datetime.datetime(day.year, day.month, day.day) - EPOCH) // _MICROSECOND)


def _text(cell: Cell) -> str:
    """Return a value among values of other types as text."""
    if cell.family in ("float", "decimal"):
        whole = abs(cell.value) < 2**63 and cell.value == int(cell.value)
        return str(int(cell.value)) if whole else repr(float(cell.value))
    if cell.family == "datetime":
        local = EPOCH + cell.local * _MICROSECOND
        if cell.zone is None:
            return str(local.date()) if local.time() == datetime.time() else str(local)
        return str(local.replace(tzinfo=datetime.timezone(cell.offset * _MICROSECOND)))
    if cell.family in ("time", "duration"):
        span = cell.value[0] * _MICROSECOND
        return str((EPOCH + span).time()) if cell.family == "time" else str(span)
    return str(cell.value)
