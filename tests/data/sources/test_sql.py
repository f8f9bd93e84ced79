"""Queries on SQLite files: types, passes, and what can be wrong."""

import sqlite3
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from attfm.data.sources.source import open_source
from attfm.errors import ConfigError, MissingExtraError, SchemaError, SourceError

pytest.importorskip("adbc_driver_sqlite", reason="needs attfm[sql]")


def _database(path: Path, columns: str, rows: Iterable[tuple[Any, ...]]) -> str:
    """Write a table t, and return the URI of its file."""
    rows = list(rows)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(f"create table t ({columns})")
        connection.executemany(f"insert into t values ({', '.join('?' * len(rows[0]))})", rows)
    connection.close()
    return f"sqlite:///{path}"


def _read(uri: str, query: str, columns: list[str] | None = None) -> pa.Table:
    return pa.Table.from_batches(open_source(uri, query=query).batches(columns))


def test_a_column_has_the_widest_type_of_its_cells_wherever_they_stand(tmp_path: Path) -> None:
    last = 70_000
    rows = [(i, i, None, None, None, None) for i in range(last)] + [(last, 0.5, "x", 2.5, b"z", None)]
    uri = _database(tmp_path / "a b#?.db", "i integer, number, late, half real, raw blob, gone", rows)
    source = open_source(uri, query="select * from t order by i desc -- newest first")
    table = pa.Table.from_batches(source.batches())
    assert (source.num_rows, table.num_rows) == (last + 1, last + 1)
    assert [str(t) for t in table.schema.types[:5]] == ["int64", "double", "string", "double", "binary"]
    assert table["gone"].null_count == last + 1
    assert table["i"].to_pylist() == list(range(last, -1, -1))
    assert table.slice(0, 1).to_pylist() == [
        {"i": last, "number": 0.5, "late": "x", "half": 2.5, "raw": b"z", "gone": None}
    ]
    assert table["late"].null_count == last
    assert [batch.num_rows for batch in source.batches(["late"])] == [65_535, last - 65_534]


def test_numbers_beside_text_are_text(tmp_path: Path) -> None:
    uri = _database(tmp_path / "t.db", "x", [(1,), ("a",), (2.5,), (None,)])
    assert _read(uri, "select x from t order by rowid")["x"].to_pylist() == ["1", "a", "2.5", None]


def test_columns_are_chosen_in_any_order_and_by_any_name(tmp_path: Path) -> None:
    uri = _database(tmp_path / "t.db", '"a ""b""", "select", " c "', [(1, 2, 3), (4, 5, 6)])
    table = _read(uri, "with u as (select * from t) select * from u order by 1", ["c", 'a "b"'])
    assert table.to_pydict() == {"c": [3, 6], 'a "b"': [1, 4]}


def test_two_passes_are_equal_and_other_rows_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    source = open_source(_database(path, "x", [(1,), (2,)]), query="select * from t order by x")
    first, second = (pa.Table.from_batches(source.batches()) for _ in range(2))
    assert first.equals(second)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("insert into t values (3)")
    connection.close()
    with pytest.raises(SourceError, match=r"the query on t.db gave 2 rows when it was opened and more when it was run"):
        list(source.batches())


def test_the_fingerprint_is_that_of_the_file_and_the_query(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    uri = _database(path, "x", [(1,), (2,)])
    one, again = (open_source(uri, query="select * from t").fingerprint for _ in range(2))
    other = open_source(uri, query="select x + 1 as x from t").fingerprint
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("insert into t values (3)")
    connection.close()
    assert one == again
    assert len({one, other, open_source(uri, query="select * from t").fingerprint}) == 3


def test_many_columns_are_looked_at_in_parts(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(450)]
    uri = _database(tmp_path / "t.db", ", ".join(names), [(*range(449), 0.5)])
    assert _read(uri, "select * from t").to_pylist() == [{name: i for i, name in enumerate(names)} | {"c449": 0.5}]


@pytest.mark.parametrize(
    ("query", "error", "sentence"),
    [
        (None, ConfigError, r"sqlite:///.*t\.db is a database: say which of its rows by query= \(--query\)"),
        (" ; ", ConfigError, "is a database: say which"),
        ("select * from u", SourceError, r"the query on t\.db can't be run: no such table: u\. Correct it"),
        ("selec x from t", SourceError, r"can't be run: near \"from\": syntax error\. Correct it"),
        ("delete from t", SourceError, 'can\'t be run: near "delete": syntax error'),
        ("select * from t where 0", SourceError, r"the query on t\.db has 0 rows: a table needs"),
        ('select x as "" from t', SchemaError, "Column 1 of the query on t.db has no name"),
        ('select x as "a ", x as a from t', SchemaError, "more than once in the query on t.db: 'a'"),
    ],
)
def test_what_is_wrong_with_a_query_is_one_sentence(
    tmp_path: Path, query: str | None, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        open_source(_database(tmp_path / "t.db", "x", [(1,)]), query=query)


def test_what_is_wrong_with_a_file_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _database(tmp_path / "shop.db", "x", [(1,)])
    (tmp_path / "text.db").write_text("x\n" * 1000)
    assert open_source("sqlite:///shop.db", query="select * from t").num_rows == 1
    with pytest.raises(SourceError, match=r"There is no file shpo\.db\. Did you mean shop\.db"):
        open_source("sqlite:///shpo.db", query="select * from t")
    root = str(tmp_path / "shop.db").lstrip("/")
    with pytest.raises(SourceError, match=f"Did you mean sqlite:////{root}, from the root"):
        open_source(f"sqlite:///{root}", query="select * from t")
    with pytest.raises(SourceError, match=r"text\.db can't be run: file is not a database"):
        open_source("sqlite:///text.db", query="select * from t")
    with pytest.raises(SourceError, match="is a folder"):
        open_source(f"sqlite:///{tmp_path}", query="select * from t")
    assert not (tmp_path / "shpo.db").exists()


def test_a_query_is_for_databases() -> None:
    with pytest.raises(ConfigError, match=r"chooses rows of a database .*, and 'shop\.csv' is none: leave it out"):
        open_source("shop.csv", query="select 1")
    with pytest.raises(ConfigError, match="and a dict is none"):
        open_source({"x": [1]}, query="select 1")
    with pytest.raises(SourceError, match="names= is for arrays"):
        open_source("postgresql://u:pw@h/db", query="select 1", names=["a"])


def test_without_the_drivers_the_command_that_installs_them_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = _database(tmp_path / "t.db", "x", [(1,)])
    for module in ("adbc_driver_sqlite.dbapi", "adbc_driver_manager"):  # one of them, and then both
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match=r"""run 'pip install "attfm\[sql\]"'"""):
            open_source(uri, query="select * from t")
