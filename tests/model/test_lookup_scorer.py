"""A model scores by lookup where it is worth its tables: the same logits, the same bits in any company, never stale."""

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from attfm.data.batch import Batch
from attfm.model import lookup_scorer
from attfm.model.bundle import Model
from attfm.model.ensemble import members_of
from attfm.model.lookup_arrays import Machine, table_cost
from attfm.model.run_folder import load_model, save_model
from attfm.ops import native_info, use_backend
from attfm.ops.lookup import Lookup
from attfm.serve import tables
from tests.serve.models import PRESETS, TASKS, memory_of, model_of, rows

pytestmark = pytest.mark.skipif(
    not native_info()["available"], reason="attfm was installed without its compiled kernels"
)
KNOWN = rows().select(["age", "job", "town", "user", "seen"])


def batch_of(model: Model, table: pa.Table) -> Batch:
    """Return a table, encoded."""
    return Batch.concatenate([part.batch for part in model.encode(model.open(table))])


def looks_up(model: Model) -> bool:
    """Return whether a model scores by lookup."""
    return model.lookup.logits(batch_of(model, KNOWN.slice(0, 1))) is not None


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch have so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def assert_same_logits(model: Model, batch: Batch, of: Model | None = None) -> None:
    """Check the model's logits against its module in float64, or that of another model."""
    expected = (of or model).scorer.predict(batch).numpy()
    np.testing.assert_allclose(model.logits_of(batch), expected, rtol=0, atol=1e-5)


@pytest.mark.isa
@pytest.mark.parametrize("members", [1, 8])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("preset", PRESETS)
def test_logits_are_those_of_the_module(preset: str, task: str, members: int) -> None:
    model = model_of(task, preset=preset, members=members, plain=True)
    assert looks_up(model)
    others = {
        "age": pa.array([None, 1e9, float("nan"), 30]),
        "job": pa.array([None, "smith", "cook", ""]),
        "town": pa.array([None, 77, 3, 3]),
        "user": pa.array([None, "u1", "nobody", "u2"]),
        "seen": pa.nulls(4, pa.timestamp("us")),
    }
    for table in (KNOWN, KNOWN.slice(3, 1), pa.table(others)):
        assert_same_logits(model, batch_of(model, table))
    assert model.logits_of(batch_of(model, KNOWN).slice(0, 0)).shape == (0, model.module.outputs)
    with pytest.raises(AssertionError):
        assert_same_logits(model, batch_of(model, KNOWN), of=model_with(model, seed=1))


def model_with(model: Model, seed: int) -> Model:
    """Return a model with other numbers."""
    other = copy.deepcopy(model)
    machine = members_of(other.module)[0]
    with torch.no_grad():
        machine.intercept.add_(torch.randn(machine.intercept.shape, generator=torch.Generator().manual_seed(seed)))
    return other


@pytest.mark.isa
@pytest.mark.parametrize("fields", [1, 2, 3, 39])
@pytest.mark.parametrize("task", TASKS)
def test_any_number_of_fields(task: str, fields: int) -> None:
    rng = np.random.default_rng(0)
    table = pa.table({f"f{i}": [f"{x}" for x in rng.integers(0, 5, 30)] for i in range(fields)})
    model = model_of(task, table=table, columns={}, memory=fields > 2)
    batch = batch_of(model, table)
    assert model.lookup.logits(batch) is not None
    assert_same_logits(model, batch)
    np.testing.assert_array_equal(model.logits(table), model.logits_of(batch))


