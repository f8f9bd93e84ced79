"""`attfm train --from RUN`: learns on, says what was new, and refuses in one sentence what does not fit."""

import json
from contextlib import chdir
from pathlib import Path
from shutil import copytree

import pytest

import attfm
from attfm.cli import main
from attfm.train.observer import FitProgress
from tests.shop import write_shop

QUICK = ("--set", "epochs=2", "--set", "dim=2", "--set", "n_models=1", "--seed", "3", "--no-report")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 300 rows, and a file of others, some of another town."""
    folder = tmp_path_factory.mktemp("made")
    write_shop(folder / "shop.csv", 300)
    write_shop(folder / "later.csv", 400)
    lines = (folder / "later.csv").read_text().splitlines()
    place = lines[0].split(",").index("town")
    for n in range(301, 401):
        cells = lines[n].split(",")
        cells[place] = "Utopia"
        lines[n] = ",".join(cells)
    (folder / "later.csv").write_text("\n".join([lines[0], *lines[201:401]]) + "\n")
    with chdir(folder):
        assert main(["train", "shop.csv", "--target", "bought", *QUICK, "--as-of", "2024-03-01", "--out", "run"]) == 0
    return folder


@pytest.fixture
def shop(made: Path, tmp_path: Path) -> Path:
    """A copy of these, in the folder where the test is."""
    copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_a_run_learns_on_and_says_what_was_new(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (shop / "run/config.json").read_bytes()
    capsys.readouterr()
    asked = ["train", "later.csv", "--from", "run", "--as-of", "2024-03-20", "--evict-unseen", "10", "--half-life", "5"]
    assert main([*asked, "--no-report", "--out", "next"]) == 0
    said = capsys.readouterr()
    assert "new values: town 1" in said.out
    assert "training 2 of this model, of rows up to 2024-03-20" in said.out
    assert "from which run learns on" in said.err + said.out
    assert (shop / "run/config.json").read_bytes() == before
    assert main([*asked, "--no-report", "--out", "again", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["training"]["trainings"] == 2
    assert told["training"]["new_values"] == {"town": 1}
    assert told["settings"]["model"]["dim"] == 2  # that of the run
    assert (shop / "next/weights.safetensors").read_bytes() == (shop / "again/weights.safetensors").read_bytes()
    model = attfm.load("next")
    assert "Utopia" in model.model_.encoder.feature_names(
        [field.name for field in model.model_.encoder.fields].index("town")
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["later.csv", "--half-life", "5"], "are for a run that learns on: add --from RUN"),
        (["later.csv", "--from", "nowhere"], "There is no run folder 'nowhere'"),
        (["later.csv", "--from", "run", "--target", "town"], "--target is 'town', but that of run is 'bought'"),
        (["later.csv", "--from", "run", "--weight", "age"], "--weight is 'age', but that of run is None"),
        (["later.csv", "--from", "run", "--set", "dim=8"], "Setting 'dim' is 8, but the model was trained with 2"),
        (["later.csv", "--from", "run", "--preset", "fm"], "Setting 'preset' is 'fm', but the model was trained"),
        (["later.csv", "--from", "run", "--as-of", "soon"], "as_of is 'soon': give a day as 2024-03-01"),
        (["later.csv", "--from", "run", "--as-of", "2024-02-01"], "rows are of 2024-02-01, but the model has learned"),
        (["later.csv", "--from", "run", "--half-life", "0"], "half_life is 0.0: give a number of days above 0"),
        (["later.csv", "--from", "run", "--target", "town", "--dry-run"], "--target is 'town', but that of run is"),
        (["odd.csv", "--from", "run", "--dry-run"], "1 of 200 labels were not seen in training"),
        (["few.csv", "--from", "run"], "lacks 1 of the "),
        (["odd.csv", "--from", "run"], "1 of 200 labels were not seen in training"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_leaves_nothing(
    shop: Path, options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (shop / "later.csv").read_text().splitlines()
    town, bought = (lines[0].split(",").index(name) for name in ("town", "bought"))
    rows = [line.split(",") for line in lines]
    (shop / "few.csv").write_text("\n".join(",".join([*row[:town], *row[town + 1 :]]) for row in rows))
    rows[5][bought] = "perhaps"
    (shop / "odd.csv").write_text("\n".join(",".join(row) for row in rows))
    capsys.readouterr()
    assert main(["train", *options, "--no-report", "--out", "next"]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.strip().splitlines()) == 1
    assert not (shop / "next").exists()


def test_rows_on_disk_are_learned_from(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["train", "later.csv", "--from", "run", "--as-of", "2024-03-20", "--no-report", "--stream"]
    assert main([*asked, "--out", "next"]) == 0
    assert "new values: town 1" in capsys.readouterr().out
    assert main([*asked, "--out", "again"]) == 0
    said = capsys.readouterr()
    assert "found, encoded before" in said.out + said.err
    assert (shop / "next/weights.safetensors").read_bytes() == (shop / "again/weights.safetensors").read_bytes()
    assert main(["evaluate", "next", "later.csv"]) == 0


def test_an_interrupted_one_goes_on_to_the_same_weights(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["train", "later.csv", "--from", "run", "--as-of", "2024-03-20", "--no-report", "--checkpoint-steps", "2"]
    assert main([*asked, "--out", "whole"]) == 0
    seen, on_batch = 0, FitProgress.on_batch

    def interrupted(self: FitProgress, rows: int) -> None:
        nonlocal seen
        seen += 1
        if seen == 5:
            raise KeyboardInterrupt
        on_batch(self, rows)

    with monkeypatch.context() as patched:
        patched.setattr(FitProgress, "on_batch", interrupted)
        assert main([*asked, "--out", "broken"]) == 130
    monkeypatch.chdir(shop.parent)
    assert main(["train", "--resume", str(shop / "broken")]) == 0
    assert (shop / "whole/weights.safetensors").read_bytes() == (shop / "broken/weights.safetensors").read_bytes()
    capsys.readouterr()


def test_rows_of_one_class_are_learned_from(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (shop / "later.csv").read_text().splitlines()
    bought = lines[0].split(",").index("bought")
    (shop / "yes.csv").write_text("\n".join(line for line in lines if line.split(",")[bought] in ("bought", "yes")))
    assert main(["train", "yes.csv", "--from", "run", "--no-report", "--out", "next"]) == 0
    assert "log loss" in capsys.readouterr().out
