"""What is told of values that can be used but look wrong: unknown ones, zones, columns without values."""

import datetime as dt
import warnings
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from attfm import AFMClassifier, DataWarning, load
from attfm.cli import main
from attfm.data.sources.source import open_source
from attfm.explain.pair_grid import pair_grid
from attfm.model.run_folder import load_model
from attfm.serve.tables import load as compiled_of

SETTINGS: dict[str, Any] = {"epochs": 8, "learning_rate": 0.05, "dim": 2, "attention_dim": 2}
ROWS = 120
JOBS = np.array(["cook", "clerk", "nurse"])


def people(rows: int = ROWS) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    i = np.arange(rows)
    X = pd.DataFrame({"job": JOBS[i % 3], "name": [f"p{k}" for k in i], "age": 20 + i % 40})
    return X, np.where(i % 3 == 0, "no", "yes")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    X, y = people()
    return str(AFMClassifier(**SETTINGS).fit(X, y).save(tmp_path_factory.mktemp("told") / "run"))


UNKNOWN = (
    r"Column 'job': 100 % of the 120 values were not seen .* \(first: 'COOK', row 0\)\. Check that they are written"
)


def test_a_column_of_unknown_values_is_told_once_by_every_face(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = people()
    other = X.assign(job=X["job"].str.upper())
    estimator = load(run)
    for ask in (
        estimator.predict,
        estimator.predict_proba,
        estimator.explain,
        lambda X: estimator.explain(X, rows=[0]),
    ):
        with pytest.warns(DataWarning, match=UNKNOWN) as told:
            ask(other)
        assert len(told) == 1
    for rows in (other.to_dict("records"), other.to_dict("list"), {name: other[name] for name in other}):
        with pytest.warns(DataWarning, match=UNKNOWN) as told:
            compiled_of(run).predict_proba(rows)
        assert len(told) == 1
    file = str(tmp_path / "t.csv")
    other.assign(target=y).to_csv(file, index=False)
    for command in (["predict", run, file], ["evaluate", run, file], ["explain", run, file]):
        capsys.readouterr()
        assert main(command) == 0
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("attfm: warning: Column 'job': 100 % of the 120 values were not seen in training")


def test_new_values_that_were_to_be_expected_are_not_told(run: str) -> None:
    X, _ = people()
    estimator, compiled = load(run), compiled_of(run)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled.predict(X.assign(name=[f"q{k}" for k in range(ROWS)]).to_dict("records"))
        compiled.predict(X.assign(job="pilot")[:3].to_dict("records"))
        compiled.predict(X.assign(job=None).to_dict("records"))
        estimator.predict(X.assign(name=[f"q{k}" for k in range(ROWS)]))  # each name of the training was one row's
        estimator.predict(X.assign(job=np.where(np.arange(ROWS) % 2, X["job"], "pilot")))  # half of them
        estimator.predict(X.assign(job="pilot")[:2])  # chance, in two rows
        estimator.predict(X.assign(job=None))


def test_a_table_to_stop_by_is_looked_at_too() -> None:
    X, y = people()
    with pytest.warns(DataWarning, match=UNKNOWN):
        AFMClassifier(**SETTINGS).fit(X, y, eval_set=(X.assign(job=X["job"].str.upper()), y))


def zoned(zone: str | None, *, rows: int = ROWS) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    """Return instants, as times of a zone, and labels by the half of the day in Tokyo."""
    instants = pd.date_range("2024-01-01", periods=rows, freq="7h", tz="UTC")
    labels = np.where(instants.tz_convert("Asia/Tokyo").hour < 12, "am", "pm")
    return pd.DataFrame({"t": instants.tz_convert(zone) if zone else instants.tz_localize(None)}), labels


def test_an_instant_is_an_instant_in_any_zone() -> None:
    X, y = zoned("Asia/Tokyo")
    estimator = AFMClassifier(**SETTINGS).fit(X, y)
    expected = estimator.predict_proba(X)
    assert (estimator.predict(X) == y).mean() > 0.9
    for zone in ("UTC", "America/New_York", "+05:30"):
        np.testing.assert_array_equal(estimator.predict_proba(zoned(zone)[0]), expected)
    utc = zoned("UTC")[0]
    np.testing.assert_array_equal(estimator.predict_proba(pd.DataFrame({"t": utc["t"].astype(str)})), expected)
    mixed = [time.tz_convert(("UTC", "Asia/Tokyo", "Europe/Paris")[i % 3]) for i, time in enumerate(utc["t"])]
    for order in (slice(None), slice(None, None, -1)):
        rows = pd.DataFrame({"t": pd.Series([time.to_pydatetime() for time in mixed[order]], dtype=object)})
        np.testing.assert_array_equal(estimator.predict_proba(rows), expected[order])


def test_times_without_a_zone_where_there_was_one_and_the_reverse_are_told_once() -> None:
    X, y = zoned("Asia/Tokyo")
    local = pd.DataFrame({"t": X["t"].dt.tz_localize(None)})
    aware, naive = AFMClassifier(**SETTINGS).fit(X, y), AFMClassifier(**SETTINGS).fit(local, y)
    with pytest.warns(DataWarning, match="'t' holds times without a time zone, but had times of Asia/Tokyo") as told:
        np.testing.assert_array_equal(aware.predict_proba(local), aware.predict_proba(X))
    assert len(told) == 1
    with pytest.warns(DataWarning, match="'t' holds times with a time zone, but had none in training") as told:
        np.testing.assert_array_equal(naive.predict_proba(X), naive.predict_proba(local))
    assert len(told) == 1


def test_a_date_beside_columns_that_are_called_like_its_parts(tmp_path: Path) -> None:
    X, y = zoned(None)
    X = X.assign(**{"t.hour": np.arange(ROWS) % 5, "t date.month": JOBS[np.arange(ROWS) % 3]})
    estimator = AFMClassifier(**SETTINGS).fit(X, y)
    names = [field.name for field in estimator.model_.encoder.fields]
    assert names == ["t date date.hour", "t date date.weekday", "t date date.month", "t.hour", "t date.month"]
    again = load(estimator.save(tmp_path / "run"))
    np.testing.assert_array_equal(again.predict_proba(X), estimator.predict_proba(X))
    assert len(again.explain(X[:1])[0].names) == len(set(again.explain(X[:1])[0].names)) == 5 + 10


def test_ordered_categories_have_neighbours_and_keep_their_order(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=ROWS)
    X = pd.DataFrame({
        "size": pd.Categorical(np.array(["S", "M", "L"])[np.digitize(x, [-0.5, 0.5])], ["S", "M", "L"], ordered=True),
        "bin": pd.cut(x, [-4, -1, 0, 1, 4]),
        "free": pd.Categorical(JOBS[np.arange(ROWS) % 3]),
    })  # fmt: skip
    estimator = AFMClassifier(**SETTINGS).fit(X, np.where(x > 0, "yes", "no"))
    encoder = estimator.model_.encoder
    assert encoder.feature_names(0)[2:] == ["S", "M", "L"]
    assert encoder.feature_names(1)[2:] == ["(-4, -1]", "(-1, 0]", "(0, 1]", "(1, 4]"]
    assert [field.ordered for field in encoder.fields] == [True, True, False]
    assert len(encoder.neighbours()) == 2 + 3
    overview = estimator.explain_global()
    for field, labels in (("size", ["S", "M", "L"]), ("bin", ["(-4, -1]", "(-1, 0]", "(0, 1]", "(1, 4]"])):
        shape = overview.shape(field)
        assert [shape.labels[level] for level in shape.shown(9)] == labels
        assert sorted(shape.most_frequent()) == sorted(shape.shown(9)) != shape.most_frequent().tolist()
    rows, columns = pair_grid(overview, overview.surfaces()[0], 0).labels
    assert {tuple(rows), tuple(columns)} <= {("S", "M", "L"), tuple(labels), *permutations(JOBS)}
    again = load_model(estimator.save(tmp_path / "run"))
    X.to_csv(tmp_path / "t.csv", index=False)
    np.testing.assert_array_equal(again.predict_proba(tmp_path / "t.csv"), estimator.predict_proba(X))
    np.testing.assert_array_equal(again.predict_proba(X.astype({"size": str})), estimator.predict_proba(X))


def test_a_marker_of_missing_values_is_a_value_where_training_had_it(tmp_path: Path) -> None:
    countries = np.array(["NA", "DE", "FR"])[np.arange(ROWS) % 3]
    X = pd.DataFrame({"country": countries, "other": JOBS[np.arange(ROWS) % 3]})
    X.loc[::7, "country"] = None
    model = AFMClassifier(**SETTINGS).fit(X, np.where(np.arange(ROWS) % 3, "yes", "no")).model_
    assert model.schema.columns[0].kept == ("NA",)
    X.to_csv(tmp_path / "t.csv", index=False)
    np.testing.assert_array_equal(model.predict_proba(tmp_path / "t.csv"), model.predict_proba(X))
    # Where it was none, it is missing, whatever brings it.
    others = X.assign(other="NA")
    np.testing.assert_array_equal(model.predict_proba(others), model.predict_proba(X.assign(other=None)))
    # Folders of before the schema said so: the vocabulary knows.
    columns = tuple(column.model_copy(update={"kept": ()}) for column in model.schema.columns)
    schema = model.schema.model_copy(update={"columns": columns})
    encoder = type(model.encoder).from_table(schema, model.encoder.to_table())
    table = next(open_source(X).batches())
    np.testing.assert_array_equal(encoder.transform(table).ids, model.encoder.transform(table).ids)


def test_a_number_that_means_missing_does_so_as_a_number_too(tmp_path: Path) -> None:
    lines = [f"{-999 if k % 5 == 1 else k % 30},{'yes' if k % 3 else 'no'}" for k in range(ROWS)]
    (tmp_path / "t.csv").write_text("x,y\n" + "\n".join(lines) + "\n")
    run = str(tmp_path / "run")
    quick = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    asked = [
        "train",
        str(tmp_path / "t.csv"),
        "--target",
        "y",
        "--out",
        run,
        "-q",
        "--no-report",
        "--null=-999",
        *quick,
    ]
    assert main(asked) == 0
    model = load_model(run)
    assert (model.schema.columns[0].minimum, model.schema.columns[0].missing) == (0, 0.2)
    missing = model.predict_proba({"x": [None]})
    for value in (-999, -999.0, "-999", "-999.0"):
        np.testing.assert_array_equal(model.predict_proba({"x": [value]}), missing)


def test_many_rows_are_encoded_as_few_are() -> None:
    # From some number of rows on, columns are encoded in threads.
    n = 70_000
    table = pa.table({
        "a": pa.array(np.arange(n) % 1_000), "s": pa.array([None if k % 9 == 0 else f"v{k % 50}" for k in range(n)]),
        "t": pa.array([dt.datetime(2024, 1, 1)] * n), "x": pa.array(np.random.default_rng(0).normal(size=n)),
    })  # fmt: skip
    model = AFMClassifier(**(SETTINGS | {"epochs": 1})).fit(table, np.arange(n) % 2).model_
    whole = model.encoder.transform(table)
    parts = [model.encoder.transform(batch) for batch in table.to_batches(max_chunksize=1_000)]
    np.testing.assert_array_equal(whole.ids, np.concatenate([part.ids for part in parts]))
    bad = table.set_column(0, "a", pa.array(["x"] + ["1"] * (n - 1)))
    bad = bad.set_column(3, "x", pa.array(["1"] * (n - 1) + ["y"]))
    with pytest.raises(ValueError, match=r"'a': 1 of 70,000 .*first: 'x', row 0.*'x': 1 of 70,000 .*'y', row 69,999"):
        model.encoder.transform(bad)
