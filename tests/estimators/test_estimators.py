"""The estimators as scikit-learn, pandas, polars and Arrow users meet them."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from attfm import (
    AFMClassifier,
    AFMRegressor,
    ConfigError,
    DataError,
    DataWarning,
    RunFolderError,
    SchemaError,
    SourceError,
    TargetError,
    load,
)

KINDS = {
    "pandas": lambda frame: frame,
    "polars": pl.from_pandas,
    "arrow": lambda frame: pl.from_pandas(frame).to_arrow(),
}


# Settings that make them quick; what is "auto" is tested where it is chosen.
QUICK = {"epochs": 8, "learning_rate": 0.1, "n_models": 1, "weight_dropout": 0.0, "smoothness": 1000.0}


@parametrize_with_checks([AFMClassifier(epochs=8, n_models=1, learning_rate=0.1, batch_size=32), AFMRegressor(**QUICK)])
def test_scikit_learn_conformance(estimator: Any, check: Any) -> None:
    check(estimator)


def people(rows: int = 300, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """A table with strings, numbers and missing values, and a label that depends on a pair of them."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "job": rng.choice(["cook", "clerk", "pilot"], rows),
            "town": rng.choice(["Bonn", "Kiel"], rows),
            "age": rng.integers(18, 70, rows).astype(float),
        }
    )
    label = (frame.job == "pilot") ^ (frame.town == "Kiel")
    frame.loc[rng.random(rows) < 0.1, "age"] = np.nan
    frame.loc[rng.random(rows) < 0.1, "town"] = None
    return frame, np.where(label, "yes", "no")


@pytest.fixture(scope="module")
def fitted() -> AFMClassifier:
    return AFMClassifier(epochs=15, learning_rate=0.05, n_models=2).fit(*people())


def test_it_learns_an_interaction_of_strings(fitted: AFMClassifier) -> None:
    X, y = people(seed=1)
    assert fitted.classes_.tolist() == ["no", "yes"]
    assert fitted.score(X, y) > 0.9
    probability = fitted.predict_proba(X)
    np.testing.assert_allclose(probability.sum(1), 1)
    np.testing.assert_allclose(probability[:, 1], 1 / (1 + np.exp(-fitted.decision_function(X))))
    np.testing.assert_array_equal(fitted.predict(X), fitted.classes_[probability.argmax(1)])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_table_gives_the_same_model(kind: str) -> None:
    X, y = people()
    table = KINDS[kind](X)
    model = AFMClassifier(epochs=3, n_models=1).fit(table, y)
    expected = AFMClassifier(epochs=3, n_models=1).fit(X.to_dict("list"), y)
    np.testing.assert_array_equal(model.predict_proba(table), expected.predict_proba(X))
    assert model.feature_names_in_.tolist() == ["job", "town", "age"]


@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_found_by_name(fitted: AFMClassifier, kind: str) -> None:
    X, _ = people(20)
    expected = fitted.predict_proba(X)
    np.testing.assert_array_equal(fitted.predict_proba(KINDS[kind](X[["age", "town", "job"]])), expected)
    with pytest.warns(UserWarning, match=r"X has 2 columns that the fit did not see, ignored: 'a', 'b'"):
        np.testing.assert_array_equal(fitted.predict_proba(KINDS[kind](X.assign(a=1, b="x"))), expected)
    with pytest.raises(SchemaError, match=r"X lacks 2 of the 3 columns of the fit: 'job', 'age'"):
        fitted.predict(KINDS[kind](X[["town"]]))


def test_an_array_after_a_frame_is_taken_by_position_with_a_warning(fitted: AFMClassifier) -> None:
    X, _ = people(20)
    with pytest.warns(UserWarning, match="X does not have valid feature names, but AFMClassifier was fitted with"):
        np.testing.assert_array_equal(fitted.predict(X.to_numpy(dtype=object)), fitted.predict(X))


def test_unseen_categories_are_no_error(fitted: AFMClassifier) -> None:
    X, _ = people(5)
    with pytest.warns(
        DataWarning, match="Column 'job': 100 % of the 5 values were not seen .*first: 'astronaut', row 0"
    ):
        assert np.isfinite(fitted.decision_function(X.assign(job="astronaut"))).all()


