"""How parameters move: Adam, SGD and Adagrad, each with decoupled weight decay of V and w; and their average."""

import copy
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from attfm.config import TrainConfig
from attfm.data.batch import Batch
from attfm.model.modules import FactorizationMachine
from attfm.ops import RowAverage
from attfm.train.sparse_optimizer import LazyTable, Stateful, rate_of


class DenseMethod(Stateful):
    """Adam (Kingma and Ba 2015), Adagrad (Duchi et al. 2011) or plain SGD, of whole tensors.

    The same as those of torch.optim with its defaults, whose first use takes a second: it imports torch's compiler.

    Parameters are changed in place where they have a gradient; the settings name the method and the learning rate, and
    `paces` by what the rate of a parameter is multiplied, by its `id`.
    """

    _state = ("_steps", "_means", "_squares")

    def __init__(
        self, parameters: Sequence[nn.Parameter], config: TrainConfig, paces: Mapping[int, float] = MappingProxyType({})
    ) -> None:
        self._method, self._rate, self._steps = config.optimizer, rate_of(config), 0
        self._eps = config.adam_eps
        kept = parameters if self._method != "sgd" else []
        self._squares = [torch.zeros_like(p) for p in kept]
        self._means = [torch.zeros_like(p) for p in kept]
        self._parameters, self._paces = parameters, [paces.get(id(parameter), 1.0) for parameter in parameters]

    @torch.no_grad()
    def step(self, *, noise: float = 1.0, pace: float = 1.0) -> None:
        """Move every parameter that has a gradient; noise, pace : by which Adam's eps, the rate are multiplied."""
        self._steps += 1
        betas, eps = (0.9, 0.999), {"adam": noise * self._eps, "adagrad": 1e-10}.get(self._method, 0.0)
        rate, root = pace * self._rate, 1.0
        if self._method == "adam":
            rate, root = rate / (1 - betas[0] ** self._steps), (1 - betas[1] ** self._steps) ** 0.5
        moving = [n for n, parameter in enumerate(self._parameters) if parameter.grad is not None]
        parameters: list[Tensor] = [self._parameters[n] for n in moving]
        gradients: list[Any] = [parameter.grad for parameter in parameters]
        if not moving:
            return
        # Each call does to all tensors what the method of that name does to one.
        if self._method == "sgd":
            torch._foreach_add_(parameters, gradients, alpha=-rate)
            return
        means, squares = gradients, [self._squares[n] for n in moving]
        if self._method == "adam":
            means = [self._means[n] for n in moving]
            torch._foreach_lerp_(means, gradients, 1 - betas[0])
            torch._foreach_mul_(squares, betas[1])
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - betas[1] if self._method == "adam" else 1.0)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, root)
        torch._foreach_add_(roots, eps)
        torch._foreach_addcdiv_(parameters, means, roots, [-rate * self._paces[n] for n in moving])


