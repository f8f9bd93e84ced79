"""Columns with views, run ends and names with spaces: plain ones, by every route."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from attfm import AFMClassifier
from attfm.data.sources import arrow_files
from attfm.data.sources.plain_columns import plain_type
from attfm.data.sources.source import open_source
from attfm.errors import SchemaError
from tests.data.sources.test_source import table_of

VALUES = {
    "text": ["a", None, "c"],
    "bytes": [b"\xff", None, b""],
    "list": [["a", None], None, []],
    "deep": [[["a"], None, ["b", "c"]], None, [[]]],
    "map": [[("a", 1.0), ("b", None)], None, []],
    "struct": [{"s": "x", "n": 1}, None, {"s": None, "n": 2}],
    "level": ["v", None, "u"],
}
TYPES = {
    "text": [pa.string_view()],
    "bytes": [pa.binary_view()],
    "list": [make(pa.string_view()) for make in (pa.list_, pa.large_list, pa.list_view, pa.large_list_view)],
    "deep": [pa.list_(pa.list_(pa.string_view())), pa.list_view(pa.large_list_view(pa.string_view()))],
    "map": [pa.map_(pa.string_view(), pa.float64()), pa.map_(pa.string(), pa.float16())],
    "struct": [pa.struct({"s": pa.string_view(), "n": pa.int64()})],
    "level": [pa.run_end_encoded(pa.int32(), pa.string())],
}
CASES = [(name, t) for name, types in TYPES.items() for t in types]


def array_of(name: str, t: pa.DataType) -> pa.Array:
    """Return the values inside of a longer array, so that it begins at an offset."""
    values = [VALUES[name][0], *VALUES[name], VALUES[name][0]]
    return (pc.run_end_encode(pa.array(values)) if name == "level" else pa.array(values, t))[1:4]


def holds(t: pa.DataType, text: str) -> bool:
    return text in str(t)


def assert_usable(table: pa.Table):
    """Filter, take, cast, concatenate and split the rows of a table."""
    assert not holds(table.schema.types, "view")
    assert table.filter(pa.array([True, False, True])).num_rows == 2
    assert table.take([2, 0]).to_pylist() == [table.to_pylist()[2], table.to_pylist()[0]]
    assert pa.concat_tables([table, table]).combine_chunks().slice(3).to_pylist() == table.to_pylist()
    assert table.cast(table.schema).validate(full=True) is None


@pytest.mark.parametrize(("name", "t"), CASES, ids=[f"{name} {t}" for name, t in CASES])
def test_no_views_in_memory_or_in_a_dataset(name, t):
    table = pa.table({"c": array_of(name, t)})
    for data in (table, pads.dataset(table)):
        source = open_source(data)
        assert table_of(source)["c"].to_pylist() == VALUES[name]
        assert source.schema.field("c").type == plain_type(table.schema.field("c"))
        assert_usable(table_of(source))


def test_fixed_size_lists_are_lists():
    table = pa.table({"c": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2))})
    source = open_source(table)
    assert source.schema.field("c").type == pa.list_(pa.int64())
    assert table_of(source)["c"].to_pylist() == [[1, 2], None, [3, 4]]


def test_list_views_that_share_their_values():
    views = pa.ListViewArray.from_arrays(pa.array([1, 0, 1]), pa.array([2, 1, 0]), pa.array(["a", "b", "c"]))
    assert table_of(open_source(pa.table({"c": views})))["c"].to_pylist() == [["b", "c"], ["a"], []]


def test_dictionaries_of_lists_become_lists():
    lists = pa.DictionaryArray.from_arrays(pa.array([1, 0, None]), pa.array([["a"], ["b", "c"]]))
    source = open_source(pa.table({"c": lists}))
    assert table_of(source)["c"].to_pylist() == [["b", "c"], ["a"], None]
    assert source.schema.field("c").type == pa.list_(pa.string())


FRAME = pl.DataFrame(
    {
        "enum": pl.Series(["u", "v", None], dtype=pl.Enum(["v", "u", "w"])),
        "category": pl.Series(["u", "v", None], dtype=pl.Categorical),
        "list": [["a"], None, ["b", "c"]],
        "deep": [[["a"]], [], None],
        "text": ["a", "b", None],
        "struct": [{"a": "x"}, {"a": None}, None],
        "array": pl.Series([[1, 2], [3, 4], None], dtype=pl.Array(pl.Int64, 2)),
        "bytes": [b"\xff", b"b", None],
    }
)


@pytest.mark.parametrize("name", [None, "t.arrow", "t.arrows", "t.parquet"])
def test_polars_frames_and_its_files(tmp_path, name):
    data = FRAME if name is None else tmp_path / name
    if name == "t.arrow":
        FRAME.write_ipc(data)
    elif name == "t.arrows":
        FRAME.write_ipc_stream(data)
    elif name == "t.parquet":
        FRAME.write_parquet(data)
    table = table_of(open_source(data))
    assert table.to_pylist() == FRAME.to_dicts()
    assert_usable(table)
    assert table["enum"].type.ordered
    assert table["enum"].chunk(0).dictionary.to_pylist() == ["v", "u", "w"]
    assert not table["category"].type.ordered


@pytest.mark.parametrize("route", ["frame", "ipc"])
def test_a_model_of_a_frame_with_lists_of_views(tmp_path, route):
    rows = 120
    frame = pl.DataFrame({"tags": [["a", "b"] if i % 2 else ["c"] for i in range(rows)], "n": range(rows)})
    model = AFMClassifier(epochs=2, random_state=0).fit(frame, [i % 2 for i in range(rows)])
    assert model.model_.schema.columns[0].kind == "multi-valued"
    scores = model.predict_proba(frame)
    assert scores[1, 1] > scores[0, 1]
    if route == "ipc":
        frame.write_ipc(tmp_path / "t.arrow")
        assert np.array_equal(model.predict_proba(pads.dataset(tmp_path / "t.arrow", format="ipc").to_table()), scores)


def test_files_with_views_and_without_are_one_table(tmp_path):
    for name, t in (("1", pa.string_view()), ("2", pa.string())):
        table = pa.table({"a": pa.array([name], t)})
        with pa.ipc.new_file(tmp_path / f"{name}.arrow", table.schema) as writer:
            writer.write_table(table)
    assert table_of(open_source(tmp_path)).to_pydict() == {"a": ["1", "2"]}


def ordered(values: list[str], codes: list[int | None], index: pa.DataType) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, index), pa.array(values), ordered=True)


def test_an_ordered_dictionary_is_the_same_in_all_batches(tmp_path, monkeypatch):
    chunks = [ordered(["low", "mid"], [1, 0], pa.int8()), ordered(["mid", "high"], [1, None], pa.int8())]
    table = pa.table({"c": pa.chunked_array(chunks)})
    feather.write_feather(table.slice(0, 2), str(tmp_path / "1.arrow"))
    feather.write_feather(table.slice(2, 2), str(tmp_path / "2.arrow"))
    monkeypatch.setattr(arrow_files, "_BATCH_ROWS", 1)
    for data in (table, tmp_path):
        batches = list(open_source(data).batches())
        assert len(batches) > 1
        for batch in batches:
            assert batch.column(0).dictionary.to_pylist() == ["low", "mid", "high"]
        assert pa.Table.from_batches(batches)["c"].to_pylist() == ["mid", "low", "high", None]


@pytest.mark.parametrize("kind", ["pandas", "arrow", "parquet", "arrow file"])
def test_ordered_and_unordered_categories_stay(tmp_path, kind):
    dtype = pd.CategoricalDtype(["z", "y", "x", "w"], ordered=True)
    frame = pd.DataFrame({"o": pd.Series(["x", "z", None], dtype=dtype), "u": pd.Categorical(["x", "z", None])})
    data = {"pandas": frame, "arrow": pa.Table.from_pandas(frame)}.get(kind, tmp_path / "t.parquet")
    if kind == "parquet":
        frame.to_parquet(data)
    if kind == "arrow file":
        data = tmp_path / "t.arrow"
        frame.to_feather(data)
    table = table_of(open_source(data))
    assert table["o"].type.ordered
    assert table["o"].chunk(0).dictionary.to_pylist() == ["z", "y", "x", "w"]
    assert not table["u"].type.ordered
    assert table.to_pydict() == {"o": ["x", "z", None], "u": ["x", "z", None]}


def test_dictionaries_with_small_indices_can_be_joined():
    chunks = [pa.array([f"{part}-{i}" for i in range(100)]).dictionary_encode() for part in range(2)]
    chunks = [chunk.cast(pa.dictionary(pa.int8(), pa.string())) for chunk in chunks]
    table = table_of(open_source(pa.table({"c": pa.chunked_array(chunks)})))
    assert len(table["c"].combine_chunks().dictionary) == 200


HEADERS = {
    "DataFrame": lambda path: pd.DataFrame({" age": [1], "job\t": ["x"]}),
    "polars": lambda path: pl.DataFrame({" age": [1], "job\t": ["x"]}),
    "dict": lambda path: {" age": [1], "job\t": ["x"]},
    "list of dicts": lambda path: [{" age": 1, "job\t": "x"}],
    "records": lambda path: np.array([(1, "x")], dtype=[(" age", "i8"), ("job\t", "U1")]),
    "table": lambda path: pa.table({" age": [1], "job\t": ["x"]}),
    "dataset": lambda path: pads.dataset(pa.table({" age": [1], "job\t": ["x"]})),
    "names=": lambda path: [[1, "x"]],
    "t.parquet": lambda path: pq.write_table(pa.table({" age": [1], "job\t": ["x"]}), path / "t.parquet"),
    "t.arrow": lambda path: feather.write_feather(pa.table({" age": [1], "job\t": ["x"]}), str(path / "t.arrow")),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_names_have_no_spaces_around(tmp_path, kind):
    data = HEADERS[kind](tmp_path)
    for given in [data] if data is not None else [tmp_path / kind, tmp_path]:
        source = open_source(given, names=[" age", "job\t"] if kind == "names=" else None)
        assert source.schema.names == ["age", "job"]
        assert table_of(source).to_pydict() == {"age": [1], "job": ["x"]}
        assert next(source.batches(["job"])).to_pydict() == {"job": ["x"]}


def test_names_that_become_equal(tmp_path):
    table = pa.table({"a": [1], "a ": [2]})
    pq.write_table(table, tmp_path / "t.parquet")
    for data in (table, table.to_pandas(), table.to_pydict(), table.to_pylist(), {1: [1], "1": [2]}):
        with pytest.raises(SchemaError, match=r"stand more than once in the \w+: '[a1]'\. Rename them"):
            open_source(data)
    for data in (tmp_path / "t.parquet", tmp_path):
        with pytest.raises(SchemaError, match=r"stand more than once in t\.parquet: 'a'"):
            open_source(data)


@pytest.mark.parametrize("t", [pa.timestamp("s", "Mars/Base"), pa.list_(pa.timestamp("s", "Mars/Base"))], ids=str)
def test_unknown_time_zones(tmp_path, t):
    table = pa.table({"n": [1], "when": pa.array([None], t)})
    pq.write_table(table, tmp_path / "t.parquet")
    for data in (table, pads.dataset(table), tmp_path / "t.parquet"):
        with pytest.raises(SchemaError, match=r"Column 'when' \(Mars/Base\) of .* has an unknown time zone\. Convert"):
            open_source(data)
    known = pa.table({"when": pa.array([0], pa.timestamp("s", "+05:30"))})
    assert open_source(known).schema.field("when").type.tz == "+05:30"


def test_old_times_of_spark_reach_beyond_nanoseconds(tmp_path):
    times = [datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31), datetime.datetime(2024, 3, 1, 5)]
    table = pa.table({"t": pa.array(times, pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "t.parquet", use_deprecated_int96_timestamps=True, store_schema=False)
    assert table_of(open_source(tmp_path / "t.parquet"))["t"].to_pylist() == times


def test_calendar_intervals_are_one_sentence():
    table = pa.table({"c": pa.array([pa.MonthDayNano([1, 2, 3]), None] * 20), "n": range(40)})
    with pytest.raises(SchemaError, match=r"Column 'c' is of type month_day_nano_interval, which can't be encoded"):
        AFMClassifier(epochs=1).fit(table, [0, 1] * 20)
    AFMClassifier(epochs=1, columns={"c": {"kind": "ignored"}}).fit(table, [0, 1] * 20)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([1.5, None], pa.float16()), [1.5, None]),
        (pa.array([1, None], pa.decimal256(60, 2)), [1, None]),
        (pa.array([1, None], pa.decimal32(5, 2)), [1, None]),
        (pa.array([datetime.timedelta(hours=1), None]), [datetime.timedelta(hours=1), None]),
        (pa.array([datetime.time(5), None]), [datetime.time(5), None]),
    ],
    ids=["float16", "decimal256", "decimal32", "duration", "time"],
)
def test_rarer_numbers_can_be_fitted(tmp_path, array, expected):
    column = pa.chunked_array([array] * 40)
    table = pa.table({"c": column})
    pq.write_table(table, tmp_path / "t.parquet") if not pa.types.is_duration(array.type) else None
    for data in [table, *tmp_path.iterdir()]:
        assert table_of(open_source(data))["c"].to_pylist()[:2] == expected
    model = AFMClassifier(epochs=1, random_state=0).fit(table, [0, 1] * 40)
    assert model.model_.schema.columns[0].kind == "numeric"
    assert np.isfinite(model.predict_proba(table)).all()
