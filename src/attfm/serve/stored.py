"""One value in the terms of the training table: the type that its column had there, and one text for each value.

The twin of `attfm.data.stored_terms` and `attfm.data.canonical_text`, for one value.
"""

import datetime
import decimal
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np

from attfm.data.bad_values import BadValues
from attfm.serve.cell_texts import TextReading, date_of, number_of, span_of, truth_of
from attfm.serve.cells import EPOCH, LAST_RULE, MISSING, Cell

_NUMBERS = frozenset({"int", "float", "float32", "decimal"})
_MICROSECOND = datetime.timedelta(microseconds=1)
_INT64_FLOATS = 2.0**63


@dataclass(frozen=True)
class StoredType:
    """The type of a column's values in training.

    Attributes
    ----------
    family : as of a `Cell`, or "other"
    zone, scale : of datetimes, and of decimals
    member : StoredType or None, of a list's members
    """

    family: str
    zone: str | None = None
    scale: int = 0
    member: "StoredType | None" = None

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Self:
        """Return the type that `facts` of one tells."""
        member = facts.get("member")
        return cls(
            facts["family"], facts.get("zone"), facts.get("scale", 0), None if member is None else cls.of(member)
        )

    def facts(self) -> dict[str, Any]:
        """Return what JSON can hold, of which `of` makes an equal one."""
        own = {"family": self.family, "zone": self.zone, "scale": self.scale}
        return own if self.member is None else {**own, "member": self.member.facts()}


@dataclass(frozen=True)
class CellTerms:
    """What the values of one column mean: see `attfm.data.stored_terms.StoredTerms`.

    Attributes
    ----------
    name : str, of the column
    stored : StoredType; reading : TextReading
    kind : str, of the column
    null_numbers : numbers that mean missing
    """

    name: str
    stored: StoredType
    reading: TextReading
    kind: str = "categorical"
    null_numbers: frozenset[float] = frozenset()

    def apply(self, cell: Cell, bad: BadValues) -> Cell:
        """Return a value as if it had come in the stored type, as far as that can be."""
        if cell.family == "text":
            return cell if self.stored.family in ("list", "map") else self._read(cell.value, bad)
        if cell.family == "list":
            return self._members(cell, bad)
        if cell.family in ("null", "bytes", "map"):
            return cell
        return self._converted(cell, bad)

    def _read(self, text: str, bad: BadValues) -> Cell:
        tidy = self.reading.tidied(text)
        if tidy is None:
            return MISSING
        stored = self.stored
        family = "float" if stored.family == "text" and self.kind == "numeric" else stored.family
        if family == "text" and self.kind == "datetime":
            family = "datetime"
        value: Cell | None
        if family in ("datetime", "date"):
            value = self._date(tidy, bad)
        elif family == "bool":
            truth = truth_of(tidy)
            value = None if truth is None else Cell("bool", truth)
        elif family in _NUMBERS:
            value = number_of(tidy, family, stored.scale, self.reading)
        elif family in ("time", "duration"):
            span = span_of(tidy, family)
            value = None if span is None else Cell(family, span)
        else:
            return Cell("text", tidy)
        return Cell("text", tidy) if value is None else self._converted(value, bad)

    def _date(self, text: str, bad: BadValues) -> Cell | None:
        found = date_of(text, self.reading.day_first)
        if found is None:
            return None
        local, offset = found
        zone = self.stored.zone
        if self.stored.family == "datetime" and (offset is not None) != (zone is not None):
            self._warn_of_zone(bad)
        if zone is None:
            return Cell("datetime", local)
        if offset is None:
            return localised(local, zone)
        return in_zone(local - offset * 1_000_000, zone)

    def _converted(self, cell: Cell, bad: BadValues) -> Cell:
        family, stored = cell.family, self.stored
        if family in _NUMBERS and self.null_numbers and float(cell.value) in self.null_numbers:
            # Where numbers can't be, one that means missing is of the wrong type all the same.
            return MISSING if self.kind in ("categorical", "numeric") else cell
        if family in _NUMBERS or family == "bool":
            if stored.family == "bool" and family != "bool":
                return _as_truth(cell)
            return self._as_number(cell) if stored.family in _NUMBERS else cell
        if family == "datetime" and stored.family == "datetime":
            if (cell.zone is None) != (stored.zone is None):
                self._warn_of_zone(bad)
                return Cell("datetime", cell.local) if stored.zone is None else localised(cell.local, stored.zone)
            if cell.zone != stored.zone and stored.zone is not None:
                return in_zone(cell.value, stored.zone)
        return cell

    def _as_number(self, cell: Cell) -> Cell:
        if cell.family == "bool":
            return Cell("int", int(cell.value))
        if self.stored.family == "float32":
            with np.errstate(over="ignore"):
                return Cell("float32", np.float32(float(cell.value)))
        if self.stored.family == "decimal" and cell.family in ("float", "float32"):
            return _as_decimal(cell, self.stored.scale)
        return cell

    def _members(self, cell: Cell, bad: BadValues) -> Cell:
        member = self.stored.member
        if self.stored.family != "list" or member is None or member.family == "text":
            return cell
        terms = CellTerms(self.name, member, self.reading, null_numbers=self.null_numbers)
        return Cell("list", tuple(terms.apply(one, bad) for one in cell.value))

    def _warn_of_zone(self, bad: BadValues) -> None:
        bad.warn_of_zone(self.name, self.stored.zone)


