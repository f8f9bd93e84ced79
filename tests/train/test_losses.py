"""The penalties of neighbouring bins: their gradient, and the strength that each field has by its own bins."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attfm.config import ModelConfig, TrainConfig
from attfm.model.modules import FactorizationMachine
from attfm.train.losses import Penalties, Smoothness

LEFT = np.array([0, 1, 2, 5, 6, 9])  # runs of 4, 3 and 2 bins
NEIGHBOURS = torch.from_numpy(np.stack([LEFT, LEFT + 1]))


def smooth(table: Tensor, strength: float = 0.7, *, adaptive: bool = True) -> Smoothness:
    return Smoothness(table, NEIGHBOURS, strength, adaptive=adaptive)


def rough_table() -> nn.Parameter:
    """Return rows whose differences are 1 in the first run, 4 in the second and 2 in the third, in both columns."""
    steps = torch.tensor([0.0, 1, 1, 1, 9, 9, 4, 4, 9, 9, 2], dtype=torch.float64)
    return nn.Parameter(steps.cumsum(0)[:, None].repeat(1, 2))


@pytest.mark.parametrize("sparse", [False, True])
def test_gradient_is_that_of_the_penalty(sparse: bool) -> None:
    table = nn.Parameter(torch.randn(11, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    smoothness = smooth(table)
    smoothness.factors = torch.tensor([1.0, 0.5, 3.0], dtype=torch.float64)
    of_neighbour = smoothness.factors.repeat_interleave(torch.tensor([3, 2, 1]))
    penalty = 0.7 * 0.25 * ((table[LEFT + 1] - table[LEFT]) ** 2 * of_neighbour[:, None]).sum()
    (expected,) = torch.autograd.grad(penalty, table)
    if sparse:
        table.grad = torch.zeros(11, 2, dtype=torch.float64).to_sparse(1)
    with torch.no_grad():
        smoothness.add_gradient(0.25)
    assert table.grad is not None
    assert table.grad.is_sparse is sparse
    torch.testing.assert_close(table.grad.to_dense(), expected)


def test_fields_of_small_differences_are_pulled_together_more() -> None:
    smoothness = smooth(rough_table())
    with torch.no_grad():
        smoothness.adapt()
    # Mean squares of 2, 32 and 8, whose geometric mean is 8: the root of each one's share of it.
    torch.testing.assert_close(smoothness.factors, torch.tensor([2.0, 0.5, 1.0], dtype=torch.float64))


def test_no_field_goes_too_far_from_the_others() -> None:
    table = rough_table()
    with torch.no_grad():
        table[:4] = 1.0  # no difference at all
        smoothness = smooth(table)
        smoothness.adapt()
    assert smoothness.factors.tolist() == pytest.approx([25.0, 0.04, 0.04])


def test_one_field_and_fixed_strengths_stay_as_they_are() -> None:
    table = rough_table()
    alone, fixed = Smoothness(table, NEIGHBOURS[:, :3], 1.0, adaptive=True), smooth(table, adaptive=False)
    for smoothness in (alone, fixed):
        with torch.no_grad():
            smoothness.adapt()
        assert (smoothness.factors == 1).all()


@pytest.mark.parametrize("by_field", [True, False])
def test_weights_and_embeddings_have_strengths_of_their_own(by_field: bool) -> None:
    module = FactorizationMachine(11, 3, 1, ModelConfig.parse({"dim": 2, "embedding_std": 1.0}))
    with torch.no_grad():
        module.linear.weight.copy_(rough_table()[:, :1])
    config = TrainConfig.parse({"smoothness": 1.0, "smoothness_by_field": by_field})
    penalties = Penalties(module, LEFT, config, rows=10)
    penalties.adapt()
    of_weights, of_embeddings = penalties.state_dict()
    assert of_weights.tolist() == ([2.0, 0.5, 1.0] if by_field else [1.0] * 3)
    assert torch.equal(of_embeddings, torch.ones(3)) is not by_field
    again = Penalties(module, LEFT, config, rows=10)
    again.load_state_dict(penalties.state_dict())
    assert all(map(torch.equal, again.state_dict(), penalties.state_dict()))


@pytest.mark.parametrize(
    ("knots", "rows", "share"),
    [(51, 10, 0.2), (0, 10, 1.0), (1000, 10, 1.0), ("auto", 2601, 0.2), ("auto", 10**6, 1.0)],
)
def test_the_fewer_knots_the_less_is_the_smoothness_of_main_effects(knots: int | str, rows: int, share: float) -> None:
    module = FactorizationMachine(11, 3, 1, ModelConfig.parse({"dim": 2, "embedding_std": 1.0}))
    with torch.no_grad():
        module.linear.weight.copy_(module.embedding.weight[:, :1])
    settings = {"smoothness": 4.0, "knots": knots, "linear_ridge": 0.0, "embedding_ridge": 0.0}
    Penalties(module, LEFT, TrainConfig.parse(settings), rows=rows).add_gradient()
    of_weights, of_embeddings = module.linear.weight.grad, module.embedding.weight.grad
    assert of_embeddings.abs().sum() > 0
    torch.testing.assert_close(of_weights[:, 0], share * of_embeddings[:, 0])


@pytest.mark.parametrize("lazy", [False, True])
def test_bins_that_smoothness_holds_have_a_tenth_of_the_ridge_of_levels(lazy: bool) -> None:
    module = FactorizationMachine(11, 3, 1, ModelConfig.parse({"dim": 2, "embedding_std": 1.0}))
    with torch.no_grad():
        module.linear.weight.copy_(module.embedding.weight[:, :1])
    settings = {"smoothness": 0.0, "linear_ridge": 8.0, "embedding_ridge": 3.0}
    penalties = Penalties(module, LEFT, TrainConfig.parse(settings), rows=10)
    of_w, of_v = penalties.ridges
    bins = torch.zeros(11, 1)
    bins[np.r_[LEFT, LEFT + 1]] = 1
    wanted = torch.where(bins == 1, 0.08, 0.8)
    if not lazy:  # what a table with dense gradients is given
        for table in (module.linear.weight, module.embedding.weight):
            table.grad = torch.zeros_like(table)
        penalties.add_gradient(noise=0.5)
        of_w, of_v = (2 * table.grad / table.detach() for table in (module.linear.weight, module.embedding.weight))
    torch.testing.assert_close(torch.as_tensor(of_w).expand(11, 1), wanted)
    torch.testing.assert_close(torch.as_tensor(of_v).expand(11, 2), torch.full((11, 2), 0.3))
    none = Penalties(module, LEFT[:0], TrainConfig.parse(settings), rows=10)
    assert none.ridges == (0.8, pytest.approx(0.3))
