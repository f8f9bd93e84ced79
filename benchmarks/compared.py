"""The three models of compare_explanations.py, and their accounts in one form: attfm's `Explanation`."""

import warnings
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol

import lightgbm
import numpy as np
import pandas as pd
import shap
from interpret.glassbox import ExplainableBoostingClassifier
from numpy.typing import NDArray

from attfm import AFMClassifier
from attfm.explain.explanation import Explanation

Floats = NDArray[np.float64]
# shap says of each booster that its values became a list, though they are an array; EBM says of each fit that its own
# pictures leave out missing values, and none of them is used here.
warnings.filterwarnings("ignore", message="LightGBM binary classifier with TreeExplainer", category=UserWarning)
warnings.filterwarnings("ignore", message="Missing values detected", category=UserWarning)


@dataclass(frozen=True)
class Part:
    """Rows and their labels, 0 or 1."""

    X: pd.DataFrame
    y: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "Part":
        """Return some of the rows."""
        return Part(self.X.iloc[rows], self.y[rows])


class Compared(Protocol):
    """A trained model that gives logits and accounts of rows."""

    name: str

    def logits(self, X: pd.DataFrame) -> Floats:
        """Return (rows,), the model's own."""

    def account(self, X: pd.DataFrame) -> Explanation:
        """Return main and pair effects relative to the training rows, in attfm's form."""


class Attfm:
    """attfm's defaults, stopped by the validation rows."""

    name = "attfm"

    def __init__(self, train: Part, valid: Part, seed: int) -> None:
        self.model = AFMClassifier(random_state=seed, verbose=False)
        self.model.fit(train.X, train.y, eval_set=(valid.X, valid.y))

    def logits(self, X: pd.DataFrame) -> Floats:
        """Return (rows,)."""
        return self.model.decision_function(X)

    def account(self, X: pd.DataFrame) -> Explanation:
        """Return the centred view."""
        return self.model.explain(X)


class EBM:
    """An explainable boosting machine with its defaults: 14 bags, pairs that it finds itself, one thread.

    It cuts validation rows out for each bag itself, so it gets training and validation rows together.
    """

    name = "EBM"

    def __init__(self, train: Part, valid: Part, seed: int) -> None:
        self.model = ExplainableBoostingClassifier(n_jobs=1, random_state=seed)
        self.model.fit(pd.concat([train.X, valid.X]), np.concatenate([train.y, valid.y]))

    def logits(self, X: pd.DataFrame) -> Floats:
        """Return (rows,)."""
        found: Floats = self.model.decision_function(X)
        return found

    def account(self, X: pd.DataFrame) -> Explanation:
        """Return the terms; each term's mean over the training rows is zero already."""
        terms = self.model.eval_terms(X)
        main, pair = np.zeros((len(X), X.shape[1])), np.zeros((len(X), X.shape[1] * (X.shape[1] - 1) // 2))
        places = {pair: p for p, pair in enumerate(combinations(range(X.shape[1]), 2))}
        for number, fields in enumerate(self.model.term_features_):
            side, place = (main, fields[0]) if len(fields) == 1 else (pair, places[tuple(sorted(fields))])
            side[:, place] = terms[:, number]
        return explanation(X, float(self.model.intercept_[0]), main, pair)

    def without_largest(self, X: pd.DataFrame, n: int) -> tuple[Floats, Floats]:
        """Return the logit of each row without its n largest terms, and what the account says it is; (rows,) each."""
        terms, measured = self.model.eval_terms(X), []
        largest = np.argsort(-np.abs(terms), axis=1)[:, :n]
        for row, chosen in enumerate(largest):
            cut = self.model.copy()
            for term in chosen:
                cut.term_scores_[term] = np.zeros_like(cut.term_scores_[term])
            measured.append(float(cut.decision_function(X.iloc[row : row + 1])[0]))
        return np.array(measured), self.logits(X) - np.take_along_axis(terms, largest, axis=1).sum(1)


class Trees:
    """LightGBM, stopped by the validation rows, explained by SHAP's TreeExplainer.

    Categories are numbered in alphabetical order: shap's interaction values do not take LightGBM's category splits.
    """

    name = "LightGBM + SHAP"

    def __init__(self, train: Part, valid: Part, seed: int, *, categorical: bool = False) -> None:
        self.categories = {
            name: sorted(column.dropna().unique())
            for name, column in train.X.items()
            if not pd.api.types.is_numeric_dtype(column)
        }
        named = list(self.categories) if categorical else []
        parts = [
            lightgbm.Dataset(self.encoded(part.X), part.y, categorical_feature=named, free_raw_data=False)
            for part in (train, valid)
        ]
        settings = {"objective": "binary", "learning_rate": 0.05, "seed": seed, "num_threads": 1, "verbose": -1}
        stop = lightgbm.early_stopping(50, verbose=False)
        self.model = lightgbm.train(settings, parts[0], 2000, valid_sets=[parts[1]], callbacks=[stop])

    def encoded(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return the table in numbers, NaN where a category is missing or was not seen."""
        columns: dict[str, Any] = dict(X.items())
        for name, values in self.categories.items():
            columns[name] = X[name].map({value: float(code) for code, value in enumerate(values)}).astype(float)
        return pd.DataFrame(columns)

    def logits(self, X: pd.DataFrame) -> Floats:
        """Return (rows,)."""
        return np.asarray(self.model.predict(self.encoded(X), raw_score=True, num_threads=1), np.float64)

    def values(self, X: pd.DataFrame, background: pd.DataFrame | None = None) -> Floats:
        """Return SHAP values (rows, fields): along the trees' paths, or interventional with a background."""
        if background is None:
            explainer = shap.TreeExplainer(self.model)
        else:
            explainer = shap.TreeExplainer(
                self.model, data=self.encoded(background), feature_perturbation="interventional"
            )
        return np.asarray(explainer.shap_values(self.encoded(X)), np.float64)

    def account(self, X: pd.DataFrame) -> Explanation:
        """Return SHAP's interaction values: the diagonal as main effects, both halves of a pair together."""
        explainer = shap.TreeExplainer(self.model)
        found = np.asarray(explainer.shap_interaction_values(self.encoded(X)), np.float64)
        i, j = np.array(list(combinations(range(X.shape[1]), 2))).T
        main = np.diagonal(found, axis1=1, axis2=2)
        return explanation(X, float(np.ravel(explainer.expected_value)[-1]), main, found[:, i, j] + found[:, j, i])


def explanation(X: pd.DataFrame, base: float, main: Floats, pair: Floats) -> Explanation:
    """Return an account of one output in attfm's form; main (rows, fields), pair (rows, all pairs)."""
    pairs = np.array(list(combinations(range(X.shape[1]), 2)), np.int64)
    return Explanation(
        "centred", tuple(X.columns), pairs, (">50K",), "logit", np.array([base]), main[:, :, None], pair[:, :, None],
        None, np.zeros(pair.shape, np.float32), X.astype(str).to_numpy(object), np.arange(len(X)),
        np.ones(len(pairs), np.bool_),
    )  # fmt: skip
