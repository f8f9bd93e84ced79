"""Metrics with bootstrap confidence intervals: all metrics of a task from weights of rows that are sorted once."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.config import TaskName
from attfm.metrics.scores import CalibrationGaps

Floats = NDArray[np.float64]
_WORK = 4_000_000  # rows times resamples
_LEAST, _MOST = 50, 300
_HALVINGS = 20  # of the bracket in which the calibration error's lower bound is sought


def with_intervals(
    task: TaskName, target: NDArray[Any], scores: Floats, weight: Floats, *, threshold: float = 0.5, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """Return the metrics of a task, each with the bounds of its 95 % interval: (value, low, high).

    The definitions are those of the metrics that training reports (`attfm.metrics.scores`), from weights, so that a
    resample needs no sorting. The intervals are percentiles over 50 to 300 resamples of the rows, widened to the value
    where that lies outside; of the calibration error, which both chance and resampling make larger, see
    `calibration_interval`. Rows of weight 0 count for nothing.
    """
    counted = weight > 0
    target, scores, weight = target[counted], scores[counted], weight[counted]
    metrics = _METRICS[task](target, scores, threshold)
    values = metrics.measure(weight)
    rows = len(target)
    rng = np.random.default_rng(seed)
    resamples = int(np.clip(_WORK // max(rows * metrics.sorted_columns, 1), _LEAST, _MOST))
    draws, gaps = list[dict[str, float]](), list[Floats]()
    for _ in range(resamples):
        resampled = np.bincount(rng.integers(0, rows, rows), minlength=rows) * weight
        draws.append(metrics.measure(resampled))
        if metrics.calibration is not None:
            gaps.append(metrics.calibration.gaps(resampled))
    result = {}
    for name, value in values.items():
        drawn = np.array([draw[name] for draw in draws])
        drawn = drawn[np.isfinite(drawn)]
        if name == "calibration_error" and metrics.calibration is not None:
            low, high = calibration_interval(metrics.calibration.gaps(weight), np.array(gaps))
        elif len(drawn) and np.isfinite(value):
            low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
        else:
            low = high = value
        result[name] = (value, min(float(low), value), max(float(high), value))
    return result


def calibration_interval(gaps: Floats, resampled: Floats) -> tuple[float, float]:
    """Return a 95 % interval of the true Σ |gap| (the calibration error), which contains the measured one.

    The gaps are (bins,), see `CalibrationGaps.gaps`; `resampled` are those of bootstrap resamples, (resamples, bins).

    The measured error is too large in the mean: where the true gaps are 0 it is the size of chance, and a resample's is
    too large twice over. So the lower bound is the smallest error with which the measured one would not be surprising:
    the measured gaps are shrunk towards 0, each by as many of its standard errors, and of each shrunken set it is asked
    whether the error measured lies above 97.5 % of those that it gives with the resamples' chance added. It is 0 where
    perfect calibration would not be surprising. Upwards the spread of the resamples is added to the measured error
    without any correction, which is on the safe side.
    """
    value = float(np.abs(gaps).sum())
    chance = resampled - gaps
    error = np.maximum(chance.std(axis=0), 1e-12)

    def shrunk(by: float) -> Floats:
        return np.asarray(np.sign(gaps) * np.maximum(np.abs(gaps) - by * error, 0), np.float64)

    def surprising(by: float) -> bool:
        return bool(np.quantile(np.abs(shrunk(by) + chance).sum(1), 0.975) < value)

    low, small, large = 0.0, 0.0, float((np.abs(gaps) / error).max())
    if surprising(large):
        for _ in range(_HALVINGS):
            middle = (small + large) / 2
            small, large = (small, middle) if surprising(middle) else (middle, large)
        low = float(np.abs(shrunk(small)).sum())
    least, half = np.quantile(np.abs(resampled).sum(1), (0.025, 0.5)).tolist()
    return low, value + half - least


def wilson(shares: Any, counts: Any, z: float = 1.96) -> tuple[Any, Any]:
    """Return the bounds of Wilson's 95 % interval of shares of `counts` rows; numbers or arrays."""
    centre = (shares + z**2 / (2 * counts)) / (1 + z**2 / counts)
    half = z * np.sqrt(shares * (1 - shares) / counts + z**2 / (4 * counts**2)) / (1 + z**2 / counts)
    return centre - half, centre + half


