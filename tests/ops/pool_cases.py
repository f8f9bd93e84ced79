"""Inputs and the three-way comparison of the kernel tests: native and eager float32, both against float64."""

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from attfm.ops import native_info, reference

needs_native = pytest.mark.skipif(
    not native_info()["available"], reason="attfm was installed without its compiled kernels"
)

# (batch, fields, dim, attention_dim): awkward sizes, and sizes above one register tile, chunk and vector.
SHAPES = [
    (1, 2, 1, 1),
    (33, 2, 17, 5),
    (33, 3, 1, 5),
    (1, 39, 17, 1),
    (33, 39, 17, 5),
    (7, 39, 16, 16),
    (19, 14, 8, 33),
    (5, 14, 16, 150),
    (70, 5, 40, 48),
    (3, 10, 256, 64),
]
# Errors below this part of the largest entry (three roundings) are right whatever eager does.
FLOOR = 3 * 2.0**-24
Results = list[Tensor]

Arguments = list[Tensor | None]


def arguments(
    batch: int, fields: int, dim: int, attention_dim: int, *, pairs: int | None = None, seed: int = 0
) -> Arguments:
    """Return float64 embeddings, W, b, h, pair_bias and pair_gate; attention_dim 0 leaves attention out."""
    g = torch.Generator().manual_seed(seed)
    count = fields * (fields - 1) // 2 if pairs is None else pairs

    def normal(*shape: int, std: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).mul(std).to(torch.float32).double()

    network: Arguments = [None, None, None, None]
    if attention_dim:
        std = dim**-0.5
        network = [
            normal(dim, attention_dim, std=std), normal(attention_dim, std=0.1),
            normal(attention_dim, std=0.3), normal(count, std=0.5),
        ]  # fmt: skip
    return [normal(batch, fields, dim), *network, normal(count, std=0.2) + 1]


def outputs_and_gradients(
    pool: Callable[..., tuple[Tensor, Tensor]], values: Sequence[Tensor | None], dtype: torch.dtype, **options: object
) -> list[Tensor]:
    """Return pooled, weights, and the gradient of every argument, for fixed random gradients of both outputs."""
    leaves = [None if t is None else t.detach().to(dtype).clone().requires_grad_() for t in values]
    pooled, weights = pool(*leaves, **{"scale": 1.7, **options})
    g = torch.Generator().manual_seed(99)
    loss = sum((t * torch.randn(t.shape, generator=g, dtype=torch.float64).to(dtype)).sum() for t in (pooled, weights))
    loss.backward()
    grads = [torch.zeros_like(t) if t.grad is None else t.grad for t in leaves if t is not None]
    return [pooled.detach(), weights.detach(), *grads]


def relative_error(draws: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return the largest error of each draw over its largest entry, as a root mean square over the draws.

    One draw alone is luck: where a result is a few numbers, eager may happen to round to the exact one. Where the
    exact one is 0 (the gradient of b sums to it where all hidden units are on), the error is that of terms of size 1.
    """
    errors = []
    for actual, exact in draws:
        if exact.numel():
            largest = float(exact.abs().max())
            errors.append(float((actual.double() - exact).abs().max()) / (largest if largest > 1e-12 else 1.0))
    return (sum(e * e for e in errors) / max(len(errors), 1)) ** 0.5


def assert_as_exact_as_eager(draws: Sequence[tuple[Results, Results, Results]], slack: float = 1.0) -> None:
    """Raise AssertionError where native errs more than twice (gradients: three times) as much as float32 eager.

    Each draw is (native, eager, float64), as `three_ways` returns it.
    """
    for position in range(len(draws[0][2])):
        for native, _, exact in draws:
            assert native[position].shape == exact[position].shape, position
            assert native[position].isfinite().all(), position
        error = relative_error([(native[position], exact[position]) for native, _, exact in draws])
        allowed = relative_error([(eager[position], exact[position]) for _, eager, exact in draws])
        limit = slack * max((2 if position < 2 else 3) * allowed, FLOOR)
        assert error <= limit, f"output {position}: error {error:.2e}, eager {allowed:.2e}"


def three_ways(
    native: Callable[..., tuple[Tensor, Tensor]], values: Arguments, **options: object
) -> tuple[Results, Results, Results]:
    """Return the results of native float32, eager float32 and eager float64."""
    return (
        outputs_and_gradients(native, values, torch.float32, **options),
        outputs_and_gradients(reference.pair_attention_pool, values, torch.float32, **options),
        outputs_and_gradients(reference.pair_attention_pool, values, torch.float64, **options),
    )


def cancels(values: Arguments, pairs: Tensor | None) -> bool:
    """Return whether the gradient of b is small beside its terms in one hidden unit of several.

    Its error is that of the terms then, in native and in eager, and which of the two is luckier says nothing.
    """
    v, W, b, *_ = values
    if v is None or W is None or b is None or len(b) == 1:
        return False
    count = v.shape[1] * (v.shape[1] - 1) // 2 if pairs is None else pairs.shape[1]
    each = b.expand(len(v), count, -1).contiguous()  # a b for each pair of each row: the gradient's terms
    terms = outputs_and_gradients(reference.pair_attention_pool, [v, W, each, *values[3:]], torch.float64, pairs=pairs)
    gradient = terms[4]
    return bool(gradient.abs().sum((0, 1)).max() > 100 * gradient.sum((0, 1)).abs().max())


def compare(
    native: Callable[..., tuple[Tensor, Tensor]],
    shape: tuple[int, ...],
    *,
    leave_out: Sequence[int] = (),
    pairs: Tensor | None = None,
) -> None:
    """Compare six draws of this shape; the arguments at the positions `leave_out` are None."""
    draws: list[tuple[Results, Results, Results]] = []
    for seed in itertools.count():
        if len(draws) == 6:
            break
        values = arguments(*shape, seed=seed, pairs=None if pairs is None else pairs.shape[1])
        if cancels(values, pairs):
            continue
        for position in leave_out:
            values[position] = None
        draws.append(three_ways(native, values, pairs=pairs))
    assert_as_exact_as_eager(draws)
