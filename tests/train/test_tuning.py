"""Tuning: trials that go on where they stopped, and a model that has the best one's settings."""

import importlib.util
import inspect
import re
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from attfm import AFMClassifier, AFMRegressor, cli, load
from attfm.config import Config
from attfm.data.inference import infer_schema
from attfm.data.sources.source import open_source
from attfm.data.split import Split
from attfm.errors import ConfigError, MissingExtraError, TrainingError
from attfm.model.facts import TuningFacts
from attfm.train import study as studies
from attfm.train import tuning
from attfm.train.fit import Fitted
from attfm.train.inner_choice import suited
from attfm.train.observer import Observer
from attfm.train.prepare import LabelledTable, Prepared, Tables, prepare
from attfm.train.refit import train_module
from attfm.train.statistics import enrich
from attfm.train.study import study_id
from attfm.train.trainer import Trainer
from attfm.train.tuning import DEFAULT_TRIALS, SPACE, Search, fit_tuned, tune, with_settings
from attfm.train.tuning_progress import TuningProgress

needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="optuna is not installed")
SETTINGS: dict[str, dict[str, Any]] = {
    "model": {"dim": 2, "attention_dim": 2},
    "train": {"epochs": 3, "learning_rate": 0.05, "task": "binary"},
}
GIVEN = ("dim", "learning_rate")  # what is left is quick, and differs


def shop(rows: int = 120, seed: int = 0) -> tuple[pa.Table, list[str]]:
    rng = np.random.default_rng(seed)
    age, job = rng.integers(18, 80, rows).astype(float), rng.integers(0, 4, rows)
    bought = age / 10 + job + rng.normal(0, 2, rows) > 6
    return pa.table({"age": age, "job": [f"job {j}" for j in job]}), ["yes" if b else "no" for b in bought]


def tables(rows: int = 120, *, target: str = "bought", valid: int = 40, seed: int = 0, **labels: Any) -> Tables:
    table, bought = shop(rows, seed)
    source = open_source(table)
    schema = infer_schema(source.batches(), source.schema, target=None, config=Config().data)
    labelled = LabelledTable(source, pa.chunked_array([pa.array(labels.get("labels", bought))]))
    return Tables(labelled, schema, target, Split(valid=np.arange(valid) if valid else None))


def config(**train: Any) -> Config:
    return Config.parse({**SETTINGS, "train": {**SETTINGS["train"], **train}})


def prepared(**options: Any) -> Prepared:
    return prepare(tables(**options), config())


def quiet() -> TuningProgress:
    return TuningProgress(3, show=False)


def run(trials: int, path: Path | None = None, *, given: tuple[str, ...] = GIVEN, **train: Any) -> Fitted:
    return fit_tuned(tables(), config(**train), Search(trials, path, given), quiet())


def facts_of(fitted: Fitted) -> TuningFacts:
    assert fitted.model.facts.tuning is not None
    return fitted.model.facts.tuning


