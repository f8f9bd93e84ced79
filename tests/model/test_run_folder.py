"""Run folders: whole, damaged, newer, and in the way of something else."""

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from attfm.config import Config, Reading
from attfm.data.batch import Batch
from attfm.data.encoder import Encoder
from attfm.data.inference import infer_schema
from attfm.data.sources.source import open_source
from attfm.errors import RunFolderError
from attfm.model.bundle import Model
from attfm.model.run_folder import load_model, save_model
from attfm.model.task import Binary, Multiclass
from attfm.train.fit import fit
from attfm.train.prepare import LabelledTable, Tables

ROWS = 120


def table() -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "job": rng.choice(["cook", "<b>clerk</b>", "pi|lot"], ROWS),
            "age": np.where(rng.random(ROWS) < 0.1, np.nan, rng.normal(40, 9, ROWS)),
            "langs": pa.array([["de", "en"][: i % 3] for i in range(ROWS)]),
            "born": pa.array(np.datetime64("2001-01-01") + rng.integers(0, 9000, ROWS)),
        }
    )


def train_model(labels: list[object], **settings: object) -> Model:
    source = open_source(table())
    config = Config.parse({"train": {"epochs": 2}, **settings})
    schema = infer_schema(source.batches(), source.schema, target=None, config=config.data)
    values = pa.chunked_array([pa.array([labels[i % len(labels)] for i in range(ROWS)])])
    model = fit(Tables(LabelledTable(source, values), schema), config).model
    return replace(model, metrics={"valid": {"log_loss": 0.5, "auc": float("nan")}})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    model = train_model(["no", "yes"])
    return model, save_model(model, tmp_path_factory.mktemp("models") / "run")


@pytest.fixture
def folder(saved: tuple[Model, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved[1], tmp_path / "run"))


@pytest.mark.parametrize(
    ("labels", "settings"),
    [
        (["no", "yes"], {}),
        ([0, 1, 2], {"model": {"preset": "paper"}}),
        ([1.5, 2.25, 7.125, 3.5], {"data": {"numeric": "scaled"}, "train": {"epochs": 2, "task": "regression"}}),
        ([True, False], {"model": {"preset": "linear"}}),
        (["a", "b"], {"data": {"columns": {"job": {"hash_buckets": 16}, "born": {"kind": "ignored"}}}}),
    ],
)
def test_every_task_and_encoding_comes_back_bit_for_bit(
    labels: list[object], settings: dict[str, object], tmp_path: Path
) -> None:
    model = train_model(labels, **settings)
    again = load_model(save_model(model, tmp_path / "run"))
    np.testing.assert_array_equal(again.logits(table()), model.logits(table()))
    assert again.target.classes == model.target.classes
    assert again.config == model.config
    assert (again.schema, again.history, again.facts) == (model.schema, model.history, model.facts)


def test_the_score_of_a_row_does_not_depend_on_the_rows_beside_it(saved: tuple[Model, Path]) -> None:
    model = saved[0]
    whole = model.logits(table())
    for start, stop in [(0, 1), (5, 38), (119, 120)]:
        np.testing.assert_allclose(model.logits(table().slice(start, stop - start)), whole[start:stop], rtol=1e-12)


def test_without_multi_valued_fields_the_score_of_a_row_is_the_same_bits_in_any_company() -> None:
    plain = {"data": {"columns": {"langs": {"kind": "ignored"}}}}
    model = train_model(["no", "yes"], **plain)
    assert model.logits(table()).dtype == np.float64
    # float32 kernels where they are compiled, float64 elsewhere
    np.testing.assert_allclose(model.logits(table()), model.scorer.predict(encoded(model)), rtol=1e-4, atol=1e-5)
    whole = model.logits(table())
    for start, stop in [(0, 1), (5, 38), (119, 120)]:
        part = model.logits(table().slice(start, stop - start))
        if model.module.scores_natively:
            np.testing.assert_array_equal(part, whole[start:stop])
        np.testing.assert_allclose(part, whole[start:stop], rtol=1e-12)


def encoded(model: Model) -> Batch:
    return model.encoder.transform(table().combine_chunks().to_batches()[0])


def test_the_folder_has_no_code_and_no_half_written_files(saved: tuple[Model, Path]) -> None:
    folder = saved[1]
    assert [path.name for path in folder.parent.iterdir()] == ["run"]
    for path in folder.iterdir():
        assert not path.read_bytes().startswith((b"\x80", b"PK"))  # pickle, zip
    assert json.loads((folder / "metrics.json").read_text()) == {"valid": {"log_loss": 0.5, "auc": None}}


def test_the_model_card_shows_names_as_text(saved: tuple[Model, Path]) -> None:
    card = (saved[1] / "README.md").read_text()
    assert "| job | categorical |" in card
    assert "<b>" not in card
    assert "0.5000" in card


