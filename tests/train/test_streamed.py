"""Training on rows that are not in memory: the same statistics, parts dealt right, a cache that can be trusted."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attfm.config import Config
from attfm.data.cache import CachedDataset
from attfm.data.dataset import InMemoryDataset
from attfm.data.folds import Folds, Grouping
from attfm.data.sources.source import open_source
from attfm.data.survey import StreamedTable
from attfm.errors import ConfigError, DataError, TargetError
from attfm.train.continued import Continuation, day_of, day_told
from attfm.train.fit import fit_prepared
from attfm.train.observer import Observer
from attfm.train.prepare import Prepared
from attfm.train.statistics import Enriched, enrich
from attfm.train.streamed import Streamed, prepare_streamed
from attfm.train.trainer import Trainer, TrainingData
from tests.train.test_statistics import labels, shop


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("attfm.data.cache", "attfm.data.rows_writer"):
        monkeypatch.setattr(f"{module}.BLOCK_ROWS", 256)
    monkeypatch.setattr("attfm.data.sources.source.MAX_BATCH_ROWS", 700)


def table(folder: Path, task: str = "binary", *, rows: int = 3000, seed: int = 0, **more: Any) -> Path:
    columns, score = shop(rows, seed=seed)
    columns["bought"] = labels(task, score)
    columns["day"] = np.random.default_rng(4).integers(0, 50, rows)
    columns["weight"] = np.random.default_rng(5).integers(1, 4, rows).astype(float)
    path = folder / f"{task}.parquet"
    pq.write_table(pa.Table.from_pandas(columns.assign(**more), preserve_index=False), path)
    return path


def prepared(
    path: Path, cache: Path, config: Config | None = None, *, continued: Continuation | None = None, **options: Any
) -> Streamed:
    usual = {"target": "bought", "weight": None, "valid": 0.2, "test": 0.2, "seed": 7, **options}
    streamed = StreamedTable(open_source(str(path)), cache=cache, **usual)
    return prepare_streamed(streamed, config or Config(), continued=continued)


class _AsDealt(Grouping):
    """Rows whose folds are those that their groups say."""

    def folds(self, rows: int, folds: int, seed: int, codes: Any = None) -> Folds:
        assert self.groups is not None
        return Folds(self.groups, self.times is not None)


def in_memory(of: Prepared) -> TrainingData:
    """Return the same rows in memory, whose folds are those that were dealt."""
    train, valid = of.data.train, of.data.valid
    assert isinstance(train, CachedDataset)
    assert isinstance(valid, CachedDataset)
    folds = train.rows.whole(lambda start, stop: train.rows.column("fold", start, stop)).astype(np.int64)
    grouping = _AsDealt(folds, times=of.data.grouping.times, column="fold")
    return replace(
        of.data, train=train.take(np.arange(len(train))), valid=valid.take(np.arange(len(valid))), grouping=grouping
    )


def rows_of(enriched: Enriched, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of V that each training row reads, and the bins of its remembered pairs."""
    dataset = getattr(enriched.data, part)
    batch = dataset.take(np.arange(len(dataset))).examples.rows if isinstance(dataset, CachedDataset) else None
    batch = dataset.examples.rows if batch is None else batch
    own = enriched.composition
    ids = batch.ids.numpy().astype(np.int64)
    parts = np.concatenate([np.column_stack([np.arange(own.rows)] * own.parts.shape[1]), own.parts])
    return parts[ids], np.empty(0) if batch.bins is None else batch.bins.numpy()


