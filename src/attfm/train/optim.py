"""Optimisers: Adam, SGD and Adagrad, each with decoupled weight decay of V and w."""

import torch
from torch import nn

from attfm.config import TrainConfig
from attfm.model.modules import FactorizationMachine


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

    def scale_learning_rate(self, factor: float) -> None:
        """Multiply the learning rate (and with it the decay of a step) by `factor`."""
        self._learning_rate *= factor
        for group in self._method.param_groups:
            group["lr"] = self._learning_rate

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._method.zero_grad(set_to_none=True)

    @torch.no_grad()
    def step(self) -> None:
        """Decay, then move every parameter by its gradient."""
        for parameter, decay in self._decays:
            if decay:
                parameter.mul_(max(0.0, 1 - self._learning_rate * decay))
        self._method.step()
