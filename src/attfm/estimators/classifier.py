"""AFMClassifier: two or more classes."""

from datetime import date
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from attfm.errors import TargetError
from attfm.estimators.base import Estimator
from attfm.estimators.labels import read_labels
from attfm.model.bundle import Model


class AFMClassifier(ClassifierMixin, Estimator):  # type: ignore[misc]
    """Attentional factorization machine for two or more classes.

    X may be a pandas, polars or Arrow table, a dict of columns, a list of dicts or of rows, or a 2-D array; strings are
    categories, numbers are cut into bins, missing values need no care. y holds strings, numbers or booleans.

    Parameters
    ----------
    preset : "nested", "paper", "fwfm", "fm" or "linear"
        Formula of the model: the default, Xiao et al. 2017, or an older one.
    dim, attention_dim : int, sizes of an embedding and of the attention network
    pairs, attention, scale, pair_gate, pair_bias, learned_projection : None, or as in `attfm.ModelConfig`
        Factors of the formula that depart from the preset; None: the preset's.
    pair_dropout, weight_dropout, pooled_dropout : float in [0, 1)
        Dropout on pair vectors, attention weights and pooled vector; "auto" as `attfm.ModelConfig` says.
    embedding_std, attention_std, projection_std : float, "auto" or None
        Standard deviations of the first parameters; "auto" and None: as `attfm.ModelConfig` says.
    memory_pairs, memory_min_count, memory_entries : int
        Most field pairs whose pairs of values are remembered (0: none), the rows that a pair of values needs, and the
        most pairs of values, those of the fewest rows left out.
    numeric, max_bins : "quantile", "uniform" or "scaled"; int or "auto"
        Quantile bins, bins of equal width, or one min-max scaled feature; and how many bins at most.
    min_count : int, training rows that a category needs to be a feature of its own
    columns : dict or None, settings of single columns, such as {"zip": {"kind": "categorical"}}; in an X without names
        a column is "x0", "x1", ..., or its place: {0: {"kind": "categorical"}}
    task : "auto", "binary" or "multiclass", by itself: binary for two classes
    epochs, batch_size, optimizer, learning_rate : int; int or "auto"; "adam", "sgd" or "adagrad"; float
        How the parameters are found.
    falling_rate : bool, whether the learning rate falls to 0 over the second half of `epochs`: for many rows and few
        epochs, see docs/scaling.md
    embedding_decay, linear_decay : float, decoupled weight decay of V and w
    embedding_ridge, linear_ridge : float or "auto", ridge of V and w, in rows
    memory_ridge, statistic_smoothness : float, ridge and smoothness of the memory of value pairs, in rows
    adam_eps : float, eps of Adam
    rates, rate_levels : bool, int
        Whether ids have embeddings of their target rate and count too, and the levels above which a field has them.
    attention_l2, smoothness : float, penalty on the attention matrix W, and on the difference of neighbouring bins
    knots : int or "auto", about how many bins of a numeric field are learned by themselves; those between say what the
        two beside them say, by their distance; 0: all; "auto": the root of the training rows, 16 to 255
    smoothness_by_field : bool, whether each field has a smoothness of its own, by what its neighbouring bins differ by
    additive_start : bool or "auto", whether training begins with main effects that are solved, where rows are few and
        columns numeric or of few levels; "auto": of classes up to 12,000 rows, of a regression by validation
    base_rate_start : bool, whether w0 starts at the base rate
    averaging : float or "auto", epochs over which the kept parameters are averaged; 0 for none
    split : TimeSplit, GroupSplit, "time:COLUMN", "group:COLUMN" or None
        Which rows are held out where no eval_set is given: the latest, or whole groups, by a column of X (an input too,
        unless it is declared ignored); None: by chance.
    validation_fraction, early_stopping, patience : float, bool, int or "auto"
        Rows held out where no eval_set is given, and after how many epochs without a better loss to stop; "auto": 10,
        of a regression 25.
    refit : bool or "auto", whether one model is trained again on all rows of X, for as many epochs as were best, where
        no eval_set is given; "auto": where that takes two thirds of the time or less
    warm_start_from : "fm" or None, train an FM first and start from its embeddings (paper, section 3.3)
    n_models : int or "auto", models that are cross-fitted on as many folds of the rows and averaged, each stopped by
        the fold that it was not trained on; "auto": 8 on small tables, else 1
    n_seeds : int or "auto", models that are trained on the same rows for as many epochs as were best, each from a seed
        of its own, and averaged, where models are not cross-fitted; "auto": up to 3, of a regression 5, where the best
        epoch is an early one, so that they take at most twice as long as what came before; 1 above 300,000 rows,
        and where n_models is given
    n_bags : int, refits on bootstrap samples of the training rows, which show how far explanations can be trusted; each
        takes as long as the fit
    threshold : float in (0, 1), probability above which `predict` gives the second of two classes
    calibrate : "none", "temperature", "sigmoid", "isotonic" or "auto"
        How probabilities are calibrated by the validation rows, after training; "auto": by temperature where that
        gains enough on these rows to be no chance. See docs/explanations.md.
    device : "auto", "cpu" or "cuda"
        Where it is trained; "auto": on a GPU where there is one and steps are large enough, as of 20 columns and steps
        of 1,024 rows with the defaults. Smaller ones are faster on the CPU.
    backend : "auto", "native" or "reference", by what: compiled kernels or plain torch
    negative_rate : float in (0, 1], share of the first class's training rows that are kept; the intercept is corrected,
        so that probabilities are those of all rows
    class_weight : "balanced", dict or None, a weight above 0 for each label; those not named have 1
    verbose : bool or "auto", whether to show a progress bar; "auto": where standard error is a terminal
    random_state : int, RandomState or None, seed; equal seeds give equal models, bit for bit, on the same machine

    Attributes
    ----------
    classes_ : (classes,), sorted labels
    model_ : attfm.Model, the fitted model
    history_ : list of dict, one dictionary for each epoch; of several models one after the other, by their "model"
    oof_ : float64 (rows, classes) or None
        Out-of-fold probabilities of the rows of the fit, each by the one model that was not trained on it, NaN of rows
        that were in no fold; None for one model, and after `attfm.load`.
    n_features_in_, feature_names_in_ : int and (columns,), the columns of the fit
    feature_importances_ : (columns,), the share of each column in the mean |effect| over the training rows

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
        X : table, array or list of rows, (rows, columns)
        y : (rows,) labels, in whatever holds a column
        sample_weight : (rows,) weights of at least 0, or None
        eval_set : (X, y) or (X, y, sample_weight) to stop by, or a list of one such; None: a part of X is held out.
            Columns without names are taken in the order of the fit.

        Raises
        ------
        DataError, ConfigError (both ValueError) : bad data or parameters, each with its sentence

        Warns
        -----
        DataWarning : a class has too few rows to be measured; X is an array of strings with numbers in it
        """
        return self._fit(X, y, sample_weight, eval_set)

    def partial_fit(
        self, X: object, y: ArrayLike, classes: ArrayLike | None = None, sample_weight: ArrayLike | None = None,
        eval_set: Any = None, *, half_life: float | None = None, evict_unseen: float | None = None,
        as_of: str | date | None = None, refit_bins: bool = False,
    ) -> Self:  # fmt: skip
        """Learn on from new rows: `fit` where there is no model yet, else from where the model stands.

        Ids keep their features. New categories (those that occur `min_count` times) get rows of their own, which begin
        as those of unknown values; counts, rates and pair memory are brought up to date; bins, the remembered field
        pairs, the classes and all settings of the data and of the formula stay. What was learned is the prior: what no
        new row touches stays as it was. A part of X is held out to stop by, as in `fit`; where it is too small, as many
        epochs are run as were best before. See docs/continue.md.

        Parameters
        ----------
        X, y, sample_weight, eval_set : as in `fit`
        classes : labels or None, of all classes: those of y in the first call, and the same in later ones
        half_life : float or None, days after which an earlier row counts half in counts, rates and pair memory
        evict_unseen : float or None, values that no row had for more than so many days are forgotten
        as_of : str ("2024-03-01"), datetime.date or None, the day of these rows; None: today (UTC)
        refit_bins : bool, whether numeric bins are cut again, on the new rows

        Raises
        ------
        TargetError : a label is none of the classes, or a class has no row in the first call
        DataError, ConfigError : as in `fit`; a setting differs that a model which learns on must keep
        """
        model_is_new = not hasattr(self, "model_")
        if classes is not None:
            known = np.unique(read_labels(y) if model_is_new else self.classes_)
            other = np.setxor1d(np.unique(read_labels(classes, "classes")), known)
            if len(other):
                raise TargetError(
                    f"classes and {'y' if model_is_new else 'the fitted classes'} do not have '{other[0]}' both: the "
                    "first call needs rows of every class, and later ones have no others."
                )
        if model_is_new:
            return self.fit(X, y, sample_weight, eval_set)
        return self._learn_on(
            X, y, sample_weight, eval_set, half_life=half_life, evict_unseen=evict_unseen, as_of=as_of,
            refit_bins=refit_bins,
        )  # fmt: skip

    def _checked_labels(self, labels: NDArray[Any]) -> NDArray[Any]:
        check_classification_targets(labels)
        return labels

    def _check_learnable(self, labels: NDArray[Any]) -> None:
        if len(np.unique(labels)) < 2:
            raise TargetError(
                f"y has one class only ('{labels[0]}'): nothing can be learned. Add rows of another class."
            )

    def _take(self, model: Model, labels: NDArray[Any] | None = None) -> Self:
        super()._take(model, labels)
        self.classes_ = np.unique(labels) if labels is not None else np.array(model.target.classes)
        return self

    def decision_function(self, X: object) -> NDArray[np.float64]:
        """Return the logits: (rows,) of the second class for two classes, else (rows, classes).

        They are what accounts add up to: calibrated ones of a model with `calibrate` "temperature" or "sigmoid"; of
        one with "isotonic" they are not, since its curves go from them to probabilities.
        """
        logits = self._logits(X)
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def predict_proba(self, X: object) -> NDArray[np.float64]:
        """Return (rows, classes) probabilities in the order of `classes_`."""
        logits = self._logits(X)
        return self.model_.task.scores(logits)

    def predict(self, X: object) -> NDArray[Any]:
        """Return the label of each row, (rows,): of two classes the second where its probability is above `threshold`.

        The threshold is that of the fit, as `attfm predict` takes it.
        """
        logits = self._logits(X)
        labels: NDArray[Any] = self.classes_[self.model_.decide(logits)]
        return labels
