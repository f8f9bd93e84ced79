import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from attfm.config import Reading
from attfm.data.schema import stored_type
from attfm.data.texts import as_dates, short_numbers, typed


def test_labels_have_the_digits_that_tell_edges_apart() -> None:
    assert short_numbers(np.array([0.1, 1234567.5])) == ["0.1", "1.23457e+06"]
    assert short_numbers(np.array([1234567.0, 12345678.0])) == ["1234567", "12345678"]
    assert short_numbers(np.array([1.00000001, 1.00000002])) == ["1.00000001", "1.00000002"]
    assert short_numbers(np.array([1.0, np.nextafter(1.0, 2)])) == ["1.0", "1.0000000000000002"]


def test_whole_numbers_are_written_in_full() -> None:
    assert short_numbers(np.array([17.0, 1_484_705.0, -3.0])) == ["17", "1484705", "-3"]
    assert short_numbers(np.array([1e15])) == ["1e+15"]


def large(*texts: str | None) -> pa.Array:
    return pa.array(texts, pa.large_string())


@pytest.mark.parametrize(
    ("t", "texts", "values"),
    [
        (pa.bool_(), ["True", "0", "FALSE", "1.0", "yes"], [True, False, False, True, None]),
        (pa.int64(), ["+3", "4.0", "007", "x"], [3, 4, 7, None]),
        (pa.float64(), ["True", "false", "yes"], [1, 0, None]),  # as truths are where numbers are wanted
        (pa.uint64(), ["18446744073709551615"], [2**64 - 1]),
        (pa.int64(), ["3.5", "2"], [3.5, 2.0]),
        (pa.float64(), ["1e-3", ".5", "5.", "1_000", "inf"], [1e-3, 0.5, 5.0, None, None]),
        (pa.float32(), ["0.1"], [float(np.float32(0.1))]),
        (pa.decimal128(5, 2), ["1.10", "-2"], [Decimal("1.10"), Decimal("-2.00")]),
        (pa.duration("ns"), ["1 days 02:03:04", "-1 days +23:59:59", "-PT1.5S", "90"], [93784, -1, -1.5, 90]),
        (pa.duration("us"), ["P1DT2H", "00:01:30", "3 days", "soon"], [93600, 90, 259200, None]),
        (pa.time64("us"), ["12:30", "00:00:01.5", "24:00:00", "-01:00", "3 days"], [45000, 1.5, None, None, None]),
    ],
)  # fmt: skip
def test_texts_are_values_of_a_type(t: pa.DataType, texts: list[str], values: list[Any]) -> None:
    found, lost = typed(large(*texts), t)
    told = found.to_pylist()
    if pa.types.is_duration(t) or pa.types.is_time(t):
        told = [None if ticks is None else ticks / 1e9 for ticks in found.cast(pa.int64()).to_pylist()]
    assert told == values
    assert lost.tolist() == [value is None for value in values]
    nothing, unreadable = typed(large(None), t)
    assert (nothing.to_pylist(), unreadable.tolist()) == ([None], [False])


@pytest.mark.parametrize(
    ("options", "text", "value"),
    [
        ({"decimal": ","}, "1234,5", 1234.5),
        ({"decimal": ","}, "1.5", None),  # where the comma is the decimal sign, the point is none
        ({"thousands": ","}, "1,234,567.5", 1234567.5),
        ({"thousands": ","}, "12,34", None),
        ({"thousands": ","}, "12,34,567", 1234567),  # as in India
        ({"thousands": "'"}, "1'234", 1234),
        ({"decimal": ",", "thousands": "."}, "-1.234,5", -1234.5),
        ({"signs": True}, "12.5%", 0.125),
        ({"signs": True}, "$-5", -5),
        ({"signs": True}, "-$5", -5),
        ({"signs": True}, "5 €", 5),
        ({"signs": True}, "EUR 7", 7),
        ({"signs": True}, "7 kg", None),
        ({"signs": True, "decimal": ",", "thousands": "."}, "1.234,5 EUR", 1234.5),
        ({}, "$5", None),
    ],
)
def test_numbers_are_read_as_their_notation_says(options: dict[str, Any], text: str, value: float | None) -> None:
    found, lost = typed(large(text), pa.float64(), Reading(**options))
    assert found.to_pylist() == [value]
    assert lost.tolist() == [value is None]


@pytest.mark.parametrize(
    ("day_first", "text", "value"),
    [
        (None, "2024-03-01", dt.datetime(2024, 3, 1)),
        (None, "2024-03-01T09:05:06.25", dt.datetime(2024, 3, 1, 9, 5, 6, 250_000)),
        (None, "2024-02-30", None),
        (None, "01/02/2024", None),
        (True, "01/02/2024", dt.datetime(2024, 2, 1)),
        (True, "2024-03-01", dt.datetime(2024, 3, 1)),
        (True, "31.12.24 23:59", dt.datetime(2024, 12, 31, 23, 59)),
        (False, "1/2/1999 3:04 pm", dt.datetime(1999, 1, 2, 15, 4)),
        (False, "1/2/70 12:00 AM", dt.datetime(1970, 1, 2)),
        (False, "13/2/2024", None),
        (False, "1/2/2024 13:00 PM", None),
    ],
)
def test_dates_are_read_day_or_month_first(day_first: bool | None, text: str, value: dt.datetime | None) -> None:
    found, lost, _ = as_dates(large(text), None, Reading(day_first=day_first))
    assert found.to_pylist() == [value]
    assert lost.tolist() == [value is None]


def test_dates_of_a_zone_are_instants() -> None:
    found, _, misplaced = as_dates(
        large("2024-03-01 09:00+09:00", "2024-03-01T00:00Z", "2024-03-01 09:00"), "Asia/Tokyo"
    )
    assert len(set(found.to_pylist())) == 1
    assert misplaced.tolist() == [False, False, True]
    _, _, misplaced = as_dates(large("2024-03-01 09:00+09:00", "2024-03-01"), None)
    assert misplaced.tolist() == [True, False]


@pytest.mark.parametrize(
    "t",
    [
        *(pa.int8(), pa.float64(), pa.bool_(), pa.null(), pa.date32(), pa.decimal128(9, 2), pa.duration("ms")),
        *(pa.timestamp("us"), pa.timestamp("ns", "Asia/Tokyo"), pa.timestamp("us", "+02:00"), pa.time32("s")),
        *(pa.list_(pa.int64()), pa.map_(pa.large_string(), pa.float32())),
    ],
    ids=str,
)  # fmt: skip
def test_a_type_is_known_by_its_name(t: pa.DataType) -> None:
    assert stored_type(str(t)) == t
    assert stored_type(str(pa.dictionary(pa.int8(), t, ordered=True))) == t
    assert stored_type(str(pa.large_list(t))) == pa.list_(t)


def test_texts_of_all_types_and_unknown_ones_are_text() -> None:
    for name in ("string", "large_string", "string_view", "binary", "extension<arrow.uuid>", "struct<a: int64>", "?"):
        assert stored_type(name) == pa.large_string()
