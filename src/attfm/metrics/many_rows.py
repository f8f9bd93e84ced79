"""Metrics over many rows: sums of parts of them, and a sort for each area, where scikit-learn would copy the rows.

Beside the rows they take 56 bytes a row, however many classes there are, where scikit-learn takes 106 for two and more
with each class; the figures are the same to the last digits. The learning curve takes some for few rows
too.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

MANY = 1 << 20  # rows from which on these are taken
BINS = 15  # of the calibration error
_ROWS = 1 << 18  # of a part
Floats = NDArray[np.floating[Any]]


def metrics_of_many(
    target: NDArray[Any], probability: Floats, weight: Floats | None, threshold: float
) -> dict[str, float]:
    """Return what `attfm.metrics.scores.evaluate` does of two classes; target is 0 or 1, each argument (rows,)."""
    confusion, losses, gaps = np.zeros(4), np.zeros(2), np.zeros(BINS)
    for start in range(0, len(target), _ROWS):
        rows = slice(start, start + _ROWS)
        y, p = np.asarray(target[rows], np.int64), np.asarray(probability[rows], np.float64)
        w = np.ones(len(y)) if weight is None else np.asarray(weight[rows], np.float64)
        confusion += np.bincount(2 * y + (p > threshold), w, minlength=4)
        tiny = np.finfo(probability.dtype).eps
        losses += [-(w * np.log(np.clip(np.where(y == 1, p, 1 - p), tiny, 1 - tiny))).sum(), (w * (p - y) ** 2).sum()]
        gaps += np.bincount(np.minimum((p * BINS).astype(np.int64), BINS - 1), w * (y - p), minlength=BINS)
    no, wrongly, missed, rightly = confusion
    whole = confusion.sum()
    auc, precision = areas(target, probability, weight)
    return {
        "accuracy": float((no + rightly) / whole), "precision": _share(rightly, rightly + wrongly),
        "recall": _share(rightly, rightly + missed), "f1": _share(2 * rightly, 2 * rightly + wrongly + missed),
        "auc": auc, "average_precision": precision, "log_loss": float(losses[0] / whole),
        "brier": float(losses[1] / whole), "calibration_error": float(np.abs(gaps).sum() / whole),
    }  # fmt: skip


def metrics_of_many_classes(target: NDArray[Any], probability: Floats, weight: Floats | None) -> dict[str, float]:
    """Return what `attfm.metrics.scores.evaluate` does of several classes, probability (rows, classes)."""
    classes = probability.shape[1]
    rows_of, decided_as, right = np.zeros(classes), np.zeros(classes), np.zeros(classes)
    losses, gaps, tiny = np.zeros(2), np.zeros(BINS), np.finfo(probability.dtype).eps
    for y, p, w in _parts(target, probability, weight):
        y, each = y.astype(np.int64), np.arange(len(y))
        decided = p.argmax(1)
        rows_of += np.bincount(y, w, minlength=classes)
        decided_as += np.bincount(decided, w, minlength=classes)
        right += np.bincount(y, w * (decided == y), minlength=classes)
        confidence = p.max(1)
        gaps += np.bincount(
            np.minimum((confidence * BINS).astype(np.int64), BINS - 1),
            w * ((decided == y) - confidence),
            minlength=BINS,
        )
        losses[0] -= (w * np.log(np.clip(p[each, y], tiny, 1 - tiny))).sum()
        off = p.astype(np.float64)
        off[each, y] -= 1
        losses[1] += (w * (off**2).sum(1)).sum()
    whole, counts = rows_of.sum(), np.bincount(target, minlength=classes)
    occurring = np.flatnonzero((counts > 0) & (counts < len(target)))
    of_classes = [areas(target == c, probability[:, c], weight) for c in occurring]
    auc, precision = np.mean(of_classes, axis=0).tolist() if of_classes else (float("nan"), float("nan"))
    shares = zip(right, decided_as, rows_of, strict=True)
    each_class = [(_share(r, d), _share(r, n), _share(2 * r, d + n)) for r, d, n in shares]
    means = np.mean(each_class, axis=0).tolist()
    return {
        "accuracy": float(right.sum() / whole), "precision": means[0], "recall": means[1], "f1": means[2], "auc": auc,
        "average_precision": precision, "log_loss": float(losses[0] / whole), "brier": float(losses[1] / whole),
        "calibration_error": float(np.abs(gaps).sum() / whole),
    }  # fmt: skip


def errors_of_many(target: NDArray[Any], prediction: Floats, weight: Floats | None) -> dict[str, float]:
    """Return what `attfm.metrics.scores.evaluate` does of a regression, each argument (rows,)."""
    sums = np.zeros(4)  # of weights, of weighted targets, of squared and of absolute errors
    for y, p, w in _parts(target, prediction, weight):
        sums += [w.sum(), (w * y).sum(), (w * (y - p) ** 2).sum(), (w * np.abs(y - p)).sum()]
    whole, total, squares, absolute = sums.tolist()
    spread = sum(float((w * (y - total / whole) ** 2).sum()) for y, _, w in _parts(target, prediction, weight))
    return {
        "rmse": float(np.sqrt(squares / whole)), "mae": absolute / whole,
        "r2": 1 - squares / spread if spread > 0 else float(squares == 0),
    }  # fmt: skip


def _parts(
    target: NDArray[Any], scores: Floats, weight: Floats | None
) -> Iterator[tuple[NDArray[Any], Floats, NDArray[np.float64]]]:
    """Yield targets, scores and weights of some rows at a time."""
    for start in range(0, len(target), _ROWS):
        rows = slice(start, start + _ROWS)
        y = target[rows]
        yield y, scores[rows], np.ones(len(y)) if weight is None else np.asarray(weight[rows], np.float64)


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else 0.0


def areas(target: NDArray[Any], score: Floats, weight: Floats | None) -> tuple[float, float]:
    """Return the areas under the ROC curve and the steps of precision and recall; NaN where one class alone counts.

    AUC = Σ (negatives at a score) · (positives above + half of those at it) / (positives · negatives), over distinct
    scores; average precision = Σ (recall gained at a score) · (precision down to it).
    """
    order = np.argsort(score, kind="stable")[::-1]
    in_order = score[order]
    last = np.append(np.flatnonzero(in_order[1:] != in_order[:-1]), len(order) - 1)  # row of each distinct score
    del in_order
    w = np.ones(len(order)) if weight is None else np.asarray(weight, np.float64)[order]
    is_one = np.asarray(target == 1)[order]
    del order
    selected = np.cumsum(w)[last]
    w *= is_one
    ones = np.cumsum(w, out=w)[last]
    del w, last, is_one
    zeros = selected - ones
    if not ones[-1] > 0 or not zeros[-1] > 0:
        return float("nan"), float("nan")
    gained = np.diff(ones, prepend=0.0)
    area = float((np.diff(zeros, prepend=0.0) * (ones - gained / 2)).sum())
    with np.errstate(invalid="ignore"):
        precision = np.where(selected > 0, ones / selected, 0.0)
    return area / float(ones[-1] * zeros[-1]), float((gained * precision).sum() / ones[-1])
