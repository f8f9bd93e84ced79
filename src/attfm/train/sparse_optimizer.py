"""Big tables of features: a step reads and writes the rows that its gradient holds, never the whole table."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from attfm.config import TrainConfig
from attfm.data.dataset import Statistics
from attfm.model.modules import FactorizationMachine
from attfm.ops import RowAverage, adagrad_rows, adam_rows
from attfm.ops.sparse import distinct_rows, sum_rows
from attfm.ops.sparse_gradient import sparse_gradient

# Floats of V from which rows are moved alone. A dense step of Adam reads or writes V, its gradient, both moments and
# the average about ten times: 160 MB at this size, some 20 ms, which is the time of all the rest of a usual step.
BIG_TABLE = 4_000_000


def rate_of(config: TrainConfig) -> float:
    """Return the learning rate, that of classes where no task has settled what "auto" means."""
    return float(config.of_task("binary").learning_rate)


def is_lazy(module: FactorizationMachine, statistics: Statistics, batch_size: int) -> bool:
    """Return whether the tables are moved by rows: they are big, and a batch can't touch most of them."""
    table = (module.embedding if module.has_pairs else module.linear).weight
    touched = batch_size * statistics.entries / max(1, statistics.rows)
    return table.numel() >= BIG_TABLE and touched < len(table)


class Stateful:
    """Something that goes on from a state, which is the attributes that `_state` names."""

    _state: tuple[str, ...] = ()

    def state_dict(self) -> dict[str, Any]:
        """Return the state as it is: a later step changes it."""
        return {name: getattr(self, name) for name in self._state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        for name in self._state:
            setattr(self, name, _beside(getattr(self, name), state[name]))


def _beside(present: Any, kept: Any) -> Any:
    """Return a copy of a part of a state; of tensors on the device of those that are there now."""
    if isinstance(kept, Tensor):
        return kept.to(present.device, copy=True)
    if isinstance(kept, list):
        return [_beside(*pair) for pair in zip(present, kept, strict=True)]
    return copy.deepcopy(kept)


class LazyTable(Stateful):
    """A table whose rows move only in the steps of whose gradient they are part.

    Where all rows are, this is the dense method. Other rows keep their moments as they are: their momentum neither
    moves them nor fades, as in TensorFlow's LazyAdam and `torch.optim.SparseAdam`.

    The parameter, (features, dim), is changed in place; its gradient is sparse.

    `ridge` is the strength of a ridge on the whole table, or of each row, (rows, 1), towards `centre` or 0. A row that
    steps leave alone does not move, so that its ridge's gradient stays the same: those of all these steps come at once
    when the row moves next.
    """

    _state = ("_steps", "_mean", "_square", "_moved")

    def __init__(
        self, parameter: nn.Parameter, config: TrainConfig, *, ridge: float | Tensor = 0.0, centre: Tensor | None = None
    ) -> None:
        self.parameter, self._centre = parameter, centre
        self.average: RowAverage | None = None
        self._method, self._rate, self._steps = config.optimizer, rate_of(config), 0
        empty = parameter.new_empty(0)
        self._eps, self._ridge = config.adam_eps, ridge
        self._has_ridge = isinstance(ridge, Tensor) or ridge != 0
        # The last step in which each row moved.
        self._moved = torch.zeros(len(parameter) if self._has_ridge else 0, dtype=torch.int64, device=parameter.device)
        self._mean = torch.zeros_like(parameter.data) if self._method == "adam" else empty
        self._square = torch.zeros_like(parameter.data) if self._method != "sgd" else empty

    @torch.no_grad()
    def step(self, decay: float, read: Tensor | None, *, noise: float = 1.0, pace: float = 1.0) -> None:
        """Move the rows that the gradient holds, after decay.

        decay : decoupled, as torch.optim.AdamW's weight_decay; at most 1 / learning rate
        noise, pace : by which Adam's eps and the ridge, and the learning rate are multiplied
        read : the rows that the batch reads, given where the gradient holds more of them: these decay
        """
        gradient = self.parameter.grad
        if gradient is None:
            return
        rows, values = sum_rows(gradient)
        rate = pace * self._rate
        self._steps += 1
        if self._has_ridge:
            left_alone = (self._steps - self._moved[rows])[:, None]
            away = self.parameter[rows] if self._centre is None else self.parameter[rows] - self._centre[rows]
            strength = 1.0 if isinstance(self._ridge, Tensor) else self._ridge
            away = self._ridge[rows] * away if isinstance(self._ridge, Tensor) else away
            values = torch.addcmul(values, away, left_alone.to(values.dtype), value=noise * strength)
            self._moved[rows] = self._steps
        by_torch = self._method == "sgd"
        if self.average is not None and (by_torch or read is not None):
            self.average.catch_up(rows)
        if decay and (by_torch or read is not None):
            decayed = rows if read is None else distinct_rows(read, len(self.parameter))
            self.parameter[decayed] *= 1 - rate * decay
            decay = 0.0
        summed = sparse_gradient(rows, values, gradient.shape, distinct=True)
        if self._method == "adam":
            adam_rows(
                self.parameter, summed, self._mean, self._square,
                step=self._steps, rate=rate, eps=noise * self._eps, decay=decay, average=self.average,
            )  # fmt: skip
        elif self._method == "adagrad":
            adagrad_rows(self.parameter, summed, self._square, rate=rate, decay=decay, average=self.average)
        else:
            self.parameter.index_add_(0, rows, values, alpha=-rate)
            if self.average is not None:
                self.average.take(rows)
