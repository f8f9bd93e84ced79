"""Periods, intervals, UUIDs and other extension types: one column from a DataFrame, from Arrow and from Parquet."""

import subprocess
import sys
import uuid

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attfm.data.sources import arrow_files
from attfm.data.sources.source import open_source
from tests.data.sources.test_source import table_of

IDS = [uuid.UUID(int=5), None, uuid.UUID("12345678-1234-5678-9abc-def012345678")]
COLUMNS = {
    "period": pd.Series(pd.PeriodIndex(["2024-01", None, "2023-12"], freq="M")),
    "interval": pd.Series(pd.arrays.IntervalArray.from_tuples([(0.5, 1.0), None, (0.0, 0.5)])),
    "uuid": pd.Series(IDS),
    "sparse": pd.Series(pd.arrays.SparseArray([0, 0, 1])),
}
EXPECTED = {
    "period": ["2024-01", None, "2023-12"],
    "interval": ["(0.5, 1.0]", None, "(0.0, 0.5]"],
    "uuid": [None if value is None else str(value) for value in IDS],
    "sparse": [0, 0, 1],
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("route", ["frame", "arrow", "parquet"])
def test_one_column_by_every_route(tmp_path, name, route):
    frame = pd.DataFrame({"c": COLUMNS[name]})
    if name == "sparse" and route != "frame":
        frame = frame.astype({"c": "int64"})  # neither pyarrow nor Parquet takes sparse columns
    data = frame
    if route == "arrow":
        data = pa.Table.from_pandas(frame)
    elif route == "parquet":
        data = tmp_path / "t.parquet"
        frame.to_parquet(data)
    column = table_of(open_source(data))["c"].combine_chunks()
    assert column.to_pylist() == EXPECTED[name]
    if name == "interval":
        assert column.type == pa.dictionary(pa.int32(), pa.string(), ordered=True)
        assert column.dictionary.to_pylist() == ["(0.0, 0.5]", "(0.5, 1.0]"]
    elif name != "sparse":
        assert column.type == pa.string()


def test_cuts_are_ordered_by_their_ends():
    values = pd.Series([150.0, 5.0, np.nan, 50.0, 9.0])
    frame = pd.DataFrame({"cut": pd.cut(values, [0, 9, 60, 100, 200]), "qcut": pd.qcut(values, 2)})
    for data in (frame, pa.Table.from_pandas(frame)):
        table = table_of(open_source(data))
        for name in ("cut", "qcut"):
            assert table[name].type.ordered
            levels = [str(interval) for interval in frame[name].cat.categories]
            codes = frame[name].cat.codes
            assert table[name].to_pylist() == [None if code < 0 else levels[code] for code in codes]
            assert table[name].chunk(0).dictionary.to_pylist() == levels
    cut = table_of(open_source(frame))["cut"].chunk(0).dictionary.to_pylist()
    assert cut == ["(0, 9]", "(9, 60]", "(60, 100]", "(100, 200]"]
    assert cut != sorted(cut)  # as text, "(100, 200]" stands before "(60, 100]"


def test_intervals_have_one_dictionary_in_all_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow_files, "_BATCH_ROWS", 2)
    ends = [100, 9, 20, 9, 0, 100, 20]
    frame = pd.DataFrame({"c": pd.arrays.IntervalArray.from_tuples([(end, end + 5) for end in ends])})
    frame.to_parquet(tmp_path / "t.parquet")
    batches = list(open_source(tmp_path / "t.parquet").batches())
    assert len(batches) == 4
    for batch in batches:
        assert batch.column(0).dictionary.to_pylist() == ["(0, 5]", "(9, 14]", "(20, 25]", "(100, 105]"]
    assert pa.Table.from_batches(batches)["c"].to_pylist() == [f"({end}, {end + 5}]" for end in ends]


@pytest.mark.parametrize("closed", ["left", "right", "both", "neither"])
@pytest.mark.parametrize(
    "ends",
    [
        [1, 3, 2],
        [0.1, 1e-7, 1e20],
        pd.DatetimeIndex(["2024-01-01", "2024-03-01 05:00", "2024-02-01 00:00:00.000001"]),
        pd.DatetimeIndex(["2024-01-01", "2024-07-01 05:00"]).tz_localize("Europe/Paris"),
        pd.DatetimeIndex(["2024-07-01 05:00"]).tz_localize("America/St_Johns"),
        pd.to_timedelta(["0s", "-1s", "1 day 02:00:00.5", "3ns"]),
    ],
    ids=["int", "float", "time", "zone", "half an hour", "duration"],
)
def test_intervals_as_pandas_prints_them(ends, closed):
    ends = pd.Index(ends)
    step = pd.Timedelta("1h") if ends.dtype.kind in "mM" or isinstance(ends.dtype, pd.DatetimeTZDtype) else 1
    intervals = pd.Series(pd.arrays.IntervalArray.from_arrays(ends, ends + step, closed=closed))
    column = table_of(open_source(pd.DataFrame({"c": intervals})))["c"]
    assert column.to_pylist() == [str(interval) for interval in intervals]
    assert column.chunk(0).dictionary.to_pylist() == [str(interval) for interval in intervals.sort_values()]