def _as_truth(cell: Cell) -> Cell:
    if cell.value in (0, 1):
        return Cell("bool", bool(cell.value))
    return Cell("text", canonical_text(cell))


def _as_decimal(cell: Cell, scale: int) -> Cell:
    x = float(cell.value)
    if not abs(x) < 10.0 ** (38 - scale):
        return cell
    with decimal.localcontext() as context:
        context.prec = 400
        value = decimal.Decimal(x).quantize(decimal.Decimal(1).scaleb(-scale), decimal.ROUND_HALF_EVEN)
    return Cell("decimal", value)


@lru_cache(maxsize=256)
def _zone_info(zone: str) -> datetime.tzinfo:
    if fixed := re.fullmatch(r"([+-])(\d\d):?(\d\d)", zone):
        ahead = datetime.timedelta(hours=int(fixed[2]), minutes=int(fixed[3]))
        return datetime.timezone(-ahead if fixed[1] == "-" else ahead)
    if zone == "UTC":
        return datetime.UTC
    from zoneinfo import ZoneInfo

    return ZoneInfo(zone)


def in_zone(instant: int, zone: str) -> Cell:
    """Return the datetime of an instant, in microseconds since 1970, in a time zone."""
    try:
        moment = (EPOCH + min(instant, LAST_RULE) * _MICROSECOND).replace(tzinfo=datetime.UTC)
        offset = moment.astimezone(_zone_info(zone)).utcoffset() or datetime.timedelta()
    except OverflowError:  # on the first or the last day of the calendar
        offset = datetime.timedelta()
    return Cell("datetime", instant, zone, offset // _MICROSECOND)


def localised(local: int, zone: str) -> Cell:
    """Return the datetime of a local time of a zone: the earlier one of two, and where there is none the next."""
    try:
        # Python takes a time that the clock leaves out with the offset of before, as if it had not been moved yet.
        moment = (EPOCH + min(local, LAST_RULE) * _MICROSECOND).replace(tzinfo=_zone_info(zone))
        offset = (moment.utcoffset() or datetime.timedelta()) // _MICROSECOND
    except OverflowError:
        offset = 0
    there = in_zone(local - offset, zone)
    if there.local == local:
        return there
    # The clock was put forward over it: Arrow takes the last moment before that.
    low, high = local - there.offset, local - offset
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if in_zone(middle, zone).offset == offset else (low, middle)
    return in_zone(low, zone)


def canonical_text(cell: Cell) -> str:
    """Return a value of a scalar family, not missing, as text: see `attfm.data.canonical_text.canonical_text`."""
    family, value = cell.family, cell.value
    if family == "text":
        return str(value)
    if family == "bool":
        return "true" if value else "false"
    if family == "int":
        return str(value)
    if family in ("float", "float32"):
        return _float_text(value)
    if family == "decimal":
        return _decimal_text(value)
    if family == "duration":
        return _float_text(value[0] / value[1])
    if family == "time":
        seconds, rest = divmod(value[0], value[1])
        clock = f"{seconds // 3_600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        return clock + _fraction(rest, value[1])
    if family == "date":
        return f"{value.year:04d}-{value.month:02d}-{value.day:02d}"
    days, micros = divmod(cell.local, 86_400_000_000)
    day = str(np.datetime64(days, "D"))
    return f"{day} {canonical_text(Cell('time', (micros, 1_000_000)))}" if micros else day


def _fraction(ticks: int, second: int) -> str:
    digits = str(ticks).zfill(len(str(second)) - 1).rstrip("0")
    return f".{digits}" if digits else ""


def _float_text(value: Any) -> str:
    if abs(value) < _INT64_FLOATS and value == int(value):
        return str(int(value))
    return repr(float(value)) if isinstance(value, float) else str(value)


def _decimal_text(value: decimal.Decimal) -> str:
    if int(value.as_tuple().exponent) >= 0:
        return str(int(value))
    text = str(value)
    if "E" in text:
        return _float_text(float(value))
    return text.rstrip("0").rstrip(".")