@pytest.mark.parametrize("labels", [[False, True], [1, 2], [-1.0, 3.0], ["b", "a", "c"], [3, 1, 2, 7]])
def test_labels_keep_their_type_and_sorted_order(labels: list[Any], tmp_path: Path) -> None:
    X, _ = people(90)
    y = np.array(labels)[np.arange(90) % len(labels)]
    model = AFMClassifier(epochs=2, n_models=1).fit(X, y)
    np.testing.assert_array_equal(model.classes_, np.unique(y))
    assert model.predict(X).dtype == y.dtype
    assert model.predict_proba(X).shape == (90, len(labels))
    again = load(model.save(tmp_path / "run"))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_a_saved_model_is_the_same_bit_for_bit(fitted: AFMClassifier, tmp_path: Path) -> None:
    X, _ = people(50, seed=2)
    folder = fitted.save(tmp_path / "run")
    again = load(folder)
    assert isinstance(again, AFMClassifier)
    np.testing.assert_array_equal(again.decision_function(X), fitted.decision_function(X))
    assert again.get_params() == fitted.get_params()
    assert again.classes_.tolist() == ["no", "yes"]
    assert again.history_ == fitted.history_
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "background.safetensors", "config.json", "history.jsonl", "memory.safetensors", "metrics.json",
        "schema.json", "sums.safetensors", "vocabulary.arrow", "weights.safetensors",
    ]  # fmt: skip
    with pytest.raises(SchemaError, match="lacks 1 of the 3 columns"):
        again.predict(X[["job", "town"]])


def test_a_pickled_model_is_the_same(fitted: AFMClassifier) -> None:
    X, _ = people(50)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.decision_function(X), fitted.decision_function(X))


def test_one_row_may_be_a_dict() -> None:
    X, y = people(90)
    model = AFMClassifier(epochs=5, n_models=1, random_state=0).fit(X.to_dict("list"), y)
    expected = model.predict_proba(X)
    np.testing.assert_array_equal(model.predict_proba(X.to_dict("records")), expected)
    np.testing.assert_array_equal(model.predict_proba(X.to_records(index=False)), expected)
    for row in (0, 7):
        single = X.iloc[row].to_dict()
        np.testing.assert_allclose(model.predict_proba(single), expected[[row]], rtol=1e-6)
    assert expected[0, 0] != expected[7, 0]
    with pytest.raises(SourceError, match=r"A LazyFrame holds no rows yet"):
        model.predict(pl.LazyFrame(single))


def test_a_regressor_predicts_numbers_and_saves(tmp_path: Path) -> None:
    X, y = people(300)
    value = 100.0 + 40 * (y == "yes") + X.age.fillna(40)
    model = AFMRegressor(**QUICK).set_params(epochs=20, learning_rate=0.1, batch_size=64).fit(X, value)
    assert model.score(X, value) > 0.8
    again = load(model.save(tmp_path / "run"))
    assert isinstance(again, AFMRegressor)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_eval_set_decides_when_to_stop() -> None:
    X, y = people()
    model = AFMClassifier(epochs=40, patience=2, learning_rate=0.05, batch_size=64).fit(X, y, eval_set=people(seed=1))
    stopped = model.model_.facts
    assert stopped.validation_rows == 300
    assert stopped.training_rows == 300
    flipped = np.where(people(seed=1)[1] == "yes", "no", "yes")
    worse = AFMClassifier(epochs=40, patience=2, learning_rate=0.05, batch_size=64).fit(
        X, y, eval_set=(people(seed=1)[0], flipped)
    )
    assert worse.model_.facts.best_epoch < stopped.best_epoch


