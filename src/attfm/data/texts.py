"""Texts as numbers and dates, and numbers as people read them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^(?i:[+-]?(inf|infinity)|nan)$"
_DATE = (
    r"^\s*(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})"
    r"(?:[T ](?P<hour>\d{2})(?::?(?P<minute>\d{2})(?::?(?P<second>\d{2})(?:[.,]\d+)?)?)?"
    r"\s*(?:Z|[+-]\d{2}(?::?\d{2})?)?)?\s*$"
)
DAY_SECONDS = 86_400


def parse_numbers(texts: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Return texts as numbers, NaN where missing (empty) or no number, and where a text is no number (None: nowhere).

    Spaces around a number do not matter.
    """
    texts = pc.utf8_trim_whitespace(texts)
    texts = pc.if_else(pc.equal(texts, ""), None, texts)
    try:
        return texts.cast(pa.float64()).to_numpy(zero_copy_only=False), None
    except pa.ArrowInvalid:
        readable = pc.match_substring_regex(texts, _NUMBER)
        numbers = pc.if_else(readable, texts, None).cast(pa.float64())
        unreadable = pc.fill_null(pc.invert(readable), False)
        return numbers.to_numpy(zero_copy_only=False), unreadable.to_numpy(zero_copy_only=False)


def parse_dates(texts: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return ISO 8601 texts as seconds since 1970, of the day and time as written whatever the zone.

    Beside them: where there is no date (the seconds are 0), and where a text that is not empty is no date.
    """
    texts = pc.if_else(pc.equal(pc.utf8_trim_whitespace(texts), ""), None, texts)
    found = pc.extract_regex(texts, _DATE)

    def part(name: str) -> NDArray[np.int64]:
        digits = pc.fill_null(pc.struct_field(found, name), "")
        return np.asarray(pc.if_else(pc.equal(digits, ""), "0", digits).cast(pa.int64()))

    month, day, hour, minute, second = (part(name) for name in ("month", "day", "hour", "minute", "second"))
    months = ((part("year") - 1970) * 12 + month - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1)
    # A day that the month does not have would land in another month.
    real = (days.astype("datetime64[M]") == months) & (month >= 1) & (month <= 12) & (day >= 1)
    real &= (hour < 24) & (minute < 60) & (second < 61) & found.is_valid().to_numpy(zero_copy_only=False)
    missing = texts.is_null().to_numpy(zero_copy_only=False)
    seconds = days.astype(np.int64) * DAY_SECONDS + hour * 3_600 + minute * 60 + second
    return np.where(real, seconds, 0), ~real, ~real & ~missing


def short_numbers(numbers: NDArray[np.float64]) -> list[str]:
    """Return numbers as text: integers in full, others with as few digits as keep different ones apart."""
    if (np.abs(numbers) < 1e15).all() and (numbers == np.trunc(numbers)).all():
        return [str(int(x)) for x in numbers.tolist()]
    for digits in (6, 9, 12):
        texts = [f"{x:.{digits}g}" for x in numbers]
        if len(set(texts)) == len(set(numbers.tolist())):
            return texts
    return [repr(x) for x in numbers.tolist()]
