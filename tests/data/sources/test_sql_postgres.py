"""Queries on a real PostgreSQL server, which these tests start and stop; skipped where it is not installed."""

import datetime
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from attfm.cli import main
from attfm.data.sources.database_uri import DatabaseUri
from attfm.data.sources.source import open_source
from attfm.errors import SchemaError, SourceError
from tests.commands.test_resume import interrupt
from tests.postgres import PASSWORD, USER, Server, running
from tests.shop import FAST, HEADER, shop_rows

pytest.importorskip("adbc_driver_postgresql", reason="needs attfm[sql]")

QUERY = "select row, age, job, town, bought from shop order by row"
WHOLE = """
create table whole (
    id int primary key, i2 int2, i8 int8, f4 float4, f8 float8, n numeric, price numeric(12, 2), cash money, t text,
    c char(4), b bool, at timestamp, at_zone timestamptz, day date, clock time, span interval, ints int[],
    words text[], ns numeric[], u uuid, j jsonb, address inet, "Odd "" name" text
)"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as started:
        started.execute(
            "create table shop (row int, age numeric, job text, town text, bought text)",
            "insert into shop values " + ", ".join(_rows()),
            WHOLE,
            """insert into whole values (1, 2, 9007199254740993, 1.5, 2.5, 3.25, 1234.50, 12.5, 'é', 'ab', true,
            '2024-01-02 03:04:05', '2024-01-02 03:04:05+02', '2024-01-02', '03:04', '1 day 01:00', '{1,2,null}',
            '{a,"b c"}', '{1.5,2}', '12345678-1234-5678-1234-567812345678', '{"a": 1}', '127.0.0.1', 'odd')""",
            "insert into whole (id) values (2)",
        )
        yield started


@pytest.fixture(autouse=True)
def _no_password_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "no-such-pgpass"))
    monkeypatch.chdir(tmp_path)


def _rows() -> Iterator[str]:
    for values in shop_rows():
        row = dict(zip(HEADER, values, strict=True))
        yield f"({row['row']}, {row['age']}, '{row['job']}', '{row['town']}', '{row['bought']}')"


def test_types_are_those_of_arrow_and_numbers_are_numbers(server: Server) -> None:
    source = open_source(server.uri_with_password, query="select * from whole order by id;")
    (batch,) = source.batches()
    types = {field.name: str(field.type) for field in batch.schema}
    assert types == {
        "id": "int32", "i2": "int16", "i8": "int64", "f4": "float", "f8": "double", "n": "double", "price": "double",
        "cash": "double", "t": "string", "c": "string", "b": "bool", "at": "timestamp[us]",
        "at_zone": "timestamp[us, tz=UTC]", "day": "date32[day]", "clock": "time64[us]", "span": "double",
        "ints": "list<item: int32>", "words": "list<item: string>", "ns": "list<item: double>", "u": "string",
        "j": "string", "address": "string", 'Odd " name': "string",
    }  # fmt: skip
    first, second = batch.to_pylist()
    assert first == {
        "id": 1, "i2": 2, "i8": 9007199254740993, "f4": 1.5, "f8": 2.5, "n": 3.25, "price": 1234.5, "cash": 12.5,
        "t": "é", "c": "ab", "b": True, "at": datetime.datetime(2024, 1, 2, 3, 4, 5),
        "at_zone": datetime.datetime(2024, 1, 2, 1, 4, 5, tzinfo=datetime.UTC), "day": datetime.date(2024, 1, 2),
        "clock": datetime.time(3, 4), "span": 90_000.0, "ints": [1, 2, None], "words": ["a", "b c"], "ns": [1.5, 2.0],
        "u": "12345678-1234-5678-1234-567812345678", "j": '{"a": 1}', "address": "127.0.0.1/32", 'Odd " name': "odd",
    }  # fmt: skip
    assert set(second.values()) == {2, None}


def test_every_pass_gives_the_same_rows_and_only_the_columns_asked_for(server: Server) -> None:
    source = open_source(server.uri_with_password, query=f"{QUERY} -- as they came")
    first, second = (pa.Table.from_batches(source.batches(["job", "age"])) for _ in range(2))
    assert first.equals(second)
    assert (source.num_rows, first.schema.names, first.num_rows) == (200, ["job", "age"], 200)
    assert pa.types.is_float64(first.schema.field("age").type)
    assert next(source.batches()).num_rows == 200  # a pass that is not ended leaves nothing behind
    assert first["age"].to_pylist() == [float(row[HEADER.index("age")]) for row in shop_rows()]


def test_multi_valued_and_null_columns_are_columns_of_a_model(server: Server, tmp_path: Path) -> None:
    query = """select i, array[i % 3, i % 5] as tags, case when i % 4 > 0 then i::numeric / 7 end as x,
        timestamp '2024-01-01' + i * interval '1 hour' as at, i % 3 = 0 as y
        from generate_series(1, 300) i order by i"""
    run = tmp_path / "run"
    fast = [option.replace("row", "i") for option in FAST]
    assert main(["train", server.uri_with_password, "--query", query, "--target", "y", "--out", str(run), *fast]) == 0
    columns = {column["name"]: column["kind"] for column in json.loads((run / "schema.json").read_text())["columns"]}
    assert (columns["tags"], columns["x"], columns["at"]) == ("multi-valued", "numeric", "datetime")


@pytest.mark.parametrize("by", ["uri", "PGPASSWORD"])
def test_commands_train_evaluate_and_predict_and_tell_no_password(
    server: Server, by: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = server.uri_with_password
    if by == "PGPASSWORD":
        uri = server.uri
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
    table = [uri, "--query", QUERY]
    assert main(["train", *table, "--target", "bought", "--debug", *FAST[:-1]]) == 0
    assert f"next:  attfm evaluate runs/shop-1 {server.uri} --query '{QUERY}'" in capfd.readouterr().out
    assert main(["evaluate", "runs/shop-1", *table, "--json"]) == 0
    told = capfd.readouterr()
    assert json.loads(told.out)["rows"] == 200
    assert json.loads(told.out)["data"] == server.uri
    assert main(["predict", "runs/shop-1", *table, "--id", "row", "-o", "scores.csv"]) == 0
    assert Path("scores.csv").read_text().count("\n") == 201
    assert main(["explain", "runs/shop-1", *table, "--rows", "2"]) == 0
    assert main(["report", "runs/shop-1", "--data", uri, "--query", QUERY, "-o", "page.html"]) == 0
    everything = told.out + told.err + "".join(capfd.readouterr())
    _has_no_password(tmp_path, everything)


def test_an_interrupted_training_keeps_no_password_and_goes_on_with_that_of_the_environment(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", server.uri_with_password, "--query", QUERY, "--target", "bought", "--out", "run", "--debug"]
    with monkeypatch.context() as patched:
        interrupt(patched, after=3)
        assert main([*command, "--checkpoint-steps", "1", "--set", "batch_size=32", *FAST]) == 130
    asked = json.loads((tmp_path / "run.checkpoints" / "options.json").read_text())["asked"]
    assert (asked["data"], asked["query"]) == (server.uri, QUERY)
    _has_no_password(tmp_path, "".join(capfd.readouterr()))
    assert main(["train", "--resume", "run"]) == 2
    assert "Give the right password by PGPASSWORD" in capfd.readouterr().err
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert main(["train", "--resume", "run"]) == 0
    _has_no_password(tmp_path, "".join(capfd.readouterr()))


def _has_no_password(folder: Path, printed: str) -> None:
    written = printed.encode() + b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    for secret in (PASSWORD, "op%26n%2Fses%40me", "ses@me", "op&n"):
        assert secret.encode() not in written


@pytest.mark.parametrize(
    ("change", "query", "sentence"),
    [
        (("op&n", "shut"), QUERY, f'password authentication failed for user "{USER}". Give the right password by PG'),
        (("/shop", "/shopp"), QUERY, 'database "shopp" does not exist. Look whether'),
        (("", ""), "select * from shopp", 'the query on shop can\'t be run: relation "shopp" does not exist. Correct'),
        (("", ""), "select ages from shop", 'column "ages" does not exist. Correct'),
        (("", ""), "drop table shop", 'syntax error at or near "table". Correct'),
        (
            ("", ""),
            "select row, bought, 1 / (age - age) as x from shop",
            "division by zero. Run it again, or correct it",
        ),
        (("", ""), "select * from shop where false", "the query on shop has 0 rows"),
        (("", ""), "select from shop", "the query on shop has no columns"),
        (("", ""), "select row, row from shop", "Column names stand more than once in the query on shop: 'row'"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    server: Server, change: tuple[str, str], query: str, sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    uri = server.uri_with_password.replace(*change) if change[0] else server.uri_with_password
    assert main(["train", uri, "--query", query, "--target", "bought", *FAST]) == 2
    error = capfd.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert error.startswith("attfm: ")
    assert "ses@me" not in error
    assert not Path("runs").exists()


def test_debug_has_a_traceback_without_the_password(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = server.uri_with_password.replace("op&n", "shut")
    assert main(["train", wrong, "--query", QUERY, "--target", "bought", "--debug"]) == 2
    error = capfd.readouterr().err
    assert "Traceback" in error
    assert "ses@me" not in error
    assert "ses%40me" not in error


def test_a_query_that_gives_other_rows_is_noticed(server: Server) -> None:
    server.execute("create table growing as select 1 as x")
    source = open_source(server.uri_with_password, query="select * from growing")
    server.execute("insert into growing values (2)")
    with pytest.raises(SourceError, match="the query on shop gave 1 rows when it was opened and more when it was run"):
        list(source.batches())
    server.execute("delete from growing")
    with pytest.raises(SourceError, match="gave 1 rows when it was opened and 0 when"):
        list(source.batches())


def test_a_server_killed_in_the_middle_of_a_pass_is_one_sentence() -> None:
    with running() as server:
        query = "select i as x, md5(i::text) as t from generate_series(1, 1000000) i order by i"
        source = open_source(server.uri_with_password, query=query)
        batches = source.batches()
        assert next(batches).num_rows > 0
        server.kill()
        with pytest.raises(
            SourceError, match=r"on shop broke off after [\d,]+ of 1,000,000 rows: .*unexpectedly\. Run it again, or"
        ):
            list(batches)
        with pytest.raises(SourceError, match=r"can't be opened: connection to server at .* Connection refused\. Look"):
            list(source.batches())


def test_the_uri_of_a_source_can_be_shown(server: Server) -> None:
    source = open_source(DatabaseUri(server.uri_with_password), query=QUERY)
    assert (source.name, str(source)) == ("the query on shop", "Source('the query on shop', rows=200, columns=5)")
    assert PASSWORD not in repr(vars(source))
    with pytest.raises(SchemaError, match=r"the query on shop has no column 'agee' .did you mean 'age'"):
        source.batches(["agee"])
