"""Each kind of bad input: its sentence on stderr, exit code 2, and nothing left behind."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attfm.cli import main
from tests.shop import HEADER, shop_rows, write_csv, write_shop

KEPT = [HEADER.index(name) for name in ("age", "job", "town", "bought")]
NAMES = [HEADER[i] for i in KEPT]


def rows_with(column: str, value: Callable[[int], object]) -> list[list[object]]:
    """Return the shop's rows where `value` of the row number gives one column."""
    rows = [[row[i] for i in KEPT] for row in shop_rows()]
    for i, row in enumerate(rows):
        row[NAMES.index(column)] = value(i)
    return rows


def table_with(column: str, value: Callable[[int], object]) -> Callable[[Path], object]:
    return lambda path: write_csv(path, rows_with(column, value), NAMES)


def train_shop(folder: Path) -> None:
    table = write_shop(folder / "shop.csv")
    assert main(["train", table, "--target", "bought", "--id", "row", "--out", "run", "--set", "epochs=1", "-q"]) == 0


def ragged(path: Path) -> None:
    write_csv(path, [*rows_with("age", lambda i: i)[:30], [30, "cook", "town 1"]], NAMES)


def doubled(path: Path) -> None:
    write_csv(path, rows_with("age", lambda i: i), ["age", "job", "job", "bought"])


def huge_cell(path: Path) -> None:
    write_csv(path, rows_with("age", lambda i: "x" * 10_000_000 if i == 7 else i), NAMES)


def latin_1(path: Path) -> None:
    write_csv(path, rows_with("town", lambda i: "Orléans" if i == 7 else "Brest"), NAMES)
    path.write_bytes(path.read_text(encoding="utf-8").encode("latin-1"))


BAD: list[tuple[str, Callable[[Path], object], list[str], list[str]]] = [
    ("missing file", lambda path: None, [], ["There is no file", "table.csv"]),
    ("empty file", lambda path: path.write_text(""), [], ["table.csv is empty"]),
    ("header only", lambda path: path.write_text("age,job,town,bought\n"), [], ["table.csv", "no rows"]),
    ("ragged row", ragged, [], ["Line 32 of table.csv has 3 cells", "4 are expected"]),
    (
        "wrong separator",
        lambda path: write_csv(path, rows_with("age", lambda i: i), NAMES, separator=";"),
        ["--separator", ","],
        ["one column only", "--separator ';'"],
    ),
    ("absent target", table_with("age", lambda i: i), ["--target", "bougth"], ["'bougth'", "did you mean 'bought'?"]),
    ("constant target", table_with("bought", lambda i: "no"), [], ["Target 'bought' has one value only: 'no'"]),
    ("missing target", table_with("bought", lambda i: "yes" if i else ""), [], ["Target 'bought' is missing in 1"]),
    (
        "infinities",
        table_with("age", lambda i: "inf" if i in (3, 5) else i),
        [],
        ["Column 'age': 2 of 200 values are infinite (first: inf, row 3)"],
    ),
    ("duplicate column names", doubled, [], ["'job'", "table.csv"]),
    ("10 MB cell", huge_cell, [], ["Column 'age' has a value of 10,000,000 bytes in table.csv, row 7"]),
    ("latin-1", latin_1, [], ["table.csv is not UTF-8 text: byte 0xe9", "latin-1"]),
    ("weights that are none", table_with("age", lambda i: i - 1), ["--weight", "age"], ["'age'", "first: -1, row 0"]),
]


