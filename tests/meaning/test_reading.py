"""How the text of a table is read: options, kept by the run; sentences about numbers that are not quite numbers."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attfm import load
from attfm.cli import main
from attfm.model.run_folder import load_model

ROWS = 120
QUICK = ["--set", "epochs=1", "--set", "learning_rate=0.05", "--set", "dim=2", "--set", "attention_dim=2"]
NUMBERS = np.random.default_rng(0).normal(5_000, 2_500, ROWS).round(2)
Written = Callable[[float, int], str]


def one_bad(x: float, i: int) -> str:
    return "12..5" if i == 17 else f"{x}"


def comma(x: float, i: int) -> str:
    return f"{x:.1f}".replace(".", ",")


def german(x: float, i: int) -> str:
    return f"{x:,.2f}".translate(str.maketrans(",.", ".,"))


def day(x: float, i: int) -> str:
    return f"{i % 28 + 1:02}/{i % 12 + 1:02}/2024"


def write(path: Path, cell: Written, *, target: bool = False, before: str = "") -> str:
    """Write a file of a column of numbers beside a label, or as the target beside a number."""
    labels = [str(i % 7) if target else "no" if x < 5_000 else "yes" for i, x in enumerate(NUMBERS)]
    lines = [f"{cell(x, i)};{label}" for i, (x, label) in enumerate(zip(NUMBERS.tolist(), labels, strict=True))]
    path.write_text(before + "\n".join(["y;x" if target else "x;y", *lines]) + "\n")
    return str(path)


def train(file: str, run: Path, *options: str) -> int:
    return main(["train", file, "--target", "y", "--out", str(run), "-q", "--no-report", *QUICK, *options])


ALMOST = [
    (one_bad, r"119 of 120 values are numbers, 1 is not \(first: '12\.\.5', line 19\)"),
    (lambda x, i: "-" if i % 10 == 3 else f"{x}", r"108 of 120 .*, 12 are not \(first: '-', line 5\).*by --null='-'"),
    (lambda x, i: f"{x:,.2f}", r"120 of 120 values are numbers with a thousands separator .*Give --thousands ,, or"),
    (comma, r"numbers with a decimal comma \(first: '.*', line 2\).*Give --decimal ','"),
    (german, r"a decimal comma and a thousands separator .*Give --decimal ',' --thousands \., or"),
    (lambda x, i: f"${x:,.0f}", r"a percent or currency sign and a thousands separator .*Give --thousands , --signs"),
    (lambda x, i: f"{x / 100:.1f}%", r"numbers with a percent or currency sign .*Give --signs"),
    (lambda x, i: f"{x:.0f} kg", r"numbers with the unit 'kg' .*Strip the unit 'kg'"),
    (day, r"dates with the day first .*Give --day-first"),
    (lambda x, i: f"{i % 12 + 1}/{i % 28 + 1}/2024", r"dates with the month first .*Give --month-first"),
    (lambda x, i: "soon" if i == 3 else f"2024-03-{i % 28 + 1:02}", r"119 of 120 values are dates, .*first: 'soon'"),
]  # fmt: skip


@pytest.mark.parametrize(("cell", "sentence"), ALMOST)
def test_text_that_is_mostly_numbers_or_dates_is_told(
    cell: Written, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "t.csv", cell)
    assert train(file, tmp_path / "run") == 0
    told = capsys.readouterr().err
    assert told.startswith("attfm: warning: Column 'x': ")
    assert len(told.splitlines()) == 1
    assert re.search(sentence, told), told
    # Whoever says that they are categories hears nothing.
    assert train(file, tmp_path / "declared", "--set", "columns.x.kind=categorical") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "cell",
    [
        lambda x, i: ("0001", "0002", "A-17")[i % 3],  # codes
        lambda x, i: ("cook", "clerk", "12")[i % 3],
        lambda x, i: f"{i % 100:05}",
        lambda x, i: f"{x}",
    ],
)
def test_words_codes_and_numbers_are_not_told_of(
    cell: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(write(tmp_path / "t.csv", cell), tmp_path / "run") == 0
    assert capsys.readouterr().err == ""


def test_zero_padded_digits_are_categories_and_say_why(tmp_path: Path) -> None:
    assert train(write(tmp_path / "t.csv", lambda x, i: f"{i % 30:05}"), tmp_path / "run") == 0
    column = load_model(tmp_path / "run").schema.columns[0]
    assert (column.kind, column.arrow_type) == ("categorical", "string")
    assert column.reason == "string, 30 distinct values, some of them digits after a zero"


TARGETS = [
    (one_bad, "Target 'y': 119 of 120 values are numbers, but it is text (first: '12..5', row 17)"),
    (lambda x, i: f"{x:,.2f}", "Target 'y': 120 of 120 values are numbers with a thousands separator, but it is text"),
    (lambda x, i: f"{x} kg", "Target 'y': 120 of 120 values are numbers with the unit 'kg', but it is text"),
]  # fmt: skip


@pytest.mark.parametrize(("cell", "sentence"), TARGETS)
def test_a_target_of_almost_numbers_is_not_hundreds_of_classes(
    cell: Written, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(write(tmp_path / "t.csv", cell, target=True), tmp_path / "run") == 2
    told = capsys.readouterr().err
    assert told.startswith(f"attfm: {sentence}")
    assert "or declare its classes by --set task=multiclass." in told
    assert not (tmp_path / "run").exists()


OPTIONS: list[tuple[Written, list[str], str, str]] = [
    (lambda x, i: "-999" if i % 9 == 1 else f"{x}", ["--null=-999"], "", "double"),
    (lambda x, i: "?" if i % 9 == 1 else f"{x}", ["--null", "?"], "", "double"),
    (lambda x, i: f"{x:,.2f}", ["--thousands", ","], "", "double"),
    (comma, ["--decimal", ","], "", "double"),
    (german, ["--decimal", ",", "--thousands", "."], "", "double"),
    (lambda x, i: f"${x:,.0f}", ["--signs", "--thousands", ","], "", "int64"),
    (lambda x, i: f"{x / 100:.1f}%", ["--signs"], "", "double"),
    (day, ["--day-first"], "", "timestamp[us]"),
    (lambda x, i: f"{x}", ["--comment", "#"], "# of May; with a note\n", "double"),
    (lambda x, i: f"{x}", ["--skip-rows", "2"], "of May\nand June\n", "double"),
    (lambda x, i: ("NA", "DE", "FR")[i % 3], ["--keep", "NA"], "", "string"),
    (lambda x, i: f"{x}", [], "sep=;\n", "double"),  # as Excel writes it
]


@pytest.mark.parametrize(("cell", "options", "before", "type_"), OPTIONS)
def test_how_a_table_was_read_holds_for_later_ones(
    cell: Written, options: list[str], before: str, type_: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = write(tmp_path / "t.csv", cell, before=before), str(tmp_path / "run")
    assert train(file, tmp_path / "run", *options) == 0
    assert load_model(run).schema.columns[0].arrow_type == type_
    capsys.readouterr()

    def measured(*again: str) -> dict[str, Any]:
        assert main(["evaluate", run, file, "--json", *again]) == 0
        result: dict[str, Any] = json.loads(capsys.readouterr().out)["metrics"]
        return result

    assert measured() == measured(*options)
    for command in (["predict", run, file], ["explain", run, file, "--rows", "2"]):
        assert main(command) == 0
        without = capsys.readouterr()
        assert main([*command, *options]) == 0
        assert capsys.readouterr() == without
    assert main(["report", run, "--data", file, "-o", str(tmp_path / "report.html")]) == 0
    assert main(["explain", run, file, "--check"]) == 0
    # A loaded model reads a file's path likewise, and one cell alone.
    model = load_model(run)
    logits = model.logits(file)
    np.testing.assert_array_equal(model.logits({"x": cell(float(NUMBERS[1]), 1)})[0], logits[1])
    np.testing.assert_array_equal(
        load(run).predict_proba([{"x": cell(float(NUMBERS[1]), 1)}])[0], model.predict_proba(file)[1]
    )


def test_names_encoding_and_separator_are_kept_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{i % 9}^{'Köln' if i % 2 else 'Rom'}^{'ja' if i % 3 else 'nein'}" for i in range(ROWS)]
    file, run = tmp_path / "t.data", str(tmp_path / "run")
    file.write_bytes("\n".join(rows).encode("latin-1"))
    options = ["--names", "n,town,y", "--encoding", "latin-1", "--separator", "^"]
    assert train(str(file), tmp_path / "run", *options) == 0
    assert load_model(run).schema.reading.names == ("n", "town", "y")

    def predicted(*options: str) -> str:
        capsys.readouterr()
        assert main(["predict", run, str(file), *options]) == 0
        return capsys.readouterr().out

    expected = predicted()
    # Given again, an option takes the place of the run's: else Köln is read as another town.
    file.write_bytes("\n".join(rows).encode("utf-8"))
    assert predicted() != expected
    assert predicted("--encoding", "utf-8") == expected


def test_ids_come_out_as_the_cells_stood(tmp_path: Path) -> None:
    cells = ["000001", "1.10", "2024-03-01", "False", "NA", " x ", "", "7", "1e3", "null"]
    rows = [f"{cells[i % 10]},{i % 7},{'no' if i % 2 else 'yes'}" for i in range(50)]
    file, run, scores = tmp_path / "t.csv", str(tmp_path / "run"), tmp_path / "scores.csv"
    file.write_text("id,x,y\n" + "\n".join(rows) + "\n")
    assert train(str(file), tmp_path / "run", "--id", "id") == 0
    assert main(["predict", run, str(file), "--id", "id", "-o", str(scores), "-q"]) == 0
    with scores.open(newline="") as stream:
        told = [row["id"] for row in csv.DictReader(stream)]
    assert told == [cells[i % 10] for i in range(50)]
    # Also where they are those of an input.
    file.write_text("x,y\n" + "".join(f"{i % 7},{'no' if i % 2 else 'yes'}\n" for i in range(50)))
    assert train(str(file), tmp_path / "inputs") == 0
    file.write_text("x\n007\n3.0\n 5\n")
    assert main(["predict", str(tmp_path / "inputs"), str(file), "--id", "x", "-o", str(scores), "-q"]) == 0
    with scores.open(newline="") as stream:
        assert [row["x"] for row in csv.DictReader(stream)] == ["007", "3.0", " 5"]
    file.write_text("x\n007\n5\n")  # all of them whole numbers
    assert main(["predict", str(tmp_path / "inputs"), str(file), "--id", "x", "-o", str(scores), "-q"]) == 0
    with scores.open(newline="") as stream:
        assert [row["x"] for row in csv.DictReader(stream)] == ["007", "5"]


def test_a_comment_and_a_total_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{i},{i % 5},{'ab'[i % 2]}\n" for i in range(60))
    file = tmp_path / "t.csv"
    file.write_text("# of May\nx,z,y\n" + rows)
    assert train(str(file), tmp_path / "run") == 2
    assert "The first line of t.csv looks like a comment: '# of May'. Pass comment='#'" in capsys.readouterr().err
    file.write_text("x,z,y\n" + rows + "Total,\n")
    assert train(str(file), tmp_path / "run") == 2
    assert "Line 62 of t.csv has 2 cells, but 3 are expected: 'Total,'. It is the last row: remove it" in (
        capsys.readouterr().err
    )
    file.write_text("#,z,y\n" + rows)  # a column may be called so
    assert train(str(file), tmp_path / "run") == 0


@pytest.mark.parametrize("layout", ["fields", "bag"])
def test_the_layout_of_libsvm_is_that_of_the_model(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = tmp_path / "t.libsvm", str(tmp_path / "run")
    extra = "" if layout == "fields" else " 99:0.5"
    lines = [f"{i % 2} {i % 4}:1 {10 + i % 3}:1{extra if i % 7 == 1 else ''}" for i in range(60)]
    file.write_text("\n".join(lines) + "\n")
    assert main(["train", str(file), "--out", run, "-q", "--no-report", *QUICK]) == 0
    assert (load_model(run).schema.inputs[0].name == "f0") == (layout == "fields")
    whole = load_model(run).logits(str(file))
    single = tmp_path / "one.libsvm"
    for text in (lines[1], lines[1].partition(" ")[2]):  # with a label, and without
        single.write_text(text + "\n")
        np.testing.assert_array_equal(load_model(run).logits(str(single))[0], whole[1])
        assert main(["predict", run, str(single)]) == 0
    capsys.readouterr()
    asked = tmp_path / "asked"
    assert main(["train", str(file), "--out", str(asked), "-q", "--no-report", *QUICK, "--layout", "bag"]) == 0
    assert [column.name for column in load_model(asked).schema.inputs] == ["features"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--decimal", ";"], "Setting 'decimal' in the options is ';'"),
        (["--thousands", ".."], "Setting 'thousands' in the options is '..'"),
        (["--thousands", "."], "thousands='.' can't be used with decimal='.' in the options"),
        (["--comment", "##"], "Setting 'comment' in the options is '##'"),
        (["--skip-rows", "-1"], "Setting 'skip_rows' in the options is -1"),
    ],
)
def test_bad_options_are_told(
    options: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(write(tmp_path / "t.csv", lambda x, i: f"{x}"), tmp_path / "run", *options) == 2
    assert sentence in capsys.readouterr().err
