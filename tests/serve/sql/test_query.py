"""The SQL query says what the model says, in SQLite and in DuckDB."""

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from numpy.typing import NDArray

import attfm
from attfm.errors import ConfigError
from attfm.model.bundle import Model
from attfm.model.calibration import Calibration
from attfm.serve.onnx import export_onnx
from attfm.serve.onnx.probe_rows import probe_rows
from attfm.serve.raw_inputs import tensors_of
from attfm.serve.sql.query import export_sql, sql_query
from tests.serve.made import PLAIN, isotonic, made_model, table

TEMPERATURE = Calibration(kind="temperature", rows=9, slope=(0.6, 0.6, 0.6), offset=(0.0, 0.0, 0.0))
MODELS: dict[str, dict[str, Any]] = {
    "binary": {"columns": PLAIN, "memory": True},
    "several classes, ensemble": {"columns": PLAIN[:4], "task": "multiclass", "members": 2, "memory": True,
                                  "calibration": TEMPERATURE},
    "regression": {"columns": PLAIN, "task": "regression", "preset": "fwfm", "memory": True},
    "paper, isotonic": {"columns": PLAIN[:3], "preset": "paper", "calibration": isotonic()},
    "linear": {"columns": ("job", "age"), "preset": "linear"},
    "several classes, isotonic": {"columns": ("job", "age"), "task": "multiclass", "calibration": isotonic(3)},
}  # fmt: skip


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> Model:
    """Return each model in turn."""
    return made_model(**MODELS[request.param])


def in_sqlite(query: str, data: pa.Table, name: str = "data") -> dict[str, list[Any]]:
    """Return the columns of a query's result on a table in SQLite."""
    with sqlite3.connect(":memory:") as connection:
        columns = ", ".join('"' + column.replace('"', '""') + '"' for column in data.column_names)
        connection.execute(f'create table "{name}" ({columns})')
        marks = ", ".join("?" * data.num_columns)
        rows = zip(*(column.to_pylist() for column in data.columns), strict=True)
        connection.executemany(f'insert into "{name}" values ({marks})', rows)
        found = connection.execute(query)
        names = [column[0] for column in found.description]
        return dict(zip(names, map(list, zip(*found.fetchall(), strict=True)), strict=True))


def in_duckdb(query: str, data: pa.Table, name: str = "data") -> dict[str, list[Any]]:
    """Return the columns of a query's result on a table in DuckDB."""
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        connection.execute("set threads = 1")
        connection.register(name, data)
        found = connection.execute(query)
        names = [column[0] for column in found.description]
        return dict(zip(names, map(list, zip(*found.fetchall(), strict=True)), strict=True))


DATABASES = {"sqlite": in_sqlite, "duckdb": in_duckdb}


def plain(data: pa.Table) -> pa.Table:
    """Return a table whose decimals are doubles, as SQLite has them."""
    for name in data.column_names:
        if pa.types.is_decimal(data[name].type):
            data = data.set_column(data.column_names.index(name), name, data[name].cast(pa.float64()))
    return data


def shares_of(model: Model, found: dict[str, list[Any]]) -> NDArray[np.float64]:
    """Return the probabilities in a result, (rows, classes); of a regression the predictions."""
    if model.task.name == "regression":
        return np.array(found["prediction"])
    if model.task.name == "binary":
        return np.stack([1 - np.array(found["probability"]), found["probability"]], 1)
    return np.stack([found[f"probability_{name}"] for name in model.task.class_names], 1)


@pytest.mark.filterwarnings("ignore::attfm.DataWarning")
@pytest.mark.parametrize("database", list(DATABASES))
def test_the_query_gives_the_models_scores(model: Model, database: str) -> None:
    data = plain(pa.concat_tables([probe_rows(model, 150, seed=4), probe_rows(model, 1, seed=5)]))
    if "member" in data.column_names:  # made-up truths are texts, some of them no truths
        truths = pc.if_else(
            pc.is_in(data["member"], pa.array(["true", "false"], pa.large_string())), data["member"], None
        )
        data = data.set_column(data.column_names.index("member"), "member", truths.cast(pa.bool_()))
    found = DATABASES[database](sql_query(model), data)
    unit = 40 if model.task.name == "regression" else 1
    curves = bool(model.calibration.curves)  # one of which jumps: a logit is on either side of it
    np.testing.assert_allclose(
        shares_of(model, found), model.predict_proba(data), atol=1e-6 * unit * (10 if curves else 1)
    )
    if model.task.name == "binary":
        np.testing.assert_allclose(found["logit"], model.logits(data)[:, 0], atol=2e-6)
    if model.task.is_classification:
        assert found["prediction"] == model.predict(data).tolist()
    assert found["job"] == data["job"].to_pylist()
    assert found["age"] == data["age"].to_pylist()


