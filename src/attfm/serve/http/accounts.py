"""The account of rows of Python values: exact effects, and what would have to be otherwise."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from attfm.errors import ConfigError
from attfm.explain.explainer import Explainer, explain_global
from attfm.explain.explanation import Explanation
from attfm.explain.global_explanation import GlobalExplanation
from attfm.explain.what_if import Changes, what_if
from attfm.model.bundle import Model
from attfm.serve.http.scorer import encoded_rows, open_rows


class Accounts:
    """Explains rows by a model: against the averages over its training rows, where it has them, else raw."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @cached_property
    def explainer(self) -> Explainer:
        """The explainer, made when it is first asked."""
        try:
            return Explainer(self.model)
        except ConfigError:
            return Explainer(self.model, view="raw")

    @cached_property
    def overview(self) -> GlobalExplanation | None:
        """The model as a whole, as stored; None where nothing is."""
        try:
            return explain_global(self.model)
        except ConfigError:
            return None

    def explain(self, rows: Sequence[dict[str, Any]]) -> Explanation:
        """Return the explanation of some rows."""
        # Not by the explainer's own reading, which warns of unknown values, with the values: here they are counted.
        return self.explainer.explain(encoded_rows(self.model, rows), np.arange(len(rows)))

    def what_if(self, row: dict[str, Any], *, immutable: Sequence[str] = (), threshold: float | None = None) -> Changes:
        """Return the smallest changes of one field that flip the decision about a row."""
        return what_if(self.model, open_rows(self.model, [row]), immutable=immutable, threshold=threshold)
