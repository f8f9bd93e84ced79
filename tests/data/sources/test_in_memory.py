"""Tables in memory: frames, arrays, dicts and lists are the same table."""

import decimal
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads
import pytest
import scipy.sparse

from attfm.data.sources.source import MAX_BATCH_ROWS, open_source
from attfm.errors import SchemaError, SourceError
from tests.data.sources.test_source import COLUMNS, TABLE, table_of


class Interchange:
    """A table that speaks the old protocol only."""

    def __init__(self, frame: pa.Table) -> None:
        self._frame = frame

    def __dataframe__(self, **options: object) -> object:
        return self._frame.__dataframe__(**options)


class Stream:
    """A table that speaks the Arrow capsule protocol only."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


OBJECTS = {
    "table": lambda: TABLE,
    "batch": lambda: TABLE.to_batches()[0],
    "reader": lambda: TABLE.to_reader(),
    "dataset": lambda: pads.dataset(TABLE),
    "stream": lambda: Stream(TABLE),
    "pandas with an index": lambda: pd.DataFrame({**COLUMNS, "n": pd.array([1, None, 3], "Int64")}, index=[7, 7, 9]),
    "pandas on arrow": lambda: TABLE.to_pandas(types_mapper=pd.ArrowDtype),
    "dict": lambda: COLUMNS,
    "list of dicts": lambda: TABLE.to_pylist(),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_objects_agree(kind):
    assert_holds_the_columns(OBJECTS[kind]())


def test_frames_agree(frame):
    assert_holds_the_columns(frame(COLUMNS))


def assert_holds_the_columns(data):
    source = open_source(data)
    assert source.num_rows == 3
    for _ in range(2):  # a reader can be read once, its source again
        assert table_of(source).to_pydict() == COLUMNS
    assert [batch.to_pydict() for batch in source.batches(["w", "n"])] == [{"w": COLUMNS["w"], "n": COLUMNS["n"]}]
    assert open_source(source) is source


def test_interchange_protocol():
    table = TABLE.select(["n", "x", "w"])
    assert table_of(open_source(Interchange(table))).to_pydict() == table.to_pydict()


def test_perturbed_objects_do_not_agree():
    assert table_of(open_source({**COLUMNS, "n": [1, None, 4]})).to_pydict() != COLUMNS


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"c": pd.Categorical(["u", "v", None, "u"])}),
        pl.DataFrame({"c": pl.Series(["u", "v", None, "u"], dtype=pl.Categorical)}),
        pl.DataFrame({"c": pl.Series(["u", "v", None, "u"], dtype=pl.Enum(["v", "u"]))}),
        pa.table({"c": pa.array(["u", "v", None, "u"]).dictionary_encode()}),
    ],
    ids=["pandas", "polars", "polars enum", "arrow"],
)
def test_dictionaries_may_stay(frame):
    source = open_source(frame)
    assert pa.types.is_dictionary(source.schema.field("c").type)
    assert table_of(source)["c"].to_pylist() == ["u", "v", None, "u"]


def test_odd_pandas_columns():
    frame = pd.DataFrame(
        {
            "mixed": [1, "a", None, 2.5],
            "sparse": pd.arrays.SparseArray([0, 0, 1, 0]),
            "period": pd.period_range("2020-01", periods=4, freq="M"),
            "interval": pd.interval_range(0, 4),
            "nan": [np.nan, 1.0, np.nan, 2.0],
            "text": pd.array(["x", pd.NA, "y", "z"], "string"),
            "decimal": [decimal.Decimal("1.5"), None, decimal.Decimal("2"), None],
            "zone": pd.date_range("2020-01-01", periods=4, tz="Europe/Paris"),
            5: [1, 2, 3, 4],
        }
    )
    columns = table_of(open_source(frame)).to_pydict()
    assert columns["mixed"] == ["1", "a", None, "2.5"]
    assert columns["sparse"] == [0, 0, 1, 0]
    assert columns["period"] == ["2020-01", "2020-02", "2020-03", "2020-04"]
    assert columns["interval"][0] == "(0, 1]"
    assert columns["nan"] == [None, 1.0, None, 2.0]
    assert columns["text"] == ["x", None, "y", "z"]
    assert columns["decimal"][0] == decimal.Decimal("1.5")
    assert columns["zone"][0].isoformat() == "2020-01-01T00:00:00+01:00"
    assert columns["5"] == [1, 2, 3, 4]


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f8", "g", "i4", ">i8", "u1", "?", "U3", "O"])
def test_numpy_arrays(dtype):
    array = np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype)
    source = open_source(array)
    assert source.schema.names == ["x0", "x1"]
    assert table_of(source)["x1"].to_pylist() == [1, 0, 1] if dtype != "U3" else ["1", "0", "1"]
    assert open_source(array[:, ::-1], names=["p", "q"]).schema.names == ["p", "q"]
    assert table_of(open_source(array[:, ::-1], names=["p", "q"]))["q"].to_pylist() == array[:, 0].tolist()


def test_numpy_objects_by_column():
    array = np.array([[1, "a", 2.5, 1, [1]], [None, "b", np.nan, "x", [2, 3]]], dtype=object)
    source = open_source(array)
    assert [str(t) for t in source.schema.types] == ["int64", "string", "double", "string", "list<item: int64>"]
    assert table_of(source)["x3"].to_pylist() == ["1", "x"]
    assert table_of(source)["x2"].to_pylist() == [2.5, None]


def test_nan_becomes_null():
    assert table_of(open_source(np.array([[np.nan], [1.0]])))["x0"].to_pylist() == [None, 1.0]


def test_records_and_rows():
    records = np.array([(1, "a"), (2, "b")], dtype=[("n", "i8"), ("w", "U1")])
    assert table_of(open_source(records)).to_pydict() == {"n": [1, 2], "w": ["a", "b"]}
    assert table_of(open_source([[1, "a"], (2, "b")])).to_pydict() == {"x0": [1, 2], "x1": ["a", "b"]}
    assert table_of(open_source([[1, "a"]], names=["n", "w"])).to_pydict() == {"n": [1], "w": ["a"]}
    rows = [{"a": 1}, {"a": 2, "b": "x"}]
    assert table_of(open_source(rows)).to_pydict() == {"a": [1, 2], "b": [None, "x"]}


def test_dict_of_mixed_columns():
    columns = {
        "a": np.arange(3),
        "b": pd.Series(["x", "y", None]),
        "c": pa.array([1.5, 2, 3]),
        "d": pl.Series([1, 2, 3]),
    }
    expected = {"a": [0, 1, 2], "b": ["x", "y", None], "c": [1.5, 2.0, 3.0], "d": [1, 2, 3]}
    assert table_of(open_source(columns)).to_pydict() == expected


def test_big_tables_come_in_bounded_batches():
    rows = 2 * MAX_BATCH_ROWS + 5
    for data in (np.zeros((rows, 2)), pa.table({"a": np.zeros(rows)}), pl.DataFrame({"a": np.zeros(rows)})):
        sizes = [batch.num_rows for batch in open_source(data).batches()]
        assert sum(sizes) == rows
        assert min(sizes) > 0
        assert max(sizes) <= MAX_BATCH_ROWS


BAD_OBJECTS = {
    "number": (3, SourceError, r"A int is not a table\. Accepted are a path, a pandas or polars DataFrame"),
    "none": (None, SourceError, r"A NoneType is not a table"),
    "sparse": (scipy.sparse.eye(3, format="csr"), SourceError, r"sparse matrix \(csr_\w+\) is not .*\.toarray\(\)"),
    "1-D": (np.zeros(3), SourceError, r"1 dimensions, shape \(3,\).*Reshape your data"),
    "3-D": (np.zeros((1, 2, 3)), SourceError, r"3 dimensions, shape \(1, 2, 3\)"),
    "complex": (np.zeros((2, 2), complex), SourceError, r"Complex data not supported"),
    "complex pandas": (pd.DataFrame({"z": [1j]}), SourceError, r"Column 'z' is complex"),
    "pandas series": (pd.Series([1]), SourceError, r"A Series is one column.*to_frame"),
    "polars series": (pl.Series([1]), SourceError, r"A Series is one column"),
    "arrow array": (pa.array([1]), SourceError, r"A Int64Array is one column"),
    "lazy": (pl.LazyFrame({"a": [1]}), SourceError, r"LazyFrame holds no rows yet: pass \.collect\(\)"),
    "numpy no rows": (np.zeros((0, 2)), SourceError, r"The ndarray has 0 rows"),
    "numpy no columns": (np.zeros((2, 0)), SourceError, r"0 feature\(s\) \(shape=\(2, 0\)\) while a minimum of 1"),
    "pandas no rows": (pd.DataFrame({"a": []}), SourceError, r"The DataFrame has 0 rows"),
    "pandas no columns": (pd.DataFrame(index=[1, 2]), SourceError, r"0 feature\(s\) \(shape=\(2, 0\)\)"),
    "polars no rows": (pl.DataFrame({"a": []}), SourceError, r"The DataFrame has 0 rows"),
    "empty dict": ({}, SourceError, r"The dict has no columns"),
    "empty list": ([], SourceError, r"The list has 0 rows"),
    "list of empty dicts": ([{}], SourceError, r"The list has no columns"),
    "list of numbers": ([1, 2], SourceError, r"Row 0 of the list is 1, no row.*Reshape your data"),
    "ragged list": ([[1], [1, 2]], SourceError, r"Row 1 of the list has 2 cells, but the first has 1"),
    "list of dicts and more": ([{"a": 1}, 2], SourceError, r"Row 1 of the list is a int, but the first is a dict"),
    "dict of both": ({"a": 3, "b": [1]}, SourceError, r"Column 'a' of the dict is 3, but 'b' holds several"),
    "dict of 2-D": ({"a": np.zeros((2, 2))}, SourceError, r"Column 'a' has 2 dimensions"),
    "uneven dict": ({"a": [1], "b": [1, 2]}, SourceError, r"differ in length: 'a' 1, 'b' 2"),
    "doubled": (pd.DataFrame([[1, 2]], columns=["a", "a"]), SchemaError, r"more than once in the DataFrame: 'a'"),
    "doubled arrow": (pa.table([[1], [2]], names=["a", "a"]), SchemaError, r"more than once in the Table: 'a'"),
    "no name": (pa.table([[1], [2]], names=["a", ""]), SchemaError, r"Column 2 of the Table has no name"),
    "sets": (pd.DataFrame({"s": [1, {2}]}), SchemaError, r"Column 's' can't be read: in row 1 stands a set: \{2\}"),
    "stream of numbers": (Stream(pa.chunked_array([[1]])), SourceError, r"The Stream can't be read as a table"),
}  # fmt: skip


def test_integers_that_arrow_has_no_type_for_are_ids():
    frame = pl.DataFrame({"id": pl.Series([10**20, None, 7], dtype=pl.Int128)})
    assert open_source(frame).schema.field("id").type == pa.large_string()
    assert next(open_source(frame).batches())["id"].to_pylist() == [str(10**20), None, "7"]


@pytest.mark.parametrize("case", BAD_OBJECTS)
def test_bad_objects(case):
    data, error, message = BAD_OBJECTS[case]
    with pytest.raises(error, match=message):
        open_source(data)


def test_names_of_objects():
    with pytest.raises(SchemaError, match=r"The array has 2 columns, but 1 names are given"):
        open_source(np.zeros((2, 2)), names=["a"])
    with pytest.raises(SchemaError, match=r"more than once in names=: 'a'"):
        open_source(np.zeros((2, 2)), names=["a", "a"])
    with pytest.raises(SourceError, match=r"names= is for arrays .*this DataFrame has column names"):
        open_source(pd.DataFrame({"a": [1]}), names=["b"])


def test_pandas_and_polars_are_not_imported():
    code = "import sys; import attfm.data.sources.source; print({'pandas', 'polars', 'scipy'} & set(sys.modules))"
    # The package's own __init__ imports scikit-learn and with it scipy: look at the folder alone.
    prelude = (
        "import sys, types; import importlib.util as u; p = types.ModuleType('attfm');"
        "p.__path__ = list(u.find_spec('attfm').submodule_search_locations); sys.modules['attfm'] = p;"
    )
    done = subprocess.run([sys.executable, "-c", prelude + code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
