"""Workers that each take a part of every batch end where one process ends, and send rows rather than tables."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch

from attfm.config import Config
from attfm.errors import TrainingError
from attfm.train import trainer
from attfm.train.exchange import Gathering, exchanging
from attfm.train.refit import train
from tests.train.test_streamed import prepared, table

SETTINGS = {"dim": 3, "attention_dim": 2, "weight_dropout": 0.0, "memory_pairs": 3}
CASES: dict[str, dict[str, Any]] = {
    "dense tables": {},
    "lazy tables": {"lazy": True},
    "decay, no rates": {"train": {"embedding_decay": 0.1, "rates": False, "knots": 0}, "lazy": True},
    "three classes": {"task": "multiclass"},
    "a regression": {"task": "regression"},
    "more workers than rows": {"train": {"batch_size": 2}, "rows": 100},
    "linear": {"model": {"preset": "linear"}},
}


def trained(folder: Path, case: dict[str, Any]) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Train on the encoded rows of a folder; return the parameters and the learning curve."""
    settings = {"epochs": 1, "batch_size": 64, "early_stopping": False, "smoothness": 100.0, **case.get("train", {})}
    config = Config.parse({"model": {**SETTINGS, **case.get("model", {})}, "train": settings})
    rows = prepared(
        folder / f"{case.get('task', 'binary')}.parquet", folder / "cache", config, weight="weight"
    ).prepared
    if case.get("lazy"):
        trainer.is_lazy = lambda *_: True  # in a process of its own
    found = train(rows, config)
    return dict(found.module.state_dict()), found.records()  # type: ignore[union-attr]


def _work(rank: int, workers: int, folder: Path, case: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    if workers == 1:
        torch.save(trained(folder, case), folder / "one.pt")
        return
    store = torch.distributed.FileStore(str(folder / "store"), workers)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=workers)
    exchange = Gathering()
    with exchanging(exchange):
        state, records = trained(folder, case)
    torch.save((state, records, exchange.bytes_sent, exchange.steps), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def _apart(rank: int, workers: int, folder: Path) -> None:
    store = torch.distributed.FileStore(str(folder / "store"), workers)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=workers)
    exchange = Gathering()
    exchange.check_place((1, 2))
    with pytest.raises(TrainingError, match="found another checkpoint than the others"):
        exchange.check_place((1, rank))
    torch.distributed.destroy_process_group()


def run(workers: int, folder: Path, case: dict[str, Any]) -> None:
    """Train by so many processes, which are forked: they don't load torch again."""
    processes = [
        multiprocessing.get_context("fork").Process(target=_work, args=(rank, workers, folder, case))
        for rank in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * workers


def test_workers_that_begin_at_other_places_are_told(tmp_path: Path) -> None:
    processes = [multiprocessing.get_context("fork").Process(target=_apart, args=(n, 2, tmp_path)) for n in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


@pytest.mark.parametrize("case", CASES)
def test_workers_end_where_one_process_ends(case: str, tmp_path: Path) -> None:
    settings, workers = CASES[case], 3 if case == "more workers than rows" else 2
    table(tmp_path, settings.get("task", "binary"), rows=settings.get("rows", 900))
    run(1, tmp_path, settings)  # which leaves the encoded rows for the others
    run(workers, tmp_path, settings)
    wanted, records = torch.load(tmp_path / "one.pt")
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(workers)]
    for state, of_worker, _, steps in found:
        assert steps > 3
        for name, tensor in wanted.items():
            assert torch.equal(state[name], found[0][0][name]), name  # bit for bit among the workers
            torch.testing.assert_close(state[name], tensor, rtol=1e-4, atol=1e-4 * float(tensor.abs().max()), msg=name)
        assert of_worker[0]["rows"] == records[0]["rows"] > 0
        assert of_worker[0]["train_loss"] == pytest.approx(records[0]["train_loss"], rel=1e-5)
        assert of_worker[0]["valid_loss"] == pytest.approx(records[0]["valid_loss"], rel=1e-5)
