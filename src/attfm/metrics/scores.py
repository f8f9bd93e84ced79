"""What is reported for each task; from scikit-learn where it has it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from attfm.config import Task

Floats = NDArray[np.floating[Any]]


def calibration_error(hit: NDArray[Any], confidence: Floats, weight: Floats | None = None, *, bins: int = 15) -> float:
    """Return the expected calibration error: mean |share of hits − mean confidence| over bins of equal width.

    Guo et al. 2017, eq. 3. hit : (rows,) 0 or 1; confidence : (rows,) in [0, 1]; weight : (rows,) or None.
    """
    weight = np.ones(len(hit)) if weight is None else weight
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(which, weight * (hit - confidence), minlength=bins)
    return float(np.abs(gap).sum() / weight.sum())


def _area(function: Any, target: NDArray[Any], score: Floats, **options: Any) -> float:
    """Return the area under a curve, NaN where the rows have one class only and it is not defined."""
    if len(np.unique(target)) < 2:
        return float("nan")
    return float(function(target, score, **options))


def binary_metrics(
    target: NDArray[np.int64], probability: Floats, weight: Floats | None = None, *, threshold: float = 0.5
) -> dict[str, float]:
    """Return the metrics of a binary task.

    Parameters
    ----------
    target : (rows,) 0 or 1
    probability : (rows,) of class 1, in [0, 1]
    weight : (rows,) relative importance of each row, or None
    threshold : class 1 is decided where its probability is above it
    """
    decided = (probability > threshold).astype(np.int64)
    scores = {"sample_weight": weight, "zero_division": 0.0}
    return {
        "accuracy": float(sk.accuracy_score(target, decided, sample_weight=weight)),
        "precision": float(sk.precision_score(target, decided, **scores)),
        "recall": float(sk.recall_score(target, decided, **scores)),
        "f1": float(sk.f1_score(target, decided, **scores)),
        "auc": _area(sk.roc_auc_score, target, probability, sample_weight=weight),
        "average_precision": _area(sk.average_precision_score, target, probability, sample_weight=weight),
        "log_loss": float(sk.log_loss(target, probability, sample_weight=weight, labels=[0, 1])),
        "brier": float(sk.brier_score_loss(target, probability, sample_weight=weight, pos_label=1)),
        "calibration_error": calibration_error(target, probability, weight),
    }


def multiclass_metrics(
    target: NDArray[np.int64], probability: Floats, weight: Floats | None = None
) -> dict[str, float]:
    """Return the metrics of a multiclass task, macro averages over the classes.

    target : (rows,) class codes; probability : (rows, classes), rows sum to 1; weight : (rows,) or None.
    The area under the ROC curve is one against the rest, averaged over the classes that occur.
    """
    decided, labels = probability.argmax(1), np.arange(probability.shape[1])
    macro = {"sample_weight": weight, "average": "macro", "labels": labels, "zero_division": 0.0}
    one_hot = np.eye(len(labels))[target]
    occurring = [c for c in labels if 0 < one_hot[:, c].sum() < len(target)]
    options = {"sample_weight": weight}

    def mean_area(function: Any) -> float:
        areas = [_area(function, one_hot[:, c], probability[:, c], **options) for c in occurring]
        return float(np.mean(areas)) if areas else float("nan")

    return {
        "accuracy": float(sk.accuracy_score(target, decided, sample_weight=weight)),
        "precision": float(sk.precision_score(target, decided, **macro)),
        "recall": float(sk.recall_score(target, decided, **macro)),
        "f1": float(sk.f1_score(target, decided, **macro)),
        "auc": mean_area(sk.roc_auc_score),
        "average_precision": mean_area(sk.average_precision_score),
        "log_loss": float(sk.log_loss(target, probability, sample_weight=weight, labels=labels)),
        "brier": float(np.average(((probability - one_hot) ** 2).sum(1), weights=weight)),
        "calibration_error": calibration_error(decided == target, probability.max(1), weight),
    }


def regression_metrics(target: Floats, prediction: Floats, weight: Floats | None = None) -> dict[str, float]:
    """Return RMSE and MAE (in the target's unit) and R²; each argument (rows,)."""
    r2 = float(sk.r2_score(target, prediction, sample_weight=weight)) if len(target) > 1 else float("nan")
    return {
        "rmse": float(sk.root_mean_squared_error(target, prediction, sample_weight=weight)),
        "mae": float(sk.mean_absolute_error(target, prediction, sample_weight=weight)),
        "r2": r2,
    }


def evaluate(
    task: Task,
    target: NDArray[Any],
    prediction: Floats,
    weight: Floats | None = None,
    *,
    threshold: float = 0.5,
) -> dict[str, float]:
    """Return the metrics of a task.

    target : (rows,) class codes or values; prediction : (rows, classes) probabilities, or (rows,) values.
    """
    if task == "binary":
        return binary_metrics(target, prediction[:, 1], weight, threshold=threshold)
    if task == "multiclass":
        return multiclass_metrics(target, prediction, weight)
    return regression_metrics(target, prediction, weight)


def curve_metrics(
    task: Task, target: NDArray[Any], logits: Floats, weight: Floats, *, threshold: float = 0.5
) -> dict[str, float]:
    """Return the few figures that the learning curve keeps for each epoch: AUC and accuracy, accuracy, or RMSE and R².

    logits : (rows, outputs), or the predictions (rows, 1) of a regression, all finite
    """
    if task == "regression":
        values = regression_metrics(target, logits[:, 0], weight)
        return {"rmse": values["rmse"], "r2": values["r2"]}
    if task == "multiclass":
        return {"accuracy": float(sk.accuracy_score(target, logits.argmax(1), sample_weight=weight))}
    decided = logits[:, 0] > np.log(threshold / (1 - threshold))
    return {
        "auc": _area(sk.roc_auc_score, target, logits[:, 0], sample_weight=weight),
        "accuracy": float(sk.accuracy_score(target, decided, sample_weight=weight)),
    }
