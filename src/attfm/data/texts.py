"""What a text means: nothing, a truth, a number, a date or a span of time; and numbers as people read them."""

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from attfm.config import Reading

NULL_VALUES = (
    *("", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "<NA>", "#N/A", "#N/A N/A"),
    *("#NA", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN"),
)
PLAIN = Reading()
DAY_SECONDS = 86_400
TICKS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}  # per second
_TRUTHS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^(?i:[+-]?(inf|infinity)|nan)$"
_WHOLE = r"^[+-]?\d+(\.0*)?$"
_CURRENCY = r"(?:\p{Sc}|USD|EUR|GBP|JPY|CHF|CNY|INR)"
_SIGNED = rf"^(?P<sign>[+-]?)\s*(?:{_CURRENCY}\s*)?(?P<rest>[+-]?[^\s%$]*?)\s*(?:{_CURRENCY})?(?P<percent>%?)$"
_TIME = (
    r"(?P<hour>\d{1,2})(?::?(?P<minute>\d{2})(?::?(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,6})\d*)?)?)?"
    r"(?:\s*(?P<half>[AaPp])\.?[Mm]\.?)?"
)
_ZONE = r"(?:(?P<utc>Z)|(?P<side>[+-])(?P<zone_hour>\d{2})(?::?(?P<zone_minute>\d{2}))?)?"
_DATES = {
    None: r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})",
    True: r"(?P<day>\d{1,2})[/.-](?P<month>\d{1,2})[/.-](?P<year>\d{4}|\d{2})",
    False: r"(?P<month>\d{1,2})[/.-](?P<day>\d{1,2})[/.-](?P<year>\d{4}|\d{2})",
}
_SPAN = (
    r"^(?P<sign>[+-]?)(?:(?P<days>\d+)\s*days?,?\s*)?(?P<inner>[+-]?)"
    r"(?:(?P<hours>\d+):(?P<minutes>\d{2})(?::(?P<seconds>\d{2})(?:\.(?P<fraction>\d{1,9})\d*)?)?)?$"
)
_ISO_SPAN = (
    r"^(?P<sign>[+-]?)P(?:(?P<days>\d+)D)?(?P<inner>)"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)(?:\.(?P<fraction>\d{1,9})\d*)?S)?)?$"
)
Mask = NDArray[np.bool_]


def markers(reading: Reading) -> list[str]:
    """Return the texts that mean missing."""
    return [*(marker for marker in NULL_VALUES if marker not in reading.keep), *reading.null_values]


def tidied(texts: pa.Array, reading: Reading = PLAIN, kept: Sequence[str] = ()) -> pa.Array:
    """Return texts without spaces around them, null where nothing is left, or what is left means missing.

    Parameters
    ----------
    kept : markers of missing values that are values of this column
    """
    texts = pc.utf8_trim_whitespace(texts)
    nothing = _nothing(reading, tuple(kept))
    if texts.type != nothing.type:
        nothing = nothing.cast(texts.type)
    is_nothing = pc.is_in(texts, nothing)
    return pc.if_else(is_nothing, None, texts) if pc.any(is_nothing).as_py() else texts


@lru_cache(maxsize=1024)
def _nothing(reading: Reading, kept: tuple[str, ...]) -> pa.Array:
    return pa.array([*(marker for marker in markers(reading) if marker not in kept), ""], pa.large_string())


def typed(texts: pa.Array, t: pa.DataType, reading: Reading = PLAIN) -> tuple[pa.Array, Mask]:
    """Return tidied texts (large_string) as values of a type, and where there is a text that can't be one.

    Whole numbers come as int64 or uint64 (float64 where some are not whole or too large), dates and times as
    timestamps: naive ones with the time as written, those of a zone as instants. Values are null where there is no
    text, or one that can't be read.
    """
    if types.is_boolean(t):
        values = pa.array([_TRUTHS.get(text.lower()) if text else None for text in texts.to_pylist()], pa.bool_())
        return values, _lost(texts, values)
    if types.is_integer(t) or types.is_floating(t) or types.is_decimal(t):
        return _as_numbers(texts, t, reading)
    if types.is_date(t) or types.is_timestamp(t):
        return as_dates(texts, getattr(t, "tz", None), reading)[:2]
    if types.is_duration(t) or types.is_time(t):
        return _as_spans(texts, t)
    return texts, np.zeros(len(texts), np.bool_)


