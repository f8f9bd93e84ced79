"""Metrics with bootstrap intervals."""

import numpy as np
import pytest

from attfm.explain.intervals import area_under_roc, with_intervals
from attfm.train.metrics import evaluate

ROWS = 600


def _case(task: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    weight = rng.integers(1, 4, ROWS).astype(np.float64)
    if task == "regression":
        target = rng.normal(size=ROWS)
        return target, target + rng.normal(0, 0.5, ROWS), weight
    classes = 2 if task == "binary" else 4
    target = rng.integers(0, classes, ROWS)
    logits = rng.normal(size=(ROWS, classes)) + 1.2 * np.eye(classes)[target]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    # Rounded, so that many scores are equal: ties must count as scikit-learn counts them.
    shares = np.round(shares, 2) + 0.001
    return target, shares / shares.sum(1, keepdims=True), weight


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_values_are_those_that_training_reports(task: str) -> None:
    target, scores, weight = _case(task)
    found = with_intervals(task, target, scores, weight, threshold=0.4)
    expected = evaluate(task, target, scores, weight, threshold=0.4)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name][0] == pytest.approx(value, rel=1e-9, abs=1e-12), name


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_each_value_is_within_its_interval(task: str) -> None:
    target, scores, weight = _case(task)
    for name, (value, low, high) in with_intervals(task, target, scores, weight).items():
        assert low < high, name
        assert low <= value, name
        if name != "calibration_error":  # whose reflected interval may lie below it
            assert value <= high, name


def test_the_interval_of_the_accuracy_is_as_wide_as_theory_says() -> None:
    target, scores, _ = _case("binary")
    value, low, high = with_intervals("binary", target, scores, np.ones(ROWS))["accuracy"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(value * (1 - value) / ROWS), rel=0.15)


def test_one_class_has_no_area() -> None:
    target, scores = np.zeros(50, np.int64), np.full((50, 2), 0.5)
    found = with_intervals("binary", target, scores, np.ones(50))
    assert np.isnan(found["auc"]).all()
    assert found["accuracy"][0] == 1
    assert np.isnan(area_under_roc(target == 1, scores[:, 1]))