@pytest.mark.parametrize("database", list(DATABASES))
def test_names_and_values_are_no_sql(database: str) -> None:
    name, value = 'x"; drop table data; --', "a'); drop table data; --"
    data = pa.table({name: [value, "b", "''", None] * 20, "age": np.arange(80.0)})
    model = made_model(data=data)
    query = sql_query(model, table='main.da"ta', ids=[name])
    assert '"main"."da""ta"' in query
    found = DATABASES[database](sql_query(model, table="we're", ids=[name]), data, "we're")
    assert found[name] == data[name].to_pylist()
    np.testing.assert_allclose(found["probability"], model.predict_proba(data)[:, 1], atol=1e-6)


def test_texts_are_read_as_everywhere() -> None:
    model = made_model(columns=("job", "age"))
    texts = ["cook", " cook ", "NA", "", "nan", None, "never"]
    data = pa.table({"job": texts, "age": [40.0] * 7})
    expected = model.predict_proba(data)[:, 1]
    assert len(np.unique(expected)) == 3
    for found in (in_sqlite(sql_query(model), data), in_duckdb(sql_query(model), data)):
        np.testing.assert_allclose(found["probability"], expected, atol=1e-6)


def test_many_rows_of_the_query_are_searched_by_an_index() -> None:
    data = pa.table({"a": [f"a{n % 250}" for n in range(1000)], "b": [f"b{n % 161}" for n in range(1000)]})
    model = made_model(data=data, preset="fm")
    query = sql_query(model)
    assert query.count("\n(") > 40_000
    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table data (a, b)")
        plan = [row[3] for row in connection.execute(f"explain query plan {query}")]
    assert any("SEARCH attfm_terms USING AUTOMATIC" in step for step in plan)
    np.testing.assert_allclose(
        in_sqlite(query, data.slice(0, 50))["probability"], model.predict_proba(data.slice(0, 50))[:, 1], atol=1e-6
    )


def test_tables_above_the_limit_are_refused_with_their_sizes() -> None:
    model = made_model(columns=("job", "age"))
    with pytest.raises(
        ConfigError, match=r"would have [\d,]+ numbers \(27 values, 126 pairs of values, .* the fields 'age' 21"
    ):
        sql_query(model, limit=50)


@pytest.mark.parametrize(
    ("column", "settings", "why"),
    [
        ("langs", {}, "several values a row"),
        ("tags", {}, "several values a row"),
        ("started", {}, "dates or times"),
        ("width", {}, "is scaled"),
        ("job", {"job": {"kind": "categorical", "hash_buckets": 9}}, "is hashed"),
    ],
)
def test_what_sql_can_not_read_names_the_column(column: str, settings: dict[str, Any], why: str) -> None:
    model = made_model(columns=(column, "age"), settings=settings)
    with pytest.raises(ConfigError, match=f"Column '{column}' .*{why}"):
        sql_query(model)


def test_bad_asking_is_one_sentence(tmp_path: Path) -> None:
    model = made_model(data=table().select(["job", "age"]).rename_columns(["job", "logit"]))
    with pytest.raises(ConfigError, match="two columns 'logit'"):
        sql_query(model)
    assert "logit" in sql_query(model, ids=["job"])
    for path, message in (("x.txt", "end its name in .sql"), ("no/x.sql", "there is no folder"), (".", "is a folder")):
        with pytest.raises(ConfigError, match=message):
            export_sql(model, tmp_path / path, ids=["job"])
    assert export_sql(model, tmp_path / "x.sql", ids=["job"]).read_text().startswith("-- attfm")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"table": None}, "The table None has no name"),
        ({"table": 3}, "The table 3 has no name"),
        ({"table": "a\0b"}, "The table 'a.*b' has no name"),
        ({"ids": "job"}, r"ids is 'job': give a list of names of columns, such as \['id'\]"),
        ({"ids": 3}, "ids is 3: give a list of names"),
        ({"limit": None}, "limit is None: give a number of numbers, at least 1"),
        ({"limit": float("nan")}, "limit is nan: give a number"),
        ({"limit": "many"}, "limit is 'many': give a number"),
        ({"limit": 0}, "limit is 0: give a number"),
    ],
)
def test_options_of_another_type_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        sql_query(made_model(columns=("job", "age")), **options)


def test_what_is_no_model_is_refused_by_every_export(tmp_path: Path) -> None:
    for wrong in ("runs/adult", None, attfm.AFMClassifier()):
        for call in (
            lambda given: sql_query(given), lambda given: export_onnx(given, tmp_path / "model.onnx"),
            lambda given: tensors_of(given, table()), lambda given: export_sql(given, tmp_path / "query.sql"),
        ):  # fmt: skip
            with pytest.raises(ConfigError, match=f"^A {type(wrong).__name__} is no attfm.Model: give one, such as"):
                call(wrong)
    for path in (None, 3, b"model.onnx"):
        with pytest.raises(ConfigError, match=r"^The model is .*: give its file, such as 'model.onnx'"):
            export_onnx(made_model(columns=("job", "age")), path)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