def plain_numbers(texts: pa.Array, reading: Reading) -> pa.Array:
    """Return numbers written as a reading has them in the plain notation; other texts stay, unless they look plain."""
    if not (reading.signs or reading.thousands or reading.decimal != "."):
        return texts
    nothing = pa.scalar("", texts.type)
    if reading.signs:
        parts = pc.extract_regex(texts, _SIGNED)
        sign, rest, percent = (pc.struct_field(parts, name) for name in ("sign", "rest", "percent"))
        texts = pc.if_else(parts.is_valid(), pc.binary_join_element_wise(sign, rest, nothing), texts)
        is_percent = pc.fill_null(pc.equal(percent, "%"), False)
    if reading.thousands:
        mark = re.escape(reading.thousands)
        grouped = pc.match_substring_regex(texts, rf"^[+-]?\d{{1,3}}({mark}\d{{2,3}})*{mark}\d{{3}}([^\d].*)?$")
        texts = pc.if_else(grouped, pc.replace_substring(texts, reading.thousands, ""), texts)
    if reading.decimal == ",":
        # A point is no decimal sign here: it is made one that no number has.
        texts = pc.replace_substring(pc.replace_substring(texts, ".", "·"), ",", ".")
    if reading.signs:
        texts = pc.if_else(is_percent, pc.binary_join_element_wise(texts, pa.scalar("e-2", texts.type), nothing), texts)
    return texts


def is_number(texts: pa.Array) -> Mask:
    """Return which texts are numbers in the plain notation; missing ones are not."""
    readable = pc.fill_null(pc.match_substring_regex(texts, _NUMBER), False)
    return np.asarray(readable.to_numpy(zero_copy_only=False), np.bool_)


def parse_numbers(texts: pa.Array) -> tuple[NDArray[np.float64], Mask | None]:
    """Return texts as numbers, NaN where missing (empty) or no number, and where a text is no number (None: nowhere).

    Spaces around a number do not matter.
    """
    texts = pc.utf8_trim_whitespace(texts)
    texts = pc.if_else(pc.equal(texts, ""), None, texts)
    try:
        return texts.cast(pa.float64()).to_numpy(zero_copy_only=False), None
    except pa.ArrowInvalid:
        readable = is_number(texts)
        numbers = pc.if_else(pa.array(readable), texts, None).cast(pa.float64())
        unreadable = ~readable & texts.is_valid().to_numpy(zero_copy_only=False)
        return numbers.to_numpy(zero_copy_only=False), unreadable


def _as_numbers(texts: pa.Array, t: pa.DataType, reading: Reading) -> tuple[pa.Array, Mask]:
    texts = plain_numbers(texts, reading)
    # A column of truths is one of 1 and 0 where numbers are wanted.
    words = pa.array(["False", "True", "false", "true", "FALSE", "TRUE"], texts.type)
    truths = pc.index_in(texts, words)
    if truths.null_count < len(truths):
        texts = pc.coalesce(pa.array(["0", "1"] * 3, texts.type).take(truths), texts)
    readable = is_number(texts)
    lost = ~readable & texts.is_valid().to_numpy(zero_copy_only=False)
    numbers = pc.if_else(pa.array(readable), texts, None)
    if types.is_integer(t) and pc.all(pc.match_substring_regex(numbers, _WHOLE)).as_py() is not False:
        whole = pc.replace_substring_regex(numbers, r"^\+|\.0*$", "")
        for wide in (pa.int64(), pa.uint64()):
            try:
                return whole.cast(wide), lost
            except pa.ArrowInvalid:
                continue
    if types.is_decimal(t):
        try:
            return numbers.cast(pa.decimal128(38, t.scale)), lost
        except pa.ArrowInvalid:  # more digits than the column had in training, or an exponent
            return numbers.cast(pa.float64()), lost
    values = numbers.cast(pa.float64())
    infinite = np.isinf(values.to_numpy(zero_copy_only=False))
    if infinite.any():
        values, lost = pc.if_else(pa.array(infinite), None, values), lost | infinite
    return values.cast(t, safe=False) if types.is_floating(t) else values, lost


