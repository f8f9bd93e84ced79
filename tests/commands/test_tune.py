"""The command tune: trials, a study beside the run, and going on after Ctrl-C."""

import json
import os
import re
import sys
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from attfm import cli
from attfm.cli import main
from attfm.commands.bundles import signature_of
from attfm.model.run_folder import load_model
from tests.forked import command, interrupt, needs_fork
from tests.shop import FAST, HEADER, shop_rows, write_csv, write_shop

FAST_TUNE = [*FAST[:-1], "--no-report"]  # not quiet
needs_optuna = pytest.mark.usefixtures("_optuna")


@pytest.fixture
def _optuna() -> None:
    pytest.importorskip("optuna")


def tune_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Run `attfm tune` quickly and return its JSON."""
    capsys.readouterr()
    assert main(["tune", *arguments, *FAST_TUNE, "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def kept_loss(run: str) -> float:
    """Return the validation loss of the epoch whose parameters a run has."""
    model = load_model(run)
    return float(model.history[int(model.facts.best_epoch or 0) - 1]["valid_loss"])


@needs_optuna
def test_tune_prints_trials_settings_metrics_and_what_to_do_next(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", shop, "--target", "bought", "--trials", "6", *FAST_TUNE]) == 0
    out, err = capsys.readouterr()
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "120 rows to train on; 40 for validation (20 %); 40 for test (20 %); split with seed 1234" in lines
    assert "study: runs/shop-tuned.study.db" in lines
    assert "setting as given best importance" in lines
    assert "metric valid test" in lines
    assert "saved: runs/shop-tuned" in lines
    told = err.splitlines()
    assert [line.split(":")[0] for line in told[:-1]] == [f"trial {n}/6" for n in range(1, 7)]
    assert told[0].startswith("trial 1/6: validation loss 0.")
    assert re.search(r", 3 epochs, \d+\.\d s, the best so far: batch_size ", told[0])
    assert "weight_dropout 0.4, " in told[0]
    model = load_model("runs/shop-tuned")
    facts = model.facts.tuning
    assert facts is not None
    assert told[-1] == f"training with the settings of trial {facts.best_trial}"
    assert facts.sentence in lines
    assert facts.sentence.startswith(f"6 trials, 0 of them given up early; best: trial {facts.best_trial}, validation ")
    assert f"- tuning: {facts.sentence}" in Path("runs/shop-tuned/README.md").read_text()
    assert kept_loss("runs/shop-tuned") == facts.validation_loss
    share = f"{100 * facts.importance['linear_ridge']:.0f} %"
    assert f"linear_ridge 2 {facts.settings['linear_ridge']:.4g} {share}" in lines
    assert sorted(os.listdir("runs")) == ["shop-tuned", "shop-tuned.study.db"]


@needs_optuna
def test_tune_json_is_one_object(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = tune_json(capsys, shop, "--target", "bought", "--trials", "2", "--study", "mine.db", "--out", "run")
    assert (result["run"], result["study"]) == ("run", "mine.db")
    tuning = result["training"]["tuning"]
    assert (tuning["trials"], tuning["importance"]) == (2, {})
    for name in ("weight_dropout", "linear_ridge"):
        (found,) = (section[name] for section in result["settings"].values() if name in section)
        assert found == tuning["settings"][name]
    assert result["settings"]["model"]["dim"] == 2
    assert set(result["metrics"]) == {"valid", "test"}
    assert sorted(os.listdir()) == ["mine.db", "run"]
    with_page = ["tune", shop, "--target", "bought", "--trials", "2", "--study", "mine.db", "--out", "run", *FAST]
    assert main(with_page) == 0
    assert "2 trials, 0 of them given up early" in Path("run/report.html").read_text()


@needs_optuna
def test_the_same_command_goes_on_and_replaces_its_own_run_alone(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (shop, "--target", "bought", "--out", "run")
    first = tune_json(capsys, *arguments, "--trials", "2")["training"]["tuning"]
    more = tune_json(capsys, *arguments, "--trials", "4")["training"]["tuning"]
    assert (first["trials"], more["trials"], more["study"]) == (2, 4, first["study"])
    assert more["as_given_loss"] == first["as_given_loss"]
    assert sorted(os.listdir()) == ["run", "run.study.db"]
    Path("run.study.db").rename("elsewhere.db")
    again = ["tune", *arguments, "--trials", "1", *FAST]
    assert main(again) == 2
    assert "'run' holds a run already: choose another --out, or replace it by --force." in capsys.readouterr().err
    assert main([*again, "--force"]) == 0
    assert load_model("run").facts.tuning.trials == 1  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def tried(shop: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a study of one trial and its run, for tests that work on a copy."""
    pytest.importorskip("optuna")
    folder = tmp_path_factory.mktemp("tried")
    command = ["tune", shop, "--target", "bought", "--out", str(folder / "run"), "--trials", "1", *FAST]
    assert main([*command, "--no-report"]) == 0
    return folder


