"""The kernel of scoring by lookup against plain NumPy, on awkward shapes; and what it refuses."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from attfm.errors import DataError
from attfm.ops import lookup as lookup_module
from attfm.ops.lookup import Lookup
from attfm.serve import tables
from attfm.serve.rows import Encoded
from tests.serve.models import PRESETS, TASKS, model_of, rows

native = pytest.mark.skipif(lookup_module.compiled is None, reason="attfm was installed without its compiled kernels")


def lookups(**options: Any) -> tuple[Lookup, Lookup, tables.CompiledModel]:
    """Return a model's lookup by the kernel, the same by NumPy, and the model."""
    budget = options.pop("budget", tables.BUDGET)
    compiled = tables.compile(model_of(**options), budget)
    own = compiled._lookup
    assert own._kernel is not None
    return own, Lookup(own.arrays, native=False), compiled


def of(lookup: Lookup, rows: Encoded) -> Any:
    """Return the logits of encoded rows by a lookup."""
    return lookup.logits(rows.ids, rows.values, rows.offsets)


@native
@pytest.mark.isa
@pytest.mark.parametrize("budget", [0, 10_000, tables.BUDGET])
@pytest.mark.parametrize("members", [1, 2, 5])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("preset", PRESETS)
def test_the_kernel_gives_what_numpy_gives(preset: str, task: str, members: int, budget: int) -> None:
    kernel, plain, compiled = lookups(preset=preset, task=task, members=members, budget=budget)
    for n in (1, 33):
        encoded = compiled.encode(rows(seed=n, n=n).to_pylist())
        np.testing.assert_allclose(of(kernel, encoded), of(plain, encoded), rtol=0, atol=2e-5)


@native
@pytest.mark.isa
@pytest.mark.parametrize("fields", [1, 2, 3, 39])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_any_number_of_fields(task: str, fields: int) -> None:
    rng = np.random.default_rng(0)
    table = pa.table({f"f{i}": [f"{x}" for x in rng.integers(0, 5, 30)] for i in range(fields)})
    kernel, plain, compiled = lookups(task=task, table=table, columns={}, memory=fields > 2)
    ids = compiled.encode(table.to_pydict())
    expected = of(plain, ids)
    np.testing.assert_allclose(of(kernel, ids), expected, rtol=0, atol=2e-5)
    alone = [kernel.row(one.tolist()) for one in ids.ids]
    np.testing.assert_array_equal(np.array(alone).reshape(expected.shape), of(kernel, ids))
    np.testing.assert_allclose([plain.row(one.tolist()) for one in ids.ids], alone, rtol=0, atol=2e-5)


@native
def test_a_row_has_the_same_bits_in_any_company_and_with_any_threads() -> None:
    kernel, _, compiled = lookups(members=2, budget=20_000)
    data = rows(seed=3, n=500).to_pylist()
    kernel.threads = 1
    expected = of(kernel, compiled.encode(data))
    kernel.threads = 3
    np.testing.assert_array_equal(of(kernel, compiled.encode(data * 40))[-500:], expected)
    np.testing.assert_array_equal(of(kernel, compiled.encode(data[17:18]))[0], expected[17])


@native
@pytest.mark.isa
@pytest.mark.parametrize("spread", [30.0, 3_000.0])
@pytest.mark.parametrize("budget", [0, 20_000, tables.BUDGET])
def test_attention_logits_of_any_size(budget: int, spread: float) -> None:
    """Where exp of some would leave the range of float32, their pairs are computed."""
    model = model_of(spread=spread, memory=False)
    compiled, data = tables.compile(model, budget), rows(seed=1)
    expected = model.scorer.predict(next(iter(model.encode(model.open(data)))).batch).numpy()
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(compiled.logits(data.to_pylist()), expected, rtol=0, atol=1e-5 * max(1.0, spread / 10))


@pytest.mark.parametrize("is_native", [pytest.param(True, marks=native), False])
def test_what_is_no_encoded_row_is_refused(is_native: bool) -> None:
    compiled = tables.compile(model_of(plain=True))
    own = Lookup(compiled._lookup.arrays, native=is_native)
    good = compiled.encode(rows().to_pylist()).ids
    assert own.logits(good).shape == (80, 1)
    for f, field in enumerate(compiled.fields):
        for wrong in (field.start - 1, field.start + field.size):
            bad = good.copy()
            bad[7, f] = wrong
            with pytest.raises(DataError, match="no encoded rows of this model: ids must be features of their fields"):
                own.logits(bad)
            with pytest.raises(DataError, match="ids must be features of their fields"):
                own.row(bad[7].tolist())
    with pytest.raises(DataError, match=r"Encoded rows are integers of \(rows, 7\), and these are int32 \(2, 3\)"):
        compiled.logits_of(np.zeros((2, 3), np.int32))
    with pytest.raises(DataError, match=r"and these are float64"):
        compiled.logits_of(np.zeros((2, 7)))


@native
def test_offsets_that_do_not_fit_are_refused() -> None:
    kernel, _, compiled = lookups()
    found = compiled.encode(rows().to_pylist())
    assert found.offsets is not None
    for place, value in ((0, 1), (-1, len(found.ids) + 1), (5, -3), (5, 10**9), (6, 0)):
        offsets = found.offsets.copy()
        offsets[place] = value
        with pytest.raises(DataError, match="offsets do not fit ids"):
            kernel.logits(found.ids, found.values, offsets)
