"""`attfm train --resume`: an interrupted training goes on, and nothing of it stays once it has ended."""

import json
from pathlib import Path
from typing import Any

import pytest

from attfm.cli import main
from attfm.commands.asked import Asked
from attfm.commands.interrupted import Interruptible, go_on
from attfm.config import Config, Reading
from attfm.train.observer import FitProgress
from tests.forked import needs_fork, start
from tests.kill import killed
from tests.shop import write_shop

QUICK = ("--set", "epochs=3", "--set", "dim=2", "--set", "batch_size=32", "--seed", "3", "--no-report")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    write_shop(tmp_path / "shop.csv", 300)
    return "shop.csv"


def interrupt(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """Let Ctrl-C come after so many batches."""
    seen = 0

    def on_batch(self: FitProgress, rows: int) -> None:
        nonlocal seen
        seen += 1
        if seen == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(FitProgress, "on_batch", on_batch)


def weights(run: str) -> bytes:
    return (Path(run) / "weights.safetensors").read_bytes()


def test_it_goes_on_after_ctrl_c_from_another_folder_and_leaves_nothing(
    shop: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = [shop, "--target", "bought", *QUICK, "--checkpoint-steps", "2"]
    assert main(["train", *options, "--out", "whole"]) == 0
    with monkeypatch.context() as patched:
        interrupt(patched, after=9)
        capsys.readouterr()
        assert main(["train", *options, "--out", "run"]) == 130
    assert "attfm train --resume run goes on" in capsys.readouterr().out.replace("\n", " ")
    assert not any((tmp_path / "run").glob("*"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["train", "--resume", "../run"]) == 0
    monkeypatch.chdir(tmp_path)
    assert weights("run") == weights("whole")
    kept, whole = (json.loads((Path(run) / "config.json").read_text()) for run in ("run", "whole"))
    assert kept["settings"] == whole["settings"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "run", "shop.csv", "whole"]


def test_without_a_checkpoint_nothing_stays(shop: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    interrupt(monkeypatch, after=3)
    assert main(["train", shop, "--target", "bought", *QUICK, "--out", "run"]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["shop.csv"]


def test_a_new_training_does_not_go_on_by_itself(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [shop, "--target", "bought", *QUICK, "--out", "run", "--checkpoint-steps", "1"]
    with monkeypatch.context() as patched:
        interrupt(patched, after=5)
        assert main(["train", *options]) == 130
    assert main(["train", *options, "--set", "dim=3"]) == 0  # else the checkpoints of dim 2 would be refused
    assert not Path("run.checkpoints").exists()


def test_a_folder_named_as_a_bundled_table_is_not_taken_for_it(shop: str) -> None:
    Path("adult").mkdir()
    asked = Asked("adult", Reading(), None, None, None, None, None, None, force=False, report=False)
    with Interruptible(Path("run"), asked, Config(), resumed=False):
        again, _ = go_on("run")
    assert again.data == "adult"


def changed_table(folder: Path) -> None:
    write_shop(Path("shop.csv"), 300, seed=5)


def lost_table(folder: Path) -> None:
    Path("shop.csv").unlink()


def damaged_options(folder: Path) -> None:
    (folder / "options.json").write_text('{"asked": {')


def other_options(folder: Path) -> None:
    (folder / "options.json").write_text('{"asked": {"data": "shop.csv"}, "config": {}}')


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (changed_table, "are of other rows or settings than these"),
        (lost_table, "There is no file"),
        (damaged_options, "is damaged"),
        (other_options, "is damaged"),
    ],
)
def test_what_can_not_go_on_is_told(
    harm: Any, sentence: str, shop: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        interrupt(patched, after=5)
        assert main(["train", shop, "--target", "bought", *QUICK, "--out", "run", "--checkpoint-steps", "1"]) == 130
    harm(Path("run.checkpoints"))
    capsys.readouterr()
    assert main(["train", "--resume", "run"]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--resume", "nowhere"], "There is no interrupted training of 'nowhere'"),
        (["adult", "--resume", "run"], "give it alone"),
        (["--resume", "run", "--seed", "0"], "give it alone"),
        (["--resume", "run", "--separator", ";"], "give it alone"),
        (["--resume", "run", "--checkpoint-steps", "5"], "give it alone"),
        ([], "Which table is to be trained on?"),
    ],
)
def test_wrong_uses_are_told(
    arguments: list[str], sentence: str, shop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *arguments]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


@needs_fork
def test_killed_at_random_moments_it_ends_as_if_nobody_had() -> None:
    # `make test-kill` kills two hundred, of longer trainings.
    process = start(killed, 20)
    process.join(200)
    assert process.exitcode == 0
