"""Metrics of many rows are those that scikit-learn gives of few."""

import math
import tracemalloc

import numpy as np
import pytest

from attfm.config import TaskName
from attfm.metrics import many_rows, scores


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("digits", [1, 3, 17])
def test_they_are_scikit_learns(weighted: bool, digits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(digits)
    probability = np.round(rng.random(3000), digits)  # 0 and 1 among them, and ties
    target = (rng.random(3000) < probability).astype(np.int64)
    weight = rng.integers(0, 4, 3000).astype(float) if weighted else None
    rows = np.column_stack([1 - probability, probability])
    wanted = scores.evaluate("binary", target, rows, weight, threshold=0.6)
    monkeypatch.setattr(many_rows, "_ROWS", 700)
    found = many_rows.metrics_of_many(target, probability, weight, 0.6)
    assert list(found) == list(wanted)
    assert found == pytest.approx(wanted, rel=1e-12)
    other = many_rows.metrics_of_many(target, np.roll(probability, 1), weight, 0.6)
    assert other != pytest.approx(wanted, rel=1e-2)
    monkeypatch.setattr(scores, "MANY", 3000)
    assert scores.evaluate("binary", target, rows, weight, threshold=0.6) == found


def test_one_class_has_no_areas() -> None:
    found = many_rows.metrics_of_many(np.zeros(5, np.int64), np.linspace(0, 1, 5), None, 0.5)
    wanted = scores.evaluate("binary", np.zeros(5, np.int64), np.linspace([1, 0], [0, 1], 5))
    assert math.isnan(found["auc"])
    assert math.isnan(wanted["auc"])
    assert found == pytest.approx(wanted, nan_ok=True)


def whole_and_by_parts(
    task: TaskName, target: np.ndarray, score: np.ndarray, weight: np.ndarray | None, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the metrics as scikit-learn has them and as they are summed by parts, which are the same."""
    by_parts = {"multiclass": many_rows.metrics_of_many_classes, "regression": many_rows.errors_of_many}[task]
    wanted = scores.evaluate(task, target, score, weight)
    monkeypatch.setattr(many_rows, "_ROWS", 700)
    found = by_parts(target, score, weight)
    assert list(found) == list(wanted)
    assert found == pytest.approx(wanted, rel=1e-12)
    monkeypatch.setattr(scores, "MANY", len(target))
    assert scores.evaluate(task, target, score, weight) == found
    return wanted, found


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("digits", [1, 17])
def test_of_several_classes_too(weighted: bool, digits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(digits)
    probability = np.round(rng.dirichlet(np.ones(5), 3000), digits)
    probability /= probability.sum(1, keepdims=True)
    probability[:, 4], probability[:, 3] = 0, probability[:, 3] + probability[:, 4]  # which is never decided
    target = (rng.random((3000, 1)) > probability.cumsum(1)[:, :3]).sum(1)
    target[:20] = 3
    weight = rng.integers(0, 4, 3000).astype(float) if weighted else None
    wanted, found = whole_and_by_parts("multiclass", target, probability, weight, monkeypatch)
    other = many_rows.metrics_of_many_classes(target, np.roll(probability, 1, axis=0), weight)
    for name in found:
        assert other[name] != pytest.approx(wanted[name], rel=1e-3), name


def test_several_classes_of_which_one_occurs_have_no_areas() -> None:
    target, probability = np.ones(6, np.int64), np.full((6, 3), 1 / 3)
    found = many_rows.metrics_of_many_classes(target, probability, None)
    assert math.isnan(found["auc"])
    assert found == pytest.approx(scores.evaluate("multiclass", target, probability), nan_ok=True)


@pytest.mark.parametrize("weighted", [False, True])
def test_of_a_regression_too(weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    prediction = rng.normal(1e4, 3, 3000)
    target = prediction + rng.normal(size=3000)
    weight = rng.integers(0, 4, 3000).astype(float) if weighted else None
    wanted, found = whole_and_by_parts("regression", target, prediction, weight, monkeypatch)
    other = many_rows.errors_of_many(target, np.roll(prediction, 1), weight)
    assert all(other[name] != pytest.approx(wanted[name], rel=1e-2) for name in found)


@pytest.mark.parametrize("off", [0.0, 1.0])
def test_targets_that_are_all_equal_have_an_r2_as_scikit_learns(off: float) -> None:
    target = np.full(5, 2.0)
    found, wanted = (
        many_rows.errors_of_many(target, target + off, None),
        scores.evaluate("regression", target, target + off),
    )
    assert found == wanted


def test_many_rows_of_several_classes_are_not_held_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_rows, "_ROWS", 1_000)
    rng = np.random.default_rng(0)
    probability = rng.dirichlet(np.ones(60), 20_000)
    target = rng.integers(0, 60, 20_000)
    tracemalloc.start()
    many_rows.metrics_of_many_classes(target, probability, None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.25 * probability.nbytes  # a part, and what the area of one class takes
