"""What a step lowers: the losses of its rows, and quadratic penalties of the parameters."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attfm.config import TrainConfig
from attfm.data.dataset import Dataset
from attfm.model.knots import MOST, knots_for
from attfm.model.modules import FactorizationMachine
from attfm.model.task import Task
from attfm.ops.sparse_gradient import sparse_gradient
from attfm.train.exchange import Exchange
from attfm.train.prior import EMBEDDING, LINEAR, OTHERS, Prior
from attfm.train.statistical_machine import StatisticalMachine

# How far the strength of a field's smoothness goes to what its bins say, 0 to 1, and how far from that of all fields. A
# column of 0 and 1 that decides has one step, as large as all the steps of a curve together (docs/defaults.md).
_BY_EVIDENCE, _MOST_APART = 0.5, 25.0


# The ridge of w on bins of an ordered field, as a share of that on levels. A curve of many bins is pulled to 0 by each
# of them, so that a field of 30 bins would be held by 30 ridges; smoothness holds it already (docs/defaults.md).
RIDGE_OF_BINS = 0.1


Strength = float | Tensor  # of a ridge: of all rows of a table, or of each, (rows, 1)


def _with_prior(
    module: FactorizationMachine, ridges: dict[int, Strength], prior: Prior, rows: int
) -> list[tuple[Tensor, Strength]]:
    """Return the ridges of all parameters of a machine that learns on, which are stronger by what was learned."""
    found: list[tuple[Tensor, Strength]] = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        own = ridges.get(id(parameter), 0.0)
        part = {"linear.weight": LINEAR, "embedding.weight": EMBEDDING}.get(name)
        if part is None:
            found.append((parameter, (own + OTHERS * prior.total) / rows))
        else:
            earlier = prior.rows[: len(parameter), None].to(parameter.device)
            found.append((parameter, ((own + part * earlier) / rows).to(parameter)))
    return found


def _weaker_on_bins(table: Tensor, ridge: float, bins: Tensor) -> Tensor:
    """Return the ridge of each row of w, (rows, 1): bins that have neighbours have a share of it."""
    ridges = torch.full((len(table), 1), ridge, dtype=table.dtype, device=table.device)
    ridges[bins.flatten()] = RIDGE_OF_BINS * ridge
    return ridges


@dataclass(frozen=True)
class Strengths:
    """How strongly the evidence of the rows holds w, see `attfm.train.additive_start`.

    bins, rates : float32 (runs, 2), smoothness of each run of neighbouring bins, of a field and of rates: of its curve
        about a straight line, and of that line
    ridges : float32 (rows of w, 1)
    noise : float, which share of a regression's variance was left; 1 of classes
    """

    bins: Tensor
    rates: Tensor
    ridges: Tensor
    noise: float = 1.0


class Smoothness:
    """strength · Σ ‖table[right] − table[left]‖² over neighbouring rows of a table, a run of them for each field.

    A run's own strength follows what its rows say (`adapt`): a field whose neighbours differ little is pulled together
    more than one whose neighbours differ much. Their geometric mean stays `strength`.

    Where strengths are given, a run has two: its differences' mean is held by that of its line, what they depart from
    it by that of its curve.

    Parameters
    ----------
    neighbours : int64 (2, n), rows and the next one of each, run after run
    adaptive : bool, whether runs get strengths of their own
    centre : a table or None, from which the differences of neighbours are told; None: from 0
    given : (runs, 2) or None, strengths of curve and line of each run, in place of `strength`
    """

    def __init__(
        self, table: Tensor, neighbours: Tensor, strength: float, *, adaptive: bool = False,
        centre: Tensor | None = None, given: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.table, self._strength = table, strength
        self._left, self._right = neighbours
        self._start = None if centre is None else centre[self._right] - centre[self._left]
        starts = torch.ones(len(self._left), dtype=torch.bool, device=neighbours.device)
        starts[1:] = self._left[1:] != self._right[:-1]
        self._run = starts.cumsum(0) - 1
        self._adaptive = adaptive and given is None
        self.factors = torch.ones(int(starts.sum()), dtype=table.dtype, device=table.device)
        self._given = None if given is None else given.to(self.factors)
        self._steps = torch.bincount(self._run).to(self.factors)

    def add_gradient(self, noise: float) -> None:
        """Add the gradient of the penalty, times `noise`, to that of the table, which may be sparse."""
        table, left, right = self.table, self._left, self._right
        slope = table.index_select(0, right).sub_(table.index_select(0, left))
        if self._start is not None:
            slope.sub_(self._start)
        if self._given is None:
            slope.mul_(2 * noise * self._strength)
        else:
            curve, line = self._given.index_select(0, self._run).unsqueeze(2).unbind(1)
            mean = slope.new_zeros((len(self._steps), slope.shape[1])).index_add_(0, self._run, slope)
            mean = mean.div_(self._steps[:, None]).index_select(0, self._run)
            slope = (curve * (slope - mean) + line * mean).mul_(2 * noise)
        if self._adaptive:
            slope.mul_(self.factors.index_select(0, self._run)[:, None])
        if table.grad is not None and table.grad.is_sparse:
            places = torch.cat([table.grad._indices()[0], right, left])
            slopes = torch.cat([table.grad._values(), slope, -slope])
            table.grad = sparse_gradient(places, slopes, table.shape)
            return
        gradient = torch.zeros_like(table) if table.grad is None else table.grad
        gradient.index_add_(0, right, slope)
        gradient.index_add_(0, left, slope, alpha=-1)
        table.grad = gradient

    def adapt(self) -> None:
        """Set the strength of each run by the mean squared difference of its neighbours, as they are now."""
        if not self._adaptive or len(self.factors) < 2:
            return
        squares = (self.table[self._right] - self.table[self._left]).square().sum(1)
        total, rows = (
            torch.zeros_like(self.factors).index_add_(0, self._run, x) for x in (squares, torch.ones_like(squares))
        )
        mean = (total / rows).clamp(min=1e-12).log()
        self.factors = ((mean.mean() - mean) * _BY_EVIDENCE).exp().clamp(1 / _MOST_APART, _MOST_APART)


def share_of_main_effects(config: TrainConfig, rows: int) -> float:
    """Return which share of the smoothness w has, trained on so many rows: its knots, of as many as there may be.

    The fewer knots there are, the further one curve rises from each to the next: n times fewer of them make the sum of
    its squared differences n times as large. So the share holds it as firmly whatever their number. V keeps all of it:
    where rows are few they tell more of main effects than of pairs (docs/defaults.md).
    """
    knots = knots_for(config.knots, rows)
    return min(knots, MOST) / MOST if knots else 1.0


class Penalties:
    """The quadratic penalties, added to the gradients directly.

    smoothness / rows · (Σ‖V[i+1] − V[i]‖² + share · Σ(w[i+1] − w[i])²) over neighbouring bins, with the share of
    `share_of_main_effects`, ½ / rows · (embedding_ridge ‖V‖² + linear_ridge ‖w‖²), where w of neighbouring bins has a
    tenth of linear_ridge (`RIDGE_OF_BINS`), the same two of a learned memory, and attention_l2 · ‖W‖² (paper, eq. 9).
    All but the last are divided by the training rows as a prior is: the more rows, the more they decide.

    Neighbours are features i, int64 (n,), of bins whose right neighbour is i + 1; a machine with knots has its own.
    With `config.smoothness_by_field` each field has a smoothness of its own, see `Smoothness`.

    Of a machine that learns on, all but the last are of what its parameters differ by from where they began, and the
    ridges are stronger by what earlier rows told: what was learned is the prior, and what no row touches stays.

    Strengths that the evidence gave are those of w; the ridge of V on bins is a tenth of that on levels then too.

    prior : Prior or None, of a machine that learns on; the module is then as it began
    strengths : Strengths or None, of w
    """

    def __init__(
        self, module: FactorizationMachine, neighbours: NDArray[np.int64], config: TrainConfig, rows: int,
        *, prior: Prior | None = None, strengths: Strengths | None = None,
    ) -> None:  # fmt: skip
        config = config.of_task("binary")  # what is not said yet
        device = module.intercept.device

        def next_ones(left: NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(np.stack([left, left + 1])).to(device)

        machine = module if isinstance(module, StatisticalMachine) else None
        bins = next_ones(neighbours)
        if machine is not None and machine.knots is not None:
            bins = torch.from_numpy(machine.knots.neighbours).to(device)
        of_w, of_v = float(config.linear_ridge), float(config.embedding_ridge)
        smooth, of_rates = float(config.smoothness), float(config.statistic_smoothness)
        w, own = module.linear.weight, config.smoothness_by_field
        ridges = [(w, of_w)]
        # What is smoothed, how strongly, and whether fields differ; of w with the strengths of curves and lines.
        smoothed: list[tuple[Tensor, Tensor, float, bool, Tensor | None]] = [
            (w, bins, smooth * share_of_main_effects(config, rows), own, None if strengths is None else strengths.bins)
        ]
        if module.has_pairs:
            ridges.append((module.embedding.weight, of_v))
            smoothed.append((module.embedding.weight, bins, smooth, own, None))
        if machine is not None:
            rates = next_ones(machine.composition.neighbours)
            smoothed.append((w, rates, of_rates, False, None if strengths is None else strengths.rates))
            smoothed += [(table, rates, of_rates, False, None) for table, _ in ridges[1:]]
        memory = None if machine is None else machine.binned
        if memory is not None:
            ridges.append((memory.weight, config.memory_ridge))
            of_pairs = next_ones(np.concatenate(memory.pairs.layout.neighbours))
            smoothed.append((memory.weight, of_pairs, of_rates, False, None))
        kept = {id(p): p for p in module.parameters() if p.requires_grad}
        self.centres = {} if prior is None else {key: p.detach().clone() for key, p in kept.items()}
        self._smoothed = [
            Smoothness(
                table, pairs, strength / rows, adaptive=adaptive, centre=self.centres.get(id(table)),
                given=None if given is None else given / rows,
            )
            for table, pairs, strength, adaptive, given in smoothed if strength and pairs.numel()
        ]  # fmt: skip
        own_ridges: dict[int, Strength] = {id(table): strength for table, strength in ridges}
        if strengths is not None:
            own_ridges[id(w)] = strengths.ridges.to(w)
            if module.has_pairs:
                own_ridges[id(module.embedding.weight)] = _weaker_on_bins(module.embedding.weight, of_v, bins)
        elif of_w and bins.numel():
            own_ridges[id(w)] = _weaker_on_bins(w, of_w, bins)
        self._ridges: list[tuple[Tensor, Strength]] = [(table, own_ridges[id(table)] / rows) for table, _ in ridges]
        if prior is not None:
            self._ridges = _with_prior(module, own_ridges, prior, rows)
        of_tables = {id(table): strength for table, strength in self._ridges}
        self._strengths: tuple[Strength, Strength] = (
            of_tables[id(w)], of_tables[id(module.embedding.weight)] if module.has_pairs else 0.0
        )  # fmt: skip
        self._attention = module.attention.W if module.has_pairs and config.attention_l2 > 0 else None
        self._attention_l2 = config.attention_l2

    @property
    def ridges(self) -> tuple[Strength, Strength]:
        """Strengths of the ridges of w and of V: of a table with a sparse gradient the optimiser adds them."""
        return self._strengths

    @property
    def smooth(self) -> bool:
        """Whether bins get a gradient, be they in the batch or not."""
        return bool(self._smoothed)

    @torch.no_grad()
    def add_gradient(self, *, noise: float = 1.0) -> None:
        """Add the penalties' gradients to those of the loss; noise : by which all but that of W are multiplied."""
        for smoothness in self._smoothed:
            smoothness.add_gradient(noise)
        for table, strength in self._ridges:
            if table.grad is None or table.grad.is_sparse:
                continue
            if id(table) in self.centres:
                table.grad.add_(strength * (table - self.centres[id(table)]), alpha=noise)
            elif isinstance(strength, Tensor):
                table.grad.addcmul_(strength, table, value=noise)
            elif strength:
                table.grad.add_(table, alpha=noise * strength)
        if self._attention is not None and self._attention.grad is not None:
            self._attention.grad.add_(self._attention, alpha=2 * self._attention_l2)

    @torch.no_grad()
    def adapt(self) -> None:
        """Let each field's smoothness follow its bins, as they are now; to be called after an epoch."""
        for smoothness in self._smoothed:
            smoothness.adapt()

    def state_dict(self) -> list[Tensor]:
        """Return the strengths that fields have of their own."""
        return [smoothness.factors for smoothness in self._smoothed]

    def load_state_dict(self, state: list[Tensor]) -> None:
        """Go on from where `state_dict` was taken."""
        for smoothness, factors in zip(self._smoothed, state, strict=True):
            smoothness.factors = factors.to(smoothness.factors, copy=True)