def test_sample_and_class_weights_move_the_decision() -> None:
    X, y = people()
    noisy = np.where(np.random.default_rng(0).random(300) < 0.3, "yes", y)
    plain = AFMClassifier(epochs=10, batch_size=64, n_models=1).fit(X, noisy).predict_proba(X)[:, 1].mean()
    weighted = AFMClassifier(epochs=10, batch_size=64, n_models=1).fit(
        X, noisy, sample_weight=np.where(noisy == "yes", 9, 1)
    )
    classed = AFMClassifier(epochs=10, batch_size=64, n_models=1, class_weight={"yes": 9}).fit(X, noisy)
    assert weighted.predict_proba(X)[:, 1].mean() > plain + 0.1
    np.testing.assert_allclose(classed.predict_proba(X), weighted.predict_proba(X), atol=1e-6)


def test_it_works_in_pipelines_grids_and_cross_validation() -> None:
    X, y = people(160)
    model = AFMClassifier(epochs=2, n_models=1)
    assert cross_val_score(make_pipeline(FunctionTransformer(), model), X, y, cv=2).shape == (2,)
    grid = GridSearchCV(model, {"dim": [2, 4], "preset": ["fm", "nested"]}, cv=2).fit(X, y)
    assert set(grid.best_params_) == {"dim", "preset"}
    assert clone(model.set_params(dim=3)).get_params()["dim"] == 3


@pytest.mark.parametrize("preset", ["nested", "paper", "fwfm"])
def test_every_preset_with_pairs_learns_them_by_its_defaults(preset: str) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({name: rng.choice(list("abcd"), 2000) for name in ("a", "b", "c", "d", "e", "f")})
    odd = (frame.a < "c") != (frame.b < "c")  # no main effect tells of it
    y = rng.random(2000) < np.where(odd, 0.9, 0.1)
    model = AFMClassifier(preset=preset, rates=False, memory_pairs=0, n_models=1, epochs=40, refit=False)
    model.fit(frame[:1500], y[:1500])
    assert roc_auc_score(y[1500:], model.predict_proba(frame[1500:])[:, 1]) > 0.85


def test_warm_start_from_fm_starts_from_its_embeddings() -> None:
    X, y = people()
    cold = AFMClassifier(epochs=3, n_models=1, learning_rate=0.01).fit(X, y)
    warm = AFMClassifier(epochs=3, n_models=1, learning_rate=0.01, warm_start_from="fm").fit(X, y)
    assert warm.history_[0]["train_loss"] < cold.history_[0]["train_loss"] - 0.02


def test_a_warm_started_paper_model_goes_on_as_the_fm_whose_p_is_one() -> None:
    X, y = people()
    model = AFMClassifier(preset="paper", epochs=1, n_models=1, n_seeds=1, refit=False, warm_start_from="fm").fit(X, y)
    assert (model.model_.module.projection > 0).all()


def test_the_callers_random_numbers_are_left_alone() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    AFMClassifier(epochs=2, n_models=1).fit(*people(100))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, r"'dim' in the parameters of AFMClassifier is 0: input should be greater than or equal to 1"),
        ({"preset": "nestd"}, r"'preset' .* is 'nestd'.*'nested', 'paper'"),
        ({"task": "regression"}, r"'task' .* AFMClassifier is 'regression': it is one of auto, binary, multiclass"),
        (
            {"weight_dropout": 1.0},
            r"'weight_dropout' .* is 1\.0: input should be 'auto', or input should be less than 1",
        ),
        ({"columns": {"jbo": {"kind": "numeric"}}}, r"'jbo'.*'job'"),
        ({"class_weight": {"maybe": 2}}, r"'class_weight' names the class 'maybe', the target has no, yes"),
    ],
)
def test_bad_parameters_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, SchemaError), match=message):
        AFMClassifier(**settings).fit(*people(100))


def test_bad_data_is_named() -> None:
    X, y = people(100)
    with pytest.raises(TargetError, match=r"y has one class only \('no'\)"):
        AFMClassifier().fit(X, np.full(100, "no"))
    with pytest.raises(ValueError, match=r"X has 100 rows and y has 99"):
        AFMClassifier().fit(X, y[:99])
    with pytest.raises(
        TargetError, match=r"sample_weight: 1 of 100 weights are negative or not finite \(first: -1.0, row 3"
    ):
        AFMClassifier().fit(X, y, sample_weight=np.where(np.arange(100) == 3, -1, 1))
    with pytest.raises(ConfigError, match=r"eval_set is not \(X, y\)"):
        AFMClassifier().fit(X, y, eval_set=X)
    with pytest.raises(DataError, match=r"Column 'age'.*inf.*row 7"):
        AFMClassifier().fit(X.assign(age=np.where(np.arange(100) == 7, np.inf, 30.0)), y)
    model = AFMClassifier(epochs=2, n_models=1).fit(X, y)
    with pytest.raises(DataError, match=r"Column 'age': .* are not numbers \(first: 'old', row 0"):
        model.predict(X.assign(age="old"))


