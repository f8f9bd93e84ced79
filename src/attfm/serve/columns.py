"""Columns by kind: how one value becomes the features of its fields. The twins of `attfm.data.codecs`."""

import datetime
import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import numpy as np

from attfm.data.bad_values import (
    INFINITE,
    NO_CATEGORIES,
    NO_DATES,
    NO_NUMBERS,
    NO_WEIGHTS,
    NOT_DATES,
    NOT_NUMBERS,
    NOT_UTF8,
    WEIGHTS,
    BadValues,
    no_members,
    too_far,
)
from attfm.serve.cell_texts import date_of, float_of
from attfm.serve.cells import MISSING as MISSING_CELL
from attfm.serve.cells import Cell, cell_of
from attfm.serve.stored import CellTerms, canonical_text
from attfm.serve.vocabulary import FIRST_VALUE, MISSING, UNKNOWN, Values

# The features of a field in one row: ids, and what multiplies each (None: 1).
Features = tuple[list[int], list[float] | None]
Quick = Callable[[Any], int]
CALENDAR = {"hour": 24, "weekday": 7, "month": 12}  # parts of a date, and how many values each has
_DAY = 86_400
_FIRST_DAY = datetime.date(1970, 1, 1)
_MOST_KEPT = 1 << 16  # values of a column whose features are remembered
_LARGEST = float(np.finfo(np.float32).max)


class CellColumn(ABC):
    """One column of the schema; `first` is the id of its first field's first feature."""

    def __init__(self, terms: CellTerms, first: int) -> None:
        self.name, self.terms, self.first = terms.name, terms, first

    @abstractmethod
    def features(self, value: Any, row: int, bad: BadValues) -> list[Features]:
        """Return the features of each of its fields; what can't be read is noted in `bad`, with the row's number."""

    def quick(self) -> Quick:
        """Return a function from a value to its only feature, -1 where `features` has to be asked."""
        return lambda value: -1

    def cell(self, value: Any, row: int, bad: BadValues) -> Cell:
        """Return a value in the terms of the training table."""
        return self.terms.apply(cell_of(value, self.name, row), bad)


