"""Metrics with bootstrap intervals."""

import numpy as np
import pytest

from attfm.metrics.intervals import area_under_roc, calibration_interval, wilson, with_intervals
from attfm.metrics.scores import evaluate

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
        assert found[name][0] == pytest.approx(value, rel=1e-12, abs=1e-12), name


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_each_value_is_within_its_interval(task: str) -> None:
    target, scores, weight = _case(task)
    for name, (value, low, high) in with_intervals(task, target, scores, weight).items():
        assert low < high, name
        assert low <= value <= high, name


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


def test_rows_of_no_weight_count_for_nothing() -> None:
    target, scores, _ = _case("binary")
    weight = (np.arange(ROWS) < 3).astype(np.float64)  # a resample of all rows would often hold none of these
    found = with_intervals("binary", target, scores, weight)
    assert found == with_intervals("binary", target[:3], scores[:3], np.ones(3))


# Hits as often as a share of these says, in rows of which the model says p.
SHAPES = {
    "calibrated": lambda p: p,
    "overconfident": lambda p: 0.5 + 0.7 * (p - 0.5),
    "too low everywhere": lambda p: np.clip(p + 0.03, 0, 1),
    "wrong in one corner": lambda p: np.where(p > 0.8, p - 0.15, p),
}


def _gaps(probability: np.ndarray, hit: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return (resamples, 15) gaps by bin; weight : (rows, resamples)."""
    bins = np.minimum((probability * 15).astype(int), 14)[:, None] == np.arange(15)
    return ((weight * (hit - probability)[:, None]).T @ bins) / weight.sum(0)[:, None]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_interval_of_the_calibration_error_covers_the_truth(shape: str) -> None:
    rng = np.random.default_rng(0)
    truth = SHAPES[shape]
    many = rng.beta(0.6, 1.4, 400_000)
    true_error = np.abs(_gaps(many, truth(many), np.ones((len(many), 1)))).sum()
    covered, lows, rows, trials = 0, [], 500, 120
    for _ in range(trials):
        probability = rng.beta(0.6, 1.4, rows)
        hit = (rng.random(rows) < truth(probability)).astype(float)
        measured = _gaps(probability, hit, np.ones((rows, 1)))[0]
        resamples = rng.multinomial(rows, np.full(rows, 1 / rows), 100).T.astype(float)
        low, high = calibration_interval(measured, _gaps(probability, hit, resamples))
        assert 0 <= low <= np.abs(measured).sum() <= high
        covered += low <= true_error <= high
        lows.append(low)
    assert covered / trials >= 0.9
    if shape == "calibrated":
        assert np.mean(np.array(lows) == 0) >= 0.9
    if shape == "overconfident":
        assert np.median(lows) > 0.03  # and the interval is no excuse: the error that is there is seen


def test_no_gap_at_all_has_an_interval_of_nothing() -> None:
    assert calibration_interval(np.zeros(15), np.zeros((60, 15))) == (0, 0)


def test_wilsons_interval_by_hand() -> None:
    # Newcombe 1998, table I: 81 of 263 and 0 of 20.
    assert wilson(81 / 263, 263) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    low, high = wilson(np.array([0.0]), np.array([20]))
    assert (low[0], high[0]) == (pytest.approx(0, abs=1e-12), pytest.approx(0.1611, abs=5e-5))
