"""Columns of Python objects: which type they have together, the text of several types, time zones, bad cells."""

import datetime
import decimal
import enum
import uuid
from datetime import timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from attfm.data.sources.object_columns import object_column
from attfm.data.sources.source import open_source
from attfm.errors import SchemaError, SourceError
from tests.data.sources.test_source import table_of

DAY = datetime.date(2024, 3, 1)
NOON = datetime.datetime(2024, 3, 1, 12, 30)
LAST = datetime.datetime(9999, 12, 31)
MIDNIGHT = datetime.datetime(2024, 3, 1)
Decimal = decimal.Decimal
ID = uuid.UUID(int=5)


class Colour(str, enum.Enum):  # noqa: UP042 (its str is "Colour.RED", unlike that of a StrEnum)
    RED = "red"


TEXTS = {
    "floats": (
        [1.0, "3", 2.5, None, float("nan"), 1e-7, -0.0, 2.0**70],
        ["1", "3", "2.5", None, None, "1e-07", "0", repr(2.0**70)],
    ),
    "bools": ([True, "maybe", None, np.False_], ["True", "maybe", None, "False"]),
    "ints": ([3, "x", np.int16(4), 10**30], ["3", "x", "4", str(10**30)]),
    "decimals": ([Decimal("1.50"), "x", Decimal("2.00"), Decimal("NaN")], ["1.5", "x", "2", None]),
    "dates": ([DAY, "x", MIDNIGHT, NOON], ["2024-03-01", "x", "2024-03-01", "2024-03-01 12:30:00"]),
    "pandas times": (
        [pd.Timestamp(DAY), "x", pd.Timestamp(NOON), pd.NaT, pd.NA],
        ["2024-03-01", "x", "2024-03-01 12:30:00", None, None],
    ),
    "numpy times": (
        [np.datetime64(DAY), "x", np.datetime64(NOON, "ns"), np.datetime64("NaT")],
        ["2024-03-01", "x", "2024-03-01 12:30:00", None],
    ),
    "zones": ([MIDNIGHT.replace(tzinfo=datetime.UTC), "x"], ["2024-03-01 00:00:00+00:00", "x"]),
    "bytes": ([b"\xc3\xa9", "x", 1], ["é", "x", "1"]),
    "only bytes": ([b"\xc3\xa9", None, bytearray(b"y")], ["é", None, "y"]),
    "uuids": ([ID, "x", None], [str(ID), "x", None]),
    "numbers and dates": ([1, DAY, 2.0], ["1", "2024-03-01", "2"]),
    "times": ([datetime.time(5), timedelta(hours=1), "x"], ["05:00:00", "1:00:00", "x"]),
    "periods": ([pd.Period("2024-01"), None, "x", pd.Interval(0, 1)], ["2024-01", None, "x", "(0, 1]"]),
    "large integers": ([2**64, 1, None], [str(2**64), "1", None]),
    "kinds of str": ([Colour.RED, np.str_("x"), "y"], ["red", "x", "y"]),
    "longdouble": ([np.longdouble("1.5"), "x"], ["1.5", "x"]),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
@pytest.mark.parametrize("route", ["pandas", "dict", "rows", "array", "list of dicts"])
def test_values_of_several_types_become_text(case, route):
    cells, expected = TEXTS[case]
    array = np.empty(len(cells), object)
    array[:] = cells
    data = {
        "pandas": lambda: pd.DataFrame({"x0": pd.Series(cells, dtype=object)}),
        "dict": lambda: {"x0": cells},
        "rows": lambda: [[cell] for cell in cells],
        "array": lambda: array.reshape(-1, 1),
        "list of dicts": lambda: [{"x0": cell} for cell in cells],
    }[route]()
    column = table_of(open_source(data))["x0"]
    assert column.to_pylist() == expected
    assert column.type in (pa.string(), pa.large_string())


NUMBERS = {
    "int and float": ([1, 2.5, None], pa.float64(), [1.0, 2.5, None]),
    "bool, int and float": ([True, 0, 1.0], pa.float64(), [1.0, 0.0, 1.0]),
    "bool and int": ([True, 0, None, 5], pa.int64(), [1, 0, None, 5]),
    "bool and NaN": ([True, float("nan"), False], pa.bool_(), [True, None, False]),
    "numpy's": ([np.int8(1), np.float32(0.5), np.uint64(3)], pa.float64(), [1.0, 0.5, 3.0]),
    "longdouble": ([np.longdouble("1.5"), 2], pa.float64(), [1.5, 2.0]),
    "large and float": ([2**60 + 1, 0.5], pa.float64(), [float(2**60), 0.5]),
    "decimal and float": ([Decimal("1.5"), 2.5, 1], pa.float64(), [1.5, 2.5, 1.0]),
    "decimal and int": ([Decimal("1.5"), 2], pa.decimal128(2, 1), [Decimal("1.5"), Decimal(2)]),
    "infinite decimal": ([Decimal("Infinity"), Decimal(1)], pa.float64(), [float("inf"), 1.0]),
    "0-d arrays": ([np.array(1), np.array(2)], pa.int64(), [1, 2]),
    "dates": ([DAY, None, pd.NaT], pa.date32(), [DAY, None, None]),
    "dates and datetimes": ([DAY, NOON, None], pa.timestamp("us"), [MIDNIGHT, NOON, None]),
    "days of numpy": ([np.datetime64("2024-03-01")], pa.date32(), [DAY]),
    "durations": ([timedelta(1), np.timedelta64(1, "h")], pa.duration("us"), [timedelta(1), timedelta(hours=1)]),
    "beyond nanoseconds": ([LAST, pd.NaT], pa.timestamp("us"), [LAST, None]),
    "missing": ([None, float("nan"), pd.NA, pd.NaT, np.float32("nan")], pa.null(), [None] * 5),
}  # fmt: skip


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_and_dates_stay(case):
    cells, t, expected = NUMBERS[case]
    for order in (slice(None), slice(None, None, -1)):
        column = object_column(cells[order], "c")
        assert (column.type, column.to_pylist()) == (t, expected[order])


def test_members_of_lists_follow_the_rule():
    cells = [[1, "a"], None, (2.5, True), np.array(["z"]), [], {DAY}]
    column = object_column(cells, "c")
    assert column.type == pa.list_(pa.string())
    assert column.to_pylist() == [["1", "a"], None, ["2.5", "True"], ["z"], [], ["2024-03-01"]]
    assert object_column([[DAY, NOON]], "c").to_pylist() == [[MIDNIGHT, NOON]]
    assert object_column([[1, 2.5], [None]], "c").to_pylist() == [[1.0, 2.5], [None]]


PLUS_1, PLUS_5 = timezone(timedelta(hours=1)), timezone(timedelta(hours=5, minutes=30))
PARIS = ZoneInfo("Europe/Paris")
ZONES = {
    "none": ([NOON, MIDNIGHT, None], None, ["2024-03-01T12:30:00", "2024-03-01T00:00:00", None]),
    "one offset": ([NOON.replace(tzinfo=PLUS_1), None], "+01:00", ["2024-03-01T12:30:00+01:00", None]),
    "one place": (
        [NOON.replace(tzinfo=PARIS), NOON.replace(month=7, tzinfo=ZoneInfo.no_cache("Europe/Paris"))],
        "Europe/Paris",
        ["2024-03-01T12:30:00+01:00", "2024-07-01T12:30:00+02:00"],
    ),
    "pandas": ([pd.Timestamp(NOON, tz="Europe/Paris")], "Europe/Paris", ["2024-03-01T12:30:00+01:00"]),
    "two offsets": (
        [NOON.replace(tzinfo=PLUS_1), pd.NaT, NOON.replace(tzinfo=PLUS_5)],
        "UTC",
        ["2024-03-01T11:30:00+00:00", None, "2024-03-01T07:00:00+00:00"],
    ),
    "place and offset": (
        [NOON.replace(tzinfo=PARIS), NOON.replace(tzinfo=PLUS_1)],
        "UTC",
        ["2024-03-01T11:30:00+00:00", "2024-03-01T11:30:00+00:00"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ZONES)
def test_time_zones(case):
    cells, zone, expected = ZONES[case]
    for order in (slice(None), slice(None, None, -1)):  # which row stands first does not matter
        frame = pd.DataFrame({"when": pd.Series(cells[order], dtype=object)})
        column = table_of(open_source(frame))["when"]
        assert column.type == pa.timestamp("us", zone)
        assert [None if time is None else time.isoformat() for time in column.to_pylist()] == expected[order]


@pytest.mark.parametrize("naive", [NOON, DAY])
def test_datetimes_with_and_without_a_zone(naive):
    aware = NOON.replace(tzinfo=PLUS_1)
    message = r"Column 'when' holds datetimes without and with .* in row 2, 2024-03-01 12:30:00\+01:00 in row 1"
    with pytest.raises(SchemaError, match=message):
        open_source({"when": [None, aware, naive, naive]})


def test_iso_text_stays_text():
    assert table_of(open_source({"when": ["2024-03-01T05:00+01:00", "2024-03-01"]}))["when"].type == pa.string()


BAD = {
    "surrogate": ({"t": ["x", "\ud800"]}, SchemaError, r"Column 't' has text that is not Unicode in row 1: '\\ud800'"),
    "surrogate in a list": ({"t": [["x"], ["y", "\ud800"]]}, SchemaError, r"Column 't' .* not Unicode in row 1: '"),
    "surrogate in an array": ({"t": np.array(["x", "\ud800"])}, SchemaError, r"Column 't' .* not Unicode in row 1"),
    "surrogate in pandas": (pd.DataFrame({"t": pd.Series(["x", "\ud800"], dtype=object)}), SchemaError, r"'t'.* row 1"),
    "surrogate among numbers": ({"t": [1, "\ud800"]}, SchemaError, r"Column 't' .* not Unicode in row 1"),
    "surrogate category": (
        pd.DataFrame({"t": pd.Categorical(pd.Series(["b", "b", "\ud800"], dtype=object))}),
        SchemaError,
        r"Column 't' has text that is not Unicode in row 2",
    ),
    "surrogate name": ({"\ud800": [1]}, SchemaError, r"column name '\\ud800' of the dict is not Unicode"),
    "tuple category": (
        pd.DataFrame({"t": pd.Categorical([(3, 4), (1, 2), (3, 4)])}),
        SchemaError,
        r"Column 't' has a category that is a tuple in row 1: \(1, 2\)",
    ),
    "mixed tuple": (pd.DataFrame({"t": pd.Categorical([(1, "a")])}), SchemaError, r"'t' .*in row 0: \(1, 'a'\)"),
    "bytes": ({"t": ["x", b"\xff"]}, SchemaError, r"Column 't' holds bytes that are not UTF-8 text in row 1: b'\\xff'"),
    "object": ({"t": [object()]}, SchemaError, r"Column 't' .*in row 0 stands a object"),
    "dict and number": ({"t": [1, {"a": 1}]}, SchemaError, r"Column 't' .*in row 1 stands a dict: \{'a': 1\}"),
    "list and number": ({"t": [[1], 1]}, SchemaError, r"Column 't' .*in row 0 stands a list: \[1\]"),
    "list of sets and numbers": ({"t": [None, [{1}, 2]]}, SchemaError, r"Column 't' .*in row 1 stands a list"),
    "complex": ({"t": [1, 2j]}, SourceError, r"Column 't' is complex"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_cells(case):
    data, error, message = BAD[case]
    with pytest.raises(error, match=message):
        open_source(data)


def test_bytes_that_are_no_text_stay_bytes():
    assert object_column([b"\xff", b"x"], "c").type == pa.binary()


def test_categories_of_several_types():
    frame = pd.DataFrame({"c": pd.Categorical([2.0, "x", None, True, 2.0], categories=[True, 2.0, "x", "unused"])})
    column = table_of(open_source(frame))["c"]
    assert column.to_pylist() == ["2", "x", None, "True", "2"]
    assert column.chunk(0).dictionary.to_pylist() == ["True", "2", "x", "unused"]


ARRAYS = {
    "longdouble": (np.array([1.5, np.nan], np.longdouble), [1.5, None]),
    "half": (np.array([1.5, np.nan], np.float16), [1.5, None]),
    "big-endian floats": (np.array([1.5, np.nan], ">f8"), [1.5, None]),
    "big-endian half": (np.array([1.5, np.nan], ">f2"), [1.5, None]),
    "big-endian integers": (np.array([1, 2], ">i4"), [1, 2]),
    "big-endian text": (np.array(["a", "é"], ">U1"), ["a", "é"]),
    "big-endian dates": (np.array(["2024-03-01T12:30", "NaT"], ">M8[s]"), [NOON, None]),
    "hours": (np.array(["2024-03-01T12", "NaT"], "M8[h]"), [NOON.replace(minute=0), None]),
    "months": (np.array(["2024-03", "NaT"], "M8[M]"), [DAY, None]),
    "hours long": (np.array([5, "NaT"], "m8[h]"), [timedelta(hours=5), None]),
    "days long": (np.array([5, "NaT"], "m8[D]"), [timedelta(5), None]),
    "bytes": (np.array([b"a", b"\xc3\xa9"]), ["a", "é"]),
    "masked": (np.ma.array([1, 2], mask=[False, True]), [1, None]),
    "masked objects": (np.ma.array(["a", 2], mask=[False, True], dtype=object), ["a", None]),
}  # fmt: skip


def test_categories_in_a_dict():
    categorical = pd.Categorical(["x", None, "y"], categories=["y", "x"], ordered=True)
    for values in (categorical, pd.CategoricalIndex(categorical), pd.Series(categorical)):
        column = table_of(open_source({"c": values}))["c"]
        assert (column.to_pylist(), column.type.ordered) == (["x", None, "y"], True)
        assert column.chunk(0).dictionary.to_pylist() == ["y", "x"]


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_of_every_type(case):
    array, expected = ARRAYS[case]
    tables = [{"c": array}]
    if not np.ma.isMaskedArray(array):
        records = np.zeros(2, [("c", array.dtype), ("d", ">i4")])
        records["c"] = array
        tables += [records, records.view(np.recarray), array.reshape(-1, 1)]
        if array.dtype.kind in "fi":
            tables.append(pd.DataFrame({"c": pd.Series(array)}))
    for data in tables:
        source = open_source(data)
        assert table_of(source).column(0).to_pylist() == expected


def test_one_row_as_a_dict():
    row = {"age": 39, "job": "clerk", "when": NOON, "missing": None, "x": np.float32(0.5), "zero": np.array(1)}
    table = table_of(open_source(row))
    assert table.to_pylist() == [{**row, "zero": 1}]
    assert table.equals(table_of(open_source([row])))


@pytest.mark.parametrize("row", [{"tags": ["a", "b"], "age": 3}, {"age": 3, "tags": np.array([1])}])
def test_a_dict_of_single_values_and_lists(row):
    with pytest.raises(
        SourceError, match=r"Column 'age' of the dict is 3, but 'tags' holds several values: .*list of dicts"
    ):
        open_source(row)
    assert table_of(open_source([row])).num_rows == 1


LAZY = {"pyspark": ("toArrow", "toPandas", "collect"), "dask": ("compute",), "ibis": ("to_pyarrow",)}


@pytest.mark.parametrize("library", LAZY)
def test_tables_that_hold_no_rows_here(library):
    methods = {name: lambda self: None for name in LAZY[library]}
    frame = type("DataFrame", (), {"__module__": f"{library}.frame", **methods})()
    with pytest.raises(
        SourceError, match=rf"DataFrame of {library}\.frame holds no rows here: pass \.{LAZY[library][0]}\(\)"
    ):
        open_source(frame)
    with pytest.raises(SourceError, match=r"A LazyFrame holds no rows yet: pass \.collect\(\)"):
        open_source(pl.LazyFrame({"a": [1]}))


def test_column_labels_that_are_no_text():
    frame = pd.DataFrame([[1, 2, 3]], columns=[0, 1.5, DAY])
    assert open_source(frame).schema.names == ["0", "1.5", "2024-03-01"]
    multi = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")]))
    for data in (multi, {("a", "b"): [1]}, [{("a", "b"): 1}]):
        with pytest.raises(SchemaError, match=r"Column \('a', 'b'\) of the \w+ is named by a tuple\. Join its parts"):
            open_source(data)


def test_empty_strings_stay():
    for data in ({"c": ["", "x", None]}, pd.DataFrame({"c": ["", "x", None]}), pl.DataFrame({"c": ["", "x", None]})):
        assert table_of(open_source(data))["c"].to_pylist() == ["", "x", None]