@pytest.mark.parametrize(("make", "options", "words"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_bad_tables(
    make: Callable[[Path], object],
    options: list[str],
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make(tmp_path / "table.csv")
    before = os.listdir()
    target = [] if "--target" in options else ["--target", "bought"]
    assert main(["train", "table.csv", *target, *options, "--set", "epochs=1"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("attfm: ")
    assert len(err.splitlines()) == 1
    assert len(err) < 1000
    for word in words:
        assert word in err
    assert os.listdir() == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[model]\ndimm = 4\n", ["Unknown setting 'dimm' in section [model] of 'settings.toml'", "'dim'"]),
        ("[modl]\ndim = 4\n", ["Unknown setting 'modl' in 'settings.toml'", "'model'"]),
        ("[model]\ndim = 0\n", ["Setting 'dim' in section [model] of 'settings.toml' is 0"]),
        ("[model]\npreset = ['fm']\n", ["Setting 'preset'", "['fm']"]),
        ("[train]\nbatch_size = 'big'\n", ["Setting 'batch_size'", "'big'"]),
        ("[model\ndim = 4\n", ["'settings.toml' is not TOML"]),
        ("[data.columns.jb]\nkind = 'ignored'\n", ["'jb'", "did you mean 'job'?"]),
        ("[data.columns.job]\nkind = 'categoric'\n", ["'categoric'", "did you mean 'categorical'?"]),
    ],
)
def test_bad_settings_files(text: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("settings.toml").write_text(text)
    write_shop(tmp_path / "shop.csv")
    assert main(["train", "shop.csv", "--target", "bought", "--config", "settings.toml"]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    for word in words:
        assert word in err
    assert sorted(os.listdir()) == ["settings.toml", "shop.csv"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dimm=4", ["Unknown setting 'dimm' in --set", "'dim'"]),
        ("model.epochs=4", ["Unknown setting 'epochs' in --set model.epochs=4"]),
        ("dim", ["--set dim is not key=value"]),
        ("columns=categorical", ["Setting 'columns'", "'categorical'"]),
        ("columns.job=categorical", ["--set columns.job=categorical names no setting"]),
        ("dim.size=3", ["Setting 'dim'"]),
        ("dim=1\ny=2", ["Setting 'dim'"]),
    ],
)
def test_bad_assignments(text: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "adult", "--set", text]) == 2
    err = capsys.readouterr().err
    for word in words:
        assert word in err


def test_settings_that_do_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "adult", "--config", "adult_2012"]) == 2
    assert "There is no settings file 'adult_2012': did you mean 'adult_2021'?" in capsys.readouterr().err


def test_values_of_another_type_at_predict_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_shop(tmp_path)
    write_csv(tmp_path / "new.csv", rows_with("age", lambda i: "old" if i == 4 else i), NAMES)
    for arguments in (["evaluate", "run", "new.csv"], ["predict", "run", "new.csv", "-o", "scores.csv"]):
        capsys.readouterr()
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert "Column 'age': 1 of 200 values is not a number (first: 'old', row 4)" in err
        assert len(err.splitlines()) == 1
        assert out == ""
    write_csv(tmp_path / "new.csv", rows_with("bought", lambda i: "perhaps" if i == 4 else "no"), NAMES)
    assert main(["evaluate", "run", "new.csv"]) == 2
    assert "(first: 'perhaps', row 4). Its classes are 'no', 'yes'." in capsys.readouterr().err
    assert sorted(os.listdir()) == ["new.csv", "run", "shop.csv"]


def test_a_bad_row_far_down_leaves_no_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_shop(tmp_path)
    monkeypatch.setattr("attfm.data.sources.source.MAX_BATCH_ROWS", 50)
    write_csv(tmp_path / "new.csv", rows_with("age", lambda i: np.inf if i == 180 else i), NAMES)
    (tmp_path / "scores.csv").write_text("older scores\n")
    assert main(["predict", "run", "new.csv", "-o", "scores.csv"]) == 2
    assert "row 180" in capsys.readouterr().err
    assert (tmp_path / "scores.csv").read_text() == "older scores\n"
    assert sorted(os.listdir()) == ["new.csv", "run", "scores.csv", "shop.csv"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("scores.xls", [".csv", ".parquet"]), ("absent/scores.csv", ["there is no folder"]), ("run", [".csv"])],
)
def test_scores_that_can_not_be_written(
    name: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_shop(tmp_path)
    assert main(["predict", "run", "shop.csv", "-o", name]) == 2
    err = capsys.readouterr().err
    for word in [name, *words]:
        assert word in err
    assert sorted(os.listdir()) == ["run", "shop.csv"]
