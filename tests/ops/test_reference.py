"""The reference path against the paper's formula and an independent implementation of it."""

import itertools

import pytest
import torch
from torch import Tensor

from attfm.ops import pair_attention_pool
from attfm.ops.reference import all_pairs


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def assert_close(actual: Tensor, expected: Tensor, relative: float = 1e-6) -> None:
    """Compare by the largest error relative to the largest value."""
    assert actual.shape == expected.shape
    assert float((actual - expected).detach().abs().max()) <= relative * float(expected.detach().abs().max())


def test_the_comparison_fails_on_a_perturbed_copy() -> None:
    value = draw(5, 3)
    perturbed = value.clone()
    perturbed[4, 2] += 1e-4
    with pytest.raises(AssertionError):
        assert_close(perturbed, value)


def afm_layer(v: Tensor, W: Tensor, b: Tensor, h: Tensor, p: Tensor) -> Tensor:
    """AFMLayer as DeepCTR-Torch composes it, from eq. 4 to 6 of the paper: lists of (batch, 1, dim) tensors, tensordot.

    Written from the formula, pair by pair, without any of attfm's code.
    """
    fields = [v[:, i : i + 1] for i in range(v.shape[1])]
    rows, cols = zip(*itertools.combinations(fields, 2), strict=True)
    products = torch.cat(rows, dim=1) * torch.cat(cols, dim=1)
    hidden = torch.relu(torch.tensordot(products, W, dims=([-1], [0])) + b)
    score = torch.tensordot(hidden, h[:, None], dims=([-1], [0]))  # (batch, pairs, 1)
    exponent = torch.exp(score - score.max(dim=1, keepdim=True).values)
    attention = exponent / exponent.sum(dim=1, keepdim=True)
    return torch.tensordot((attention * products).sum(dim=1), p[:, None], dims=([-1], [0]))[:, 0]


@pytest.mark.parametrize(
    ("batch", "fields", "dim", "attention_dim"), [(33, 14, 16, 15), (1, 2, 1, 1), (7, 3, 17, 5), (4, 39, 3, 1)]
)
def test_logits_and_all_gradients_agree_with_an_independent_implementation(
    batch: int, fields: int, dim: int, attention_dim: int
) -> None:
    shapes = [(batch, fields, dim), (dim, attention_dim), (attention_dim,), (attention_dim,), (dim,)]
    ours = [draw(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
    theirs = [t.detach().clone().requires_grad_() for t in ours]
    v, W, b, h, p = ours
    logit = pair_attention_pool(v, W, b, h, None, None, scale=1.0).vector @ p
    expected = afm_layer(*theirs)
    assert_close(logit, expected)
    upstream = draw(batch, seed=9)
    logit.backward(upstream)
    expected.backward(upstream)
    for name, a, e in zip(["v", "W", "b", "h", "p"], ours, theirs, strict=True):
        assert a.grad is not None
        assert e.grad is not None
        if fields == 2 and name in ("W", "b", "h"):  # one pair: its weight is 1 whatever the attention says
            assert float(a.grad.abs().max()) == 0.0
            continue
        assert_close(a.grad, e.grad)


def test_the_softmax_runs_over_the_pairs_of_a_row_and_not_over_an_axis_of_one() -> None:
    v, W, b, h = draw(6, 5, 4), draw(4, 3), draw(3), draw(3, scale=3)
    W.requires_grad_()
    pooled, weights = pair_attention_pool(v, W, b, h, None, None, scale=1.0, return_weights=True)
    torch.testing.assert_close(weights.sum(1), torch.ones(6, dtype=torch.float64))
    assert float(weights.detach().std(dim=1).min()) > 0.01  # a softmax over an axis of one makes every weight 1
    pooled.sum().backward()
    assert W.grad is not None
    assert float(W.grad.abs().max()) > 1e-3  # and gives the attention network no gradient


def test_without_attention_it_is_the_closed_form_of_the_factorization_machine() -> None:
    v = draw(9, 6, 5)
    pooled = pair_attention_pool(v, None, None, None, None, None, scale=1.0).vector
    assert_close(pooled, 0.5 * (v.sum(1) ** 2 - (v**2).sum(1)), 1e-12)


def test_gate_bias_and_scale_enter_as_in_the_formula() -> None:
    v, W, b, h, c, g = draw(3, 4, 2), draw(2, 3), draw(3), draw(3), draw(6, seed=1), draw(6, seed=2)
    _, plain = pair_attention_pool(v, W, b, h, None, None, scale=1.0, return_weights=True)
    _, weights = pair_attention_pool(v, W, b, h, c, g, scale=6.0, return_weights=True)
    expected = plain * torch.exp(c)
    assert_close(weights, 6 * g * expected / expected.sum(1, keepdim=True), 1e-12)


def test_a_given_list_of_pairs_is_a_selection_of_all_pairs() -> None:
    v, g = draw(3, 5, 2), draw(10)
    chosen = torch.tensor([0, 3, 9])
    pooled = pair_attention_pool(v, None, None, None, None, g[chosen], scale=1.0, pairs=all_pairs(5)[:, chosen]).vector
    masked = torch.zeros(10, dtype=torch.float64)
    masked[chosen] = g[chosen]
    assert_close(pooled, pair_attention_pool(v, None, None, None, None, masked, scale=1.0).vector, 1e-12)


@pytest.mark.parametrize(("batch", "fields"), [(0, 3), (2, 1)])
def test_no_rows_and_no_pairs_give_empty_and_zero_pools(batch: int, fields: int) -> None:
    pairs = fields * (fields - 1) // 2
    pooled, weights = pair_attention_pool(
        draw(batch, fields, 4), draw(4, 2), draw(2), draw(2), draw(pairs), draw(pairs), scale=1.0, return_weights=True
    )
    assert pooled.shape == (batch, 4)
    assert weights.shape == (batch, pairs)
    assert not pooled.any()


def test_gradcheck() -> None:
    inputs = [draw(2, 3, 3), draw(3, 2), draw(2), draw(2), draw(3), draw(3, seed=1)]
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *t: pair_attention_pool(*t, scale=3.0, return_weights=True),  # type: ignore[misc]
        inputs,
    )


def test_dropout_keeps_the_mean_and_drops_the_share_it_is_told_to() -> None:
    torch.manual_seed(0)
    v = torch.ones(2000, 4, 1)
    _, weights = pair_attention_pool(
        v, None, None, None, None, None, scale=1.0, weight_dropout=0.25, return_weights=True
    )
    assert weights.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert float((weights == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    pooled = pair_attention_pool(v, None, None, None, None, None, scale=1.0, pair_dropout=0.5).vector
    assert float(pooled.mean()) == pytest.approx(6.0, abs=0.2)
    assert float(pooled.std()) > 1
