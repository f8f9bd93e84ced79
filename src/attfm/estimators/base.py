"""What classifier and regressor share: the parameters, fitting and saving."""

import time
from collections.abc import Mapping, Sequence
from datetime import date
from functools import update_wrapper
from inspect import signature
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state

from attfm.config import CalibrationSetting, Config, DataConfig, ModelConfig, PresetName, TaskName, TrainConfig
from attfm.data.inference import infer_schema
from attfm.data.sources.source import Source, open_source
from attfm.data.split_column import ColumnSplit, GroupSplit, TimeSplit
from attfm.errors import ConfigError, TargetError, listed
from attfm.estimators.explained import Explained
from attfm.estimators.inputs import warn_of_numbers_as_text
from attfm.estimators.labels import label_column, label_name, read_weights
from attfm.model.bundle import Model
from attfm.model.facts import RunFacts
from attfm.model.run_folder import save_model
from attfm.model.task import check_class_weights
from attfm.train.continued import Continuation, day_told
from attfm.train.estimate import SAMPLE_ROWS, Whole, of_sample, plan_of, sample_in_memory
from attfm.train.fit import Fitted, fit
from attfm.train.footprint import memory_now
from attfm.train.observer import FitProgress
from attfm.train.plan import Plan
from attfm.train.prepare import LabelledTable, Tables
from attfm.train.tuning import DEFAULT_TRIALS, SPACE, Search, fit_tuned
from attfm.train.tuning_progress import TuningProgress

_DATA, _MODEL, _TRAIN = DataConfig(), ModelConfig(), TrainConfig()  # the defaults of all settings
_Section = TypeVar("_Section", DataConfig, ModelConfig, TrainConfig)


if TYPE_CHECKING:
    from builtins import classmethod as of_class_too  # what type checkers make of it
else:

    class of_class_too:
        """Method that can be called on the class too, and then is called on an instance with the default parameters."""

        def __init__(self, method):
            self._method = method
            update_wrapper(self, method)

        def __get__(self, instance, owner):
            return MethodType(self._method, owner() if instance is None else instance)


