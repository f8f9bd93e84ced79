"""AFMClassifier and AFMRegressor: the model behind scikit-learn's estimator interface."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_array, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from attfm.config import Config, DataConfig, ModelConfig, PresetName, Task, TrainConfig
from attfm.data.schema import Schema
from attfm.data.sources import Source, open_source
from attfm.errors import ConfigError, SchemaError, TargetError
from attfm.explain.contributions import Explainer, explain_global
from attfm.explain.examined import Examined
from attfm.explain.explanation import Explanation, View
from attfm.explain.faithfulness import Faithfulness, check
from attfm.explain.overview import GlobalExplanation
from attfm.explain.report import checked_path, write_report
from attfm.explain.what_if import Change, what_if
from attfm.model.bundle import Model, probabilities
from attfm.train.fit import LabelledTable, fit
from attfm.train.progress import FitProgress

_DATA, _MODEL, _TRAIN = DataConfig(), ModelConfig(), TrainConfig()  # the defaults of all settings
_Section = TypeVar("_Section", DataConfig, ModelConfig, TrainConfig)
_TARGET = "target"  # what the target is called in messages: y has no name


class _Estimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What classifier and regressor share."""

    model_: Model
    n_features_in_: int
    feature_names_in_: NDArray[np.object_]

    def __init__(
        self,
        *,
        preset: PresetName = _MODEL.preset,
        dim: int = _MODEL.dim,
        attention_dim: int = _MODEL.attention_dim,
        pair_dropout: float = _MODEL.pair_dropout,
        weight_dropout: float = _MODEL.weight_dropout,
        pooled_dropout: float = _MODEL.pooled_dropout,
        numeric: Literal["quantile", "uniform", "scaled"] = _DATA.numeric,
        max_bins: int = _DATA.max_bins,
        min_count: int = _DATA.min_count,
        columns: dict[str, dict[str, Any]] | None = None,
        epochs: int = _TRAIN.epochs,
        batch_size: int | Literal["auto"] = _TRAIN.batch_size,
        optimizer: Literal["adam", "sgd", "adagrad"] = _TRAIN.optimizer,
        learning_rate: float = _TRAIN.learning_rate,
        embedding_decay: float = _TRAIN.embedding_decay,
        linear_decay: float = _TRAIN.linear_decay,
        attention_l2: float = _TRAIN.attention_l2,
        smoothness: float = _TRAIN.smoothness,
        averaging: float = _TRAIN.averaging,
        validation_fraction: float = _TRAIN.validation_fraction,
        early_stopping: bool = _TRAIN.early_stopping,
        patience: int = _TRAIN.patience,
        warm_start_from: Literal["fm"] | None = _TRAIN.warm_start_from,
        n_bags: int = _TRAIN.n_bags,
        device: Literal["auto", "cpu", "cuda"] = _TRAIN.device,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        verbose: bool | Literal["auto"] = "auto",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.preset = preset
        self.dim = dim
        self.attention_dim = attention_dim
        self.pair_dropout = pair_dropout
        self.weight_dropout = weight_dropout
        self.pooled_dropout = pooled_dropout
        self.numeric = numeric
        self.max_bins = max_bins
        self.min_count = min_count
        self.columns = columns
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.embedding_decay = embedding_decay
        self.linear_decay = linear_decay
        self.attention_l2 = attention_l2
        self.smoothness = smoothness
        self.averaging = averaging
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.patience = patience
        self.warm_start_from = warm_start_from
        self.n_bags = n_bags
        self.device = device
        self.class_weight = class_weight
        self.verbose = verbose
        self.random_state = random_state

    def _config(self, task: Task) -> Config:
        """Return the parameters as checked settings."""
        parameters = self.get_params(deep=False)
        seed = self.random_state
        if not isinstance(seed, int | np.integer) or seed < 0:
            seed = check_random_state(seed).randint(2**31)
        weights = self.class_weight
        parameters |= {
            "seed": int(seed),
            "task": task,
            "columns": self.columns or {},
            "class_weight": {str(k): v for k, v in weights.items()} if isinstance(weights, Mapping) else weights,
        }

        def section(kind: type[_Section]) -> _Section:
            values = {name: value for name, value in parameters.items() if name in kind.model_fields}
            return kind.parse(values, where=f"the parameters of {type(self).__name__}")

        return Config(data=section(DataConfig), model=section(ModelConfig), train=section(TrainConfig))

    def _fit(self, X: object, y: ArrayLike, sample_weight: ArrayLike | None, eval_set: Any, task: Task | None) -> Self:
        source = self._training_source(X)
        labels = self._labels(y, source)
        if len(labels) < 2:
            raise TargetError("X and y have 1 sample only: nothing can be learned from it. Give more rows.")
        config = self._config(task or ("binary" if len(np.unique(labels)) <= 2 else "multiclass"))
        valid = None if eval_set is None else self._eval_table(eval_set)
        schema = Schema.infer(source.batches(), source.schema, target=None, config=config.data, source=source.name)
        with FitProgress(config.train.epochs, show=self.verbose) as progress:
            fitted = fit(
                LabelledTable(source, pa.chunked_array([pa.array(labels)]), _weights(sample_weight)),
                schema=schema, config=config, target_name=_TARGET, valid_table=valid,
                on_epoch=progress.on_epoch, on_batch=progress.on_batch,
            )  # fmt: skip
        return self._take(fitted.model, labels)

    def _take(self, model: Model, labels: NDArray[Any] | None = None) -> Self:
        """Become the fitted estimator of a model; `labels` are those it was fitted on, where they are at hand."""
        self.model_ = model
        self.history_ = model.history
        return self

    def _training_source(self, X: object) -> Source:
        """Return X as a source, and remember the names and the number of its columns."""
        if not _is_frame(X):
            X = validate_data(self, X, dtype=None, ensure_all_finite="allow-nan")
            return open_source(X)
        source = open_source(X)
        self.n_features_in_ = len(source.schema.names)
        self.feature_names_in_ = np.asarray(source.schema.names, dtype=object)
        return source

    def _source(self, X: object) -> Source:
        """Return X as a source with the columns of the fit."""
        names = [column.name for column in self.model_.schema.inputs]
        if not _is_frame(X):
            if hasattr(self, "feature_names_in_"):
                warnings.warn(
                    f"X does not have valid feature names, but {type(self).__name__} was fitted with feature names: "
                    "its columns are taken in the order of the fit.",
                    stacklevel=4,
                )
            array: NDArray[Any] = check_array(X, dtype=None, ensure_all_finite="allow-nan")
            if array.shape[1] != len(names):
                raise SchemaError(
                    f"X has {array.shape[1]} features, but {type(self).__name__} is expecting {len(names)} features "
                    "as input."
                )
            return open_source(array, names=names)
        source = open_source(X)
        missing = [name for name in names if name not in source.schema.names]
        seen = {column.name for column in self.model_.schema.fields}  # with ignored ones, and a file's own target
        extra = [name for name in source.schema.names if name not in seen]
        if missing:
            raise SchemaError(
                f"X lacks {len(missing)} of the {len(names)} columns of the fit: {', '.join(map(repr, missing))}. "
                "Add them, or fit again without them."
            )
        if extra:
            warnings.warn(
                f"X has {len(extra)} columns that the fit did not see, ignored: {', '.join(map(repr, extra))}.",
                stacklevel=4,
            )
        return source

    def _eval_table(self, eval_set: Any) -> LabelledTable:
        if not isinstance(eval_set, tuple | list) or len(eval_set) not in (2, 3):
            raise ConfigError("eval_set is not (X, y) or (X, y, sample_weight): give one tuple.")
        X, y, weight = (*eval_set, None)[:3]
        source = (
            open_source(X) if _is_frame(X) else open_source(check_array(X, dtype=None, ensure_all_finite="allow-nan"))
        )
        return LabelledTable(source, pa.chunked_array([pa.array(self._labels(y, source))]), _weights(weight))

    def _labels(self, y: ArrayLike, source: Source) -> NDArray[Any]:
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        labels = self._checked_labels(
            check_array(column_or_1d(y, warn=True), ensure_2d=False, dtype=None, input_name="y")
        )
        if source.num_rows is not None and source.num_rows != len(labels):
            raise ValueError(f"X has {source.num_rows} rows and y has {len(labels)}: give one label for each row.")
        return labels

    def _checked_labels(self, labels: NDArray[Any]) -> NDArray[Any]:
        return labels

    def _logits(self, X: object) -> NDArray[np.float64]:
        check_is_fitted(self, "model_")
        return self.model_.logits(self._source(X))

    def explain(self, X: object, *, view: View = "centred", rows: Sequence[int] | None = None) -> Explanation:
        """Return the exact account of each row: base + Σ effects = logit (or a regression's prediction).

        Parameters
        ----------
        X : table or array with the columns of the fit
        view : "centred", effects relative to their average over the training rows, or "raw", the terms of the formula
        rows : numbers of the rows wanted, from 0; None: all, which are then held in memory together

        Raises
        ------
        DataError : a row is outside X
        ConfigError : the centred view of a model that has no background
        """
        check_is_fitted(self, "model_")
        return Explainer(self.model_, view=view).of_rows(self._source(X), rows)

    def explain_global(self, X: object = None, *, pairs: Sequence[tuple[str, str]] | None = None) -> GlobalExplanation:
        """Return importance, attention, shape curves and pair surfaces.

        Parameters
        ----------
        X : rows to average over; None: the training rows, from the stored summary
        pairs : names of the pairs whose surfaces are wanted, with X; None: the most important ones

        Raises
        ------
        ConfigError : the model has no background; a pair does not exist, or its surface is not stored
        """
        check_is_fitted(self, "model_")
        return explain_global(self.model_, None if X is None else self._source(X), pairs=pairs)

    def check_explanations(self, X: object, *, seed: int = 0) -> Faithfulness:
        """Return how far explanations can be trusted, measured on the rows of X; see `Faithfulness`."""
        check_is_fitted(self, "model_")
        return check(self.model_, self._source(X), seed=seed)

    def what_if(
        self, X: object, *, row: int = 0, immutable: Sequence[str] = (), threshold: float | None = None
    ) -> list[Change]:
        """Return the smallest changes of a single field that flip the decision about one row, smallest first.

        Parameters
        ----------
        X : table or array with the columns of the fit; row : the row's number in it
        immutable : columns that can't be changed
        threshold : probability above which the second of two classes is decided (default: the training setting); of a
            regression the value that is to be crossed, which has no default

        Raises
        ------
        DataError : the row is outside X
        ConfigError : an immutable column does not exist; a regression without a threshold
        """
        check_is_fitted(self, "model_")
        return what_if(self.model_, self._source(X), row=row, immutable=immutable, threshold=threshold)

    def report(
        self, path: str | Path, X: object = None, y: ArrayLike | None = None, *, sample_weight: ArrayLike | None = None
    ) -> Path:
        """Write one self-contained HTML file that shows the model, and return its path.

        Parameters
        ----------
        path : ends in .html
        X : rows to show, and with y to measure; None: only what the model holds of its training
        y : (rows,) labels; sample_weight : (rows,) weights of at least 0, or None

        Raises
        ------
        ConfigError : y or sample_weight without X; the path is no HTML file or can't be written
        TargetError : y has labels that the fit did not see
        """
        check_is_fitted(self, "model_")
        checked_path(path)
        if X is None:
            if y is not None or sample_weight is not None:
                raise ConfigError("report() has y or sample_weight, but no X: give the rows that they belong to.")
            return write_report(self.model_, path)
        source = self._source(X)
        target = None if y is None else self.model_.target.encode(pa.array(self._labels(y, source)))
        examined = Examined.of_table(self.model_, source, target, _weights(sample_weight), "the table given")
        return write_report(self.model_, path, examined)

    def save(self, folder: str | Path) -> Path:
        """Write the fitted model as a run folder, without pickle; `attfm.load` reads it.

        Raises
        ------
        RunFolderError : the folder exists and is no run folder, or can't be written
        """
        check_is_fitted(self, "model_")
        return self.model_.save(folder)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.input_tags.sparse = False
        return tags


class AFMClassifier(ClassifierMixin, _Estimator):  # type: ignore[misc]
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


class AFMRegressor(RegressorMixin, _Estimator):  # type: ignore[misc]
    """Attentional factorization machine for a numeric target, trained on squared error.

    Parameters and attributes are those of `AFMClassifier`, without classes.

    Examples
    --------
    >>> from attfm import AFMRegressor
    >>> X = [[0, 5.0], [1, 4.0], [0, 1.0], [1, 0.5]] * 20
    >>> model = AFMRegressor(epochs=20).fit(X, [10.0, 8.0, 2.0, 1.0] * 20)
    >>> model.predict([[0, 4.9]]).round()
    array([10.])
    """

    def fit(self, X: object, y: ArrayLike, sample_weight: ArrayLike | None = None, eval_set: Any = None) -> Self:
        """Train on X and y (numbers); see `AFMClassifier.fit`."""
        return self._fit(X, y, sample_weight, eval_set, "regression")

    def predict(self, X: object) -> NDArray[np.float64]:
        """Return (rows,) predictions in the target's unit."""
        return self._logits(X)[:, 0]


def load(folder: str | Path) -> AFMClassifier | AFMRegressor:
    """Return the estimator that was saved in a run folder; its predictions are bit for bit the same.

    Raises
    ------
    RunFolderError : the folder is absent, incomplete, damaged or of a newer format
    """
    model = Model.load(folder)
    kind = AFMRegressor if model.task == "regression" else AFMClassifier
    settings = model.config.data, model.config.model, model.config.train
    values = {name: value for part in settings for name, value in part}
    values["columns"] = values["columns"] or None
    known = kind._get_param_names()
    estimator = kind(**{name: values[name] for name in known if name in values}, random_state=model.config.train.seed)
    names = [column.name for column in model.schema.fields if column.kind not in ("target", "weight")]
    estimator.n_features_in_ = len(names)
    if names != [f"x{i}" for i in range(len(names))]:  # the names that columns of an array get
        estimator.feature_names_in_ = np.asarray(names, dtype=object)
    return estimator._take(model)


def _is_frame(X: object) -> bool:
    """Tell a table with column names from an array or a list."""
    return hasattr(X, "__arrow_c_stream__") or hasattr(X, "__dataframe__") or isinstance(X, pa.Table | pa.RecordBatch)


def _weights(sample_weight: ArrayLike | None) -> NDArray[np.float64] | None:
    return None if sample_weight is None else np.asarray(sample_weight, np.float64)
