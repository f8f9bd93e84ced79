"""The models that are compared: attfm with several settings, and peers. Each fit yields one or more scorers.

What a model needs is imported when it is fitted, so that its process holds nothing else and an absent package stops
nobody.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pandas as pd

from benchmarks.accuracy.scores import scores
from benchmarks.accuracy.tables import Floats, RowNumbers, Table
from benchmarks.remembered_pairs import remembered_pairs

Rows = Literal["training", "training and validation"]
TIME_COLUMN = "row_time"


@dataclass(frozen=True)
class Job:
    """One fit: a table, a seed and the processors it may use."""

    table: Table
    seed: int
    threads: int

    @property
    def regression(self) -> bool:
        """Whether values are predicted, not classes."""
        return self.table.task == "regression"

    @property
    def learned(self) -> RowNumbers:
        """The rows that teach, validation rows included."""
        return np.concatenate([self.table.parts.train, self.table.parts.valid])

    def rows(self, numbers: RowNumbers) -> tuple[pd.DataFrame, Floats]:
        """Return X and y of some rows."""
        return self.table.X.iloc[numbers], self.table.y[numbers]


@dataclass(frozen=True)
class Fitted:
    """A fitted model.

    Attributes
    ----------
    score : callable, the probability of class 1, or the value, for each row of a DataFrame
    suffix : str, added to the model's name: "_refit" where it was fitted again with the validation rows
    rows : which rows taught it
    facts : mapping, what is worth knowing of the fit, such as its rounds
    """

    score: Callable[[pd.DataFrame], Floats]
    suffix: str = ""
    rows: Rows = "training"
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A model by name.

    Attributes
    ----------
    fit : callable, yields what was fitted; the seconds of the second count from the start
    packages : tuple of str, the distributions it needs
    about : str, one line of the documentation
    limit : float or None, seconds after which a run is given up
    """

    fit: Callable[[Job], Iterator[Fitted]]
    packages: tuple[str, ...]
    about: str
    limit: float | None = None

    def absent(self) -> list[str]:
        """Return the packages that are not installed."""
        missing = []
        for package in self.packages:
            if package == "attfm":  # the working tree's, installed or not
                continue
            try:
                version(package)
            except PackageNotFoundError:
                missing.append(package)
        return missing


class UnavailableError(Exception):
    """A model that this version of attfm, or this table, does not allow; the message is a sentence."""


def attfm(*, needs: tuple[str, ...] = (), all_rows: bool = False, **settings: Any) -> Callable[[Job], Iterator[Fitted]]:
    """Return the fit of an estimator with these settings and the defaults otherwise.

    Parameters
    ----------
    needs : tuple of str, parameters that the estimator must have
    all_rows : bool, whether training and validation rows are given together, for the model to divide itself
    **settings : parameters of the estimator; those that it does not have are left out
    """

    def fit(job: Job) -> Iterator[Fitted]:
        estimator, known = _estimator(job)
        if missing := [name for name in needs if name not in known]:
            raise UnavailableError(f"This version of attfm has no setting {', '.join(missing)}.")
        given = {name: value for name, value in settings.items() if name in known}
        model = estimator(**_told(job, known), **given)
        if all_rows:
            X, y = _timed(job, job.learned)
            facts = _facts(model.fit(X, y), given) | _out_of_fold(model, y, job.regression)
            yield Fitted(_scorer(model, job), rows="training and validation", facts=facts)
        else:
            model.fit(*_timed(job, job.table.parts.train), eval_set=_timed(job, job.table.parts.valid))
            yield Fitted(_scorer(model, job), facts=_facts(model, given))

    return fit


def tuned(job: Job) -> Iterator[Fitted]:
    """Yield attfm with the settings that 30 trials found, judged by the validation rows."""
    estimator, known = _estimator(job)
    if not hasattr(estimator, "tune"):
        raise UnavailableError("This version of attfm does not tune.")
    X, y = _timed(job, job.table.parts.train)
    valid = _timed(job, job.table.parts.valid)
    model = estimator(**_told(job, known)).tune(X, y, eval_set=valid, trials=30)
    yield Fitted(_scorer(model, job), facts=_facts(model, {"trials": 30}))


def _estimator(job: Job) -> tuple[Any, set[str]]:
    import torch

    from attfm import AFMClassifier, AFMRegressor

    torch.set_num_threads(job.threads)
    estimator = AFMRegressor if job.regression else AFMClassifier
    return estimator, set(inspect.signature(estimator.__init__).parameters)


def _told(job: Job, known: set[str]) -> dict[str, Any]:
    """Return what each estimator is told: the seed, the categorical columns, and that rows come in time if they do."""
    columns = {name: {"kind": "categorical"} for name in job.table.categorical}
    told: dict[str, Any] = {"random_state": job.seed, "verbose": False, "columns": columns}
    if job.table.times is not None and "split" in known:
        told["split"] = f"time:{TIME_COLUMN}"
    if job.table.times is not None:
        columns[TIME_COLUMN] = {"kind": "ignored"}
    return told


