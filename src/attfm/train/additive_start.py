"""The additive model that a machine begins from where rows are few: each field is as smooth as its rows tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from attfm.config import TaskName, TrainConfig
from attfm.data.batch import Batch
from attfm.data.codecs.codec import FIRST_VALUE, Field
from attfm.data.codecs.rates import RATE_BINS
from attfm.data.dataset import gathered
from attfm.model.knots import knots_for
from attfm.model.modules import FactorizationMachine
from attfm.train.additive_model import AdditiveModel, Floats, Integers, Term
from attfm.train.losses import Strengths, beyond_chance, scored, share_of_main_effects
from attfm.train.outcomes import outcome_values, relative
from attfm.train.statistical_machine import StatisticalMachine
from attfm.train.statistics import is_rated
from attfm.train.trainer import TrainingData

# Training rows, by task: of more, single fields are learned well by the steps of the trainer.
_MOST_ROWS: Mapping[str, int] = MappingProxyType({"binary": 12_000, "multiclass": 12_000, "regression": 50_000})
MOST_EFFECTS = 2_500  # whose precision matrix is inverted in each round: 50 MB, and half a second
# The share of fields that may have rates. Tables of ids say most by pairs, which are learned together with main effects
# only (docs/defaults.md).
MOST_IDS = 0.25
_LEAST_RIDGE = 0.001  # as a share of that of levels: smoothness holds bins, and it only makes the effects unique
# The ridge of V where main effects are there from the start. While both are learned at once, V is drawn along by what
# main effects still have to tell, and 30 holds it; where they have told it, 30 pulls every pair to 0.
RIDGE_OF_PAIRS = 10.0
_SHARES = tuple(k / 20 for k in range(20, -1, -1))


@dataclass(frozen=True)
class AdditiveStart:
    """Effects of single fields, and the strengths that the rows speak for.

    Attributes
    ----------
    intercept : float64 (outputs,)
    rows, weight : int64 (effects,) and float64 (effects, outputs), rows of w and what they are
    strengths : Strengths, by which a machine that begins here goes on being held
    """

    intercept: Floats
    rows: Integers
    weight: Floats
    strengths: Strengths

    @torch.no_grad()
    def set_in(self, module: FactorizationMachine, data: TrainingData, *, share: float | None = None) -> float:
        """Let a machine begin here, or on the way here; return which share of the way.

        Its main effects are 0 before, and its pairs stay as they are. All of the way is gone unless a share is given or
        the validation rows like less of it better beyond chance: where columns tell nothing, they would have stopped a
        training early.
        """
        share = self._share_for(module, data) if share is None else share
        self._go(module, share)
        return share

    def _go(self, module: FactorizationMachine, share: float) -> None:
        """Go a share of the way from where main effects are 0."""
        w, w0 = module.linear.weight, module.intercept
        w[torch.from_numpy(self.rows)] = share * torch.from_numpy(self.weight).to(w)
        w0.lerp_(torch.from_numpy(self.intercept).to(w0), share)

    def _share_for(self, module: FactorizationMachine, data: TrainingData) -> float:
        """Return how far the validation rows let a machine go, whose main effects are 0."""
        if data.valid is None:
            return 1.0
        before = scored(module, data.valid)[0]
        w0 = module.intercept.clone()
        self._go(module, 1.0)
        after, target, weight = scored(module, data.valid)
        self._go(module, 0.0)
        module.intercept.copy_(w0)
        weight = weight.double() / weight.double().sum()
        losses = [
            (data.task.row_losses(torch.lerp(before, after, share), target).double() * weight).numpy()
            for share in _SHARES
        ]
        able = [k for k, of_share in enumerate(losses) if k == 0 or beyond_chance(losses[0] - of_share)]
        return _SHARES[min(able, key=lambda k: float(losses[k].sum()))]


def may_begin_additive(
    config: TrainConfig, fields: Sequence[Field], rows: int, task: TaskName, outputs: int = 1
) -> bool:
    """Return whether a new machine may begin with an additive model; see `additive_start`.

    config : settings of the task (`TrainConfig.of_task`)
    rows : for training
    """
    usual = [float(x) for x in (config.smoothness, config.statistic_smoothness, config.linear_ridge)]
    # Rows may speak for strengths a thousand times the usual ones: steps of the gradient's own size can't bear them.
    if not all(usual) or config.warm_start_from or config.optimizer != "adam":
        return False
    most = knots_for(config.knots, rows) or MOST_EFFECTS
    rated = [config.rates and is_rated(field, config.rate_levels) for field in fields]
    effects = [
        2 * RATE_BINS if has_rates else min(field.size, most) if field.ordered else field.size
        for field, has_rates in zip(fields, rated, strict=True)
    ]
    few = rows <= _times(config) * _MOST_ROWS.get(task, 0) and sum(effects) * outputs <= _times(config) * MOST_EFFECTS
    return few and sum(rated) <= MOST_IDS * len(fields)


def begins_additive(config: TrainConfig, data: TrainingData, fields: Sequence[Field]) -> bool:
    """Return whether a new machine begins with an additive model; config : settings of the task."""
    begins = data.task.is_classification if config.additive_start == "auto" else config.additive_start
    return begins and may_begin_additive(config, fields, len(data.train), data.task.name, len(data.task.outputs))


def _times(config: TrainConfig) -> int:
    """Return by what the limits are multiplied where settings tell to begin so, as those of all rows do."""
    return 2 if config.additive_start is True else 1


def additive_start(
    module: FactorizationMachine, data: TrainingData, config: TrainConfig, fields: Sequence[Field]
) -> AdditiveStart | None:
    """Fit w0 + Σ w, of classes their logits, of a regression the standardised target, each field by its evidence.

    The strengths maximise the restricted likelihood, by the update of Wood and Fasiolo (2017, Biometrics 73, eq. 4):
    strength ← (rank − strength · tr(H⁻¹S)) / βᵀSβ, where H is the curvature of the penalised loss and S the precision
    at strength 1. An ordered field has two: of its straight line, and of how its curve departs from it; a categorical
    one has a ridge, which follows that of all categorical fields together too. So a column that decides is hardly held,
    and one that says nothing is pulled to 0, and no row is set aside for it. The levels of a field that has rates take
    no part: its rates do.

    Parameters
    ----------
    module : as it is built, with the intercept that it starts from
    config : settings of the task (`TrainConfig.of_task`)

    Returns
    -------
    AdditiveStart or None
        None for more than 12,000 training rows of classes, 50,000 of a regression, or 2,500 effects (twice as many
        where `config.additive_start` is True), where more than a quarter of the fields have rates, where
        `config.additive_start` is off, and where nothing holds bins or levels.
    """
    if not begins_additive(config, data, fields):
        return None
    examples = gathered(data.train)
    layout = _Layout.of(module, data, fields, examples.rows)
    if not 0 < len(layout.rows) * module.outputs <= _times(config) * MOST_EFFECTS:
        return None
    terms, ridges = layout.terms(config, len(examples)), layout.ridges(float(config.linear_ridge))
    scale = float(module.target_mean), float(module.target_std)
    additive = AdditiveModel(
        layout.design, outcome_values(data.task, examples.target.numpy(), scale), relative(examples.weight.numpy()),
        terms, np.where(layout.of_levels(), 0.0, ridges), classes=data.task.is_classification,
    )  # fmt: skip
    additive.fit(module.intercept.detach().double().numpy())
    runs = 2 * (len(layout.bins) + len(layout.rates))
    of_bins, of_rates = np.split(additive.strengths[:runs].reshape(-1, 2), [len(layout.bins)])
    for columns, strength in zip(layout.levels, additive.strengths[runs:], strict=True):
        ridges[columns] = strength
    every = np.full((len(module.linear.weight), 1), float(config.linear_ridge))
    every[layout.rows, 0] = ridges
    bins, rates, held = (torch.from_numpy(part).float() for part in (of_bins, of_rates, every))
    strengths = Strengths(bins, rates, held, noise=min(additive.noise, 1.0))
    return AdditiveStart(additive.effects[0], layout.rows, additive.effects[1:], strengths)


@dataclass(frozen=True)
class _Layout:
    """Which effects the rows tell of, and how these belong together.

    rows : int64 (effects,), rows of w that are used
    design : (rows of the table, effects)
    bins, rates : effects that are neighbours, int64 (n,) for each field or each field's rates, in their order
    levels : effects of each categorical field that has more than one and no rates
    """

    rows: Integers
    design: sparse.csc_matrix
    bins: Sequence[Integers]
    rates: Sequence[Integers]
    levels: Sequence[Integers]

    @classmethod
    def of(cls, module: FactorizationMachine, data: TrainingData, fields: Sequence[Field], examples: Batch) -> Self:
        """Return the layout of a machine's main effects."""
        machine = module if isinstance(module, StatisticalMachine) else None
        bins = np.stack([data.neighbours, data.neighbours + 1])
        rates, composed = bins[:, :0], bins[0, :0]
        design = _design(examples, module.linear.weight.shape[0] if machine is None else machine.ids)
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
        place = np.full(design.shape[1], -1)
        place[rows] = np.arange(len(rows))
        levels = [place[field.start + FIRST_VALUE : field.stop] for field in fields if not field.ordered]
        levels = [columns[columns >= 0] for columns in levels]
        return cls(
            rows, design[:, rows], [place[run] for run in _runs(bins)], [place[run] for run in _runs(rates)],
            [columns for columns in levels if len(columns) > 1],
        )  # fmt: skip

    def terms(self, config: TrainConfig, rows: int) -> list[Term]:
        """Return what has a strength of its own: curve and line of each field's bins, and of its rates; its levels."""
        main = float(config.smoothness) * share_of_main_effects(config, rows)
        of_bins = [term for run in self.bins for term in _of_run(run, main)]
        of_rates = [term for run in self.rates for term in _of_run(run, float(config.statistic_smoothness))]
        usual = float(config.linear_ridge)
        return [*of_bins, *of_rates, *(Term(of, np.eye(len(of)), len(of), usual, common=True) for of in self.levels)]

    def ridges(self, usual: float) -> Floats:
        """Return the ridges without evidence, float64 (effects,): of neighbours a small one, which smoothness holds."""
        ridges = np.full(len(self.rows), usual)
        for run in (*self.bins, *self.rates):
            ridges[run] *= _LEAST_RIDGE
        return ridges

    def of_levels(self) -> NDArray[np.bool_]:
        """Return which effects have a ridge by evidence, bool (effects,)."""
        return np.isin(np.arange(len(self.rows)), np.concatenate([*self.levels, np.empty(0, np.int64)]))


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


def _of_run(columns: Integers, usual: float) -> tuple[Term, Term]:
    """Return the terms of neighbouring effects: their curve about a straight line, and the line (see `Smoothness`)."""
    steps = np.diff(np.eye(len(columns)), axis=0)
    line = np.broadcast_to(steps.mean(0), steps.shape)
    curve = steps - line
    return (Term(columns, 2 * curve.T @ curve, len(steps) - 1, usual), Term(columns, 2 * line.T @ line, 1, usual))
