"""A run that is served, and one that is exported, say what the run says: the same to 1e-5, and the same decisions."""

import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attfm.model.run_folder import load_model
from tests.contract.conftest import FRAMES, TASKS, THRESHOLDS, Run
from tests.serve.client import Client

RunOf = Callable[..., Run]
each_face = pytest.mark.parametrize("origin", ["command", "estimator"])
CLOSE: Mapping[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


def in_json(value: Any) -> Any:
    """Return a value of a table as JSON has it."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value


def same_decisions(found: Any, run: Run) -> None:
    """Assert the decisions of a model, but where a rounding may change them."""
    model = load_model(run.folder)
    decided, shares = model.predict(run.X), model.predict_proba(run.X)
    if run.task == "regression":
        # Each adds up float32 of the size of the target, also where the sum is near 0.
        near = max(CLOSE["atol"], 1e-6 * float(np.abs(decided).max()))
        np.testing.assert_allclose(np.asarray(found, np.float64), decided, rtol=CLOSE["rtol"], atol=near)
        return
    top = np.sort(shares, axis=1)
    clear = np.abs(shares[:, 1] - run.threshold) > 1e-4 if run.task == "binary" else top[:, -1] - top[:, -2] > 1e-4
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(np.asarray(found)[clear], decided.astype(str)[clear])


@each_face
@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("task", TASKS)
def test_the_service_says_what_the_run_says(task: str, threshold: float, origin: str, run_of: RunOf) -> None:
    pytest.importorskip("fastapi", reason="attfm[serve] is not installed")
    pytest.importorskip("prometheus_client", reason="attfm[serve] is not installed")
    from attfm.serve.http.access_log import AccessLog
    from attfm.serve.http.app import create_app

    run = run_of(task, threshold, origin)
    log = io.StringIO()
    client = Client(create_app(run.folder, log=AccessLog(log)), log)
    try:
        rows = [{name: in_json(value) for name, value in row.items()} for row in run.X.to_pylist()]
        reply = client.post("/predict", {"rows": rows})
        assert reply.status == 200, reply.body
        told = reply.json()["predictions"]
        singles = client.all(*(("POST", "/predict", json.dumps({"row": row}).encode(), {}) for row in rows[:20]))
    finally:
        client.close()
    same_decisions([row["prediction"] for row in told], run)
    expected = load_model(run.folder).predict_proba(run.X)
    if task != "regression":
        shares = [[row["probability"]] if task == "binary" else list(row["probabilities"].values()) for row in told]
        np.testing.assert_allclose(shares, expected[:, 1:] if task == "binary" else expected, **CLOSE)
    for single, row in zip(singles, told, strict=False):
        assert json.dumps(single.json(), sort_keys=True) == json.dumps(row, sort_keys=True)


@each_face
@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("task", TASKS)
def test_the_exported_graph_says_what_the_run_says(
    task: str, threshold: float, origin: str, run_of: RunOf, tmp_path: Path
) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="attfm[onnx] is not installed")
    pytest.importorskip("onnx", reason="attfm[onnx] is not installed")
    from attfm.serve.onnx.graph import export_onnx
    from attfm.serve.raw_inputs import tensors_of

    run = run_of(task, threshold, origin)
    model = load_model(run.folder)
    file, _ = export_onnx(model, tmp_path / "model.onnx", check=False)
    session = runtime.InferenceSession(file)
    expected = model.predict_proba(run.X)
    for kind, frame in FRAMES.items():
        answers = session.run(None, tensors_of(model, frame(run.X)))
        named = dict(zip((output.name for output in session.get_outputs()), answers, strict=True))
        same_decisions(named["prediction"], run)
        if task != "regression":
            np.testing.assert_allclose(named["probabilities"], expected, **CLOSE, err_msg=kind)
