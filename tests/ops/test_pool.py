"""The compiled pair pooling against the formula: values, gradients, threads, instruction sets, dropout, NaN."""

import os
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attfm.ops import all_pairs, cpu, pair_attention_pool, reference, schema
from attfm.ops.schema import PoolCall
from tests.ops.pool_cases import (
    SHAPES,
    arguments,
    assert_as_exact_as_eager,
    compare,
    needs_native,
    outputs_and_gradients,
    three_ways,
)

pytestmark = needs_native
pool = partial(pair_attention_pool, backend="native", return_weights=True)


@pytest.mark.isa
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("keep_bits", [False, True], ids=["signs again", "signs kept"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_as_exact_as_eager(shape: tuple[int, ...], keep_bits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "BITS_SHARE", 1e9 if keep_bits else 0.0)
    compare(pool, shape)


@pytest.mark.isa
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("shape", [(5, 2, 1, 0), (33, 39, 17, 0), (70, 5, 40, 0)], ids=str)
def test_without_attention(shape: tuple[int, ...]) -> None:
    compare(pool, shape)  # FwFM
    compare(pool, shape, leave_out=[5])  # FM


@pytest.mark.isa
@pytest.mark.parametrize("absent", [(4,), (5,), (4, 5)], ids=["no bias", "no gate", "neither"])
def test_without_bias_or_gate(absent: tuple[int, ...]) -> None:
    compare(pool, (33, 6, 9, 7), leave_out=absent)


@pytest.mark.isa
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("attention_dim", [0, 5])
def test_given_pairs_in_any_order(attention_dim: int) -> None:
    pairs = torch.tensor([[3, 0, 0, 2, 0, 4, 1], [1, 2, 4, 2, 3, 0, 3]])
    compare(pool, (33, 5, 17, attention_dim), pairs=pairs)


@pytest.mark.isa
def test_all_pairs_given_are_the_default() -> None:
    values = arguments(9, 6, 8, 4)
    for x, y in zip(
        outputs_and_gradients(pool, values, torch.float32, pairs=all_pairs(6)),
        outputs_and_gradients(pool, values, torch.float32),
        strict=True,
    ):
        assert torch.equal(x, y)


@pytest.mark.usefixtures("threads")
@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(2, 12), st.integers(1, 70), st.integers(0, 70)),
    seed=st.integers(0, 2**31),
)
def test_any_shape(shape: tuple[int, ...], seed: int) -> None:
    # One draw, so luck plays a part: a wrong formula is off by far more than twenty roundings.
    assert_as_exact_as_eager([three_ways(pool, arguments(*shape, seed=seed))], slack=20)


@pytest.mark.parametrize("position", range(8))
def test_the_comparison_can_fail(position: int) -> None:
    draws = [three_ways(pool, arguments(33, 5, 17, 5, seed=seed)) for seed in range(6)]
    assert_as_exact_as_eager(draws)
    native_, _, exact = draws[3]
    broken = native_[position].clone()
    worst = exact[position].abs().flatten().argmax()
    broken.view(-1)[worst] *= 1 + 1e-5
    native_[position] = broken
    with pytest.raises(AssertionError, match=f"output {position}"):
        assert_as_exact_as_eager(draws)


@pytest.mark.isa
def test_empty_batch() -> None:
    results = outputs_and_gradients(pool, arguments(0, 3, 4, 5), torch.float32)
    assert results[0].shape == (0, 4)
    assert results[1].shape == (0, 3)
    assert all((g == 0).all() for g in results[2:])


def test_one_field_has_no_pairs() -> None:
    pooled, weights = pool(*arguments32(4, 1, 3, 2), scale=1.0)
    assert torch.equal(pooled, torch.zeros(4, 3))
    assert weights.shape == (4, 0)


def arguments32(*shape: int) -> list[Tensor | None]:
    return [None if t is None else t.float() for t in arguments(*shape)]


@pytest.mark.isa
def test_weights_sum_to_one_and_differ() -> None:
    v, W, b, h, bias, _ = arguments32(20, 6, 8, 5)
    _, weights = pool(v, W, b, h, bias, None, scale=1.0)
    assert torch.allclose(weights.sum(1), torch.ones(20), atol=1e-6)
    assert (weights.std(dim=1) > 1e-3).all()


@pytest.mark.isa
@pytest.mark.usefixtures("threads")
def test_one_bad_row_stays_alone() -> None:
    values = arguments32(40, 5, 17, 5)
    clean, clean_weights = pool(*values, scale=1.0)
    v = values[0]
    assert v is not None
    leaf = v.clone().requires_grad_()
    pool(leaf, *values[1:], scale=1.0)[0][torch.arange(40) != 7].sum().backward()
    clean_gradient = torch.as_tensor(leaf.grad)
    for bad in (float("nan"), float("inf")):
        dirty = v.clone()
        dirty[7, 2, 3] = bad
        leaf = dirty.clone().requires_grad_()
        pooled, weights = pool(leaf, *values[1:], scale=1.0)
        expected, expected_weights = reference.pair_attention_pool(dirty, *values[1:], scale=1.0)
        assert torch.equal(pooled.isnan(), expected.isnan())
        assert torch.equal(weights.isnan(), expected_weights.isnan())
        others = torch.arange(40) != 7
        assert torch.equal(pooled[others], clean[others])
        assert torch.equal(weights[others], clean_weights[others])
        pooled[others].sum().backward()
        assert torch.equal(torch.as_tensor(leaf.grad)[others], clean_gradient[others])