@pytest.mark.parametrize("split", [None, "time:day", "group:thing"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_rates_and_memory_are_those_of_rows_in_memory(tmp_path: Path, task: str, split: str | None) -> None:
    config = Config.parse({"model": {"memory_pairs": 3}, "train": {"split": split, "rate_levels": 5}})
    streamed = prepared(table(tmp_path, task), tmp_path / "cache", config).prepared
    data = in_memory(streamed)
    wanted = enrich(data, streamed.encoder, config, chosen=[(0, 1), (0, 3), (1, 2)])
    found = enrich(streamed.data, streamed.encoder, config, chosen=[(0, 1), (0, 3), (1, 2)])
    assert wanted is not None
    assert found is not None
    for part in ("train", "valid"):
        for one, other in zip(rows_of(wanted, part), rows_of(found, part), strict=True):
            assert one.shape == other.shape
            assert (one != other).mean() < (1e-3 if task == "regression" else 1e-9)  # sums of floats differ in order
    np.testing.assert_array_equal(wanted.composition.folded, found.composition.folded)
    assert wanted.pairs is not None
    assert found.pairs is not None
    np.testing.assert_array_equal(wanted.pairs.known.keys, found.pairs.known.keys)
    np.testing.assert_array_equal(wanted.pairs.known.rows, found.pairs.known.rows)
    assert (wanted.pairs.known.bins != found.pairs.known.bins).mean() < 1e-3
    assert wanted.data.train.statistics.seen.equal(found.data.train.statistics.seen)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_statistics_of_a_model_that_learns_on_are_those_of_rows_in_memory(tmp_path: Path, task: str) -> None:
    config = Config.parse({"model": {"memory_pairs": 3}, "train": {"rate_levels": 5, "epochs": 1, "refit": False}})
    first = prepared(table(tmp_path, task), tmp_path / "cache", config).prepared
    model = fit_prepared(first, config, None, facts=None, measured=False).model
    continued = Continuation.of(model, half_life=10, as_of=day_told(day_of(model.facts.as_of) + 10))
    (tmp_path / "later").mkdir()
    later = table(tmp_path / "later", task, rows=2000, seed=3)
    streamed = prepared(later, tmp_path / "cache", config, continued=continued).prepared
    assert streamed.start is not None
    start = streamed.start.one.machine
    wanted = enrich(in_memory(streamed), streamed.encoder, config, start=start)
    found = enrich(streamed.data, streamed.encoder, config, start=start)
    assert wanted is not None
    assert found is not None
    for part in ("train", "valid"):
        for one, other in zip(rows_of(wanted, part), rows_of(found, part), strict=True):
            assert one.shape == other.shape
            assert (one != other).mean() < (2e-3 if task == "regression" else 1e-3)
    np.testing.assert_allclose(wanted.sums.total, found.sums.total, rtol=1e-6)
    assert wanted.sums.rates.keys() == found.sums.rates.keys() != set()
    for f, rates in wanted.sums.rates.items():
        np.testing.assert_allclose(rates.columns, found.sums.rates[f].columns, rtol=1e-5, atol=1e-6)
    assert wanted.sums.pairs.keys() == found.sums.pairs.keys()
    for pair, sums in wanted.sums.pairs.items():
        np.testing.assert_allclose(sums.columns, found.sums.pairs[pair].columns, rtol=1e-5, atol=1e-6)


def test_a_row_changes_nothing_of_its_own_statistics(tmp_path: Path) -> None:
    first = prepared(table(tmp_path), tmp_path / "a").prepared
    train = first.data.train
    assert isinstance(train, CachedDataset)
    config = Config.parse({"train": {"rate_levels": 5}})
    before = rows_of(_enriched(first, config), "train")
    row = 11
    file = train.rows.folder / "target"
    content = bytearray(file.read_bytes())
    content[row] ^= 1
    file.write_bytes(bytes(content))
    after = rows_of(_enriched(first, config), "train")
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one[row], other[row])
    assert any((one != other).any() for one, other in zip(before, after, strict=True))


def _enriched(of: Prepared, config: Config) -> Enriched:
    enriched = enrich(of.data, of.encoder, config, chosen=[(0, 1)])
    assert enriched is not None
    return enriched


def test_few_value_pairs_are_remembered_where_few_may_be(tmp_path: Path) -> None:
    config = Config.parse({"model": {"memory_entries": 100}})
    streamed = prepared(table(tmp_path), tmp_path / "cache", config).prepared
    enriched = enrich(streamed.data, streamed.encoder, config, chosen=[(0, 1), (1, 2)])
    assert enriched is not None
    assert enriched.pairs is not None
    assert 0 < len(enriched.pairs.known.keys) <= 100


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_model_learns_from_a_cache_as_from_memory(tmp_path: Path, task: str) -> None:
    train = {"epochs": 4, "rate_levels": 5, "smoothness": 300.0, "knots": 16, "embedding_ridge": 30, "linear_ridge": 2}
    config = Config.parse({"train": train, "model": {"weight_dropout": 0.4, "memory_pairs": 5}})
    streamed = prepared(table(tmp_path, task), tmp_path / "cache", config).prepared
    own = fit_prepared(streamed, config, None, facts=None, measured=True)
    other = fit_prepared(replace(streamed, data=in_memory(streamed)), config, None, facts=None, measured=True)
    for name in ("auc", "log_loss", "rmse"):
        if name in own.model.metrics["test"]:
            assert own.model.metrics["test"][name] == pytest.approx(other.model.metrics["test"][name], rel=0.08)
    assert own.model.facts.training_rows == len(streamed.data.train)
    source = open_source(str(tmp_path / f"{task}.parquet"))
    assert np.isfinite(own.model.predict(source)).all() if task == "regression" else len(own.model.predict(source))


def test_parts_are_dealt_by_chance_and_each_row_is_in_one(tmp_path: Path) -> None:
    streamed = prepared(table(tmp_path, number=np.arange(3000.0)), tmp_path / "cache")
    test, valid = streamed.prepared.test, streamed.prepared.data.valid
    assert isinstance(test, CachedDataset)
    assert isinstance(valid, CachedDataset)
    sizes = [len(part) for part in (streamed.prepared.data.train, valid, test)]
    assert sum(sizes) == streamed.rows == 3000
    assert abs(sizes[1] - 600) < 80
    assert abs(sizes[2] - 600) < 80
    assert test.numbers is not None
    assert valid.numbers is not None
    assert not set(test.numbers) & set(valid.numbers)
    other = prepared(table(tmp_path), tmp_path / "cache", seed=8).prepared.test
    assert isinstance(other, CachedDataset)
    assert set(test.numbers) != set(other.numbers)


def test_time_splits_past_from_future_and_groups_stay_together(tmp_path: Path) -> None:
    path = table(tmp_path)
    days = pd.read_parquet(path).day.to_numpy()
    by_time = prepared(path, tmp_path / "cache", Config.parse({"train": {"split": "time:day"}})).prepared
    numbers = {name: part.numbers for name, part in (("valid", by_time.data.valid), ("test", by_time.test))}  # type: ignore[union-attr]
    training = np.setdiff1d(np.arange(3000), np.concatenate(list(numbers.values())))
    assert days[training].max() < days[numbers["valid"]].min()
    assert days[numbers["valid"]].max() < days[numbers["test"]].min()
    assert 0.15 < len(numbers["test"]) / 3000 < 0.25
    train = by_time.data.train
    assert isinstance(train, CachedDataset)
    folds = train.rows.whole(lambda start, stop: train.rows.column("fold", start, stop))
    assert len(np.unique(folds)) > 10
    order = np.argsort(days[training], kind="stable")
    assert (np.diff(folds[order].astype(int)) >= 0).all()
    people = pd.read_parquet(path).person.to_numpy()
    by_group = prepared(path, tmp_path / "cache", Config.parse({"train": {"split": "group:person"}})).prepared
    parts = [set(people[part.numbers]) for part in (by_group.data.valid, by_group.test)]  # type: ignore[union-attr]
    assert not parts[0] & parts[1]
    assert all(len(part) > 2 for part in parts)


def test_weights_and_tables_of_their_own(tmp_path: Path) -> None:
    path = table(tmp_path)
    other = open_source(str(table(tmp_path, "multiclass", rows=400, bought=np.arange(400) % 2 == 0)))
    streamed = prepared(path, tmp_path / "cache", weight="weight", valid=0.0, test=other).prepared
    assert streamed.data.valid is None
    assert len(streamed.test or ()) == 400
    assert len(streamed.data.train) == 3000
    weight = streamed.data.train.take(np.arange(3000)).examples.weight  # type: ignore[attr-defined]
    np.testing.assert_allclose(weight, pd.read_parquet(path).weight)


def test_a_cache_is_used_again_and_made_anew_when_something_changed(tmp_path: Path) -> None:
    path, cache = table(tmp_path), tmp_path / "cache"
    first = prepared(path, cache)
    assert not first.reused
    assert prepared(path, cache).reused
    assert not prepared(path, cache, Config.parse({"data": {"max_bins": 9}})).reused
    assert prepared(path, cache, Config.parse({"train": {"epochs": 3}, "model": {"dim": 2}})).reused
    file = first.folder / "train" / "1.ids"
    file.write_bytes(file.read_bytes()[:-1] + b"\x07")
    assert not prepared(path, cache).reused  # damaged: found by its checksum
    assert prepared(path, cache).reused
    time.sleep(0.02)
    table(tmp_path, rows=2900)
    changed = prepared(path, cache)
    assert not changed.reused
    assert changed.rows == 2900


def _prepare(path: Path, cache: Path) -> None:
    prepared(path, cache)


def test_two_processes_at_once_and_one_that_was_killed_leave_one_whole_cache(tmp_path: Path) -> None:
    path, cache = table(tmp_path, rows=20_000), tmp_path / "cache"
    context = multiprocessing.get_context("fork")
    killed = context.Process(target=_prepare, args=(path, cache))
    killed.start()
    while not any(cache.glob("*.part")):
        time.sleep(0.001)
    os.kill(killed.pid or 0, signal.SIGKILL)
    killed.join()
    both = [context.Process(target=_prepare, args=(path, cache)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert len(list(cache.iterdir())) == 1
    assert prepared(path, cache).reused


def test_statistics_of_a_killed_training_go_when_the_next_makes_its_own(tmp_path: Path) -> None:
    path, config = table(tmp_path), Config()
    streamed = prepared(path, tmp_path / "cache")

    def kept() -> int:
        return len(list(streamed.folder.glob("statistics.*")))

    def enrich_and_wait(ready: Any) -> None:
        enriched = enrich(streamed.prepared.data, streamed.prepared.encoder, config)
        ready.set()
        time.sleep(600)
        del enriched

    context = multiprocessing.get_context("fork")
    ready = context.Event()
    killed = context.Process(target=enrich_and_wait, args=(ready,))
    killed.start()
    assert ready.wait(60)
    beside = enrich(streamed.prepared.data, streamed.prepared.encoder, config)
    assert kept() == 2  # that of the other, which lives, is left alone
    del beside
    os.kill(killed.pid or 0, signal.SIGKILL)
    killed.join()
    assert kept() == 1
    after = enrich(streamed.prepared.data, streamed.prepared.encoder, config)
    assert kept() == 1
    del after
    assert kept() == 0


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"bought": [None, *[True, False] * 1499, True]}, TargetError, "missing in 1 of 3,000 rows .first: row 0"),
        ({"bought": True}, TargetError, "has one value only"),
        ({"x": [*[1.0] * 2990, *[np.inf] * 10]}, DataError, r"x.*10 of 3,000 values are infinite .*row 2,990"),
        ({"weight": [*[1.0] * 2999, -1.0]}, DataError, "row 2,999"),
        ({"weight": 0.0}, TargetError, "No rows are left to train on"),
        (
            {"bought": [*[True] * 2999, False], "weight": [*[1.0] * 2999, 0.0]},
            TargetError,
            "no training row has the class False. Give more rows of it",
        ),
    ],
)
def test_bad_tables_are_refused_and_leave_nothing(
    tmp_path: Path, more: dict[str, Any], error: type[Exception], message: str
) -> None:
    path = table(tmp_path, **more)
    with pytest.raises(error, match=message):
        prepared(path, tmp_path / "cache", weight="weight")
    assert not list((tmp_path / "cache").iterdir())


