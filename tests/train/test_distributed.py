"""Training by workers of Ray: the weights of one process, whoever dies; the same cache; the same scores."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from attfm.config import Config
from attfm.data.cache import CachedDataset
from attfm.data.sources.source import open_source
from attfm.data.survey import StreamedTable
from attfm.errors import ConfigError
from attfm.model.bundle import Model
from attfm.model.facts import RunFacts
from attfm.model.run_folder import load_model, save_model
from attfm.train.cluster import cluster
from attfm.train.distributed import DistributedFit, fit_distributed
from attfm.train.fit import fit_prepared
from attfm.train.ray_tables import worked_by
from attfm.train.scoring import score_by_workers
from attfm.train.streamed import Streamed, prepare_streamed
from tests.train.test_streamed import table
from tests.train.workers import ROW, Ledger

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'attfm[ray]'")
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]
LOOPBACK = "127.0.0.2"  # Ray takes 127.0.0.1 for the address that other machines see
long = pytest.mark.skipif("ATTFM_LONG_TESTS" not in os.environ, reason="long: make test-ray runs it")

SETTINGS: dict[str, Any] = {
    "data": {"columns": {"row": {"kind": "categorical"}}},
    "model": {"dim": 4, "attention_dim": 3, "weight_dropout": 0.0, "memory_pairs": 0},
    "train": {"epochs": 2, "batch_size": 64, "rates": False, "knots": 0, "early_stopping": False},
}


@pytest.fixture
def here() -> Iterator[Any]:
    """Ray on this machine, with two processors, for one test: the next may join a cluster of its own."""
    with cluster(2) as started:
        yield started


@pytest.fixture
def streamed(tmp_path: Path) -> Streamed:
    """Rows that are encoded, each of which has a number of its own."""
    rows = 2000
    own = pq.read_table(table(tmp_path, rows=rows))
    own = own.add_column(0, "row", pa.array([f"row {i}" for i in range(rows)]))
    pq.write_table(own, tmp_path / "own.parquet")
    source = open_source(str(tmp_path / "own.parquet"))
    return prepare_streamed(
        StreamedTable(source, "bought", None, 0.2, 0.2, 7, tmp_path / "cache"), Config.parse(SETTINGS)
    )


def fit_of(streamed: Streamed, folder: Path, ledger: Ledger, **more: Any) -> DistributedFit:
    return DistributedFit(
        Config.parse(SETTINGS), streamed.folder, folder / "work", 0, 4, RunFacts(), observer=ledger, **more
    )


def check(model: Model, streamed: Streamed, ledger: Ledger) -> None:
    """Raise AssertionError where rows were not taken once an epoch each, or one process ends with other weights."""
    train = streamed.prepared.data.train
    assert isinstance(train, CachedDataset)
    every = sorted(train.take(np.arange(len(train))).examples.rows.field(ROW).ids.tolist())
    assert len(set(every)) == len(every) > 1000
    taken = ledger.taken()
    assert list(taken) == [0, 1]
    for rows in taken.values():
        assert sorted(rows) == every
    assert [epoch["rows"] for epoch in model.history] == [len(every)] * 2
    alone = fit_prepared(streamed.prepared, Config.parse(SETTINGS), None, facts=RunFacts(), measured=True).model
    wanted = alone.module.state_dict()
    for name, tensor in model.module.state_dict().items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-4, atol=1e-4 * float(wanted[name].abs().max()))
    assert model.metrics["test"]["auc"] == pytest.approx(alone.metrics["test"]["auc"], rel=1e-4)


@long
def test_a_worker_is_killed_and_the_end_is_that_of_one_process(here: Any, streamed: Streamed, tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    ledger = Ledger(tmp_path / "ledger", at=(1, 11))
    model = fit_distributed(here, 2, fit_of(streamed, tmp_path, ledger))
    assert ledger.killed.exists()
    assert ledger.begun() == [(0, 0), (1, 10)]  # from the last checkpoint: a step was done again
    check(model, streamed, ledger)
    ledger._note({"place": (1, 3), "rank": 5, "rows": [3], "time": 0.0})
    with pytest.raises(AssertionError):  # a row too many is found
        check(model, streamed, ledger)


@long
def test_a_machine_is_lost_and_another_takes_its_place(streamed: Streamed, tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    machines = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "node_ip_address": LOOPBACK, "include_dashboard": False}
    )
    try:
        for _ in range(3):
            machines.add_node(num_cpus=1, node_ip_address=LOOPBACK)
        (tmp_path / "ledger").mkdir()
        ledger = Ledger(tmp_path / "ledger", at=(1, 11), machine=True)
        with cluster(2, machines.address) as joined:
            model = fit_distributed(joined, 2, fit_of(streamed, tmp_path, ledger))
            assert sum(node["Alive"] for node in joined.nodes()) == 3
        assert ledger.begun() == [(0, 0), (1, 10)]
        check(model, streamed, ledger)
    finally:
        machines.shutdown()


@long
def test_what_a_worker_raises_is_told(here: Any, streamed: Streamed, tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    wrong = {**SETTINGS, "train": {**SETTINGS["train"], "device": "cuda"}}
    fit = fit_of(streamed, tmp_path, Ledger(tmp_path / "ledger"))
    fit = DistributedFit(**{**vars(fit), "config": Config.parse(wrong)})
    with pytest.raises(ConfigError, match="workers of Ray train on processors"):
        fit_distributed(here, 2, fit)


@long
def test_the_cache_and_the_scores_are_those_of_one_process(here: Any, tmp_path: Path) -> None:
    settings = {**SETTINGS, "data": {}}
    whole = pq.read_table(table(tmp_path, rows=200_000))
    (tmp_path / "files").mkdir()
    for number, start in enumerate((0, 90_000, 91_000)):
        pq.write_table(whole.slice(start, (90_000, 1_000, 109_000)[number]), tmp_path / f"files/{number}.parquet")

    def encoded(name: str, over: Any = None) -> Streamed:
        source = open_source(str(tmp_path / "files"))
        of = StreamedTable(source, "bought", "weight", 0.2, 0.2, 7, tmp_path / name)
        return prepare_streamed(of, Config.parse(settings), over=over)

    alone, many = encoded("alone"), encoded("many", partial(worked_by, here, 2))
    files = sorted(path.relative_to(alone.folder) for path in alone.folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(many.folder) for path in many.folder.rglob("*") if path.is_file())
    assert len(files) > 20
    for file in files:
        assert (alone.folder / file).read_bytes() == (many.folder / file).read_bytes(), file
    config = Config.parse({**settings, "train": {**SETTINGS["train"], "epochs": 1, "batch_size": 4096}})
    model = fit_prepared(alone.prepared, config, None, facts=RunFacts(), measured=False).model
    save_model(model, tmp_path / "run")
    model, source = load_model(tmp_path / "run"), open_source(str(tmp_path / "files"))
    wanted = list(model.score_table(source, keep=["day"]))
    found = score_by_workers(here, 2, str(tmp_path / "run"), model, source, ["day"], model.threshold)
    assert found is not None
    tables = list(found)
    assert [len(part) for part in tables] == [len(part) for part in wanted]
    assert pa.concat_tables(tables).equals(pa.concat_tables(wanted))
