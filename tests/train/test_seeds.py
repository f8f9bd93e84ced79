"""Several models trained on all rows, each from a seed of its own: how many, their mean, and what it does not say."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attfm import AFMClassifier, AFMRegressor, load
from attfm.config import Config
from attfm.data.cache import CachedDataset
from attfm.errors import ConfigError, DataWarning
from attfm.model.ensemble import Ensemble, members_of
from attfm.model.modules import FactorizationMachine
from attfm.model.task import Regression
from attfm.train import refit
from attfm.train.fit import Fitted, fit
from attfm.train.observer import Epoch, Observer
from attfm.train.prepare import Prepared
from attfm.train.seeds import seeds_for
from attfm.train.trainer import History
from tests.train.test_all_rows import config, parts, parts_of, run, tables  # noqa: F401
from tests.train.test_statistics import estimator, labels, shop


def first_rows(fitted: Fitted) -> Any:
    """Return the validation rows, encoded."""
    valid = fitted.prepared.data.valid
    assert valid is not None
    (part,) = valid.ordered()
    return part.rows


def began_at(machines: Sequence[FactorizationMachine], before: Sequence[torch.Tensor]) -> list[int]:
    """Return of each machine the number of the embeddings that it is nearest to, from which it has moved."""
    nearest = []
    for machine in machines:
        distances = [float((machine.embedding.weight[: len(old)] - old).detach().norm()) for old in before]
        assert min(distances) > 0
        nearest.append(int(np.argmin(distances)))
    return nearest


def test_the_model_is_the_mean_of_the_seeds_and_the_first_is_that_of_one_seed() -> None:
    one, three = run(config()), run(config(n_seeds=3))
    module, rows = three.model.module, first_rows(three)
    assert isinstance(module, Ensemble)
    first, second, third = (machine.predict(rows) for machine in module.machines)
    torch.testing.assert_close(module.predict(rows), (first + second + third) / 3)
    torch.testing.assert_close(first, one.model.module.predict(rows), rtol=0, atol=0)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    facts = three.model.facts
    assert (facts.seeds, facts.models, facts.training_rows) == (3, 1, 160)
    assert (one.model.facts.seeds, one.model.facts.models) == (None, 1)


def test_auto_asks_what_they_cost() -> None:
    prepared = parts_of()
    regression = replace(prepared, data=replace(prepared.data, task=Regression("y")))

    def seeds(best: int, epochs: int, *, all_rows: bool, of: Prepared = prepared, setting: object = "auto") -> int:
        asked, history = config(n_seeds=setting, n_models="auto"), History(best_epoch=best)
        return seeds_for(of, asked, history, epochs * 120, all_rows=all_rows)

    # 160 rows for `best` epochs, once in two thirds of 120 rows for `epochs` epochs, and all in twice these
    assert [seeds(best, 10, all_rows=True) for best in (1, 5, 6, 12)] == [3, 3, 1, 1]
    assert [seeds(best, 10, all_rows=True, of=regression) for best in (1, 3, 4, 5, 6)] == [5, 5, 3, 3, 1]
    # 120 rows, and the first is there
    assert [seeds(best, 10, all_rows=False) for best in (1, 6, 7, 9)] == [3, 3, 1, 1]
    assert [seeds(best, 10, all_rows=False, of=regression) for best in (5, 6, 7)] == [5, 4, 1]
    assert seeds(12, 10, all_rows=True, setting=5) == seeds(9, 10, all_rows=False, setting=5) == 5
    asked = Config.parse({"train": {"n_models": 1}})
    assert seeds_for(prepared, asked, History(best_epoch=1), 1200, all_rows=False) == 1


def test_rows_from_disk_get_one(tmp_path: Path) -> None:
    prepared = parts_of()
    from_disk = CachedDataset.__new__(CachedDataset)
    history = History(best_epoch=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CachedDataset, "__len__", lambda _: 120)
        cached = replace(prepared, data=replace(prepared.data, train=from_disk))
        assert seeds_for(cached, config(n_seeds="auto", n_models="auto"), history, 1200, all_rows=False) == 1
        assert seeds_for(cached, config(n_seeds=2), history, 1200, all_rows=False) == 2


def test_validation_rows_that_were_given_teach_no_seed(parts: list[tuple[Prepared, Config]]) -> None:  # noqa: F811
    one = run(config(refit="auto", n_seeds=1), own_valid=True)
    parts.clear()
    two = run(config(refit="auto", n_seeds=2), own_valid=True)
    (first, _), (second, settings) = parts
    assert first.data.valid is not None
    assert second.data.valid is None
    assert len(second.data.train) == len(first.data.train) == 120
    assert settings.train.epochs == two.trained.histories[0].best_epoch
    rows = first_rows(two)
    machines = members_of(two.model.module)
    torch.testing.assert_close(machines[0].predict(rows), one.model.module.predict(rows), rtol=0, atol=0)
    assert two.trained.before is None  # all of them may be judged by the validation rows
    assert (two.model.facts.seeds, two.model.facts.refit_epochs, two.model.facts.training_rows) == (2, None, 120)


def test_rows_by_the_million_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attfm.train.seeds.MOST_ROWS", 159)
    prepared, history = parts_of(), History(best_epoch=1)
    assert seeds_for(prepared, config(n_seeds="auto", n_models="auto"), history, 10 * 120, all_rows=True) == 1
    assert seeds_for(prepared, config(n_seeds="auto", n_models="auto"), history, 10 * 120, all_rows=False) == 3


def test_the_seeds_are_told_of_and_may_be_stopped() -> None:
    class Watcher(Observer):
        def __init__(self) -> None:
            self.told: list[tuple[int, int]] = []

        def on_seed(self, number: int, seeds: int) -> None:
            self.told.append((number, seeds))

        def on_epoch(self, epoch: Epoch, module: FactorizationMachine) -> bool:
            return len(self.told) == 2

    watcher = Watcher()
    fitted = run(config(n_seeds=4), watcher)
    assert watcher.told == [(1, 4), (2, 4)]
    assert fitted.model.facts.seeds == len(members_of(fitted.model.module)) == 2


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_effects_add_up_and_seeds_are_no_standard_error(task: str, tmp_path: Path) -> None:
    frame, score = shop(900)
    settings = {"n_models": 1, "refit": True, "n_seeds": 2, "epochs": 3}
    model = estimator(task, **settings).fit(frame, labels(task, score))
    model.save(tmp_path / "run")
    saved = load(tmp_path / "run")
    np.testing.assert_array_equal(saved.predict(frame), model.predict(frame))
    for of in (model, saved):
        assert len(members_of(of.model_.module)) == 2
        explanation = of.explain(frame[:50])
        np.testing.assert_allclose(explanation.logits, of.model_.logits(frame[:50]), atol=1e-5)
        assert explanation.spread is None
        assert all(effect.spread is None for effect in of.explain_global().importance())


def test_a_model_of_seeds_learns_on_as_one() -> None:
    frame, score = shop(1200)
    y = labels("binary", score)
    settings = {"n_models": 1, "refit": True, "n_seeds": 2, "epochs": 3}
    model = AFMClassifier(**settings).fit(frame[:900], y[:900])
    before = [machine.embedding.weight.clone() for machine in members_of(model.model_.module)]
    for rows in (slice(900, 1200), slice(900, 905)):  # by validation rows of their own, and too few for that
        again = AFMClassifier(**settings)
        again._take(model.model_, model.classes_)
        again.partial_fit(frame[rows], y[rows])
        module = again.model_.module
        assert isinstance(module, Ensemble)
        assert not module.cross_fitted
        assert (again.model_.facts.seeds, again.model_.facts.models) == (2, 1)
        assert began_at(module.machines, before) == [0, 1]
        explanation = again.explain(frame[:20])
        np.testing.assert_allclose(explanation.logits, again.model_.logits(frame[:20]), atol=1e-5)
    with pytest.raises(ConfigError, match="'n_seeds' is 1, but the model was trained with 2"):
        model.set_params(n_seeds=1).partial_fit(frame[900:], y[900:])


def test_where_all_rows_are_not_learned_in_the_end_each_learns_on_by_the_validation_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frame, score = shop(1200)
    settings = {"n_models": 1, "refit": True, "n_seeds": 2, "epochs": 3}
    model = AFMRegressor(**settings).fit(frame[:900], score[:900])
    before = members_of(model.model_.module)
    monkeypatch.setattr(refit, "learns_from_all", lambda *_: False)
    model.partial_fit(frame[900:], score[900:])
    after = members_of(model.model_.module)
    assert model.model_.facts.seeds == 2
    assert model.model_.facts.refit_epochs is None
    assert len(model.model_.history) == 2 * len([r for r in model.model_.history if r["model"] == 1])
    assert began_at(after, [machine.embedding.weight for machine in before]) == [0, 1]


def test_calibration_reaches_all_seeds() -> None:
    settings = config(n_seeds=2, calibrate="temperature")
    fitted = fit(tables(), settings, None, measured=True)
    calibration = fitted.model.calibration
    assert calibration.kind == "temperature"
    assert all(calibration.is_in(machine) for machine in members_of(fitted.model.module))


def test_seeds_that_are_asked_for_beside_folds_are_told_to_be_left_out() -> None:
    frame, score = shop(600)
    settings = {"n_models": 2, "n_seeds": 3, "epochs": 2}
    with pytest.warns(DataWarning, match="n_seeds=3 is left out: 2 models are cross-fitted"):
        model = AFMClassifier(**settings).fit(frame, labels("binary", score))
    assert (model.model_.facts.models, model.model_.facts.seeds) == (2, None)
