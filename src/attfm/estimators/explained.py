"""What a fitted estimator says of itself: explanations, checks of them, and the report; and how it ranks items."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attfm.errors import ConfigError
from attfm.estimators.inputs import Inputs
from attfm.estimators.labels import label_column, read_weights
from attfm.explain.explainer import Explainer, explain_global
from attfm.explain.explanation import Explanation, View
from attfm.explain.faithfulness import Faithfulness, check
from attfm.explain.global_explanation import GlobalExplanation
from attfm.explain.what_if import Changes, what_if
from attfm.model.terms import field_pairs
from attfm.report.page import REPORT_FILE, write_report
from attfm.report.rows_shown import Examined
from attfm.serve.ranking.ranker import Ranker
from attfm.train.observer import FitProgress
from attfm.train.prepare import Tables
from attfm.train.refit import refit_with_seeds


class Explained(Inputs):
    """The part of an estimator that explains its predictions."""

    verbose: bool | Literal["auto"]

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
        return Explainer(self._fitted, view=view).of_rows(self._source(X), rows)

    def ranker(self, *, context: Iterable[str] | None = None, item: Iterable[str] | None = None) -> Ranker:
        """Return what ranks many items for one context, without scoring the rows that they make; see `attfm.Ranker`.

        Parameters
        ----------
        context, item : names of the input columns of either side; None: all that the other side lacks

        Raises
        ------
        ConfigError : a column is in both or in neither, is no input, or a side has none
        """
        return Ranker(self._fitted, context=context, item=item)

    @property
    def feature_importances_(self) -> NDArray[np.float64]:
        """Share of each column of the fit in the mean |effect| over the training rows, (columns,), 0 of ignored ones.

        A pair's effect is shared half and half between its two fields, and the parts of a date are summed. The shares
        sum to 1, or are all 0 where nothing has an effect.
        """
        model = self._fitted
        summary = explain_global(model).summary
        of_field = summary.field_importance.sum(1)
        for pair, size in zip(field_pairs(model.module), summary.pair_importance.sum(1), strict=True):
            of_field[pair] += size / 2
        shares = {column.name: 0.0 for column in model.schema.columns if column.kind not in ("target", "weight")}
        for field, size in zip(model.encoder.fields, of_field, strict=True):
            shares[field.column] += size / (of_field.sum() or 1.0)
        return np.array(list(shares.values()))

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
        return explain_global(self._fitted, None if X is None else self._source(X), pairs=pairs)

    def check_explanations(
        self, X: object, *, seed: int = 0, seeds: int = 0, refit_on: Any = None, eval_set: Any = None
    ) -> Faithfulness:
        """Return how far explanations can be trusted, measured on the rows of X; see `Faithfulness`.

        Parameters
        ----------
        X : table or array with the columns of the fit; seed : of the random orders of deletion
        seeds : refits with other seeds, which show what of the importances is chance; each takes as long as the fit
        refit_on : with `seeds`, the (X, y) or (X, y, sample_weight) of the fit, which the model does not keep
        eval_set : with `seeds`, the eval_set of the fit, if there was one

        Raises
        ------
        ConfigError : seeds without refit_on, or refit_on is not what the model was fitted on
        """
        model, source = self._fitted, self._source(X)
        if seeds < 1:
            return check(model, source, seed=seed)
        if refit_on is None:
            raise ConfigError(
                f"seeds={seeds} fits the model again, and needs the rows of the fit: give refit_on=(X, y), "
                "and eval_set= if there was one."
            )
        table = self._labelled(refit_on, "refit_on", model.schema)
        valid = None if eval_set is None else self._labelled(eval_set, "eval_set", model.schema)
        tables = Tables(table, model.schema, model.target.name, valid=valid)
        advice = "Give refit_on=, and eval_set= if there was one, as fit() got them."
        with FitProgress(model.config.train.epochs, show=self.verbose) as progress:
            refits = refit_with_seeds(model, tables, seeds, advice=advice, observer=progress)
        return check(model, source, seed=seed, refits=refits)

    def what_if(
        self, X: object, *, row: int = 0, immutable: Sequence[str] = (), threshold: float | None = None
    ) -> Changes:
        """Return the smallest changes of a single field that flip the decision about one row, smallest first.

        See `attfm.explain.what_if.Change` for what is small. Printed, the result says so where nothing was found.

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
        return what_if(self._fitted, self._source(X), row=row, immutable=immutable, threshold=threshold)

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
        model = self._fitted
        REPORT_FILE.checked(path)
        if X is None:
            if y is not None or sample_weight is not None:
                raise ConfigError("report() has y or sample_weight, but no X: give the rows that they belong to.")
            return write_report(model, path)
        source = self._source(X)
        target = None if y is None else model.target.encode(label_column(self._labels(y, source)))
        examined = Examined.of_table(model, source, target, read_weights(sample_weight), "the table given")
        return write_report(model, path, examined)
