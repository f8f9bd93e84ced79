"""Metrics with bootstrap confidence intervals: all metrics of a task from weights of rows that are sorted once."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.config import TaskName

Floats = NDArray[np.float64]
Weighted = Callable[[Floats], dict[str, float]]
_WORK = 4_000_000  # rows times resamples
_LEAST, _MOST = 50, 300
_HALVINGS = 20  # of the bracket in which the calibration error's lower bound is sought
_BINS = 15  # of the calibration error, as in training's metrics


def with_intervals(
    task: TaskName, target: NDArray[Any], scores: Floats, weight: Floats, *, threshold: float = 0.5, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """Return the metrics of a task, each with the bounds of its 95 % interval: (value, low, high).

    The definitions are those of the metrics that training reports. The intervals are percentiles over 50 to 300
    resamples of the rows, widened to the value where that lies outside; of the calibration error, which both chance and
    resampling make larger, see `calibration_interval`. Rows of weight 0 count for nothing.

    Parameters
    ----------
    target : (rows,) class codes or values; weight : (rows,)
    scores : (rows, classes) probabilities, or (rows,) predictions of a regression
    threshold : of two classes, above which the second is decided
    """
    counted = weight > 0
    target, scores, weight = target[counted], scores[counted], weight[counted]
    measure: Weighted
    calibration: _Calibration | None = None
    if task == "regression":
        measure = _regression(target.astype(np.float64), scores)
    elif task == "binary":
        calibration = _Calibration(target.astype(np.float64), scores[:, 1])
        measure = _binary(target, scores[:, 1], threshold, calibration)
    else:
        calibration = _Calibration((scores.argmax(1) == target).astype(np.float64), scores.max(1))
        measure = _multiclass(target, scores, calibration)
    found = measure(weight)
    rows = len(target)
    rng = np.random.default_rng(seed)
    resamples = int(np.clip(_WORK // max(rows * (scores.shape[1] if task == "multiclass" else 1), 1), _LEAST, _MOST))
    draws, gaps = list[dict[str, float]](), list[Floats]()
    for _ in range(resamples):
        resampled = np.bincount(rng.integers(0, rows, rows), minlength=rows) * weight
        draws.append(measure(resampled))
        if calibration is not None:
            gaps.append(calibration.gaps(resampled))
    result = {}
    for name, value in found.items():
        drawn = np.array([draw[name] for draw in draws])
        drawn = drawn[np.isfinite(drawn)]
        if name == "calibration_error" and calibration is not None:
            low, high = calibration_interval(calibration.gaps(weight), np.array(gaps))
        elif len(drawn) and np.isfinite(value):
            low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
        else:
            low = high = value
        result[name] = (value, min(float(low), value), max(float(high), value))
    return result


def calibration_interval(gaps: Floats, resampled: Floats) -> tuple[float, float]:
    """Return a 95 % interval of the true Σ |gap| (the calibration error), which contains the measured one.

    The measured error is too large in the mean: where the true gaps are 0 it is the size of chance, and a resample's is
    too large twice over. So the lower bound is the smallest error with which the measured one would not be surprising:
    the measured gaps are shrunk towards 0, each by as many of its standard errors, and of each shrunken set it is asked
    whether the error measured lies above 97.5 % of those that it gives with the resamples' chance added. It is 0 where
    perfect calibration would not be surprising. Upwards the spread of the resamples is added to the measured error
    without any correction, which is on the safe side.

    Parameters
    ----------
    gaps : (bins,) (share of hits − mean confidence) times the bin's share of the rows
    resampled : (resamples, bins) the same of bootstrap resamples
    """
    value = float(np.abs(gaps).sum())
    chance = resampled - gaps
    error = np.maximum(chance.std(axis=0), 1e-12)

    def shrunk(by: float) -> Floats:
        return np.asarray(np.sign(gaps) * np.maximum(np.abs(gaps) - by * error, 0), np.float64)

    def surprising(by: float) -> bool:
        return bool(np.quantile(np.abs(shrunk(by) + chance).sum(1), 0.975) < value)

    small, large = 0.0, float((np.abs(gaps) / error).max())
    if surprising(large):
        for _ in range(_HALVINGS):
            middle = (small + large) / 2
            small, large = (small, middle) if surprising(middle) else (middle, large)
        low = float(np.abs(shrunk(small)).sum())
    else:
        low = 0.0
    least, half = np.quantile(np.abs(resampled).sum(1), (0.025, 0.5)).tolist()
    return low, value + half - least


def calibration_error(hit: Floats, confidence: Floats) -> float:
    """Return the expected calibration error over 15 bins of equal width, as in training's metrics; both (rows,)."""
    return _Calibration(hit, confidence).error(np.ones(len(hit)))


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


class _Calibration:
    """The gap between hits and confidence in bins of equal width."""

    def __init__(self, hit: Floats, confidence: Floats) -> None:
        self.which = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
        self.gap = hit - confidence

    def gaps(self, weight: Floats) -> Floats:
        """Return (bins,) the mean gap of each bin times its share of the weight."""
        return np.asarray(np.bincount(self.which, weight * self.gap, minlength=_BINS) / weight.sum(), np.float64)

    def error(self, weight: Floats) -> float:
        return float(np.abs(self.gaps(weight)).sum())


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _clipped_log(probability: Floats) -> Floats:
    eps = np.finfo(np.float64).eps
    return np.asarray(np.log(np.clip(probability, eps, 1 - eps)), np.float64)


def _binary(target: NDArray[Any], probability: Floats, threshold: float, calibration: _Calibration) -> Weighted:
    positive, decided = target == 1, probability > threshold
    ranked = _Ranked(positive, probability)
    loss = -np.where(positive, _clipped_log(probability), _clipped_log(1 - probability))
    square = (probability - target) ** 2

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
            "calibration_error": calibration.error(weight),
        }

    return measure


def _multiclass(target: NDArray[Any], probability: Floats, calibration: _Calibration) -> Weighted:
    classes = probability.shape[1]
    one_hot = np.eye(classes)[target]
    decided = probability.argmax(1)
    hit = decided == target
    loss = -_clipped_log(probability[np.arange(len(target)), target])
    square = ((probability - one_hot) ** 2).sum(1)
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
            "calibration_error": calibration.error(weight),
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
