"""Pictures of how well a model predicts: reliability, ROC, precision and recall, learning curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from attfm.errors import ConfigError
from attfm.metrics.intervals import calibration_points
from attfm.metrics.scores import calibration_error
from attfm.model.history import mean_curve
from attfm.plots.style import NEGATIVE, NEUTRAL, POSITIVE, finished, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 10


def reliability(y: ArrayLike, probability: ArrayLike, *, bins: int = _BINS, ax: Axes | None = None) -> Axes:
    """Draw observed shares against predicted probabilities, in bins of equal numbers of rows, with 95 % intervals.

    The Brier score and the calibration error in its title are the metrics', the latter over 15 bins of equal width.
    y (0 or 1) and probability (of class 1) are (rows,).
    """
    observed, predicted = _checked(y, probability)
    ax = new_axes(ax, width=5, height=4.8)
    means, shares, _, low, high = calibration_points(observed, predicted, bins)
    ax.plot([0, 1], [0, 1], color=NEUTRAL, linestyle="--", linewidth=1, label="perfectly calibrated")
    whiskers = [np.maximum(shares - low, 0), np.maximum(high - shares, 0)]
    ax.errorbar(means, shares, yerr=whiskers, fmt="o-", color=NEGATIVE, capsize=2, linewidth=1.4, markersize=4)
    brier = float(np.mean((predicted - observed) ** 2))
    ax.set(xlabel="predicted probability", ylabel="observed share", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    ax.legend(frameon=False, loc="upper left")
    return finished(
        ax, f"Brier score {brier:.4f}, calibration error {calibration_error(observed, predicted):.4f}", grid="both"
    )


def roc(y: ArrayLike, probability: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw the ROC curve; y (0 or 1) and probability (of class 1) are (rows,)."""
    observed, predicted = _checked(y, probability, both=True)
    ax = new_axes(ax, width=5, height=4.8)
    wrong, right, _ = roc_curve(observed, predicted)
    ax.plot([0, 1], [0, 1], color=NEUTRAL, linestyle="--", linewidth=1, label="no skill")
    ax.plot(wrong, right, color=NEGATIVE, linewidth=1.8)
    ax.set(xlabel="false positive rate", ylabel="true positive rate")
    ax.legend(frameon=False, loc="lower right")
    return finished(ax, f"area under the curve {roc_auc_score(observed, predicted):.4f}", grid="both")


def precision_recall(y: ArrayLike, probability: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw precision against recall; y (0 or 1) and probability (of class 1) are (rows,)."""
    observed, predicted = _checked(y, probability, both=True)
    ax = new_axes(ax, width=5, height=4.8)
    precision, recall, _ = precision_recall_curve(observed, predicted)
    share = observed.mean()
    ax.axhline(share, color=NEUTRAL, linestyle="--", linewidth=1, label=f"no skill ({share:.3f})")
    ax.plot(recall, precision, color=NEGATIVE, linewidth=1.8)
    ax.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02))
    ax.legend(frameon=False, loc="lower left")
    return finished(ax, f"average precision {average_precision_score(observed, predicted):.4f}", grid="both")


def learning_curve(history: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Draw the losses of each epoch; the history is that of an estimator's `history_`.

    Of several models it is the mean, over the epochs that all of them ran.
    """
    if not history:
        raise ConfigError("The model has no history of its training: there is no learning curve to draw.")
    ax = new_axes(ax, width=6.2, height=4)
    history = mean_curve(history)
    epochs = [record["epoch"] for record in history]
    ax.plot(epochs, [record["train_loss"] for record in history], color=NEGATIVE, linewidth=1.6, label="training rows")
    losses = [record.get("valid_loss") for record in history]
    valid = [loss for loss in losses if loss is not None]
    if len(valid) == len(epochs):
        ax.plot(epochs, valid, color=POSITIVE, linestyle="--", linewidth=1.8, label="validation rows")
        best = int(np.argmin(np.asarray(valid, np.float64)))
        ax.plot([epochs[best]], [valid[best]], "o", color=POSITIVE, label=f"best: epoch {epochs[best]}")
    ax.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]  # the stub lacks it
    ax.set(xlabel="epoch", ylabel="loss")
    ax.legend(frameon=False)
    return finished(ax, grid="y")


def _checked(y: ArrayLike, probability: ArrayLike, *, both: bool = False) -> tuple[Any, Any]:
    observed, predicted = np.asarray(y, np.float64), np.asarray(probability, np.float64)
    if observed.ndim != 1 or observed.shape != predicted.shape or len(observed) == 0:
        raise ConfigError(
            f"y is of shape {observed.shape} and probability of {predicted.shape}: give one number a row in both."
        )
    if not np.isin(observed, (0, 1)).all():
        wrong = observed[~np.isin(observed, (0, 1))][0]
        raise ConfigError(f"y holds {wrong:g}: give 1 for the class whose probability it is, and 0 for the other.")
    if both and len(np.unique(observed)) < 2:
        raise ConfigError("y has one class only: there is no such curve.")
    return observed, predicted
