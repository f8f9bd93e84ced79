"""What a step lowers: the losses of its rows, and quadratic penalties of the parameters."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attfm.config import TrainConfig
from attfm.data.dataset import Dataset
from attfm.model.modules import FactorizationMachine
from attfm.model.task import Task


class Penalties:
    """The quadratic penalties, added to the gradients directly.

    smoothness / rows · (Σ‖V[i+1] − V[i]‖² + Σ(w[i+1] − w[i])²) over neighbouring bins, and attention_l2 · ‖W‖²
    (paper, eq. 9). The first is divided by the training rows as a prior is: the more rows, the more they decide.

    Neighbours are features i, int64 (n,), of bins whose right neighbour is i + 1.
    """

    def __init__(
        self, module: FactorizationMachine, neighbours: NDArray[np.int64], config: TrainConfig, rows: int
    ) -> None:
        tables = [module.linear.weight] + ([module.embedding.weight] if module.has_pairs else [])
        self._tables = tables if config.smoothness > 0 and len(neighbours) else []
        self._left = torch.as_tensor(neighbours).to(module.intercept.device)
        self._smoothness = config.smoothness / rows
        self._attention = module.attention.W if module.has_pairs and config.attention_l2 > 0 else None
        self._attention_l2 = config.attention_l2

    @property
    def smooth(self) -> bool:
        """Whether bins get a gradient, be they in the batch or not."""
        return bool(self._tables)

    @torch.no_grad()
    def add_gradient(self) -> None:
        """Add the penalties' gradients to those of the loss."""
        for table in self._tables:
            slope = (2 * self._smoothness) * (table[self._left + 1] - table[self._left])
            if table.grad is not None and table.grad.is_sparse:
                places = torch.cat([table.grad._indices()[0], self._left + 1, self._left])
                slopes = torch.cat([table.grad._values(), slope, -slope])
                table.grad = torch.sparse_coo_tensor(places[None], slopes, table.shape, check_invariants=False)
                continue
            gradient = torch.zeros_like(table) if table.grad is None else table.grad
            gradient.index_add_(0, self._left + 1, slope)
            gradient.index_add_(0, self._left, slope, alpha=-1)
            table.grad = gradient
        if self._attention is not None and self._attention.grad is not None:
            self._attention.grad.add_(self._attention, alpha=2 * self._attention_l2)


@torch.no_grad()
def scored(module: FactorizationMachine, dataset: Dataset) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits (rows, outputs), targets and weights (rows,) of all rows, in evaluation mode."""
    device, dtype = module.intercept.device, module.intercept.dtype
    logits, targets, weights = [], [], []
    for part in dataset.ordered():
        examples = part.to(device, dtype)
        logits.append(module.predict(examples.rows))
        targets.append(examples.target)
        weights.append(examples.weight)
    return torch.cat(logits), torch.cat(targets), torch.cat(weights)


def mean_loss(task: Task, logits: Tensor, target: Tensor, weight: Tensor) -> float:
    """Return the weighted mean loss (log loss, or mean squared error), summed in float64."""
    losses, weight = task.row_losses(logits, target).double(), weight.double()
    return float((losses * weight).sum() / weight.sum())