def parse_dates(texts: pa.Array, reading: Reading = PLAIN) -> tuple[NDArray[np.int64], Mask, Mask]:
    """Return texts of dates as seconds since 1970, of the day and time as written whatever the zone.

    Beside them: where there is no date (the seconds are 0), and where a text that is not empty is no date.
    """
    seconds, absent, lost, *_ = _dates(texts, reading)
    return seconds, absent, lost


def as_dates(texts: pa.Array, zone: str | None, reading: Reading = PLAIN) -> tuple[pa.Array, Mask, Mask]:
    """Return texts of dates as timestamps, where a text is no date, and where its zone is not of the column's kind.

    With a zone, a text without an offset is a local time there; without one, the time as written counts.
    """
    seconds, absent, lost, offset, microseconds = _dates(texts, reading)
    aware = ~np.isnan(offset)
    ticks = seconds * 1_000_000 + microseconds
    local = pa.array(ticks, pa.timestamp("us"), mask=absent)
    if zone is None:
        return local, lost, aware & ~absent
    instants = pa.array(ticks - np.where(aware, offset, 0).astype(np.int64) * 1_000_000, pa.timestamp("us", zone))
    here = pc.assume_timezone(local, zone, ambiguous="earliest", nonexistent="earliest").cast(pa.timestamp("us", zone))
    values = pc.if_else(pa.array(aware), instants, here)
    return pc.if_else(pa.array(absent), None, values), lost, ~aware & ~absent


def _dates(
    texts: pa.Array, reading: Reading
) -> tuple[NDArray[np.int64], Mask, Mask, NDArray[np.float64], NDArray[np.int64]]:
    """Return local seconds, where there is no date, where a text is none, offsets (NaN: none), microseconds."""
    texts = pc.if_else(pc.equal(pc.utf8_trim_whitespace(texts), ""), None, texts)
    seconds, real, offset, microseconds = _dates_as(_DATES[None], texts)
    if reading.day_first is not None:
        more = _dates_as(_DATES[reading.day_first], texts)
        seconds, offset = np.where(real, seconds, more[0]), np.where(real, offset, more[2])
        real, microseconds = real | more[1], np.where(real, microseconds, more[3])
    missing = texts.is_null().to_numpy(zero_copy_only=False)
    return np.where(real, seconds, 0), ~real, ~real & ~missing, offset, np.where(real, microseconds, 0)


def _dates_as(date: str, texts: pa.Array) -> tuple[NDArray[np.int64], Mask, NDArray[np.float64], NDArray[np.int64]]:
    found = pc.extract_regex(texts, rf"^\s*{date}(?:[T ]\s*{_TIME}\s*{_ZONE})?\s*$")

    def text(name: str) -> pa.Array:
        return pc.fill_null(pc.struct_field(found, name), "")

    def part(name: str) -> NDArray[np.int64]:
        digits = text(name)
        return np.asarray(pc.if_else(pc.equal(digits, ""), "0", digits).cast(pa.int64()))

    year, month, day, hour, minute, second = map(part, ("year", "month", "day", "hour", "minute", "second"))
    if date != _DATES[None]:  # two digits as POSIX has them: 69 to 99 are of the last century
        year = np.where(year < 69, year + 2000, np.where(year < 100, year + 1900, year))
    half = np.asarray(pc.utf8_upper(text("half")).to_numpy(zero_copy_only=False), np.str_)
    valid_half = (half == "") | ((hour >= 1) & (hour <= 12))
    hour = np.where(half == "", hour, hour % 12 + 12 * (half == "P"))
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1)
    # A day that the month does not have would land in another month.
    real = (days.astype("datetime64[M]") == months) & (month >= 1) & (month <= 12) & (day >= 1) & valid_half
    real &= (hour < 24) & (minute < 60) & (second < 61) & found.is_valid().to_numpy(zero_copy_only=False)
    seconds = days.astype(np.int64) * DAY_SECONDS + hour * 3_600 + minute * 60 + second
    side = np.asarray(text("side").to_numpy(zero_copy_only=False), np.str_)
    offset = np.where(side == "-", -1.0, 1.0) * (part("zone_hour") * 3_600 + part("zone_minute") * 60)
    said = (side != "") | np.asarray(pc.equal(text("utc"), "Z").to_numpy(zero_copy_only=False))
    microseconds = np.asarray(pc.utf8_rpad(text("fraction"), 6, "0").cast(pa.int64()))
    return seconds, real, np.where(said & real, offset, np.nan), microseconds


