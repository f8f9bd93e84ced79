"""Steps on touched rows against torch's dense optimisers."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attfm.errors import DataError
from attfm.ops import RowAverage
from attfm.ops.sparse import adagrad_rows, adam_rows, read_rows, sum_rows

FEATURES = 50


def sparse(rows: Tensor, values: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(rows[None], values, (FEATURES, values.shape[1]), check_invariants=True)


@pytest.mark.usefixtures("backend", "threads")
@pytest.mark.parametrize("dim", [1, 16, 37])
@pytest.mark.parametrize("optimiser", ["adam", "adagrad"])
def test_equal_to_the_dense_optimiser_where_all_rows_are_touched(dim: int, optimiser: str) -> None:
    g = torch.Generator().manual_seed(0)
    start = torch.randn(FEATURES, dim, generator=g)
    dense, lazy = start.clone().requires_grad_(), start.clone()
    mean, square = torch.zeros_like(lazy), torch.zeros_like(lazy)
    other: torch.optim.Optimizer
    if optimiser == "adam":
        other = torch.optim.AdamW([dense], lr=0.03, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
    else:
        other = torch.optim.Adagrad([dense], lr=0.03, eps=1e-6)
    for step in range(1, 8):
        gradient = torch.randn(FEATURES, dim, generator=g)
        dense.grad = gradient
        other.step()
        rows = torch.randperm(FEATURES, generator=g)
        part = sparse(rows, gradient[rows])
        if optimiser == "adam":
            adam_rows(lazy, part, mean, square, step=step, rate=0.03, betas=(0.8, 0.95), eps=1e-6, decay=0.1)
        else:
            adagrad_rows(lazy, part, square, rate=0.03, eps=1e-6)
        assert torch.allclose(lazy, dense, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(lazy, start, atol=0.01)


@pytest.mark.usefixtures("backend", "threads")
def test_other_rows_stay_as_they_are() -> None:
    table, mean, square = torch.ones(FEATURES, 3), torch.zeros(FEATURES, 3), torch.zeros(FEATURES, 3)
    adam_rows(table, sparse(torch.tensor([4, 9]), torch.ones(2, 3)), mean, square, step=1, rate=0.1, decay=0.5)
    touched = torch.zeros(FEATURES, dtype=torch.bool)
    touched[[4, 9]] = True
    assert torch.allclose(table[touched], torch.tensor(0.95 - 0.1))
    for tensor, still in ((table, 1.0), (mean, 0.0), (square, 0.0)):
        assert (tensor[~touched] == still).all()
        assert (tensor[touched] != still).all()


@pytest.mark.usefixtures("backend", "threads")
def test_rows_that_come_twice_are_summed_first() -> None:
    gradient = sparse(torch.tensor([7, 2, 7, 7]), torch.tensor([[1.0], [5.0], [10.0], [100.0]]))
    rows, values = sum_rows(gradient)
    assert dict(zip(rows.tolist(), values[:, 0].tolist(), strict=True)) == {7: 111.0, 2: 5.0}
    table, square = torch.zeros(FEATURES, 1), torch.zeros(FEATURES, 1)
    adagrad_rows(table, gradient, square, rate=1.0)
    assert square[7, 0] == 111.0**2


def test_autograd_sees_that_the_parameter_changed() -> None:
    table = torch.ones(FEATURES, 16, requires_grad=True)
    loss = (table * table).sum()
    adagrad_rows(table, sparse(torch.tensor([1]), torch.ones(1, 16)), torch.zeros(FEATURES, 16), rate=1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_bad_arguments() -> None:
    table = torch.zeros(FEATURES, 2)
    with pytest.raises(DataError, match="The gradient is dense"):
        adagrad_rows(table, torch.zeros(FEATURES, 2), table.clone(), rate=1.0)
    with pytest.raises(DataError, match=r"must all be \(features, dim\); they are \[\(50, 2\), \(50, 3\), \(50, 2\)\]"):
        adagrad_rows(table, sparse(torch.tensor([1]), torch.ones(1, 3)), table.clone(), rate=1.0)


@pytest.mark.usefixtures("backend", "threads")
@pytest.mark.parametrize("dim", [1, 16, 37])
@pytest.mark.parametrize("optimiser", ["adam", "adagrad"])
def test_the_average_is_that_of_every_step_also_for_rows_that_rest(dim: int, optimiser: str) -> None:
    g = torch.Generator().manual_seed(0)
    table = torch.randn(FEATURES, dim, generator=g)
    expected, average = table.double(), RowAverage(table.clone(), table)
    mean, square = torch.zeros_like(table), torch.zeros_like(table)
    for step in range(1, 40):
        average.keep = 0.1 if step == 1 else 0.9
        rows = torch.randperm(FEATURES, generator=g)[:3]
        part = sparse(rows, torch.randn(3, dim, generator=g))
        if optimiser == "adam":
            adam_rows(table, part, mean, square, step=step, rate=0.1, decay=0.5, average=average)
        else:
            adagrad_rows(table, part, square, rate=0.1, decay=0.5, average=average)
        expected = table + (expected - table) * average.keep
        average.pass_step()
        if step == 20:
            average.settle()
            assert torch.allclose(average.average.double(), expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(average.average.double(), expected, rtol=1e-5, atol=1e-6)  # rows that rest are behind
    average.settle()
    assert torch.allclose(average.average.double(), expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(average.average, table, atol=0.05)


@pytest.mark.parametrize("shape", [(0, 3), (6,), (5, 4), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("sparse", [False, True])
def test_rows_are_read_as_an_embedding_reads_them(shape: tuple[int, ...], dim: int, sparse: bool) -> None:
    table, rows = torch.randn(9, dim, requires_grad=True), torch.randint(0, 9, shape, dtype=torch.int32)
    results = []
    for read in (read_rows, lambda table, rows, sparse: F.embedding(rows, table, sparse=sparse)):
        vectors = read(table, rows, sparse=sparse)
        upstream = torch.arange(float(vectors.numel())).view(vectors.shape)
        (gradient,) = torch.autograd.grad((vectors * upstream).sum(), table)
        assert gradient.is_sparse == sparse
        results.append((vectors, gradient.to_dense()))
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        assert torch.equal(ours, theirs)
