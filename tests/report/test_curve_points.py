"""The points of a report's curves, by hand."""

import numpy as np

from attfm.report.curve_points import curves
from tests.explain.account import model


def test_the_curves_of_four_rows() -> None:
    positive = np.array([0.1, 0.6, 0.4, 0.9])
    found = curves(model(), np.array([0, 0, 1, 1]), np.stack([1 - positive, positive], 1))
    assert found["roc"] == [{"name": "yes", "points": [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]]}]
    points = [[1, 0.5], [1, 0.6667], [0.5, 0.5], [0.5, 1], [0, 1]]
    assert found["pr"] == [{"name": "yes", "share": 0.5, "points": points}]
    assert [(one["x"], one["y"], one["rows"]) for one in found["calibration"]] == [
        (0.1, 0, 1), (0.4, 1, 1), (0.6, 0, 1), (0.9, 1, 1)
    ]  # fmt: skip
    # Wilson's interval of none or one of one row.
    assert [(one["low"], one["high"]) for one in found["calibration"][:2]] == [(0, 0.7935), (0.2065, 1)]


def test_classes_have_a_curve_each_and_one_calibration() -> None:
    target, shares = np.array([0, 1, 1, 1]), np.array([[0.8, 0.2, 0], [0.3, 0.7, 0], [0.6, 0.4, 0], [0, 0.9, 0.1]])
    found = curves(model("multiclass"), target, shares)
    assert [one["name"] for one in found["roc"]] == ["b", "a"]  # the frequent first; no row is of class c
    assert found["roc"][0]["points"] == [[0, 0], [0, 0.3333], [0, 1], [1, 1]]
    assert [one["share"] for one in found["pr"]] == [0.75, 0.25]
    assert [(one["x"], one["y"]) for one in found["calibration"]] == [(0.6, 0), (0.7, 1), (0.8, 1), (0.9, 1)]


def test_a_regression_has_points_and_their_means() -> None:
    target, predicted = np.arange(20.0), np.arange(20.0)[::-1] / 2
    found = curves(model("regression"), target, predicted)
    assert sorted(found["scatter"]) == [[x / 2, 19.0 - x] for x in range(20)]
    assert found["means"] == [[x + 0.25, 18.5 - 2 * x] for x in range(10)]
