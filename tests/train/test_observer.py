"""What is shown while a model and its refits train."""

import io

import numpy as np
import pyarrow as pa
import pytest

from attfm import AFMClassifier
from attfm.config import ModelConfig
from attfm.model.modules import FactorizationMachine
from attfm.train.observer import Epoch, FitProgress
from attfm.train.tuning_progress import TuningProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_refits_are_numbered_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    table = pa.table({"n": np.arange(40.0)})
    AFMClassifier(epochs=2, early_stopping=False, n_bags=2, verbose=True).fit(table, [0, 1] * 20)
    said = [line.split(": loss")[0] for line in capsys.readouterr().err.splitlines()]
    assert said == [
        "epoch 1", "epoch 2", "refit 1/2, epoch 1", "refit 1/2, epoch 2", "refit 2/2, epoch 1", "refit 2/2, epoch 2"
    ]  # fmt: skip


def test_refits_are_numbered_in_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    module = FactorizationMachine(3, 2, 1, ModelConfig())
    epoch = Epoch(epoch=3, train_loss=0.5, valid_loss=None, valid_metrics={}, rows_per_second=10.0, seconds=1.0)
    with FitProgress(7, show="auto", stream=stream) as progress:
        progress.on_epoch(epoch, module)
        progress._bar.refresh()
        assert "epoch 3/7 " in stream.getvalue()
        progress.on_refit(2, 5)
        progress._bar.refresh()
        assert "refit 2/5, epoch 0/7 " in stream.getvalue()
        progress.on_epoch(epoch, module)
        progress._bar.refresh()
        assert "refit 2/5, epoch 3/7 " in stream.getvalue()


def test_trials_are_a_line_each_and_their_epochs_stand_in_the_bar_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    module = FactorizationMachine(3, 2, 1, ModelConfig())
    epoch = Epoch(epoch=3, train_loss=0.5, valid_loss=None, valid_metrics={}, rows_per_second=10.0, seconds=1.0)
    line = "trial 2/9: validation loss 0.5, 3 epochs: batch_size 1024, linear_decay 0.0123\n"
    for show, stream, seen in (
        ("auto", Terminal(), True), (True, Terminal(), True), (True, io.StringIO(), False),
        ("auto", io.StringIO(), None), (False, Terminal(), None),
    ):  # fmt: skip
        with TuningProgress(7, show=show, stream=stream) as progress:  # type: ignore[arg-type]
            progress.on_trial(2, 9)
            progress.on_epoch(epoch, module)
            if progress._bar:
                progress._bar.refresh()
            progress.on_tried("validation loss 0.5, 3 epochs", {"batch_size": 1024, "linear_decay": 0.01234})
            progress.on_winner(1)
        text = stream.getvalue().replace("\r", "")
        assert ("trial 2/9, epoch 3/7 " in text) == bool(seen)
        assert "epoch 3: loss" not in text
        assert (line.split(": batch")[0] in text) == (seen is not None)
        if seen is False:
            assert text == f"{line}training with the settings of trial 1\n"
        if seen is None:
            assert text == ""
