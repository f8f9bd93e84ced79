"""A model of columns of all types predicts, evaluates and explains the same from every route, by every face."""

import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from attfm import AFMClassifier, AFMRegressor, load
from attfm.cli import main
from attfm.data.sources.source import open_source
from attfm.model.run_folder import load_model
from attfm.serve.tables import load as compiled_of
from tests.meaning.routes import FILES, MEMORY

ROWS = 90
SETTINGS: dict[str, Any] = {"epochs": 4, "learning_rate": 0.05, "dim": 2, "attention_dim": 2}


def table() -> pa.Table:
    """Return rows whose columns have the types that people's tables have."""
    i = np.arange(ROWS)
    text = pa.array([None if k % 9 == 4 else ("0007", "0012", "A-17", "12")[k % 4] for k in i])
    return pa.table({
        "code": text,
        "day as text": pa.array([("2024-03-01", "2024-03-02", "unknown")[k % 3] for k in i]),
        "flag": pa.array([None if k % 7 == 2 else bool(k % 2) for k in i]),
        "count": pa.array([None if k % 8 == 1 else int(k % 5) for k in i]),
        "amount": pa.array(i / 7),
        "small": pa.array(np.float32(i) / 10),
        "price": pa.array([Decimal(int(k)) / 100 for k in i], pa.decimal128(9, 2)),
        "day": pa.array([dt.date(2024, 1, 1) + dt.timedelta(int(k)) for k in i]),
        "seen": pa.array([dt.datetime(2024, 1, 1) + dt.timedelta(hours=int(7 * k)) for k in i], pa.timestamp("us")),
        "zoned": pa.array(
            [dt.datetime(2024, 1, 1) + dt.timedelta(hours=int(5 * k)) for k in i], pa.timestamp("us", "Asia/Tokyo")
        ),
        "time": pa.array([dt.time(int(k) % 24, 30) for k in i], pa.time64("us")),
    })  # fmt: skip


