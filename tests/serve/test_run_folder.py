"""A compiled model in its run folder: written once, mapped, checked, and read by a process without torch or Arrow."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import attfm
from attfm.errors import DataWarning, RunFolderError
from attfm.model.run_folder import load_model, save_model
from attfm.serve import table_file, tables
from tests.serve.models import model_of, rows

SERVING = """
import sys, time
started = time.perf_counter()
from attfm.serve import tables
compiled = tables.load(sys.argv[1])
seconds = time.perf_counter() - started
import json
rows = json.loads(sys.stdin.read())
print(json.dumps({
    "scores": compiled.predict_proba(rows).tolist(), "alone": [compiled.predict_proba(row)[0].tolist() for row in rows],
    "labels": compiled.predict(rows).tolist(), "seconds": seconds,
    "loaded": sorted({"torch", "pyarrow", "sklearn", "pydantic", "scipy", "pandas"} & set(sys.modules)),
}))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a run folder with a compiled model beside the other files."""
    path = save_model(model_of(plain=True), tmp_path / "run")
    tables.load(path)
    return path


def test_a_process_that_only_serves_needs_neither_torch_nor_arrow(folder: Path) -> None:
    model, data = load_model(folder), rows(seed=1).select(["age", "job", "town", "user", "seen"])
    asked = [{**row, "seen": f"{row['seen']}"} for row in data.to_pylist()]
    done = subprocess.run(
        [sys.executable, "-c", SERVING, str(folder)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["loaded"] == []
    expected = model.predict_proba(data)
    np.testing.assert_allclose(told["scores"], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(told["alone"], expected, rtol=0, atol=1e-5)
    assert told["labels"] == model.predict(data).tolist()


def test_what_is_read_is_what_was_made(folder: Path) -> None:
    model = load_model(folder)
    made, read = tables.compile(model), tables.load(folder)
    data = rows(seed=2).to_pylist()
    np.testing.assert_array_equal(read.logits(data), made.logits(data))
    assert read.fields == made.fields
    assert read.columns == made.columns
    assert [read.levels(f) for f in range(len(read.fields))] == [
        model.encoder.feature_names(f) for f in range(len(read.fields))
    ]
    assert (read.task, read.classes, read.class_names, read.outputs, read.threshold, read.target) == (
        "binary", ("no", "yes"), ("no", "yes"), ("yes",), 0.5, "y",
    )  # fmt: skip
    assert read.input_names == model.input_names


def test_it_is_made_once_and_again_for_another_model_or_budget(folder: Path) -> None:
    file = folder / table_file.ARRAYS
    first = file.stat().st_mtime_ns
    tables.load(folder)
    assert file.stat().st_mtime_ns == first
    assert tables.load(folder, budget=1000).facts["budget"] == 1000
    assert file.stat().st_mtime_ns != first
    other = save_model(model_of(plain=True, seed=5), folder.with_name("other"))
    for name in (table_file.ARRAYS, table_file.FACTS):
        shutil.copy(folder / name, other / name)
    data = rows(seed=2)
    np.testing.assert_allclose(
        tables.load(other).logits(data.to_pylist()), load_model(other).logits(data), rtol=0, atol=1e-5
    )
    assert load_model(folder)  # whose own files are as they were


@pytest.mark.parametrize("name", [table_file.ARRAYS, table_file.FACTS])
def test_a_damaged_file_is_made_again_and_told(folder: Path, name: str) -> None:
    data = rows(seed=2).to_pylist()
    expected = tables.load(folder).logits(data)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (folder / name).write_bytes(content)
    with pytest.warns(DataWarning, match=rf"In the run folder '.*' '{name}' is .*: it is made again\."):
        again = tables.load(folder)
    np.testing.assert_array_equal(again.logits(data), expected)
    np.testing.assert_array_equal(tables.load(folder).logits(data), expected)


def test_a_damaged_run_folder_is_refused(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"'weights.safetensors' in the run folder .* is not what was saved"):
        tables.load(folder)
    settings = json.loads((folder / "config.json").read_text())
    settings["sha256"]["schema.json"] = "0" * 64
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(RunFolderError, match="is not what was saved"):
        tables.load(folder)
    with pytest.raises(RunFolderError, match="There is no run folder"):
        tables.load(folder / "nowhere")


@pytest.mark.parametrize("wrong", [None, 3, ["runs/adult"]])
def test_what_is_no_path_is_no_run_folder(folder: Path, wrong: Any) -> None:
    compiled, model = tables.load(folder), load_model(folder)
    for call in (tables.load, load_model, attfm.load, compiled.save, lambda path: save_model(model, path)):
        with pytest.raises(RunFolderError, match=re.escape(f"The run folder is {wrong!r}: give its path.")):
            call(wrong)


def test_a_compiled_model_is_saved_where_there_is_a_folder_only(folder: Path, tmp_path: Path) -> None:
    compiled = tables.load(folder)
    for name, told in (("nowhere", "No such file or directory"), ("config.json", "Not a directory")):
        with pytest.raises(RunFolderError, match=f"Can't write into '.*{name}': {told}. Choose another"):
            compiled.save(folder / name)


def test_a_folder_that_cannot_be_written_serves_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    (folder / table_file.FACTS).unlink()
    monkeypatch.setattr(table_file, "write", refuse)
    with pytest.warns(DataWarning, match="made again at the next start: .*Read-only file system"):
        compiled = tables.load(folder)
    assert compiled.predict_proba(rows().to_pylist()).shape == (80, 2)


def test_a_shape_beyond_the_file_is_refused(folder: Path) -> None:
    facts = json.loads((folder / table_file.FACTS).read_text())
    arrays = dict(table_file.read(folder).arrays)  # type: ignore[union-attr]
    grid = arrays["lookup.grid"].copy()
    grid[0, 0] += 10**6
    table_file.write(
        folder, {k: v for k, v in facts.items() if k not in ("format", "sha256")}, arrays | {"lookup.grid": grid}
    )
    with pytest.raises(ValueError, match="a table lies within the cells"):
        tables.load(folder)


def test_start_up_takes_less_than_half_a_second(folder: Path) -> None:
    """In time of the processor: the machine may have other work."""
    code = "import time; from attfm.serve import tables; tables.load({!r}); print(time.process_time())"
    done = subprocess.run([sys.executable, "-c", code.format(str(folder))], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.5
