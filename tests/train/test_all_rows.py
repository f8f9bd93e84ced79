"""One model trained again on training and validation rows: when, on which rows, and what judges it."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from attfm import AFMClassifier
from attfm.config import Config
from attfm.data.folds import Grouping
from attfm.data.inference import infer_schema
from attfm.data.sources.source import open_source
from attfm.data.split import Split
from attfm.errors import DataWarning
from attfm.model.modules import FactorizationMachine
from attfm.train import refit
from attfm.train.all_rows import for_epochs, learns_from_all
from attfm.train.fit import Fitted, fit, measure
from attfm.train.observer import Epoch, Observer
from attfm.train.prepare import LabelledTable, Prepared, Tables
from attfm.train.refit import refit_with_seeds
from attfm.train.trainer import History, choose_batch_size

ROWS = 200
SPLIT = Split(np.arange(0, 120), np.arange(120, 160), np.arange(160, ROWS))


def table() -> pa.Table:
    rng = np.random.default_rng(0)
    jobs = rng.choice(["cook", "clerk", "pilot"], ROWS).tolist()
    jobs[125] = "judge"  # in a validation row alone
    return pa.table({"job": jobs, "age": np.round(rng.normal(40, 9, ROWS))})


def tables(*, own_valid: bool = False, split: Split = SPLIT, weight: Any = None) -> Tables:
    source = open_source(table())
    target = np.random.default_rng(1).integers(0, 2, ROWS).tolist()
    schema = infer_schema(source.batches(), source.schema, target=None, config=Config().data)
    return Tables(LabelledTable(source, pa.chunked_array([pa.array(target)]), weight), schema, split=split,
                  own_valid=own_valid)  # fmt: skip


def config(**settings: Any) -> Config:
    train = {"epochs": 4, "n_models": 1, "refit": True, "n_seeds": 1, **settings}
    return Config.parse({"model": {"dim": 2, "attention_dim": 2}, "train": train})


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Prepared, Config]]:
    """Return a list to which rows and settings of each model that is trained are added."""
    real, seen = refit.train_module, list[tuple[Prepared, Config]]()

    def watched(prepared: Prepared, config: Config, observer: Observer, **more: Any) -> tuple[Any, History]:
        seen.append((prepared, config))
        return real(prepared, config, observer, **more)

    monkeypatch.setattr(refit, "train_module", watched)
    return seen


def run(config: Config, observer: Observer | None = None, **more: Any) -> Fitted:
    return fit(tables(**more), config, observer, measured=True)


def test_the_last_model_learns_from_both_parts_for_as_many_epochs_as_were_best(
    parts: list[tuple[Prepared, Config]],
) -> None:
    fitted = run(config())
    (first, _), (last, settings) = parts
    assert (len(first.data.train), len(first.data.valid or ())) == (120, 40)
    assert last.data.valid is None
    assert last.numbers.tolist() == list(range(160))
    (rows,) = last.data.train.ordered()
    (valid,) = first.data.valid.ordered()
    torch.testing.assert_close(rows.target[120:], valid.target)
    torch.testing.assert_close(rows.rows.ids[120:], valid.rows.ids)
    best = fitted.trained.histories[0].best_epoch
    assert (settings.train.epochs, settings.train.early_stopping) == (best, False)
    assert settings.train.batch_size == choose_batch_size("auto", 120)
    facts = fitted.model.facts
    assert (facts.refit_epochs, facts.training_rows, facts.validation_rows) == (best, 160, 40)
    assert fitted.model.module is fitted.trained.module
    assert fitted.trained.module is not fitted.trained.before


def test_its_steps_are_as_large_as_those_that_found_the_number_of_epochs() -> None:
    assert for_epochs(Config(), 4, 28_800).train.batch_size == 512 != choose_batch_size("auto", 36_000)
    given = Config.parse({"train": {"batch_size": 100}})
    assert for_epochs(given, 4, 28_800).train.batch_size == 100


@pytest.mark.parametrize(("best", "falls"), [(2, False), (3, True)])
def test_the_rate_falls_again_where_it_had_begun_to_fall_when_it_was_best(best: int, falls: bool) -> None:
    falling = Config.parse({"train": {"epochs": 4, "falling_rate": True}})
    assert for_epochs(falling, best, 900).train.falling_rate is falls
    assert for_epochs(Config(), best, 900).train.falling_rate is False


def test_a_value_of_validation_rows_alone_is_known_in_the_end() -> None:
    judge = pd.DataFrame({"job": ["judge"], "age": [40.0]})
    strange = pd.DataFrame({"job": ["fire eater"], "age": [40.0]})
    both = run(config()).model
    assert both.predict_proba(judge)[0, 1] != both.predict_proba(strange)[0, 1]
    one = run(config(refit=False)).model
    assert one.predict_proba(judge)[0, 1] == one.predict_proba(strange)[0, 1]


def test_validation_rows_are_measured_by_the_model_that_they_did_not_teach() -> None:
    fitted = run(config(epochs=30, patience=30, learning_rate=0.05))
    alone = run(config(epochs=30, patience=30, learning_rate=0.05, refit=False))
    valid, task = fitted.prepared.data.valid, fitted.prepared.data.task
    assert valid is not None
    before, after = (
        measure(module, valid, task, threshold=0.5) for module in (fitted.trained.before, fitted.trained.module)
    )
    assert fitted.model.metrics["valid"] == before != after
    # The encoder knows the values of all rows in one, and of training rows in the other.
    assert before["log_loss"] == pytest.approx(alone.model.metrics["valid"]["log_loss"], rel=0.05)
    assert fitted.model.metrics["test"] == measure(fitted.model.module, fitted.prepared.test, task, threshold=0.5)


@pytest.mark.parametrize(
    ("more", "settings"),
    [
        ({"own_valid": True}, {}),
        ({}, {"refit": False}),
        ({}, {"early_stopping": False}),
        ({"split": Split(np.arange(160), None, None)}, {"early_stopping": False}),
    ],
    ids=["rows that were asked for", "off", "no early stopping", "nothing held out"],
)
def test_there_is_one_fit(more: dict[str, Any], settings: dict[str, Any], parts: list[tuple[Prepared, Config]]) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", DataWarning)
        fitted = run(config(**settings), **more)
    assert ["validation rows were given" in str(one.message) for one in told] == (
        [True] if more.get("own_valid") else []
    )
    assert len(parts) == 1
    assert fitted.model.facts.refit_epochs is None
    assert fitted.trained.before is None


def test_auto_asks_what_it_costs() -> None:
    prepared = parts_of()

    def learns(best: int, epochs: int, setting: object = "auto") -> bool:
        history = History(epochs=[], best_epoch=best)
        return learns_from_all(prepared, config(refit=setting), history, epochs * 120)

    # 160 rows for `best` epochs, against two thirds of 120 rows for `epochs` epochs
    assert learns(5, 10)
    assert not learns(6, 10)
    assert learns(6, 10, True)
    assert not learns(5, 10, False)


def parts_of() -> Prepared:
    from attfm.train.prepare import prepare

    return prepare(tables(), config())


def test_a_training_that_was_stopped_by_its_watcher_is_not_repeated() -> None:
    class Impatient(Observer):
        def on_epoch(self, epoch: Epoch, module: FactorizationMachine) -> bool:
            return True

    assert run(config(), Impatient()).trained.before is None


def test_rows_without_weight_do_not_teach_in_the_end_either() -> None:
    weight = np.ones(ROWS)
    weight[[3, 130]] = 0
    fitted = run(config(), weight=weight)
    taught = fitted.trained.taught.numbers
    assert len(taught) == 158
    assert not set(taught) & {3, 130}


def test_times_and_groups_go_along() -> None:
    first, second = Grouping(times=np.array([1, 2]), column="day"), Grouping(times=np.array([5]), column="day")
    joined = first.joined(second)
    assert (joined.times.tolist(), joined.groups, joined.column) == ([1, 2, 5], None, "day")
    assert Grouping().joined(Grouping()).by_chance


def test_refits_with_other_seeds_are_of_the_same_rows(parts: list[tuple[Prepared, Config]]) -> None:
    model = run(config()).model
    parts.clear()
    refits = refit_with_seeds(model, tables(), 2)
    assert [len(prepared.data.train) for prepared, _ in parts] == [120, 160] * 2
    assert len(refits.modules) == 2


def test_bags_are_drawn_from_all_rows_and_know_their_epochs(parts: list[tuple[Prepared, Config]]) -> None:
    fitted = run(config(n_bags=2))
    bags = parts[2:]
    assert len(bags) == 2
    for prepared, settings in bags:
        assert prepared.data.valid is None
        assert settings.train.epochs == fitted.model.facts.refit_epochs
        weights = sum(float(part.weight.sum()) for part in prepared.data.train.ordered())
        assert weights == pytest.approx(160) or len(prepared.data.train) == 160


def test_a_bag_of_a_model_that_did_not_learn_from_all_rows_does_not_either(
    monkeypatch: pytest.MonkeyPatch, parts: list[tuple[Prepared, Config]]
) -> None:
    asked = iter([False, True, True])
    monkeypatch.setattr(refit, "learns_from_all", lambda prepared, *_: next(asked) and prepared.spare is not None)
    run(config(n_bags=2))
    assert [len(prepared.data.valid or ()) for prepared, _ in parts] == [40, 40, 40]


def test_rows_that_an_estimator_holds_out_teach_in_the_end_and_those_given_never() -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.choice(list("xyz"), 300), "b": rng.normal(size=300)})
    y = rng.integers(0, 2, 300)
    settings: dict[str, Any] = {"epochs": 3, "dim": 2, "attention_dim": 2, "refit": True}
    assert AFMClassifier(**settings).fit(X, y).model_.facts.training_rows == 300
    with pytest.warns(DataWarning, match="never teach"):
        given = AFMClassifier(**settings).fit(X[:200], y[:200], eval_set=(X[200:], y[200:]))
    assert given.model_.facts.training_rows == 200


def test_what_is_remembered_in_the_end_is_what_was_found_with_validation_rows() -> None:
    rng = np.random.default_rng(0)
    users, films, towns = rng.integers(0, 30, 1500), rng.integers(0, 25, 1500), rng.integers(0, 25, 1500)
    # All rows follow (user, film); training rows (user, town) too, and validation rows the contrary of that.
    known, odd = rng.normal(size=(30, 25)) * 2, rng.normal(size=(30, 25)) * 2
    sign = np.where(np.arange(1500) % 5 == 4, -1, 1)
    y = known[users, films] + sign * odd[users, towns] > 0
    X = pa.table({"user": users.astype(str), "film": films.astype(str), "town": towns.astype(str)})
    settings = config(epochs=2)
    source = open_source(X)
    schema = infer_schema(source.batches(), source.schema, target=None, config=settings.data)
    numbers = np.arange(1500)
    split = Split(numbers[sign > 0], numbers[sign < 0], None)
    given = Tables(LabelledTable(source, pa.chunked_array([pa.array(y)])), schema, split=split, own_valid=False)
    trained = fit(given, settings).trained
    before, after = (module.memory.pairs.tolist() for module in (trained.before, trained.module))
    assert before == after == [[0, 1]]
    assert len(trained.taught.data.train) == 1500
