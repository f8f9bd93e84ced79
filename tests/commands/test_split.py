"""`attfm train --split`: in order of time, and by whole groups."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from attfm.cli import main
from attfm.commands import train_in_memory as command
from attfm.data.sources.files import DataFile
from attfm.data.split import Split
from attfm.model.facts import RunFacts, SplitFacts
from attfm.model.run_folder import load_model
from attfm.train.fit import Fitted, fit
from attfm.train.prepare import Tables
from tests.shop import HEADER, shop_rows, train_json, write_csv

NAMES = ["row", "age", "job", "bought", "day", "user"]
MISSING = "Column 'day', by which rows are split: 2 of 200 times are missing (first: row 3). Give every row a time"


def days(rows: int = 200, *, seed: int = 4) -> np.ndarray[Any, Any]:
    """Return a day of 2024 for each row, in no order."""
    return np.datetime64("2024-01-01") + np.random.default_rng(seed).integers(0, 300, rows)


def table_rows() -> list[list[object]]:
    columns = [HEADER.index(name) for name in NAMES[:4]]
    return [[*(row[i] for i in columns), str(days()[n]), f"user {n % 23}"] for n, row in enumerate(shop_rows())]


@pytest.fixture
def visits(tmp_path: Path) -> str:
    """Return the path of a CSV with a day and a user in each row."""
    return write_csv(tmp_path / "visits.csv", table_rows(), NAMES)


@pytest.fixture
def split(monkeypatch: pytest.MonkeyPatch) -> list[Split]:
    """Return the list to which the split of each training is added."""
    seen = list[Split]()

    def watched(tables: Tables, *arguments: Any, **options: Any) -> Fitted:
        seen.append(tables.split)
        return fit(tables, *arguments, **options)

    monkeypatch.setattr(command, "fit", watched)
    return seen


def test_training_sees_nothing_of_the_future(
    visits: str, split: list[Split], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--target", "bought", "--split", "time:day", "--test", "0.25", "--valid", "0.1", "--set", "epochs=2"]
    assert main(["train", visits, *arguments, "--out", "run"]) == 0
    said = capsys.readouterr().out
    (parts,) = split
    assert parts.valid is not None
    assert parts.test is not None
    day = days()
    assert day[parts.train].max() < day[parts.valid].min()
    assert day[parts.valid].max() < day[parts.test].min()
    sizes = [len(part) for part in (parts.train, parts.valid, parts.test)]
    assert sum(sizes) == 200
    assert sizes == pytest.approx([130, 20, 50], abs=2)  # rows of one day stay together
    told = [f"{sizes[0]} rows to train on", f"{sizes[1]} for validation ({sizes[1] / 2:.3g} %)"]
    assert f"{'; '.join(told)}; {sizes[2]} for test ({sizes[2] / 2:.3g} %); split by the time in 'day'\n" in said
    model = load_model("run")
    assert "day.month" in [field.name for field in model.encoder.fields]  # a column to split by is an input still
    table = pacsv.read_csv(visits).take(parts.test)
    auc = roc_auc_score(table["bought"].to_pylist(), model.predict_proba(table)[:, 1])
    assert model.metrics["test"]["auc"] == pytest.approx(auc, abs=1e-9)


def test_groups_are_on_one_side(visits: str, split: list[Split], capsys: pytest.CaptureFixture[str]) -> None:
    result = train_json(capsys, visits, "--target", "bought", "--split", "group:user", "--id", "user")
    train_json(capsys, visits, "--target", "bought", "--split", "group:user", "--id", "user", "--split-seed", "5")
    for parts in split:
        users = [set(np.arange(200)[part] % 23) for part in (parts.train, parts.valid, parts.test)]
        assert sum(map(len, users)) == len(set.union(*users)) == 23
    assert set(split[0].test) != set(split[1].test)
    assert result["training"]["split"] == {"valid": 0.2, "test": 0.2, "seed": 1234, "by": "group:user"}
    assert {column["name"]: column["kind"] for column in result["columns"]}["user"] == "ignored"
    assert main(["train", visits, "--target", "bought", "--split", "group:user", "--set", "epochs=1"]) == 0
    assert "split by whole groups of 'user' with seed 1234" in capsys.readouterr().out


def test_the_split_is_kept_and_prediction_needs_nothing_of_it(visits: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = train_json(capsys, visits, "--target", "bought", "--split", "time:day", "--id", "day", "--id", "user")
    folder = Path(result["run"])
    assert result["settings"]["train"]["split"] == "time:day"
    model = load_model(folder)
    assert model.facts.split == SplitFacts(valid=0.2, test=0.2, seed=1234, by="time:day")
    assert "time:day" in (folder / "README.md").read_text()
    bare = write_csv(folder.parent / "bare.csv", [row[:4] for row in table_rows()], NAMES[:4])
    assert main(["evaluate", str(folder), bare]) == 0
    assert main(["predict", str(folder), bare, "-o", "scores.csv"]) == 0


def test_facts_of_older_runs_know_no_column() -> None:
    facts = RunFacts.model_validate({"split": {"valid": 0.2, "test": None, "seed": 1234}})
    assert isinstance(facts.split, SplitFacts)
    assert facts.split.by is None


def test_both_kinds_of_file_and_all_ways_to_say_it_split_alike(
    visits: str, split: list[Split], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pacsv.read_csv(visits), tmp_path / "visits.parquet")
    (tmp_path / "settings.toml").write_text('[train]\nsplit = "time:day"\n')
    for table, *arguments in (
        (visits, "--split", "time:day"),
        (str(tmp_path / "visits.parquet"), "--split", "time:day"),
        (visits, "--set", "split=time:day"),
        (visits, "--config", "settings.toml"),
        (visits, "--config", "settings.toml", "--set", "split=none", "--split", "time:day"),
    ):
        train_json(capsys, table, "--target", "bought", *arguments)
    for parts in split[1:]:
        for name in ("train", "valid", "test"):
            np.testing.assert_array_equal(getattr(parts, name), getattr(split[0], name))
    train_json(capsys, visits, "--target", "bought", "--config", "settings.toml", "--set", "split=none")
    assert split[-1].grouping.by_chance


def test_the_split_column_may_be_kept_from_the_model_and_still_names_the_same_rows(
    visits: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # An ignored column is read as text later, when a run is trained again.
    for by in ("time:day", "group:user"):
        run = train_json(capsys, visits, "--target", "bought", "--split", by, "--id", "day", "--id", "user")["run"]
        assert main(["explain", run, visits, "--check", "--seeds", "1", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["check"]["seeds"]["refits"] == 1


def test_a_csv_is_read_no_more_often_for_a_split(
    visits: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = []
    open_text = DataFile.open_text

    def counted(file: DataFile) -> object:
        opened.append(file.name)
        return open_text(file)

    monkeypatch.setattr(DataFile, "open_text", counted)
    train_json(capsys, visits, "--target", "bought", "--split", "time:day")
    assert len(opened) == 3


def test_adult_can_be_split_otherwise(split: list[Split], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--preset", "linear", "--set", "epochs=1", "--no-report", "-q", "--json"]
    assert main(["train", "adult", "--split", "time:age", *options]) == 0
    facts = json.loads(capsys.readouterr().out)["training"]
    assert facts["split"]["by"] == "time:age"
    assert split[0].grouping.times is not None
    assert split[0].grouping.times[split[0].train].max() < split[0].grouping.times[split[0].valid].min()


@pytest.mark.parametrize(
    ("split_by", "said"),
    [
        ("time:dya", "There is no split column 'dya' in visits.csv (did you mean 'day'?)"),
        ("tme:day", "'split' in section [train] of the settings is 'tme:day': give time:COLUMN (past, then future) or"),
        ("day", "is 'day': give time:COLUMN"),
        ("time:", "is 'time:': give time:COLUMN"),
        ("group:bought", "Split 'group:bought': 'bought' is the target. Split by another column."),
        (
            "time:job",
            "'job', by which rows are split in order of time: 200 of 200 values are neither dates nor numbers",
        ),
    ],
)
def test_bad_splits_are_one_sentence(split_by: str, said: str, visits: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", visits, "--target", "bought", "--split", split_by, "--out", "run"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert not Path("run").exists()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_missing_times_are_told(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = table_rows()
    for row in (3, 170):
        rows[row][4] = None
    table = pa.Table.from_pylist([dict(zip(NAMES, row, strict=True)) for row in rows])
    pq.write_table(table, "visits.parquet")
    write_csv(tmp_path / "visits.csv", rows, NAMES)
    assert main(["train", f"visits.{suffix}", "--target", "bought", "--split", "time:day"]) == 2
    assert MISSING in capsys.readouterr().err
