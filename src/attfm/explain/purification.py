"""Functional-ANOVA centring of one pair: what of its effect is really a main effect of one of its two fields."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from attfm.data.batch import FieldFeatures
from attfm.explain.levels import field_weights

Floats = NDArray[np.float64]
_DENSE_CELLS = 1 << 17
_MOST_STEPS = 200
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Design:
    """How a sum over one field's levels runs through some rows: Σ weight · a[level] over the levels of each row.

    row, level : int64 (entries,), from 0; weight : float64 (entries,); rows, size : numbers of rows and of levels
    single : each row has one level, of weight 1, and the entries are the rows
    """

    row: NDArray[np.int64]
    level: NDArray[np.int64]
    weight: Floats
    rows: int
    size: int
    single: bool

    @classmethod
    def of_levels(cls, levels: FieldFeatures, size: int) -> Self:
        """Return the design of a field's levels, of which there are `size`."""
        rows = len(levels.ids) if levels.counts is None else len(levels.counts)
        single = levels.counts is None and levels.values is None
        return cls(levels.rows, levels.ids.astype(np.int64), field_weights(levels), rows, size, single)

    @cached_property
    def mean(self) -> Floats:
        """Mean over the rows of each level's weight, (size,)."""
        return np.bincount(self.level, self.weight, minlength=self.size) / max(self.rows, 1)

    @cached_property
    def root(self) -> Floats:
        """Root of the summed squares of each level's weight, 1 where no row has it; (size,)."""
        squares = np.bincount(self.level, self.weight**2, minlength=self.size)
        return np.sqrt(np.where(squares > 0, squares, 1))

    def apply(self, a: Floats) -> Floats:
        """Return the sum in each row, less its mean over the rows: (size,) to (rows,)."""
        sums = np.bincount(self.row, self.weight * a[self.level], minlength=self.rows)
        return np.asarray(sums - self.mean @ a, np.float64)

    def transposed(self, values: Floats) -> Floats:
        """Return the transposed product: (rows,) to (size,)."""
        sums = np.bincount(self.level, self.weight * values[self.row], minlength=self.size)
        return np.asarray(sums - self.mean * values.sum(), np.float64)


def conditional_parts(effect: Floats, first: Design, second: Design) -> tuple[Floats, Floats]:
    """Return a and b that make the mean of effect − a(first) − b(second) zero given any level of either field.

    The effect is (rows, outputs), of mean zero; a is (first.size, outputs), b likewise, 0 for levels that no row has.
    They are the least-squares fit of a sum of two functions to the effect, weighted by the rows, as in the
    purification of Lengerich et al. 2020 ("Purifying interaction effects with the functional ANOVA"). With
    independent fields they are the conditional means. Where the fields depend on each other so much that several
    fits are equal, the one of least norm is taken, which treats both fields alike. The function of a multi-valued
    field is a sum over the row's members, less its mean: what a pair of such a field is if the other is constant.
    """
    product = _joint(first, second) if first.single and second.single else _gram(first, second)
    a, b = np.zeros((first.size, effect.shape[1])), np.zeros((second.size, effect.shape[1]))
    for output, values in enumerate(effect.T):
        sums = first.transposed(values) / first.root, second.transposed(values) / second.root
        x, y = _conjugate_gradients(product, *sums)
        a[:, output], b[:, output] = x / first.root, y / second.root
    return a, b


Product = Callable[[Floats, Floats], tuple[Floats, Floats]]


def _gram(first: Design, second: Design) -> Product:
    """Return the product with the normal equations' matrix, scaled to a diagonal of about 1."""

    def product(p: Floats, q: Floats) -> tuple[Floats, Floats]:
        fitted = first.apply(p / first.root) + second.apply(q / second.root)
        return first.transposed(fitted) / first.root, second.transposed(fitted) / second.root

    return product


def _joint(first: Design, second: Design) -> Product:
    """Return the same product from the scaled table of joint counts, B = n_uv / sqrt(n_u n_v): [[I, B], [Bᵀ, I]].

    The means that `Design.apply` subtracts are left out: the effect's mean is zero, and so are those of all iterates.
    """
    code = first.level * second.size + second.level
    if first.size * second.size <= _DENSE_CELLS:
        counts = np.bincount(code, minlength=first.size * second.size).reshape(first.size, second.size)
        table: Floats = counts / first.root[:, None] / second.root
        return lambda p, q: (p + table @ q, table.T @ p + q)
    cells, number = np.unique(code, return_counts=True)
    u, v = np.divmod(cells, second.size)
    weight = number / first.root[u] / second.root[v]

    def product(p: Floats, q: Floats) -> tuple[Floats, Floats]:
        forth = np.bincount(u, weight * q[v], minlength=first.size)
        back = np.bincount(v, weight * p[u], minlength=second.size)
        return p + forth, back + q

    return product


def _conjugate_gradients(product: Product, s: Floats, t: Floats) -> tuple[Floats, Floats]:
    """Solve M (x, y) = (s, t) from zero; the singular system has a solution, its least one is found."""
    x, y = np.zeros_like(s), np.zeros_like(t)
    p, q = s, t
    size = first = s @ s + t @ t
    for _ in range(_MOST_STEPS):
        if size <= _TOLERANCE**2 * first or size == 0:
            break
        u, v = product(p, q)
        curvature = p @ u + q @ v
        if curvature <= 0:  # rounding only is left
            break
        step = size / curvature
        x, y = x + step * p, y + step * q
        s, t = s - step * u, t - step * v
        before, size = size, s @ s + t @ t
        p, q = s + (size / before) * p, t + (size / before) * q
    return x, y
