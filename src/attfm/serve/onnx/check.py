"""An export beside its model: the same rows through onnxruntime and through `predict_proba`."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.data.batch import Batch
from attfm.errors import DataWarning, MissingExtraError
from attfm.model.bundle import Model
from attfm.model.ensemble import members_of
from attfm.serve.onnx.columns import PAD
from attfm.serve.onnx.probe_rows import probe_rows
from attfm.serve.raw_inputs import raw_inputs, tensors_of

MOST_DIFFERENCE = 1e-5
ROWS = 10_000
_CHUNK = 1024  # rows at once: bounds the memory of the pair vectors


@dataclass(frozen=True)
class Agreement:
    """How far an export is from its model.

    Attributes
    ----------
    rows : int, that were compared
    difference : float
        The largest one, of a probability; of a regression's prediction in deviations of the target, or as a share of
        the prediction where that is larger. By isotonic curves, which may jump, that of a logit, likewise.
    """

    rows: int
    difference: float

    @property
    def good(self) -> bool:
        """Whether no difference is larger than 1e-5."""
        return self.difference <= MOST_DIFFERENCE


def require_onnxruntime() -> ModuleType:
    """Return the package onnxruntime; raise MissingExtraError where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime is not installed: run 'pip install \"attfm[onnx]\"'.") from None
    package: ModuleType = onnxruntime
    return package


class Session:
    """An exported file in onnxruntime, on tables."""

    def __init__(self, file: str | Path) -> None:
        runtime = require_onnxruntime()
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors only
        self._session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self._session.get_outputs()]

    def run(self, tensors: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs by name, chunk by chunk."""
        rows = len(next(iter(tensors.values())))
        parts = [
            self._session.run(self.outputs, {name: array[start : start + _CHUNK] for name, array in tensors.items()})
            for start in range(0, max(rows, 1), _CHUNK)
        ]
        joined: dict[str, NDArray[Any]] = {
            name: column[0] if name == "intercept" else np.concatenate(column)
            for name, column in zip(self.outputs, zip(*parts, strict=True), strict=True)
        }
        return joined


def compare(model: Model, file: str | Path, card: dict[str, Any], data: object = None) -> Agreement:
    """Return how far an export is from its model on a table's rows, or on 10,000 that are made up."""
    table = probe_rows(model, ROWS) if data is None else data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # made-up values are unknown, as they are meant to be
        return _compared(model, file, card, table)


def _compared(model: Model, file: str | Path, card: dict[str, Any], table: object) -> Agreement:
    expected = model.predict_proba(table)
    outputs = Session(file).run(id_tensors_of(model, table) if "fields" in card else tensors_of(model, table))
    names = card["outputs"]
    if not model.task.is_classification:
        unit = max(float(machine.target_std.max()) for machine in members_of(model.module))
        differences = np.abs(outputs[names["prediction"]] - expected) / np.maximum(unit, np.abs(expected))
    elif model.calibration.curves:
        logits = model.logits(table)
        differences = np.abs(outputs[names["logits"]] - logits) / np.maximum(1, np.abs(logits))
        bent = model.task.scores(outputs[names["logits"]].astype(np.float64))
        differences = np.concatenate([differences.ravel(), np.abs(outputs[names["probabilities"]] - bent).ravel()])
    else:
        differences = np.abs(outputs[names["probabilities"]] - expected)
    return Agreement(len(expected), float(np.max(differences, initial=0.0)))


def id_tensors_of(model: Model, data: object) -> dict[str, NDArray[Any]]:
    """Return a table as the inputs of an export with `ids`: features, and what multiplies them where it is not 1."""
    batch = Batch.concatenate([rows.batch for rows in model.encode(model.open(data))])
    fields, tensors = model.encoder.fields, dict[str, NDArray[Any]]()
    features = [batch.field(f) for f in range(len(fields))]
    single = [f for f, field in enumerate(fields) if field.kind != "multi-valued"]
    if single:
        tensors["ids"] = np.stack([features[f].ids for f in single], 1).astype(np.int64)
    if any(fields[f].kind == "scaled" for f in single):
        ones = np.ones(len(batch), np.float32)
        x = [ones if (values := features[f].values) is None else values for f in single]
        tensors["values"] = np.stack(x, 1)
    weighted = {raw.name for raw in raw_inputs(model) if raw.form == "weighted"}
    for f in sorted(set(range(len(fields))) - set(single)):
        own, name = features[f], fields[f].name
        counts = np.ones(len(batch), np.int64) if own.counts is None else own.counts
        place = np.arange(len(own.ids)) - np.repeat(np.cumsum(counts) - counts, counts)
        ids = np.full((len(batch), int(counts.max(initial=1))), PAD, np.int64)
        ids[own.rows, place] = own.ids
        tensors[f"ids of {name}"] = ids
        if fields[f].column in weighted:
            weights = np.zeros(ids.shape, np.float32)
            weights[own.rows, place] = 1 if own.values is None else own.values
            tensors[f"values of {name}"] = weights
    return tensors
