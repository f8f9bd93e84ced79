"""Calibration: what is fitted to logits, what it promises whatever the rows are, and how it is kept."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss

from attfm.config import Config
from attfm.errors import ConfigError, RunFolderError
from attfm.explain.explainer import Explainer
from attfm.metrics.scores import calibration_error
from attfm.model.bundle import Model
from attfm.model.calibration import Calibration, Curve
from attfm.model.run_folder import load_model, save_model
from attfm.model.task import Binary, Multiclass, Regression, Task
from tests.explain.account import model as model_of
from tests.explain.account import source

Floats = np.ndarray[Any, np.dtype[np.float64]]
KINDS = ("temperature", "sigmoid", "isotonic")
TWO, FOUR = Binary("y", ("no", "yes")), Multiclass("y", ("a", "b", "c", "d"))


def told(calibration: Calibration, task: Task, logits: Floats) -> Floats:
    """Return the probabilities of uncalibrated logits as a model with this calibration gives them."""
    return calibration.applied_to(task).scores(calibration.logits(logits))


def drawn(logits: Floats, task: Task, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return classes drawn by the probabilities that the logits are of."""
    shares = task.scores(logits)
    return (rng.random((len(logits), 1)) > shares.cumsum(1)[:, :-1]).sum(1)


def off_two(rows: int = 3000, seed: int = 0) -> tuple[Floats, np.ndarray[Any, Any]]:
    """Return overconfident logits of two classes, and classes drawn by 0.6 · logit − 0.5."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (rows, 1))
    return logits, drawn(0.6 * logits - 0.5, TWO, rng)


def off_four(rows: int = 8000) -> tuple[Floats, np.ndarray[Any, Any]]:
    """Return logits of four classes that are off by a slope and an offset for each class."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (rows, 4))
    return logits, drawn(logits * [0.5, 1, 1.5, 0.8] + [0, 0.5, -0.5, 0], FOUR, rng)


class Logits(ClassifierMixin, BaseEstimator):
    """A classifier for scikit-learn's calibration, whose input is its output."""

    def fit(self, X: Floats, y: Floats) -> "Logits":
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, X: Floats) -> Floats:
        return X[:, 0] if X.shape[1] == 1 else X

    def predict(self, X: Floats) -> Floats:
        return self.classes_[(X[:, 0] > 0).astype(int) if X.shape[1] == 1 else X.argmax(1)]


@pytest.mark.parametrize(("kind", "most"), [("sigmoid", 1e-8), ("isotonic", 2e-3)])
def test_two_classes_are_calibrated_as_by_scikit_learn(kind: Any, most: float) -> None:
    logits, y = off_two()
    theirs = CalibratedClassifierCV(FrozenEstimator(Logits().fit(logits, y)), method=kind, ensemble=False)
    ours = Calibration.fit(kind, TWO, logits, y)
    new = np.linspace(-7, 7, 501)[:, None]  # of isotonic curves the ends differ by Platt's targets, and nothing else
    np.testing.assert_allclose(told(ours, TWO, new), theirs.fit(logits, y).predict_proba(new), rtol=0, atol=most)
    assert np.abs(told(ours, TWO, new) - TWO.scores(new)).max() > 0.05


@pytest.mark.parametrize(("task", "rows"), [(TWO, off_two()), (FOUR, off_four())], ids=["two", "four"])
def test_a_temperature_is_the_one_of_least_loss(task: Task, rows: tuple[Floats, Any]) -> None:
    logits, y = rows
    slopes = np.linspace(0.2, 1.5, 326)
    losses = [log_loss(y, task.scores(slope * logits)) for slope in slopes]
    found = Calibration.fit("temperature", task, logits, y)
    assert found.slope[0] == pytest.approx(slopes[np.argmin(losses)], rel=0.01)
    assert len(set(found.slope)) == 1
    assert set(found.offset) == {0.0}


