"""The MLflow flavour, with the real package and a store of local files."""

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from attfm import AFMClassifier, AFMRegressor
from attfm import mlflow as flavor
from attfm.errors import ConfigError, MissingExtraError, RunFolderError
from attfm.model.run_folder import load_model as load_run

REASON = "mlflow is not installed: pip install 'attfm[mlflow]'"
FAST: dict[str, Any] = {"epochs": 2, "dim": 2, "attention_dim": 2, "n_models": 1}


def frame(rows: int = 60) -> pd.DataFrame:
    """Return a table with a column of each type."""
    rng = np.random.default_rng(0)
    days = [datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=9 * n) for n in range(rows)]
    return pd.DataFrame({
        "job": rng.choice(["cook", "clerk", "pilot"], rows), "age": rng.integers(18, 80, rows),
        "height": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(170, 9, rows)), "member": rng.random(rows) < 0.5,
        "started": days, "tags": [["a", "b"][: n % 3] for n in range(rows)],
    })  # fmt: skip


def labels(data: pd.DataFrame) -> np.ndarray[Any, Any]:
    return np.where(data["age"] + 20 * (data["job"] == "pilot") > 55, "yes", "no")


@pytest.fixture(scope="module")
def fitted() -> AFMClassifier:
    return AFMClassifier(**FAST, threshold=0.4).fit(frame(), labels(frame()))


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return mlflow with a store of files of its own."""
    package = pytest.importorskip("mlflow", reason=REASON)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    before = package.get_tracking_uri()
    package.set_tracking_uri((tmp_path / "store").as_uri())
    yield package
    package.set_tracking_uri(before)


def test_a_saved_model_is_the_same(fitted: AFMClassifier, mlflow: Any, tmp_path: Path) -> None:
    flavor.save_model(fitted, tmp_path / "model", metadata={"team": "risk"})
    again = flavor.load_model(str(tmp_path / "model"))
    np.testing.assert_array_equal(again.predict_proba(frame()), fitted.predict_proba(frame()))
    assert not [path for path in (tmp_path / "model").rglob("*") if path.suffix in (".pkl", ".pickle")]
    assert f"attfm=={flavor.version('attfm')}" in (tmp_path / "model" / "requirements.txt").read_text()

    scores = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert scores.metadata.metadata == {"team": "risk"}
    found = scores.predict(frame())
    assert list(found) == ["prediction", "probability"]
    np.testing.assert_array_equal(found["probability"], fitted.predict_proba(frame())[:, 1])
    np.testing.assert_array_equal(found["prediction"], fitted.predict(frame()))
    strict = scores.predict(frame(), params={"threshold": 0.9})
    np.testing.assert_array_equal(strict["prediction"], np.where(found["probability"] > 0.9, "yes", "no"))


def test_the_signature_is_the_schema(fitted: AFMClassifier, mlflow: Any) -> None:
    signature = flavor.signature_of(fitted.model_)
    inputs = {column["name"]: column["type"] for column in json.loads(signature.to_dict()["inputs"])}
    assert inputs == {
        "job": "string", "age": "long", "height": "double", "member": "boolean", "started": "datetime", "tags": "array",
    }  # fmt: skip
    outputs = {column["name"]: column["type"] for column in json.loads(signature.to_dict()["outputs"])}
    assert outputs == {"prediction": "string", "probability": "double"}
    assert json.loads(signature.to_dict()["params"])[0]["default"] == 0.4


def test_tables_that_do_not_fit_the_signature_are_refused(fitted: AFMClassifier, mlflow: Any, tmp_path: Path) -> None:
    flavor.save_model(fitted, tmp_path / "model")
    scores = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    with pytest.raises(mlflow.exceptions.MlflowException, match="age"):
        scores.predict(frame().drop(columns="age"))


def test_whole_numbers_with_gaps_pass(mlflow: Any, tmp_path: Path) -> None:
    data = frame()[["job"]].assign(shop=pd.array([None if n % 7 == 0 else n % 5 for n in range(60)], "Int64"))
    model = AFMClassifier(**FAST, columns={"shop": {"kind": "categorical"}}).fit(data, labels(frame()))
    flavor.save_model(model, tmp_path / "model")
    scores = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    expected = model.predict_proba(data)[:, 1]
    for same in (data, data.assign(shop=data["shop"].astype("float64"))):
        np.testing.assert_array_equal(scores.predict(same)["probability"], expected)


@pytest.mark.filterwarnings("ignore:Operation with range is deprecated")  # of pandas, of what mlflow does
@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_a_model_is_logged_and_loaded(task: str, mlflow: Any, tmp_path: Path) -> None:
    data = frame()[["job", "age"]]
    if task == "regression":
        model: Any = AFMRegressor(**FAST).fit(data, data["age"] * 2.5)
    else:
        model = AFMClassifier(**FAST).fit(data, data["job"].to_numpy())
    model.save(tmp_path / "run")
    with mlflow.start_run():
        info = flavor.log_model(load_run(tmp_path / "run"), name="shop", input_example=data.head(3))
    assert info.flavors["attfm"]["task"] == task
    again = flavor.load_model(info.model_uri)
    np.testing.assert_array_equal(again.predict(data), model.predict(data))
    found = mlflow.pyfunc.load_model(info.model_uri).predict(data)
    np.testing.assert_array_equal(found["prediction"], model.predict(data))
    assert [path.name for path in Path().iterdir() if path.name == "mlruns"] == []


def test_a_damaged_run_folder_is_not_loaded(fitted: AFMClassifier, mlflow: Any, tmp_path: Path) -> None:
    flavor.save_model(fitted, tmp_path / "model")
    weights = tmp_path / "model" / "run" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(RunFolderError, match="is not what was saved"):
        flavor.load_model(str(tmp_path / "model"))


def test_what_is_no_model_is_refused_and_nothing_stays(mlflow: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="A dict is no model of attfm"):
        flavor.save_model({}, tmp_path / "model")  # type: ignore[arg-type]
    with pytest.raises(Exception, match="not fitted"):
        flavor.save_model(AFMClassifier(), tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"path": None}, "path is None: give the path of the folder to save the model in"),
        ({"path": 3}, "path is 3: give the path"),
        ({"path": "file"}, "Can't write a model to 'file': Not a directory. Give another folder"),
        ({"path": "file/below"}, "Can't write a model to 'file/below': Not a directory"),
        ({"signature": "age"}, "signature is 'age': give a mlflow.models.ModelSignature, or leave it out"),
        ({"metadata": ["risk"]}, r"metadata is \['risk'\]: give a dict"),
    ],
)
def test_options_of_another_type_are_refused(
    options: dict[str, Any], told: str, fitted: AFMClassifier, mlflow: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("taken")
    with pytest.raises(ConfigError, match=told):
        flavor.save_model(fitted, **{"path": "model", **options})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_loaded_or_signed_is_named(fitted: AFMClassifier, mlflow: Any, tmp_path: Path) -> None:
    for wrong in (None, 3):
        with pytest.raises(ConfigError, match=f"model_uri is {wrong}: give the path of a saved model"):
            flavor.load_model(wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="A NoneType is no model of attfm"):
        flavor.signature_of(None)  # type: ignore[arg-type]
    assert flavor.signature_of(fitted) == flavor.signature_of(fitted.model_)
    flavor.save_model(fitted, tmp_path / "model")
    assert flavor.load_model(tmp_path / "model").threshold == 0.4


def test_without_the_package_the_command_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(MissingExtraError, match=r"pip install \"attfm\[mlflow\]\""):
        flavor.load_model(str(tmp_path))
