"""Sources other than text: Parquet and Arrow files, folders, and table objects of every library."""

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from attfm.data.sources.source import MAX_BATCH_ROWS, Source, open_source
from attfm.errors import SchemaError, SourceError

COLUMNS = {
    "n": [1, None, 3],
    "x": [0.5, 1.5, None],
    "w": ["a", "é", None],
    "flag": [True, False, None],
    "day": [datetime.datetime(2020, 1, 2, 3), None, datetime.datetime(2021, 1, 1)],
    "tags": [["p", "q"], [], ["r"]],
}
TABLE = pa.table(COLUMNS)


def table_of(source: Source) -> pa.Table:
    return pa.Table.from_batches(source.batches(), source.schema)


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("name", ["t.parquet", "t.pq", "t.arrow", "t.feather", "t.arrows"])
def test_files_agree(tmp_path, name, as_text):
    path = tmp_path / name
    if path.suffix in (".parquet", ".pq"):
        pq.write_table(TABLE, path)
    elif path.suffix == ".arrows":
        with pa.ipc.new_stream(path, TABLE.schema) as writer:
            writer.write_table(TABLE)
    else:
        feather.write_feather(TABLE, str(path), compression="zstd")
    for data in (str(path), path.as_uri()) if as_text else (path,):
        source = open_source(data)
        assert (source.name, source.num_rows) == (name, 3)
        for _ in range(2):
            assert table_of(source).to_pydict() == COLUMNS
        assert next(source.batches(["x", "n"])).schema.names == ["x", "n"]