def _as_spans(texts: pa.Array, t: pa.DataType) -> tuple[pa.Array, Mask]:
    """Return durations ("1 days 02:03:04", "P1DT2H", a number of seconds) or times of day ("12:30"), to nanoseconds."""
    total, real = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.bool_)
    for pattern in (_SPAN, _ISO_SPAN):
        found = pc.extract_regex(texts, pattern)

        def part(name: str, found: pa.Array = found) -> NDArray[np.int64]:
            digits = pc.fill_null(pc.struct_field(found, name), "")
            digits = pc.utf8_rpad(digits, 9, "0") if name == "fraction" else digits
            return np.asarray(pc.if_else(pc.equal(digits, ""), "0", digits).cast(pa.int64()))

        def minus(name: str, found: pa.Array = found) -> NDArray[np.int64]:
            is_minus = pc.fill_null(pc.equal(pc.struct_field(found, name), "-"), False)
            return np.where(is_minus.to_numpy(zero_copy_only=False), -1, 1)

        clock = (part("hours") * 3_600 + part("minutes") * 60 + part("seconds")) * 1_000_000_000 + part("fraction")
        days = part("days") * DAY_SECONDS * 1_000_000_000
        # In pandas "-1 days +02:00:00" is two hours after the day before; without the plus all is negative.
        apart = pc.fill_null(pc.equal(pc.struct_field(found, "inner"), "+"), False).to_numpy(zero_copy_only=False)
        sign = minus("sign")
        nanoseconds = np.where(apart, sign * days + clock, sign * (days + minus("inner") * clock))
        some = found.is_valid().to_numpy(zero_copy_only=False) & ~real
        some &= pc.fill_null(pc.match_substring_regex(texts, r"\d"), False).to_numpy(zero_copy_only=False)
        total, real = np.where(some, nanoseconds, total), real | some
    if types.is_duration(t):
        seconds, unreadable = parse_numbers(texts)
        numbers = (np.abs(seconds) < 2**63 / 1e9) & ~real & (True if unreadable is None else ~unreadable)
        total = np.where(numbers, np.rint(np.where(numbers, seconds, 0) * 1e9).astype(np.int64), total)
        real = real | numbers
    else:
        real &= (total >= 0) & (total < DAY_SECONDS * 1_000_000_000)
    lost = ~real & texts.is_valid().to_numpy(zero_copy_only=False)
    unit = pa.duration("ns") if types.is_duration(t) else pa.time64("ns")
    return pa.array(np.where(real, total, 0), pa.int64(), mask=~real).cast(unit), lost


def is_unicode(text: str) -> bool:
    """Return whether a text can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _lost(texts: pa.Array, values: pa.Array) -> Mask:
    return np.asarray(pc.and_(texts.is_valid(), values.is_null()).to_numpy(zero_copy_only=False), np.bool_)


def short_numbers(numbers: NDArray[np.float64]) -> list[str]:
    """Return numbers as text: integers in full, others with as few digits as keep different ones apart."""
    if (np.abs(numbers) < 1e15).all() and (numbers == np.trunc(numbers)).all():
        return [str(int(x)) for x in numbers.tolist()]
    for digits in (6, 9, 12):
        texts = [f"{x:.{digits}g}" for x in numbers]
        if len(set(texts)) == len(set(numbers.tolist())):
            return texts
    return [repr(x) for x in numbers.tolist()]
