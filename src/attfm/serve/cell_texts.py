"""What one text means: nothing, a truth, a number, a date or a span of time. The twin of `attfm.data.texts`."""

import datetime
import decimal
import re
import sys
import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache

from attfm.serve.cells import EPOCH, Cell

_US = 1_000_000  # microseconds of a second
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:[+-]?(inf|infinity)|nan)", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)
_TRUTHS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_TRUTH_NUMBERS = {"False": "0", "True": "1", "false": "0", "true": "1", "FALSE": "0", "TRUE": "1"}
_TIME = (
    r"(?P<hour>\d{1,2})(?::?(?P<minute>\d{2})(?::?(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,6})\d*)?)?)?"
    r"(?:\s*(?P<half>[AaPp])\.?[Mm]\.?)?"
)
_ZONE = r"(?:(?P<utc>Z)|(?P<side>[+-])(?P<zone_hour>\d{2})(?::?(?P<zone_minute>\d{2}))?)?"
_DAYS = {
    None: r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})",
    True: r"(?P<day>\d{1,2})[/.-](?P<month>\d{1,2})[/.-](?P<year>\d{4}|\d{2})",
    False: r"(?P<month>\d{1,2})[/.-](?P<day>\d{1,2})[/.-](?P<year>\d{4}|\d{2})",
}
_DATES = {first: re.compile(rf"\s*{days}(?:[T ]\s*{_TIME}\s*{_ZONE})?\s*", re.ASCII) for first, days in _DAYS.items()}
_SPAN = re.compile(
    r"(?P<sign>[+-]?)(?:(?P<days>\d+)\s*days?,?\s*)?(?P<inner>[+-]?)"
    r"(?:(?P<hours>\d+):(?P<minutes>\d{2})(?::(?P<seconds>\d{2})(?:\.(?P<fraction>\d{1,9})\d*)?)?)?",
    re.ASCII,
)
_ISO_SPAN = re.compile(
    r"(?P<sign>[+-]?)P(?:(?P<days>\d+)D)?(?P<inner>)"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)(?:\.(?P<fraction>\d{1,9})\d*)?S)?)?",
    re.ASCII,
)
_DAY = 86_400


@dataclass(frozen=True)
class TextReading:
    """How text is read, see `attfm.config.Reading`; `null_values` are all texts that mean missing."""

    decimal: str = "."
    thousands: str | None = None
    signs: bool = False
    day_first: bool | None = None
    null_values: frozenset[str] = frozenset({""})

    def tidied(self, text: str) -> str | None:
        """Return a text without spaces around it, None where nothing is left, or what is left means missing."""
        text = text.strip()
        return None if not text or text in self.null_values else text

    def plain_number(self, text: str) -> str:
        """Return a number in the plain notation; another text as it is, unless it looks plain."""
        if not (self.signs or self.thousands or self.decimal != "."):
            return text
        percent = ""
        if self.signs and (parts := _signed().fullmatch(text)):
            text, percent = parts["sign"] + parts["rest"], parts["percent"]
        if self.thousands:
            mark = re.escape(self.thousands)
            if re.fullmatch(rf"[+-]?\d{{1,3}}({mark}\d{{2,3}})*{mark}\d{{3}}([^\d].*)?", text, re.ASCII):
                text = text.replace(self.thousands, "")
        if self.decimal == ",":
            text = text.replace(".", "·").replace(",", ".")
        return text + "e-2" if percent else text


@cache
def _signed() -> re.Pattern[str]:
    signs = "".join(chr(i) for i in range(sys.maxunicode + 1) if unicodedata.category(chr(i)) == "Sc")
    currency = rf"(?:[{re.escape(signs)}]|USD|EUR|GBP|JPY|CHF|CNY|INR)"
    return re.compile(
        rf"(?P<sign>[+-]?)\s*(?:{currency}\s*)?(?P<rest>[+-]?[^\s%$]*?)\s*(?:{currency})?(?P<percent>%?)", re.ASCII
    )


def float_of(text: str) -> float | None:
    """Return a text as a number, NaN where it is empty, None where it is no number; spaces around don't matter."""
    text = text.strip()
    if not text:
        return float("nan")
    return float(text) if _NUMBER.fullmatch(text) else None


def number_of(text: str, family: str, scale: int, reading: TextReading) -> Cell | None:
    """Return a tidied text as a number that a stored type holds, None where it is none.

    Parameters
    ----------
    family : "int", "float", "float32" or "decimal", the stored type; scale : int, of decimals
    """
    text = reading.plain_number(text)
    text = _TRUTH_NUMBERS.get(text, text)
    if not _NUMBER.fullmatch(text):
        return None
    if family == "int" and _WHOLE.fullmatch(text):
        whole = int(text.partition(".")[0])
        if -(2**63) <= whole < 2**64 and not (text.startswith("-") and whole >= 2**63):
            return Cell("int", whole)
    if family == "decimal" and (exact := _decimal_of(text, scale)) is not None:
        return Cell("decimal", exact)
    value = float(text)
    if family == "decimal":
        return Cell("float", value) if value == value else Cell("null")
    if value in (float("inf"), float("-inf")):
        return None
    return Cell("float", value) if value == value else Cell("null")


