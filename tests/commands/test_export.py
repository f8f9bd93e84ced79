"""The command export."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from attfm.cli import main
from attfm.data.sources.source import open_source
from attfm.model.run_folder import load_model

QUICK = ("epochs=1", "dim=2", "rates=false", "memory_pairs=0", "batch_size=8192", "attention=false")


def test_one_command_writes_both(run: str, shop: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("onnx", "onnxruntime", "duckdb"):
        pytest.importorskip(package)
    import duckdb

    from attfm.serve.onnx.check import Session
    from attfm.serve.raw_inputs import tensors_of

    capsys.readouterr()
    files = ["--onnx", "m.onnx", "--with-effects", "--sql", "m.sql", "--table", "shop", "--id", "row"]
    assert main(["export", run, *files, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["rows_compared"] == 10_000
    assert result["difference"] <= 1e-5
    assert result["bytes"] == (tmp_path / "m.onnx").stat().st_size
    assert result["sql_bytes"] == (tmp_path / "m.sql").stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.sql"]

    model = load_model(run)
    expected = model.predict_proba(shop)
    np.testing.assert_allclose(Session("m.onnx").run(tensors_of(model, shop))["probabilities"], expected, atol=1e-5)
    with duckdb.connect() as connection:
        connection.register("shop", pa.Table.from_batches(list(open_source(shop).batches())))
        found = connection.execute(Path("m.sql").read_text()).fetchall()
    np.testing.assert_allclose([row[2] for row in found], expected[:, 1], atol=1e-6)


def test_a_line_for_each_file(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    capsys.readouterr()
    assert main(["export", run, "--onnx", "m.onnx", "--ids", "--no-check"]) == 0
    assert re.fullmatch(r"onnx: m.onnx \([\d.]+ kB\), not compared with the model, .* s\n", capsys.readouterr().out)
    assert main(["export", run, "--sql", "m.sql"]) == 0
    assert re.fullmatch(r"sql: m.sql \([\d.]+ [kM]B\), .* s\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Say what to export to: --onnx model.onnx, or --sql query.sql."),
        (["--onnx", "m.txt"], "The model 'm.txt' is an ONNX file: end its name in .onnx."),
        (["--onnx", "no/m.onnx"], "there is no folder 'no'"),
        (["--sql", "m.sql", "--with-effects"], "--with-effects is of --onnx FILE: add that, or leave it out."),
        (["--sql", "m.sql", "--no-check"], "--no-check is of --onnx FILE"),
        (["--onnx", "m.onnx", "--id", "row"], "--id is of --sql FILE: add that, or leave it out."),
        (["--sql", "m.sql", "--limit", "10"], "more than the limit of 10;"),
        (["--onnx", ""], "The model has no name: give its file, such as 'model.onnx'."),
        (["--sql", "m.sql", "--table", ""], "The table '' has no name: give the table that the query is to read"),
        (["--sql", "m.sql", "--table", "a..b"], "The table 'a..b' has no name"),
        # Of both neither is written where one can't be.
        (["--onnx", "m.onnx", "--sql", "no/m.sql"], "The query 'no/m.sql' can't be written"),
        (["--onnx", "m.onnx", "--sql", "m.sql", "--limit", "10"], "more than the limit of 10;"),
        (["--onnx", "no/m.onnx", "--sql", "m.sql"], "The model 'no/m.onnx' can't be written"),
    ],
)
def test_bad_use_is_one_sentence(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    pytest.importorskip("onnx")
    capsys.readouterr()
    assert main(["export", run, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_the_commands_of_the_page_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    commands = [shlex.split(line)[1:] for line in page.splitlines() if line.startswith("    attfm ")]
    assert [command[0] for command in commands] == ["train", "export", "export", "export", "export"]
    for command in commands:
        quick = ["--no-report", *(part for name in QUICK for part in ("--set", name))]
        more = quick if command[0] == "train" else ["--no-check"] if "--onnx" in command else []
        assert main([*command, *more]) == 0, capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} >= {"adult.onnx", "effects.onnx", "ids.onnx", "scores.sql"}


def test_no_run_folder_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "absent"), "--sql", "m.sql"]) == 2
    assert "There is no run folder" in capsys.readouterr().err