@needs_optuna
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "town"], "was made for the target 'bought', not 'town': give another file for it"),
        (["--target", "bought", "--set", "patience=3"], "was made with patience=10, not patience=3"),
        (["--target", "bought", "--set", "smoothness=3"], "was made to tune 'batch_size', "),
        (["--target", "bought", "--split-seed", "3"], "was made of other rows: another table, another split"),
    ],
)
def test_a_study_of_something_else_is_refused(
    arguments: list[str], message: str, shop: str, tried: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copytree(tried, ".", dirs_exist_ok=True)
    before = Path("run/config.json").read_bytes()
    assert main(["tune", shop, *arguments, "--out", "run", "--trials", "2", *FAST]) == 2
    err = capsys.readouterr().err
    assert f"attfm: The study 'run.study.db' {message}" in err
    assert len(err.splitlines()) == 1
    assert Path("run/config.json").read_bytes() == before


@needs_optuna
def test_bad_use_is_told_before_anything_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    Path("notes.txt").write_text("mine")
    for arguments, message in (
        (["--valid", "none"], "--valid none leaves no rows to choose the settings by"),
        (["--study", "notes.txt"], "'notes.txt' is no study of attfm: give another file"),
        (["--study", "absent/s.db"], "There is no folder 'absent' for the study"),
    ):
        assert main(["tune", "there is no such table.csv", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert os.listdir() == ["notes.txt"]
    assert main(["tune", "adult", "--trials", "0"]) == 2


def test_tune_takes_all_options_of_train() -> None:
    train, tune = (signature_of(command).parameters for command in (cli.train, cli.tune))
    # A study goes on by its trials, encodes its rows once, keeps them in memory, and begins anew in one process.
    own = {"resume", "checkpoint_minutes", "checkpoint_steps", "dry_run", "stream", "cache",
           "from_", "half_life", "evict_unseen", "as_of", "refit_bins", "engine", "workers", "address"}  # fmt: skip
    assert set(tune) == {*train, "trials", "study"} - own
    other = {name for name in set(train) - own if train[name].annotation != tune[name].annotation}
    assert other == {"out", "data"}  # a study needs its table


def test_without_optuna_the_command_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["tune", "adult", "--trials", "1"]) == 1
    assert capsys.readouterr().err == "attfm: optuna is not installed: run 'pip install \"attfm[tune]\"'.\n"
    assert os.listdir() == []


@needs_optuna
@pytest.mark.parametrize(("target", "loss"), [("amount", "rmse"), ("likes", "log_loss")])
def test_numbers_and_several_classes_are_tuned_too(
    target: str, loss: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["row", "age", "job", "town", target, "weight"]
    path = write_csv(tmp_path / "t.csv", [[row[HEADER.index(n)] for n in names] for row in shop_rows()], names)
    result = tune_json(capsys, path, "--target", target, "--weight", "weight", "--trials", "2", "--seed", "3")
    assert kept_loss(result["run"]) == result["training"]["tuning"]["validation_loss"]
    assert loss in result["metrics"]["test"]
    assert result["settings"]["train"]["seed"] == 3


@needs_optuna
def test_interruption_says_where_the_trials_are(
    shop: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    arguments = ["tune", shop, "--target", "bought", "--trials", "2", "--out", "deep/run", *FAST_TUNE]
    with monkeypatch.context() as patched:
        patched.setattr("attfm.train.tuning.fit_prepared", interrupt)  # all trials have ended then
        assert main(arguments) == 130
    out, err = capsys.readouterr()
    assert "The trials that have ended are in deep/run.study.db: the same command goes on from there." in out
    assert err.splitlines()[-1] == "attfm: interrupted, nothing half-written is left."
    assert os.listdir("deep") == ["run.study.db"]
    assert main([*arguments, "--quiet"]) == 0
    assert sorted(os.listdir("deep")) == ["run", "run.study.db"]


@needs_fork
@needs_optuna
def test_after_ctrl_c_the_same_command_goes_on(tmp_path: Path) -> None:
    table = write_shop(tmp_path / "shop.csv")

    def tried(expected: range) -> str:
        """Run the command until these trials have ended, interrupt it, and return what it then says."""
        with command("tune", table, "--target", "bought", "--trials", "1000", *FAST_TUNE) as (process, stderr):
            for number in expected:
                line = stderr.readline()
                assert line.startswith(f"trial {number}/1000: validation loss "), line
            interrupt(process)
            rest = stderr.read()
        assert process.exitcode == 130
        assert "Traceback" not in rest
        assert rest.splitlines()[-1] == "attfm: interrupted, nothing half-written is left."
        return rest

    more = tried(range(1, 3)).count("trial ")  # that ended before it heard
    tried(range(3 + more, 5 + more))
    assert sorted(os.listdir()) == ["runs", "shop.csv"]
    assert os.listdir("runs") == ["shop-tuned.study.db"]
