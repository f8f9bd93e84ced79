"""How far accounts of the same rows agree: the measures of compare_explanations.py, which needs other libraries."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from attfm.explain.explanation import Explanation

Floats = NDArray[np.float64]


def per_field(account: Explanation) -> Floats:
    """Return (rows, fields): each field's main effect and half of each of its pair effects.

    That is how SHAP values share out what two fields do together.
    """
    shared = account.main[:, :, 0].copy()
    for p, (i, j) in enumerate(account.pairs):
        shared[:, [i, j]] += account.pair[:, [p], 0] / 2
    return shared


def touching(account: Explanation, fields: NDArray[np.int64]) -> Floats:
    """Return (rows,): the sum of all effects of the row's fields (rows, n), main effects and pairs with any of them."""
    chosen = np.zeros(account.main.shape[:2], np.bool_)
    np.put_along_axis(chosen, fields, True, axis=1)
    in_pair = chosen[:, account.pairs].any(2)
    sums: Floats = (account.main[:, :, 0] * chosen).sum(1) + (account.pair[:, :, 0] * in_pair).sum(1)
    return sums


def rank_correlation(one: Floats, other: Floats) -> float:
    """Return Spearman's correlation of two vectors, or its mean over the rows of two matrices; ties share a rank."""
    ranks = [np.atleast_2d(rankdata(side, axis=-1)) for side in (one, other)]
    a, b = (rank - rank.mean(1, keepdims=True) for rank in ranks)
    return float(np.mean((a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))))


def weighted_correlation(one: Floats, other: Floats, weight: Floats) -> float:
    """Return Pearson's correlation of two curves on the same grid, each point counted `weight` times."""
    a, b = (side - np.average(side, weights=weight) for side in (one, other))
    return float((weight * a * b).sum() / np.sqrt((weight * a**2).sum() * (weight * b**2).sum()))


def in_common(one: Floats, other: Floats, n: int) -> int:
    """Return how many of the n largest of two vectors are the same places."""
    tops = [set(np.argsort(-side, kind="stable")[:n].tolist()) for side in (one, other)]
    return len(tops[0] & tops[1])


def curve(account: Explanation, field: str, values: Floats) -> tuple[Floats, Floats, Floats]:
    """Return a field's distinct values, its mean main effect at each, and their rows; values : (rows,)."""
    grid, place, rows = np.unique(values, return_inverse=True, return_counts=True)
    sums = np.bincount(place.ravel(), account.main[:, account.fields.index(field), 0])
    return grid, sums / rows, rows.astype(np.float64)


def way_over_range(effect: Floats) -> float:
    """Return how far a curve goes up and down in all, in multiples of its range: 1 for one that only rises."""
    return float(np.abs(np.diff(effect)).sum() / np.ptp(effect))


def mean_over_pairs(accounts: Sequence[Explanation]) -> dict[str, float]:
    """Return the mean agreement between each two of some accounts of the same rows, made by refits of one model."""
    found = []
    for one, other in combinations(accounts, 2):
        first, second = importance(one), importance(other)
        found.append(
            {
                "fields": rank_correlation(first[0], second[0]),
                "pairs": rank_correlation(first[1], second[1]),
                "rows": rank_correlation(per_field(one), per_field(other)),
            }
        )
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def importance(account: Explanation) -> tuple[Floats, Floats]:
    """Return mean |effect| over the rows: of the fields (see `per_field`), and of the pairs."""
    return np.abs(per_field(account)).mean(0), np.abs(account.pair[:, :, 0]).mean(0)
