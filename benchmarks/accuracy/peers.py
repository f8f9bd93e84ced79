"""The peers: each fit yields its scorer, and the boosted trees a second one, fitted again on the validation rows too.

The trees stop after 50 rounds without a better loss on the validation rows, after 3,000 at most. The second fit takes
the found number of rounds, so that peers see as many rows as cross-fitted models do.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.accuracy.models import Fitted, Job
from benchmarks.accuracy.tables import Floats

ROUNDS, PATIENCE = 3_000, 50
EPOCHS, EPOCH_PATIENCE = 50, 5  # of the networks
PREFIX = "column_"
BINS = 32
MISSING = "(missing)"


class Codes:
    """Categories of some rows as whole numbers from 0 in alphabetical order; NaN for missing and unseen ones."""

    def __init__(self, X: pd.DataFrame, categorical: Sequence[str]) -> None:
        self.codes = {
            name: {value: float(code) for code, value in enumerate(sorted(X[name].dropna().unique()))}
            for name in categorical
        }

    def __call__(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return the table in numbers."""
        columns = dict(X.items())
        for name, codes in self.codes.items():
            columns[name] = X[name].map(codes).astype(np.float64)
        return pd.DataFrame(columns)


def as_text(X: pd.DataFrame, categorical: Sequence[str]) -> pd.DataFrame:
    """Return the table with its categories as text, missing ones under a name of their own."""
    columns = dict(X.items())
    for name in categorical:
        columns[name] = X[name].astype(object).where(X[name].notna(), MISSING).astype(str).astype(object)
    return pd.DataFrame(columns)


def lightgbm(job: Job) -> Iterator[Fitted]:
    """Yield LightGBM with early stopping, then fitted again."""
    import lightgbm

    settings = {
        "objective": "regression" if job.regression else "binary",
        "learning_rate": 0.05,
        "seed": job.seed,
        "num_threads": job.threads,
        "verbose": -1,
    }
    names = list(job.table.categorical)

    def scorer(booster: Any, codes: Codes) -> Callable[[pd.DataFrame], Floats]:
        return lambda X: np.asarray(booster.predict(codes(X), num_threads=job.threads), np.float64)

    X, y = job.rows(job.table.parts.train)
    codes = Codes(X, names)
    train = lightgbm.Dataset(codes(X), y, categorical_feature=names, free_raw_data=False)
    X_valid, y_valid = job.rows(job.table.parts.valid)
    valid = lightgbm.Dataset(codes(X_valid), y_valid, reference=train)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    booster = lightgbm.train(settings, train, ROUNDS, valid_sets=[valid], callbacks=[stop])
    rounds = max(booster.best_iteration, 1)
    yield Fitted(scorer(booster, codes), facts={"rounds": rounds})

    X, y = job.rows(job.learned)
    codes = Codes(X, names)
    booster = lightgbm.train(settings, lightgbm.Dataset(codes(X), y, categorical_feature=names), rounds)
    yield Fitted(scorer(booster, codes), "_refit", "training and validation", {"rounds": rounds})


def catboost(job: Job) -> Iterator[Fitted]:
    """Yield CatBoost with early stopping, then fitted again with the learning rate that it had chosen."""
    from catboost import CatBoostClassifier, CatBoostRegressor

    names = list(job.table.categorical)
    settings: dict[str, Any] = {
        "cat_features": names,
        "random_seed": job.seed,
        "thread_count": job.threads,
        "allow_writing_files": False,
        "verbose": False,
    }
    kind = CatBoostRegressor if job.regression else CatBoostClassifier

    def scorer(model: Any) -> Callable[[pd.DataFrame], Floats]:
        if job.regression:
            return lambda X: np.asarray(model.predict(as_text(X, names)), np.float64)
        return lambda X: np.asarray(model.predict_proba(as_text(X, names))[:, 1], np.float64)

    X, y = job.rows(job.table.parts.train)
    X_valid, y_valid = job.rows(job.table.parts.valid)
    model = kind(iterations=ROUNDS, early_stopping_rounds=PATIENCE, **settings)
    model.fit(as_text(X, names), y, eval_set=(as_text(X_valid, names), y_valid))
    facts = {"rounds": model.tree_count_, "learning_rate": round(model.learning_rate_, 5)}
    yield Fitted(scorer(model), facts=facts)

    X, y = job.rows(job.learned)
    model = kind(iterations=model.tree_count_, learning_rate=model.learning_rate_, **settings)
    model.fit(as_text(X, names), y)
    yield Fitted(scorer(model), "_refit", "training and validation", facts)


def ebm(job: Job) -> Iterator[Fitted]:
    """Yield an explainable boosting machine; more threads than one hung here."""
    from interpret.glassbox import ExplainableBoostingClassifier, ExplainableBoostingRegressor

    # It says so of its own pictures, which are not used.
    warnings.filterwarnings("ignore", message="Missing values detected", category=UserWarning)
    names = job.table.categorical
    kinds = ["nominal" if name in names else "continuous" for name in job.table.X]
    kind = ExplainableBoostingRegressor if job.regression else ExplainableBoostingClassifier
    X, y = job.rows(job.learned)
    model = kind(feature_types=kinds, n_jobs=1, random_state=job.seed).fit(as_text(X, names), y)

    def score(rows: pd.DataFrame) -> Floats:
        found = (
            model.predict(as_text(rows, names)) if job.regression else model.predict_proba(as_text(rows, names))[:, 1]
        )
        return np.asarray(found, np.float64)

    yield Fitted(score, rows="training and validation", facts={"pairs": sum(len(t) > 1 for t in model.term_features_)})