@pytest.mark.isa
def test_an_infinite_embedding_that_relu_hides_gives_infinity() -> None:
    v = torch.tensor([[[float("inf")], [1.0], [1.0]]])
    W, b, h = torch.full((1, 5), -1.0), torch.zeros(5), torch.ones(5)
    pooled = pair_attention_pool(v, W, b, h, None, None, scale=1.0, backend="native")
    assert torch.equal(pooled.vector, torch.tensor([[float("inf")]]))


@pytest.mark.isa
def test_huge_logits_do_not_overflow() -> None:
    v = torch.tensor([[[1.0], [1.0], [2.0]]])
    W, b, h = torch.full((1, 1), 1e4), torch.zeros(1), torch.ones(1)
    _, weights = pool(v, W, b, h, None, None, scale=1.0)
    assert torch.equal(weights, torch.tensor([[0.0, 0.5, 0.5]]))


@pytest.mark.isa
@pytest.mark.usefixtures("threads")
def test_results_repeat_bit_for_bit() -> None:
    values = arguments(200, 9, 16, 20)
    first = outputs_and_gradients(pool, values, torch.float32)
    for _ in range(5):
        for x, y in zip(first, outputs_and_gradients(pool, values, torch.float32), strict=True):
            assert torch.equal(x, y)


@pytest.mark.isa
def test_dropout_keeps_its_rate_and_its_seed() -> None:
    values = arguments32(2000, 6, 8, 5)
    torch.manual_seed(5)
    _, first = pool(*values, scale=1.0, weight_dropout=0.3)
    _, second = pool(*values, scale=1.0, weight_dropout=0.3)
    torch.manual_seed(5)
    _, again = pool(*values, scale=1.0, weight_dropout=0.3)
    _, full = pool(*values, scale=1.0)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    dropped = first == 0
    # 30,000 draws: five standard deviations are 0.013. Also for every pair alone (2,000 draws), and no two alike.
    assert abs(float(dropped.float().mean()) - 0.3) < 0.013
    assert ((dropped.float().mean(0) - 0.3).abs() < 0.052).all()
    correlation = torch.corrcoef(dropped.float().T) - torch.eye(15)
    assert (correlation.abs() < 0.12).all()
    assert torch.allclose(first[~dropped], full[~dropped] / 0.7, rtol=1e-6)


@pytest.mark.isa
@pytest.mark.usefixtures("threads")
def test_dropout_does_not_depend_on_threads_or_rows() -> None:
    values = arguments32(64, 6, 8, 5)
    torch.manual_seed(1)
    _, many = pool(*values, scale=1.0, weight_dropout=0.5)
    v = values[0]
    assert v is not None
    torch.manual_seed(1)
    _, few = pool(v[:9], *values[1:], scale=1.0, weight_dropout=0.5)
    assert torch.equal(many[:9], few)


