"""Fields of several features, each with a value: pooled and scored straight from their entries, against the formula."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from attfm.data.batch import Batch, FieldFeatures
from attfm.errors import DataError
from attfm.ops import cpu, distinct, pair_attention_pool_ids, reference, score
from attfm.ops.schema import PoolCall
from tests.ops.pool_cases import (
    Arguments,
    Results,
    arguments,
    assert_as_exact_as_eager,
    needs_native,
    outputs_and_gradients,
)

FEATURES = 60


def draw_entries(batch: int, fields: int, most: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, values and offsets of bags of 0 to `most` features."""
    g = torch.Generator().manual_seed(seed)
    counts = torch.randint(most + 1, (batch, fields), generator=g)
    offsets = (counts.flatten().cumsum(0) - counts.flatten()).reshape(batch, fields)
    total = int(counts.sum())
    ids = torch.randint(FEATURES, (total,), generator=g, dtype=torch.int32)
    return ids, torch.randn(total, generator=g), offsets


def with_table(fields: int, dim: int, attention_dim: int, seed: int = 0) -> Arguments:
    table = torch.as_tensor(arguments(FEATURES, 2, dim, 0, seed=seed)[0])[:, 0].contiguous()
    return [table, *arguments(1, fields, dim, attention_dim, seed=seed + 100)[1:]]


