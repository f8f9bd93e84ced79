"""Dropout on the pair vectors in the compiled pooling: its mask, and values and gradients given the very same mask."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from attfm.ops import cpu, pair_attention_pool, pair_attention_pool_ids, reference, schema
from attfm.ops.schema import PoolCall
from tests.ops.pair_dropout_mask import pair_dropout_mask
from tests.ops.pool_cases import (
    SHAPES,
    Arguments,
    Results,
    arguments,
    assert_as_exact_as_eager,
    needs_native,
    outputs_and_gradients,
)

pytestmark = needs_native
pool = partial(pair_attention_pool, backend="native", return_weights=True)
SEED = 5


def drawn_mask(batch: int, pairs: int, dim: int, pair_dropout: float) -> Tensor:
    """Return the mask of a native call right after torch.manual_seed(SEED)."""
    torch.manual_seed(SEED)
    seed = int(torch.randint(2**63 - 1, ()))
    torch.manual_seed(SEED)
    return pair_dropout_mask(seed, batch, pairs, dim, pair_dropout)


@pytest.fixture
def with_masks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[..., tuple[Tensor, Tensor]]]:
    """Return the reference, with given masks in place of torch's dropout of pair vectors and weights."""

    def make(mask: Tensor, weight_mask: Tensor | None = None) -> Callable[..., tuple[Tensor, Tensor]]:
        def dropout(x: Tensor, p: float, training: bool) -> Tensor:
            chosen = mask if x.ndim == 3 else weight_mask
            return x if chosen is None else x * chosen.to(x.dtype)

        monkeypatch.setattr(reference, "F", SimpleNamespace(dropout=dropout))
        return reference.pair_attention_pool

    return make


def three_ways(
    fast: Callable[..., Any], slow: Callable[..., Any], values: Arguments, **options: Any
) -> tuple[Results, Results, Results]:
    torch.manual_seed(SEED)
    return (
        outputs_and_gradients(fast, values, torch.float32, **options),
        outputs_and_gradients(slow, values, torch.float32, **{k: v for k, v in options.items() if k == "pairs"}),
        outputs_and_gradients(slow, values, torch.float64, **{k: v for k, v in options.items() if k == "pairs"}),
    )


