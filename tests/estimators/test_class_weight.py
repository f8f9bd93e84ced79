"""Weights of classes: whatever writes a label names its class."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from attfm import AFMClassifier, ConfigError, DataWarning, TargetError, load

X = np.random.default_rng(0).normal(size=(80, 2))
CODES = (X[:, 0] + np.random.default_rng(1).normal(size=80) > 0).astype(int)
LABELS = {
    "int": CODES,
    "int8": CODES.astype(np.int8),
    "float": CODES.astype(float),
    "bool": CODES == 1,
    "nullable": pd.Series(CODES, dtype="Int64"),
    "nullable bool": pd.Series(CODES == 1, dtype="boolean"),
    "text": CODES.astype(str),
}


def weights_of(labels: Any, class_weight: Any) -> list[float] | None:
    model = AFMClassifier(epochs=1, n_models=1, class_weight=class_weight).fit(X, labels)
    weights: list[float] | None = model.model_.facts.class_weights
    return weights


@pytest.mark.parametrize(
    "keys", [(0, 1), (0.0, 1.0), (False, True), (np.int64(0), np.int32(1)), (np.float32(0), np.bool_(True))]
)
@pytest.mark.parametrize("labels", [name for name in LABELS if name != "text"])
def test_a_key_that_equals_a_label_is_its_weight(labels: str, keys: tuple[Any, Any]) -> None:
    assert weights_of(LABELS[labels], {keys[0]: 0.5, keys[1]: np.float64(5)}) == [0.5, 5]
    assert weights_of(LABELS[labels], {keys[1]: 5}) == [1, 5]


@pytest.mark.parametrize("keys", [("0", "1"), (np.str_("0"), np.str_("1")), (0, 1)])
def test_labels_of_text_have_the_weights_of_the_texts(keys: tuple[Any, Any]) -> None:
    assert weights_of(LABELS["text"], dict(zip(keys, [1, 5], strict=True))) == [1, 5]


def test_large_numbers_and_fractions_are_not_rounded() -> None:
    labels = np.where(CODES == 1, 2**60 + 1, 2**60)
    assert weights_of(labels, {2**60: 2, 2**60 + 1: 3}) == [2, 3]
    assert weights_of(np.where(CODES == 1, -1.5, 3.25).astype(str), {"-1.5": 2}) == [2, 1]


def test_a_loaded_estimator_keeps_them_when_it_is_fitted_again(tmp_path: Path) -> None:
    model = AFMClassifier(epochs=2, n_models=1, class_weight={0: 1, 1: 5}).fit(X, LABELS["float"])
    again = load(model.save(tmp_path / "run"))
    for labels in ("float", "int", "bool"):
        again.fit(X, LABELS[labels])
        assert again.model_.facts.class_weights == [1, 5]
        np.testing.assert_array_equal(again.decision_function(X), model.decision_function(X))


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ({2: 1}, r"names the class '2', the target has 0, 1"),
        ({"yes": 1}, r"names the class 'yes', the target has 0, 1"),
        ({None: 1}, r"names the class 'None'"),
        ({float("nan"): 1}, r"names the class 'nan'"),
        ({0.5: 1}, r"names the class '0\.5'"),
        ({1: 0}, r"gives the class '1' the weight 0: give a finite number above 0"),
        ({1: -2.5}, r"gives the class '1' the weight -2\.5: give a finite number"),
        ({1: np.float32("nan")}, r"gives the class '1' the weight nan: give a finite number"),
        ({0: float("inf")}, r"gives the class '0' the weight inf"),
        ({0: 1, "0": 2}, r"names the class '0' twice"),
        ({0: 1, "0.0": 2}, r"names the class 0 twice, as '0' and as '0\.0'"),
        ({0: "heavy"}, r"'class_weight' in the parameters of AFMClassifier is"),
        ("Balanced", r"'class_weight' in the parameters of AFMClassifier is 'Balanced'"),
    ],
)
def test_what_can_not_be_a_weight_is_told(class_weight: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        weights_of(CODES, class_weight)


@pytest.mark.parametrize("seed", range(4))
def test_a_class_of_one_row_is_learned_whatever_the_seed(seed: int) -> None:
    labels = np.where(CODES == 1, "b", "a").astype(object)
    labels[17] = "rare"
    with pytest.warns(DataWarning, match=r"Class 'rare' has too few rows to hold one out: its rows \(1\) are all kept"):
        model = AFMClassifier(epochs=1, n_models=1, random_state=seed).fit(X, labels)
    assert model.classes_.tolist() == ["a", "b", "rare"]
    assert model.model_.facts.validation_rows == 8


def test_an_eval_set_is_no_reason_for_that_warning() -> None:
    labels = np.append(CODES, 2)
    model = AFMClassifier(epochs=1, n_models=1).fit(np.vstack([X, [[9, 9]]]), labels, eval_set=(X, CODES))
    assert model.classes_.tolist() == [0, 1, 2]
    with pytest.raises(TargetError, match="were not seen in training"):
        AFMClassifier(epochs=1, n_models=1).fit(X, CODES, eval_set=(X[:2], [0, 2]))
