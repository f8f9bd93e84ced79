"""Rates and pair memory from raw rows to scores: no leak, an honest choice of pairs, exact accounts."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from attfm import AFMClassifier, AFMRegressor, load
from attfm.config import Config
from attfm.data.batch import Batch
from attfm.data.dataset import InMemoryDataset
from attfm.data.inference import infer_schema
from attfm.data.sources.source import open_source
from attfm.data.split import Split
from attfm.metrics.scores import evaluate
from attfm.model.bundle import Model
from attfm.model.memory import PairMemory
from attfm.train.fit import fit
from attfm.train.observer import Observer
from attfm.train.prepare import LabelledTable, Tables, prepare
from attfm.train.refit import train_module
from attfm.train.statistical_machine import StatisticalMachine
from attfm.train.statistics import enrich
from attfm.train.trainer import Trainer

ROWS = 3000


def shop(rows: int = ROWS, *, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Return people and things, some numbers and tags, and the strength of what ties a person to a thing."""
    table, score = _shop(rows, seed)
    return table.copy(), score.copy()


@cache  # its tags take as long as a short training
def _shop(rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "person": rng.integers(0, 60, rows).astype(str),
            "thing": rng.integers(0, 50, rows).astype(str),
            "colour": rng.choice(list("rgb"), rows),
            "x": rng.normal(size=rows),
            "tags": [[f"t{k}" for k in rng.choice(40, n, replace=False)] for n in rng.integers(0, 3, rows)],
        }
    )
    ties = np.random.default_rng(99).normal(size=(60, 50))
    score = 1.5 * ties[table.person.astype(int), table.thing.astype(int)] + rng.normal(0, 0.5, rows)
    return table, score


def labels(task: str, score: np.ndarray) -> np.ndarray:
    return {"binary": score > 0, "multiclass": np.digitize(score, [-1, 1]), "regression": 100 * score + 7}[task]


def estimator(task: str, **settings: object) -> AFMClassifier | AFMRegressor:
    usual = {"epochs": 3, "memory_pairs": 60, "n_models": 1, "random_state": 0, "batch_size": 256, **settings}
    if task == "regression":
        return AFMRegressor(
            **{"weight_dropout": 0.4, "smoothness": 300.0, "knots": 16, **usual}
        )  # no other strength is tried
    return AFMClassifier(**usual)


def tables(frame: pd.DataFrame, y: np.ndarray, valid: int) -> Tables:
    source = open_source(frame)
    schema = infer_schema(source.batches(), source.schema, target=None, config=Config().data, source="shop")
    rows = np.arange(len(frame))
    return Tables(LabelledTable(source, pa.chunked_array([y])), schema, split=Split(rows[:-valid], rows[-valid:]))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("preset", ["nested", "paper", "fwfm", "fm", "linear"])
def test_accounts_with_rates_and_memory_add_up_and_are_saved(task: str, preset: str, tmp_path: Path) -> None:
    frame, score = shop()
    model = estimator(task, preset=preset).fit(frame[:2500], labels(task, score)[:2500])
    memory, rest = model.model_.module.memory, frame[2500:]
    assert (memory is None) == (preset == "linear")
    whole = model.predict(rest) if task == "regression" else model.decision_function(rest)
    whole = np.asarray(whole).reshape(len(rest), -1)
    size = np.abs(whole).max()
    for view in ("raw", "centred"):
        account = model.explain(rest, view=view)
        np.testing.assert_allclose(account.logits, whole, atol=1e-5 * size)
        np.testing.assert_allclose(account.grouped({"who": ["person", "tags"]}).logits, whole, atol=1e-5 * size)
    checked = model.check_explanations(rest)
    assert checked.sum_error < 1e-5
    assert checked.removal_error < 1e-5
    again = load(model.save(tmp_path / "model"))
    later = again.predict(rest) if task == "regression" else again.decision_function(rest)
    np.testing.assert_array_equal(np.asarray(later).reshape(whole.shape), whole)
    if memory is not None:
        assert [model.explain(rest).fields[f] for f in memory.pairs[0]] == ["person", "thing"]


