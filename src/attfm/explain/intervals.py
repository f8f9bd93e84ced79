"""Metrics with bootstrap confidence intervals: all metrics of a task from weights of rows that are sorted once."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.config import Task

Floats = NDArray[np.float64]
Weighted = Callable[[Floats], dict[str, float]]
_WORK = 4_000_000  # rows times resamples
_LEAST, _MOST = 50, 300
_BINS = 15  # of the calibration error, as in training's metrics


def with_intervals(
    task: Task, target: NDArray[Any], scores: Floats, weight: Floats, *, threshold: float = 0.5, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """Return the metrics of a task, each with the bounds of its 95 % interval: (value, low, high).

    The definitions are those of the metrics that training reports. The intervals are percentiles over 50 to 300
    resamples of the rows; of the calibration error, which resampling makes larger, reflected at the value.

    Parameters
    ----------
    target : (rows,) class codes or values; weight : (rows,)
    scores : (rows, classes) probabilities, or (rows,) predictions of a regression
    threshold : of two classes, above which the second is decided
    """
    measure: Weighted
    if task == "regression":
        measure = _regression(target.astype(np.float64), scores)
    elif task == "binary":
        measure = _binary(target, scores[:, 1], threshold)
    else:
        measure = _multiclass(target, scores)
    found = measure(weight)
    rows = len(target)
    rng = np.random.default_rng(seed)
    resamples = int(np.clip(_WORK // max(rows * (scores.shape[1] if task == "multiclass" else 1), 1), _LEAST, _MOST))
    draws = [measure(np.bincount(rng.integers(0, rows, rows), minlength=rows) * weight) for _ in range(resamples)]
    result = {}
    for name, value in found.items():
        drawn = np.array([draw[name] for draw in draws])
        drawn = drawn[np.isfinite(drawn)]
        low, high = np.quantile(drawn, (0.025, 0.975)).tolist() if len(drawn) else (np.nan, np.nan)
        if name == "calibration_error":
            low, high = max(2 * value - high, 0.0), max(2 * value - low, 0.0)
        result[name] = (value, float(low), float(high))
    return result


def area_under_roc(positive: NDArray[np.bool_], score: Floats, weight: Floats | None = None) -> float:
    """Return the area under the ROC curve, NaN with one class only; all arguments (rows,)."""
    return _Ranked(positive, score).area(np.ones(len(score)) if weight is None else weight)


class _Ranked:
    """Rows by falling score, with the places where a run of equal scores ends."""

    def __init__(self, positive: NDArray[np.bool_], score: Floats) -> None:
        self.order = np.argsort(-score, kind="stable")
        self.positive = positive[self.order]
        self.ends = np.append(np.flatnonzero(np.diff(score[self.order])), len(score) - 1)

    def counts(self, weight: Floats) -> tuple[Floats, Floats]:
        """Return the weights of the positive and negative rows above each threshold, from none to all."""
        sorted_weight = weight[self.order]
        right = np.cumsum(sorted_weight * self.positive)[self.ends]
        wrong = np.cumsum(sorted_weight)[self.ends] - right
        return np.concatenate([[0.0], right]), np.concatenate([[0.0], np.maximum(wrong, 0)])

    def area(self, weight: Floats) -> float:
        right, wrong = self.counts(weight)
        whole = right[-1] * wrong[-1]
        return float((np.diff(wrong) * (right[1:] + right[:-1])).sum() / 2 / whole) if whole > 0 else float("nan")

    def average_precision(self, weight: Floats) -> float:
        right, wrong = self.counts(weight)
        if right[-1] <= 0 or wrong[-1] <= 0:
            return float("nan")
        precision = right[1:] / np.maximum(right[1:] + wrong[1:], 1e-300)
        return float((np.diff(right) * precision).sum() / right[-1])


def _calibration(hit: Floats, confidence: Floats) -> Callable[[Floats], float]:
    which = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    gap = hit - confidence
    return lambda weight: float(np.abs(np.bincount(which, weight * gap)).sum() / weight.sum())


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _clipped_log(probability: Floats) -> Floats:
    eps = np.finfo(np.float64).eps
    return np.asarray(np.log(np.clip(probability, eps, 1 - eps)), np.float64)


def _binary(target: NDArray[Any], probability: Floats, threshold: float) -> Weighted:
    positive, decided = target == 1, probability > threshold
    ranked = _Ranked(positive, probability)
    loss = -np.where(positive, _clipped_log(probability), _clipped_log(1 - probability))
    square, calibration = (probability - target) ** 2, _calibration(target.astype(np.float64), probability)

    def measure(weight: Floats) -> dict[str, float]:
        hits = float(weight[positive & decided].sum())
        precision = _share(hits, float(weight[decided].sum()))
        recall = _share(hits, float(weight[positive].sum()))
        return {
            "accuracy": float(np.average(positive == decided, weights=weight)),
            "precision": precision,
            "recall": recall,
            "f1": _share(2 * precision * recall, precision + recall),
            "auc": ranked.area(weight),
            "average_precision": ranked.average_precision(weight),
            "log_loss": float(np.average(loss, weights=weight)),
            "brier": float(np.average(square, weights=weight)),
            "calibration_error": calibration(weight),
        }

    return measure


def _multiclass(target: NDArray[Any], probability: Floats) -> Weighted:
    classes = probability.shape[1]
    one_hot = np.eye(classes)[target]
    decided = probability.argmax(1)
    hit = decided == target
    loss = -_clipped_log(probability[np.arange(len(target)), target])
    square = ((probability - one_hot) ** 2).sum(1)
    calibration = _calibration(hit.astype(np.float64), probability.max(1))
    ranked = [_Ranked(target == c, probability[:, c]) for c in range(classes)]

    def measure(weight: Floats) -> dict[str, float]:
        hits = np.bincount(target[hit], weight[hit], minlength=classes)
        precision = hits / np.maximum(np.bincount(decided, weight, minlength=classes), 1e-300)
        recall = hits / np.maximum(np.bincount(target, weight, minlength=classes), 1e-300)
        areas = [one.area(weight) for one in ranked]
        precisions = [one.average_precision(weight) for one in ranked]
        occurring = [c for c in range(classes) if np.isfinite(areas[c])]
        return {
            "accuracy": float(np.average(hit, weights=weight)),
            "precision": float(precision.mean()),
            "recall": float(recall.mean()),
            "f1": float((2 * precision * recall / np.maximum(precision + recall, 1e-300)).mean()),
            "auc": float(np.mean([areas[c] for c in occurring])) if occurring else float("nan"),
            "average_precision": float(np.mean([precisions[c] for c in occurring])) if occurring else float("nan"),
            "log_loss": float(np.average(loss, weights=weight)),
            "brier": float(np.average(square, weights=weight)),
            "calibration_error": calibration(weight),
        }

    return measure


def _regression(target: Floats, prediction: Floats) -> Weighted:
    error = target - prediction

    def measure(weight: Floats) -> dict[str, float]:
        mean = np.average(target, weights=weight)
        spread = float(np.average((target - mean) ** 2, weights=weight))
        square = float(np.average(error**2, weights=weight))
        return {
            "rmse": float(np.sqrt(square)),
            "mae": float(np.average(np.abs(error), weights=weight)),
            "r2": 1 - square / spread if spread > 0 else float("nan"),
        }

    return measure
