"""Learning on from new rows: what stays, what is added, what fades, what is forgotten."""

from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from attfm import AFMClassifier, AFMRegressor, load
from attfm.data.encoder import Encoder
from attfm.data.sources.source import open_source
from attfm.errors import ConfigError, TargetError
from attfm.model.bundle import Model
from attfm.model.ensemble import members_of
from attfm.model.sums import TrainingSums
from attfm.train.continued import Continuation, Start, started
from tests.train.test_statistics import estimator, labels, shop

TASKS = ("binary", "multiclass", "regression")
FIRST, LATER = "2024-03-01", "2024-03-31"


def later(rows: int = 2000, *, seed: int = 1) -> tuple[pd.DataFrame, np.ndarray]:
    """Return rows of which some have persons, things and tags that the first ones did not have."""
    frame, score = shop(rows, seed=seed)
    frame = frame.copy()
    some = np.random.default_rng(seed).random(rows) < 0.2
    frame.loc[some, "person"] = "new " + frame.loc[some, "person"]
    frame.loc[some, "tags"] = frame.loc[some, "tags"].map(lambda tags: [f"new {tag}" for tag in tags])
    return frame, score


def fitted(task: str, **settings: Any) -> AFMClassifier | AFMRegressor:
    """Return a copy, to be taught more, of a model that is trained once for all tests."""
    return deepcopy(_fitted(task, **settings))


@cache
def _fitted(task: str, **settings: Any) -> AFMClassifier | AFMRegressor:
    frame, score = shop()
    model = estimator(task, **settings).fit(frame, labels(task, score))
    dated = replace(model.model_, facts=model.model_.facts.with_facts(as_of=FIRST))
    return model._take(dated, getattr(model, "classes_", None))


def start(model: Model, frame: pd.DataFrame, **asked: Any) -> Start:
    rows = Encoder.counting(model.schema, open_source(frame).batches())
    return started(Continuation.of(model, as_of=LATER, **asked), rows)


def sums_of(model: AFMClassifier | AFMRegressor) -> TrainingSums:
    (machine,) = members_of(model.model_.module)
    assert machine.sums is not None
    return machine.sums


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("preset", "models"), [("nested", 1), ("nested", 2), ("paper", 1), ("fm", 1), ("linear", 1)])
def test_rows_score_the_same_until_training_changes_weights(task: str, preset: str, models: int) -> None:
    calibrate = {"calibrate": "temperature"} if task == "binary" else {}
    model = fitted(task, preset=preset, n_models=models, epochs=1, **calibrate).model_
    frame, _ = shop(500)
    begun = start(model, later()[0], half_life=10.0)
    assert begun.new == {"person": 60, "tags": 40}
    np.testing.assert_array_equal(begun.model.logits(frame), model.logits(frame))
    new = later(500)[0]
    known = ~new.person.str.startswith("new").to_numpy()
    np.testing.assert_array_equal(begun.model.logits(new)[known], model.logits(new)[known])
    if preset == "linear":  # without a memory of pairs with unknown values
        np.testing.assert_allclose(begun.model.logits(new), model.logits(new), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("task", "half_life"), [("binary", 30.0), ("multiclass", None), ("regression", 30.0)])
def test_sums_are_those_of_earlier_rows_as_they_fade_and_of_new_ones(task: str, half_life: float | None) -> None:
    model = fitted(task, early_stopping=False)
    before = sums_of(model)
    frame, score = later()
    model.partial_fit(frame, labels(task, score), half_life=half_life, as_of=LATER)
    after, kept = sums_of(model), 1.0 if half_life is None else 0.5
    assert after.total[-1] == pytest.approx(3000 * kept + 2000)
    assert after.scale == before.scale
    old = shop()[0]
    person, names = after.rates[0], model.model_.encoder.feature_names(0)
    for name in ("7", "new 7", "59"):
        expected = kept * (old.person == name).sum() + (frame.person == name).sum()
        assert person.columns[names.index(name), -1] == pytest.approx(expected, abs=1), name
    if task == "binary":
        y = [labels(task, s) for s in (shop()[1], score)]
        clicks = kept * (y[0] & (old.person == "7")).sum() + (y[1] & (frame.person == "7")).sum()
        assert person.columns[names.index("7"), 0] == pytest.approx(clicks)
        assert after.rows[names.index(name)] == pytest.approx(expected)
    assert list(after.pairs) == list(before.pairs) != []
    (pair,) = [pair for pair in after.pairs if pair == (0, 1)]
    people, things = (model.model_.encoder.feature_names(f) for f in pair)
    of_pair = after.pairs[pair]
    place = np.flatnonzero((of_pair.first == people.index("7")) & (of_pair.second == things.index("9")))
    rows = sum(weight * ((of.person == "7") & (of.thing == "9")).sum() for weight, of in ((kept, old), (1.0, frame)))
    assert (of_pair.columns[place, -1].sum() if len(place) else 0) == pytest.approx(rows, abs=1)
    np.testing.assert_array_equal(after.rates[0].bins.edges[0], before.rates[0].bins.edges[0])


