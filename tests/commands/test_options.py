"""What all commands share: options, help, bad usage, tracebacks."""

import json
import os
import re
from pathlib import Path

import pytest

import attfm
from attfm.cli import main
from attfm.commands.bundles import arguments_of, signature_of
from attfm.commands.console import Output
from attfm.config import Reading
from tests.shop import shop_rows, train_json, write_csv


def test_errors_have_a_traceback_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "absent.csv", "--target", "y", "--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1] == "attfm: There is no file absent.csv."


TEXT = ("--names", "--separator", "--encoding", "--null", "--skip-rows")
OUTPUT = ("--json", "--quiet", "-q", "--debug")
SHARED = {
    "train": TEXT + OUTPUT,
    "tune": TEXT + OUTPUT,
    "evaluate": TEXT + OUTPUT,
    "predict": TEXT + OUTPUT,
    "explain": TEXT + OUTPUT,
    "report": TEXT + OUTPUT,
    "export": OUTPUT,
    "serve": OUTPUT,
    "reproduce": OUTPUT,
    "datasets": ("--json", "--debug"),
}


@pytest.mark.parametrize("command", list(SHARED))
def test_every_command_has_help_with_an_example_and_the_shared_options(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"attfm {command}" in out.split("Example", 1)[1]
    listed = [word for line in out.splitlines() if line.startswith("│") for word in line.split()]
    assert [option for option in (*OUTPUT, *TEXT) if option in listed] == [
        option for option in (*OUTPUT, *TEXT) if option in SHARED[command]
    ]
    assert ("Reading text" in out) == (TEXT[0] in SHARED[command])


def test_the_help_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert re.findall(r"^│ (\w+)", capsys.readouterr().out, re.MULTILINE) == list(SHARED)


def test_shared_options_are_bundled() -> None:
    def command(data: str, top: int = 3, *, reading: Reading, output: Output) -> None: ...

    assert list(signature_of(command).parameters) == [
        "data", "top", "names", "separator", "encoding", "skip_rows", "comment", "null", "keep", "decimal", "thousands",
        "signs", "day_first", "layout", "json", "quiet", "debug",
    ]  # fmt: skip
    typed = {"names": "a, b", "separator": "tab", "encoding": "latin-1", "null": ["?"], "skip_rows": 2}
    others = dict.fromkeys(("comment", "keep", "decimal", "thousands", "signs", "day_first", "layout"))
    options = {"data": "x.csv", "top": 3, **typed, **others, "json": True, "quiet": False}
    arguments = arguments_of(command, options)
    output = arguments.pop("output")
    assert (output.as_json, output.quiet) == (True, False)
    reading = Reading(names=("a", "b"), separator="\t", encoding="latin-1", null_values=("?",), skip_rows=2)
    assert arguments["reading"].model_fields_set == reading.model_fields_set
    assert arguments == {"data": "x.csv", "top": 3, "reading": reading}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train", "Which table is to be trained on?"),
        ("trian adult", "No such command 'trian'. Did you mean 'train'?"),
        ("train adult --sed 1", "No such option: --sed"),
        ("train adult --seed x", "Invalid value for '--seed'"),
        ("reproduce frappe", "'frappe' is not one of 'adult'"),
        ("reproduce adult --numeric quantile", "'quantile' is not one of"),
        ("evaluate RUN SHOP --threshold 1.5", "--threshold 1.5 is not a probability: give a number between 0 and 1."),
        ("train SHOP --target bought --valid 0.5 --test 0.5", "--valid 0.5 and --test 0.5 leave no rows to train on"),
        ("train SHOP --target bought --valid 1.5", "--valid 1.5 is not a fraction between 0 and 1"),
        ("train SHOP", "Which column of shop.csv is to be predicted? Give --target, one of 'row', 'age', 'job'"),
    ],
)
def test_bad_usage_exits_2(
    arguments: str, message: str, shop: str, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main([{"RUN": run, "SHOP": shop}.get(word, word) for word in arguments.split()]) == 2
    assert message in capsys.readouterr().err
    assert os.listdir() == []


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"attfm {attfm.__version__}\n"


def test_text_is_read_as_the_options_say(shop: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = train_json(capsys, shop, "--target", "bought")
    rows = [row[:5] for row in shop_rows()]
    rows[0][1] = "?"
    path = write_csv(tmp_path / "bare.data", rows, None, separator=";")
    text = Path(path).read_text()
    Path(path).write_bytes(("exported by the till\n" + text.replace("town 0", "Łódź")).encode("iso-8859-2"))
    reading = (
        "--names", "row, age,job,town,bought", "--separator", ";", "--null", "?", "--skip-rows", "1",
        "--encoding", "iso-8859-2",
    )  # fmt: skip
    result = train_json(capsys, path, "--target", "bought", *reading)
    kinds = {column["name"]: (column["kind"], column["missing"]) for column in result["columns"]}
    assert kinds["age"] == ("numeric", 1 / 200)
    assert result["training"]["rows"] == expected["training"]["rows"]
    assert main(["evaluate", result["run"], path, *reading, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 200