def trials_of(path: Path) -> list[Any]:
    """Return all trials of a study, as Optuna reads them."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    try:
        return optuna.load_study(study_name="attfm", storage=storage).get_trials()
    finally:
        storage.engine.dispose()
        optuna.logging.set_verbosity(before)


def states(path: Path) -> list[str]:
    return [trial.state.name for trial in trials_of(path)]


class Interrupting(TuningProgress):
    """Interrupts in the second epoch of a trial."""

    def __init__(self, number: int) -> None:
        super().__init__(3, show=False)
        self._number, self._trial = number, 0

    def on_trial(self, number: int, trials: int) -> None:
        self._trial = number

    def on_epoch(self, epoch: Any, module: Any) -> bool:
        if self._trial == self._number and epoch.epoch == 2:
            raise KeyboardInterrupt
        return False


@needs_optuna
def test_the_first_trial_of_a_plain_fm_has_its_own_ridge() -> None:
    as_fm = Config.parse({**SETTINGS, "model": {**SETTINGS["model"], "preset": "fm"}})
    facts = facts_of(fit_tuned(tables(), as_fm, Search(1, None, GIVEN), quiet()))
    assert facts.as_given["embedding_ridge"] == 10.0


@needs_optuna
def test_the_best_trial_is_refitted_with_its_settings_and_gives_its_loss() -> None:
    fitted = run(8)
    facts = facts_of(fitted)
    assert facts.trials == 8
    assert set(facts.settings) == {place.name for place in SPACE} - set(GIVEN)
    kept = fitted.model.history[int(fitted.model.facts.best_epoch or 0) - 1]
    assert kept["valid_loss"] == facts.validation_loss
    dumped = fitted.model.config.model_dump()
    assert {name: ({**dumped["model"], **dumped["train"]})[name] for name in facts.settings} == facts.settings
    assert fitted.model.config.model.dim == 2  # given
    assert facts.as_given == {
        "batch_size": 16, "weight_dropout": 0.4,
        "embedding_ridge": 10.0, "linear_ridge": 2.0, "memory_ridge": 10.0, "smoothness": 100.0,
    }  # fmt: skip
    assert facts.as_given_loss is not None
    assert facts.validation_loss < facts.as_given_loss
    assert sum(facts.importance.values()) == pytest.approx(1, abs=1e-3)
    assert list(facts.importance.values()) == sorted(facts.importance.values(), reverse=True)


@needs_optuna
def test_the_first_trial_has_the_settings_as_they_are_given() -> None:
    facts, (_, plain) = facts_of(run(1)), train_module(prepared(), suited(prepared(), config()), Observer())
    assert facts.settings == facts.as_given
    assert facts.validation_loss == plain.epochs[plain.best_epoch - 1].valid_loss
    assert facts.importance == {}  # of one trial there is nothing to say


@needs_optuna
def test_an_interrupted_study_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.db", tmp_path / "broken.db"
    run(6, whole)
    for number in (1, 4):
        with pytest.raises(KeyboardInterrupt):
            fit_tuned(tables(), config(), Search(6, broken, GIVEN), Interrupting(number))
    assert states(broken) == ["COMPLETE"] * 3
    facts = facts_of(run(6, broken))
    assert facts.trials == 6
    tried = {path: [t for t in trials_of(path) if t.state.name == "COMPLETE"] for path in (whole, broken)}
    assert len(tried[whole]) == 6
    assert [t.params for t in tried[broken]] == [t.params for t in tried[whole]]
    assert [t.value for t in tried[broken]] == [t.value for t in tried[whole]]
    assert len({str(t.params) for t in tried[whole]}) == 6  # each other settings


@needs_optuna
def test_a_study_that_has_its_trials_is_not_tried_further_and_one_that_wants_more_is(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    first = facts_of(run(3, path))
    assert facts_of(run(2, path)) == first
    assert len(states(path)) == 3
    more = facts_of(run(5, path))
    assert (more.trials, more.study) == (5, first.study)
    assert study_id(path) == first.study
    assert more.validation_loss <= first.validation_loss


@needs_optuna
def test_trials_that_are_worse_than_others_are_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(studies, "_NEVER_PRUNED", 0)
    monkeypatch.setattr(studies, "_BY_CHANCE", 2)
    path, later = tmp_path / "s.db", tmp_path / "later.db"
    facts = facts_of(run(12, path, epochs=6, patience=6))
    found = states(path)
    assert 0 < facts.pruned == found.count("PRUNED") < 12
    assert facts.trials == len(found) == 12
    given_up = [trial for trial in trials_of(path) if trial.state.name == "PRUNED"]
    assert all(1 <= len(trial.intermediate_values) < 6 for trial in given_up)
    assert found[facts.best_trial - 1] == "COMPLETE"
    for trials in (7, 12):  # those given up decide what is tried, and given up, next
        run(trials, later, epochs=6, patience=6)
    assert [(t.state, t.params) for t in trials_of(later)] == [(t.state, t.params) for t in trials_of(path)]


@needs_optuna
def test_trials_whose_loss_is_not_finite_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    train_module, runs = tuning.train_module, iter(range(100))

    def diverging(*arguments: Any, **options: Any) -> Any:
        if next(runs) in (0, 2):
            raise TrainingError("The loss became nan")
        return train_module(*arguments, **options)

    monkeypatch.setattr(tuning, "train_module", diverging)
    facts = tune(prepared(), config(), Search(4, None, GIVEN), quiet())[1]
    assert (facts.trials, facts.pruned, facts.as_given_loss) == (4, 2, None)
    assert facts.best_trial in (2, 4)
    runs = iter([0] * 9)
    with pytest.raises(TrainingError, match="None of 3 trials gave a finite validation loss"):
        tune(prepared(), config(), Search(3, None, GIVEN), quiet())


@needs_optuna
def test_the_rows_are_encoded_and_their_statistics_taken_once_for_all_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(what: Any) -> Any:
        def count(*arguments: Any) -> Any:
            calls.append(what.__name__)
            return what(*arguments)

        return count

    for what in (prepare, enrich):
        monkeypatch.setattr(tuning, what.__name__, counted(what))
    run(3)
    assert calls == ["prepare", "enrich"]
    monkeypatch.setattr(tuning, "enrich", lambda *_: None)  # what trials then train without
    without = tune(prepared(), config(), Search(1, None, GIVEN), quiet())[1]
    plain = train_module(prepared(), suited(prepared(), config()), Observer(), enriching=lambda *_: None)[1]
    assert without.validation_loss == plain.epochs[plain.best_epoch - 1].valid_loss


@needs_optuna
def test_test_rows_are_measured_once_and_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = replace(tables(), split=Split(valid=np.arange(40), test=np.arange(40, 60)))
    shuffled = replace(parts.table, labels=shuffled_at(parts.table.labels, np.arange(40, 60)))
    found = [
        fit_tuned(t, config(), Search(4, None, GIVEN), quiet(), measured=True)
        for t in (parts, replace(parts, table=shuffled))
    ]
    assert facts_of(found[0]).settings == facts_of(found[1]).settings
    assert found[0].model.metrics["valid"] == found[1].model.metrics["valid"]
    assert found[0].model.metrics["test"] != found[1].model.metrics["test"]


def shuffled_at(labels: pa.ChunkedArray, rows: Any) -> pa.ChunkedArray:
    """Return the labels with other ones in some rows."""
    values = np.array(labels.to_pylist())
    values[rows] = np.where(values[rows] == "yes", "no", "yes")
    return pa.chunked_array([pa.array(values.tolist())])


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a study of one trial, for tests that work on a copy."""
    path = tmp_path_factory.mktemp("tried") / "s.db"
    run(1, path)
    return path