class Optimizer:
    """A step of the chosen method, after weight decay that bypasses its moments (Loshchilov and Hutter 2019).

    Parameters
    ----------
    module : its parameters are changed in place
    config : names the method, the learning rate and the decays
    more_rows : gradients may hold more than the batch's rows, as those of the smoothness penalty do
    lazy : V and w get sparse gradients (`FactorizationMachine.sparse_gradients`) and are moved row by row
    ridges : strengths of the ridges of w and V where they are lazy; of dense ones the gradients hold it
    centres : by `id` of a table, what its ridge pulls to; 0 without one
    pace_of_w : by what the learning rate of w is multiplied, of a method that has moments
    """

    def __init__(
        self, module: FactorizationMachine, config: TrainConfig, *, lazy: bool = False, more_rows: bool = True,
        ridges: tuple[float | Tensor, float | Tensor] = (0.0, 0.0),
        centres: Mapping[int, Tensor] = MappingProxyType({}), pace_of_w: float = 1.0,
    ) -> None:  # fmt: skip
        tables = [module.linear.weight] + ([module.embedding.weight] if module.has_pairs else [])
        self.lazy = [
            LazyTable(table, config, ridge=ridges[n], centre=centres.get(id(table)))
            for n, table in enumerate(tables) if lazy
        ]  # fmt: skip
        apart = {id(table) for table in tables} if lazy else set()
        parameters = [p for p in module.parameters() if p.requires_grad and id(p) not in apart]
        self._module, self._more_rows, self._learned = module, more_rows, list(module.parameters())
        self._paces = {id(module.linear.weight): pace_of_w}
        self._method = DenseMethod(parameters, config, self._paces)
        self._learning_rate = rate_of(config)
        self._decays: list[tuple[nn.Parameter, float]] = [(module.linear.weight, config.linear_decay)]
        if module.has_pairs:
            self._decays.append((module.embedding.weight, config.embedding_decay))

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._learned:
            parameter.grad = None

    @torch.no_grad()
    def step(self, rows: Batch, *, noise: float = 1.0, pace: float = 1.0) -> None:
        """Decay the features that the batch has, then move every parameter by its gradient.

        noise : by which Adam's eps and the ridges of lazy tables are multiplied
        pace : by which the learning rate is multiplied

        The decay of a step falls on the batch's features only: with a decay of all features at each step a rare one
        would shrink to nothing between the rows that it occurs in.
        """
        decays = [min(decay, 1 / self._learning_rate) for _, decay in self._decays]
        kept = [1 - pace * self._learning_rate * decay for decay in decays]
        if self.lazy:
            for table, decay in zip(self.lazy, decays, strict=True):
                read = self._module.features_of(rows) if self._more_rows else None
                table.step(decay, read, noise=noise, pace=pace * self._paces.get(id(table.parameter), 1.0))
        elif min(kept) < 1:
            touched = torch.bincount(self._module.features_of(rows).flatten()).nonzero()[:, 0]
            for (parameter, _), share in zip(self._decays, kept, strict=True):
                if share < 1:
                    parameter[touched] *= share
        self._method.step(noise=noise, pace=pace)

    def state_dict(self) -> dict[str, Any]:
        """Return the moments of all parameters, as they are: a later step changes them."""
        return {"dense": self._method.state_dict(), "lazy": [table.state_dict() for table in self.lazy]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self._method.load_state_dict(state["dense"])
        for table, kept in zip(self.lazy, state["lazy"], strict=True):
            table.load_state_dict(kept)


class ParameterAverage:
    """Exponential average of a module's parameters over its last steps (Polyak and Juditsky 1992).

    It is steadier than the parameters themselves, so it is what is validated and kept. Lazy tables are averaged too,
    with the same result as dense ones: see `attfm.ops.RowAverage`.

    Parameters
    ----------
    module : whose parameters are averaged
    steps : over about how many; up to 1: no average, `averaged` is the module itself
    lazy : the tables that the optimiser moves row by row
    """

    def __init__(self, module: FactorizationMachine, steps: float, lazy: Sequence[LazyTable] = ()) -> None:
        # Of one step it is the parameters themselves: nothing of the old value is kept.
        # What a state does not hold is never changed, and may be large.
        lasting = {id(tensor) for tensor in module.state_dict(keep_vars=True).values()}
        shared = {id(buffer): buffer for buffer in module.buffers() if id(buffer) not in lasting}
        self._averaged = copy.deepcopy(module, shared) if steps > 1 else module
        self._source = module
        self._keep = 1 - 1 / max(steps, 1.0)
        self._updates = 0
        self._rows: list[RowAverage] = []
        self._dense: tuple[list[Tensor], list[Tensor]] = ([], [])  # averages, and of what
        tables = {id(table.parameter): table for table in lazy}
        for average, parameter in zip(self._averaged.parameters(), module.parameters(), strict=True):
            if average is parameter:
                continue
            if id(parameter) in tables:
                rows = RowAverage(average.data, parameter.data)
                rows.keep = self._next_keep()
                tables[id(parameter)].average = rows
                self._rows.append(rows)
            else:
                self._dense[0].append(average)
                self._dense[1].append(parameter)

    @property
    def averaged(self) -> FactorizationMachine:
        """The module of the averages; bringing it up to date may cost the whole table, so ask once an epoch."""
        for rows in self._rows:
            if rows.log_factors:  # to bring up to date what is so would round it
                rows.settle()
        return self._averaged

    def _next_keep(self) -> float:
        return min(self._keep, (self._updates + 1) / (self._updates + 10))  # the first steps are forgotten soon

    @torch.no_grad()
    def update(self) -> None:
        """Take in the module's parameters after a step."""
        keep = self._next_keep()
        self._updates += 1
        if self._dense[0]:
            torch._foreach_lerp_(*self._dense, 1 - keep)
        for rows in self._rows:
            rows.pass_step()
            rows.keep = self._next_keep()

    def state_dict(self) -> dict[str, Any]:
        """Return the averages, as they are (a later step changes them), and how many steps they are of."""
        # As they are: to bring rows up to date would round them.
        averages = None if self._averaged is self._source else self._averaged.state_dict()
        rows = [{"log_factors": of.log_factors, "seen": of.seen} for of in self._rows]
        return {"updates": self._updates, "averages": averages, "rows": rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken, the parameters being those of then."""
        self._updates = state["updates"]
        if state["averages"] is not None:
            self._averaged.load_state_dict(state["averages"])
        for rows, kept in zip(self._rows, state["rows"], strict=True):
            rows.log_factors, rows.keep = kept["log_factors"], self._next_keep()
            rows.seen.copy_(kept["seen"])