class Ids:
    """Each column as ids from 1, 0 for missing and unseen: categories by their codes, numbers by quantile bins."""

    def __init__(self, X: pd.DataFrame, categorical: Sequence[str]) -> None:
        self.codes = Codes(X, categorical)
        self.edges = {
            name: np.unique(np.nanquantile(X[name].to_numpy(np.float64), np.linspace(0, 1, BINS + 1)[1:-1]))
            for name in X
            if name not in categorical
        }

    def sizes(self) -> dict[str, int]:
        """Return how many ids each column has."""
        sizes = {name: len(codes) + 1 for name, codes in self.codes.codes.items()}
        return sizes | {name: len(edges) + 2 for name, edges in self.edges.items()}

    def __call__(self, X: pd.DataFrame) -> dict[str, Any]:
        """Return the ids of each column."""
        coded = self.codes(X)
        ids = {name: (coded[name] + 1).fillna(0).to_numpy(np.int64) for name in self.codes.codes}
        for name, edges in self.edges.items():
            values = X[name].to_numpy(np.float64)
            ids[name] = np.where(np.isnan(values), 0, np.searchsorted(edges, values, side="right") + 1)
        return ids


def afm_deepctr(job: Job) -> Iterator[Fitted]:
    """Yield DeepCTR-Torch's AFM with the parameters of its best epoch; it has no early stopping that restores them."""
    import torch
    from deepctr_torch.inputs import SparseFeat
    from deepctr_torch.models import AFM

    torch.set_num_threads(job.threads)
    X, y = job.rows(job.table.parts.train)
    X_valid, y_valid = job.rows(job.table.parts.valid)
    # It keeps embeddings by name in a torch.nn.ModuleDict, in which a column can't be `children`, or `type`.
    X, X_valid = X.add_prefix(PREFIX), X_valid.add_prefix(PREFIX)
    ids = Ids(X, [PREFIX + name for name in job.table.categorical])
    fields = [SparseFeat(name, size, embedding_dim=16) for name, size in ids.sizes().items()]
    task = "regression" if job.regression else "binary"
    model = AFM(fields, fields, attention_factor=16, task=task, seed=job.seed, device="cpu")
    model.compile("adam", "mse" if job.regression else "binary_crossentropy", metrics=[])
    centre, spread = (y.mean(), y.std()) if job.regression else (0.0, 1.0)
    train, valid = ids(X), ids(X_valid)
    batch = int(np.clip(2 ** round(np.log2(len(y) / 40)), 16, 1024))

    def score(rows: dict[str, Any]) -> Floats:
        return np.asarray(model.predict(rows, 4096)[:, 0], np.float64) * spread + centre

    best, waited, kept, epochs = np.inf, 0, model.state_dict(), 0
    while epochs < EPOCHS and waited < EPOCH_PATIENCE:
        model.fit(train, (y - centre) / spread, batch_size=batch, epochs=1, verbose=0)
        epochs += 1
        loss, waited = validation_loss(y_valid, score(valid), job.regression), waited + 1
        if loss < best:
            best, waited, kept = loss, 0, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    yield Fitted(lambda rows: score(ids(rows.add_prefix(PREFIX))), facts={"epochs": epochs})


def validation_loss(y: Floats, scores: Floats, regression: bool) -> float:
    """Return the mean squared error, or the log loss."""
    if regression:
        return float(np.mean((scores - y) ** 2))
    scores = np.clip(scores, 1e-7, 1 - 1e-7)
    return float(-np.mean(np.where(y > 0, np.log(scores), np.log1p(-scores))))


def realmlp(job: Job) -> Iterator[Fitted]:
    """Yield pytabkit's RealMLP with its tuned defaults, its best epoch chosen by the validation rows."""
    from pytabkit import RealMLP_TD_Classifier, RealMLP_TD_Regressor

    names = list(job.table.categorical)
    kind = RealMLP_TD_Regressor if job.regression else RealMLP_TD_Classifier
    model = kind(device="cpu", random_state=job.seed, n_threads=job.threads, verbosity=0)
    X, y = job.rows(job.table.parts.train)
    X_valid, y_valid = job.rows(job.table.parts.valid)
    means = X.drop(columns=names).mean()

    def ready(rows: pd.DataFrame) -> pd.DataFrame:  # it takes no missing numbers
        return as_text(rows, names).fillna(means)

    target = (lambda values: values) if job.regression else (lambda values: values.astype(np.int64))
    model.fit(ready(X), target(y), ready(X_valid), target(y_valid), cat_col_names=names)
    if job.regression:
        yield Fitted(lambda rows: np.asarray(model.predict(ready(rows)), np.float64).ravel())
    else:
        yield Fitted(lambda rows: np.asarray(model.predict_proba(ready(rows))[:, 1], np.float64))