def beyond_chance(gains: NDArray[np.float64]) -> bool:
    """Return whether a sum of gains, of one row each, is above its standard error.

    That is the rule of one standard error (Breiman et al. 1984, section 3.4.3): some hundred rows say little of which
    of several is the best, so that the one with the lowest loss is mostly the luckiest.
    """
    return bool(gains.sum() > np.sqrt(len(gains)) * gains.std())


@torch.no_grad()
def scored(
    module: FactorizationMachine, dataset: Dataset, exchange: Exchange | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits (rows, outputs), targets and weights (rows,) of all rows, in evaluation mode.

    exchange : of workers that score a part each; None: this process scores all
    """
    exchange = Exchange() if exchange is None else exchange
    device, dtype = module.intercept.device, module.intercept.dtype
    logits, targets, weights = [], [], []
    predict = module.predictor()
    for part in dataset.ordered():
        examples = part.to(device, dtype)
        logits.append(exchange.on_all_rows(examples.rows, predict))
        targets.append(examples.target)
        weights.append(examples.weight)
    return torch.cat(logits), torch.cat(targets), torch.cat(weights)


def mean_loss(task: Task, logits: Tensor, target: Tensor, weight: Tensor) -> float:
    """Return the weighted mean loss (log loss, or mean squared error), summed in float64."""
    losses, weight = task.row_losses(logits, target).double(), weight.double()
    return float((losses * weight).sum() / weight.sum())
