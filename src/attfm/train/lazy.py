"""Big tables of features: a step reads and writes the rows that its gradient holds, never the whole table."""

import math

import torch
from torch import Tensor, nn

from attfm.config import TrainConfig
from attfm.model.modules import FactorizationMachine
from attfm.model.rows import Rows
from attfm.ops import adagrad_rows, adam_rows
from attfm.ops.rows import distinct_rows, sum_rows

# Floats of V from which rows are moved alone. A dense step of Adam reads or writes V, its gradient, both moments and
# the average about ten times: 160 MB at this size, some 20 ms, which is the time of all the rest of a usual step.
_BIG_TABLE = 4_000_000


def is_lazy(module: FactorizationMachine, rows: Rows, batch_size: int) -> bool:
    """Return whether the tables are moved by rows: they are big, and a batch can't touch most of them.

    Parameters
    ----------
    rows : the training rows, for the number of features in one
    """
    table = (module.embedding if module.has_pairs else module.linear).weight
    entries = rows.ids.numel() + sum(len(bag.ids) for bag in rows.bags.values())
    touched = batch_size * entries / max(1, len(rows))
    return table.numel() >= _BIG_TABLE and touched < len(table)


def batch_features(rows: Rows, features: int) -> Tensor:
    """Return the features of a batch, int64, none twice."""
    return distinct_rows(torch.cat([rows.ids.flatten(), *(bag.ids for bag in rows.bags.values())]), features)


class LazyTable:
    """A table whose rows move only in the steps of whose gradient they are part.

    Where all rows are, this is the dense method. Other rows keep their moments as they are: their momentum neither
    moves them nor fades, as in TensorFlow's LazyAdam and `torch.optim.SparseAdam`.

    Parameters
    ----------
    parameter : (features, dim), changed in place; its gradient is sparse
    config : names the method and its learning rate
    """

    def __init__(self, parameter: nn.Parameter, config: TrainConfig) -> None:
        self.parameter = parameter
        self.average: RowAverage | None = None
        self._method, self._rate, self._steps = config.optimizer, config.learning_rate, 0
        empty = parameter.new_empty(0)
        self._mean = torch.zeros_like(parameter.data) if self._method == "adam" else empty
        self._square = torch.zeros_like(parameter.data) if self._method != "sgd" else empty

    @torch.no_grad()
    def step(self, decayed: Tensor, kept: float) -> None:
        """Multiply the `decayed` rows by `kept`, then move the rows that the gradient holds."""
        gradient = self.parameter.grad
        if gradient is None:
            return
        rows, values = sum_rows(gradient)
        if self.average is not None:
            self.average.hold(rows)
        if kept != 1:
            # Not only those of the gradient: that of the smoothness penalty reaches rows that the batch lacks.
            self.parameter[decayed] *= kept
        self._steps += 1
        if self._method == "sgd":
            self.parameter.index_add_(0, rows, values, alpha=-self._rate)
            return
        # Its rows are distinct, though in no order: so it need not be summed again.
        summed = torch.sparse_coo_tensor(
            rows[None], values, gradient.shape, is_coalesced=True, check_invariants=False
        )  # fmt: skip
        if self._method == "adam":
            adam_rows(self.parameter, summed, self._mean, self._square, step=self._steps, rate=self._rate)
        else:
            adagrad_rows(self.parameter, summed, self._square, rate=self._rate)


class RowAverage:
    """The exponential average of a lazy table, exact, at the cost of the rows that a step moves.

    A row p that no step moves between s and t stays, so its average is avg_t = p + k (avg_s - p) there, with k the
    product of the steps' factors. A row is therefore brought up to date when it is about to move, and all rows are
    when the average is asked for.

    Parameters
    ----------
    average, source : (features, dim), equal at the start; the first is changed in place
    """

    def __init__(self, average: Tensor, source: Tensor) -> None:
        self._average, self._source = average, source
        self._log_factors = 0.0  # of all steps since the last `settle`, summed
        self._seen = torch.zeros(len(source), dtype=torch.float64, device=source.device)  # that sum, when up to date
        self._rows, self._held = self._seen.new_empty(0, dtype=torch.int64), average.new_empty(0, average.shape[1])

    @torch.no_grad()
    def hold(self, rows: Tensor) -> None:
        """Bring rows that are about to move up to date."""
        share = torch.exp(self._log_factors - self._seen[rows]).to(self._average.dtype)
        self._rows, self._held = rows, torch.lerp(self._source[rows], self._average[rows], share[:, None])

    @torch.no_grad()
    def take(self, keep: float) -> None:
        """Take in the rows held before the step, after it; the average keeps the share `keep` of its old value."""
        self._log_factors += math.log(keep)
        self._average[self._rows] = torch.lerp(self._source[self._rows], self._held, keep)
        self._seen[self._rows] = self._log_factors

    @torch.no_grad()
    def settle(self) -> None:
        """Bring all rows up to date: costs the whole table."""
        share = torch.exp(self._log_factors - self._seen).to(self._average.dtype)
        self._average.sub_(self._source).mul_(share[:, None]).add_(self._source)
        self._log_factors = 0.0
        self._seen.zero_()
