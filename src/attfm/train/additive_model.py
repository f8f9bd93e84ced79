"""An additive model of classes or of numbers, whose strengths are those of the most evidence."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dpotri
from scipy.special import expit

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# How much the usual strength counts beside the evidence: as much as so many effects. One step, as of a column of 0 and
# 1, says little of how large steps are.
_USUAL_COUNTS = 0.2
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
    """

    columns: Integers
    precision: Floats
    rank: int
    usual: float


class AdditiveModel:
    """Effects of columns and strengths of terms, by turns.

    Parameters
    ----------
    design : (rows, columns)
    target : (rows,), 0 or 1 of two classes, else numbers of normal noise
    weight : (rows,), relative to their mean
    terms : what has a strength of its own
    fixed : float64 (columns,), ridges that stay as they are
    two_classes : bool, else a regression

    Attributes
    ----------
    effects : float64 (1 + columns,), the intercept first
    strengths : float64 (terms,)
    noise : float, variance of a regression's noise; 1 of classes
    """

    def __init__(
        self, design: sparse.csc_matrix, target: Floats, weight: Floats, terms: Sequence[Term], fixed: Floats,
        *, two_classes: bool,
    ) -> None:  # fmt: skip
        ones = sparse.csr_matrix(np.ones((design.shape[0], 1)))
        self._design = sparse.hstack([ones, design]).tocsr()
        self._transposed = self._design.T.tocsr()
        self._target, self._weight, self._two_classes = target, weight, two_classes
        self._terms, self._fixed = terms, np.append(0.0, fixed)
        self._usual = np.array([term.usual for term in terms])
        self.strengths, self.effects, self.noise = self._usual.copy(), np.zeros(len(fixed) + 1), 1.0

    def fit(self, intercept: float) -> None:
        """Find effects and strengths, from an intercept."""
        self.effects[0] = intercept
        for _ in range(_ROUNDS):
            self._converge(steps=1)
            before, self.strengths = self.strengths, self._by_evidence()
            if not len(before) or np.abs(np.log(self.strengths / before)).max() < _CLOSE:
                break
        self._converge(steps=_NEWTON_STEPS if self._two_classes else 1)

    def _converge(self, *, steps: int) -> None:
        """Take so many Newton steps, or until none moves a prediction; the first one of a regression is exact."""
        precision = self._precision()
        for _ in range(steps):
            predicted = self._design @ self.effects
            if self._two_classes:
                predicted = expit(predicted)
                curvature = np.maximum(self._weight * predicted * (1 - predicted), _LEAST_CURVATURE)
            else:
                curvature = self._weight / self.noise
            weighted = self._design.multiply(curvature[:, None]).tocsr()
            self._factor = cho_factor((self._transposed @ weighted).toarray() + precision, lower=True)
            away = self._weight * (self._target - predicted) / self.noise
            step = cho_solve(self._factor, self._transposed @ away - precision @ self.effects)
            largest = np.abs(self._design @ step).max()
            self.effects += step * (min(1.0, _LARGEST_STEP / max(largest, _LARGEST_STEP)) if self._two_classes else 1.0)
            if largest < _SMALL_STEP:
                break

    def _precision(self) -> Floats:
        """Return what holds the effects, as the precision of their prior."""
        precision = np.diag(self._fixed)
        for strength, term in zip(self.strengths, self._terms, strict=True):
            precision[np.ix_(term.columns + 1, term.columns + 1)] += strength * term.precision
        return precision

    def _by_evidence(self) -> Floats:
        """Return the next strengths, given the effects and the curvature there; find the noise of a regression."""
        inverse, _ = dpotri(self._factor[0], lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        if not self._two_classes:
            rows, held = len(self._target), float((inverse * self._precision()).sum())
            free = len(inverse) - held
            away = self._weight @ (self._target - self._design @ self.effects) ** 2
            self.noise = max(float(away) / max(rows - free, 1.0), _LEAST_NOISE)
        strengths = self.strengths.copy()
        for n, term in enumerate(self._terms):
            effects, own = self.effects[term.columns + 1], np.ix_(term.columns + 1, term.columns + 1)
            free = max(term.rank - self.strengths[n] * float((inverse[own] * term.precision).sum()), 0.0)
            size = float(effects @ term.precision @ effects)
            strengths[n] = (free + _USUAL_COUNTS) / (size + _USUAL_COUNTS / self._usual[n])
        bounded: Floats = np.clip(strengths, self._usual / _MOST_APART, self._usual * _MOST_APART)
        return bounded
