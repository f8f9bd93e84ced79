"""The dense methods against torch.optim."""

import sys
from subprocess import run

import pytest
import torch
from torch import nn

from attfm.config import ModelConfig, TrainConfig
from attfm.data.batch import Batch
from attfm.model.modules import FactorizationMachine
from attfm.train.optimizer import DenseMethod, Optimizer, ParameterAverage
from attfm.train.sparse_optimizer import LazyTable

KINDS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad}


@pytest.mark.parametrize("optimizer", list(KINDS))
def test_equal_to_torch(optimizer: str) -> None:
    g = torch.Generator().manual_seed(0)
    start = [torch.randn(5, 3, generator=g), torch.randn(7, generator=g), torch.randn(2, generator=g)]
    ours, theirs = ([nn.Parameter(t.clone()) for t in start] for _ in range(2))
    method = DenseMethod(ours, TrainConfig.parse({"optimizer": optimizer, "learning_rate": 0.03, "adam_eps": 1e-8}))
    other = KINDS[optimizer](theirs, lr=0.03)
    for _ in range(20):
        for mine, its in zip(ours[:2], theirs[:2], strict=True):  # the last has no gradient
            mine.grad = its.grad = torch.randn(mine.shape, generator=g)
        method.step()
        other.step()
        for mine, its in zip(ours, theirs, strict=True):
            assert torch.allclose(mine, its, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(ours[0], start[0], atol=0.01)
    assert torch.equal(ours[2], start[2])


def test_a_method_does_not_import_the_compiler_of_torch() -> None:
    code = """
import sys, torch
from attfm.config import ModelConfig, TrainConfig
from attfm.model.modules import FactorizationMachine
from attfm.train.optimizer import DenseMethod, ParameterAverage
from attfm.train.sparse_optimizer import LazyTable
p = torch.nn.Parameter(torch.ones(3))
p.grad = torch.ones(3)
DenseMethod([p], TrainConfig()).step()
assert p[0] < 1
sys.exit("torch._dynamo" in sys.modules)
"""
    assert run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_average_over_one_step_is_the_parameters_of_lazy_tables_too() -> None:
    # Epochs of a single batch, averaged over one epoch: nothing of the old value is kept.
    module = FactorizationMachine(50, 2, 1, ModelConfig(dim=2, attention_dim=2))
    average = ParameterAverage(module, 1.0, [LazyTable(module.embedding.weight, TrainConfig())])
    with torch.no_grad():
        module.embedding.weight.add_(1)
    average.update()
    assert torch.equal(average.averaged.embedding.weight, module.embedding.weight)


@pytest.mark.parametrize("lazy", [False, True])
def test_w_has_a_pace_of_its_own(lazy: bool) -> None:
    moved = []
    for pace_of_w in (1.0, 0.1):
        torch.manual_seed(0)
        module = FactorizationMachine(6, 2, 1, ModelConfig(dim=2, attention_dim=2, weight_dropout=0.0))
        module.sparse_gradients(lazy)
        optimizer = Optimizer(module, TrainConfig(), lazy=lazy, pace_of_w=pace_of_w)
        before = [p.detach().clone() for p in (module.linear.weight, module.embedding.weight, module.intercept)]
        rows = Batch(torch.tensor([[0, 3], [1, 4]]))
        for _ in range(3):
            optimizer.zero_grad()
            (module(rows) * torch.tensor([[1.0], [-2.0]])).sum().backward()
            optimizer.step(rows, pace=0.5)
        after = [module.linear.weight, module.embedding.weight, module.intercept]
        moved.append([(a.detach() - b) for a, b in zip(after, before, strict=True)])
    (w, v, w0), (slow_w, same_v, same_w0) = moved
    assert float(w.abs().max()) > 0.01
    torch.testing.assert_close(slow_w, 0.1 * w)
    torch.testing.assert_close(same_v, v)
    torch.testing.assert_close(same_w0, w0)
