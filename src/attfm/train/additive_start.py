"""The additive model that a machine begins from where rows are few: each field is as smooth as its rows tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dpotri
from scipy.special import expit

from attfm.config import TrainConfig
from attfm.data.batch import Batch
from attfm.data.codecs.codec import FIRST_VALUE, Field
from attfm.data.codecs.rates import RATE_BINS
from attfm.data.dataset import gathered
from attfm.model.knots import knots_for
from attfm.model.modules import FactorizationMachine
from attfm.train.losses import Strengths, beyond_chance, scored, share_of_main_effects
from attfm.train.outcomes import relative
from attfm.train.statistical_machine import StatisticalMachine
from attfm.train.statistics import is_rated
from attfm.train.trainer import TrainingData

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MOST_ROWS = 12_000  # training rows; of more, single fields are learned well by the steps of the trainer
MOST_EFFECTS = 2_500  # whose precision matrix is inverted in each round: 50 MB, and half a second
# The share of fields that may have rates. Tables of ids say most by pairs, which are learned together with main effects
# only (docs/defaults.md).
MOST_IDS = 0.25
# How much the usual strength counts beside the evidence: as much as so many effects. One step, as of a column of 0 and
# 1, says little of how large steps are.
_USUAL_COUNTS = 0.2
_MOST_APART = 1000.0  # from the usual strength
_LEAST_RIDGE = 0.01  # as a share of that of levels: smoothness holds them, and it only makes the effects unique
# The ridge of V where main effects are there from the start. While both are learned at once, V is drawn along by what
# main effects still have to tell, and 30 holds it; where they have told it, 30 pulls every pair to 0.
RIDGE_OF_PAIRS = 10.0
_ROUNDS, _CLOSE = 15, 0.1  # of strengths, until the logarithm of none moves by more
_NEWTON_STEPS, _SMALL_STEP = 10, 1e-4
_LARGEST_STEP = 4.0  # of a logit in one Newton step
_LEAST_CURVATURE = 1e-6
_SHARES = tuple(k / 20 for k in range(20, -1, -1))


@dataclass(frozen=True)
class _Term:
    """What one strength holds: ½ strength · βᵀSβ is added to the loss, as a normal prior of precision S would.

    columns : int64 (n,), of the design
    precision : float64 (n, n), S, of rank `rank`
    usual : the strength without evidence
    """

    columns: Integers
    precision: Floats
    rank: int
    usual: float


@dataclass(frozen=True)
class AdditiveStart:
    """Effects of single fields, and the strengths that the rows speak for.

    Attributes
    ----------
    intercept : float
    rows, weight : int64 and float64 (effects,), rows of w and what they are
    strengths : Strengths, by which a machine that begins here goes on being held
    """

    intercept: float
    rows: Integers
    weight: Floats
    strengths: Strengths

    @torch.no_grad()
    def set_in(self, module: FactorizationMachine, data: TrainingData) -> float:
        """Let a machine begin here, or on the way here; return which share of the way.

        Its main effects are 0 before, and its pairs stay as they are. All of the way is gone unless the validation rows
        like less of it better beyond chance: where columns tell nothing, they would have stopped a training early.
        """
        w, w0 = module.linear.weight, float(module.intercept.detach())
        before = None if data.valid is None else scored(module, data.valid)[0]
        w[torch.from_numpy(self.rows)] = torch.from_numpy(self.weight).to(w)[:, None]
        module.intercept.fill_(self.intercept)
        if data.valid is None or before is None:
            return 1.0
        after, target, weight = scored(module, data.valid)
        weight = weight.double() / weight.double().sum()
        losses = [
            (data.task.row_losses(torch.lerp(before, after, share), target).double() * weight).numpy()
            for share in _SHARES
        ]
        able = [k for k, of_share in enumerate(losses) if k == 0 or beyond_chance(losses[0] - of_share)]
        share = _SHARES[min(able, key=lambda k: float(losses[k].sum()))]
        w.mul_(share)
        module.intercept.fill_(w0 + share * (self.intercept - w0))
        return share


def begins_additive(config: TrainConfig, data: TrainingData, fields: Sequence[Field]) -> bool:
    """Return whether a new machine begins with an additive model; see `additive_start`.

    config : settings of the task (`TrainConfig.of_task`)
    """
    usual = [float(x) for x in (config.smoothness, config.statistic_smoothness, config.linear_ridge)]
    one_logit = data.task.is_classification and len(data.task.outputs) == 1
    if not one_logit or not config.smoothness_by_field or not all(usual) or config.warm_start_from:
        return False
    most = knots_for(config.knots, len(data.train)) or MOST_EFFECTS
    rated = [config.rates and is_rated(field, config.rate_levels) for field in fields]
    effects = [
        2 * RATE_BINS if has_rates else min(field.size, most) if field.ordered else field.size
        for field, has_rates in zip(fields, rated, strict=True)
    ]
    few_ids = sum(rated) <= MOST_IDS * len(fields)
    return few_ids and len(data.train) <= MOST_ROWS and sum(effects) <= MOST_EFFECTS


def additive_start(
    module: FactorizationMachine, data: TrainingData, config: TrainConfig, fields: Sequence[Field]
) -> AdditiveStart | None:
    """Fit logit = w0 + Σ w by penalised Newton steps, and the strength of each field's penalty by its evidence.

    The strengths maximise the restricted likelihood, by the update of Wood and Fasiolo (2017, Biometrics 73, eq. 4):
    strength ← (rank − strength · tr(H⁻¹S)) / βᵀSβ, where H is the curvature of the penalised loss and S the precision
    at strength 1. An ordered field has two: of its straight line, and of how its curve departs from it; a categorical
    one has a ridge. So a column that decides is hardly held, and one that says nothing is pulled to 0, and no row is
    set aside for it. The levels of a field that has rates take no part: its rates do.

    Parameters
    ----------
    module : as it is built, with the intercept that it starts from
    config : settings of the task (`TrainConfig.of_task`)

    Returns
    -------
    AdditiveStart or None
        None for anything but two classes, for more than 12,000 training rows or 2,500 effects, where more than a
        quarter of the fields have rates, where `config.smoothness_by_field` is off, and where nothing holds bins or
        levels.
    """
    if not begins_additive(config, data, fields):
        return None
    machine = module if isinstance(module, StatisticalMachine) else None
    examples = gathered(data.train)
    bins = np.stack([data.neighbours, data.neighbours + 1])
    rates, composed = bins[:, :0], bins[0, :0]
    design = _design(examples.rows, module.linear.weight.shape[0] if machine is None else machine.ids)
    if machine is not None:
        bins = bins if machine.knots is None else machine.knots.neighbours
        rates = np.stack([machine.composition.neighbours, machine.composition.neighbours + 1])
        composed = np.unique(machine.composition.parts[:, 0])
        design = (design @ machine.reading_matrix()).tocsc()
    rated = np.zeros(design.shape[1], bool)
    for field in fields:
        first, after = np.searchsorted(composed, (field.start, field.stop))
        rated[field.start : field.stop] = after > first
    used = np.flatnonzero((np.diff(design.indptr) > 0) & ~rated)
    rows = np.union1d(used, np.concatenate([bins.ravel(), rates.ravel()]))
    if not 0 < len(rows) <= MOST_EFFECTS:
        return None

    place = np.full(design.shape[1], -1)
    place[rows] = np.arange(len(rows))
    ridges = np.full(design.shape[1], float(config.linear_ridge))
    ridges[np.union1d(bins, rates)] *= _LEAST_RIDGE
    main = float(config.smoothness) * share_of_main_effects(config, len(examples))
    curves = [_of_run(place[run], main) for run in _runs(bins)]
    of_rates = [_of_run(place[run], float(config.statistic_smoothness)) for run in _runs(rates)]
    levels = [place[field.start + FIRST_VALUE : field.stop] for field in fields if not field.ordered]
    levels = [columns[columns >= 0] for columns in levels]
    of_levels = [_Term(c, np.eye(len(c)), len(c), float(config.linear_ridge)) for c in levels if len(c) > 1]
    fixed = ridges[rows]
    for term in of_levels:
        fixed[term.columns] = 0
    terms = [*(term for pair in (*curves, *of_rates) for term in pair), *of_levels]
    additive = _AdditiveModel(design[:, rows], examples.target.numpy(), examples.weight.numpy(), terms, fixed)
    additive.fit(float(module.intercept.detach()))
    of_pairs = additive.strengths[: 2 * (len(curves) + len(of_rates))].reshape(-1, 2)
    for term, strength in zip(of_levels, additive.strengths[2 * (len(curves) + len(of_rates)) :], strict=True):
        ridges[rows[term.columns]] = strength
    strengths = Strengths(*(torch.from_numpy(part).float() for part in (
        of_pairs[: len(curves)], of_pairs[len(curves) :], ridges[:, None]
    )))  # fmt: skip
    return AdditiveStart(float(additive.effects[0]), rows, additive.effects[1:], strengths)


def _design(batch: Batch, ids: int) -> sparse.csc_matrix:
    """Return which ids rows have, (rows, ids), and with which values."""
    number, entries = len(batch), batch.ids.numpy().flatten()  # a copy: the matrix sorts them
    if batch.offsets is None:
        ends = np.arange(number + 1) * batch.fields
    else:
        ends = np.append(batch.offsets[:, 0].numpy(), len(entries))
    values = np.ones(len(entries)) if batch.values is None else batch.values.numpy().ravel().astype(np.float64)
    design = sparse.csr_matrix((values, entries, ends), shape=(number, ids))
    design.sum_duplicates()
    return design.tocsc()


def _runs(neighbours: Integers) -> list[Integers]:
    """Return the rows of each run of neighbours, int64 (2, n), in their order."""
    if not neighbours.shape[1]:
        return []
    starts = np.flatnonzero(np.append(True, neighbours[0, 1:] != neighbours[1, :-1]))
    return [np.append(run[0], run[1, -1:]) for run in np.split(neighbours, starts[1:], axis=1)]


def _of_run(columns: Integers, usual: float) -> tuple[_Term, _Term]:
    """Return the terms of neighbouring effects: their curve about a straight line, and the line (see `Smoothness`)."""
    steps = np.diff(np.eye(len(columns)), axis=0)
    line = np.broadcast_to(steps.mean(0), steps.shape)
    curve = steps - line
    return (_Term(columns, 2 * curve.T @ curve, len(steps) - 1, usual), _Term(columns, 2 * line.T @ line, 1, usual))


class _AdditiveModel:
    """Effects of columns and strengths of terms, by turns.

    Parameters
    ----------
    design : (rows, columns); target : (rows,) 0 or 1; weight : (rows,)
    terms : what has a strength of its own
    fixed : float64 (columns,), ridges that stay as they are
    """

    def __init__(
        self, design: sparse.csc_matrix, target: NDArray[Any], weight: NDArray[Any], terms: Sequence[_Term],
        fixed: Floats,
    ) -> None:  # fmt: skip
        ones = sparse.csr_matrix(np.ones((design.shape[0], 1)))
        self._design = sparse.hstack([ones, design]).tocsr()
        self._transposed = self._design.T.tocsr()
        self._target, self._weight = target.astype(np.float64), relative(weight)
        self._terms, self._fixed = terms, np.append(0.0, fixed)
        self._usual = np.array([term.usual for term in terms])
        self.strengths, self.effects = self._usual.copy(), np.zeros(len(fixed) + 1)

    def fit(self, intercept: float) -> None:
        """Find effects and strengths."""
        self.effects[0] = intercept
        for _ in range(_ROUNDS):
            self._converge(steps=1)
            before, self.strengths = self.strengths, self._by_evidence()
            if not len(before) or np.abs(np.log(self.strengths / before)).max() < _CLOSE:
                break
        self._converge(steps=_NEWTON_STEPS)

    def _converge(self, *, steps: int) -> None:
        """Take so many Newton steps, or until none moves a logit."""
        precision = np.diag(self._fixed)
        for strength, term in zip(self.strengths, self._terms, strict=True):
            precision[np.ix_(term.columns + 1, term.columns + 1)] += strength * term.precision
        for _ in range(steps):
            probability = expit(self._design @ self.effects)
            curvature = np.maximum(self._weight * probability * (1 - probability), _LEAST_CURVATURE)
            weighted = self._design.multiply(curvature[:, None]).tocsr()
            self._factor = cho_factor((self._transposed @ weighted).toarray() + precision, lower=True)
            slope = self._transposed @ (self._weight * (self._target - probability)) - precision @ self.effects
            step = cho_solve(self._factor, slope)
            largest = np.abs(self._design @ step).max()
            self.effects += step * min(1.0, _LARGEST_STEP / max(largest, _LARGEST_STEP))
            if largest < _SMALL_STEP:
                break

    def _by_evidence(self) -> Floats:
        """Return the next strengths, given the effects and the curvature there."""
        inverse, _ = dpotri(self._factor[0], lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        strengths = self.strengths.copy()
        for n, term in enumerate(self._terms):
            effects, own = self.effects[term.columns + 1], np.ix_(term.columns + 1, term.columns + 1)
            free = max(term.rank - self.strengths[n] * float((inverse[own] * term.precision).sum()), 0.0)
            size = float(effects @ term.precision @ effects)
            strengths[n] = (free + _USUAL_COUNTS) / (size + _USUAL_COUNTS / self._usual[n])
        bounded: Floats = np.clip(strengths, self._usual / _MOST_APART, self._usual * _MOST_APART)
        return bounded