def test_a_sigmoid_finds_what_each_class_is_off_by() -> None:
    logits, y = off_four(40_000)
    found = Calibration.fit("sigmoid", FOUR, logits, y)
    np.testing.assert_allclose(found.slope, [0.5, 1, 1.5, 0.8], atol=0.06)
    offset = np.array(found.offset)  # known but for a number that all classes share
    np.testing.assert_allclose(offset - offset.mean(), [0, 0.5, -0.5, 0], atol=0.06)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("task", "rows"), [(TWO, off_two(8000)), (FOUR, off_four())], ids=["two", "four"])
def test_probabilities_become_better_on_rows_that_were_not_fitted(kind: Any, task: Task, rows: Any) -> None:
    logits, y, half = 1.5 * rows[0], rows[1], len(rows[1]) // 2
    found = Calibration.fit(kind, task, logits[:half], y[:half])
    before, after = task.scores(logits[half:]), told(found, task, logits[half:])
    np.testing.assert_allclose(after.sum(1), 1, rtol=0, atol=1e-12)
    assert log_loss(y[half:], after) < log_loss(y[half:], before) - 0.01
    hits = [(shares.argmax(1) == y[half:], shares.max(1)) for shares in (before, after)]
    assert calibration_error(*hits[1]) < 0.7 * calibration_error(*hits[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("task", "rows"), [(TWO, off_two(300)), (FOUR, off_four(300))], ids=["two", "four"])
def test_a_weight_is_that_many_rows_and_its_unit_means_nothing(kind: Any, task: Task, rows: Any) -> None:
    logits, y = rows
    wrong = task.decide(logits, 0.5) != y  # more of them make the model less sure
    times = np.random.default_rng(2).integers(0, 3, len(y)) * np.where(wrong, 2, 1)
    new = np.random.default_rng(3).normal(0, 2, (50, logits.shape[1]))
    weighted = told(Calibration.fit(kind, task, logits, y, times * 1.0), task, new)
    repeated = told(Calibration.fit(kind, task, logits.repeat(times, 0), y.repeat(times)), task, new)
    scaled = told(Calibration.fit(kind, task, logits, y, times * 1e-3), task, new)
    # A weight of mean 1 has as many rows' trust as there are rows, so Platt's targets differ a little.
    np.testing.assert_allclose(weighted, repeated, rtol=0, atol=0.03)
    np.testing.assert_allclose(weighted, scaled, rtol=0, atol=1e-9)
    assert np.abs(weighted - told(Calibration.fit(kind, task, logits, y), task, new)).max() > 0.02
    counting = times > 0
    alone = Calibration.fit(kind, task, logits[counting], y[counting], times[counting])
    np.testing.assert_array_equal(told(alone, task, new), weighted)
    assert alone.rows == counting.sum()


@st.composite
def some_rows(draw: st.DrawFn) -> tuple[Task, Floats, np.ndarray[Any, Any]]:
    """Return a task, few logits of it, with ties, and classes of at least two kinds that need not go with them."""
    task = draw(st.sampled_from([TWO, FOUR]))
    rows = draw(st.integers(2, 30))
    number = st.integers(-40, 40).map(lambda n: n / 4)
    logits = draw(st.lists(st.lists(number, min_size=len(task.outputs), max_size=len(task.outputs)), min_size=rows,
                           max_size=rows))  # fmt: skip
    y = draw(st.lists(st.integers(0, len(task.classes) - 1), min_size=rows, max_size=rows))
    if len(set(y)) == 1:
        y[0] = (y[0] + 1) % len(task.classes)
    return task, np.array(logits, np.float64), np.array(y)


@settings(deadline=None, max_examples=60)
@given(some_rows(), st.integers(0, 10_000))
def test_a_temperature_changes_no_decision(rows: tuple[Task, Floats, Any], seed: int) -> None:
    task, logits, y = rows
    found = Calibration.fit("temperature", task, logits, y)
    assert found.slope[0] > 0
    for new in (logits, np.random.default_rng(seed).normal(0, 3, (50, len(task.outputs)))):
        before = task.decide(new, 0.5)
        np.testing.assert_array_equal(task.decide(found.slope[0] * new, 0.5), before)
        clear = np.sort(new, axis=1)[:, -1] > np.sort(new, axis=1)[:, -2] if task is FOUR else new[:, 0] != 0
        np.testing.assert_array_equal(told(found, task, new).argmax(1)[clear], before[clear])


@settings(deadline=None, max_examples=60)
@given(some_rows(), st.sampled_from(KINDS))
def test_a_larger_logit_never_gets_a_smaller_probability(rows: tuple[Task, Floats, Any], kind: Any) -> None:
    task, logits, y = rows
    found = Calibration.fit(kind, task, logits, y)
    for output in range(len(task.outputs)):
        rising = np.repeat(logits[:1], 200, axis=0)
        rising[:, output] = np.linspace(-15, 15, 200)
        shares = told(found, task, rising)
        assert (np.diff(shares[:, output + len(task.classes) - len(task.outputs)]) >= -1e-15).all()
        assert np.isfinite(np.log(shares)).all()  # a mistake has a finite loss


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_all_told_apart_make_nothing_certain(kind: Any) -> None:
    logits = np.array([[-3.0], [-2.0], [2.0], [3.0]])
    shares = told(Calibration.fit(kind, TWO, logits, np.array([0, 0, 1, 1])), TWO, logits)
    np.testing.assert_allclose(shares[:, 1], [0.2, 0.2, 0.8, 0.8], atol=0.12)


def test_logits_that_say_nothing_are_left_and_wrong_ones_are_not_turned_round() -> None:
    rng = np.random.default_rng(5)
    y = rng.integers(0, 2, 400)
    assert Calibration.fit("temperature", TWO, np.zeros((400, 1)), y).slope == (1.0,)
    against = Calibration.fit("sigmoid", TWO, -2.0 * y[:, None] + rng.normal(0, 0.1, (400, 1)), y)
    assert 0 < against.slope[0] < 0.01
    assert TWO.scores(np.array([against.offset]))[0, 1] == pytest.approx(y.mean(), abs=0.01)


def test_without_what_it_needs_nothing_is_fitted() -> None:
    logits, y = off_two(20)
    with pytest.raises(ConfigError, match="'calibrate' is 'sigmoid', but a regression has no probabilities"):
        Calibration.fit("sigmoid", Regression("y"), logits, y * 1.0)
    with pytest.raises(
        ConfigError, match=r"'isotonic', but there are no validation rows .*--valid 0.1; in Python eval_"
    ):
        Calibration.fit("isotonic", TWO, logits, y, np.zeros(20))
    with pytest.raises(ConfigError, match="all validation rows are of the class 'yes': give some of the others"):
        Calibration.fit("temperature", TWO, logits, np.ones(20, np.int64))
    assert Calibration.fit("none", Regression("y"), logits, y) == Calibration()


def test_by_itself_a_temperature_is_taken_where_it_gains_more_than_chance_would() -> None:
    logits, y = off_two()
    assert Calibration.fit("auto", TWO, logits, y) == Calibration.fit("temperature", TWO, logits, y)
    rng, taken = np.random.default_rng(4), 0
    for _ in range(200):  # of logits that need none: a gain of 2 nats is a chi-squared number above 4, of chance .046
        right = rng.normal(0, 2, (500, 1))
        taken += Calibration.fit("auto", TWO, right, drawn(right, TWO, rng)).kind != "none"
    assert 2 <= taken <= 20
    few = slice(0, 8)
    assert Calibration.fit("temperature", TWO, logits[few], y[few]).kind == "temperature"
    assert Calibration.fit("auto", TWO, logits[few], y[few]).kind == "none"


def test_by_itself_nothing_is_said_where_nothing_can_be_calibrated() -> None:
    logits, y = off_two(20)
    for task, target, weight in (
        (Regression("y"), y * 1.0, None),
        (TWO, y, np.zeros(20)),
        (TWO, np.ones(20, np.int64), None),
    ):
        assert Calibration.fit("auto", task, logits, target, weight) == Calibration()


def calibrated(task: str, kind: Any, **options: Any) -> tuple[Model, Model]:
    """Return an untrained model, and the same calibrated by random labels."""
    plain, made = model_of(task, background=False, **options), model_of(task, background=False, **options)
    rows = source(options.get("table"))
    logits = plain.logits(rows)
    y = np.random.default_rng(0).integers(0, len(plain.task.classes), len(logits))
    found = Calibration.fit(kind, plain.task, logits, y)
    found.fold_into(made.module)
    return plain, replace(made, calibration=found)


@pytest.mark.parametrize("kind", ["temperature", "sigmoid"])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("preset", ["nested", "fm", "linear"])
def test_every_effect_is_multiplied_and_the_base_gets_the_offset(task: str, kind: Any, preset: Any) -> None:
    plain, made = calibrated(task, kind, preset=preset)
    assert made.calibration.is_in(made.module)
    assert not made.calibration.is_in(plain.module)
    slope, offset = np.array(made.calibration.slope), np.array(made.calibration.offset)
    assert np.abs(slope - 1).max() > 0.01
    before, after = (Explainer(one, view="raw").of_rows(source(), None) for one in (plain, made))
    np.testing.assert_allclose(after.base, slope * before.base + offset, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after.main, slope * before.main, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after.pair, slope * before.pair, rtol=1e-5, atol=1e-6)
    logits = made.logits(source())
    np.testing.assert_allclose(after.logits, logits, rtol=1e-5, atol=1e-5 * np.abs(logits).max())
    np.testing.assert_allclose(made.scorer.predict(next(made.encode(source())).batch), logits, rtol=1e-4, atol=1e-4)
    shares = plain.task.scores(slope * plain.logits(source()) + offset)
    np.testing.assert_allclose(made.predict_proba(source()), shares, rtol=0, atol=1e-5)
    assert (after.unit, made.task.unit) == ("logit", "logit")


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_by_curves_the_account_is_of_the_uncalibrated_logit_and_says_so(task: str) -> None:
    plain, made = calibrated(task, "isotonic")
    before, after = (Explainer(one, view="raw").of_rows(source(), None) for one in (plain, made))
    np.testing.assert_array_equal(after.values, before.values)
    np.testing.assert_array_equal(made.logits(source()), plain.logits(source()))
    assert after.unit == "uncalibrated logit"
    assert after.to_dict()["unit"] == "uncalibrated logit"
    assert set(after.to_arrow().column_names) == set(before.to_arrow().column_names)
    sentence = made.task.sentence(after.logits[0], 0.5)
    output = 0 if task == "multiclass" else 1
    assert f"{made.predict_proba(source())[0, output]:.4f}" in sentence
    assert "uncalibrated logit" in sentence
    assert np.abs(made.predict_proba(source()) - plain.predict_proba(source())).max() > 0.05


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_run_folder_keeps_it(task: str, kind: Any, tmp_path: Path) -> None:
    _, made = calibrated(task, kind)
    again = load_model(save_model(made, tmp_path / "run"))
    assert again.calibration == made.calibration
    np.testing.assert_array_equal(again.predict_proba(source()), made.predict_proba(source()))
    np.testing.assert_array_equal(again.predict(source()), made.predict(source()))


def test_a_folder_of_a_model_that_is_not_calibrated_has_no_word_of_it(tmp_path: Path) -> None:
    made = model_of("binary", background=False)
    folder = save_model(made, tmp_path / "run")
    assert not (folder / "calibration.json").exists()
    assert load_model(folder).calibration == Calibration()


def rewritten(folder: Path, values: dict[str, Any]) -> None:
    """Write another calibration into a run folder, checksum included."""
    from attfm.files import sha256

    (folder / "calibration.json").write_text(json.dumps(values))
    config = json.loads((folder / "config.json").read_text())
    config["sha256"]["calibration.json"] = sha256(folder / "calibration.json")
    (folder / "config.json").write_text(json.dumps(config))


RISING = {"logits": [0.0, 1.0], "probabilities": [0.2, 0.8]}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"kind": "temperature", "rows": 9, "slope": [2.0], "offset": [0.0]}, "is of another model"),
        ({"kind": "isotonic", "rows": 9, "curves": [RISING, RISING]}, "is of another model"),
        ({"kind": "temperature", "rows": 9, "slope": [-2.0], "offset": [0.0]}, "slopes that are not above 0"),
        ({"kind": "temperature", "rows": 9, "slope": [float("nan")], "offset": [0.0]}, "finite"),
        ({"kind": "temperature", "rows": 9}, "'temperature' has other parameters"),
        ({"kind": "isotonic", "rows": 9, "curves": [{**RISING, "logits": [1.0, 1.0]}]}, "do not rise"),
        ({"kind": "isotonic", "rows": 9, "curves": [{**RISING, "probabilities": [0.8, 0.2]}]}, "do not rise"),
        ({"kind": "isotonic", "rows": 9, "curves": [{**RISING, "probabilities": [0.2, 1.0]}]}, "do not rise"),
        ({"kind": "isotonic", "rows": 9, "curves": [{**RISING, "probabilities": [0.2]}]}, "do not rise"),
        ({"kind": "magic", "rows": 9}, "'none', 'temperature'"),
    ],
)
def test_a_damaged_calibration_is_not_taken(values: dict[str, Any], reason: str, tmp_path: Path) -> None:
    _, made = calibrated("binary", "temperature")
    folder = save_model(made, tmp_path / "run")
    rewritten(folder, values)
    with pytest.raises(RunFolderError, match=f"is damaged .*{reason}"):
        load_model(folder)


