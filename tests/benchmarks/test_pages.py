"""The Python blocks of README.md and docs/*.md run as they stand."""

import os
from pathlib import Path
from typing import Any

import pytest

from attfm import load_dataset
from attfm.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[tuple[int, str]]:
    """Return the line at which each Python block starts, and the block."""
    found: list[tuple[int, list[str]]] = []
    inside = False
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        if inside and line != "```":
            found[-1][1].append(line)
        elif inside or line == "```python":
            inside = not inside
            if inside:
                found.append((number, []))
    return [(number, "\n".join(lines)) for number, lines in found]


CASES = [
    pytest.param(page, number, block, id=f"{page.name}:{number}") for page in PAGES for number, block in blocks(page)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the examples' `attfm train adult` was run, one epoch of it."""
    path = tmp_path_factory.mktemp("examples")
    arguments = ["--out", str(path / "runs" / "adult-1"), "--no-report", "--set", "epochs=1"]
    assert main(["train", "adult", *arguments]) == 0
    return path


def adult(rows: int, first: int = 0) -> tuple[Any, Any]:
    table = load_dataset("adult").slice(first, rows)
    return table.drop_columns(["income"]).to_pandas(), table["income"].to_numpy()


def test_there_are_blocks() -> None:
    assert {page.name for page in PAGES if blocks(page)} >= {"README.md", "explanations.md"}


@pytest.mark.parametrize(("page", "number", "block"), CASES)
def test_block(page: Path, number: int, block: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    for name, extra in (
        ("plot(", "matplotlib"), ("to_shap", "shap"), ("onnxruntime", "onnxruntime"), ("onnxruntime", "onnx"),
        ("mlflow", "mlflow"), ("duckdb", "duckdb"),
    ):  # fmt: skip
        if name in block:
            pytest.importorskip(extra)
    if "plot(" in block:
        import matplotlib

        matplotlib.use("Agg")
    monkeypatch.chdir(folder)
    (X, y), (valid, y_valid), (new, _) = adult(400), adult(200, 400), adult(5, 600)
    given = {"df": X, "y": y, "df_valid": valid, "y_valid": y_valid, "df_new": new}
    exec(compile("\n" * number + block, os.fspath(page), "exec"), given)
