"""Metrics against hand-made figures."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from attfm.metrics.scores import CalibrationGaps, calibration_error, curve_metrics, evaluate

TARGET = np.array([0, 0, 1, 1])
POSITIVE = np.array([0.1, 0.6, 0.4, 0.9])
PROBABILITY = np.stack([1 - POSITIVE, POSITIVE], 1)


def test_binary_metrics_by_hand() -> None:
    metrics = evaluate("binary", TARGET, PROBABILITY)
    assert metrics["accuracy"] == 0.5
    assert metrics["precision"] == 0.5
    assert metrics["recall"] == 0.5
    assert metrics["f1"] == 0.5
    assert metrics["auc"] == 0.75  # of the four pairs of a 0 and a 1, three are in order
    assert metrics["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    # On probabilities, not on logits: -mean log of what was given to the truth.
    assert metrics["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.4, 0.9]).mean())
    assert metrics["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)


def test_the_threshold_moves_decisions_and_nothing_else() -> None:
    low, high = (evaluate("binary", TARGET, PROBABILITY, threshold=t) for t in (0.3, 0.7))
    assert (low["recall"], low["precision"]) == (1.0, pytest.approx(2 / 3))
    assert (high["recall"], high["precision"]) == (0.5, 1.0)
    assert low["auc"] == high["auc"]


def test_a_weight_of_two_is_two_rows() -> None:
    weight = np.array([1.0, 2.0, 1.0, 3.0])
    repeated = np.repeat(np.arange(4), weight.astype(int))
    weighted = evaluate("binary", TARGET, PROBABILITY, weight)
    plain = evaluate("binary", TARGET[repeated], PROBABILITY[repeated])
    assert weighted == {name: pytest.approx(value) for name, value in plain.items()}
    three = np.random.default_rng(0).dirichlet(np.ones(3), 4)
    target = np.array([0, 1, 2, 1])
    assert evaluate("multiclass", target, three, weight) == {
        name: pytest.approx(value) for name, value in evaluate("multiclass", target[repeated], three[repeated]).items()
    }
    assert evaluate("regression", POSITIVE, three[:, 0], weight) == {
        name: pytest.approx(v) for name, v in evaluate("regression", POSITIVE[repeated], three[repeated, 0]).items()
    }


def test_calibration_error_of_a_calibrated_and_an_overconfident_forecast() -> None:
    hit = np.array([1, 0, 0, 0] * 25)
    assert calibration_error(hit, np.full(100, 0.25)) == pytest.approx(0)
    assert calibration_error(hit, np.full(100, 0.9)) == pytest.approx(0.65)
    assert calibration_error(hit, np.ones(100)) == pytest.approx(0.75)
    weight = np.array([3.0, 0, 0, 1] * 25)  # three of four hits
    assert calibration_error(hit, np.full(100, 0.25), weight) == pytest.approx(0.5)


def test_the_calibration_error_is_the_sum_of_its_gaps() -> None:
    calibration = CalibrationGaps(np.array([0, 1, 1, 1]), np.array([0.01, 0.5, 0.52, 1.0]))
    gaps = calibration.gaps(np.array([1.0, 1.0, 2.0, 4.0]))
    expected = np.zeros(15)
    expected[[0, 7]] = -0.01 / 8, (0.5 + 2 * 0.48) / 8  # 0.5 and 0.52 fall into the eighth bin
    np.testing.assert_allclose(gaps, expected, atol=1e-15)
    assert calibration.error(np.array([1.0, 1.0, 2.0, 4.0])) == pytest.approx(np.abs(expected).sum())


def test_multiclass_metrics_by_hand() -> None:
    probability = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    metrics = evaluate("multiclass", np.array([0, 1, 1, 2]), probability)
    assert metrics["accuracy"] == 0.75
    assert metrics["recall"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert metrics["precision"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert metrics["log_loss"] == pytest.approx(-np.log([0.8, 0.5, 0.3, 0.7]).mean())
    assert metrics["auc"] == pytest.approx(1.0)
    rows = [0.04 + 0.01 + 0.01, 0.04 + 0.25 + 0.09, 0.36 + 0.49 + 0.01, 0.01 + 0.04 + 0.09]
    assert metrics["brier"] == pytest.approx(sum(rows) / 4)


def test_areas_of_rows_of_one_class_are_not_numbers_and_the_rest_stands() -> None:
    metrics = evaluate("binary", np.ones(3, np.int64), np.array([[0.8, 0.2], [0.1, 0.9], [0.2, 0.8]]))
    assert math.isnan(metrics["auc"])
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert math.isnan(evaluate("multiclass", np.zeros(2, np.int64), np.full((2, 3), 1 / 3))["auc"])


def test_regression_metrics_by_hand() -> None:
    metrics = evaluate("regression", np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 6.0]))
    assert metrics == {"rmse": pytest.approx(3**0.5), "mae": pytest.approx(1), "r2": pytest.approx(1 - 9 / 2)}


def test_the_learning_curve_has_the_metrics_of_logits() -> None:
    logits, weight = np.log(POSITIVE / (1 - POSITIVE))[:, None], np.array([1.0, 2.0, 1.0, 3.0])
    few = curve_metrics("binary", TARGET, logits, weight, threshold=0.3)
    whole = evaluate("binary", TARGET, PROBABILITY, weight, threshold=0.3)
    assert few == {name: pytest.approx(whole[name]) for name in ("auc", "accuracy")}
    found = curve_metrics("multiclass", np.array([0, 1, 0]), np.eye(3), np.array([1.0, 1.0, 2.0]))
    assert found == {"accuracy": pytest.approx(2 / 4)}
    found = curve_metrics("regression", np.array([1.0, 2.0, 3.0]), np.array([[1.0], [2.0], [6.0]]), np.ones(3))
    assert found == {"rmse": pytest.approx(3**0.5), "r2": pytest.approx(1 - 9 / 2)}
    assert math.isnan(curve_metrics("regression", np.ones(1), np.zeros((1, 1)), np.ones(1))["r2"])


@pytest.mark.parametrize("decimals", [1, 9])
def test_the_area_of_the_learning_curve_is_that_of_scikit_learn(decimals: int) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 1)).round(decimals)  # with many equal ones, and with none
    target = (rng.normal(size=300) < logits[:, 0]).astype(np.int64)
    weight = rng.exponential(size=300).astype(np.float32)
    wanted = roc_auc_score(target, logits[:, 0], sample_weight=weight)
    assert curve_metrics("binary", target, logits, weight)["auc"] == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("weight", [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
def test_the_area_of_rows_that_count_of_one_class_is_not_a_number(weight: list[float]) -> None:
    found = curve_metrics("binary", np.array([0, 0, 1]), np.array([[-1.0], [1.0], [2.0]]), np.array(weight))
    assert math.isnan(found["auc"])
