"""What is reported for each task; from scikit-learn where it has it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from attfm.config import TaskName
from attfm.metrics.many_rows import BINS as _BINS
from attfm.metrics.many_rows import MANY, areas, errors_of_many, metrics_of_many, metrics_of_many_classes

Floats = NDArray[np.floating[Any]]
# Of target, scores, weight and threshold.
_Metrics = Callable[[NDArray[Any], Floats, Floats | None, float], dict[str, float]]
_CurveMetrics = Callable[[NDArray[Any], Floats, Floats, float], dict[str, float]]


def evaluate(
    task: TaskName, target: NDArray[Any], scores: Floats, weight: Floats | None = None, *, threshold: float = 0.5
) -> dict[str, float]:
    """Return the metrics of a task.

    Those of several classes are macro averages; their areas are of one class against the rest, averaged over the
    classes that occur. An area is NaN where the rows have one class only. The target (rows,) holds class codes or
    values, the scores are probabilities (rows, classes) or predictions (rows,). Of two classes the second is decided
    where its probability is above the threshold.
    """
    return _METRICS[task](target, scores, weight, threshold)


def curve_metrics(
    task: TaskName, target: NDArray[Any], logits: Floats, weight: Floats, *, threshold: float = 0.5
) -> dict[str, float]:
    """Return the few figures that the learning curve keeps for each epoch: AUC and accuracy, accuracy, or RMSE and R².

    The logits are (rows, outputs), or the predictions (rows, 1) of a regression, all finite; the rest as of `evaluate`.
    Scikit-learn would take 5 to 9 ms an epoch, mostly to check what it is given; this takes less than one.
    """
    return _CURVE_METRICS[task](target, logits, weight, threshold)


class CalibrationGaps:
    """The gap between hits (0 or 1) and confidence in [0, 1], in 15 bins of equal width (Guo et al. 2017, eq. 3)."""

    def __init__(self, hit: NDArray[Any], confidence: Floats) -> None:
        self._bin = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
        self._gap = hit - confidence

    def gaps(self, weight: Floats) -> NDArray[np.float64]:
        """Return each bin's (share of hits − mean confidence) times its share of the weight, float64 (bins,)."""
        return np.asarray(self._sums(weight) / weight.sum(), np.float64)

    def error(self, weight: Floats) -> float:
        """Return the sum of the |gaps|: the expected calibration error."""
        return float(np.abs(self._sums(weight)).sum() / weight.sum())

    def _sums(self, weight: Floats) -> NDArray[Any]:
        return np.bincount(self._bin, weight * self._gap, minlength=_BINS)


def calibration_error(hit: NDArray[Any], confidence: Floats, weight: Floats | None = None) -> float:
    """Return the expected calibration error of hits (0 or 1) and confidence (in [0, 1]); each argument (rows,)."""
    return CalibrationGaps(hit, confidence).error(np.ones(len(hit)) if weight is None else weight)


def auc_by_group(
    target: NDArray[Any], score: Floats, groups: NDArray[np.int64], weight: Floats | None = None
) -> tuple[float, int]:
    """Return the mean AUC of groups such as users, each weighted by its rows, and how many groups that is of.

    Groups whose rows are all of one class have none and are left out (GAUC: Zhou et al. 2018, section 5.2.2).

    Parameters
    ----------
    target : 0 or 1 (rows,); score : float (rows,), greater for 1; weight : float (rows,) or None
    groups : int64 (rows,), codes of the groups; -1: none, such rows are left out

    Returns
    -------
    auc : float, NaN where no group has rows of both classes
    used : int, groups that have
    """
    weights = np.ones(len(target)) if weight is None else np.asarray(weight, np.float64)
    kept = np.flatnonzero((groups >= 0) & (weights > 0))
    order = kept[np.lexsort((score[kept], groups[kept]))]
    group, s, w = groups[order], score[order], weights[order]
    ones = w * (target[order] == 1)
    zeros = w - ones
    new_group = np.concatenate([[True], group[1:] != group[:-1]]) if len(order) else np.empty(0, bool)
    new_tie = new_group | np.concatenate([[True], s[1:] != s[:-1]]) if len(order) else new_group
    starts = np.flatnonzero(new_tie)
    if not len(starts):
        return float("nan"), 0
    tie_ones, tie_zeros = np.add.reduceat(ones, starts), np.add.reduceat(zeros, starts)
    first = np.flatnonzero(new_group[starts])  # tie of each group that comes first
    before = np.cumsum(tie_zeros) - tie_zeros
    below = before - np.repeat(before[first], np.diff(np.append(first, len(starts))))
    won = np.add.reduceat(tie_ones * (below + tie_zeros / 2), first)
    all_ones, all_zeros = np.add.reduceat(tie_ones, first), np.add.reduceat(tie_zeros, first)
    both = (all_ones > 0) & (all_zeros > 0)
    if not both.any():
        return float("nan"), 0
    auc = won[both] / (all_ones[both] * all_zeros[both])
    return float(np.average(auc, weights=(all_ones + all_zeros)[both])), int(both.sum())


