"""An additive model of classes or of numbers, whose strengths are those of the most evidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dpotri
from scipy.special import expit, softmax

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# How much the usual strength counts beside the evidence: as much as so many effects. One step, as of a column of 0 and
# 1, says little of how large steps are.
_USUAL_COUNTS = 0.2
# How much the common strength of terms counts beside the evidence of each, in effects: a field of three levels says
# little of how far levels are apart, and all categorical fields together say much. Those that are held so many times
# less than most keep to their own: of a column that decides, others learn nothing (docs/defaults.md).
_COMMON_COUNTS, _OUTLYING = 3.0, 10.0
_MOST_APART = 1000.0  # from the usual strength
_ROUNDS, _CLOSE = 15, 0.1  # of strengths, until the logarithm of none moves by more
_NEWTON_STEPS, _SMALL_STEP = 10, 1e-4
_LARGEST_STEP = 4.0  # of a logit in one Newton step
_LEAST_CURVATURE = 1e-6
_LEAST_NOISE = 1e-6


@dataclass(frozen=True)
class Term:
    """What one strength holds: ½ strength · βᵀSβ is added to the loss, as a normal prior of precision S would.

    columns : int64 (n,), of the design
    precision : float64 (n, n), S, of rank `rank`
    usual : the strength without evidence
    common : whether the strength follows that of all such terms together
    """

    columns: Integers
    precision: Floats
    rank: int
    usual: float
    common: bool = False


class AdditiveModel:
    """Effects of columns and strengths of terms, by turns.

    Parameters
    ----------
    design : (rows, columns)
    target : (rows, outputs), 0 or 1 of classes, else numbers of normal noise
    weight : (rows,), relative to their mean
    terms : what has a strength of its own
    fixed : float64 (columns,), ridges that stay as they are
    classes : bool, of one output two, of several one each (a softmax); else a regression

    Attributes
    ----------
    effects : float64 (1 + columns, outputs), the intercepts first
    strengths : float64 (terms,), the same for all outputs
    noise : float, variance of a regression's noise; 1 of classes
    """

    def __init__(
        self, design: sparse.csc_matrix, target: Floats, weight: Floats, terms: Sequence[Term], fixed: Floats,
        *, classes: bool,
    ) -> None:  # fmt: skip
        ones = sparse.csr_matrix(np.ones((design.shape[0], 1)))
        self._design = sparse.hstack([ones, design]).tocsr()
        self._transposed = self._design.T.tocsr()
        self._target, self._weight, self._classes = target, weight, classes
        self._outputs = target.shape[1]
        # What all logits of several classes have in common is nothing to the loss.
        self._terms, self._fixed = terms, np.append(_LEAST_CURVATURE if self._outputs > 1 else 0.0, fixed)
        self._usual = np.array([term.usual for term in terms])
        self._common = np.array([term.common for term in terms], bool)
        self.strengths, self.noise = self._usual.copy(), 1.0
        self.effects = np.zeros((len(fixed) + 1, self._outputs))

    def fit(self, intercept: Floats) -> None:
        """Find effects and strengths, from intercepts (outputs,)."""
        self.effects[0] = intercept
        for _ in range(_ROUNDS):
            self._converge(steps=1)
            before, self.strengths = self.strengths, self._by_evidence()
            if not len(before) or np.abs(np.log(self.strengths / before)).max() < _CLOSE:
                break
        self._converge(steps=_NEWTON_STEPS if self._classes else 1)

    def _converge(self, *, steps: int) -> None:
        """Take so many Newton steps, or until none moves a prediction; the first one of a regression is exact."""
        precision, (size, outputs) = self._precision(), self.effects.shape
        for _ in range(steps):
            predicted = self._design @ self.effects
            if self._classes:
                predicted = expit(predicted) if outputs == 1 else softmax(predicted, axis=1)
            curvature = np.zeros((outputs, size, outputs, size))
            for one, other in combinations_with_replacement(range(outputs), 2):
                weighted = self._design.multiply(self._curvature(predicted, one, other)[:, None]).tocsr()
                curvature[other, :, one] = (self._transposed @ weighted).toarray()  # the lower half is enough
                if one == other:
                    curvature[one, :, one] += precision
            self._factor = cho_factor(curvature.reshape(outputs * size, -1), lower=True, overwrite_a=True)
            away = self._weight[:, None] * (self._target - predicted) / self.noise
            gradient = self._transposed @ away - precision @ self.effects
            step = cho_solve(self._factor, gradient.ravel("F")).reshape(gradient.shape, order="F")
            largest = np.abs(self._design @ step).max()
            self.effects += step * (min(1.0, _LARGEST_STEP / max(largest, _LARGEST_STEP)) if self._classes else 1.0)
            if largest < _SMALL_STEP:
                break

    def _curvature(self, predicted: Floats, one: int, other: int) -> Floats:
        """Return the second derivatives of the rows' losses by two of their outputs, (rows,)."""
        if not self._classes:
            return self._weight / self.noise
        own = predicted[:, one]
        if one != other:
            return -self._weight * own * predicted[:, other]
        return np.maximum(self._weight * own * (1 - own), _LEAST_CURVATURE)

    def _precision(self) -> Floats:
        """Return what holds the effects, as the precision of their prior."""
        precision = np.diag(self._fixed)
        for strength, term in zip(self.strengths, self._terms, strict=True):
            precision[np.ix_(term.columns + 1, term.columns + 1)] += strength * term.precision
        return precision

    def _by_evidence(self) -> Floats:
        """Return the next strengths, given the effects and the curvature there; find the noise of a regression."""
        inverse, _ = dpotri(self._factor[0], lower=1)
        size, outputs = self.effects.shape
        every = np.arange(outputs)
        inverse = inverse.reshape(outputs, size, outputs, size)[every, :, every]  # what is of one output each
        inverse = np.tril(inverse) + np.tril(inverse, -1).transpose(0, 2, 1)
        if not self._classes:
            rows, held = len(self._target), float((inverse * self._precision()).sum())
            away = self._weight @ (self._target - self._design @ self.effects) ** 2
            self.noise = max(float(away[0]) / max(rows - (size - held), 1.0), _LEAST_NOISE)
        free, sizes = np.zeros((2, len(self._terms)))  # effects that are not held, and βᵀSβ
        for n, term in enumerate(self._terms):
            effects, own = self.effects[term.columns + 1], np.ix_(every, term.columns + 1, term.columns + 1)
            held = self.strengths[n] * float((inverse[own] * term.precision).sum())
            free[n] = max(outputs * term.rank - held, 0.0)
            sizes[n] = float((effects * (term.precision @ effects)).sum())
        usual, of = self._usual, self._common
        strengths: Floats = (free + _USUAL_COUNTS) / (sizes + _USUAL_COUNTS / usual)
        if of.any():
            alike = of & (strengths >= np.median(strengths[of]) / _OUTLYING)
            common = (free[alike].sum() + _USUAL_COUNTS) / (sizes[alike].sum() + _USUAL_COUNTS / usual[alike].mean())
            strengths[alike] = (free[alike] + _COMMON_COUNTS) / (sizes[alike] + _COMMON_COUNTS / common)
        return np.clip(strengths, usual / _MOST_APART, usual * _MOST_APART)
