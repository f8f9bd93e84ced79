"""Dates and times: the hour, the weekday and the month, a field each."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attfm.data.arrow_columns import read_seconds
from attfm.data.bad_values import BadValues
from attfm.data.batch import FieldFeatures
from attfm.data.codecs.codec import FIRST_VALUE, MISSING, Codec, ColumnKind, Field, Learner
from attfm.data.schema import Column
from attfm.data.texts import DAY_SECONDS

# The parts of a date and the labels of their features, in order.
CALENDAR: dict[str, tuple[str, ...]] = {
    "hour": tuple(str(hour) for hour in range(24)),
    "weekday": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "month": (
        *("January", "February", "March", "April", "May", "June"),
        *("July", "August", "September", "October", "November", "December"),
    ),
}


class DateLearner:
    """Finds out whether a date column has times of day; without, it has no field for the hour."""

    def __init__(self, column: Column) -> None:
        self._column = column
        self._has_time = False

    def add(self, chunk: pa.Array, *, row: int, bad: BadValues) -> None:
        seconds, _ = read_seconds(chunk, column=self._column.name, row=row, bad=bad)
        self._has_time = self._has_time or bool((seconds % DAY_SECONDS).any())

    def codec(self) -> Codec:
        return DateCodec(self._column, [part for part in CALENDAR if part != "hour" or self._has_time])


class DateCodec(Codec):
    """A field for each part of the date, whose values the calendar knows."""

    def __init__(self, column: Column, parts: Sequence[str]) -> None:
        self._column = column.name
        self.parts = tuple(parts)
        self.fields = tuple(
            Field(_field_name(column, part), column.name, "categorical", FIRST_VALUE + len(CALENDAR[part]))
            for part in parts
        )

    def encode(self, chunk: pa.Array, *, row: int, bad: BadValues) -> list[FieldFeatures]:
        seconds, missing = read_seconds(chunk, column=self._column, row=row, bad=bad)
        parts = _calendar_parts(seconds)
        return [
            FieldFeatures(np.where(missing, MISSING, parts[part] + FIRST_VALUE).astype(np.int32)) for part in self.parts
        ]

    def labels(self, field: int = 0) -> list[str]:
        return list(CALENDAR[self.parts[field]])


class DateTime(ColumnKind):
    """Columns of dates, with or without a time of day."""

    def field_names(self, column: Column) -> list[str]:
        return [_field_name(column, part) for part in CALENDAR]

    def learner(self, column: Column, seed: list[int]) -> Learner:
        return DateLearner(column)

    def codec(self, column: Column, rows: Mapping[str, pa.Table]) -> Codec:
        return DateCodec(column, [part for part in CALENDAR if _field_name(column, part) in rows])


def _field_name(column: Column, part: str) -> str:
    return f"{column.prefix or column.name}.{part}"


def _calendar_parts(seconds: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Return hour (0 to 23), weekday (0 is Monday) and month (0 is January) of local seconds since 1970."""
    days = seconds // DAY_SECONDS
    months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    return {"hour": seconds % DAY_SECONDS // 3_600, "weekday": (days + 3) % 7, "month": months % 12}