class Estimator(Explained, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What classifier and regressor share."""

    columns: dict[str | int, dict[str, Any]] | None
    task: TaskName | Literal["auto"]
    negative_rate: float
    class_weight: Mapping[Any, float] | Literal["balanced"] | None
    random_state: int | np.random.RandomState | None
    oof_: NDArray[np.float64] | None
    split: TimeSplit | GroupSplit | str | None

    def __init__(
        self,
        *,
        preset: PresetName = _MODEL.preset,
        dim: int = _MODEL.dim, attention_dim: int = _MODEL.attention_dim,
        pairs: bool | None = None, attention: bool | None = None, scale: Literal["one", "pairs"] | None = None,
        pair_gate: bool | None = None, pair_bias: bool | None = None, learned_projection: bool | None = None,
        pair_dropout: float = _MODEL.pair_dropout, weight_dropout: float | Literal["auto"] = _MODEL.weight_dropout,
        pooled_dropout: float = _MODEL.pooled_dropout, embedding_std: float | Literal["auto"] = _MODEL.embedding_std,
        attention_std: float | None = _MODEL.attention_std, projection_std: float | None = _MODEL.projection_std,
        memory_pairs: int | Literal["auto"] = _MODEL.memory_pairs, memory_min_count: int = _MODEL.memory_min_count,
        memory_entries: int = _MODEL.memory_entries,
        numeric: Literal["quantile", "uniform", "scaled"] = _DATA.numeric,
        max_bins: int | Literal["auto"] = _DATA.max_bins,
        min_count: int = _DATA.min_count, columns: dict[str | int, dict[str, Any]] | None = None,
        task: TaskName | Literal["auto"] = _TRAIN.task,
        epochs: int = _TRAIN.epochs, batch_size: int | Literal["auto"] = _TRAIN.batch_size,
        optimizer: Literal["adam", "sgd", "adagrad"] = _TRAIN.optimizer,
        learning_rate: float | Literal["auto"] = _TRAIN.learning_rate,
        falling_rate: bool = _TRAIN.falling_rate,
        embedding_decay: float = _TRAIN.embedding_decay, linear_decay: float = _TRAIN.linear_decay,
        embedding_ridge: float | Literal["auto"] = _TRAIN.embedding_ridge,
        linear_ridge: float | Literal["auto"] = _TRAIN.linear_ridge,
        memory_ridge: float = _TRAIN.memory_ridge,
        statistic_smoothness: float | Literal["auto"] = _TRAIN.statistic_smoothness,
        adam_eps: float = _TRAIN.adam_eps, rates: bool = _TRAIN.rates, rate_levels: int = _TRAIN.rate_levels,
        attention_l2: float = _TRAIN.attention_l2, smoothness: float | Literal["auto"] = _TRAIN.smoothness,
        knots: int | Literal["auto"] = _TRAIN.knots, smoothness_by_field: bool = _TRAIN.smoothness_by_field,
        additive_start: bool | Literal["auto"] = _TRAIN.additive_start,
        base_rate_start: bool = _TRAIN.base_rate_start, averaging: float | Literal["auto"] = _TRAIN.averaging,
        split: TimeSplit | GroupSplit | str | None = _TRAIN.split,
        validation_fraction: float = _TRAIN.validation_fraction,
        early_stopping: bool = _TRAIN.early_stopping, patience: int | Literal["auto"] = _TRAIN.patience,
        refit: bool | Literal["auto"] = _TRAIN.refit,
        warm_start_from: Literal["fm"] | None = _TRAIN.warm_start_from,
        n_models: int | Literal["auto"] = _TRAIN.n_models, n_seeds: int | Literal["auto"] = _TRAIN.n_seeds,
        n_bags: int = _TRAIN.n_bags,
        threshold: float = _TRAIN.threshold, calibrate: CalibrationSetting = _TRAIN.calibrate,
        device: Literal["auto", "cpu", "cuda"] = _TRAIN.device,
        backend: Literal["auto", "native", "reference"] = _TRAIN.backend,
        negative_rate: float = _TRAIN.negative_rate,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        verbose: bool | Literal["auto"] = "auto", random_state: int | np.random.RandomState | None = 0,
    ) -> None:  # fmt: skip
        given = dict(locals())
        given.pop("self")
        for name, value in given.items():  # all as they are, as scikit-learn wants it
            setattr(self, name, value)

    @classmethod
    def _of(cls, model: Model) -> Self:
        """Return the fitted estimator of a model, with the settings that it was trained with as parameters."""
        sections = model.config.data, model.config.model, model.config.train
        values = {name: value for section in sections for name, value in section}
        of_preset = model.config.model.of_preset()
        values |= {name: None for name, value in of_preset.items() if values[name] == value}
        values["columns"] = values["columns"] or None
        values["task"] = "auto" if model.task.name == cls._usual_task(len(model.task.classes)) else model.task.name
        known = cls._get_param_names()
        estimator = cls(**{name: values[name] for name in known if name in values}, random_state=values["seed"])
        names = [column.name for column in model.schema.columns if column.kind not in ("target", "weight")]
        estimator.n_features_in_ = len(names)
        if names != [f"x{i}" for i in range(len(names))]:  # the names that columns of an array get
            estimator.feature_names_in_ = np.asarray(names, dtype=object)
        return estimator._take(model)

    @staticmethod
    def _usual_task(classes: int) -> TaskName:
        """Return the task that so many classes make."""
        return "binary" if classes <= 2 else "multiclass"

    def _config(self, classes: int, names: Sequence[str] = ()) -> Config:
        """Return the parameters as checked settings, for a target of so many distinct values and columns of X."""
        possible = dict.fromkeys(("auto", *(self._usual_task(n) for n in (2, 3))))
        if self.task not in possible:
            raise ConfigError(
                f"Setting 'task' in the parameters of {type(self).__name__} is {self.task!r}: it is one of "
                f"{', '.join(possible)}."
            )
        parameters = self.get_params(deep=False)
        seed = self.random_state
        if not isinstance(seed, int | np.integer) or seed < 0:
            seed = check_random_state(seed).randint(2**31)
        parameters |= {
            "seed": int(seed),
            "split": str(self.split) if isinstance(self.split, ColumnSplit) else self.split,
            "task": self._usual_task(classes) if self.task == "auto" else self.task,
            "columns": _by_name(self.columns, names) if isinstance(self.columns, Mapping) else self.columns or {},
            "class_weight": _named(self.class_weight) if isinstance(self.class_weight, Mapping) else self.class_weight,
        }

        def section(kind: type[_Section]) -> _Section:
            values = {name: value for name, value in parameters.items() if name in kind.model_fields}
            if kind is ModelConfig:  # a factor of the formula that is not given is the preset's
                values = {name: value for name, value in values.items() if value is not None}
            return kind.parse(values, where=f"the parameters of {type(self).__name__}")

        return Config(data=section(DataConfig), model=section(ModelConfig), train=section(TrainConfig))

    @of_class_too
    def tune(
        self, X: object, y: ArrayLike, sample_weight: ArrayLike | None = None, eval_set: Any = None, *,
        trials: int = DEFAULT_TRIALS, study: str | Path | None = None,
    ) -> Self:  # fmt: skip
        """Return a new estimator, fitted with the parameters that give the lowest validation loss of many trials.

        As `GridSearchCV.best_estimator_`: this estimator stays as it is, and the new one has the best parameters among
        its own. Parameters that are not at their defaults stay; of the others those that matter most are tuned (see
        docs/tuning.md). `AFMClassifier.tune(X, y)` is `AFMClassifier().tune(X, y)`.

        Parameters
        ----------
        X, y, sample_weight, eval_set : as in `fit`; the rows of eval_set, or else the part that is held out, decide
        trials : int, fits that are tried, those that the study has already included; the first has the parameters given
        study : path or None, an SQLite file that keeps the trials, so that another call with the same arguments goes
            on with them; None: they are not kept

        Returns
        -------
        estimator : fitted; `estimator.model_.facts.tuning` says what the trials came to

        Raises
        ------
        MissingExtraError : Optuna is not installed
        ConfigError : there are no validation rows; the file is no study, or one of other data or parameters
        """
        if not isinstance(trials, int | np.integer) or trials < 1:
            raise ConfigError(f"trials is {trials!r}: give a number of at least 1.")
        tuned = clone(self)
        given = [name for name, value in _defaults(type(tuned)).items() if getattr(tuned, name) != value]
        search = Search(int(trials), None if study is None else Path(study).expanduser(), given)
        fitted: Self = tuned._fit(X, y, sample_weight, eval_set, search)
        return fitted

    def _fit(
        self, X: object, y: ArrayLike, sample_weight: ArrayLike | None, eval_set: Any, search: Search | None = None
    ) -> Self:
        source, labels, config = self._read(X, y)
        schema = infer_schema(source.batches(), source.schema, target=None, config=config.data, source=source.name)
        warn_of_numbers_as_text(X, schema)
        valid = None if eval_set is None else self._labelled(eval_set, "eval_set", schema)
        table = LabelledTable(source, label_column(labels), read_weights(sample_weight))
        tables = Tables(table, schema, label_name(y), valid=valid)
        if search is None:
            with FitProgress(config.train.epochs, show=self.verbose) as progress:
                fitted = fit(tables, config, progress)
        else:
            with TuningProgress(config.train.epochs, show=self.verbose) as trials:
                fitted = fit_tuned(tables, config, search, trials)
            tuning = fitted.model.facts.tuning
            self.set_params(**({} if tuning is None else tuning.settings))
        self._take(fitted.model, labels)
        self.oof_ = self._out_of_fold(fitted, len(labels))
        return self

    def _learn_on(
        self, X: object, y: ArrayLike, sample_weight: ArrayLike | None, eval_set: Any, *, half_life: float | None,
        evict_unseen: float | None, as_of: str | date | None, refit_bins: bool,
    ) -> Self:  # fmt: skip
        """Learn on from new rows; see `partial_fit`."""
        continuation = Continuation.of(
            self._fitted, half_life=half_life, evict_unseen=evict_unseen, as_of=as_of, refit_bins=refit_bins
        )
        schema = self._fitted.schema
        source = self._aligned(X, schema)
        labels, classes = self._labels(y, source), getattr(self, "classes_", None)
        config = self._config(len(labels if classes is None else classes), source.schema.names)
        valid = None if eval_set is None else self._labelled(eval_set, "eval_set", schema)
        table = LabelledTable(source, label_column(labels), read_weights(sample_weight))
        tables = Tables(table, schema, label_name(y), valid=valid)
        facts = RunFacts(as_of=day_told(continuation.renewal.today))
        with FitProgress(config.train.epochs, show=self.verbose) as progress:
            fitted = fit(tables, config, progress, facts=facts, continued=continuation)
        self._take(fitted.model, classes)
        self.oof_ = self._out_of_fold(fitted, len(labels))
        return self

    def _read(self, X: object, y: ArrayLike) -> tuple[Source, NDArray[Any], Config]:
        """Return X as a source, its labels and the checked settings."""
        source = self._training_source(X)
        labels = self._labels(y, source)
        if len(labels) < 2:
            raise TargetError("X and y have 1 sample only: nothing can be learned from it. Give more rows.")
        self._check_learnable(labels)
        return source, labels, self._config(len(np.unique(labels)), source.schema.names)

    def plan(self, X: object, y: ArrayLike, sample_weight: ArrayLike | None = None, eval_set: Any = None) -> Plan:
        """Return what `fit` with these arguments will take: features, memory, disk and time; see `attfm.Plan`.

        At most 100,000 rows by chance are encoded and trained on for some steps; the estimator stays as it is.

        Raises
        ------
        DataError, ConfigError : as `fit`
        """
        base, planned = memory_now(), clone(self)
        source, labels, config = planned._read(X, y)
        weight, rows = read_weights(sample_weight), len(labels)
        if rows > SAMPLE_ROWS:
            kept = np.sort(np.random.default_rng(0).choice(rows, SAMPLE_ROWS, replace=False))
            source = open_source(pa.Table.from_batches(source.batches()).take(pa.array(kept)))
            labels, weight = labels[kept], None if weight is None else weight[kept]
        started = time.perf_counter()
        schema = infer_schema(source.batches(), source.schema, target=None, config=config.data, source=source.name)
        valid = None if eval_set is None else planned._labelled(eval_set, "eval_set", schema)
        tables = Tables(LabelledTable(source, label_column(labels), weight), schema, label_name(y), valid=valid)
        with of_sample(len(labels), rows):
            whole = Whole(rows, None if valid is None else len(valid.labels), base=base)
            return plan_of(sample_in_memory(tables, config, whole, looking=time.perf_counter() - started), config)

    @staticmethod
    def _out_of_fold(fitted: Fitted, rows: int) -> NDArray[np.float64] | None:
        """Return probabilities (rows, classes) or predictions (rows,) out of fold, NaN of rows in none, or None."""
        logits = fitted.trained.out_of_fold
        if logits is None:
            return None
        in_folds = np.isfinite(logits).all(1)
        scores = fitted.model.task.scores(logits[in_folds])
        out_of_fold = np.full((rows, *scores.shape[1:]), np.nan)
        out_of_fold[fitted.prepared.numbers[in_folds]] = scores
        return out_of_fold

    def _check_learnable(self, labels: NDArray[Any]) -> None:
        """Raise TargetError where there is nothing to learn in these labels."""

    def _take(self, model: Model, labels: NDArray[Any] | None = None) -> Self:
        """Become the fitted estimator of a model; `labels` are those it was fitted on, where they are at hand."""
        self.model_ = model
        self.history_ = list(model.history)
        self.oof_ = None
        return self

    def save(self, folder: str | Path) -> Path:
        """Write the fitted model as a run folder, without pickle; `attfm.load` reads it.

        Raises
        ------
        RunFolderError : the folder exists and is no run folder, or can't be written
        """
        return save_model(self._fitted, folder)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.input_tags.sparse = False
        return tags


def _defaults(kind: type[Estimator]) -> dict[str, Any]:
    """Return the default of each parameter that can be tuned."""
    parameters = signature(kind).parameters
    return {place.name: parameters[place.name].default for place in SPACE}


def _by_name(columns: Mapping[Any, Any], names: Sequence[str]) -> dict[Any, Any]:
    """Return the settings of columns by name; raise ConfigError where a number is the place of no column."""
    places = {str(place): name for place, name in enumerate(names) if name == f"x{place}"}
    places = places if len(places) == len(names) else {}
    by_name = dict[Any, Any]()
    for key, settings in columns.items():
        name = key
        if isinstance(key, int | np.integer):
            name = str(key) if str(key) in names else places.get(str(key))
        if name is None:
            has = f"numbered 0 to {len(names) - 1:,}" if places else f"called {listed(names)}"
            raise ConfigError(f"There is no column {key} in X, but the settings have one: its columns are {has}.")
        if name in by_name:
            raise ConfigError(f"The settings have column '{name}' twice, by its name and by its place: give one.")
        by_name[name] = settings
    return by_name


def _named(class_weight: Mapping[Any, float]) -> dict[str, float]:
    """Return the weights of classes by the names of their labels; raise ConfigError for what can't be weights."""
    check_class_weights(class_weight)
    names = [str(label) for label in class_weight]
    doubled = [name for name in names if names.count(name) > 1]
    if doubled:
        raise ConfigError(f"Setting 'class_weight' names the class '{doubled[0]}' twice: give it one weight.")
    return dict(zip(names, class_weight.values(), strict=True))