@pytest.mark.isa
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "keep_bits"),
    [(1, True), (2, False)],
    indirect=["threads"],
    ids=["one thread, signs kept", "two threads, signs again"],
)
@pytest.mark.parametrize(
    "shape", [*SHAPES, (5, 2, 1, 0), (33, 39, 17, 0), (70, 5, 40, 0), (33, 14, 16, 0), (9, 6, 80, 0)], ids=str
)
def test_as_exact_as_eager(
    shape: tuple[int, ...], keep_bits: bool, with_masks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "BITS_SHARE", 1e9 if keep_bits else 0.0)
    batch, fields, dim, _ = shape
    slow = with_masks(drawn_mask(batch, fields * (fields - 1) // 2, dim, 0.3))
    # One row and one hidden unit: some gradients are a single number, and six draws of it are luck.
    seeds = range(24 if batch == 1 else 6)
    draws = [three_ways(pool, slow, arguments(*shape, seed=seed), pair_dropout=0.3) for seed in seeds]
    assert_as_exact_as_eager(draws)


def test_the_comparison_sees_another_mask(with_masks: Any) -> None:
    shape = (33, 5, 17, 5)
    mask = drawn_mask(33, 10, 17, 0.3)
    values = arguments(*shape)
    assert_as_exact_as_eager([three_ways(pool, with_masks(mask), values, pair_dropout=0.3)], slack=5)
    mask[20, 3, 16] = 1 / 0.7 - mask[20, 3, 16]
    with pytest.raises(AssertionError, match="output 0"):
        assert_as_exact_as_eager([three_ways(pool, with_masks(mask), values, pair_dropout=0.3)], slack=5)


@pytest.mark.isa
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("left_out", [(5,), (4, 5)], ids=["no gate", "neither"])
@pytest.mark.parametrize("attention_dim", [0, 5])
def test_given_pairs_without_gate_or_bias(attention_dim: int, left_out: tuple[int, ...], with_masks: Any) -> None:
    pairs = torch.tensor([[3, 0, 0, 2, 0, 4, 1], [1, 2, 4, 2, 3, 0, 3]])
    slow = with_masks(drawn_mask(33, 7, 17, 0.5))
    draws = []
    for seed in range(6):
        values = arguments(33, 5, 17, attention_dim, pairs=7, seed=seed)
        for position in left_out:
            values[position] = None
        draws.append(three_ways(pool, slow, values, pairs=pairs, pair_dropout=0.5))
    assert_as_exact_as_eager(draws)


@pytest.mark.isa
@pytest.mark.parametrize("attention_dim", [0, 5])
def test_with_dropout_of_weights_too(attention_dim: int, with_masks: Any) -> None:
    values = arguments(33, 6, 9, attention_dim)
    mask = drawn_mask(33, 15, 9, 0.3)
    weights = pool(*[None if t is None else t.float() for t in values], scale=1.7, pair_dropout=0.3,
                   weight_dropout=0.4)[1]  # fmt: skip
    dropped = (weights == 0).double()
    assert 0.2 < float(dropped.mean()) < 0.6
    # The two masks are independent: an entry's chance is the same under a dropped weight.
    assert abs(float(((mask == 0) * dropped[..., None]).sum() / dropped.sum() / 9) - 0.3) < 0.04
    slow = with_masks(mask, (1 - dropped) / 0.6)
    options = {"pair_dropout": 0.3, "weight_dropout": 0.4}
    assert_as_exact_as_eager([three_ways(pool, slow, values, **options)], slack=5)


@pytest.mark.isa
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("path", [None, False, True], ids=str)
@pytest.mark.parametrize(("attention_dim", "features"), [(0, 30), (5, 30), (5, 3000)])
def test_from_ids_it_is_that_of_the_rows(attention_dim: int, features: int, path: bool | None, with_masks: Any) -> None:
    ids = torch.randint(features, (33, 6), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    slow = with_masks(drawn_mask(33, 15, 17, 0.3))
    fast = partial(pair_attention_pool_ids, ids, backend="native", return_weights=True, distinct=path)

    def gathered(table: Tensor, *rest: Tensor | None, **options: Any) -> tuple[Tensor, Tensor]:
        return slow(table[ids.long()], *rest, **options)

    draws = []
    for seed in range(6):
        table = arguments(features, 2, 17, 0, seed=seed)[0]
        assert table is not None
        values = [table[:, 0].contiguous(), *arguments(1, 6, 17, attention_dim, seed=seed)[1:]]
        draws.append(three_ways(fast, gathered, values, pair_dropout=0.3))
    assert_as_exact_as_eager(draws)


@pytest.mark.parametrize("chance", [0.001, 0.2, 0.75])
def test_the_share_dropped(chance: float) -> None:
    mask = pair_dropout_mask(123456789012345678, 400, 91, 24, chance)
    assert set(mask.unique().tolist()) == {0.0, 1 / (1 - chance)}
    dropped = (mask == 0).double()
    # Six standard deviations, over all entries and over each row, pair and column alone.
    for share, count in ((dropped.mean(), mask.numel()), (dropped.mean((1, 2)), 91 * 24),
                         (dropped.mean((0, 2)), 400 * 24), (dropped.mean((0, 1)), 400 * 91)):  # fmt: skip
        allowed = 6 * (chance * (1 - chance) / count) ** 0.5
        assert ((share - chance).abs() < allowed).all()


def test_entries_are_dropped_independently() -> None:
    mask = pair_dropout_mask(987654321, 4000, 6, 5, 0.5).flatten(1)
    # Between all 30 entries of a row, and between the same entry of neighbouring rows (4,000 draws, six deviations).
    assert ((torch.corrcoef(mask.T) - torch.eye(30)).abs() < 0.095).all()
    neighbours = torch.corrcoef(torch.cat([mask[:-1], mask[1:]], 1).T)[:30, 30:]
    assert (neighbours.abs() < 0.095).all()
    other = pair_dropout_mask(987654322, 4000, 6, 5, 0.5).flatten(1)
    assert abs(float((mask == other).double().mean()) - 0.5) < 0.01


@pytest.mark.isa
def test_the_expectation_is_the_pooling_without_dropout() -> None:
    v = torch.rand(1, 5, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    torch.manual_seed(SEED)
    rows = v.expand(20_000, -1, -1).contiguous()
    pooled = pair_attention_pool(rows, *[None] * 5, scale=1.0, pair_dropout=0.2, backend="native").vector
    full = pair_attention_pool(v, *[None] * 5, scale=1.0).vector
    assert torch.allclose(pooled.mean(0), full[0], rtol=0.01)
    assert (pooled.std(0) > 0.1 * full[0]).all()


@pytest.mark.isa
def test_the_same_seed_gives_the_same_bits_with_any_threads(set_threads: Callable[[int], None]) -> None:
    found = []
    for count in (1, 2, 2, 3):
        set_threads(count)
        torch.manual_seed(SEED)
        found.append(outputs_and_gradients(pool, arguments(101, 9, 16, 20), torch.float32, pair_dropout=0.3))
    for x, y in zip(found[1], found[2], strict=True):
        assert torch.equal(x, y)
    # Pooled and weights are by row, the same for any share of the rows; gradients differ in the order of their sums.
    for other in (found[1], found[3]):
        assert all(torch.equal(found[0][n], other[n]) for n in range(2))
        for x, y in zip(found[0], other, strict=True):
            assert torch.allclose(x, y, rtol=1e-4, atol=1e-5 * float(x.abs().max()))
    torch.manual_seed(SEED + 1)
    another = outputs_and_gradients(pool, arguments(101, 9, 16, 20), torch.float32, pair_dropout=0.3)
    assert not torch.equal(found[0][0], another[0])


@pytest.mark.isa
def test_a_chance_of_almost_one_is_rounded_and_keeps_the_scale(with_masks: Any) -> None:
    # 1 - 1e-9 counts as 65535 / 65536: in the 5,400 entries of 40 rows hardly one is kept, times 1e9.
    shape, chance = (40, 6, 9, 5), 1 - 1e-9
    mask = drawn_mask(40, 15, 9, chance)
    assert int((mask > 0).sum()) < 5
    pooled, weights = pool(*[None if t is None else t.float() for t in arguments(*shape)], scale=1.7,
                           pair_dropout=chance)  # fmt: skip
    torch.manual_seed(SEED)
    exact = [t.float() for t in with_masks(mask)(*arguments(*shape), scale=1.7)]
    torch.testing.assert_close([pooled, weights], exact, rtol=1e-5, atol=1e-6)


@pytest.mark.isa
def test_empty_batch() -> None:
    pooled, weights, *gradients = outputs_and_gradients(pool, arguments(0, 3, 4, 5), torch.float32, pair_dropout=0.5)
    assert (pooled.shape, weights.shape) == ((0, 4), (0, 3))
    assert all((gradient == 0).all() for gradient in gradients)


def test_operator_contract() -> None:
    v, *network = [t.float().requires_grad_() for t in arguments(6, 4, 5, 3) if t is not None]
    settings = {"seed": torch.tensor(7), "fields": 4, "scale": 1.5, "pair_dropout": 0.4}
    for parameters in (network, [None] * 5):
        call = PoolCall(v, cpu.pair_numbers(None, 4), *parameters, **settings)
        torch.library.opcheck(torch.ops.attfm.pool.default, (*call, True, True))
