"""Relations of DuckDB are streamed, and run again for each pass."""

from typing import Any

import pyarrow as pa
import pytest

from attfm import AFMClassifier
from attfm.data.sources.source import open_source
from attfm.errors import SchemaError, SourceError

duckdb = pytest.importorskip("duckdb")

ROWS = """select range as i, range::decimal(12, 2) / 4 as price, 'a' || range as "odd "" name", [range, 1] as bag,
    (case when range % 2 = 0 then 'x' else 'y' end)::enum('x', 'y') as level from range(150000)"""


@pytest.fixture
def connection() -> Any:
    with duckdb.connect() as opened:
        yield opened


def test_passes_are_streamed_and_equal(connection: Any) -> None:
    relation = connection.sql(f"{ROWS} order by i")
    source = open_source(relation)
    assert (source.name, source.num_rows, len(source.schema)) == ("DuckDBPyRelation", 150_000, 5)
    first, second = (pa.Table.from_batches(source.batches()) for _ in range(2))
    assert first.equals(second)
    assert first["i"].to_pylist() == list(range(150_000))
    assert first["level"].to_pylist()[:3] == ["x", "y", "x"]
    assert first["bag"][2].as_py() == [2, 1]
    assert next(source.batches(['odd " name'])).num_rows < 150_000  # not all of it, and nothing stays open
    assert next(source.batches(['odd " name', "i"])).to_pylist()[0] == {'odd " name': "a0", "i": 0}


def test_a_model_learns_from_a_relation(connection: Any) -> None:
    connection.execute("create table t as select range % 7 as a, range % 3 as b from range(300)")
    target = [int(row[0]) % 2 for row in connection.sql("select a from t").fetchall()]
    model = AFMClassifier(epochs=2, dim=2)
    model.fit(connection.sql("select * from t"), target)
    assert model.predict(connection.sql("select * from t limit 5")).shape == (5,)


def test_what_goes_wrong_is_one_sentence(connection: Any) -> None:
    connection.execute("create table t as select 1 as x")
    with pytest.raises(SourceError, match="the DuckDBPyRelation has 0 rows"):
        open_source(connection.sql("select * from t where false"))
    with pytest.raises(SchemaError, match="more than once in the DuckDBPyRelation: 'x'"):
        open_source(connection.sql('select x, x as "x " from t'))
    source = open_source(connection.sql("select * from t"))
    connection.execute("insert into t values (2)")
    with pytest.raises(SourceError, match="gave 1 rows when it was opened and more when it was run again"):
        list(source.batches())
    connection.execute("drop table t")
    with pytest.raises(SourceError, match=r"the DuckDBPyRelation can't be read: Catalog Error.*Keep its connection"):
        list(source.batches())
    connection.close()
    with pytest.raises(SourceError, match="the DuckDBPyRelation can't be read: Connection Error"):
        list(source.batches())


def test_a_reader_can_be_read_once_and_is_read_whole(connection: Any) -> None:
    reader = connection.sql("select range as i from range(100)").to_arrow_table().to_reader()
    source = open_source(reader)
    assert [sum(batch.num_rows for batch in source.batches()) for _ in range(2)] == [100, 100]