def test_ids_keep_their_features_and_new_ones_follow() -> None:
    model = fitted("binary")
    before = model.model_.encoder
    frame, score = later()
    rare = pd.concat([frame, frame[:1].assign(person="once")])
    model.partial_fit(rare, labels("binary", np.append(score, 1.0)), as_of=LATER)
    after = model.model_.encoder
    for f in range(len(before.fields)):
        names = after.feature_names(f)
        assert names[: before.fields[f].size] == before.feature_names(f)
    facts = model.model_.facts
    assert facts.trainings == 2
    assert facts.as_of == LATER
    assert facts.new_values is not None
    assert facts.new_values["person"] in (60, 61)  # once: where it is among the rows that teach


def test_values_must_occur_often_enough_to_be_new() -> None:
    model = fitted("binary", min_count=3).model_
    frame = later()[0]
    often = pd.concat([frame, *[frame[:1].assign(person="thrice")] * 3, *[frame[:1].assign(person="twice")] * 2])
    names = start(model, often).model.encoder.feature_names(0)
    assert "thrice" in names
    assert "twice" not in names


def test_what_no_row_had_for_long_is_forgotten_on_request() -> None:
    frame = shop()[0]
    model = fitted("binary")
    gone = shop(1500, seed=5)[0]
    kept = gone[gone.person.astype(int) >= 10]
    begun = start(model.model_, kept, evict_unseen=20)
    assert begun.evicted == {"person": 10}
    names = begun.model.encoder.feature_names(0)
    assert "3" not in names
    assert "10" in names
    assert start(model.model_, kept, evict_unseen=40).evicted == {}
    others = frame[frame.person.astype(int) >= 10][:300]
    np.testing.assert_array_equal(begun.model.logits(others), model.model_.logits(others))
    sums = begun.beginnings[0].machine.sums
    assert sums is not None
    assert sums.pairs[0, 1].first.max() < len(names)
    model.partial_fit(kept, labels("binary", shop(1500, seed=5)[1])[gone.person.astype(int) >= 10], as_of=LATER,
                      evict_unseen=20)  # fmt: skip
    assert model.model_.facts.evicted_values == {"person": 10}
    few = np.arange(len(frame)) < 5
    forgotten, unseen = (frame.assign(person=frame.person.where(~few, name)) for name in ("3", "never"))
    np.testing.assert_array_equal(model.predict_proba(forgotten)[:5], model.predict_proba(unseen)[:5])


def test_days_of_values_are_kept_over_trainings() -> None:
    model = fitted("binary")
    frame = shop(1500, seed=5)[0]
    y = labels("binary", shop(1500, seed=5)[1])
    kept = (frame.person.astype(int) >= 10).to_numpy()
    model.partial_fit(frame[kept], y[kept], as_of="2024-03-15")  # 0 to 9 were seen on March 1st, the others on the 15th
    assert start(model.model_, frame[kept], evict_unseen=20).evicted == {"person": 10}
    fewer = frame[frame.person.astype(int) >= 20]
    assert start(model.model_, fewer, evict_unseen=20).evicted == {"person": 10}
    assert start(model.model_, fewer, evict_unseen=10).evicted == {"person": 20}


def test_bins_stay_unless_they_shall_be_cut_again() -> None:
    model = fitted("binary")
    before = model.model_.encoder.bin_edges(3)
    frame, score = later()
    moved = frame.assign(x=frame.x * 3 + 5)
    y = labels("binary", score)
    probabilities = model.predict_proba(frame)[:, 1]
    again = start(model.model_, moved, refit_bins=True)
    cut = again.model.encoder.bin_edges(3)
    assert cut is not None
    assert cut[-1] > 10
    near = again.model.predict_proba(frame)[:, 1]
    assert np.corrcoef(near, probabilities)[0, 1] > 0.9
    model.partial_fit(moved, y, as_of=LATER)
    np.testing.assert_array_equal(model.model_.encoder.bin_edges(3), before)
    model.partial_fit(moved, y, as_of=LATER, refit_bins=True)
    np.testing.assert_array_equal(model.model_.encoder.bin_edges(3), cut)


