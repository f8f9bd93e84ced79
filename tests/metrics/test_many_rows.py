"""Metrics of many rows are those that scikit-learn gives of few."""

import math

import numpy as np
import pytest

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