def test_an_effect_says_how_much_of_it_is_remembered_and_from_how_many_rows() -> None:
    frame, score = shop()
    train, y = frame[:2500], labels("binary", score)[:2500]
    model = estimator("binary", early_stopping=False).fit(train, y)
    account = model.explain(frame[2500:])
    place = account.pair_names.index("person × thing")
    often, effects = train.groupby(["person", "thing"]).size(), account.top(100)
    for row, (person, thing) in enumerate(frame[2500:2600][["person", "thing"]].itertuples(index=False)):
        effect = next(e for e in effects[row] if e.name == "person × thing")
        assert effect.seen == often.get((person, thing), 0) == account.seen[row, place]
        assert effect.memory == account.memory[row, place, 0]
        assert effect.to_dict()["seen"] == effect.seen
    others = np.setdiff1d(np.arange(len(account.pairs)), model.model_.module.remembered_pairs)
    assert len(others)
    assert (account.seen[:, others] == -1).all()
    assert np.isnan(account.memory[:, others]).all()
    unseen = account.memory[:, place, 0][account.seen[:, place] == 0]
    assert len(np.unique(unseen)) == 1  # the default of the pair
    grouped = account.grouped({"who": ["person", "colour"]})
    between = [account.pair_names.index(name) for name in ("person × thing", "thing × colour")]
    np.testing.assert_allclose(
        grouped.memory[:, grouped.pair_names.index("who × thing"), 0], np.nansum(account.memory[:, between, 0], axis=1)
    )


def test_random_labels_teach_nothing_and_hardly_a_pair_is_chosen() -> None:
    chosen, aucs = 0, []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame({f"f{i}": rng.integers(0, 400, 6000).astype(str) for i in range(4)})
        y = rng.random(6000) < 0.3
        fitted = fit(
            tables(frame, y, 2000), Config.parse({"train": {"epochs": 3, "seed": seed, "n_models": 1, "n_seeds": 1}})
        )
        chosen += 0 if fitted.model.module.memory is None else len(fitted.model.module.memory.pairs)
        valid = fitted.prepared.data.valid
        assert isinstance(valid, InMemoryDataset)
        part = valid.examples
        scores = fitted.prepared.data.task.scores(fitted.model.module.predict(part.rows).double().numpy())
        aucs.append(evaluate("binary", part.target.numpy(), scores, part.weight.double().numpy(), threshold=0.5)["auc"])
    assert chosen <= 2
    assert abs(np.mean(aucs) - 0.5) < 0.02


def _machine(task: str = "binary") -> tuple[StatisticalMachine, object, Model]:
    frame, score = shop(1200)
    config = Config.parse({"model": {"memory_pairs": 60}, "train": {"epochs": 2}})
    if task == "regression":
        config = Config.parse({"model": {"memory_pairs": 60}, "train": {"epochs": 2, "task": "regression"}})
    prepared = prepare(tables(frame, labels(task, score), 300), config)
    enriched = enrich(prepared.data, prepared.encoder, config)
    assert enriched is not None
    assert enriched.pairs is not None
    machine = enriched.machine(len(prepared.encoder.fields), 1, config.model)
    Trainer(machine, enriched.data, config.train).run()
    return machine, enriched, prepared


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_the_folded_machine_scores_as_the_trained_one(task: str) -> None:
    machine, enriched, prepared = _machine(task)
    valid, plain = enriched.data.valid.examples.rows, prepared.data.valid.examples.rows
    folded = machine.folded()
    assert len(folded.linear.weight) == prepared.encoder.n_features
    torch.testing.assert_close(folded.predict(plain), machine.predict(valid), rtol=1e-5, atol=1e-5)
    # The composed tables of training are the same sums as the folded rows, wherever a row has the same parts.
    composition = machine.composition
    parts = {tuple(row) for row in composition.parts.tolist()}
    same = [row for row in composition.folded.tolist() if tuple(row) in parts]
    assert same
    ids = torch.tensor([composition.rows + composition.parts.tolist().index(row) for row in same])
    batch, w, V = machine.tables(Batch(ids[:, None].int()))
    own, features = batch.ids[:, 0].long(), [row[0] for row in same]
    torch.testing.assert_close(w[own], folded.linear.weight[features])
    torch.testing.assert_close(V[own], folded.embedding.weight[features])


