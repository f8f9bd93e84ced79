"""The machine while it learns: rows of V and w put together from those of features, knots and bins of statistics."""

import numpy as np
import pytest
import torch

from attfm.config import ModelConfig
from attfm.data.batch import Batch
from attfm.data.codecs.rates import Composition
from attfm.model.knots import Knots
from attfm.train import statistical_machine
from attfm.train.statistical_machine import StatisticalMachine, _Composed

FEATURES, ROWS = 8, 12  # features 2, 3 and 4 stand between knots; rows 8 to 11 are bins of statistics
PARTS = np.array([[6, 8, 10], [6, 9, 10], [7, 8, 11], [3, 9, 11]])
IDS = torch.tensor([[1, ROWS], [3, ROWS + 1], [2, ROWS + 3], [3, ROWS + 2], [5, 6]], dtype=torch.int32)


def machine(outputs: int = 1) -> StatisticalMachine:
    torch.manual_seed(0)
    left, right = np.arange(FEATURES), np.arange(FEATURES)
    left[2:5], right[2:5] = 1, 5
    share = np.zeros(FEATURES, np.float32)
    share[2:5] = [0.25, 0.5, 0.75]
    knots = Knots(left, right, share, np.array([[1], [5]]))
    composition = Composition(FEATURES, ROWS, PARTS, np.empty((0, 3), np.int64), np.empty(0, np.int64))
    made = StatisticalMachine(composition, knots, None, 2, outputs, ModelConfig.parse({"dim": 3, "embedding_std": 0.5}))
    with torch.no_grad():
        made.linear.weight.normal_()
    return made.double()


def plain(made: StatisticalMachine, table: torch.Tensor) -> torch.Tensor:
    """Return the rows of all ids, one by one."""
    knots = made.knots
    assert knots is not None

    def own(n: int) -> torch.Tensor:
        if n >= FEATURES:
            return table[n]
        return (1 - float(knots.share[n])) * table[knots.left[n]] + float(knots.share[n]) * table[knots.right[n]]

    composed = [own(first) + table[rate] + table[count] for first, rate, count in PARTS.tolist()]
    return torch.stack([own(n) for n in range(ROWS)] + composed)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_rows_and_gradients_are_those_of_the_plain_sum(
    outputs: int, few: bool, sparse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not few:
        monkeypatch.setattr(statistical_machine, "_FEW_IDS", 0)
    made = machine(outputs)
    made.sparse_gradients(sparse)
    rows, w, V = made.tables(Batch(IDS))
    assert w is not None
    assert V is not None
    assert len(w) == (ROWS + len(PARTS) if few and not sparse else IDS.unique().numel())
    for read, table in ((w, made.linear.weight), (V, made.embedding.weight)):
        expected = plain(made, table)[IDS.long()]
        torch.testing.assert_close(read[rows.ids.long()], expected)
        upstream = torch.randn_like(expected)
        (gradient,) = torch.autograd.grad((read[rows.ids.long()] * upstream).sum(), table)
        (wanted,) = torch.autograd.grad((expected * upstream).sum(), table)
        assert gradient.is_sparse == sparse
        torch.testing.assert_close(gradient.to_dense(), wanted)


@pytest.mark.parametrize("dim", [1, 3])
def test_derivatives_of_composed_rows(dim: int) -> None:
    reading = machine()._reading(torch.arange(ROWS + len(PARTS)))
    table = torch.randn(ROWS, dim, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda table: _Composed.apply(table, reading, False), table)