@needs_optuna
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"target": "liked"}, "was made for the target 'bought', not 'liked': give another file"),
        ({"seed": 1}, "was made of other rows: another table, another split, or other weights: give another"),
        ({"valid": 30}, "was made of other rows"),
        ({"train": {"epochs": 4}}, "was made with epochs=3, not epochs=4"),
        ({"train": {"seed": 9}}, "was made with seed=0, not seed=9"),
        ({"given": ("dim",)}, "was made to tune 'batch_size', .* not 'learning_rate', "),
    ],
)
def test_a_study_of_something_else_is_refused(
    changed: dict[str, Any], message: str, tried: Path, tmp_path: Path
) -> None:
    path = Path(copy(tried, tmp_path))
    options = dict(changed)
    given, train = options.pop("given", GIVEN), options.pop("train", {})
    with pytest.raises(ConfigError, match=rf"The study '.*s\.db' {message}"):
        fit_tuned(tables(**options), config(**train), Search(2, path, given), quiet())
    assert len(states(path)) == 1


@needs_optuna
def test_settings_that_change_no_loss_may_differ(tried: Path, tmp_path: Path) -> None:
    path = Path(copy(tried, tmp_path))
    assert facts_of(run(2, path, threshold=0.3, device="cpu")).trials == 2


@needs_optuna
def test_files_that_are_no_study_are_refused_and_left_alone(tmp_path: Path) -> None:
    import sqlite3

    text, other = tmp_path / "notes.db", tmp_path / "other.db"
    text.write_text("mine")
    database = sqlite3.connect(other)
    database.execute("CREATE TABLE studies (study_name TEXT)")
    database.commit()
    database.close()
    for path in (text, other, tmp_path):
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(ConfigError, match=f"'{path}' is no study of attfm: give another file"):
            run(1, path)
        assert (path.read_bytes() if path.is_file() else b"") == before
    with pytest.raises(ConfigError, match=r"The study '.*absent/s\.db' can't be read or written \(.*unable to open"):
        run(1, tmp_path / "absent" / "s.db")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["notes.db", "other.db"]


@needs_optuna
def test_a_study_may_have_any_name(tmp_path: Path) -> None:
    for name in ("a b.db", "50%20?#&.db", "ä'\".study.db"):
        run(1, tmp_path / name)
        assert facts_of(run(2, tmp_path / name)).trials == 2
        assert (tmp_path / name).is_file()
    assert len(list(tmp_path.iterdir())) == 3


@needs_optuna
def test_optuna_is_quiet_and_heard_again_afterwards(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    run(2)
    run(2, tmp_path / "s.db")
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")


def test_the_defaults_lie_in_the_space() -> None:
    usual = Config().of_task("binary"), Config().of_task("regression")
    for values in ({**config.model.model_dump(), **config.train.model_dump()} for config in usual):
        _lie_in_the_space(values)
    assert with_settings(Config(), {"dim": 8}).model.dim == 8


def _lie_in_the_space(values: dict[str, Any]) -> None:
    for place in SPACE:
        at = place.for_rows(20_000)
        value = values[place.name] if place.usual is None else place.usual(20_000)
        assert at.low <= value <= at.high, place.name
        assert at.step is None or (value - at.low) % at.step == 0, place.name
        Config.parse(with_settings(Config(), {place.name: at.low}).model_dump())
        Config.parse(with_settings(Config(), {place.name: at.high}).model_dump())


@needs_optuna
def test_settings_without_effect_are_not_tuned() -> None:
    linear = Config.parse({"model": {"preset": "linear"}, "train": {"epochs": 1, "optimizer": "sgd"}})
    facts = tune(prepare(tables(), linear), linear, Search(1), quiet())[1]
    assert list(facts.settings) == ["learning_rate", "batch_size", "linear_ridge", "smoothness"]
    only_job = tables()
    source = open_source(shop()[0].select(["job"]))
    schema = infer_schema(source.batches(), source.schema, target=None, config=Config().data)
    only_job = replace(only_job, table=replace(only_job.table, source=source), schema=schema)
    facts = tune(prepare(only_job, config()), config(), Search(1, None, GIVEN), quiet())[1]
    assert list(facts.settings) == ["batch_size", "linear_ridge"]


def test_without_validation_rows_or_optuna_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="Tuning chooses by the loss of validation rows, and there are none"):
        tune(prepare(tables(valid=0), config(early_stopping=False)), config(), Search(1), quiet())
    with pytest.raises(ConfigError, match="All settings that could be tuned are given"):
        tune(prepared(), config(), Search(1, None, [place.name for place in SPACE]), quiet())
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"optuna is not installed: run 'pip install \"attfm\[tune\]\"'"):
        run(1)


