"""Text columns that look like numbers or dates: what most of their values are, and which are not."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from attfm.config import Reading
from attfm.data.texts import parse_dates, typed

_LEAST_VALUES = 20  # fewer say nothing of a column
_LEAST_SHARE = 0.5
_LOOKED_AT = 2_000  # distinct values that are tried in all ways
_LONGEST_MARKER = 20
ZERO_PADDED = r"^0\d+$"
_CODE = rf"{ZERO_PADDED}|^[+-]?\d{{17,}}$"  # which a number would not give back
_UNIT = r"^[+-]?[0-9][0-9.,]*\s*(?P<unit>[^\s0-9.,+-][^\s0-9]{0,7})$"
# What numbers and dates may be written like, each with the options that read them so; the first of equals is taken.
_NUMBERS = (
    ("numbers", Reading()),
    ("numbers with a thousands separator", Reading(thousands=",")),
    ("numbers with a decimal comma", Reading(decimal=",")),
    ("numbers with a decimal comma and a thousands separator", Reading(decimal=",", thousands=".")),
    ("numbers with spaces between thousands", Reading(thousands=" ")),
    ("numbers with apostrophes between thousands", Reading(thousands="'")),
    ("numbers with a decimal comma and spaces between thousands", Reading(decimal=",", thousands=" ")),
    ("numbers with a percent or currency sign", Reading(signs=True)),
    ("numbers with a percent or currency sign and a thousands separator", Reading(signs=True, thousands=",")),
    ("numbers with a percent or currency sign and a decimal comma", Reading(signs=True, decimal=",", thousands=".")),
)
_DATES = (
    ("dates", Reading()),
    ("dates with the day first", Reading(day_first=True)),
    ("dates with the month first", Reading(day_first=False)),
)
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Lookalike:
    """What most values of a text column are.

    Attributes
    ----------
    what : str, such as "numbers with a decimal comma"
    options : str, the options of the command that read them so, "" where plain reading does
    alike : bool (values,), which of the distinct values are such
    unit : str, what stands behind each of the numbers, "" for nothing
    """

    what: str
    options: str
    alike: Mask
    unit: str = ""

    def advice(self, others: list[str], *, from_text: bool, kind: str = "the column categorical") -> str:
        """Return what to do; `others` are distinct values that are not alike, `from_text` whether options can help."""
        steps = []
        if self.unit:
            steps.append(f"strip the unit '{self.unit}'")
        elif self.options and from_text:
            steps.append(f"give {self.options}")
        elif not others or not from_text:
            steps.append("convert it to numbers" if self.what.startswith("numbers") else "convert it to dates")
        if others and from_text:
            steps.append("clean the others")
            if len(others) <= 2 and all(len(o) <= _LONGEST_MARKER and not re.search(r"\d", o) for o in others):
                steps.append(f"say that they mean missing by {' '.join(f'--null={other!r}' for other in others)}")
        elif others:
            steps.append("clean the others")
        steps.append(f"declare {kind}")
        first = ", ".join(steps[:-1])
        return f"{first[0].upper()}{first[1:]}, or {steps[-1]}."


def lookalike(values: pa.Array, counts: NDArray[np.int64]) -> Lookalike | None:
    """Return what most of a column's texts look like, None where they are words.

    Parameters
    ----------
    values : large_string (values,), distinct, tidied, the most frequent first; counts : int64 (values,), their rows
    """
    if counts.sum() < _LEAST_VALUES:
        return None
    best = _best_of(values[:_LOOKED_AT], counts[:_LOOKED_AT])
    if best is None or len(values) <= _LOOKED_AT:
        return best
    whole = next((candidate for candidate in _candidates(values) if candidate.what == best.what), None)
    return None if whole is None or counts[whole.alike].sum() <= _LEAST_SHARE * counts.sum() else whole


def _best_of(values: pa.Array, counts: NDArray[np.int64]) -> Lookalike | None:
    most = _LEAST_SHARE * counts.sum()
    has_digits = pc.fill_null(pc.match_substring_regex(values, r"\d"), False).to_numpy(zero_copy_only=False)
    if counts[has_digits].sum() <= most:
        return None
    best = None
    for candidate in _candidates(values):
        rows = counts[candidate.alike].sum()
        if rows > most:
            best, most = candidate, rows
    return best


def _candidates(values: pa.Array) -> Iterator[Lookalike]:
    # Digits with a zero before them, or too many of them, are codes, and so are all others beside them.
    of_codes = pc.any(pc.match_substring_regex(values, _CODE)).as_py()
    present = values.is_valid().to_numpy(zero_copy_only=False)
    for what, reading in () if of_codes else _NUMBERS:
        _, lost = typed(values, pa.float64(), reading)
        yield Lookalike(what, _options(reading), present & ~lost)
    for what, reading in _DATES:
        _, absent, _ = parse_dates(values, reading)
        yield Lookalike(what, _options(reading), ~absent)
    found = pc.extract_regex(values, _UNIT)
    units = pc.struct_field(found, "unit")
    common = pc.mode(units.drop_null().dictionary_encode().indices, 1) if units.null_count < len(units) else []
    if len(common):
        unit = units.drop_null().dictionary_encode().dictionary[common[0]["mode"].as_py()].as_py()
        alike = pc.fill_null(pc.equal(units, unit), False).to_numpy(zero_copy_only=False)
        yield Lookalike(f"numbers with the unit '{unit}'", "", alike, unit)


def _options(reading: Reading) -> str:
    options = []
    if reading.decimal != ".":
        options.append(f"--decimal '{reading.decimal}'")
    if reading.thousands:
        options.append(f"--thousands {shlex.quote(reading.thousands)}")
    if reading.signs:
        options.append("--signs")
    if reading.day_first is not None:
        options.append("--day-first" if reading.day_first else "--month-first")
    return " ".join(options)