class BinsColumn(CellColumn):
    """Numbers as bins."""

    def __init__(self, terms: CellTerms, first: int, edges: list[float], *, is_empty: bool) -> None:
        super().__init__(terms, first)
        self._edges, self._is_empty = edges, is_empty

    def features(self, value: Any, row: int, bad: BadValues) -> list[Features]:
        return [([self.first + self._bin(number_in(self.cell(value, row, bad), self.name, row, bad))], None)]

    def _bin(self, x: float) -> int:
        if x != x:
            return MISSING
        return UNKNOWN if self._is_empty else bisect_right(self._edges, x) + FIRST_VALUE

    @property
    def takes_floats(self) -> bool:
        """Whether a float is taken as it is, not rounded, or as missing."""
        return self.terms.stored.family in ("int", "float", "text") and not self.terms.null_numbers

    def bins(self, x: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Return the features of many numbers, NaN where missing."""
        inside = UNKNOWN if self._is_empty else np.searchsorted(self._edges, x, side="right") + FIRST_VALUE
        return (self.first + np.where(np.isnan(x), MISSING, inside)).astype(np.int32)

    def quick(self) -> Quick:
        if not self._is_empty and self.terms.stored.family == "float32" and not self.terms.null_numbers:
            return self._quick_float32()
        if self._is_empty or not self.takes_floats:
            return super().quick()
        edges, start, least, most = self._edges, self.first + FIRST_VALUE, -math.inf, math.inf

        def find(value: Any) -> int:
            kind = value.__class__
            if kind is float:
                return start + bisect_right(edges, value) if least < value < most else -1
            if kind is int:
                # Up to here an integer is the same as a float.
                return start + bisect_right(edges, value) if -(2**53) <= value <= 2**53 else -1
            if value is None:
                return start - 1
            return find(value.item()) if kind is np.float64 or kind is np.int64 else -1

        return find

    def _quick_float32(self) -> Quick:
        edges, start = self._edges, self.first + FIRST_VALUE

        def find(value: Any) -> int:
            if value.__class__ is float and -_LARGEST <= value <= _LARGEST:
                return start + bisect_right(edges, float(np.float32(value)))
            return start - 1 if value is None else -1

        return find


class ScaledColumn(CellColumn):
    """Numbers as one feature whose x is the value, scaled by the training range; low > high: there was none."""

    def __init__(self, terms: CellTerms, first: int, low: float, high: float) -> None:
        super().__init__(terms, first)
        self._low, self._high, self._fault = low, high, too_far(low, high)

    def features(self, value: Any, row: int, bad: BadValues) -> list[Features]:
        cell = self.cell(value, row, bad)
        x = number_in(cell, self.name, row, bad)
        is_missing = x != x
        if self._low < self._high:
            scaled = 1.0 if is_missing else (x - self._low) / (self._high - self._low)
            if not abs(scaled) <= _LARGEST:
                bad.add_value(self.name, value, row=row, fault=self._fault)
        else:
            scaled = float(is_missing)
        return [([self.first + (MISSING if is_missing else FIRST_VALUE)], [scaled])]


class CategoryColumn(CellColumn):
    """Values of a vocabulary, or hash buckets."""

    def __init__(self, terms: CellTerms, first: int, values: Values) -> None:
        super().__init__(terms, first)
        self.values = values
        self._known: dict[type, dict[Any, int]] = {str: {}, int: {}, bool: {}}

    def features(self, value: Any, row: int, bad: BadValues) -> list[Features]:
        own = BadValues()
        feature = self.first + self._feature(self.cell(value, row, own), own)
        known = self._known.get(value.__class__)
        if own.is_clean:
            if known is not None and len(known) < _MOST_KEPT:
                known[value] = feature
        else:
            bad.take_in(own)
        return [([feature], None)]

    def _feature(self, cell: Cell, bad: BadValues) -> int:
        if cell.family in ("null", "list", "map", "bytes"):
            if cell.family in ("list", "map"):
                bad.add(NO_CATEGORIES.format(column=self.name, type=cell.arrow_type))
            elif cell.family == "bytes":
                bad.add(NOT_UTF8.format(column=self.name))
            return MISSING
        alike = self.terms.stored.family == "text" and cell.family != "text"
        return self.values.find(canonical_text(cell), alike=alike)

    def quick(self) -> Quick:
        texts, known, missing = self._known[str], self._known, self.first + MISSING

        def find(value: Any) -> int:
            kind = value.__class__
            if kind is str:
                return texts.get(value, -1)
            if value is None:
                return missing
            return known[kind].get(value, -1) if kind in known else -1

        return find


class BagColumn(CellColumn):
    """Multi-valued columns: lists, maps from members to weights, texts with a separator."""

    def __init__(self, terms: CellTerms, first: int, values: Values, separator: str | None) -> None:
        super().__init__(terms, first)
        self.values, self._separator = values, separator

    def features(self, value: Any, row: int, bad: BadValues) -> list[Features]:
        members, weights = self._members(self.cell(value, row, bad), value, row, bad)
        texts = [self._text(member, bad) for member in members]
        places = [n for n, text in enumerate(texts) if text]
        if not places:
            return [([self.first + MISSING], None)]
        ids = [self.first + self.values.find(texts[n], alike=False) for n in places]
        return [(ids, None if weights is None else [weights[n] for n in places])]

    def _members(self, cell: Cell, value: Any, row: int, bad: BadValues) -> tuple[list[Cell], list[float] | None]:
        if cell.family == "text" and self._separator is not None:
            return [Cell("text", part) for part in cell.value.split(self._separator)], None
        if cell.family == "list" and all(member.family not in ("list", "map") for member in cell.value):
            return list(cell.value), None
        # Arrow has maps of their own; to Python a dict is one where the training table had them.
        if cell.family == "map" and self.terms.stored.family == "map":
            weights = [self._weight(weight, value, row, bad) for _, weight in cell.value]
            return [key for key, _ in cell.value], weights
        if cell.family == "bytes" and self._separator is not None:
            bad.add(NOT_UTF8.format(column=self.name))
        elif cell.family != "null":
            bad.add(no_members(self.name, cell.arrow_type, is_text=cell.family in ("text", "bytes")))
        return [], None

    def _weight(self, cell: Cell, value: Any, row: int, bad: BadValues) -> float:
        if cell.family == "null":
            return 1.0
        if cell.family not in ("bool", "int", "float", "decimal", "text"):
            bad.add(NO_WEIGHTS.format(column=self.name, type=cell.arrow_type))
            return 1.0
        number = float_of(cell.value) if cell.family == "text" else float(cell.value)
        if number is None or not math.isfinite(number):
            bad.add_value(self.name, value, row=row, fault=WEIGHTS)
            return 1.0
        return number

    def _text(self, member: Cell, bad: BadValues) -> str:
        if member.family == "bytes":
            bad.add(NOT_UTF8.format(column=self.name))
        return "" if member.family in ("null", "bytes") else canonical_text(member).strip()


class DateColumn(CellColumn):
    """Dates as a field for each of some parts of CALENDAR."""

    def __init__(self, terms: CellTerms, first: int, parts: list[str]) -> None:
        super().__init__(terms, first)
        self._parts = parts

    def features(self, value: Any, row: int, bad: BadValues) -> list[Features]:
        seconds = self._seconds(self.cell(value, row, bad), row, bad)
        found, start = [], self.first
        for part in self._parts:
            number = MISSING if seconds is None else FIRST_VALUE + calendar_part(part, seconds)
            found.append(([start + number], None))
            start += FIRST_VALUE + CALENDAR[part]
        return list[Features](found)

    def _seconds(self, cell: Cell, row: int, bad: BadValues) -> int | None:
        if cell.family == "text":
            found = date_of(cell.value, None)
            if found is None and cell.value.strip():
                bad.add_value(self.name, cell.value, row=row, fault=NOT_DATES)
            return None if found is None else found[0] // 1_000_000
        if cell.family == "date":
            return int((cell.value - _FIRST_DAY).days) * _DAY
        if cell.family == "datetime":
            return cell.local // 1_000_000
        if cell.family != "null":
            bad.add(NO_DATES.format(column=self.name, type=cell.arrow_type))
        return None


def calendar_part(part: str, seconds: int) -> int:
    """Return hour (0 to 23), weekday (0 is Monday) or month (0 is January) of local seconds since 1970."""
    days, of_day = divmod(seconds, _DAY)
    if part == "hour":
        return of_day // 3_600
    if part == "weekday":
        return (days + 3) % 7
    return int(np.datetime64(days, "D").astype("datetime64[M]").astype(int)) % 12


def number_in(cell: Cell, column: str, row: int, bad: BadValues) -> float:
    """Return a number, duration, time, truth or text as a float; NaN where missing or not a finite number."""
    family, value = cell.family, cell.value
    if cell is MISSING_CELL or family == "null":
        return math.nan
    if family == "text":
        number = float_of(value)
        if number is None:
            bad.add_value(column, value, row=row, fault=NOT_NUMBERS)
            return math.nan
    elif family in ("bool", "int", "float", "float32", "decimal"):
        number = float(value)
    elif family in ("time", "duration"):
        return float(value[0]) / float(value[1])
    else:
        bad.add(NO_NUMBERS.format(column=column, type=cell.arrow_type))
        return math.nan
    if math.isinf(number):
        bad.add_value(column, number if family == "float32" else value, row=row, fault=INFINITE)
        return math.nan
    return number
