"""How far models that differ by chance agree on what is important."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Self

import numpy as np
from numpy.typing import NDArray

from attfm.explain.summary import Summary

Floats = NDArray[np.float64]
_TOP = 10


@dataclass(frozen=True)
class Stability:
    """How far refits agree on what is important.

    Attributes
    ----------
    refits : int, how many
    fields, pairs : float or None, mean Spearman correlation of the importances of fields and of pairs, over all two of
        the models compared; None for fewer than two fields or pairs
    top : float, mean share of the `largest` most important effects that two models have in common
    largest : int, ten, or half of all where there are fewer than twenty
    """

    refits: int
    fields: float | None
    pairs: float | None
    top: float
    largest: int = _TOP

    @classmethod
    def between(cls, models: Sequence[Summary], *, refits: int) -> Self:
        """Return the agreement of two or more models, by their summaries over the same rows.

        Examples
        --------
        >>> from attfm import AFMClassifier
        >>> X = [[0, 5.0], [1, 4.0], [0, 1.0], [1, 0.5]] * 20
        >>> model = AFMClassifier(epochs=5, n_bags=3).fit(X, ["low", "low", "high", "high"] * 20)
        >>> stability = model.explain_global().stability()
        >>> stability.refits, stability.largest, round(stability.fields, 3)
        (3, 1, 1.0)
        """
        fields = [model.field_importance.sum(1) for model in models]
        pairs = [model.pair_importance.sum(1) for model in models]
        both = [np.concatenate(sizes) for sizes in zip(fields, pairs, strict=True)]
        largest = max(min(_TOP, len(both[0]) // 2), 1)
        tops = [set(np.argsort(-sizes, kind="stable")[:largest].tolist()) for sizes in both]
        shared = [len(first & second) / largest for first, second in combinations(tops, 2)]
        return cls(refits, _agreement(fields), _agreement(pairs), float(np.mean(shared)), largest)


def _agreement(importances: list[Floats]) -> float | None:
    """Return the mean Spearman correlation between the rows of importances; None for fewer than two numbers each."""
    if len(importances[0]) < 2:
        return None
    ranks = np.argsort(np.argsort(importances, axis=1), axis=1).astype(np.float64)
    return float(np.mean([np.corrcoef(first, second)[0, 1] for first, second in combinations(ranks, 2)]))