def _timed(job: Job, numbers: RowNumbers) -> tuple[pd.DataFrame, Floats]:
    """Return X and y of some rows, with the times of the rows as a column that is no input, where there are times."""
    X, y = job.rows(numbers)
    return X if job.table.times is None else X.assign(**{TIME_COLUMN: job.table.times[numbers]}), y


def _scorer(model: Any, job: Job) -> Callable[[pd.DataFrame], Floats]:
    if job.regression:
        return lambda X: np.asarray(model.predict(X), np.float64)
    return lambda X: np.asarray(model.predict_proba(X)[:, 1], np.float64)


def _facts(model: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that were given, how many models and epochs there were, and how many pairs are remembered."""
    facts = {
        "settings": dict(settings),
        "models": getattr(model.model_.facts, "models", None),
        "epochs": len(model.history_),
        "remembered_pairs": remembered_pairs(model.model_),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _out_of_fold(model: Any, y: Floats, regression: bool) -> dict[str, Any]:
    """Return the scores of the rows that taught, each by the one model that it did not teach; nothing for one model."""
    found = getattr(model, "oof_", None)
    if found is None:
        return {}
    found = found[:, 1] if found.ndim == 2 else found
    rows = np.isfinite(found)
    return {"out_of_fold": scores(y[rows], found[rows], regression=regression)}


def _peer(name: str) -> Callable[[Job], Iterator[Fitted]]:
    """Return the fit of a peer, whose module is imported when it runs."""

    def fit(job: Job) -> Iterator[Fitted]:
        from benchmarks.accuracy import peers

        yield from getattr(peers, name)(job)

    return fit


_PLAIN: dict[str, Any] = {"rates": False, "memory_pairs": 0}  # the formula alone, without statistics of the target
_OURS = ("attfm", "torch")
MODELS: Mapping[str, Model] = MappingProxyType(
    {
        "attfm": Model(attfm(), _OURS, "attfm's defaults, with the validation rows as `eval_set`"),
        "attfm_folds": Model(
            attfm(needs=("n_models",), all_rows=True), _OURS,
            "the defaults with training and validation rows together, which all teach in the end: several cross-fitted "
            "models, or one that is trained again on all rows, as the defaults choose",
        ),
        "attfm_tuned": Model(tuned, (*_OURS, "optuna"), "attfm after 30 trials of `tune`"),
        "attfm_one": Model(
            attfm(needs=("n_models",), n_models=1, n_seeds=1), _OURS, "the defaults as one model on any table"
        ),
        "attfm_no_memory": Model(
            attfm(needs=("memory_pairs",), memory_pairs=0), _OURS, "the defaults without pair memory"
        ),
        "nested_plain": Model(attfm(preset="nested", **_PLAIN), _OURS, "preset `nested`, no statistics of the target"),
        "paper": Model(attfm(preset="paper", **_PLAIN), _OURS, "preset `paper` (Xiao et al.), no statistics"),
        "fwfm": Model(attfm(preset="fwfm", **_PLAIN), _OURS, "preset `fwfm` (Pan et al.), no statistics"),
        "fm": Model(attfm(preset="fm", **_PLAIN), _OURS, "preset `fm` (Rendle), no statistics"),
        "linear": Model(attfm(preset="linear", **_PLAIN), _OURS, "preset `linear`, no statistics"),
        "paper_stats": Model(attfm(preset="paper"), _OURS, "preset `paper` with the statistics of the defaults"),
        "fwfm_stats": Model(attfm(preset="fwfm"), _OURS, "preset `fwfm` with the statistics of the defaults"),
        "fm_stats": Model(attfm(preset="fm"), _OURS, "preset `fm` with the statistics of the defaults"),
        "lightgbm": Model(_peer("lightgbm"), ("lightgbm",), "LightGBM: learning rate .05, its own category splits"),
        "catboost": Model(_peer("catboost"), ("catboost",), "CatBoost: its defaults, `cat_features`"),
        "ebm": Model(
            _peer("ebm"), ("interpret-core",), "EBM (interpret-core): its defaults, one thread; its bags cut their "
            "validation rows from training and validation rows", limit=900,
        ),
        "afm_deepctr": Model(
            _peer("afm_deepctr"), ("deepctr-torch", "torch"), "DeepCTR-Torch's AFM, numbers as 32 quantile bins",
            limit=900,
        ),
        "realmlp": Model(_peer("realmlp"), ("pytabkit", "torch"), "pytabkit's RealMLP, tuned defaults", limit=900),
    }
)  # fmt: skip