@pytest.mark.parametrize("members", [1, 3])
def test_a_row_has_the_same_bits_everywhere(members: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(members=members, plain=True)
    data = pa.concat_tables([KNOWN] * 125)  # 10,000 rows
    expected = model.logits(KNOWN)
    assert len(np.unique(expected)) == len(KNOWN)
    batch = batch_of(model, KNOWN)
    for row in range(len(batch)):
        np.testing.assert_array_equal(model.logits_of(batch.slice(row, row + 1)), expected[[row]])
    for count in (1, 2, 3):
        with threads(count):
            np.testing.assert_array_equal(model.logits(data), np.tile(expected, (125, 1)))
    monkeypatch.setattr("attfm.model.frame_encoder._BATCH", 7)  # many chunks
    np.testing.assert_array_equal(model.logits(KNOWN), expected)
    loaded = load_model(save_model(model, tmp_path / "run"))
    np.testing.assert_array_equal(loaded.logits(KNOWN), expected)
    parts = [part.column("probability").to_numpy() for part in loaded.score_table(loaded.open(KNOWN))]
    np.testing.assert_array_equal(np.concatenate(parts), loaded.predict_proba(KNOWN)[:, 1])
    asked = [{**row, "seen": f"{row['seen']}"} for row in KNOWN.to_pylist()]
    np.testing.assert_array_equal(tables.compile(loaded).logits(asked), expected)


def test_threads_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = model_of(plain=True), []
    batch = batch_of(model, KNOWN)
    logits = Lookup.logits

    def noting(self: Lookup, ids: Any, **options: Any) -> Any:
        asked.append(options["threads"])
        return logits(self, ids, **options)

    monkeypatch.setattr(Lookup, "logits", noting)
    for count in (1, 3):
        with threads(count):
            model.logits_of(batch)
    assert asked == [1, 3]


@pytest.mark.parametrize("limit", ["MOST_BYTES", "MOST_WORK"])
def test_tables_that_are_too_large_leave_the_rows_to_the_module(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(plain=True)
    batch = batch_of(model, KNOWN)
    fields = lookup_scorer.field_ranges(model.encoder)
    cost = table_cost([Machine.of(model.module)], fields)
    exactly = cost.bytes if limit == "MOST_BYTES" else cost.work
    for most, worth in ((exactly, True), (exactly - 1, False)):
        monkeypatch.setattr(lookup_scorer, limit, most)
        assert lookup_scorer.is_worth_tables([Machine.of(model.module)], fields) == worth
        fresh = copy.deepcopy(model)
        assert looks_up(fresh) == worth
        logits = fresh.logits_of(batch)
        assert (logits == fresh.module.predict(batch).numpy()).all() != worth
        for size in (1, 7):  # whatever rows there are
            parts = [fresh.logits_of(batch.slice(n, n + size)) for n in range(0, len(batch), size)]
            np.testing.assert_array_equal(np.concatenate(parts), logits)


def test_the_cost_is_that_of_the_tables_that_are_made() -> None:
    for options in list[dict[str, Any]](
        [{}, {"members": 3, "memory": False}, {"task": "multiclass"}, {"preset": "fm"}]
    ):
        model = model_of(plain=True, **options)
        cost = table_cost(
            [Machine.of(of) for of in members_of(model.module)], lookup_scorer.field_ranges(model.encoder)
        )
        lookup = model.lookup._current()
        assert lookup is not None
        cells, sums = lookup.arrays["cells"], lookup.arrays["sum_cells"]
        assert cost.bytes == (cells.nbytes - cells[0].nbytes) + sums.nbytes  # but for the cell of zeros


@pytest.mark.parametrize("spread", [1.0, 3_000.0])
def test_attention_logits_beyond_the_range_of_a_float_leave_the_rows_to_the_module(spread: float) -> None:
    model = model_of(plain=True, spread=spread, memory=False)
    batch = batch_of(model, KNOWN)
    assert looks_up(model) == (spread == 1.0)
    expected = model.scorer.predict(batch).numpy()
    np.testing.assert_allclose(model.logits_of(batch), expected, rtol=0, atol=1e-5 * max(1.0, spread / 10))


def test_bags_and_scaled_values_are_left_to_the_module() -> None:
    bags, scaled = rows().select(["age", "langs"]), rows().select(["age", "height"])
    for table in (bags, scaled):
        model = model_of(table=table, memory=False)
        batch = batch_of(model, table)
        assert model.lookup.logits(batch) is None
        np.testing.assert_array_equal(model.logits_of(batch), model.module.predict(batch).numpy())


def test_the_reference_backend_is_asked_where_it_is_wanted() -> None:
    model = model_of(plain=True)
    batch = batch_of(model, KNOWN)
    by_lookup = model.logits_of(batch)
    with use_backend("reference"):
        np.testing.assert_array_equal(model.logits_of(batch), model.scorer.predict(batch).numpy())
        assert (model.logits_of(batch) != by_lookup).any()
    np.testing.assert_array_equal(model.logits_of(batch), by_lookup)
    double = copy.deepcopy(model)
    double.module.double()
    np.testing.assert_array_equal(double.logits_of(batch), double.scorer.predict(batch).numpy())


# What may happen to a module.
def in_place(model: Model) -> None:
    members_of(model.module)[-1].linear.weight.mul_(1.1)


def a_new_parameter(model: Model) -> None:
    machine = members_of(model.module)[-1]
    machine.projection = nn.Parameter(machine.projection * 1.1)


def new_numbers(model: Model) -> None:
    machine = members_of(model.module)[-1]
    machine.linear.weight.data = machine.linear.weight * 1.1


def a_new_memory(model: Model) -> None:
    machine = members_of(model.module)[-1]
    machine.memory = memory_of(machine, model.encoder, torch.Generator().manual_seed(5))


def without_memory(model: Model) -> None:
    members_of(model.module)[-1].memory = None


def a_new_buffer(model: Model) -> None:
    members_of(model.module)[-1].target_std = torch.tensor(2.5)


def other_weights(model: Model) -> None:
    model.module.load_state_dict({name: tensor * 1.1 for name, tensor in model.module.state_dict().items()})


def a_step(model: Model) -> None:
    model.module.train()
    optimizer = torch.optim.Adam(model.module.parameters(), lr=0.01)
    with torch.enable_grad():
        model.module(batch_of(model, KNOWN)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize(
    "change",
    [in_place, a_new_parameter, new_numbers, a_new_memory, without_memory, a_new_buffer, other_weights, a_step],
)
def test_a_module_that_changes_has_new_tables_and_is_new_in_double(
    change: Callable[[Model], None], inference: bool, members: int
) -> None:
    if inference and change is a_step:
        pytest.skip("torch takes no step in its inference mode")
    model = model_of(plain=True, members=members)
    batch = batch_of(model, KNOWN)
    before, made, scorer = model.logits_of(batch), model.lookup._current(), model.scorer
    assert model.lookup._current() is made  # one and the same while nothing changes
    assert model.scorer is scorer
    with torch.inference_mode(inference), torch.no_grad():
        change(model)
    after = model.logits_of(batch)
    assert np.abs(after - before).max() > 1e-3
    expected = copy.deepcopy(model.module).double().predict(batch).numpy()
    np.testing.assert_allclose(after, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(model.scorer.predict(batch).numpy(), expected)


def test_a_model_is_kept_and_copied_without_its_tables() -> None:
    model = model_of(plain=True)
    small = len(pickle.dumps(model))
    expected = model.logits(KNOWN)
    lookup = model.lookup._current()
    assert lookup is not None
    assert sum(array.nbytes for array in lookup.arrays.values()) > 10_000
    content = pickle.dumps(model)
    assert len(content) < small + 5_000
    for again in (pickle.loads(content), copy.deepcopy(model), copy.copy(model)):
        np.testing.assert_array_equal(again.logits(KNOWN), expected)
    assert pickle.loads(content).lookup._current() is not lookup
    # Those of a copy are of the copy's own module.
    again = copy.deepcopy(model)
    with torch.no_grad():
        members_of(again.module)[0].intercept.add_(1.0)
    assert np.abs(again.logits(KNOWN) - expected).max() > 0.5
    np.testing.assert_array_equal(model.logits(KNOWN), expected)


def test_ranges_are_those_of_the_fields() -> None:
    model = model_of()
    ranges = lookup_scorer.field_ranges(model.encoder)
    assert [(of.start, of.stop) for of in ranges] == [(of.start, of.stop) for of in model.encoder.fields]
    assert [field.kind for field, of in zip(model.encoder.fields, ranges, strict=True) if not of.is_single] == [
        "scaled", "multi-valued",
    ]  # fmt: skip
