"""Scoring by lookup gives the logits of the model: every formula, task and kind of column."""

import numpy as np
import pytest

import attfm
from attfm.errors import ConfigError, DataError
from attfm.serve import tables
from tests.serve.models import PRESETS, TASKS, model_of, rows


@pytest.mark.parametrize("budget", [0, 20_000, tables.BUDGET])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("preset", PRESETS)
def test_logits_are_those_of_the_model(preset: str, task: str, members: int, budget: int) -> None:
    model = model_of(task, preset=preset, members=members)
    compiled = tables.compile(model, budget)
    data = rows(seed=1)
    expected = model.logits(data)
    np.testing.assert_allclose(compiled.logits(data.to_pylist()), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(compiled.predict_proba(data.to_pylist()), model.predict_proba(data), rtol=0, atol=1e-5)
    assert compiled.predict(data.to_pylist()).tolist() == pytest.approx(model.predict(data).tolist(), abs=1e-5)


def test_another_model_has_other_logits() -> None:
    data = rows(seed=1)
    found = tables.compile(model_of(seed=1)).logits(data.to_pylist())
    assert np.abs(found - model_of(seed=0).logits(data)).max() > 0.1


def test_what_is_no_model_or_no_budget_is_told() -> None:
    for given in ("runs/adult", None, attfm.AFMClassifier()):
        with pytest.raises(ConfigError, match=rf"^A {type(given).__name__} is no attfm\.Model: give one"):
            tables.compile(given)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^There is no field 99: give the number of one, 0 to \d+\.$"):
        tables.compile(model_of()).levels(99)
    for budget in (-1, "64MB", float("nan"), True):
        with pytest.raises(ConfigError, match=r"^budget is .*: give a number of bytes, 0 or more\.$"):
            tables.compile(model_of(), budget)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [np.int64, np.uint32, np.uint64])
def test_ids_that_an_int32_does_not_hold_are_refused(kind: type) -> None:
    compiled = tables.compile(model_of(plain=True))
    ids = compiled.encode(rows().select(compiled.input_names).to_pylist()).ids.astype(kind)
    assert len(compiled.logits_of(ids)) == len(ids)
    ids[3, 1] = 2**31 + 5 if kind is np.uint32 else ids[3, 1] + kind(2**32)
    with pytest.raises(DataError, match="no encoded rows of this model: ids must be features of their fields"):
        compiled.logits_of(ids)
