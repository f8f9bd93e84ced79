"""The ONNX export says what the model says: every kind of column, preset, task and calibration."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from attfm.data.batch import Batch
from attfm.errors import ConfigError, MissingExtraError, RunFolderError
from attfm.model.bundle import Model
from attfm.model.calibration import Calibration
from attfm.model.terms import terms_of
from attfm.serve.onnx import graph as front
from attfm.serve.onnx.check import Session, compare
from attfm.serve.onnx.graph import export_onnx, read_card
from attfm.serve.onnx.probe_rows import probe_rows
from attfm.serve.raw_inputs import NO_WHOLE_NUMBER, tensors_of
from tests.serve.made import PLAIN, isotonic, made_model, table

pytest.importorskip("onnx", reason="onnx is not installed: pip install 'attfm[onnx]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'attfm[onnx]'")

SIGMOID = Calibration(kind="sigmoid", rows=9, slope=(0.7,), offset=(0.2,))
MODELS: dict[str, dict[str, Any]] = {
    "binary": {"memory": True},
    "several classes, ensemble": {"task": "multiclass", "members": 2, "memory": True},
    "regression": {"task": "regression", "memory": True},
    "paper": {"preset": "paper", "calibration": SIGMOID},
    "fwfm": {"preset": "fwfm", "memory": True, "columns": PLAIN},
    "fm, isotonic": {"preset": "fm", "calibration": isotonic(), "columns": (*PLAIN, "width")},
    "linear": {"preset": "linear", "columns": ("job", "age")},
    "several classes, isotonic": {"task": "multiclass", "calibration": isotonic(3), "columns": ("job", "age", "tags")},
    "one column": {"columns": ("langs",), "preset": "linear"},
    "bags alone": {"columns": ("langs", "weighted", "tags")},
}


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> Model:
    """Return each model in turn."""
    return made_model(**MODELS[request.param])


@pytest.mark.filterwarnings("ignore::attfm.DataWarning")
def test_made_up_rows_have_the_models_scores(model: Model, tmp_path: Path) -> None:
    file, _ = export_onnx(model, tmp_path / "model.onnx", check=False)
    assert compare(model, file, read_card(file), probe_rows(model, 1000, seed=1)).difference <= 1e-5
    rows = table(200, seed=8).select([column.name for column in model.schema.inputs])
    assert compare(model, file, read_card(file), rows).good
    found = Session(file).run(tensors_of(model, rows))
    if model.task.is_classification:
        assert found["prediction"].tolist() == model.predict(rows).tolist()
        np.testing.assert_allclose(found["logits"], model.logits(rows), rtol=1e-5, atol=1e-5)


def test_an_export_is_compared_on_ten_thousand_rows(tmp_path: Path) -> None:
    _, agreement = export_onnx(made_model(memory=True), tmp_path / "model.onnx")
    assert agreement is not None
    assert agreement.rows == 10_000
    assert agreement.difference <= 1e-5


@pytest.mark.filterwarnings("ignore::attfm.DataWarning")
def test_effects_are_the_terms_and_add_up(model: Model, tmp_path: Path) -> None:
    file, _ = export_onnx(model, tmp_path / "model.onnx", effects=True, check=False)
    rows = probe_rows(model, 200, seed=2)
    found = Session(file).run(tensors_of(model, rows))
    terms = terms_of(model.module, Batch.concatenate([part.batch for part in model.encode(model.open(rows))]))
    unit = 40 if model.task.name == "regression" else 1
    np.testing.assert_allclose(found["main_effects"], terms.main, rtol=1e-5, atol=1e-5 * unit)
    np.testing.assert_allclose(found["intercept"], terms.intercept, rtol=1e-6)
    total = found["intercept"] + found["main_effects"].sum(1)
    if model.module.has_pairs:
        np.testing.assert_allclose(found["pair_effects"], terms.pair, rtol=1e-4, atol=2e-5 * unit)
        total = total + found["pair_effects"].sum(1)
    logits = found["logits"] if model.task.is_classification else found["prediction"][:, None]
    np.testing.assert_allclose(total, logits, rtol=1e-5, atol=1e-4 * unit)
    told = read_card(file)["effects"]
    assert told["main"] == [field.name for field in model.encoder.fields]
    assert len(told["pair"]) == (found["pair_effects"].shape[1] if model.module.has_pairs else 0)


@pytest.mark.parametrize("name", ["binary", "fm, isotonic", "one column", "bags alone"])
def test_encoded_rows_have_the_models_scores(name: str, tmp_path: Path) -> None:
    model = made_model(**MODELS[name])
    file, _ = export_onnx(model, tmp_path / "model.onnx", ids=True, check=False)
    assert compare(model, file, read_card(file), probe_rows(model, 500, seed=1)).difference <= 1e-5


def test_any_number_of_rows(tmp_path: Path) -> None:
    model = made_model(memory=True)
    session = Session(export_onnx(model, tmp_path / "model.onnx", check=False)[0])
    tensors = tensors_of(model, table(50))
    whole = session.run(tensors)["probabilities"]
    for rows in (0, 1, 33):
        some = session.run({name: array[:rows] for name, array in tensors.items()})["probabilities"]
        assert some.shape == (rows, 2)
        np.testing.assert_allclose(some, whole[:rows], atol=1e-6)


def test_tensors_made_without_attfm(tmp_path: Path) -> None:
    model = made_model(columns=("job", "age", "town", "size", "member", "langs", "started"))
    session = Session(export_onnx(model, tmp_path / "model.onnx", check=False)[0])
    raw = {
        "job": np.array(["cook", None, "NA", float("nan"), "never"], object),
        "age": np.array([40.5, np.nan, -1e300, 1e300, 0]),
        "town": np.array([2**60, NO_WHOLE_NUMBER, 2**60 + 1, 5, 2**60 + 3]),
        "size": np.array([0.1, np.nan, 7e10, 1.5, -0.0]),
        "member": np.array([True, False, None, "TRUE", "0"], object),
        "langs": np.array(["a|b", "", "b|zz|b", "|", "d"], object),
        "started": np.array(["2010-02-28T23", "NaT", "1960-02-29", "2400-12-31T01", "2011-03-01"], "datetime64[s]"),
    }
    told = {card["name"]: card for card in read_card(tmp_path / "model.onnx")["inputs"]}
    assert told["town"]["missing"] == str(NO_WHOLE_NUMBER)
    assert told["started"]["type"] == "int64"
    rows = pa.table({
        "job": ["cook", None, None, None, "never"], "age": [40.5, None, -1e300, 1e300, 0],
        "town": [2**60, None, 2**60 + 1, 5, 2**60 + 3], "size": [0.1, None, 7e10, 1.5, 0.0],
        "member": [True, False, None, True, False], "langs": raw["langs"].tolist(),
        "started": pa.array(raw["started"]),
    })  # fmt: skip
    found = session.run({**raw, "started": raw["started"].astype("int64")})
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(rows), atol=1e-5)
    assert len(np.unique(found["logits"])) == 5


def test_a_number_that_means_missing(tmp_path: Path) -> None:
    data = table().select(["job", "age", "town"])
    model = made_model(data=data)
    reading = model.schema.reading.model_copy(update={"null_values": ("-999", "?")})
    schema = model.schema.model_copy(update={"reading": reading})
    model = Model(schema, type(model.encoder)(schema, model.encoder.parts[1]), model.target, model.module, model.config)
    session = Session(export_onnx(model, tmp_path / "model.onnx")[0])
    raw = {"job": np.array(["?", "nan"], object), "age": np.array([-999.0, np.nan]), "town": np.array([-999, 7])}
    rows = pa.table({"job": [None, None], "age": pa.nulls(2, pa.float64()), "town": pa.array([None, 7], pa.int64())})
    np.testing.assert_allclose(session.run(raw)["probabilities"], model.predict_proba(rows), atol=1e-5)


def test_what_can_not_be_expressed_names_the_column(tmp_path: Path) -> None:
    hashed = made_model(columns=("job", "age"), settings={"job": {"kind": "categorical", "hash_buckets": 50}})
    with pytest.raises(ConfigError, match=r"Column 'job' is hashed into 50 buckets, .* or export with --ids"):
        export_onnx(hashed, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
    _, agreement = export_onnx(hashed, tmp_path / "model.onnx", ids=True)
    assert agreement is not None
    assert agreement.good


def test_outputs_make_way_for_columns_of_their_name(tmp_path: Path) -> None:
    data = table().select(["job", "age"]).rename_columns(["probabilities", "Add_1"])
    model = made_model(data=data)
    file, agreement = export_onnx(model, tmp_path / "model.onnx")
    assert agreement is not None
    assert agreement.good
    assert read_card(file)["outputs"]["probabilities"] == "probabilities_"


def test_another_graph_is_not_the_one_that_was_written(tmp_path: Path) -> None:
    import onnx

    file, _ = export_onnx(made_model(columns=("job", "age")), tmp_path / "model.onnx", check=False)
    card = read_card(file)
    assert card["schema"]["columns"][0]["name"] == "job"
    proto = onnx.load(file)
    proto.graph.initializer[0].name += "x"
    onnx.save(proto, file)
    with pytest.raises(RunFolderError, match="not the one that was written"):
        read_card(file)
    file.write_bytes(b"no model")
    with pytest.raises(RunFolderError, match="is not an ONNX file that attfm wrote"):
        read_card(file)


def test_an_export_that_is_wrong_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = made_model(columns=("job", "age")), made_model(columns=("job", "age"), preset="fm")
    wrong = front.onnx_model(other, front.Asked())
    monkeypatch.setattr(front, "onnx_model", lambda *_: wrong)
    with pytest.raises(front.AttfmError, match="The export differs from the model by"):
        export_onnx(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_the_command_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"pip install \"attfm\[onnx\]\""):
        export_onnx(made_model(columns=("job", "age")), tmp_path / "model.onnx")
