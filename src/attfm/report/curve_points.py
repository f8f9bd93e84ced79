"""The curves of a report, as points: ROC, precision and recall, calibration, and predictions against values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from attfm.metrics.intervals import calibration_points
from attfm.model.bundle import Model

Floats = NDArray[np.float64]
_POINTS, _DOTS, _BINS, _CLASSES = 200, 600, 10, 5


def curves(model: Model, target: NDArray[Any], scores: Floats) -> dict[str, Any]:
    """Return the curves that the task has; scores : probabilities (rows, classes), or predictions (rows,)."""
    return _CURVES[model.task.name](target, scores, model.task.class_names)


def _binary(target: NDArray[Any], scores: Floats, classes: Sequence[object]) -> dict[str, Any]:
    calibration = _calibration((target == 1).astype(np.float64), scores[:, 1])
    return _of_classes(target, scores, classes, [1]) | {"calibration": calibration}


def _multiclass(target: NDArray[Any], scores: Floats, classes: Sequence[object]) -> dict[str, Any]:
    """Return a curve of each of the most frequent classes against the rest, and the calibration of what is decided."""
    frequent = np.argsort(-np.bincount(target, minlength=len(classes)), kind="stable")[:_CLASSES].tolist()
    calibration = _calibration((scores.argmax(1) == target).astype(np.float64), scores.max(1))
    return _of_classes(target, scores, classes, frequent) | {"calibration": calibration}


def _regression(target: NDArray[Any], predicted: Floats, _: Sequence[object]) -> dict[str, Any]:
    return {"scatter": _scatter(target, predicted), "means": _means(target, predicted)}


def _of_classes(
    target: NDArray[Any], scores: Floats, classes: Sequence[object], codes: Sequence[int]
) -> dict[str, list[dict[str, Any]]]:
    """Return the ROC and precision-recall curves of the classes given that have rows in them and outside."""
    curves: dict[str, list[dict[str, Any]]] = {"roc": [], "pr": []}
    for code in codes:
        positive = target == code
        if not 0 < positive.sum() < len(positive):
            continue
        wrong, right, _ = roc_curve(positive, scores[:, code])
        precision, recall, _ = precision_recall_curve(positive, scores[:, code])
        name = str(classes[code])[:60]
        curves["roc"].append({"name": name, "points": _thinned(wrong, right)})
        curves["pr"].append({"name": name, "points": _thinned(recall, precision), "share": round(positive.mean(), 4)})
    return curves


def _calibration(hit: Floats, confidence: Floats) -> list[dict[str, float]]:
    """Return observed against predicted in bins of equal numbers of rows, with Wilson's 95 % interval."""
    mean, share, rows, low, high = calibration_points(hit, confidence, _BINS)
    columns = {"x": mean, "y": share, "rows": rows, "low": np.maximum(low, 0.0), "high": np.minimum(high, 1.0)}
    rounded = [[round(x, 4) for x in column.tolist()] for column in columns.values()]
    return [dict(zip(columns, point, strict=True)) for point in zip(*rounded, strict=True)]


def _scatter(target: Floats, predicted: Floats) -> list[list[float]]:
    kept = np.random.default_rng(0).permutation(len(target))[:_DOTS]
    return [[float(f"{predicted[r]:.5g}"), float(f"{target[r]:.5g}")] for r in kept]


def _means(target: Floats, predicted: Floats) -> list[list[float]]:
    """Return mean prediction and mean value in bins of equal numbers of rows, in the order of the predictions."""
    parts = np.array_split(np.argsort(predicted, kind="stable"), min(_BINS, len(target)))
    return [[float(f"{predicted[part].mean():.5g}"), float(f"{target[part].mean():.5g}")] for part in parts]


def _thinned(x: Floats, y: Floats) -> list[list[float]]:
    """Return at most some 200 points of a curve, evenly along its length; the ends stay."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    wanted = np.searchsorted(length, np.linspace(0, length[-1], _POINTS))
    kept = np.unique(np.concatenate([[0], np.minimum(wanted, len(x) - 1), [len(x) - 1]]))
    return [[round(float(x[p]), 4), round(float(y[p]), 4)] for p in kept]


_CURVES = {"binary": _binary, "multiclass": _multiclass, "regression": _regression}
