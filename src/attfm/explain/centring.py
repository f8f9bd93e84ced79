"""Functional-ANOVA centring of one pair: what of its effect is really a main effect of one of its two fields."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_DENSE_CELLS = 1 << 17
_MOST_STEPS = 200
_TOLERANCE = 1e-9


def conditional_parts(
    effect: Floats, first: NDArray[np.int64], second: NDArray[np.int64], sizes: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Return a and b that make the mean of effect − a[first] − b[second] zero given either state.

    They are the least-squares fit of a sum of two functions to the effect, weighted by the rows, as in the
    purification of Lengerich et al. 2020 ("Purifying interaction effects with the functional ANOVA"). With
    independent fields they are the conditional means. Where the fields depend on each other so much that several
    fits are equal, the one of least norm is taken, which treats both fields alike.

    Parameters
    ----------
    effect : (rows, outputs), of mean zero
    first, second : (rows,) states of the two fields, from 0
    sizes : number of states of each

    Returns
    -------
    a, b : (sizes[0], outputs) and (sizes[1], outputs); 0 for states that no row has
    """
    rows_of_first, rows_of_second = np.bincount(first, minlength=sizes[0]), np.bincount(second, minlength=sizes[1])
    root_first, root_second = np.sqrt(np.maximum(rows_of_first, 1)), np.sqrt(np.maximum(rows_of_second, 1))
    apply, transposed = _joint(first, second, sizes, root_first, root_second)
    a, b = np.zeros((sizes[0], effect.shape[1])), np.zeros((sizes[1], effect.shape[1]))
    for output, values in enumerate(effect.T):
        sums = (
            np.bincount(first, values, minlength=sizes[0]) / root_first,
            np.bincount(second, values, minlength=sizes[1]) / root_second,
        )
        x, y = _conjugate_gradients(apply, transposed, *sums)
        a[:, output], b[:, output] = x / root_first, y / root_second
    return a, b


Product = Callable[[Floats], Floats]


def _joint(
    first: NDArray[np.int64], second: NDArray[np.int64], sizes: tuple[int, int], root_first: Floats, root_second: Floats
) -> tuple[Product, Product]:
    """Return products with the scaled table of joint counts, n_uv / sqrt(n_u n_v), and with its transpose."""
    code = first * sizes[1] + second
    if sizes[0] * sizes[1] <= _DENSE_CELLS:
        counts = np.bincount(code, minlength=sizes[0] * sizes[1]).reshape(sizes)
        table: Floats = counts / root_first[:, None] / root_second
        return table.__matmul__, table.T.__matmul__
    cells, number = np.unique(code, return_counts=True)
    u, v = np.divmod(cells, sizes[1])
    weight = number / root_first[u] / root_second[v]

    def sparse(b: Floats) -> Floats:
        return np.bincount(u, weight * b[v], minlength=sizes[0]).astype(np.float64)

    def transposed(a: Floats) -> Floats:
        return np.bincount(v, weight * a[u], minlength=sizes[1]).astype(np.float64)

    return sparse, transposed


def _conjugate_gradients(apply: Product, transposed: Product, s: Floats, t: Floats) -> tuple[Floats, Floats]:
    """Solve [[I, B], [Bᵀ, I]] (x, y) = (s, t) from zero; the singular system has a solution, its least one is found."""
    x, y = np.zeros_like(s), np.zeros_like(t)
    p, q = s, t
    size = first = s @ s + t @ t
    for _ in range(_MOST_STEPS):
        if size <= _TOLERANCE**2 * first or size == 0:
            break
        u, v = p + apply(q), transposed(p) + q
        curvature = p @ u + q @ v
        if curvature <= 0:  # rounding only is left
            break
        step = size / curvature
        x, y = x + step * p, y + step * q
        s, t = s - step * u, t - step * v
        before, size = size, s @ s + t @ t
        p, q = s + (size / before) * p, t + (size / before) * q
    return x, y