@pytest.fixture
def data() -> tuple[pa.Table, list[str]]:
    return shop(200)


@needs_optuna
def test_an_estimator_gives_a_new_fitted_one(data: tuple[pa.Table, list[str]], tmp_path: Path) -> None:
    X, y = data
    start = AFMClassifier(dim=2, attention_dim=2, epochs=3, random_state=1)
    tuned = start.tune(X, y, trials=6, study=tmp_path / "s.db")
    assert type(tuned) is AFMClassifier
    assert not hasattr(start, "model_")
    assert start.get_params() == AFMClassifier(dim=2, attention_dim=2, epochs=3, random_state=1).get_params()
    facts = tuned.model_.facts.tuning
    assert facts is not None
    assert "dim" not in facts.settings  # it was not at its default
    assert {name: tuned.get_params()[name] for name in facts.settings} == facts.settings
    again = AFMClassifier(**tuned.get_params()).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), tuned.predict_proba(X))
    assert set(tuned.predict(X)) <= set(tuned.classes_) == {"no", "yes"}
    tuned.save(tmp_path / "run")
    loaded = load(tmp_path / "run")
    assert loaded.model_.facts.tuning == facts
    np.testing.assert_array_equal(loaded.predict_proba(X), tuned.predict_proba(X))
    more = start.tune(X, y, trials=7, study=str(tmp_path / "s.db")).model_.facts.tuning
    assert more is not None
    assert (more.trials, more.study) == (7, facts.study)


@needs_optuna
def test_the_class_tunes_from_its_defaults_and_eval_set_decides(
    data: tuple[pa.Table, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    init = Trainer.__init__

    def noted(self: Trainer, module: Any, data: Any, *rest: Any, **more: Any) -> None:
        seen.append((len(data.train), len(data.valid or ())))
        init(self, module, data, *rest, **more)

    monkeypatch.setattr(Trainer, "__init__", noted)
    X = data[0]
    amount = [float(age) for age in X["age"].to_pylist()]
    tuned = AFMRegressor.tune(
        X.select(["job"]), amount, eval_set=(X.slice(0, 50).select(["job"]), amount[:50]), trials=1
    )
    assert type(tuned) is AFMRegressor
    assert seen[:2] == [(200, 50)] * 2
    assert set(seen[2:]) <= {(200, 0)}  # models of other seeds, which eval_set teaches no more than it stops
    assert tuned.predict(X.select(["job"])).shape == (200,)


def test_bad_trials_are_told(data: tuple[pa.Table, list[str]]) -> None:
    for trials in (0, 2.5, "ten"):
        with pytest.raises(ConfigError, match=r"trials is .*: give a number of at least 1"):
            AFMClassifier().tune(*data, trials=trials)  # type: ignore[arg-type]


def test_command_and_estimators_try_as_often() -> None:
    defaults = [inspect.signature(of).parameters["trials"].default for of in (cli.tune, AFMClassifier.tune)]
    assert defaults == [DEFAULT_TRIALS, DEFAULT_TRIALS]


def test_the_docs_name_the_space() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert told == list(dict.fromkeys(place.name for place in SPACE))
    for place in SPACE:
        if place.usual is None and place.matters is not tuning._of_others:
            assert f"| `{place.name}` | {place.low:g} | {place.high:g} |" in page


@needs_optuna
def test_trials_are_one_model_each_and_the_best_settings_make_as_many_as_are_asked_for() -> None:
    for models in (1, 2):
        fitted = fit_tuned(tables(200), config(n_models=models), Search(2, None, GIVEN), quiet())
        assert fitted.model.facts.models == models
        assert facts_of(fitted).trials == 2