def test_parquet_in_bounded_batches(tmp_path):
    rows = MAX_BATCH_ROWS + 7
    pq.write_table(pa.table({"a.b": np.arange(rows), "c": np.arange(rows)}), tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet")
    batches = list(source.batches(["a.b"]))
    assert max(batch.num_rows for batch in batches) <= MAX_BATCH_ROWS
    assert np.array_equal(np.concatenate([batch.column(0).to_numpy() for batch in batches]), np.arange(rows))


def test_index_of_pandas_in_parquet_is_no_column(tmp_path):
    pd.DataFrame({"a": [1, 2]}, index=["r", "s"]).to_parquet(tmp_path / "t.parquet")
    assert open_source(tmp_path / "t.parquet").schema.names == ["a"]
    assert open_source(pq.read_table(tmp_path / "t.parquet")).schema.names == ["a"]


def test_folder_with_partitions(tmp_path):
    folder = tmp_path / "clicks"
    for day in (1, 2):
        (folder / f"day={day}").mkdir(parents=True)
        pq.write_table(pa.table({"a": [day, day + 10], "b": [day / 2, None]}), folder / f"day={day}" / "p.parquet")
    (folder / "_SUCCESS").write_text("")
    (folder / "_delta_log").mkdir()
    pq.write_table(pa.table({"z": [1]}), folder / "_delta_log" / "x.parquet")
    (folder / "README.md").write_text("notes")
    source = open_source(folder)
    assert (source.name, source.num_rows) == ("clicks", 4)
    assert table_of(source).to_pydict() == {"a": [1, 11, 2, 12], "b": [0.5, None, 1.0, None], "day": [1, 1, 2, 2]}


def test_folder_whose_files_differ(tmp_path):
    pq.write_table(pa.table({"a": pa.array([1], pa.int32())}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": [2.5], "b": ["x"]}), tmp_path / "2.parquet")
    assert table_of(open_source(tmp_path)).to_pydict() == {"a": [1.0, 2.5], "b": [None, "x"]}
    pq.write_table(pa.table({"a": ["word"]}), tmp_path / "3.parquet")
    with pytest.raises(SchemaError, match=r"3\.parquet has other columns than the files before it.*a"):
        open_source(tmp_path)


def test_folders_without_tables(tmp_path):
    with pytest.raises(SourceError, match=r"holds no Parquet, Arrow or text files"):
        open_source(tmp_path)
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "notes.txt").write_text("a,b\n1,2\n")
    with pytest.raises(SourceError, match=r"holds \.csv and \.txt files: name those of one table by a pattern"):
        open_source(tmp_path)
    pq.write_table(TABLE, tmp_path / "a.parquet")
    feather.write_feather(TABLE, str(tmp_path / "a.arrow"))
    with pytest.raises(SourceError, match=r"holds both Parquet and Arrow files"):
        open_source(tmp_path)


def test_missing_files(tmp_path: Path):
    (tmp_path / "churn.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SourceError, match=r"There is no file .*chrun\.csv\. Did you mean churn\.csv\?"):
        open_source(tmp_path / "chrun.csv")
    with pytest.raises(SourceError, match=r"There is no file .*There is no folder .*nowhere either"):
        open_source(tmp_path / "nowhere" / "a.csv")
    with pytest.raises(SourceError, match=r"path of the table is empty"):
        open_source("")
    with pytest.raises(SourceError, match=r"https://example\.org/a\.csv can't be opened.*download"):
        open_source("https://example.org/a.csv")


@pytest.mark.parametrize("name", ["t.xlsx", "t.json", "t", "t.csv.zip"])
def test_unknown_extensions(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(SourceError, match=rf"{name} has an unknown extension\. Known are \.csv .*\.parquet .*\.libsvm"):
        open_source(tmp_path / name)


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.arrows"])
def test_damaged_files(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"")
    with pytest.raises(SourceError, match=rf"{name} is empty"):
        open_source(path)
    path.write_bytes(b"no such thing at all")
    with pytest.raises(SourceError, match=rf"{name} is damaged or cut short"):
        open_source(path)


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.arrows"])
def test_files_cut_short(tmp_path, name):
    table = pa.table({"a": np.random.default_rng(0).random(50_000)})
    path = tmp_path / name
    if name == "t.parquet":
        pq.write_table(table, path)
    else:
        open_writer = pa.ipc.new_stream if name == "t.arrows" else pa.ipc.new_file
        with open_writer(path, table.schema) as writer:
            writer.write_table(table)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=rf"{name} is damaged or cut short"):
        list(open_source(path).batches())


def test_parquet_with_damaged_pages(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [f"word {i}" for i in range(20_000)]}), path, compression="gzip")
    content = bytearray(path.read_bytes())
    content[2000:4000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"t\.parquet is damaged"):
        list(open_source(path).batches())


def test_tables_without_rows_or_columns(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(TABLE.slice(0, 0), path)
    with pytest.raises(SourceError, match=r"t\.parquet has 0 rows"):
        open_source(path)
    pq.write_table(pa.table({}), path)
    with pytest.raises(SourceError, match=r"t\.parquet has no columns"):
        open_source(path)
    pq.write_table(pa.table([[1], [2]], names=["a", "a"]), path)
    with pytest.raises(SchemaError, match=r"more than once in t\.parquet: 'a'"):
        open_source(path)
    with pytest.raises(SourceError, match=r"names= is for arrays.*t\.parquet has names of its own"):
        open_source(path, names=["a", "b"])


def test_columns_asked_for():
    source = open_source(TABLE)
    with pytest.raises(SchemaError, match=r"Table has no column 'N' \(did you mean 'n'\?\)|Table has no column 'N'"):
        source.batches(["N"])
    with pytest.raises(SchemaError, match=r"No columns of Table were asked for"):
        source.batches([])
    assert repr(source) == "Source('Table', rows=3, columns=6)"


def test_kept_columns_are_read_once_if_they_fit():
    source = open_source(TABLE)
    passes = []
    read = source._reader.read
    source._reader.read = lambda columns: passes.append(list(columns)) or read(columns)
    kept = source.kept(["n", "w"])
    assert (kept.name, kept.num_rows, kept.schema.names) == ("Table", 3, ["n", "w"])
    for columns in (["n", "w"], ["w"], ["w", "n"], ["n"]):
        assert [batch.to_pydict() for batch in kept.batches(columns)] == [{name: COLUMNS[name] for name in columns}]
    assert passes == [["n", "w"]]

    passes.clear()
    large = source.kept(["n", "w"], most_bytes=TABLE.select(["n", "w"]).nbytes - 1)
    for columns in (["w"], ["w"], ["n"]):
        assert [batch.to_pydict() for batch in large.batches(columns)] == [{name: COLUMNS[name] for name in columns}]
    assert passes == [["n", "w"], ["w"], ["n"]]


def test_a_pass_that_ends_early_keeps_nothing():
    rows = 2 * MAX_BATCH_ROWS
    kept = open_source(pa.table({"a": np.arange(rows)})).kept(["a"])
    assert next(kept.batches())["a"][0].as_py() == 0
    assert sum(batch.num_rows for batch in kept.batches()) == rows
    assert sum(batch.num_rows for batch in kept.batches()) == rows


def test_kept_columns_must_be_there():
    with pytest.raises(SchemaError, match="Table has no column 'z'"):
        open_source(TABLE).kept(["n", "z"])
    with pytest.raises(SchemaError, match="Table has no column 'x'"):
        open_source(TABLE).kept(["n"]).batches(["x"])
