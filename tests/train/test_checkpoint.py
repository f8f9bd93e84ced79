"""A training that is interrupted after any step ends bit for bit where it would have ended."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from attfm.config import Config
from attfm.data.inference import infer_schema
from attfm.data.sources.source import open_source
from attfm.errors import ConfigError, RunFolderError
from attfm.train import trainer
from attfm.train.checkpoint import Checkpoints
from attfm.train.fit import fit
from attfm.train.observer import Observer, Together
from attfm.train.prepare import LabelledTable, Tables
from attfm.train.trainer import Trainer


class KilledError(Exception):
    """Stands for the end of the process."""


class Killer(Observer):
    """Counts the steps of all trainings, and ends the process after one of them."""

    def __init__(self, after: int = 10**9) -> None:
        self.steps, self._after = 0, after

    def on_step(self, trainer: Trainer) -> None:
        self.steps += 1
        if self.steps == self._after:
            raise KilledError


def table(task: str, *, bags: bool = False) -> tuple[pa.Table, Any]:
    rng = np.random.default_rng(0)
    rows = 320
    x, who = rng.normal(size=rows), rng.integers(0, 40, rows)
    frame = pa.table(
        {"x": x, "z": rng.integers(0, 30, rows), "who": who.astype(str), "what": rng.integers(0, 5, rows).astype(str)}
    )
    if bags:
        frame = frame.append_column("tags", pa.array([["a", "b", "c"][: i % 4] for i in range(rows)]))
    score = x + np.sin(who) + rng.normal(0, 0.5, rows)
    return frame, score if task == "regression" else score > 0


def state_of(folder: Path | None, case: dict[str, Any], *, steps: int = 1, killer: Observer) -> dict[str, torch.Tensor]:
    """Return what a fit ends with, its parameters and the losses of its epochs, with checkpoints in a folder."""
    frame, y = table(case.get("task", "binary"), bags=case.get("bags", False))
    config = Config.parse(
        {
            "model": {"dim": 3, "attention_dim": 2},
            "train": {"epochs": 3, "batch_size": 64, "n_models": 1, **case.get("train", {})},
        }
    )
    source = open_source(frame)
    schema = infer_schema(source.batches(), source.schema, target=None, config=config.data)
    observer = killer if folder is None else Together(Checkpoints(folder, seconds=0, steps=steps), killer)
    fitted = fit(Tables(LabelledTable(source, pa.chunked_array([pa.array(y)])), schema), config, observer)
    losses = [[epoch[name] or 0.0 for name in ("train_loss", "valid_loss")] for epoch in fitted.model.history]
    return {**fitted.model.module.state_dict(), "losses": torch.tensor(losses, dtype=torch.float64)}


CASES: dict[str, dict[str, Any]] = {
    "rates, memory, knots, averages, early stopping": {"train": {"knots": 16, "refit": False}},
    "all rows in the end": {"train": {"refit": True}},
    "folds": {"train": {"n_models": 2, "epochs": 2}},
    "strengths of a regression": {"task": "regression", "train": {"epochs": 2, "batch_size": 100}},
    "bags, no averages": {"bags": True, "train": {"averaging": 0.0, "refit": False}},
    "adagrad": {"train": {"optimizer": "adagrad", "refit": False}},
    "lazy tables": {"lazy": True, "train": {"refit": False}},
    "a falling rate": {"train": {"falling_rate": True, "refit": False}},
}


@pytest.mark.parametrize(("case", "every"), [*((case, 3) for case in CASES), ("folds", 1), ("lazy tables", 1)])
def test_it_ends_where_it_would_have_ended(
    case: str, every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = CASES[case]
    if settings.get("lazy"):
        monkeypatch.setattr(trainer, "is_lazy", lambda *_: True)
    watch = Killer()
    whole = state_of(None, settings, killer=watch)
    # In the midst of an epoch, exactly at its end (4 or 5 steps), in later trainings, and at the last step of all.
    for after in sorted({1, 4, 5, watch.steps // 2, watch.steps}):
        folder = tmp_path / f"{after}"
        with pytest.raises(KilledError):
            state_of(folder, settings, steps=every, killer=Killer(after))
        again = Killer()
        resumed = state_of(folder, settings, steps=every, killer=again)
        assert again.steps <= watch.steps - after + every - 1 + (after if after < every else 0)
        assert resumed.keys() == whole.keys()
        for name, tensor in whole.items():
            assert torch.equal(tensor, resumed[name]), (after, name)


def test_it_may_be_interrupted_again_and_again(tmp_path: Path) -> None:
    settings = CASES["folds"]
    whole = state_of(None, settings, killer=Killer())
    for _ in range(100):
        try:
            resumed = state_of(tmp_path, settings, steps=2, killer=Killer(5))
        except KilledError:
            continue
        break
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    settings = CASES["adagrad"]
    whole = state_of(None, settings, killer=Killer())
    with pytest.raises(KilledError):
        state_of(tmp_path, settings, killer=Killer(8))
    earlier, last = sorted(tmp_path.glob("*.safetensors"))
    content = bytearray(last.read_bytes())
    content[-5] ^= 1
    last.write_bytes(content)
    again = Killer()
    resumed = state_of(tmp_path, settings, killer=again)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    earlier.write_bytes(b"")
    for file in tmp_path.glob("*.safetensors"):
        file.write_bytes(b"no tensors")
    resumed = state_of(tmp_path, settings, killer=Killer())  # from the start
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


@pytest.mark.parametrize("case", ["adagrad", "strengths of a regression"])
def test_a_full_disk_is_told_and_what_was_written_stays(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, written = CASES[case], 0
    watch, save = Killer(), save_file
    whole = state_of(None, settings, killer=watch)

    def full(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        nonlocal written
        written += 1
        save(tensors, path, metadata)
        if written > 4:
            path.write_bytes(path.read_bytes()[:100])
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr("attfm.train.checkpoint.save_file", full)
        with pytest.raises(RunFolderError, match=r"No space left on device.*make room"):
            state_of(tmp_path, settings, killer=Killer())
    assert len(list(tmp_path.iterdir())) == 2  # nothing half-written
    again = Killer()
    resumed = state_of(tmp_path, settings, killer=again)
    assert again.steps == watch.steps - 4
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="which files are in memory is read from Linux")
@pytest.mark.parametrize("case", ["rates, memory, knots, averages, early stopping", "lazy tables", "adagrad"])
def test_a_checkpoint_that_was_read_does_not_stay_in_memory(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = CASES[case]
    monkeypatch.setattr(trainer, "is_lazy", lambda *_: bool(settings.get("lazy")))
    with pytest.raises(KilledError):
        state_of(tmp_path, settings, killer=Killer(8))

    def mapped() -> bool:
        return str(tmp_path) in Path("/proc/self/maps").read_text()

    seen, load = [], Trainer.load_state_dict

    def load_and_look(self: Trainer, state: dict[str, Any]) -> None:
        load(self, state)
        seen.append(mapped())

    class Look(Killer):
        def on_step(self, trainer: Trainer) -> None:
            seen.append(mapped())

    monkeypatch.setattr(Trainer, "load_state_dict", load_and_look)
    gc.disable()  # which looks for cycles now and then, with tables of gigabytes too late
    try:
        state_of(tmp_path, settings, killer=Look())
    finally:
        gc.enable()
    assert seen[:2] == [True, False]  # while it is read, and in the step after


def test_other_rows_or_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        state_of(tmp_path, CASES["adagrad"], killer=Killer(8))
    with pytest.raises(ConfigError, match="of other rows or settings"):
        state_of(tmp_path, {"train": {"optimizer": "adagrad", "refit": False, "seed": 1}}, killer=Killer())


def test_writing_checkpoints_changes_nothing_and_few_are_kept(tmp_path: Path) -> None:
    settings = CASES["rates, memory, knots, averages, early stopping"]
    whole = state_of(None, settings, killer=Killer())
    watched = state_of(tmp_path, settings, killer=Killer())
    assert all(torch.equal(tensor, watched[name]) for name, tensor in whole.items())
    assert len(list(tmp_path.iterdir())) == 2


def test_the_table_of_a_checkpoint_is_no_concern_of_the_callers_generator(tmp_path: Path) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    with pytest.raises(KilledError):
        state_of(tmp_path, CASES["adagrad"], killer=Killer(4))
    state_of(tmp_path, CASES["adagrad"], killer=Killer())
    assert torch.equal(before, torch.get_rng_state())
