"""Cross-fitted models: which rows teach, which stop, what is out of fold, and how many models there are."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import roc_auc_score

from attfm import AFMClassifier, AFMRegressor
from attfm.config import Config, ModelConfig
from attfm.data.batch import Batch
from attfm.data.folds import Grouping
from attfm.data.inference import infer_schema
from attfm.data.sources.source import open_source
from attfm.data.split import Split
from attfm.errors import ConfigError, DataWarning
from attfm.model.bundle import Model
from attfm.model.ensemble import Ensemble
from attfm.model.modules import FactorizationMachine
from attfm.model.run_folder import load_model
from attfm.model.terms import remembered_of
from attfm.train import refit
from attfm.train.fit import Fitted, fit
from attfm.train.model_count import choose_models, cut_into_folds
from attfm.train.observer import Epoch, Observer
from attfm.train.prepare import LabelledTable, Prepared, Tables

ROWS = 90
QUICK = {"model": {"dim": 2, "attention_dim": 2}, "train": {"epochs": 2, "n_models": 3}}


def table(rows: int = ROWS, *, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table({"job": rng.choice(["cook", "clerk", "pilot"], rows), "age": np.round(rng.normal(40, 9, rows))})


def labels(rows: int = ROWS, *, seed: int = 1) -> list[int]:
    return np.random.default_rng(seed).integers(0, 2, rows).tolist()


def run(
    target: list[Any], split: Split | None = None, *, own_valid: bool = True, weight: Any = None,
    observer: Observer | None = None, **settings: Any,
) -> Fitted:  # fmt: skip
    model = {name: settings.pop(name) for name in list(settings) if name in ModelConfig.model_fields}
    config = Config.parse({"model": {**QUICK["model"], **model}, "train": {**QUICK["train"], **settings}})
    source = open_source(table(len(target)))
    schema = infer_schema(source.batches(), source.schema, target=None, config=config.data)
    labelled = LabelledTable(source, pa.chunked_array([pa.array(target)]), weight)
    tables = Tables(labelled, schema, split=split or Split(), own_valid=own_valid)
    return fit(tables, config, observer, measured=True)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[Prepared]:
    """Return a list to which the rows of each model that is trained are added."""
    seen = list[Prepared]()
    real = refit.train_module

    def watched(prepared: Prepared, config: Config, observer: Observer) -> Any:
        seen.append(prepared)
        return real(prepared, config, observer)

    monkeypatch.setattr(refit, "train_module", watched)
    return seen


def encoded(model: Model, X: pa.Table) -> Batch:
    return Batch.concatenate([rows.batch for rows in model.encode(model.open(X))])


def numbers(dataset: Any) -> set[tuple[Any, ...]]:
    """Return what identifies rows of `table`, whose ages and jobs may repeat: all that is encoded, with the target."""
    return {(*ids, target) for part in dataset.ordered() for ids, target in zip(
        part.rows.ids.tolist(), part.target.tolist(), strict=True)}  # fmt: skip


def test_each_row_stops_one_model_and_teaches_all_others(parts: list[Prepared]) -> None:
    fitted = run(labels())
    assert [len(part.numbers) for part in parts] == [60, 60, 60]
    assert [len(part.data.train) for part in parts] == [60, 60, 60]
    assert [len(part.data.valid or ()) for part in parts] == [30, 30, 30]
    taught = np.bincount(np.concatenate([part.numbers for part in parts]), minlength=ROWS)
    assert (taught == 2).all()
    assert isinstance(fitted.model.module, Ensemble)
    facts = fitted.model.facts
    assert (facts.models, facts.training_rows, facts.validation_rows) == (3, ROWS, 0)
    shares = [np.mean([part.target.numpy().mean() for part in one.data.valid.ordered()]) for one in parts]
    assert np.ptp(shares) < 0.04  # stratified: a row of each class more or less


def test_out_of_fold_predictions_are_those_of_the_model_that_did_not_see_the_row() -> None:
    fitted = run(labels())
    out_of_fold, folds = fitted.trained.out_of_fold, fitted.prepared.folds
    assert out_of_fold is not None
    assert folds is not None
    (rows,) = fitted.prepared.data.train.ordered()
    each = torch.stack([machine.predict(rows.rows) for machine in fitted.model.module.machines])[..., 0]
    own = each[torch.from_numpy(folds.number), torch.arange(ROWS)]
    np.testing.assert_array_equal(out_of_fold[:, 0], own.double().numpy())
    other = each[torch.from_numpy((folds.number + 1) % 3), torch.arange(ROWS)]
    assert (own - other).abs().max() > 1e-3


def test_a_row_s_own_label_is_not_in_its_out_of_fold_prediction() -> None:
    # A regression, whose folds don't look at the target; without early stopping's choice of an epoch, which does.
    target = np.random.default_rng(3).normal(size=ROWS).tolist()
    # The strengths of a regression are chosen by a held-out fold too: here they are given.
    fixed = {"weight_dropout": 0.4, "smoothness": 100.0, "epochs": 1}
    fitted = run(target, task="regression", patience=9, **fixed)
    changed = [*target]
    changed[7] += 5.0
    again = run(changed, task="regression", patience=9, **fixed)
    fold = fitted.prepared.folds.number
    np.testing.assert_array_equal(again.prepared.folds.number, fold)
    best = [[history.best_epoch for history in one.trained.histories] for one in (fitted, again)]
    assert best[0][fold[7]] == best[1][fold[7]]
    assert again.trained.out_of_fold[7] == fitted.trained.out_of_fold[7]
    others = np.flatnonzero(fold != fold[7])
    assert (again.trained.out_of_fold[others] != fitted.trained.out_of_fold[others]).all()


def test_the_valid_metrics_are_out_of_fold_and_of_random_labels_say_nothing() -> None:
    fitted = run(labels(600), n_models=2)
    metrics = fitted.model.metrics
    assert list(metrics) == ["valid"]
    assert 0.42 < metrics["valid"]["auc"] < 0.58
    target = np.array(labels(600))
    p = 1 / (1 + np.exp(-fitted.trained.out_of_fold[:, 0]))
    expected = -np.mean(np.where(target == 1, np.log(p), np.log(1 - p)))
    assert metrics["valid"]["log_loss"] == pytest.approx(expected, rel=1e-5)


def test_validation_rows_nobody_asked_for_teach_and_those_asked_for_only_report(parts: list[Prepared]) -> None:
    valid, test = np.arange(0, 20), np.arange(20, 30)
    split = Split(np.arange(30, ROWS), valid, test)
    joined = run(labels(), split, own_valid=False)
    assert sorted({*np.concatenate([part.numbers for part in parts])}) == [*range(20), *range(30, ROWS)]
    assert list(joined.model.metrics) == ["valid", "test"]
    assert joined.prepared.data.valid is None
    parts.clear()
    kept = run(labels(), split)
    assert sorted({*np.concatenate([part.numbers for part in parts])}) == [*range(30, ROWS)]
    assert kept.model.facts.validation_rows == 20
    (valid_rows,) = kept.prepared.data.valid.ordered()
    assert len(valid_rows) == 20
    # A label of theirs changes nothing of the models.
    flipped = [1 - label if row < 20 else label for row, label in enumerate(labels())]
    again = run(flipped, split)
    np.testing.assert_array_equal(again.model.logits(table()), kept.model.logits(table()))
    assert again.model.metrics["valid"] != kept.model.metrics["valid"]


def test_rows_without_weight_are_in_no_fold_and_those_alone_in_their_class_teach_all_models(
    parts: list[Prepared],
) -> None:
    target = ["a", "b"] * 44 + ["a", "only once"]
    weight = np.ones(ROWS)
    weight[:6] = 0
    fitted = run(target, weight=weight)
    assert fitted.prepared.numbers.tolist() == [*range(6, ROWS)]
    assert [ROWS - 1 in part.numbers for part in parts] == [True] * 3
    assert np.isnan(fitted.trained.out_of_fold[-1]).all()
    assert np.isfinite(fitted.trained.out_of_fold[:-1]).all()


@pytest.mark.parametrize("kind", [AFMClassifier, AFMRegressor])
def test_the_estimator_tells_what_was_out_of_fold(kind: type) -> None:
    y = labels() if kind is AFMClassifier else np.random.default_rng(0).normal(50, 9, ROWS)
    weight = np.ones(ROWS)
    weight[[3, 40]] = 0
    model = kind(epochs=2, dim=2, attention_dim=2, n_models=3).fit(table(), y, sample_weight=weight)
    shape = (ROWS, 2) if kind is AFMClassifier else (ROWS,)
    assert model.oof_.shape == shape
    assert np.flatnonzero(np.isnan(model.oof_).reshape(ROWS, -1).any(1)).tolist() == [3, 40]
    if kind is AFMClassifier:
        np.testing.assert_allclose(np.delete(model.oof_, [3, 40], 0).sum(1), 1)
    else:
        assert 30 < np.nanmean(model.oof_) < 70  # in the target's unit
    assert {record["model"] for record in model.history_} == {1, 2, 3}
    single = kind(epochs=2, n_models=1).fit(table(), y)
    assert single.oof_ is None
    assert "model" not in single.history_[0]


def test_equal_seeds_give_equal_models_and_other_seeds_share_none() -> None:
    first, again, other = (run(labels(), seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(again.model.logits(table()), first.model.logits(table()))
    machines = [machine.embedding.weight for one in (first, other) for machine in one.model.module.machines]
    known = [weights[2:5] for weights in machines]  # of jobs, which all folds have
    assert all((known[a] != known[b]).any() for a in range(6) for b in range(a))


def test_a_request_to_stop_leaves_out_the_models_that_were_not_begun() -> None:
    class Impatient(Observer):
        epochs = 0

        def on_epoch(self, epoch: Epoch, module: FactorizationMachine) -> bool:
            self.epochs += 1
            return self.epochs == 3

    fitted = run(labels(), observer=Impatient())
    assert (fitted.model.facts.models, len(fitted.trained.histories[1].epochs)) == (2, 1)
    assert np.isfinite(fitted.trained.out_of_fold[:, 0]).sum() == 60


def test_bags_and_seeds_are_refits_of_all_models(parts: list[Prepared]) -> None:
    model = AFMClassifier(epochs=2, dim=2, attention_dim=2, n_models=2, n_bags=2)
    X, y = table(), labels()
    model.fit(X, y)
    assert len(parts) == 6  # two models, and of two samples two each
    for part in parts[2:]:
        taught, held_out = numbers(part.data.train), numbers(part.data.valid)
        assert len(taught | held_out) < len(numbers(parts[0].data.train) | numbers(parts[0].data.valid))
    stability = model.explain_global().stability()
    assert stability is not None
    assert stability.refits == 2
    parts.clear()
    checked = model.check_explanations(X, seeds=1, refit_on=(X, y))
    assert checked.seeds is not None
    assert [part.numbers.tolist() for part in parts] == [p.numbers.tolist() for p in parts[:2]]
    assert len(parts) == 2


def test_copies_of_a_row_in_a_bootstrap_sample_stay_in_its_fold() -> None:
    fitted = run(labels())
    sample = refit._bootstrapped(fitted.prepared, 5)
    drawn = np.unique(np.random.default_rng(5).integers(0, ROWS, ROWS))
    np.testing.assert_array_equal(sample.folds.number, fitted.prepared.folds.number[drawn])
    assert len(sample.data.train) == len(drawn)


@pytest.mark.parametrize("by", ["groups", "times"])
def test_folds_respect_what_the_split_does(by: str, parts: list[Prepared]) -> None:
    codes = np.repeat(np.arange(15), 6)
    run(labels(), Split(np.arange(ROWS), grouping=Grouping(**{by: codes})))
    for part in parts:
        held_out = np.setdiff1d(np.arange(ROWS), part.numbers)
        assert not set(codes[held_out]) & set(codes[part.numbers])
        if by == "times":
            assert np.ptp(codes[held_out]) == len(set(codes[held_out])) - 1
        assert len(getattr(part.data.grouping, by)) == len(part.numbers)


def schema_of(fields: int) -> Any:
    columns = pa.table({f"c{number}": ["a", "b"] * 5 for number in range(fields)})
    return infer_schema(columns.to_batches(), columns.schema, target=None, config=Config().data)


@pytest.mark.parametrize(
    ("rows", "fields", "models"),
    [(499, 14, 1), (500, 14, 8), (10_000, 14, 8), (19_536, 14, 1), (10_000, 39, 8), (10_000, 60, 1), (12_001, 2, 1)],
)
def test_auto_cross_fits_small_tables(rows: int, fields: int, models: int) -> None:
    assert choose_models(Config(), schema_of(fields), rows) == models
    wide = Config.parse({"model": {"dim": 256, "attention_dim": 64}})
    assert choose_models(wide, schema_of(14), rows) == (8 if rows == 500 else 1)
    linear = Config.parse({"model": {"preset": "linear"}})
    assert choose_models(linear, schema_of(fields), rows) == (8 if 500 <= rows <= 12_000 else 1)


def test_how_many_models_is_a_setting_where_there_are_folds() -> None:
    schema = schema_of(3)

    def chosen(rows: int = 1_000, **train: Any) -> int:
        return choose_models(Config.parse({"train": train}), schema, rows)

    assert (chosen(n_models=5), chosen(60, n_models=3), chosen(10**7, n_models=2)) == (5, 3, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (chosen(early_stopping=False), chosen(40)) == (1, 1)
    with pytest.warns(DataWarning, match=r"n_models=4, but early stopping is off: one model is trained\."):
        assert chosen(n_models=4, early_stopping=False) == 1
    with pytest.warns(DataWarning, match="n_models=4, but 40 rows are too few for folds"):
        assert chosen(40, n_models=4) == 1
    with pytest.raises(ConfigError, match="n_models=70, but there are 60 rows to cut into folds"):
        cut_into_folds(Grouping(), np.zeros(60), classes=None, models=70, seed=0)
    one_group = Grouping(groups=np.zeros(60, np.int64))
    assert cut_into_folds(one_group, np.zeros(60), classes=None, models=8, seed=0) is None


@pytest.mark.parametrize("wrong", ["all", 0, 2.5, 101])
def test_a_bad_number_of_models_is_told(wrong: object) -> None:
    with pytest.raises(ConfigError, match="Setting 'n_models' in the parameters of AFMClassifier"):
        AFMClassifier(n_models=wrong).fit(table(), labels())


def test_a_linear_ensemble_has_no_pairs() -> None:
    machines = [FactorizationMachine(5, 2, 1, ModelConfig(preset="linear")) for _ in range(2)]
    assert not Ensemble(machines).has_pairs


def test_each_model_remembers_its_own_pairs_and_the_account_and_the_folder_keep_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 12, (2, 1_200))
    X = pa.table({"a": [f"a{n}" for n in first], "b": [f"b{n}" for n in second]})
    y = (((first * second) % 5 < 2) ^ (rng.random(1_200) < 0.05)).astype(int)
    model = AFMClassifier(epochs=2, n_models=2, random_state=0).fit(X, y)
    machines = model.model_.module.machines
    assert all(machine.memory is not None for machine in machines)
    account = model.explain(X.slice(0, 50))
    np.testing.assert_allclose(account.logits[:, 0], model.decision_function(X.slice(0, 50)), rtol=1e-4, atol=1e-4)
    assert account.memory is not None
    u = [remembered_of(machine, rows) for machine in machines for rows in [encoded(model.model_, X.slice(0, 50))]]
    np.testing.assert_allclose(account.memory[:, 0], np.mean([one.effect[:, 0] for one in u], axis=0))
    np.testing.assert_array_equal(account.seen[:, 0], np.max([one.rows[:, 0] for one in u], axis=0))
    again = load_model(model.save(tmp_path / "run"))
    np.testing.assert_array_equal(again.logits(X), model.model_.logits(X))
    assert model.check_explanations(X.slice(0, 200)).sum_error < 1e-5
    assert roc_auc_score(y, model.oof_[:, 1]) > 0.8