def formula(
    ids: Tensor, values: Tensor | None, offsets: Tensor, table: Tensor, *rest: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Sum the entries of each field by embedding_bag, then the formula."""
    weights = None if values is None else values.to(table.dtype)
    sums = F.embedding_bag(ids.long(), table, offsets.flatten(), mode="sum", per_sample_weights=weights)
    return reference.pair_attention_pool(sums.reshape(*offsets.shape, table.shape[1]), *rest, scale=scale)


def three_ways(entries: tuple[Tensor, Tensor | None, Tensor], leaves: Arguments, sparse: bool = False) -> list[Results]:
    ids, values, offsets = entries
    fast = partial(pair_attention_pool_ids, ids, values=values, offsets=offsets, return_weights=True, sparse=sparse)
    plain = partial(formula, ids, values, offsets)
    native_results = outputs_and_gradients(partial(fast, backend="native"), leaves, torch.float32)
    native_results[2] = native_results[2].to_dense()
    return [
        native_results,
        outputs_and_gradients(plain, leaves, torch.float32),
        outputs_and_gradients(plain, leaves, torch.float64),
    ]


@pytest.mark.isa
@needs_native
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (33, 3, 17, 5), (3, 39, 16, 7), (40, 4, 9, 0)])
def test_as_exact_as_eager(shape: tuple[int, ...], sparse: bool) -> None:
    batch, fields, dim, attention_dim = shape
    draws = [
        tuple(three_ways(draw_entries(batch, fields, 4, seed), with_table(fields, dim, attention_dim, seed), sparse))
        for seed in range(6)
    ]
    assert_as_exact_as_eager(draws, slack=2)


@pytest.mark.isa
@needs_native
def test_without_values_every_entry_counts_once() -> None:
    ids, _, offsets = draw_entries(20, 4, 3)
    assert_as_exact_as_eager([tuple(three_ways((ids, None, offsets), with_table(4, 9, 5)))], slack=3)


@needs_native
@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(2, 9), st.integers(1, 40), st.integers(0, 40)),
    most=st.integers(0, 5),
    seed=st.integers(0, 2**31),
    sparse=st.booleans(),
)
def test_any_shape(shape: tuple[int, int, int, int], most: int, seed: int, sparse: bool) -> None:
    batch, fields, dim, attention_dim = shape
    draw = three_ways(draw_entries(batch, fields, most, seed), with_table(fields, dim, attention_dim, seed), sparse)
    assert_as_exact_as_eager([tuple(draw)], slack=20)


@pytest.mark.isa
@needs_native
def test_values_of_single_features() -> None:
    # 900 features for 80 entries: the large table's gradient is summed by entry, then made dense.
    g = torch.Generator().manual_seed(1)
    ids, x = torch.randint(900, (20, 4), generator=g, dtype=torch.int32), torch.randn(20, 4, generator=g)
    table = torch.randn(900, 9, generator=g, dtype=torch.float64)
    leaves = [table, *arguments(1, 4, 9, 5)[1:]]
    fast = partial(pair_attention_pool_ids, ids, values=x, return_weights=True, backend="native")

    def plain(table: Tensor, *rest: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
        return reference.pair_attention_pool(table[ids.long()] * x[..., None].to(table.dtype), *rest, scale=scale)

    draw = (
        outputs_and_gradients(fast, leaves, torch.float32),
        outputs_and_gradients(plain, leaves, torch.float32),
        outputs_and_gradients(plain, leaves, torch.float64),
    )
    assert_as_exact_as_eager([draw], slack=3)


@pytest.mark.isa
@needs_native
def test_a_bad_value_spoils_its_own_row() -> None:
    ids, values, offsets = draw_entries(30, 4, 3)
    table, *rest = [None if t is None else t.float() for t in with_table(4, 9, 5)]
    pool = partial(pair_attention_pool_ids, ids, table, *rest, scale=1.0, offsets=offsets, backend="native")
    clean = pool(values=values).vector
    row = int((offsets.flatten() <= 7).nonzero()[-1]) // 4
    values[7] = float("nan")
    spoiled = pool(values=values).vector
    assert spoiled[row].isnan().all()
    assert torch.equal(torch.cat([spoiled[:row], spoiled[row + 1 :]]), torch.cat([clean[:row], clean[row + 1 :]]))


@needs_native
def test_operator_contract() -> None:
    ids, values, offsets = draw_entries(8, 4, 3)
    leaves = [t.float().requires_grad_() for t in with_table(4, 6, 3) if t is not None]
    ends = cpu.ends(offsets, len(ids))
    call = PoolCall(leaves[0], cpu.pair_numbers(None, 4), *leaves[1:], ids=ids, values=values, offsets=ends, fields=4,
                    scale=1.5)  # fmt: skip
    torch.library.opcheck(torch.ops.attfm.pool.default, (*call, True, True))


@needs_native
def test_the_kernels_check_offsets_themselves() -> None:
    ids, values, offsets = draw_entries(8, 4, 3)
    call = PoolCall(torch.zeros(FEATURES, 3), cpu.pair_numbers(None, 4), *[None] * 5, ids=ids, values=values, fields=4)
    good = cpu.ends(offsets, len(ids))
    assert good is not None
    for wrong, message in (
        (good + 1, "offsets do not fit ids"),
        (good.flip(0), "offsets do not fit ids"),
        (torch.cat([good[:1], good[1:-1].flip(0), good[-1:]]), "offsets must not fall"),
        (good[:-2], "ids must be"),
    ):
        with pytest.raises(ValueError, match=message):
            torch.ops.attfm.pool(*call._replace(offsets=wrong), False, False)


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        (torch.tensor([[0, 5], [3, 6]]), "offsets must start at 0, never fall"),
        (torch.tensor([[1, 2], [3, 4]]), "offsets must start at 0"),
        (torch.tensor([[0, 2], [3, 99]]), "end at most at the 7 entries"),
        (torch.tensor([0, 2]), r"offsets must be an integer tensor \(batch, fields\), and is int64 \(2,\)"),
        (torch.tensor([[0.0, 2.0]]), "and is float32"),
    ],
)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_bad_offsets(offsets: Tensor, message: str, backend: str) -> None:
    ids = torch.zeros(7, dtype=torch.int32)
    with pytest.raises(DataError, match=message):
        pair_attention_pool_ids(ids, torch.zeros(5, 3), *[None] * 5, scale=1.0, offsets=offsets, backend=backend)  # type: ignore[arg-type]


def test_bad_entries() -> None:
    offsets = torch.tensor([[0, 1]])
    pool = partial(pair_attention_pool_ids, table=torch.zeros(5, 3), W=None, b=None, h=None, pair_bias=None,
                   pair_gate=None, scale=1.0, offsets=offsets)  # fmt: skip
    with pytest.raises(DataError, match=r"ids holds 8 \(entry 2\), and the table has 5 rows"):
        pool(torch.tensor([0, 1, 8]))
    with pytest.raises(DataError, match=r"ids must be an integer tensor \(entries,\) beside offsets"):
        pool(torch.tensor([[0, 1, 2]]))
    with pytest.raises(DataError, match="values asks for a gradient"):
        pool(torch.tensor([0, 1, 2]), values=torch.ones(3, requires_grad=True))


def test_field_vectors_are_sums_over_entries() -> None:
    ids, values, offsets = draw_entries(12, 3, 4)
    table = torch.randn(FEATURES, 5, dtype=torch.float64)
    expected = torch.zeros(12, 3, 5, dtype=torch.float64)
    stops = [*offsets.flatten().tolist()[1:], len(ids)]
    for place, (start, stop) in enumerate(zip(offsets.flatten().tolist(), stops, strict=True)):
        for n in range(start, stop):
            expected[place // 3, place % 3] += values[n] * table[ids[n]]
    found = reference.field_vectors(ids, table, values=values, offsets=offsets)
    assert torch.allclose(found, expected, rtol=1e-12)


@pytest.mark.isa
@needs_native
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_scores(chunk: int) -> None:
    ids, values, offsets = draw_entries(50, 4, 3)
    table, *rest = with_table(4, 9, 5)
    g = torch.Generator().manual_seed(5)
    linear, projection, intercept = (torch.randn(*s, generator=g).double() for s in ((FEATURES, 2), (9, 2), (2,)))
    pooled, _ = formula(ids, values, offsets, torch.as_tensor(table), *rest, scale=2.0)
    first = reference.field_vectors(ids, linear, values=values.double(), offsets=offsets).sum(1)
    expected = intercept + first + pooled @ projection
    args = [None if t is None else t.float() for t in (intercept, linear, table, projection, *rest)]
    found = score(ids, *args, scale=2.0, values=values, offsets=offsets, chunk=chunk)  # type: ignore[arg-type]
    assert torch.allclose(found.double(), expected, rtol=2e-5, atol=2e-5)


def test_a_batch_lists_its_entries() -> None:
    single = FieldFeatures(np.array([0, 1, 2], np.int32), np.array([0.5, 1.5, 2.5], np.float32))
    bags = FieldFeatures(np.array([7, 8, 7], np.int32), np.array([1, 2, 3], np.float32), np.array([2, 0, 1]))
    batch = Batch.of_fields([single, bags])
    assert batch.offsets is not None
    assert batch.values is not None
    assert batch.ids.tolist() == [0, 7, 8, 1, 2, 7]
    assert batch.values.tolist() == [0.5, 1.0, 2.0, 1.5, 2.5, 3.0]
    assert batch.offsets.tolist() == [[0, 1], [3, 4], [4, 5]]


@needs_native
def test_a_field_of_distinct_features_settles_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.stack([torch.arange(500, dtype=torch.int32) * 70_000, torch.zeros(500, dtype=torch.int32)], dim=1)
    numbers = cpu.pair_numbers(None, 2)
    assert distinct.least_share(ids, numbers) == 1.0
    assert distinct.least_share(ids % 11, numbers) == 11 / 500
    monkeypatch.setattr(distinct, "distinct_share", lambda *_: pytest.fail("the pairs need no counting"))
    assert not distinct.is_worth_it(ids, 16, 150, numbers)
