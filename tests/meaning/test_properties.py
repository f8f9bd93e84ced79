"""What holds for every frame: its values keep their features on every route, and through a CSV and back."""

import datetime as dt
import string
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attfm.data.codecs.codec import UNKNOWN
from tests.data.encoding import assert_same_rows
from tests.meaning.routes import ROUTES
from tests.meaning.test_values import encode, fit

WORDS = st.text(string.ascii_letters + string.digits + " .-+:;,'\"/_äß東", max_size=8)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TIMES = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1))
COLUMNS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "word": (pa.string(), WORDS.filter(lambda text: text.strip() != "")),
    "code": (pa.string(), st.text(string.digits, min_size=1, max_size=4)),
    "number as text": (pa.string(), FLOATS.map(str)),
    "flag": (pa.bool_(), st.booleans()),
    "small": (pa.int16(), st.integers(-9, 9)),
    "integer": (pa.int64(), st.integers(-(2**50), 2**50)),
    "float": (pa.float64(), FLOATS),
    "float32": (pa.float32(), st.floats(allow_nan=False, allow_infinity=False, width=32)),
    "decimal": (pa.decimal128(8, 3), st.decimals(-9999, 9999, places=3)),
    "day": (pa.date32(), st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1))),
    "time": (pa.timestamp("us"), TIMES),
    "zoned": (pa.timestamp("us", "America/New_York"), TIMES),
    "clock": (pa.time64("us"), st.times()),
}
CATEGORIES = ("small", "float", "decimal", "day", "time", "zoned")  # that are tried as such too


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.Table, dict[str, Any]]:
    """Return a table of two columns, each with at least one value, and its settings."""
    rows = draw(st.integers(2, 8))
    names = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=2, max_size=2, unique=True))
    columns, declared = {}, {}
    for name in names:
        kind, values = COLUMNS[name]
        cells = draw(st.lists(st.one_of(values, values, st.none()), min_size=rows - 1, max_size=rows - 1))
        columns[name] = pa.array([draw(values), *cells], kind)
        if name in CATEGORIES and draw(st.booleans()):
            declared[name] = {"kind": "categorical"}
    return pa.table(columns), declared


@pytest.mark.parametrize("route", [route for route in ROUTES if route != "CSV with spaces"])  # which quotes nothing
@given(drawn=tables())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_random_frame_has_the_same_ids_on_every_route(
    route: str, drawn: tuple[pa.Table, dict[str, Any]], tmp_path: Path
) -> None:
    table, declared = drawn
    encoder = fit(table, declared)
    expected = encode(encoder, table)
    for f, field in enumerate(encoder.fields):
        assert (expected.field(f).ids - field.start != UNKNOWN).all()
    assert_same_rows(encode(encoder, ROUTES[route](table, tmp_path)), expected)
