"""Dates: hour, weekday and month."""

import datetime as dt

import pyarrow as pa
import pytest

from tests.data.encoding import fit, labels, table

MOMENTS = [dt.datetime(2024, 3, 1, 23, 30), dt.datetime(1969, 12, 31, 0, 0), None]  # a Friday and a Wednesday


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_dates_become_hour_weekday_and_month(unit: str) -> None:
    encoder = fit(table(when=pa.array(MOMENTS, pa.timestamp(unit))))
    assert [(f.name, f.column, f.stop - f.start, f.ordered) for f in encoder.fields] == [
        ("when.hour", "when", 26, False),
        ("when.weekday", "when", 9, False),
        ("when.month", "when", 14, False),
    ]
    data = table(when=pa.array(MOMENTS, pa.timestamp(unit)))
    assert labels(encoder, data, 0) == ["23", "0", "missing"]
    assert labels(encoder, data, 1) == ["Friday", "Wednesday", "missing"]
    assert labels(encoder, data, 2) == ["March", "December", "missing"]


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64(), pa.timestamp("us")])
def test_dates_without_a_time_have_no_hour(kind: pa.DataType) -> None:
    data = table(when=pa.array([dt.date(2024, 3, 1), None]).cast(kind))
    encoder = fit(data)
    assert [f.name for f in encoder.fields] == ["when.weekday", "when.month"]
    assert labels(encoder, data) == ["Friday", "missing"]


def test_an_hour_is_that_of_the_time_zone() -> None:
    utc = pa.array([dt.datetime(2024, 6, 30, 23, 0)], pa.timestamp("us", "UTC"))
    data = table(when=utc.cast(pa.timestamp("us", "Europe/Berlin")))
    encoder = fit(data)
    assert [labels(encoder, data, f) for f in range(3)] == [["1"], ["Monday"], ["July"]]
    # The same instant in another zone is the same hour: that of the zone of the fit.
    assert labels(encoder, table(when=utc), 0) == ["1"]


def test_iso_strings_are_dates() -> None:
    encoder = fit(table(when=["2024-03-01T23:30:00"]), columns={"when": {"kind": "datetime"}})
    texts = [
        "2024-03-01",
        "2024-02-29 07:05",
        "2024-03-01T23:30:59.123456789Z",
        "2024-03-01T01:00:00+02:00",
        " 1969-12-31T08 ",
        "",
        None,
    ]
    for column in (pa.array(texts), pa.array(texts).dictionary_encode()):
        assert labels(encoder, table(when=column), 0) == ["0", "7", "23", "1", "8", "missing", "missing"]
    assert labels(encoder, table(when=texts), 1)[:5] == ["Friday", "Thursday", "Friday", "Friday", "Wednesday"]
    assert labels(encoder, table(when=texts), 2)[:5] == ["March", "February", "March", "March", "December"]