@pytest.mark.parametrize("name", ["schema.json", "vocabulary.arrow", "weights.safetensors", "metrics.json"])
def test_a_changed_file_is_found(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(RunFolderError, match=rf"'{name}' in the run folder .*its sha256 differs"):
        load_model(folder)


@pytest.mark.parametrize("name", ["schema.json", "vocabulary.arrow", "weights.safetensors", "history.jsonl"])
def test_a_lost_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(RunFolderError, match=f"lacks '{name}'"):
        load_model(folder)


def test_the_readme_may_be_edited(folder: Path) -> None:
    (folder / "README.md").write_text("my notes")
    load_model(folder)


def test_a_newer_format_asks_for_a_newer_attfm(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "format": 99}))
    with pytest.raises(RunFolderError, match=r"has format 99, this attfm reads up to 1: install a newer attfm"):
        load_model(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 1, "sha256": {}}'])
def test_damaged_settings_are_named(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"config\.json' is damaged"):
        load_model(folder)


def test_settings_that_do_not_fit_the_weights_are_found(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    settings["settings"]["model"]["dim"] = 3
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(RunFolderError, match=r"is damaged .*size mismatch"):
        load_model(folder)


def test_how_text_was_read_is_found_where_older_folders_have_it(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    settings["training"]["reading"] = {"names": None, "separator": ";", "null_values": ["?"], "skip_rows": 2}
    (folder / "config.json").write_text(json.dumps(settings))
    schema = json.loads((folder / "schema.json").read_text())
    assert "reading" in schema
    assert load_model(folder).schema.reading == Reading(separator=";", null_values=("?",), skip_rows=2)


def test_no_folder_and_another_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="There is no run folder"):
        load_model(tmp_path / "absent")
    with pytest.raises(RunFolderError, match="is not a run folder: it has no"):
        load_model(tmp_path)


def test_saving_replaces_a_run_folder_and_nothing_else(saved: tuple[Model, Path], folder: Path) -> None:
    (folder / "schema.json").write_text("old")
    save_model(saved[0], folder)
    load_model(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["run"]
    with pytest.raises(RunFolderError, match="exists and is not a run folder"):
        save_model(saved[0], folder.parent)


def test_a_failed_save_leaves_the_old_folder_and_no_rubbish(
    saved: tuple[Model, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("attfm.model.run_folder.model_card", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_model(saved[0], folder)
    load_model(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("exists", [False, True])
def test_what_could_not_be_loaded_is_not_saved(
    saved: tuple[Model, Path], folder: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    path = folder if exists else folder.with_name("new")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def unordered(encoder: Encoder) -> pa.Table:
        written = to_table(encoder)
        return written.take(np.arange(len(written))[::-1])

    to_table = Encoder.to_table
    monkeypatch.setattr(Encoder, "to_table", unordered)
    message = rf"The model was not saved as '{path}', because it can't be loaded .*its fields are out of order"
    with pytest.raises(RunFolderError, match=message) as caught:
        save_model(saved[0], path)
    assert ".part" not in str(caught.value)
    assert [file.name for file in path.parent.iterdir()] == ["run"]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_the_reason_why_a_model_is_not_saved_names_the_folder_that_was_given(
    saved: tuple[Model, Path], tmp_path: Path
) -> None:
    model = saved[0]
    wrong = model.config.model_copy(update={"train": model.config.train.model_copy(update={"epochs": 0})})
    with pytest.raises(RunFolderError, match=rf"'epochs' in section \[train\] of '{tmp_path}/run/config.json' is 0"):
        save_model(replace(model, config=wrong), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_in_a_sentence(
    saved: tuple[Model, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("attfm.model.run_folder.model_card", full)
    with pytest.raises(RunFolderError, match=rf"Can't write the run folder '{folder}': No space left on device"):
        save_model(saved[0], folder)
    load_model(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["run"]


def test_probabilities_hold_at_the_ends_of_the_scale() -> None:
    far = Binary("y", (0, 1)).scores(np.array([[-800.0], [0.0], [800.0]]))
    np.testing.assert_array_equal(far[:, 1], [0, 0.5, 1])
    three = Multiclass("y", (0, 1, 2)).scores(np.array([[1000.0, 0, 0], [0, 0, 0]]))
    np.testing.assert_allclose(three, [[1, 0, 0], [1 / 3] * 3])


def test_the_background_is_checked_like_all_files(folder: Path) -> None:
    file = folder / "background.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(RunFolderError, match=r"'background\.safetensors' in the run folder .* is not what was saved"):
        load_model(folder)
    file.unlink()
    with pytest.raises(RunFolderError, match=r"lacks 'background\.safetensors'"):
        load_model(folder)


def test_a_model_without_a_background_is_saved_and_loaded(saved: tuple[Model, Path], tmp_path: Path) -> None:
    model = replace(saved[0], background={})
    path = save_model(model, tmp_path / "bare")
    assert not (path / "background.safetensors").exists()
    again = load_model(path)
    assert again.background == {}
    np.testing.assert_array_equal(again.logits(table()), saved[0].logits(table()))
