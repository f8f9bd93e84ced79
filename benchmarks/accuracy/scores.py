"""AUC and log loss, or RMSE."""

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.accuracy.tables import Floats


def scores(y: Floats, found: Floats, *, regression: bool) -> dict[str, float]:
    """Return what a model's answers are worth.

    Parameters
    ----------
    y : (rows,), 0 or 1, or the values of a regression
    found : (rows,), probabilities of class 1, or values
    regression : bool, which of the two
    """
    if regression:
        return {"rmse": round(float(np.sqrt(np.mean((found - y) ** 2))), 6)}
    return {"auc": round(float(roc_auc_score(y, found)), 6), "log_loss": round(float(log_loss(y, found)), 6)}