@pytest.mark.isa
@pytest.mark.parametrize("attention_dim", [0, 5])
def test_dropout_gradients(attention_dim: int) -> None:
    values = arguments(33, 6, 9, attention_dim)

    def with_mask(mask: Tensor, *args: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
        v = args[0]
        assert v is not None
        i, j = all_pairs(6)
        _, weights = reference.pair_attention_pool(*args, scale=scale)
        weights = weights * mask.to(v.dtype)
        return (weights[..., None] * v[:, i] * v[:, j]).sum(1), weights

    torch.manual_seed(2)
    results = outputs_and_gradients(partial(pool, weight_dropout=0.4), values, torch.float32)
    mask = (results[1] != 0).double() / 0.6
    assert 0 < float((mask == 0).double().mean()) < 1
    eager = outputs_and_gradients(partial(with_mask, mask), values, torch.float32)
    exact = outputs_and_gradients(partial(with_mask, mask), values, torch.float64)
    assert_as_exact_as_eager([(results, eager, exact)], slack=5)


@pytest.mark.isa
def test_only_asked_gradients() -> None:
    v, W, b, h, bias, gate = arguments32(5, 4, 3, 2)
    assert h is not None
    h.requires_grad_()
    pool(v, W, b, h, bias, gate, scale=1.0)[0].sum().backward()
    assert h.grad is not None
    assert all(t is None or t.grad is None for t in (v, W, b, bias, gate))


@pytest.mark.isa
def test_the_weights_alone_can_be_differentiated() -> None:
    values = arguments(9, 4, 3, 2)
    leaves = [t.float().requires_grad_() for t in values if t is not None]
    exact = [t.clone().requires_grad_() for t in values if t is not None]
    pool(*leaves, scale=2.0)[1].square().sum().backward()
    reference.pair_attention_pool(*exact, scale=2.0)[1].square().sum().backward()
    for x, y in zip(leaves, exact, strict=True):
        assert torch.allclose(torch.as_tensor(x.grad).double(), torch.as_tensor(y.grad), rtol=1e-4, atol=1e-6)


@pytest.mark.isa
def test_transposed_gradient_of_the_output() -> None:
    values = arguments32(6, 4, 5, 3)
    leaf = torch.as_tensor(values[0]).clone().requires_grad_()
    pooled = pair_attention_pool(leaf, *values[1:], scale=1.0, backend="native").vector
    scattered = torch.arange(30.0).reshape(5, 6).T
    (scattered_grad,) = torch.autograd.grad(pooled, leaf, scattered, retain_graph=True)
    (grad,) = torch.autograd.grad(pooled, leaf, scattered.contiguous())
    assert torch.equal(grad, scattered_grad)


def test_operator_contract() -> None:
    v, *network = [t.float().requires_grad_() for t in arguments(6, 4, 5, 3) if t is not None]
    numbers = cpu.pair_numbers(None, 4)
    for dropout in (0.0, 0.5):
        seed = torch.tensor(7) if dropout else None
        call = PoolCall(v, numbers, *network, seed=seed, fields=4, scale=1.5, weight_dropout=dropout,
                        pair_dropout=dropout / 2)  # fmt: skip
        torch.library.opcheck(torch.ops.attfm.pool.default, (*call, True, True))
    call = PoolCall(v, numbers, *[None] * 5, fields=4, all_pairs=True)
    torch.library.opcheck(torch.ops.attfm.pool.default, (*call, False, True))


class _Recorder(TorchDispatchMode):
    """Notes the operators that torch is told of."""

    def __init__(self) -> None:
        super().__init__()
        self.names = set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def test_the_short_way_to_the_kernels_gives_the_bits_of_the_operator() -> None:
    def results() -> list[Tensor]:
        leaves = [t.float().requires_grad_() for t in arguments(33, 4, 6, 5) if t is not None]
        vector, weights = pool(*leaves, scale=2.0)
        (vector.sin().sum() + weights.square().sum()).backward()
        return [vector, weights, *(torch.as_tensor(leaf.grad) for leaf in leaves)]

    short = results()
    with _Recorder() as recorder:
        by_operator = results()
    assert "attfm::pool" in recorder.names
    assert all(torch.equal(one, other) for one, other in zip(short, by_operator, strict=True))


def test_transforms_of_torch_get_the_operator() -> None:
    embeddings = torch.randn(5, 3, 4)

    def vectors(rows: Tensor) -> Tensor:
        return pair_attention_pool(rows, *[None] * 5, scale=1.0).vector

    mapped = torch.func.vmap(lambda row: vectors(row[None])[0])(embeddings)
    torch.testing.assert_close(mapped, vectors(embeddings))


def test_a_second_derivative_is_not_silently_wrong() -> None:
    v, *network = [t.float().requires_grad_() for t in arguments(6, 4, 5, 3) if t is not None]
    vector = pool(v, *network, scale=1.0).vector
    (gradient,) = torch.autograd.grad(vector.square().sum(), v, create_graph=True)
    with pytest.warns(UserWarning, match="attfm::pool_backward: an autograd kernel was not registered"):
        gradient.sum().backward()


def test_compiled_graph_has_no_break() -> None:
    values = arguments32(6, 4, 5, 3)
    leaf = torch.as_tensor(values[0]).clone().requires_grad_()
    function = torch.compile(
        lambda v: pair_attention_pool(v, *values[1:], scale=1.0).vector.sin().sum(), backend="aot_eager", fullgraph=True
    )
    function(leaf).backward()
    expected = torch.as_tensor(values[0]).clone().requires_grad_()
    pair_attention_pool(expected, *values[1:], scale=1.0).vector.sin().sum().backward()
    assert leaf.grad is not None
    assert torch.allclose(leaf.grad, torch.as_tensor(expected.grad))


def test_forked_child_has_its_own_threads() -> None:
    values = arguments32(300, 9, 16, 20)
    expected = pair_attention_pool(*values, scale=1.0, backend="native").vector
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        same = torch.equal(pair_attention_pool(*values, scale=1.0, backend="native").vector, expected)
        os.write(write, b"1" if same else b"0")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1) == b"1"
    os.close(read)
    os.close(write)


def test_reference_gradients() -> None:
    values = [t.requires_grad_() for t in arguments(3, 4, 3, 2) if t is not None]
    assert torch.autograd.gradcheck(lambda *a: reference.pair_attention_pool(*a, scale=1.3), values)
