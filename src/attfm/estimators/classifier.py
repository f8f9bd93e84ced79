"""AFMClassifier: two or more classes."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from attfm.errors import TargetError
from attfm.estimators.base import Estimator
from attfm.model.bundle import Model, probabilities


class AFMClassifier(ClassifierMixin, Estimator):  # type: ignore[misc]
    """Attentional factorization machine for two or more classes.

    X may be a pandas, polars or Arrow table or a 2-D array; strings are categories, numbers are cut into bins,
    missing values need no care. y holds any labels.

    Parameters
    ----------
    preset : formula of the model: "nested" (default), "paper" (Xiao et al. 2017), "fwfm", "fm" or "linear"
    dim, attention_dim : sizes of an embedding and of the attention network
    pair_dropout, weight_dropout, pooled_dropout : dropout on pair vectors, attention weights and pooled vector
    numeric, max_bins : "quantile" bins, bins of equal width ("uniform"), or one min-max "scaled" feature
    min_count : training rows that a category needs to be a feature of its own
    columns : settings of single columns, such as {"zip": {"kind": "categorical"}}
    epochs, batch_size, optimizer, learning_rate : "adam", "sgd" or "adagrad"; batch_size may be "auto"
    embedding_decay, linear_decay : decoupled weight decay of V and w
    attention_l2, smoothness : penalty on the attention matrix W, and on the difference of neighbouring bins
    averaging : epochs over which the kept parameters are averaged; 0 for none
    validation_fraction, early_stopping, patience : rows held out where no eval_set is given, and when to stop
    warm_start_from : "fm" trains an FM first and starts from its embeddings (paper, section 3.3)
    n_bags : refits on bootstrap samples of the training rows, which show how far explanations can be trusted; each
        takes as long as the fit
    class_weight : "balanced", or a weight for each label
    device : "auto", "cpu" or "cuda"
    verbose : whether to show a progress bar; "auto": where standard error is a terminal
    random_state : seed; equal seeds give equal models, bit for bit, on the same machine

    Attributes
    ----------
    classes_ : (classes,) sorted labels
    model_ : attfm.model.bundle.Model
    history_ : one dictionary for each epoch
    n_features_in_, feature_names_in_ : the columns of the fit

    Examples
    --------
    >>> from attfm import AFMClassifier
    >>> X = [[0, 5.0], [1, 4.0], [0, 1.0], [1, 0.5]] * 20
    >>> model = AFMClassifier(epochs=20).fit(X, ["low", "low", "high", "high"] * 20)
    >>> model.predict([[0, 4.5], [1, 0.7]])
    array(['low', 'high'], dtype='<U4')
    """

    classes_: NDArray[Any]

    def fit(self, X: object, y: ArrayLike, sample_weight: ArrayLike | None = None, eval_set: Any = None) -> Self:
        """Train on X and y.

        Parameters
        ----------
        X : table or array, (rows, columns)
        y : (rows,) labels
        sample_weight : (rows,) weights of at least 0, or None
        eval_set : (X, y) or (X, y, sample_weight) to stop by; None: a part of X is held out

        Raises
        ------
        DataError, ConfigError (both ValueError) : bad data or parameters, each with its sentence
        """
        return self._fit(X, y, sample_weight, eval_set, None)

    def _checked_labels(self, labels: NDArray[Any]) -> NDArray[Any]:
        check_classification_targets(labels)
        if len(labels) > 1 and len(np.unique(labels)) < 2:
            raise TargetError(
                f"y has one class only ('{labels[0]}'): nothing can be learned. Add rows of another class."
            )
        return labels

    def _take(self, model: Model, labels: NDArray[Any] | None = None) -> Self:
        super()._take(model, labels)
        self.classes_ = np.unique(labels) if labels is not None else np.array(model.target.classes)
        return self

    def decision_function(self, X: object) -> NDArray[np.float64]:
        """Return the logits: (rows,) of the second class for two classes, else (rows, classes)."""
        logits = self._logits(X)
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def predict_proba(self, X: object) -> NDArray[np.float64]:
        """Return (rows, classes) probabilities in the order of `classes_`."""
        return probabilities(self._logits(X))

    def predict(self, X: object) -> NDArray[Any]:
        """Return (rows,) the most probable label of each row."""
        decided = self.predict_proba(X).argmax(1)
        labels: NDArray[Any] = self.classes_[decided]
        return labels