def test_gradients_reach_an_id_and_its_bins_dense_and_sparse() -> None:
    machine, enriched, _ = _machine()
    rows = enriched.data.train.examples.rows.take(torch.arange(40))
    machine.train()
    gradients = []
    for sparse in (False, True):
        machine.zero_grad(set_to_none=True)
        machine.sparse_gradients(sparse)
        torch.manual_seed(0)
        machine(rows).sum().backward()
        grad = [machine.embedding.weight.grad, machine.linear.weight.grad]
        gradients.append([g.to_dense() if g.is_sparse else g for g in grad])
    for dense, sparse_one in zip(*gradients, strict=True):
        torch.testing.assert_close(dense, sparse_one)
    read = machine.features_of(rows).unique()
    untouched = torch.ones(machine.composition.rows, dtype=torch.bool)
    untouched[read] = False
    assert (gradients[0][1][untouched] == 0).all()
    assert (gradients[0][1][read] != 0).all()
    assert (read >= machine.composition.features).any()


def test_statistics_of_rows_in_order_of_time_never_look_ahead() -> None:
    frame, score = shop(2000)
    frame["day"] = np.arange(2000)
    y = labels("binary", score)
    config = Config.parse({"train": {"split": "time:day", "epochs": 1}})
    before = enrich((first := prepare(tables(frame, y, 200), config)).data, first.encoder, config)
    later = y.copy()
    later[1500:1800] = ~later[1500:1800]
    after = enrich((second := prepare(tables(frame, later, 200), config)).data, second.encoder, config)
    assert before is not None
    assert after is not None

    def counts(enriched: object) -> np.ndarray:
        ids = enriched.data.train.examples.rows.field(0).ids - enriched.composition.rows
        return enriched.composition.parts[ids][:, 2] - enriched.composition.parts[:, 2].min()

    assert (counts(before) == counts(after)).all()
    assert (counts(before)[:90] == 0).all()  # the first of twenty blocks has nothing before it
    assert (counts(before)[-90:] > 0).all()


def test_memory_min_count_leaves_rare_value_pairs_to_the_default() -> None:
    frame, score = shop()
    y = labels("binary", score)
    # With this seed no other pair of fields is remembered by chance, as some may be without validation rows.
    model = estimator("binary", memory_min_count=3, early_stopping=False, random_state=2).fit(frame, y)
    often = frame.groupby(["person", "thing"]).size()
    memory = model.model_.module.memory
    assert memory.size == (often >= 3).sum()
    assert memory.rows.max() == often.max()
    account = model.explain(frame)
    place = account.pair_names.index("person × thing")
    rare = np.array([often[key] < 3 for key in frame[["person", "thing"]].itertuples(index=False)])
    assert (account.seen[rare, place] == 0).all()
    assert (account.seen[~rare, place] >= 3).all()


@pytest.mark.parametrize("least", [2, 3])
def test_memory_entries_raise_the_rows_that_a_value_pair_needs(least: int) -> None:
    frame, score = shop()
    y = labels("binary", score)

    def memory(**settings: int) -> PairMemory:
        kept = estimator("binary", early_stopping=False, epochs=1, **settings).fit(frame, y).model_.module.memory
        assert kept is not None
        return kept

    wanted, more = memory(memory_min_count=least), memory(memory_min_count=least - 1)
    assert 0 < wanted.size < more.size
    for entries in (wanted.size, more.size - 1):
        capped = memory(memory_entries=entries).to_arrays()
        for name, array in wanted.to_arrays().items():  # what unknown value pairs share was trained the same too
            np.testing.assert_array_equal(capped[name], array)
    assert memory(memory_entries=more.size, memory_min_count=least - 1).size == more.size
    assert memory(memory_entries=more.size, memory_min_count=least).size == wanted.size


def test_without_rates_and_memory_the_plain_machine_is_trained() -> None:
    frame, score = shop(600)
    config = Config.parse({"model": {"memory_pairs": 0}, "train": {"rates": False, "knots": 0, "epochs": 1}})
    prepared = prepare(tables(frame, labels("binary", score), 100), config)
    assert enrich(prepared.data, prepared.encoder, config) is None
    module, _ = train_module(prepared, config, Observer())
    assert module.memory is None
    assert not isinstance(module, StatisticalMachine)