def _binary(target: NDArray[Any], scores: Floats, weight: Floats | None, threshold: float) -> dict[str, float]:
    probability = scores[:, 1]
    if len(target) >= MANY:
        return metrics_of_many(target, probability, weight, threshold)
    decided = (probability > threshold).astype(np.int64)
    return _of_decisions(target, decided, weight, average="binary") | {
        "auc": _area(sk.roc_auc_score, target, probability, weight),
        "average_precision": _area(sk.average_precision_score, target, probability, weight),
        "log_loss": float(sk.log_loss(target, probability, sample_weight=weight, labels=[0, 1])),
        "brier": float(sk.brier_score_loss(target, probability, sample_weight=weight, pos_label=1)),
        "calibration_error": calibration_error(target, probability, weight),
    }


def _multiclass(target: NDArray[Any], probability: Floats, weight: Floats | None, _: float) -> dict[str, float]:
    if len(target) >= MANY:
        return metrics_of_many_classes(target, probability, weight)
    decided, labels = probability.argmax(1), np.arange(probability.shape[1])
    one_hot = np.eye(len(labels))[target]
    occurring = [c for c in labels if 0 < one_hot[:, c].sum() < len(target)]

    def mean_area(function: Any) -> float:
        areas = [_area(function, one_hot[:, c], probability[:, c], weight) for c in occurring]
        return float(np.mean(areas)) if areas else float("nan")

    return _of_decisions(target, decided, weight, average="macro", labels=labels) | {
        "auc": mean_area(sk.roc_auc_score),
        "average_precision": mean_area(sk.average_precision_score),
        "log_loss": float(sk.log_loss(target, probability, sample_weight=weight, labels=labels)),
        "brier": float(np.average(((probability - one_hot) ** 2).sum(1), weights=weight)),
        "calibration_error": calibration_error(decided == target, probability.max(1), weight),
    }


def _of_decisions(target: NDArray[Any], decided: Any, weight: Floats | None, **options: Any) -> dict[str, float]:
    rates = sk.precision_recall_fscore_support(target, decided, sample_weight=weight, zero_division=0.0, **options)
    accuracy = sk.accuracy_score(target, decided, sample_weight=weight)
    return dict(zip(("accuracy", "precision", "recall", "f1"), map(float, (accuracy, *rates[:3])), strict=True))


def _regression(target: NDArray[Any], prediction: Floats, weight: Floats | None, _: float) -> dict[str, float]:
    if len(target) >= MANY:
        return errors_of_many(target, prediction, weight)
    return {
        "rmse": float(sk.root_mean_squared_error(target, prediction, sample_weight=weight)),
        "mae": float(sk.mean_absolute_error(target, prediction, sample_weight=weight)),
        "r2": float(sk.r2_score(target, prediction, sample_weight=weight)) if len(target) > 1 else float("nan"),
    }


def _binary_curve(target: NDArray[Any], logits: Floats, weight: Floats, threshold: float) -> dict[str, float]:
    decided = logits[:, 0] > np.log(threshold / (1 - threshold))
    return {"auc": areas(target, logits[:, 0], weight)[0], "accuracy": _accuracy(target, decided, weight)}


def _multiclass_curve(target: NDArray[Any], logits: Floats, weight: Floats, _: float) -> dict[str, float]:
    return {"accuracy": _accuracy(target, logits.argmax(1), weight)}


def _regression_curve(target: NDArray[Any], logits: Floats, weight: Floats, _: float) -> dict[str, float]:
    values = errors_of_many(target, logits[:, 0], weight)
    return {"rmse": values["rmse"], "r2": values["r2"] if len(target) > 1 else float("nan")}


def _accuracy(target: NDArray[Any], decided: NDArray[Any], weight: Floats) -> float:
    return float(np.average(target == decided, weights=weight))


def _area(function: Any, target: NDArray[Any], score: Floats, weight: Floats | None) -> float:
    """Return the area under a curve, NaN where the rows have one class only and it is not defined."""
    if len(np.unique(target)) < 2:
        return float("nan")
    return float(function(target, score, sample_weight=weight))


_METRICS: dict[TaskName, _Metrics] = {"binary": _binary, "multiclass": _multiclass, "regression": _regression}
_CURVE_METRICS: dict[TaskName, _CurveMetrics] = {
    "binary": _binary_curve, "multiclass": _multiclass_curve, "regression": _regression_curve
}  # fmt: skip