def test_a_folder_that_is_no_run_folder_is_left_alone(fitted: AFMClassifier, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep me")
    with pytest.raises(RunFolderError, match="exists and is not a run folder"):
        fitted.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize("kind", list(KINDS))
def test_explanations_of_any_frame_add_up(fitted: AFMClassifier, kind: str) -> None:
    X = KINDS[kind](people(40, seed=3)[0])
    e = fitted.explain(X)
    np.testing.assert_allclose(e.logits[:, 0], fitted.decision_function(X), rtol=1e-4, atol=1e-5)
    assert e.outputs == ("yes",)
    assert e.top(1)[0][0].name == "job × town"  # what the label was made of
    raw = fitted.explain(X, view="raw", rows=[7, 2])
    assert raw.rows.tolist() == [7, 2]
    np.testing.assert_allclose(raw.logits, e.logits[[7, 2]], rtol=1e-5, atol=1e-6)
    overview = fitted.explain_global()
    assert overview.importance()[0].name == "job × town"
    assert fitted.explain_global(X).rows == 40
    assert fitted.check_explanations(X).removal_error < 1e-5
    change = fitted.what_if(X, row=2, immutable=["age"])[0]
    other = people(40, seed=3)[0].iloc[[2]].assign(**{change.field: change.after})
    assert fitted.predict(other) != fitted.predict(people(40, seed=3)[0].iloc[[2]])
    with pytest.raises(DataError, match="no row 40"):
        fitted.what_if(X, row=40)


@pytest.mark.parametrize("separate", [False, True])
def test_seeds_refit_on_the_rows_of_the_fit(separate: bool, capsys: pytest.CaptureFixture[str]) -> None:
    X, y = people(160)
    eval_set = people(60, seed=2) if separate else None
    model = AFMClassifier(epochs=3, verbose=True).fit(X, y, eval_set=eval_set)
    assert model.check_explanations(X).seeds is None
    capsys.readouterr()
    found = model.check_explanations(X, seeds=2, refit_on=(X, y), eval_set=eval_set)
    assert found.seeds is not None
    assert found.seeds.refits == 2
    assert "refit 2/2, epoch 1: loss" in capsys.readouterr().err
    other, labels = people(160, seed=9)
    for refit_on in ((other, labels), (X.iloc[:100], y[:100])):
        with pytest.raises(ConfigError, match=r"does not hold the rows that the model was trained on. Give refit_on="):
            model.check_explanations(X, seeds=1, refit_on=refit_on, eval_set=eval_set)
    with pytest.raises(ConfigError, match="does not hold the rows"):
        model.check_explanations(X, seeds=1, refit_on=(X, y), eval_set=None if separate else (X, y))
    with pytest.raises(ConfigError, match=r"seeds=1 fits the model again.*give refit_on="):
        model.check_explanations(X, seeds=1)


def test_bags_are_summarised_and_saved_and_do_not_change_the_model(tmp_path: Path) -> None:
    X, y = people(120)
    model = AFMClassifier(epochs=3, n_models=1, n_bags=3).fit(X, y)
    stability = model.explain_global().stability()
    assert stability is not None
    assert stability.refits == 3
    spread = [one.spread for one in model.explain_global().importance()]
    assert min(spread) > 0
    plain = AFMClassifier(epochs=3, n_models=1).fit(X, y)
    np.testing.assert_array_equal(plain.decision_function(X), model.decision_function(X))
    assert plain.explain_global().stability() is None
    again = load(model.save(tmp_path / "run"))
    assert again.explain_global().to_dict() == model.explain_global().to_dict()
    assert again.n_bags == 3
