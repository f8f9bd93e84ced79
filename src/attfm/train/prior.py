"""What a machine has learned as the prior of what it learns from new rows: the more rows, the more they decide."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attfm.model.modules import FactorizationMachine
from attfm.model.task import Task

# How much an earlier row counts, of what it told when it was learned: of w, of V and of all other parameters. A row of
# w is told by the curvature of the loss itself; the others by a part of it.
LINEAR, EMBEDDING, OTHERS = 1.0, 0.3, 0.3


@dataclass(frozen=True)
class Prior:
    """Strengths of the pull to where each parameter began, ½ Σ strength · (parameter − start)², in rows.

    A quadratic approximation of the loss of the earlier rows, as Laplace's (MacKay 1992) and as elastic weight
    consolidation (Kirkpatrick et al. 2017) has it, with the curvature of the outcome's variance for each row in place
    of a Fisher information of each parameter.

    Attributes
    ----------
    rows : float64 Tensor, of each row of w and V: earlier rows that read it, times the curvature
    total : float, that of all earlier rows
    """

    rows: Tensor
    total: float

    @classmethod
    def of(cls, machine: FactorizationMachine, task: Task) -> "Prior":
        """Return the prior that a machine is, which learns on."""
        sums = machine.sums
        if sums is None or not len(sums.rows):
            return cls(torch.zeros(len(machine.linear.weight), dtype=torch.float64), 0.0)
        base = sums.base
        curvature = float(np.mean(base * (1 - base))) if task.is_classification else 1.0
        return cls(torch.from_numpy(curvature * sums.rows_of_tables()), curvature * float(sums.total[-1]))
