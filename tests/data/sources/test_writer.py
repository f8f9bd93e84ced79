"""Writing tables: what is read again equals it, and nothing half-written stays."""

import datetime
from pathlib import Path

import pyarrow as pa
import pytest

from attfm.data.sources.source import TableWriter, open_source
from attfm.errors import SchemaError, SourceError

TABLE = pa.table(
    {
        "row": [0, 1, 2],
        "score": [0.1, None, 1 / 3],
        "word": ['a "b", c', "line\nbreak", None],
        "kind": pa.array(["u", "v", "u"]).dictionary_encode(),
        "day": pa.array([datetime.datetime(2020, 1, 2, 3), None, datetime.datetime(2021, 1, 1)], pa.timestamp("us")),
        "yes": [True, False, None],
    }
)
NAMES = ["o.csv", "o.tsv", "o.csv.gz", "o.tsv.zst", "o.parquet", "o.arrow", "o.feather"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read_again_equals(tmp_path, name):
    path = tmp_path / name
    with TableWriter(path) as writer:
        writer.write(TABLE)
        writer.write(TABLE.slice(1).combine_chunks().to_batches()[0])
        assert not path.exists()
    again = open_source(path)
    assert again.num_rows == 5
    expected = pa.concat_tables([TABLE, TABLE.slice(1)]).to_pydict()
    assert pa.Table.from_batches(again.batches(), again.schema).to_pydict() == expected
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_an_exception_leaves_nothing_new(tmp_path, name):
    path = tmp_path / name
    path.write_text("old")

    def interrupted() -> None:
        with TableWriter(path) as writer:
            writer.write(TABLE)
            assert len(list(tmp_path.iterdir())) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_written_is_no_file(tmp_path):
    with TableWriter(tmp_path / "o.csv"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_header_is_plain(tmp_path):
    with TableWriter(tmp_path / "o.csv") as writer:
        writer.write(pa.table({"a": [1], 'b "x", y': [0.5]}))
    assert (tmp_path / "o.csv").read_text() == 'a,"b ""x"", y"\n1,0.5\n'


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("o.xlsx", r"o\.xlsx can't be written: its name must end in one of \.csv, \.tsv, .*\.parquet"),
        ("o.parquet.gz", r"its name must end in one of"),
        ("o", r"its name must end in one of"),
        ("none/o.csv", r"there is no folder .*none"),
    ],
)
def test_bad_paths(tmp_path, name, message):
    with pytest.raises(SourceError, match=message):
        TableWriter(tmp_path / name)


def test_a_folder_is_no_file(tmp_path: Path):
    (tmp_path / "o.csv").mkdir()
    with pytest.raises(SourceError, match=r"o\.csv can't be written: it is a folder"):
        TableWriter(tmp_path / "o.csv")


def test_rows_that_do_not_fit(tmp_path):
    with TableWriter(tmp_path / "o.parquet") as writer:
        writer.write(pa.table({"a": [1]}))
        writer.write(pa.table({"a": pa.array([2], pa.int32())}))
        with pytest.raises(SchemaError, match=r"o\.parquet has the columns a, not b"):
            writer.write(pa.table({"b": [1]}))
        with pytest.raises(SchemaError, match=r"types than the first can't be written to o\.parquet.*'x'"):
            writer.write(pa.table({"a": ["x"]}))
    assert open_source(tmp_path / "o.parquet").num_rows == 2


def test_lists_need_another_format(tmp_path):
    table = pa.table({"tags": [["a"], ["b", "c"]]})
    with (
        TableWriter(tmp_path / "o.csv") as writer,
        pytest.raises(SchemaError, match=r"Column 'tags' .*o\.csv: use \.pa"),
    ):
        writer.write(table)
    with TableWriter(tmp_path / "o.parquet") as writer:
        writer.write(table)
    assert next(open_source(tmp_path / "o.parquet").batches()).to_pydict() == table.to_pydict()