FREQUENCIES = [
    "Y",
    "Y-MAR",
    "Q",
    "Q-FEB",
    "M",
    "2M",
    "W",
    "W-WED",
    "W-SAT",
    "D",
    "3D",
    "h",
    "min",
    "s",
    "ms",
    "us",
    "ns",
]


@pytest.mark.parametrize("frequency", FREQUENCIES)
def test_periods_as_pandas_prints_them(frequency):
    stamps = pd.DatetimeIndex(
        ["2024-02-29 23:59:58.123456789", "1969-12-31 04:05", "1970-01-01", "2031-07-04", "1905-06-01"]
    )
    periods = pd.Series(stamps.to_period(frequency))
    assert table_of(open_source(pd.DataFrame({"c": periods})))["c"].to_pylist() == [str(p) for p in periods]


def test_business_days():
    storage = pa.array([0, 1, 2, -1, 14_000])
    days = pa.table([storage], schema=pa.schema([extension_field("pandas.period", '{"freq": "B"}', pa.int64())]))
    expected = ["1970-01-01", "1970-01-02", "1970-01-05", "1969-12-31", "2023-08-31"]
    assert table_of(open_source(days))["c"].to_pylist() == expected


def extension_field(name: str, parameters: str, storage: pa.DataType) -> pa.Field:
    """Return a field as pyarrow reads it where the type is not registered."""
    return pa.field("c", storage, metadata={"ARROW:extension:name": name, "ARROW:extension:metadata": parameters})


def test_older_names_of_frequencies_and_unknown_ones():
    for frequency, expected in (("A-DEC", ["2024"]), ("H", ["1970-01-03 06:00"]), ("FORTNIGHT", [54]), ("", [54])):
        field = extension_field("pandas.period", f'{{"freq": "{frequency}"}}', pa.int64())
        table = pa.table([pa.array([54])], schema=pa.schema([field]))
        assert table_of(open_source(table))["c"].to_pylist() == expected


UNPANDAS = """
import sys

class NoPandas:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoPandas())
from attfm.data.sources.source import open_source
source = open_source(sys.argv[1])
print([batch.to_pydict() for batch in source.batches()], [str(t) for t in source.schema.types])
"""


def test_parquet_of_pandas_without_pandas(tmp_path):
    frame = pd.DataFrame({name: COLUMNS[name] for name in ("period", "interval", "uuid")})
    frame.to_parquet(tmp_path / "t.parquet")
    command = [sys.executable, "-c", UNPANDAS, str(tmp_path / "t.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    types = ["string", "dictionary<values=string, indices=int32, ordered=1>", "string"]
    assert done.stdout.strip() == f"{[{name: EXPECTED[name] for name in frame}]} {types}"


@pytest.mark.parametrize("store_schema", [True, False])
def test_uuids_and_json_of_parquet(tmp_path, store_schema):
    table = pa.table({"u": pa.array(IDS, pa.uuid()), "j": pa.array(['{"a": 1}', None, "[]"], pa.json_())})
    pq.write_table(table, tmp_path / "t.parquet", store_schema=store_schema)
    for data in (table, tmp_path / "t.parquet"):
        source = open_source(data)
        assert source.schema.types == [pa.string(), pa.string()]
        assert table_of(source).to_pydict() == {"u": EXPECTED["uuid"], "j": ['{"a": 1}', None, "[]"]}


def test_other_extension_types():
    flags = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, None, 5], pa.int8()))
    tensor = pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.int64(), [2]), pa.array([[1, 2]] * 4, pa.list_(pa.int64(), 2))
    )
    opaque = pa.ExtensionArray.from_storage(
        pa.opaque(pa.string_view(), "geo", "db"), pa.array(["p"] * 4, pa.string_view())
    )
    nested = pa.ListArray.from_arrays(pa.array([0, None, 1, 1, 2]), pa.array([IDS[0], None], pa.uuid()))
    source = open_source(pa.table({"flags": flags, "tensor": tensor, "opaque": opaque, "nested": nested})[1:])
    assert [str(t) for t in source.schema.types] == ["bool", "list<item: int64>", "large_string", "list<item: string>"]
    assert table_of(source).to_pydict() == {
        "flags": [False, None, True],
        "tensor": [[1, 2]] * 3,
        "opaque": ["p"] * 3,
        "nested": [None, [], [None]],
    }
    assert table_of(open_source(pa.table({"n": nested})))["n"].to_pylist()[0] == [str(IDS[0])]
