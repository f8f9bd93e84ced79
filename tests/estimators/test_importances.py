"""`feature_importances_`, and what scikit-learn selects features by it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import RFE, RFECV, SelectFromModel

from attfm import AFMClassifier, AFMRegressor, load

ROWS = 300
NUMBERS = np.random.default_rng(0).normal(size=(ROWS, 5))
SCORE = 2 * NUMBERS[:, 1] + NUMBERS[:, 3]
FRAME = pd.DataFrame(NUMBERS, columns=list("abcde"))
LABELS = SCORE > 0


def dated() -> pd.DataFrame:
    hours = np.random.default_rng(1).integers(0, 24 * 365, ROWS)
    when = pd.Timestamp("2024-01-01") + pd.to_timedelta(hours, unit="h")
    return pd.DataFrame({"when": when, "skipped": NUMBERS[:, 0], "job": np.where(LABELS, "cook", "clerk")})


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (AFMClassifier(epochs=5, n_models=1), LABELS),
        (AFMClassifier(epochs=5, n_models=1), np.digitize(SCORE, [-1, 1])),
        (AFMRegressor(epochs=5, n_models=1), SCORE),
        (AFMClassifier(epochs=5, n_models=1, preset="linear"), LABELS),
    ],
    ids=["two classes", "three classes", "regression", "linear"],
)
def test_they_are_shares_of_the_mean_effect(model: AFMClassifier, y: np.ndarray, tmp_path: Path) -> None:
    model.fit(FRAME, y)
    shares = model.feature_importances_
    assert (shares.shape, shares.dtype, shares.sum()) == ((5,), np.float64, pytest.approx(1))
    overview = model.explain_global()
    expected = {effect.fields[0]: effect.importance for effect in overview.field_importance()}
    for pair in overview.pair_importance():
        for field in pair.fields:
            expected[field] += pair.importance / 2
    whole = sum(expected.values())
    np.testing.assert_allclose(shares, [expected[name] / whole for name in "abcde"])
    assert shares.argmax() == 1
    np.testing.assert_array_equal(load(model.save(tmp_path / "run")).feature_importances_, shares)


def test_the_parts_of_a_date_are_one_column_and_an_ignored_one_has_none() -> None:
    model = AFMClassifier(epochs=3, n_models=1, columns={"skipped": {"kind": "ignored"}}).fit(dated(), LABELS)
    shares = model.feature_importances_
    assert shares.shape == (model.n_features_in_,) == (3,)
    assert shares[1] == 0
    assert shares.sum() == pytest.approx(1)
    overview = model.explain_global()
    assert overview.fields == ("when.hour", "when.weekday", "when.month", "job")
    whole = sum(effect.importance for effect in overview.importance())
    when = sum(
        effect.importance * sum(name.startswith("when.") for name in effect.fields) / len(effect.fields)
        for effect in overview.importance()
    )
    assert shares[0] == pytest.approx(when / whole)


def test_a_model_without_effects_has_no_shares() -> None:
    model = AFMClassifier(epochs=1).fit(np.ones((20, 2)), LABELS[:20])
    np.testing.assert_array_equal(model.feature_importances_, [0, 0])


def test_before_the_fit_there_are_none() -> None:
    assert not hasattr(AFMClassifier(), "feature_importances_")
    with pytest.raises(NotFittedError):
        AFMRegressor().feature_importances_  # noqa: B018


@pytest.mark.parametrize("X", [NUMBERS, FRAME], ids=["numpy", "pandas"])
def test_scikit_learn_selects_features_by_them(X: np.ndarray | pd.DataFrame) -> None:
    model = AFMClassifier(
        epochs=3, n_models=1, dim=2, attention_dim=2, memory_pairs=0, batch_size=64, learning_rate=0.1
    )
    selected = [False, True, False, True, False]
    assert RFE(model, n_features_to_select=2).fit(X, LABELS).support_.tolist() == selected
    assert RFECV(model, cv=2, min_features_to_select=2, step=2).fit(X, LABELS).support_[1]
    chosen = SelectFromModel(model, max_features=2, threshold=-np.inf).set_output(transform="default").fit(X, LABELS)
    assert chosen.get_support().tolist() == selected
    assert np.asarray(chosen.transform(X)).shape == (ROWS, 2)