def calibration_points(hit: Floats, confidence: Floats, bins: int) -> tuple[Any, ...]:
    """Return mean confidence, share of hits, rows and Wilson's 95 % bounds in bins of equal numbers of rows."""
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(hit)))
    means, shares = (np.array([values[part].mean() for part in parts]) for values in (confidence, hit))
    counts = np.array([len(part) for part in parts])
    return means, shares, counts, *wilson(shares, counts)


def area_under_roc(positive: NDArray[np.bool_], score: Floats) -> float:
    """Return the area under the ROC curve, NaN with one class only; both arguments (rows,)."""
    return _Ranked(positive, score).area(np.ones(len(score)))


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


class _Classification:
    """The metrics of class decisions.

    Target and decided are class codes, int64 (rows,); precision, recall, areas and squares are averaged over the
    classes in `averaged`.
    """

    def __init__(
        self, target: NDArray[np.int64], decided: NDArray[np.int64], probability: Floats, averaged: Sequence[int],
        calibration: CalibrationGaps,
    ) -> None:  # fmt: skip
        self._target, self._decided, self._averaged = target, decided, averaged
        self._classes = probability.shape[1]
        self._hit = decided == target
        eps = np.finfo(np.float64).eps
        self._loss = -np.log(np.clip(probability[np.arange(len(target)), target], eps, 1 - eps))
        self._square = ((probability - np.eye(self._classes)[target])[:, averaged] ** 2).sum(1)
        self._ranked = [_Ranked(target == c, probability[:, c]) for c in averaged]
        self.calibration = calibration
        self.sorted_columns = len(averaged)

    def measure(self, weight: Floats) -> dict[str, float]:
        """Return the metrics by name; weight : (rows,)."""
        hits = self._of_class(self._target[self._hit], weight[self._hit])
        precision = hits / np.maximum(self._of_class(self._decided, weight), 1e-300)
        recall = hits / np.maximum(self._of_class(self._target, weight), 1e-300)
        return {
            "accuracy": float(np.average(self._hit, weights=weight)),
            "precision": float(precision.mean()),
            "recall": float(recall.mean()),
            "f1": float((2 * precision * recall / np.maximum(precision + recall, 1e-300)).mean()),
            "auc": _mean_of_finite([ranked.area(weight) for ranked in self._ranked]),
            "average_precision": _mean_of_finite([ranked.average_precision(weight) for ranked in self._ranked]),
            "log_loss": float(np.average(self._loss, weights=weight)),
            "brier": float(np.average(self._square, weights=weight)),
            "calibration_error": self.calibration.error(weight),
        }

    def _of_class(self, codes: NDArray[np.int64], weight: Floats) -> Floats:
        sums = np.bincount(codes, weight, minlength=self._classes)
        return np.asarray(sums[self._averaged], np.float64)


class _Regression:
    """The metrics of predictions of a number."""

    calibration = None
    sorted_columns = 1

    def __init__(self, target: Floats, prediction: Floats) -> None:
        self._target, self._error = target, target - prediction

    def measure(self, weight: Floats) -> dict[str, float]:
        """Return the metrics by name; weight : (rows,)."""
        mean = np.average(self._target, weights=weight)
        spread = float(np.average((self._target - mean) ** 2, weights=weight))
        square = float(np.average(self._error**2, weights=weight))
        return {
            "rmse": float(np.sqrt(square)),
            "mae": float(np.average(np.abs(self._error), weights=weight)),
            "r2": 1 - square / spread if spread > 0 else float("nan"),
        }


def _mean_of_finite(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def _binary(target: NDArray[Any], scores: Floats, threshold: float) -> _Classification:
    positive = scores[:, 1]
    calibration = CalibrationGaps(target.astype(np.float64), positive)
    decided = (positive > threshold).astype(np.int64)
    return _Classification(target, decided, np.stack([1 - positive, positive], 1), [1], calibration)


def _multiclass(target: NDArray[Any], scores: Floats, _: float) -> _Classification:
    decided = scores.argmax(1)
    calibration = CalibrationGaps((decided == target).astype(np.float64), scores.max(1))
    return _Classification(target, decided, scores, range(scores.shape[1]), calibration)


def _regression(target: NDArray[Any], scores: Floats, _: float) -> _Regression:
    return _Regression(target.astype(np.float64), scores)


_METRICS: dict[TaskName, Callable[[NDArray[Any], Floats, float], _Classification | _Regression]] = {
    "binary": _binary,
    "multiclass": _multiclass,
    "regression": _regression,
}
