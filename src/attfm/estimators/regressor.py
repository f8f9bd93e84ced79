"""AFMRegressor: a numeric target."""

from datetime import date
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin

from attfm.config import TaskName
from attfm.estimators.base import Estimator


class AFMRegressor(RegressorMixin, Estimator):  # type: ignore[misc]
    """Attentional factorization machine for a numeric target, trained on squared error.

    Parameters and attributes are those of `AFMClassifier`, without classes.

    Examples
    --------
    >>> from attfm import AFMRegressor
    >>> X = [[0, 5.0], [1, 4.0], [0, 1.0], [1, 0.5]] * 20
    >>> model = AFMRegressor(epochs=50).fit(X, [10.0, 8.0, 2.0, 1.0] * 20)
    >>> model.predict([[0, 4.9], [1, 0.7]]) > 5
    array([ True, False])
    """

    def fit(self, X: object, y: ArrayLike, sample_weight: ArrayLike | None = None, eval_set: Any = None) -> Self:
        """Train on X and y (numbers); see `AFMClassifier.fit`."""
        return self._fit(X, y, sample_weight, eval_set)

    def partial_fit(
        self, X: object, y: ArrayLike, sample_weight: ArrayLike | None = None, eval_set: Any = None, *,
        half_life: float | None = None, evict_unseen: float | None = None, as_of: str | date | None = None,
        refit_bins: bool = False,
    ) -> Self:  # fmt: skip
        """Learn on from new rows; see `AFMClassifier.partial_fit`. The target keeps the scale of the first rows."""
        if not hasattr(self, "model_"):
            return self.fit(X, y, sample_weight, eval_set)
        return self._learn_on(
            X, y, sample_weight, eval_set, half_life=half_life, evict_unseen=evict_unseen, as_of=as_of,
            refit_bins=refit_bins,
        )  # fmt: skip

    @staticmethod
    def _usual_task(classes: int) -> TaskName:
        return "regression"

    def predict(self, X: object) -> NDArray[np.float64]:
        """Return (rows,) predictions in the target's unit."""
        return self._logits(X)[:, 0]
