"""Several machines of one size that predict as one: the mean of their logits."""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attfm.config import ModelConfig
from attfm.data.batch import Batch
from attfm.model.modules import FactorizationMachine
from attfm.ops.scoring import CHUNK


class Ensemble(nn.Module):
    """The mean of the logits of several factorization machines, of a regression the mean of their predictions.

    A mean of sums is the sum of the means, so its terms are the means of the members' terms, exactly.

    Parameters
    ----------
    members : sequence of FactorizationMachine, at least one, all of one size and one `ModelConfig`
    cross_fitted : bool
        Whether each member lacks a fold of the rows, so that their spread tells a standard error (`jackknife_error`).
        Members that were trained on the same rows differ by their seeds only: that is no error of an effect.

    Examples
    --------
    >>> machines = [FactorizationMachine(5, 2, 1, ModelConfig()) for _ in range(2)]
    >>> with torch.no_grad():
    ...     _ = [machine.intercept.fill_(start) for machine, start in zip(machines, (1.0, 2.0))]
    >>> ensemble, rows = Ensemble(machines), Batch(torch.tensor([[0, 4]], dtype=torch.int32))
    >>> float(sum(machine.predict(rows) for machine in machines) / 2 - ensemble.predict(rows))
    0.0
    """

    def __init__(self, members: Sequence[FactorizationMachine], *, cross_fitted: bool = True) -> None:
        super().__init__()
        self.cross_fitted = cross_fitted
        self.members = nn.ModuleList(members)

    @property
    def machines(self) -> tuple[FactorizationMachine, ...]:
        """The members."""
        return tuple(cast(FactorizationMachine, member) for member in self.members)

    @property
    def config(self) -> ModelConfig:
        """Which factors of the formula are on."""
        return self.machines[0].config

    @property
    def fields(self) -> int:
        """Number of fields."""
        return self.machines[0].fields

    @property
    def outputs(self) -> int:
        """1, or the number of classes of a multiclass task."""
        return self.machines[0].outputs

    @property
    def has_pairs(self) -> bool:
        """Whether there are pair effects."""
        return self.machines[0].has_pairs

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean logits (batch, outputs); for regression the mean prediction in the target's unit."""
        return torch.stack([machine(batch) for machine in self.machines]).mean(0)

    @torch.no_grad()
    def predict(self, rows: Batch) -> Tensor:
        """Return the mean logits (rows, outputs) in evaluation mode.

        All members score a chunk before the next is looked at, so that its ids are read from memory once.
        """
        chunks = [self._mean(rows.slice(start, start + CHUNK)) for start in range(0, len(rows), CHUNK)]
        return torch.cat(chunks) if chunks else self._mean(rows)

    def _mean(self, rows: Batch) -> Tensor:
        first, *others = self.machines
        total = first.predict(rows)
        for machine in others:  # one after the other: a row's sum is the same bits in any company
            total = total + machine.predict(rows)
        return total / len(self.members)

    @property
    def scores_natively(self) -> bool:
        """Whether `predict` runs on the compiled kernels: a row's score is then the same bits in any company."""
        return all(machine.scores_natively for machine in self.machines)


Scorer = FactorizationMachine | Ensemble


def members_of(module: Scorer) -> tuple[FactorizationMachine, ...]:
    """Return the machines that a module averages: the members of an ensemble, or the machine itself."""
    return module.machines if isinstance(module, Ensemble) else (module,)


def jackknife_error(values: Sequence[NDArray[Any]] | NDArray[Any]) -> NDArray[np.float64]:
    """Return the standard error of what k models of a cross-fit say, by the jackknife over their folds.

    Each model lacks one fold of k, so the models differ less than models of new rows would:

        error² = (k − 1) / k · Σ_m (value_m − mean)²                    (Efron and Tibshirani 1993, chapter 11)

    which is the models' standard deviation times (k − 1) / √k. What differs by the models' seeds only is counted in.

    Parameters
    ----------
    values : (models, ...), at least two models

    Returns
    -------
    error : float64 (...)

    Examples
    --------
    >>> float(jackknife_error(np.array([1.0, 3.0])))
    1.0
    """
    models = len(values)
    error: NDArray[np.float64] = np.std(values, axis=0, ddof=1, dtype=np.float64) * ((models - 1) / math.sqrt(models))
    return error