def test_a_calibration_that_was_changed_or_lost_is_noticed(tmp_path: Path) -> None:
    _, made = calibrated("binary", "isotonic")
    folder = save_model(made, tmp_path / "run")
    lost = Path(shutil.copytree(folder, tmp_path / "lost"))
    text = (folder / "calibration.json").read_text()
    (folder / "calibration.json").write_text(text.replace('"rows":', '"rows" :'))
    with pytest.raises(RunFolderError, match=r"'calibration.json' in .* is not what was saved"):
        load_model(folder)
    (lost / "calibration.json").unlink()
    with pytest.raises(RunFolderError, match=r"lacks 'calibration.json'"):
        load_model(lost)


def test_a_curve_is_level_outside_of_its_points() -> None:
    curve = Curve.model_validate(RISING)
    np.testing.assert_allclose(curve.at(np.array([-9.0, 0.0, 0.5, 1.0, 9.0])), [0.2, 0.2, 0.5, 0.8, 0.8])


def test_what_is_said_of_it() -> None:
    logits, y = off_two(100)
    said = {kind: str(Calibration.fit(kind, TWO, logits, y)) for kind in ("none", *KINDS)}
    assert said["none"] == "none"
    assert said["temperature"].startswith("temperature: logits times 0.")
    assert said["sigmoid"].endswith("by 100 validation rows")
    assert "effects are of the uncalibrated logit" in said["isotonic"]
    assert "an offset for each class" in str(Calibration.fit("sigmoid", FOUR, *off_four(100)))


def test_the_setting_has_a_name_for_none() -> None:
    assert Config.parse({"train": {"calibrate": None}}).train.calibrate == "none"  # --set calibrate=none
    with pytest.raises(ConfigError, match=r"'calibrate' in section \[train\] of the settings is 'platt': .*'isotonic'"):
        Config.parse({"train": {"calibrate": "platt"}})


def test_an_uncalibrated_module_is_left_alone() -> None:
    made = model_of("binary", background=False)
    before = {name: tensor.clone() for name, tensor in made.module.state_dict().items()}
    Calibration().fold_into(made.module)
    for name, tensor in made.module.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert Calibration().is_in(made.module)
    assert pa.table({"p": made.predict_proba(source())[:, 1]}).num_rows == len(made.logits(source()))
