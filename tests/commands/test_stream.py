"""`attfm train --stream`: folders of files, a cache that is found again, and what is said where a file is bad."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from attfm.cli import main
from attfm.commands.passes import Passes
from attfm.data.rows_writer import RowsWriter
from attfm.model.run_folder import load_model
from attfm.train.plan import available_memory, bytes_in_memory
from tests.shop import HEADER, shop_rows, write_csv

QUICK = ("--target", "bought", "--id", "amount", "--set", "epochs=3", "--set", "dim=2", "--seed", "1", "--no-report")


@pytest.fixture
def clicks(tmp_path: Path) -> str:
    for day in range(3):
        folder = tmp_path / "clicks" / f"day={day}"
        folder.mkdir(parents=True)
        write_csv(folder / "part.csv", shop_rows(200, seed=day))
    return str(tmp_path / "clicks")


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_a_folder_of_text_is_trained_on_from_disk(
    clicks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", clicks, *QUICK, "--stream", "--out", "runs/a"]) == 0
    said = capsys.readouterr().out
    assert "clicks: 600 rows, target 'bought'" in said
    assert "encoding: 600 rows in" in said
    assert "encoded into runs/.attfm-cache/" in said
    again = told(capsys, "train", clicks, *QUICK, "--stream", "--out", "runs/b")
    assert len(list(Path("runs/.attfm-cache").iterdir())) == 1
    assert again["training"]["rows"] == 600
    assert {column["name"] for column in again["columns"]} == {*HEADER, "day"}
    one, other = (Path(run, "weights.safetensors").read_bytes() for run in ("runs/a", "runs/b"))
    assert one == other
    metrics = told(capsys, "evaluate", "runs/a", clicks, "--group-by", "day")["metrics"]
    assert metrics["auc"] > 0.6
    assert metrics["auc_by_day"] > 0.6
    assert main(["predict", "runs/a", clicks, "-o", "scores.parquet", "--id", "row", "--id", "day"]) == 0
    scores = pq.read_table("scores.parquet")
    assert scores.num_rows == 600
    assert set(scores["day"].to_pylist()) == {"0", "1", "2"} or set(scores["day"].to_pylist()) == {0, 1, 2}
    first = pacsv.read_csv(f"{clicks}/day=0/part.csv").append_column("day", [[0] * 200])
    assert load_model("runs/a").predict_proba(first)[:, 1] == pytest.approx(
        scores.to_pandas().iloc[:200, -1 if scores.schema.names[-1].startswith("p") else -2], abs=1e-6
    )


def test_the_report_and_weights_of_a_streamed_run(clicks: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = [option for option in QUICK if option != "--no-report"]
    run = told(capsys, "train", clicks, *options, "--weight", "weight", "--stream", "--cache", "c", "--out", "r")
    assert len(list(Path("c").iterdir())) == 1
    page = Path(run["report"]).read_text()
    assert "clicks (test rows)" in page


def test_bad_files_are_named_or_left_out(clicks: str, capsys: pytest.CaptureFixture[str]) -> None:
    bad = Path(clicks, "day=1", "part.csv")
    bad.write_text(bad.read_text() + "1,2\n")
    assert main(["train", clicks, *QUICK, "--out", "a"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Line 202 of part.csv" in error
    assert not Path("a").exists()
    assert main(["train", clicks, *QUICK, "--skip-bad-files", "--stream", "--out", "a"]) == 0
    said = capsys.readouterr()
    assert "400 rows" in said.out
    assert "Left out: Line 202 of part.csv" in said.err


def test_nothing_stays_where_the_table_is_bad(clicks: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, sentence in (
        (["--target", "bougth"], "bougth"),
        (["--target", "bought", "--weight", "amount", "--id", "likes"], "Weight column 'amount'"),
        (["--target", "bought", "--set", "negative_rate=0"], "negative_rate"),
    ):
        assert main(["train", clicks, *arguments, "--stream", "--out", "r", "--cache", "c"]) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
        assert not Path("r").exists()
        assert not Path("r.checkpoints").exists()
        assert not Path("c").exists() or not list(Path("c").iterdir())


def test_a_cache_that_cannot_be_written_is_one_sentence(clicks: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("c").write_text("a file")
    assert main(["train", clicks, *QUICK, "--stream", "--cache", "c", "--out", "r"]) == 2
    error = capsys.readouterr().err
    assert "The cache 'c' can't be written" in error
    assert error.count("\n") == 1


def interrupt(monkeypatch: pytest.MonkeyPatch, error: type[BaseException], *, after: int) -> None:
    """Let the writing of encoded rows fail after so many batches, of 50 rows."""
    monkeypatch.setattr("attfm.data.sources.source.MAX_BATCH_ROWS", 50)
    monkeypatch.setattr("attfm.train.safe_point.SECONDS", 0.0)
    add, calls = RowsWriter.add, 0

    def failing(self: RowsWriter, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 3 * after:  # three parts
            raise error(errno.ENOSPC, os.strerror(errno.ENOSPC))
        add(self, *arguments)

    monkeypatch.setattr(RowsWriter, "add", failing)


@pytest.mark.parametrize("checkpoints", [True, False])
@pytest.mark.parametrize(("error", "code"), [(OSError, 2), (KeyboardInterrupt, 130)])
def test_an_interrupted_encoding_goes_on_as_it_says(
    clicks: str, error: type[BaseException], code: int, checkpoints: bool, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    clicks = os.path.relpath(clicks)  # --resume has it absolute
    options = [clicks, *QUICK, "--stream", *([] if checkpoints else ["--checkpoint-minutes", "0"])]
    with monkeypatch.context() as patched:
        interrupt(patched, error, after=5)
        assert main(["train", *options, "--out", "runs/a"]) == code
        said = capsys.readouterr()
    again = "attfm train --resume runs/a" if checkpoints else "the same command"
    assert f"What was done is kept in runs/.attfm-cache: {again} goes on." in said.out
    assert code == 130 or "make room there, or choose another folder. What was done is kept there." in said.err
    assert Path("runs/a.checkpoints/options.json").exists() == checkpoints
    assert not Path("runs/a").exists()
    assert main(["train", *(["--resume", "runs/a"] if checkpoints else [*options, "--out", "runs/a"])]) == 0
    said = capsys.readouterr()
    assert "looking at the columns" not in said.out
    assert "encoding, from row 250 on: 350 rows in" in said.out
    assert "250 of them encoded by a training that was interrupted; encoded into" in said.out
    assert not Path("runs/a.checkpoints").exists()
    assert main(["train", *options, "--out", "other/b"]) == 0
    one, other = (Path(run, "weights.safetensors").read_bytes() for run in ("runs/a", "other/b"))
    assert one == other
    assert len(list(Path("runs/.attfm-cache").iterdir())) == 1


def test_what_is_said_of_a_file_that_can_not_be_read_any_more(
    clicks: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, passes = Path(clicks, "day=2", "part.csv"), Passes.__call__

    def harming(self: Passes, batches: Any, rows: int | None, what: str) -> Any:
        if what == "encoding":
            file.rename("elsewhere")
        return passes(self, batches, rows, what)

    with monkeypatch.context() as patched:
        patched.setattr(Passes, "__call__", harming)
        assert main(["train", clicks, *QUICK, "--stream", "--out", "a"]) == 2
    said = capsys.readouterr()
    assert "part.csv can't be read" in said.err
    assert "What was done is kept in .attfm-cache: attfm train --resume a goes on. A table with a changed" in said.out
    Path("elsewhere").rename(file)
    assert main(["train", "--resume", "a"]) == 0
    assert "encoding, from row 400 on" in capsys.readouterr().out


def test_small_tables_stay_in_memory_and_huge_ones_do_not() -> None:
    assert bytes_in_memory(48_842, 14) < 0.1 * available_memory()
    assert bytes_in_memory(10**9, 39) > available_memory()