LABELS = {
    "words": np.array([("no", "yes")[k % 4 > 1] for k in range(ROWS)]),
    "truths": np.array([k % 4 > 1 for k in range(ROWS)]),
    "digits": np.array([("01", "02", "X9")[k % 3] for k in range(ROWS)]),
    "numbers": np.arange(ROWS) % 7 / 3,
}
Fitted = Callable[[str], tuple[Any, str]]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Return what gives an estimator fitted on the table and some labels, and its run folder."""
    made: dict[str, tuple[Any, str]] = {}

    def of(labels: str) -> tuple[Any, str]:
        if labels not in made:
            kind = AFMRegressor if labels == "numbers" else AFMClassifier
            columns = {"day as text": {"kind": "categorical"}}  # or a warning says that most of them are dates
            estimator = kind(**SETTINGS, columns=columns).fit(table().to_pandas(), pd.Series(LABELS[labels], name="y"))
            made[labels] = estimator, str(estimator.save(tmp_path_factory.mktemp("meaning") / "run"))
        return made[labels]

    return of


def scores(estimator: Any, X: object) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = getattr(estimator, "predict_proba", estimator.predict)(X)
    return found


@pytest.mark.parametrize("route", [route for route in MEMORY if route != "list of rows"])
@pytest.mark.parametrize("labels", LABELS)
def test_frames_mean_the_same_to_a_loaded_model(labels: str, route: str, fitted: Fitted, tmp_path: Path) -> None:
    estimator, folder = fitted(labels)
    X = MEMORY[route](table(), tmp_path)
    expected, again = scores(estimator, table()), load(folder)
    assert len(np.unique(expected.round(6))) > 10
    np.testing.assert_array_equal(scores(again, X), expected)
    np.testing.assert_array_equal(again.predict(X), estimator.predict(table()))
    explained, known = again.explain(X), estimator.explain(table())
    np.testing.assert_array_equal(explained.main, known.main)
    np.testing.assert_array_equal(explained.pair, known.pair)


@pytest.mark.parametrize("labels", LABELS)
def test_rows_mean_the_same_to_a_compiled_model(labels: str, fitted: Fitted) -> None:
    estimator, folder = fitted(labels)
    compiled, expected = compiled_of(folder), scores(estimator, table())
    np.testing.assert_allclose(compiled.predict_proba(table().to_pylist()), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(compiled.predict_proba(table().to_pydict()), expected, rtol=0, atol=1e-5)
    found, decided = compiled.predict(table().to_pylist()), estimator.predict(table())
    assert found.dtype.kind == decided.dtype.kind
    if labels == "numbers":
        np.testing.assert_allclose(found, decided, rtol=0, atol=1e-5)
    else:
        np.testing.assert_array_equal(found, decided)


@pytest.mark.parametrize("route", FILES)
@pytest.mark.parametrize("labels", LABELS)
def test_files_mean_the_same_to_the_command(
    labels: str, route: str, fitted: Fitted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    estimator, folder = fitted(labels)
    file = FILES[route](table().append_column("y", pa.array(LABELS[labels])), tmp_path)
    expected = scores(estimator, table())

    assert main(["predict", folder, file, "-o", str(tmp_path / "scores.parquet"), "-q"]) == 0
    written = open_source(tmp_path / "scores.parquet")
    told = pa.Table.from_batches(list(written.batches()))
    np.testing.assert_array_equal(told["prediction"].to_numpy(zero_copy_only=False), estimator.predict(table()))
    if "probability" in told.column_names:
        np.testing.assert_array_equal(told["probability"].to_numpy(), expected[:, 1])

    capsys.readouterr()
    assert main(["evaluate", folder, file, "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    if labels == "numbers":
        assert metrics["rmse"] == pytest.approx(float(np.sqrt(np.mean((expected - LABELS[labels]) ** 2))))
    else:
        assert metrics["accuracy"] == pytest.approx(float((estimator.predict(table()) == LABELS[labels]).mean()))

    assert main(["explain", folder, file, "--rows", "4", "--json"]) == 0
    told_rows = json.loads(capsys.readouterr().out)["rows"]
    logits = load_model(folder).logits(table())
    for one, expected_logits in zip(told_rows, logits, strict=False):
        told_logits = [account.get("logit", account.get("prediction")) for account in one["accounts"]]
        assert told_logits == pytest.approx(expected_logits.tolist(), abs=1e-5)


def test_labels_come_back_as_they_stood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    for name, (texts, labels) in {
        "padded": (("01", "02"), ["01", "02"]), "truths": (("False", "True"), [False, True]),
        "floats": (("0.0", "1.0"), [0.0, 1.0]), "signed": (("-1", "+1"), [-1, 1]), "whole": (("0", "1"), [0, 1]),
        "shouted": (("FALSE", "TRUE"), [False, True]), "mixed": (("01", "02", "X9"), ["01", "02", "X9"]),
    }.items():  # fmt: skip
        rows = [(k % 13, texts[k % len(texts)]) for k in range(ROWS)]
        (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{x},{label}\n" for x, label in rows))
        run, scored = str(tmp_path / name), tmp_path / "scores.csv"
        assert main(["train", str(tmp_path / "t.csv"), "--target", "y", "--out", run, "-q", "--no-report", *quick]) == 0
        assert main(["predict", run, str(tmp_path / "t.csv"), "-o", str(scored), "-q"]) == 0
        frame = pd.read_csv(scored, dtype=str)
        assert set(frame["prediction"]) <= set(texts), name
        assert list(frame.columns[2:]) == ([f"probability_{text}" for text in texts[1:]] if len(texts) > 2 else [])
        # In Python they have their types, and are the same decisions.
        model, estimator = load_model(run), load(run)
        assert estimator.classes_.tolist() == list(model.target.classes) == labels
        np.testing.assert_array_equal(estimator.predict({"x": [x for x, _ in rows]}), model.predict(tmp_path / "t.csv"))
        as_text = dict(zip(labels, texts, strict=True))
        assert [as_text[label] for label in model.predict(tmp_path / "t.csv")] == frame["prediction"].tolist()
        capsys.readouterr()
        assert main(["evaluate", run, str(tmp_path / "t.csv"), "--json"]) == 0
        accuracy = json.loads(capsys.readouterr().out)["metrics"]["accuracy"]
        assert accuracy == pytest.approx((frame["prediction"] == [label for _, label in rows]).mean())
        assert main(["report", run, "--data", str(tmp_path / "t.csv"), "-o", str(tmp_path / "report.html")]) == 0
