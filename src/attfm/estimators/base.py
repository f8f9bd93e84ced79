"""What classifier and regressor share: the parameters, fitting and saving."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from attfm.config import Config, DataConfig, ModelConfig, PresetName, Task, TrainConfig
from attfm.data.inference import infer_schema
from attfm.errors import TargetError
from attfm.estimators.explained import Explained
from attfm.estimators.inputs import weights
from attfm.model.bundle import Model
from attfm.train.fit import LabelledTable, fit
from attfm.train.progress import FitProgress

_DATA, _MODEL, _TRAIN = DataConfig(), ModelConfig(), TrainConfig()  # the defaults of all settings
_Section = TypeVar("_Section", DataConfig, ModelConfig, TrainConfig)
_TARGET = "target"  # what the target is called in messages: y has no name


class Estimator(Explained, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What classifier and regressor share."""

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
        per_class = self.class_weight
        parameters |= {
            "seed": int(seed),
            "task": task,
            "columns": self.columns or {},
            "class_weight": {str(k): v for k, v in per_class.items()} if isinstance(per_class, Mapping) else per_class,
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
        valid = None if eval_set is None else self._labelled(eval_set, "eval_set")
        schema = infer_schema(source.batches(), source.schema, target=None, config=config.data, source=source.name)
        with FitProgress(config.train.epochs, show=self.verbose) as progress:
            fitted = fit(
                LabelledTable(source, pa.chunked_array([pa.array(labels)]), weights(sample_weight)),
                schema=schema, config=config, target_name=_TARGET, valid_table=valid,
                on_epoch=progress.on_epoch, on_batch=progress.on_batch, on_refit=progress.on_refit,
            )  # fmt: skip
        return self._take(fitted.model, labels)

    def _take(self, model: Model, labels: NDArray[Any] | None = None) -> Self:
        """Become the fitted estimator of a model; `labels` are those it was fitted on, where they are at hand."""
        self.model_ = model
        self.history_ = model.history
        return self

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
