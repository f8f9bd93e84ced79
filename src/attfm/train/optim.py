"""How parameters move: Adam, SGD and Adagrad, each with decoupled weight decay of V and w; and their average."""

import copy

import torch
from torch import nn

from attfm.config import TrainConfig
from attfm.model.modules import FactorizationMachine
from attfm.model.rows import Rows


class Optimizer:
    """A step of the chosen method, after weight decay that bypasses its moments (Loshchilov and Hutter 2019).

    Parameters
    ----------
    module : its parameters are changed in place
    config : names the method, the learning rate and the decays
    """

    def __init__(self, module: FactorizationMachine, config: TrainConfig) -> None:
        parameters = [p for p in module.parameters() if p.requires_grad]
        kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad}
        self._method = kinds[config.optimizer](parameters, lr=config.learning_rate, fused=True)
        self._learning_rate = config.learning_rate
        self._decays: list[tuple[nn.Parameter, float]] = [(module.linear.weight, config.linear_decay)]
        if module.has_pairs:
            self._decays.append((module.embedding.weight, config.embedding_decay))

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._method.zero_grad(set_to_none=True)

    @torch.no_grad()
    def step(self, rows: Rows) -> None:
        """Decay the features that the batch has, then move every parameter by its gradient.

        The decay of a step falls on the batch's features only: with a decay of all features at each step a rare one
        would shrink to nothing between the rows that it occurs in.
        """
        touched = torch.cat([rows.ids.flatten(), *(bag.ids for bag in rows.bags.values())])
        touched = torch.bincount(touched).nonzero()[:, 0]
        for parameter, decay in self._decays:
            if decay:
                parameter[touched] *= max(0.0, 1 - self._learning_rate * decay)
        self._method.step()


class ParameterAverage:
    """Exponential average of a module's parameters over its last steps (Polyak and Juditsky 1992).

    It is steadier than the parameters themselves, so it is what is validated and kept.

    Parameters
    ----------
    module : whose parameters are averaged
    steps : over about how many; 0: no average, `averaged` is the module itself
    """

    def __init__(self, module: FactorizationMachine, steps: float) -> None:
        self.averaged = copy.deepcopy(module) if steps > 0 else module
        self._source = module
        self._keep = 1 - 1 / max(steps, 1.0)
        self._updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the module's parameters after a step."""
        if self.averaged is self._source:
            return
        self._updates += 1
        keep = min(self._keep, self._updates / (self._updates + 9))  # the first steps are forgotten soon
        for average, parameter in zip(self.averaged.parameters(), self._source.parameters(), strict=True):
            average.lerp_(parameter, 1 - keep)