def _decimal_of(text: str, scale: int) -> decimal.Decimal | None:
    """Return a number with so many digits behind the point, None where it has more, or too many in all."""
    try:
        value = decimal.Decimal(text)
    except decimal.InvalidOperation:
        return None
    if not value.is_finite() or -int(value.as_tuple().exponent) > scale or value.adjusted() + scale > 38:
        return None
    with decimal.localcontext() as context:
        context.prec = 100
        fixed = value.quantize(decimal.Decimal(1).scaleb(-scale))
    return fixed if len(fixed.as_tuple().digits) <= 38 else None


def truth_of(text: str) -> bool | None:
    """Return a tidied text as a truth, None where it is none."""
    return _TRUTHS.get(text.lower())


@lru_cache(maxsize=4096)
def date_of(text: str, day_first: bool | None) -> tuple[int, int | None] | None:
    """Return a text as microseconds since 1970 as written, and the offset of its zone in seconds, None without one.

    None where it is no date.
    """
    found = _date_as(_DATES[None], text, two_digits=False)
    if found is None and day_first is not None:
        found = _date_as(_DATES[day_first], text, two_digits=True)
    return found


def _date_as(pattern: re.Pattern[str], text: str, *, two_digits: bool) -> tuple[int, int | None] | None:
    parts = pattern.fullmatch(text)
    if parts is None:
        return None
    year, month, day, hour, minute, second, zone_hour, zone_minute = (
        int(parts[name] or 0)
        for name in ("year", "month", "day", "hour", "minute", "second", "zone_hour", "zone_minute")
    )
    if two_digits:  # as POSIX has them: 69 to 99 are of the last century
        year = year + 2000 if year < 69 else year + 1900 if year < 100 else year
    if parts["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + 12 * (parts["half"] in "Pp")
    days = _days(year, month, day)
    if days is None or hour >= 24 or minute >= 60 or second >= 61:
        return None
    fraction = int((parts["fraction"] or "").ljust(6, "0"))
    micros = (days * _DAY + hour * 3_600 + minute * 60 + second) * _US + fraction
    if not parts["utc"] and not parts["side"]:
        return micros, None
    offset = zone_hour * 3_600 + zone_minute * 60
    return micros, -offset if parts["side"] == "-" else offset


def _days(year: int, month: int, day: int) -> int | None:
    """Return the days since 1970 of a date of the calendar, which has a year 0 here; None where there is none."""
    shift = 400 if year < 1 else 0  # the calendar repeats every 400 years, of 146,097 days
    try:
        return (datetime.datetime(year + shift, month, day) - EPOCH).days - (146_097 if shift else 0)
    except ValueError:
        return None


def span_of(text: str, family: str) -> tuple[int, int] | None:
    """Return a tidied text as a duration or a time of day in nanoseconds, and how many a second has; None: it is none.

    Parameters
    ----------
    family : "duration" or "time"
    """
    nanoseconds = None
    if re.search(r"\d", text, re.ASCII):
        for pattern in (_SPAN, _ISO_SPAN):
            if nanoseconds is None and (parts := pattern.fullmatch(text)):
                nanoseconds = _nanoseconds(parts)
    if family == "duration":
        if nanoseconds is None:
            seconds = float_of(text)
            if seconds is None or not abs(seconds) < 2**63 / 1e9:
                return None
            nanoseconds = round(seconds * 1e9)
        return nanoseconds, 1_000_000_000
    if nanoseconds is None or not 0 <= nanoseconds < _DAY * 1_000_000_000:
        return None
    return nanoseconds, 1_000_000_000


def _nanoseconds(parts: re.Match[str]) -> int:
    hours, minutes, seconds, days = (int(parts[name] or 0) for name in ("hours", "minutes", "seconds", "days"))
    clock = (hours * 3_600 + minutes * 60 + seconds) * 1_000_000_000 + int((parts["fraction"] or "").ljust(9, "0"))
    whole = days * _DAY * 1_000_000_000
    sign = -1 if parts["sign"] == "-" else 1
    # In pandas "-1 days +02:00:00" is two hours after the day before; without the plus all is negative.
    if parts["inner"] == "+":
        return sign * whole + clock
    return sign * (whole + (-clock if parts["inner"] == "-" else clock))