def test_the_strength_of_a_regression_is_chosen_on_some_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attfm.train.inner_choice.MOST_ROWS", 300)
    seen = []

    class Watching(Observer):
        def on_start(self, trainer: Trainer) -> None:
            seen.append((len(trainer.data.train), len(trainer.data.valid or ())))

    config = Config.parse({"train": {"epochs": 1}})
    streamed = prepared(table(tmp_path, "regression"), tmp_path / "cache", config).prepared
    fit_prepared(streamed, config, Watching(), facts=None, measured=False)
    assert seen[:-1] == [(300, 300)] * (len(seen) - 1)
    assert len(seen) > 2
    assert seen[-1] == (len(streamed.data.train), len(streamed.data.valid or ()))


def test_rows_of_one_group_have_no_statistics(tmp_path: Path) -> None:
    config = Config.parse({"train": {"split": "group:kind", "rate_levels": 5}})
    other = open_source(str(table(tmp_path, "multiclass", rows=300, bought=np.arange(300) % 2 == 0, kind="a")))
    path = table(tmp_path, kind="a")
    streamed = prepared(path, tmp_path / "cache", config, valid=other, test=0.0).prepared
    enriched = enrich(streamed.data, streamed.encoder, config)
    assert enriched is not None  # the knots of its numbers
    assert enriched.pairs is None
    assert not len(enriched.composition.parts)


def test_refits_on_bootstrap_samples_are_refused(tmp_path: Path) -> None:
    config = Config.parse({"train": {"n_bags": 2, "epochs": 1}})
    streamed = prepared(table(tmp_path), tmp_path / "cache", config).prepared
    with pytest.raises(ConfigError, match="n_bags"):
        fit_prepared(streamed, config, None, facts=None, measured=False)


def test_rows_in_memory_keep_their_own_way(tmp_path: Path) -> None:
    streamed = prepared(table(tmp_path), tmp_path / "cache").prepared
    assert isinstance(in_memory(streamed).train, InMemoryDataset)
