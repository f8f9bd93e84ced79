"""What a caller has set in torch (gradients off, another default type) changes no result."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attfm import AFMClassifier, AFMRegressor, load
from attfm.ops import cpu

X = np.random.default_rng(0).normal(size=(120, 4))
SCORE = X[:, 0] * X[:, 1]
TARGETS = {"binary": SCORE > 0, "multiclass": np.digitize(SCORE, [-0.3, 0.3]), "regression": SCORE}
MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


def made(target: str, **settings: Any) -> Any:
    kind = AFMRegressor if target == "regression" else AFMClassifier
    return kind(**{"epochs": 2, "n_models": 1, **settings}).fit(X, TARGETS[target])


def results(model: Any) -> list[np.ndarray]:
    account = model.explain(X)
    return [model.predict(X), account.base, account.main, account.pair, model.explain_global().summary.pair_importance]


@cache
def expected_of(target: str, **settings: Any) -> list[np.ndarray]:
    """Return the results of a fit where torch is as it comes; each is asked for by several tests."""
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
    return results(made(target, **settings))


def assert_same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def float64_by_default() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("settings", [{}, {"backend": "reference"}, {"preset": "linear"}, {"n_bags": 2}], ids=str)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("mode", MODES)
def test_gradients_that_are_off_stop_no_fit(mode: str, target: str, settings: dict[str, Any]) -> None:
    expected = expected_of(target, **settings)
    with MODES[mode]():
        assert_same(results(made(target, **settings)), expected)
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() == (mode == "inference_mode")


@pytest.mark.parametrize("mode", MODES)
def test_a_model_loaded_and_used_there_is_the_same_afterwards(mode: str, tmp_path: Path) -> None:
    model = made("binary", n_models=2)
    expected = results(model)
    with MODES[mode]():
        again = load(model.save(tmp_path / "run"))
        assert_same(results(again), expected)
        assert again.check_explanations(X, seeds=1, refit_on=(X, TARGETS["binary"])).seeds is not None
    assert_same(results(again), expected)
    assert_same(results(again.fit(X, TARGETS["binary"])), expected)


def test_predicting_without_gradients_first_leaves_a_later_fit_its_gradients() -> None:
    model = made("binary")
    cpu._pairs_of.clear()  # as in a process that has only loaded a model
    with torch.inference_mode():
        model.predict(X)
    assert_same(results(made("binary")), results(model))


@pytest.mark.parametrize("settings", [{}, {"backend": "reference"}, {"optimizer": "sgd"}, {"dim": 1}], ids=str)
@pytest.mark.parametrize("target", TARGETS)
def test_the_default_type_of_torch_changes_no_bit(
    target: str, settings: dict[str, Any], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    expected = expected_of(target, **settings)
    request.getfixturevalue("float64_by_default")
    model = made(target, **settings)
    assert model.model_.module.intercept.dtype == torch.float32
    assert_same(results(model), expected)
    assert_same(results(load(model.save(tmp_path / "run"))), expected)


def test_a_difference_would_be_seen() -> None:
    with pytest.raises(AssertionError):
        assert_same(results(made("binary")), results(made("binary", random_state=1)))
