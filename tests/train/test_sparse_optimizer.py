"""Row-by-row training of big tables: equal to the dense one where it must be, and no work on the whole table."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attfm.config import ModelConfig, TrainConfig
from attfm.data.batch import Batch, FieldFeatures
from attfm.data.dataset import Examples, InMemoryDataset, Statistics
from attfm.model.modules import FactorizationMachine
from attfm.model.task import Binary
from attfm.ops.sparse import distinct_rows
from attfm.train import sparse_optimizer as lazy
from attfm.train import trainer
from attfm.train.losses import Penalties
from attfm.train.optimizer import Optimizer, ParameterAverage
from attfm.train.sparse_optimizer import LazyTable, is_lazy
from attfm.train.trainer import Trainer, TrainingData

SIZES = (5, 4, 6)
FEATURES = sum(SIZES)
STARTS = torch.tensor([0, 5, 9])


def examples(kind: str, rows: int = 600) -> Examples:
    """Three fields, small enough for every batch to have every feature; the third may be multi-valued."""
    g = torch.Generator().manual_seed(0)
    ids = torch.stack([torch.randint(0, size, (rows,), generator=g) for size in SIZES], 1)
    target = (ids.sum(1) + torch.randint(0, 6, (rows,), generator=g) > 8).long()
    ids = (ids + STARTS).int()
    if kind == "ids":
        return Examples(Batch(ids), target, torch.ones(rows))
    values = torch.rand(rows, 3, generator=g) + 0.5
    if kind == "values":
        return Examples(Batch(ids, values), target, torch.ones(rows))
    counts = torch.randint(0, 4, (rows,), generator=g)
    entries = (9 + torch.randint(0, 6, (int(counts.sum()),), generator=g)).int()
    bag = FieldFeatures(entries.numpy(), torch.rand(len(entries), generator=g).numpy(), counts.numpy())
    single = [FieldFeatures(ids[:, f].numpy(), values[:, f].numpy()) for f in range(2)]
    return Examples(Batch.of_fields([*single, bag]), target, torch.ones(rows))


def learn(kind: str, batch_size: int, *, rows: int = 600, **settings: Any) -> FactorizationMachine:
    torch.manual_seed(3)
    model = {"dim": 4, "preset": settings.pop("preset", "nested"), "embedding_std": 0.5, "weight_dropout": 0.0}
    module = FactorizationMachine(FEATURES, 3, 1, ModelConfig.parse(model))
    usual = {"epochs": 3, "learning_rate": 0.05, "averaging": 0.5, "batch_size": batch_size}
    neighbours = np.array([0, 1, 2, 5, 6])
    data = TrainingData(Binary("y", (0, 1)), InMemoryDataset(examples(kind, rows)), None, neighbours)
    Trainer(module, data, TrainConfig.parse(usual | settings)).run()
    return module


def both(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **settings: Any) -> tuple[dict[str, Tensor], ...]:
    states = []
    for on in (False, True):
        monkeypatch.setattr(trainer, "is_lazy", lambda *_, on=on: on)
        states.append(learn(*arguments, **settings).state_dict())
    return tuple(states)


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adagrad"])
@pytest.mark.parametrize("kind", ["ids", "values", "bags"])
def test_equal_to_dense_where_every_batch_has_every_feature(
    kind: str, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense, rows = both(monkeypatch, kind, 200, optimizer=optimizer)
    assert difference(dense, rows) < 1e-4
    start = learn(kind, 200, optimizer=optimizer, epochs=1).state_dict()
    assert difference(start, rows) > 1e-2


def test_equal_to_dense_without_pairs_and_without_average(monkeypatch: pytest.MonkeyPatch) -> None:
    assert difference(*both(monkeypatch, "ids", 200, preset="linear")) < 1e-4
    assert difference(*both(monkeypatch, "ids", 200, averaging=0)) < 1e-4


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("averaging", [0.0, 1.0])
def test_sgd_is_equal_to_dense_whatever_features_a_batch_has(averaging: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without momentum a dense step leaves the other rows alone too: so this tests the average of rows that rest, the
    # decay of the batch's features only, and the penalty on bins that a batch lacks.
    off = {"embedding_ridge": 0.0, "linear_ridge": 0.0}
    settings = {"optimizer": "sgd", "averaging": averaging, "embedding_decay": 2.0, **off}
    dense, rows = both(monkeypatch, "ids", 2, rows=60, **settings)
    assert difference(dense, rows) < 1e-4


def test_the_ridge_of_the_steps_that_left_a_row_alone_comes_when_it_moves() -> None:
    weight = torch.nn.Parameter(torch.ones(3, 2))
    config = TrainConfig.parse({"optimizer": "sgd", "learning_rate": 0.1})
    table = LazyTable(weight, config, ridge=0.01)
    for row in (0, 0, 0, 1, 0):
        weight.grad = torch.sparse_coo_tensor(torch.tensor([[row]]), torch.zeros(1, 2), (3, 2), check_invariants=False)
        table.step(0.0, None)
    # Rows that nothing else moves: each step's gradient is ridge · w, those of steps without the row all at once.
    steps = torch.tensor([(1 - 0.001) ** 3 * (1 - 0.002), 1 - 0.004, 1.0])
    torch.testing.assert_close(weight.detach(), steps[:, None].expand(3, 2))
    again = LazyTable(torch.nn.Parameter(weight.detach().clone()), config, ridge=0.01)
    again.load_state_dict(table.state_dict())
    for each in (table, again):
        each.parameter.grad = torch.sparse_coo_tensor(
            torch.tensor([[2]]), torch.zeros(1, 2), (3, 2), check_invariants=False
        )
        each.step(0.0, None)
    assert torch.equal(again.parameter, table.parameter)


def test_the_tests_tolerance_tells_a_wrong_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"rows": 60, "optimizer": "sgd", "embedding_decay": 2.0, "embedding_ridge": 0.0, "linear_ridge": 0.0}
    dense, rows = both(monkeypatch, "ids", 2, **settings)
    assert difference(dense, rows) < 1e-4
    monkeypatch.setattr(lazy, "distinct_rows", lambda rows, features: torch.arange(features))
    assert difference(dense, learn("ids", 2, **settings).state_dict()) > 1e-3


def test_adam_leaves_the_rows_that_a_batch_lacks_alone() -> None:
    torch.manual_seed(0)
    module = FactorizationMachine(FEATURES, 3, 1, ModelConfig.parse({"dim": 4}))
    module.sparse_gradients(True)
    optimizer = Optimizer(module, TrainConfig(), lazy=True)
    data = examples("ids")
    for number in (0, 1):
        rows = data.rows.slice(number, number + 1)
        before = copy.deepcopy(module.state_dict())
        optimizer.zero_grad()
        module(rows).sum().backward()
        optimizer.step(rows)
        for name in ("embedding.weight", "linear.weight"):
            moved = (module.state_dict()[name] != before[name]).any(1).nonzero()[:, 0]
            assert moved.tolist() == sorted(rows.ids.flatten().tolist())


class WholeTable(TorchDispatchMode):
    """Collects the operations that write as many floats as the table has, but for those on given rows."""

    def __init__(self, floats: int) -> None:
        super().__init__()
        self.floats, self.found = floats, set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name, mutates = str(func).removeprefix("aten."), func._schema.is_mutable
        views = any(a.alias_info is not None and not a.alias_info.is_write for a in func._schema.arguments)
        for tensor in out if isinstance(out, tuple | list) else (out,):
            dense = isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.numel() >= self.floats
            if dense and (not views or mutates) and not name.startswith(("index_put_", "index_add_")):
                self.found.add(name)
        return out


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adagrad"])
def test_no_operation_of_a_step_writes_the_whole_table(optimizer: str, on: bool) -> None:
    torch.manual_seed(0)
    features = 4000
    module = FactorizationMachine(features, 3, 1, ModelConfig.parse({"dim": 4}))
    module.sparse_gradients(on)
    config = TrainConfig.parse({"optimizer": optimizer})
    steps = Optimizer(module, config, lazy=on)
    average = ParameterAverage(module, 10, steps.lazy)
    penalties = Penalties(module, np.arange(9), config, 100)
    data = examples("ids", 50)
    steps.zero_grad()
    with WholeTable(features) as whole:
        module(data.rows).sum().backward()
        penalties.add_gradient()
        steps.step(data.rows)
        average.update()
    assert bool(whole.found) is not on, whole.found
    assert module.embedding.weight.grad is not None
    assert module.embedding.weight.grad.is_sparse is on


def test_only_big_tables_of_which_a_batch_has_a_part_are_moved_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "BIG_TABLE", 4 * FEATURES)
    rows = Statistics.of(examples("ids"))
    big, small = (FactorizationMachine(FEATURES, 3, 1, ModelConfig.parse({"dim": dim})) for dim in (4, 3))
    assert is_lazy(big, rows, batch_size=4)
    assert not is_lazy(small, rows, batch_size=4)
    assert not is_lazy(big, rows, batch_size=5)  # 15 ids a batch, and 15 features
    assert is_lazy(big, Statistics.of(examples("bags")), batch_size=4)
    assert not is_lazy(big, Statistics.of(examples("bags")), batch_size=5)  # about 3.5 entries a row


def test_training_leaves_the_module_with_dense_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "is_lazy", lambda *_: True)
    module = learn("ids", 50)
    module(examples("ids").rows).sum().backward()
    assert module.embedding.weight.grad is not None
    assert not module.embedding.weight.grad.is_sparse


@pytest.mark.usefixtures("backend")
def test_distinct_rows_are_each_number_once() -> None:
    found = distinct_rows(torch.tensor([[3, 1], [3, 7]], dtype=torch.int32), 8)
    assert found.dtype == torch.int64
    assert sorted(found.tolist()) == [1, 3, 7]
