"""Pooling from ids and the table: by row and by distinct pairs, against the formula on the gathered vectors."""

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attfm.errors import ConfigError, DataError
from attfm.ops import cpu, distinct, pair_attention_pool, pair_attention_pool_ids, reference
from attfm.ops.schema import PoolCall
from tests.ops.pool_cases import (
    Arguments,
    Results,
    arguments,
    assert_as_exact_as_eager,
    needs_native,
    outputs_and_gradients,
)

PATHS = pytest.mark.parametrize("path", [False, True], ids=["by row", "distinct pairs"])


def draw_ids(batch: int, fields: int, values_each: int, seed: int = 0, *, shared: bool = False) -> Tensor:
    """Return ids with a range for each field, or (shared) the same range for all."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(values_each, (batch, fields), generator=g, dtype=torch.int32)
    return ids if shared else ids + values_each * torch.arange(fields, dtype=torch.int32)


def gathered(ids: Tensor, table: Tensor, *rest: Tensor | None, **options: Any) -> tuple[Tensor, Tensor]:
    """The formula on the gathered vectors."""
    return reference.pair_attention_pool(table[ids.long()], *rest, **options)


def three_ways(ids: Tensor, values: Arguments, pairs: Tensor | None = None, **path: Any) -> tuple[Results, ...]:
    fast = partial(pair_attention_pool_ids, ids, return_weights=True, backend="native", **path)
    plain = partial(gathered, ids)
    return (
        outputs_and_gradients(fast, values, torch.float32, pairs=pairs),
        outputs_and_gradients(plain, values, torch.float32, pairs=pairs),
        outputs_and_gradients(plain, values, torch.float64, pairs=pairs),
    )


def with_table(
    features: int, fields: int, dim: int, attention_dim: int, seed: int = 0, pairs: int | None = None
) -> Arguments:
    """Return arguments whose first is a table (features, dim)."""
    return [
        arguments(features, 2, dim, 0, seed=seed)[0][:, 0].contiguous(),  # type: ignore[index]
        *arguments(1, fields, dim, attention_dim, seed=seed + 100, pairs=pairs)[1:],
    ]


@pytest.mark.isa
@needs_native
@PATHS
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("batch", "fields", "dim", "attention_dim", "values_each"),
    [(1, 2, 1, 1, 3), (33, 3, 17, 5, 4), (50, 39, 8, 5, 6), (40, 5, 16, 33, 100), (7, 4, 64, 48, 2)],
)
def test_as_exact_as_eager(batch: int, fields: int, dim: int, attention_dim: int, values_each: int, path: bool) -> None:
    draws = [
        three_ways(
            draw_ids(batch, fields, values_each, seed),
            with_table(fields * values_each, fields, dim, attention_dim, seed),
            distinct=path,
        )
        for seed in range(6)
    ]
    assert_as_exact_as_eager(draws)


@pytest.mark.isa
@needs_native
@PATHS
@pytest.mark.parametrize("features", [50, 5000], ids=["small table", "large table"])
def test_fields_that_share_their_ids(features: int, path: bool) -> None:
    # 5,000 features for 120 entries: only the batch's rows take part, and the hash finds them.
    ids = draw_ids(30, 4, 50, shared=True) * (features // 50)
    assert_as_exact_as_eager([three_ways(ids, with_table(features, 4, 9, 5), distinct=path)], slack=3)


@pytest.mark.isa
@needs_native
@PATHS
def test_given_pairs(path: bool) -> None:
    pairs = torch.tensor([[3, 0, 0, 2], [1, 2, 3, 2]])
    values = with_table(40, 4, 9, 5, pairs=4)
    assert_as_exact_as_eager([three_ways(draw_ids(30, 4, 10), values, pairs, distinct=path)], slack=3)


@needs_native
@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 60), st.integers(2, 9), st.integers(1, 40), st.integers(1, 40)),
    values_each=st.integers(1, 400),
    seed=st.integers(0, 2**31),
    sparse=st.booleans(),
)
def test_any_shape(shape: tuple[int, int, int, int], values_each: int, seed: int, sparse: bool) -> None:
    batch, fields, dim, attention_dim = shape
    ids = draw_ids(batch, fields, values_each, seed)
    values = with_table(fields * values_each, fields, dim, attention_dim, seed)
    draw = three_ways(ids, values, distinct=True, sparse=sparse)
    draw[0][2] = draw[0][2].to_dense()
    assert_as_exact_as_eager([draw], slack=20)


@needs_native
def test_wide_fields_are_hashed() -> None:
    # 500 x 500 possible pairs are more than the direct table holds.
    ids = draw_ids(900, 3, 500)
    slots, rows = torch.ops.attfm.find_slots(ids, 1500)
    assert torch.equal(rows[slots.long()], ids.long())
    assert len(rows) == len(ids.unique())
    numbers = cpu.pair_numbers(None, 3)
    index, offsets, members = torch.ops.attfm.find_pairs(slots, numbers)
    assert len(members) == sum(len(torch.stack([ids[:, i], ids[:, j]]).unique(dim=1).T) for i, j in numbers.T)
    for p, (i, j) in enumerate(numbers.T):
        found = members[offsets[p] + index[p].long().bitwise_and(0xFFFF)]
        assert torch.equal(found, torch.stack([slots[:, i], slots[:, j]], dim=1))


@pytest.mark.isa
@needs_native
def test_a_batch_of_more_rows_than_sixteen_signed_bits() -> None:
    ids = torch.stack([torch.arange(40_000), 40_000 + torch.arange(40_000)], dim=1).to(torch.int32)
    values = [None if t is None else t.float() for t in with_table(80_000, 2, 1, 2)]
    by_pair = pair_attention_pool_ids(ids, *values, scale=1.0, distinct=True)
    by_row = pair_attention_pool_ids(ids, *values, scale=1.0, distinct=False)
    assert torch.equal(by_pair.vector, by_row.vector)


@pytest.mark.isa
@needs_native
@PATHS
def test_sparse_gradient_is_the_dense_one(path: bool) -> None:
    ids = draw_ids(30, 4, 10)
    grads = []
    for sparse in (False, True):
        table, *rest = [t.float() for t in with_table(400, 4, 9, 5) if t is not None]
        table.requires_grad_()
        pooled = pair_attention_pool_ids(ids, table, *rest, scale=1.0, distinct=path, sparse=sparse)
        pooled.vector.square().sum().backward()
        grads.append(torch.as_tensor(table.grad))
    assert grads[1].is_sparse
    assert grads[1]._nnz() == (len(ids.unique()) if path else ids.numel())  # nothing of the size of the table
    assert torch.allclose(grads[1].to_dense(), grads[0], atol=1e-6)
    assert (grads[0][40:] == 0).all()


@pytest.mark.isa
@needs_native
@PATHS
@pytest.mark.usefixtures("threads")
def test_results_repeat_bit_for_bit(path: bool) -> None:
    ids, values = draw_ids(300, 8, 9), with_table(72, 8, 16, 20)
    pool = partial(pair_attention_pool_ids, ids, return_weights=True, distinct=path)
    first = outputs_and_gradients(pool, values, torch.float32)
    for _ in range(3):
        for x, y in zip(first, outputs_and_gradients(pool, values, torch.float32), strict=True):
            assert torch.equal(x, y)


@pytest.mark.isa
@needs_native
@PATHS
def test_dropout_is_that_of_the_rows(path: bool) -> None:
    ids, values = draw_ids(64, 6, 5), [None if t is None else t.float() for t in with_table(30, 6, 8, 5)]
    table, *rest = values
    torch.manual_seed(3)
    options = {"scale": 1.0, "weight_dropout": 0.4, "return_weights": True}
    weights = pair_attention_pool_ids(ids, *values, distinct=path, **options).weights
    torch.manual_seed(3)
    expected = pair_attention_pool(torch.as_tensor(table)[ids.long()], *rest, **options).weights
    assert torch.allclose(weights, expected, rtol=1e-5)
    assert 0.2 < float((weights == 0).float().mean()) < 0.6


@pytest.mark.isa
@needs_native
def test_a_bad_feature_spoils_its_own_rows() -> None:
    ids, values = draw_ids(40, 4, 10), [None if t is None else t.float() for t in with_table(40, 4, 9, 5)]
    table = torch.as_tensor(values[0]).clone()
    clean = pair_attention_pool_ids(ids, table, *values[1:], scale=1.0, distinct=True).vector
    table[ids[7, 2]] = float("nan")
    pooled = pair_attention_pool_ids(ids, table, *values[1:], scale=1.0, distinct=True).vector
    spoiled = (ids == ids[7, 2]).any(1)
    assert pooled[spoiled].isnan().all()
    assert torch.equal(pooled[~spoiled], clean[~spoiled])


@needs_native
def test_operator_contract() -> None:
    ids = draw_ids(12, 4, 5)
    leaves = [t.float().requires_grad_() for t in with_table(20, 4, 6, 3) if t is not None]
    numbers = cpu.pair_numbers(None, 4)
    torch.library.opcheck(torch.ops.attfm.find_slots.default, (ids, 20))
    torch.library.opcheck(torch.ops.attfm.find_pairs.default, (ids, numbers))
    index, starts, members = torch.ops.attfm.find_pairs(ids, numbers)
    for seed, dropout in ((None, 0.0), (torch.tensor(7), 0.5)):
        call = PoolCall(leaves[0], numbers, *leaves[1:], ids=ids, pair_index=index, starts=starts, members=members,
                        seed=seed, fields=4, scale=1.5, weight_dropout=dropout)  # fmt: skip
        torch.library.opcheck(torch.ops.attfm.pool.default, (*call, True, True))


@needs_native
def test_values_multiply_the_vectors() -> None:
    ids, values = draw_ids(20, 4, 5), with_table(20, 4, 6, 3)
    x = torch.rand(20, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    table, *rest = values
    pooled = pair_attention_pool_ids(ids, torch.as_tensor(table), *rest, scale=1.0, values=x)
    expected, _ = reference.pair_attention_pool(torch.as_tensor(table)[ids.long()] * x[..., None], *rest, scale=1.0)
    assert torch.equal(pooled.vector, expected)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.tensor([[0, 1], [2, 9]]), r"ids holds 9 \(row 1, field 1\), and the table has 5 rows"),
        (torch.tensor([[0, 1], [-3, 1]], dtype=torch.int32), r"ids holds -3 \(row 1, field 0\)"),
        (torch.tensor([0, 1]), r"ids must be an integer tensor \(batch, fields\)"),
        (torch.tensor([[0.5, 1.0]]), "ids is float32"),
        (torch.zeros(2, 2, dtype=torch.int32, device="meta"), "ids is on meta and table on cpu"),
    ],
)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_bad_ids(ids: Tensor, message: str, backend: Any) -> None:
    with pytest.raises(DataError, match=message):
        pair_attention_pool_ids(ids, torch.zeros(5, 3), *[None] * 5, scale=1.0, backend=backend)


@needs_native
def test_bad_tensors_are_named() -> None:
    ids = draw_ids(4, 2, 2)
    with pytest.raises(DataError, match=r"values must be \(4, 2\) as ids is, and is \(4, 1\)"):
        pair_attention_pool_ids(ids, torch.zeros(5, 3), *[None] * 5, scale=1.0, values=torch.zeros(4, 1))
    with pytest.raises(ConfigError, match="table is float64"):
        pair_attention_pool_ids(ids, torch.zeros(5, 3).double(), *[None] * 5, scale=1.0, backend="native")
    with pytest.raises(ConfigError, match="contiguous tensors, and table is not"):
        pair_attention_pool_ids(ids, torch.zeros(3, 5).T, *[None] * 5, scale=1.0, backend="native")


@needs_native
def test_the_kernels_check_ids_themselves() -> None:
    bad = torch.tensor([[0, 9]], dtype=torch.int32)
    with pytest.raises(ValueError, match="ids must be rows of the table"):
        torch.ops.attfm.find_slots(bad, 5)
    call = PoolCall(torch.zeros(5, 3), cpu.pair_numbers(None, 2), *[None] * 5, ids=bad, fields=2)
    with pytest.raises(ValueError, match="ids must be rows of the table"):
        torch.ops.attfm.pool(*call, False, False)


@pytest.mark.parametrize(
    ("dim", "attention_dim", "share", "backward", "faster"),
    [
        (16, 150, 0.20, True, True),  # Adult: 2.1 against 5.8 ms a step
        (256, 256, 0.19, True, True),  # Frappe: 45 against 166 ms
        (16, 16, 0.91, True, False),  # Criteo with a million features: 87 against 24 ms
        (256, 8, 0.91, True, False),  # ml-tag: 12.4 against 3.0 ms
        (16, 150, 0.05, False, True),  # scoring Adult: 1.3 against 0.4 million rows a second
        (8, 16, 0.05, False, False),  # scoring the default model: 1.7 against 1.9 million
        (16, 150, 1.00, True, False),  # nothing repeats
    ],
)
def test_the_faster_path_is_chosen(dim: int, attention_dim: int, share: float, backward: bool, faster: bool) -> None:
    assert distinct.distinct_is_faster(dim, attention_dim, share, backward=backward) is faster


@needs_native
def test_the_share_of_distinct_pairs() -> None:
    numbers = cpu.pair_numbers(None, 6)
    same = torch.arange(6, dtype=torch.int32).repeat(50, 1)
    assert distinct.distinct_share(same, numbers) == 1 / 50
    different = torch.arange(300, dtype=torch.int32).reshape(50, 6)
    assert distinct.distinct_share(different, numbers) == 1.0
