"""Curves: what they measure, and what they refuse."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from attfm.errors import ConfigError
from attfm.metrics.scores import evaluate
from attfm.plots import curves
from tests.plots.pictures import assert_readable


def test_curves_say_what_scikit_learn_measures() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(500)
    y = (rng.random(500) < probability).astype(int)
    assert f"{roc_auc_score(y, probability):.4f}" in curves.roc(y, probability).get_title("left")
    title = curves.precision_recall(y, probability).get_title("left")
    assert f"{average_precision_score(y, probability):.4f}" in title
    ax = curves.reliability(y, probability)
    assert f"Brier score {brier_score_loss(y, probability):.4f}" in ax.get_title("left")
    assert len(ax.lines[1].get_xdata()) == 10
    measured = evaluate("binary", y, np.stack([1 - probability, probability], 1))["calibration_error"]
    assert f"calibration error {measured:.4f}" in ax.get_title("left")
    assert_readable(ax)


@pytest.mark.parametrize(
    ("y", "probability", "message"),
    [
        ([0, 1], [0.5], "y is of shape \\(2,\\) and probability of \\(1,\\)"),
        ([0, 2], [0.5, 0.5], "y holds 2: give 1 for the class"),
        ([1, 1], [0.5, 0.5], "one class only"),
    ],
)
def test_curves_refuse_what_they_cannot_draw(y: list[int], probability: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        curves.roc(y, probability)


def test_the_learning_curve_marks_the_best_epoch() -> None:
    losses = [0.7, 0.5, 0.6]
    history = [{"epoch": n + 1, "train_loss": 1 / (n + 1), "valid_loss": loss} for n, loss in enumerate(losses)]
    ax = curves.learning_curve(history)
    assert [text.get_text() for text in ax.get_legend().get_texts()][-1] == "best: epoch 2"
    without = curves.learning_curve([{**record, "valid_loss": None} for record in history])
    assert len(without.lines) == 1
    with pytest.raises(ConfigError, match="no history"):
        curves.learning_curve([])


def test_the_learning_curve_of_several_models_is_their_mean_while_all_of_them_train() -> None:
    runs = [(1, 0.8), (1, 0.6), (2, 0.6), (2, 0.2), (2, 0.1)]
    epochs = [1, 2, 1, 2, 3]
    history = [
        {"model": model, "epoch": epoch, "train_loss": loss, "valid_loss": loss + 0.1}
        for (model, loss), epoch in zip(runs, epochs, strict=True)
    ]
    ax = curves.learning_curve(history)
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[1, 0.7], [2, 0.4]])
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[1, 0.8], [2, 0.5]])