@pytest.mark.parametrize("lazy", [False, True])
def test_what_no_row_touches_stays_as_it_was(lazy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if lazy:
        monkeypatch.setattr("attfm.train.sparse_optimizer.BIG_TABLE", 1)
    _fitted.cache_clear()  # how its tables are trained is no setting
    model = fitted("binary", rates=False, memory_pairs=0, knots=0, batch_size=64, refit=False)
    frame, score = shop(800, seed=3)
    half = frame.person.astype(int).to_numpy() < 30
    (before,) = members_of(model.model_.module)
    tables = before.linear.weight.clone(), before.embedding.weight.clone()
    model.partial_fit(frame[half], labels("binary", score)[half], as_of=LATER)
    (after,) = members_of(model.model_.module)
    names = model.model_.encoder.feature_names(0)
    away = torch.tensor([n for n, name in enumerate(names) if n > 1 and int(name) >= 30])
    here = torch.tensor([n for n, name in enumerate(names) if n > 1 and int(name) < 30])
    for was, table in zip(tables, (after.linear, after.embedding), strict=True):
        torch.testing.assert_close(table.weight[away], was[away], rtol=0, atol=1e-7)
        assert (table.weight[here] != was[here]).any(1).all()


@pytest.mark.parametrize("lazy", [False, True])
def test_the_more_rows_taught_a_value_the_less_new_ones_move_it(lazy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if lazy:
        monkeypatch.setattr("attfm.train.sparse_optimizer.BIG_TABLE", 1)
    often, seldom = 1500, 10
    people = np.repeat(["often", "seldom", "others"], [often, seldom, 1500])
    y = np.arange(len(people)) % 2 == 0
    settings = {"n_models": 1, "rates": False, "memory_pairs": 0, "early_stopping": False, "epochs": 20,
                "batch_size": 16, "pairs": False}  # fmt: skip
    model = AFMClassifier(**settings).fit(pd.DataFrame({"who": people, "x": np.arange(len(people)) % 7}), y)
    rows = pd.DataFrame({"who": ["often", "seldom"], "x": 3})
    before = model.model_.logits(rows)[:, 0]
    new = pd.DataFrame({"who": np.repeat(["often", "seldom"], 50), "x": np.arange(100) % 7})
    model.partial_fit(new, np.ones(100, bool))
    moved = model.model_.logits(rows)[:, 0] - before
    assert 0 < 3 * moved[0] < moved[1]
    assert np.isfinite(moved).all()


def test_learning_on_is_nearly_as_good_as_learning_from_all_rows() -> None:
    def rows(n: int, seed: int, first: int) -> tuple[pd.DataFrame, np.ndarray]:
        rng = np.random.default_rng(seed)
        user, item = rng.integers(first, first + 150, n), rng.integers(0, 40, n)
        logit = 1.2 * np.sin(1.7 * user) + np.cos(2.3 * item) + np.sin(0.7 * user + 1.3 * item)
        frame = pd.DataFrame({"user": user.astype(str), "item": item.astype(str), "x": rng.normal(size=n)})
        return frame, rng.random(n) < 1 / (1 + np.exp(-logit))

    (a, ya), (b, yb), (test, y) = rows(5000, 1, 0), rows(2500, 2, 60), rows(8000, 3, 60)

    def auc(model: AFMClassifier) -> float:
        return float(roc_auc_score(y, model.predict_proba(test)[:, 1]))

    settings = {"n_models": 1, "epochs": 6, "refit": False}
    both = auc(AFMClassifier(**settings).fit(pd.concat([a, b]), np.concatenate([ya, yb])))
    alone, second = AFMClassifier(**settings).fit(a, ya), auc(AFMClassifier(**settings).fit(b, yb))
    first = auc(alone)
    learned_on = auc(alone.partial_fit(b, yb))
    assert learned_on > max(first, second) + 0.005
    assert learned_on > both - 0.012


@pytest.mark.parametrize(("task", "models"), [("binary", 2), ("multiclass", 1), ("regression", 1)])
def test_a_saved_model_learns_on_as_the_model_itself(task: str, models: int, tmp_path: Path) -> None:
    model = fitted(task, n_models=models, epochs=2)
    model.save(tmp_path / "run")
    saved = load(tmp_path / "run")
    frame, score = later(600)
    for of in (model, saved):
        of.partial_fit(frame, labels(task, score), as_of=LATER, half_life=7)
    np.testing.assert_array_equal(saved.predict(frame), model.predict(frame))
    np.testing.assert_array_equal(saved.model_.logits(frame), model.model_.logits(frame))
    assert len(members_of(model.model_.module)) == models
    model.save(tmp_path / "again")
    np.testing.assert_array_equal(load(tmp_path / "again").model_.logits(frame), model.model_.logits(frame))
    explanation = model.explain(frame[:40])
    np.testing.assert_allclose(explanation.logits, model.model_.logits(frame[:40]), atol=1e-5)


def test_the_first_call_is_a_fit() -> None:
    frame, score = shop(600)
    y = labels("binary", score)
    settings = {"epochs": 2, "n_models": 1}
    by_parts = AFMClassifier(**settings).partial_fit(frame, y, classes=[False, True])
    np.testing.assert_array_equal(
        by_parts.predict_proba(frame), AFMClassifier(**settings).fit(frame, y).predict_proba(frame)
    )
    with pytest.raises(TargetError, match=r"classes and y do not have 'maybe' both"):
        AFMClassifier(**settings).partial_fit(frame, y.astype(str), classes=["False", "True", "maybe"])


@pytest.mark.parametrize(("models", "rows"), [(1, 1), (2, 3)])
def test_a_few_rows_are_learned_too(models: int, rows: int) -> None:
    model = fitted("binary", n_models=models)
    frame, score = later(rows)
    before = model.predict_proba(shop(300)[0])[:, 1]
    model.partial_fit(frame, labels("binary", score), as_of=LATER)
    after = model.predict_proba(shop(300)[0])[:, 1]
    assert (after != before).any()
    assert np.abs(after - before).mean() < 0.05
    assert model.classes_.tolist() == [False, True]


def test_rows_of_one_class_are_learned_from() -> None:
    frame, score = later(300)
    model = fitted("binary")
    before = model.predict_proba(frame)[:, 1].mean()
    model.partial_fit(frame, np.ones(len(score), bool), as_of=LATER)
    assert model.predict_proba(frame)[:, 1].mean() > before
    assert model.classes_.tolist() == [False, True]


def test_negatives_that_were_left_out_count_after_learning_on() -> None:
    frame, score = shop()
    y = labels("binary", score) & (np.random.default_rng(0).random(len(score)) < 0.4)
    model = AFMClassifier(n_models=1, epochs=3, negative_rate=0.4).fit(frame, y)
    first = model.predict_proba(frame)[:, 1].mean()
    again = model.partial_fit(frame, y).predict_proba(frame)[:, 1].mean()
    assert first == pytest.approx(y.mean(), abs=0.03)
    assert again == pytest.approx(y.mean(), abs=0.03)


def test_what_can_not_be_learned_on_from_is_refused(tmp_path: Path) -> None:
    model = fitted("binary")
    frame, score = later(300)
    y = labels("binary", score)
    with pytest.raises(TargetError, match=r"300 labels were not seen in training .*Its classes are"):
        model.partial_fit(frame, np.full(300, "maybe"))
    with pytest.raises(ConfigError, match=r"rows are of 2024-02-01, but the model has learned from rows of 2024-03-01"):
        model.partial_fit(frame, y, as_of="2024-02-01")
    for day in ("soon", 7):
        with pytest.raises(ConfigError, match=r"as_of is .*give a day as 2024-03-01"):
            model.partial_fit(frame, y, as_of=day)
    for name in ("half_life", "evict_unseen"):
        for days in (0, -1, float("nan"), "long"):
            with pytest.raises(ConfigError, match=rf"{name} is .*: give a number of days above 0"):
                model.partial_fit(frame, y, as_of=LATER, **{name: days})
    model.set_params(dim=8)
    with pytest.raises(ConfigError, match=r"Setting 'dim' is 8, but the model was trained with 16.*keeps it"):
        model.partial_fit(frame, y, as_of=LATER)
    model.set_params(dim=16, epochs=1, learning_rate=0.0005)
    model.partial_fit(frame, y, as_of=LATER)
    (machine,) = members_of(model.model_.module)
    machine.sums = None
    with pytest.raises(ConfigError, match=r"kept no sums of its rows: train it anew once"):
        model.partial_fit(frame, y, as_of=LATER)


def test_settings_that_were_chosen_are_kept() -> None:
    frame, score = shop(900)
    y = labels("regression", score)
    model = AFMRegressor(n_models=1, epochs=2).fit(frame, y)
    chosen = model.model_.facts.chosen
    assert chosen is not None
    assert {"weight_dropout", "smoothness"} <= set(chosen)
    model.partial_fit(*((later(400)[0]), labels("regression", later(400)[1])))
    assert model.model_.facts.chosen == chosen
    assert model.model_.config.model.weight_dropout == chosen["weight_dropout"]
