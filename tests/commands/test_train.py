"""The command train, run in this process."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow.csv as pacsv
import pytest
from sklearn.metrics import roc_auc_score

from attfm.cli import main
from attfm.commands.folders import NewFolder
from attfm.data.datasets import adult_split, load_dataset
from attfm.data.sources.files import DataFile
from attfm.data.split import Part, split_table
from attfm.errors import TrainingError
from attfm.model.run_folder import load_model
from tests.report.pages import data_of
from tests.shop import FAST, train_json, write_shop


def test_train_prints_columns_epochs_metrics_and_what_to_do_next(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["train", shop, "--target", "bought", "--set", "epochs=2", "--set", "n_seeds=1", "--set", "refit=false"])
        == 0
    )
    out, err = capsys.readouterr()
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "shop.csv: 200 rows, target 'bought'" in lines
    assert "column kind type values missing why" in lines
    assert "job categorical string 4 distinct 0 % string, 4 distinct values" in lines
    assert "120 rows to train on; 40 for validation (20 %); 40 for test (20 %); split with seed 1234" in lines
    assert "metric valid test" in lines
    assert "saved: runs/shop-1" in lines
    assert f"next: attfm evaluate runs/shop-1 {shop}" in lines
    assert [line.split(":")[0] for line in err.splitlines()] == ["epoch 1", "epoch 2"]
    assert "validation 0." in err
    assert " auc 0." in err
    assert "rows/s" in err
    saved = json.loads(Path("runs/shop-1/metrics.json").read_text())
    assert f"auc {saved['valid']['auc']:.4f} {saved['test']['auc']:.4f}" in lines


def test_train_json_is_one_object_and_messages_go_to_stderr(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            [
                "train",
                shop,
                "--target",
                "bought",
                "--set",
                "epochs=2",
                "--set",
                "n_seeds=1",
                "--set",
                "refit=false",
                "--json",
            ]
        )
        == 0
    )
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["run"] == "runs/shop-1"
    assert result["classes"] == ["no", "yes"]
    assert result["training"]["training_rows"] == 120
    assert set(result["metrics"]) == {"valid", "test"}
    assert {column["name"]: column["kind"] for column in result["columns"]}["age"] == "numeric"
    assert result["seconds"]["whole"] >= result["seconds"]["training"] > 0
    assert "categorical" in err
    assert "epoch 2:" in err


def test_the_stored_metrics_are_those_of_the_split_rows(shop: str, run: str) -> None:
    table = pacsv.read_csv(shop)
    split = split_table(table["bought"], name="bought", task="auto", valid=Part(0.2), test=Part(0.2), seed=1234)
    assert (len(split.train), len(split.valid), len(split.test)) == (120, 40, 40)
    assert len(set(split.train) | set(split.valid) | set(split.test)) == 200
    stored = json.loads((Path(run) / "metrics.json").read_text())
    model = load_model(run)
    for part, rows in (("valid", split.valid), ("test", split.test)):
        score = model.predict_proba(table.take(rows))[:, 1]
        expected = roc_auc_score(table["bought"].take(rows).to_pylist(), score)
        assert stored[part]["auc"] == pytest.approx(expected, abs=1e-9)
    assert stored["valid"]["auc"] != stored["test"]["auc"]


def test_the_history_has_auc_and_accuracy_of_each_epoch(run: str) -> None:
    history = [json.loads(line) for line in (Path(run) / "history.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [1, 2, 3]
    model = load_model(run)
    kept = history[model.facts.best_epoch - 1]
    for name in ("auc", "accuracy"):
        assert kept[f"valid_{name}"] == pytest.approx(model.metrics["valid"][name], abs=1e-6)


def test_adult_is_trained_on_its_own_split(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "adult", "--preset", "linear", "--set", "epochs=1", "--json", "-q"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["run"] == "runs/adult-1"
    table = load_dataset("adult")
    rows = adult_split(table["income"].to_numpy())
    facts = result["training"]
    assert [facts[f"{part}_rows"] for part in ("training", "validation", "test")] == [len(part) for part in rows]
    score = load_model("runs/adult-1").predict_proba(table.take(rows[2]))[:, 1]
    auc = roc_auc_score(table["income"].take(rows[2]).to_pylist(), score)
    assert result["metrics"]["test"]["auc"] == pytest.approx(auc, abs=1e-6)  # rows are summed in other chunks
    # The default split of any table is this one.
    split = split_table(table["income"], name="income", task="auto", valid=Part(0.2), test=Part(0.2), seed=1234)
    for own, expected in zip((split.train, split.valid, split.test), rows, strict=True):
        np.testing.assert_array_equal(own, expected)


def test_valid_and_test_may_be_tables(shop: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other, third = write_shop(tmp_path / "b.csv", 60, seed=1), write_shop(tmp_path / "c.csv", 70, seed=2)
    result = train_json(capsys, shop, "--target", "bought", "--valid", other, "--test", third)
    facts = result["training"]
    assert [facts[f"{part}_rows"] for part in ("training", "validation", "test")] == [200, 60, 70]
    assert main(["evaluate", result["run"], third, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["metrics"]
    assert measured == pytest.approx(result["metrics"]["test"], rel=1e-5)


def test_parts_can_be_left_out(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = train_json(capsys, shop, "--target", "bought", "--test", "none", "--valid", "0.1")
    assert [result["training"][f"{part}_rows"] for part in ("training", "validation", "test")] == [180, 20, 0]
    assert set(result["metrics"]) == {"valid"}
    result = train_json(capsys, shop, "--target", "bought", "--valid", "none", "--set", "patience=1")
    assert [result["training"][f"{part}_rows"] for part in ("training", "validation", "test")] == [160, 0, 40]
    assert result["training"]["epochs"] == 3
    assert set(result["metrics"]) == {"test"}


def test_the_split_does_not_depend_on_the_training_seed(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    def test_scores(*arguments: str) -> float:
        metrics = train_json(capsys, shop, "--target", "bought", "--preset", "linear", *arguments)["metrics"]
        return float(metrics["test"]["log_loss"])

    # A linear model starts at 0, so its seed changes only the order of the rows.
    options = ("--set", "batch_size=1000", "--set", "early_stopping=false")
    first = test_scores(*options, "--seed", "0")
    assert test_scores(*options, "--seed", "5") == pytest.approx(first, rel=1e-4)
    assert test_scores(*options, "--seed", "0", "--split-seed", "7") != pytest.approx(first, rel=1e-4)


def test_later_settings_win(shop: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(
        '[data.columns.age]\nkind = "categorical"\n[model]\npreset = "fm"\ndim = 5\n[train]\nseed = 3\npatience = 5\n'
    )
    result = train_json(
        capsys, shop, "--target", "bought", "--config", str(path), "--preset", "paper", "--seed", "4",
        "--set", "model.pair_dropout=0.25", "--set", "warm_start_from=none", "--set", "columns.town.kind=ignored",
    )  # fmt: skip
    settings = result["settings"]
    assert settings["model"]["preset"] == "paper"
    assert settings["model"]["attention"] is True  # the preset's own, not that of fm
    assert settings["model"]["dim"] == 2  # --set in FAST, above the file
    assert settings["model"]["pair_dropout"] == 0.25
    assert settings["train"] | {"seed": 4, "patience": 5, "warm_start_from": None} == settings["train"]
    kinds = {column["name"]: column["kind"] for column in result["columns"]}
    assert kinds == {
        "row": "ignored",
        "age": "categorical",
        "job": "categorical",
        "town": "ignored",
        "bought": "target",
    }


def test_packaged_settings_are_found_by_name(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = train_json(capsys, shop, "--target", "bought", "--config", "adult_2021")["settings"]
    assert settings["train"]["optimizer"] == "sgd"
    assert settings["model"]["projection_std"] == 0.1


def test_libsvm_files_know_their_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    label, first, second = rng.integers(0, 2, 100), rng.integers(0, 3, 100), rng.integers(3, 6, 100)
    lines = [f"{y} {a}:1 {b}:1" for y, a, b in zip(label, first, second, strict=True)]
    (tmp_path / "clicks.libsvm").write_text("\n".join(lines) + "\n")
    assert main(["train", "clicks.libsvm", "--set", "epochs=1", "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["target"] == "label"


def test_a_run_is_replaced_only_by_force(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", shop, "--target", "bought", "--out", "mine", *FAST]) == 0
    before = Path("mine/weights.safetensors").read_bytes()
    again = ["train", shop, "--target", "bought", "--out", "mine", "--seed", "1", *FAST]
    capsys.readouterr()
    assert main(again) == 2
    assert "'mine' holds a run already: choose another --out, or replace it by --force." in capsys.readouterr().err
    assert Path("mine/weights.safetensors").read_bytes() == before
    assert main([*again, "--force"]) == 0
    assert Path("mine/weights.safetensors").read_bytes() != before
    load_model("mine")
    assert os.listdir() == ["mine"]


def test_runs_are_numbered(shop: str) -> None:
    for _ in range(2):
        assert main(["train", shop, "--target", "bought", "--preset", "linear", *FAST]) == 0
    assert sorted(os.listdir("runs")) == ["shop-1", "shop-2"]
    with NewFolder(None, stem="shop") as first, NewFolder(None, stem="shop") as second:
        assert [first.path.name, second.path.name] == ["shop-3", "shop-4"]
    assert sorted(os.listdir("runs")) == ["shop-1", "shop-2"]


@pytest.mark.parametrize("out", ["file", "file/run", "full"])
def test_a_bad_out_is_told_before_anything_is_read(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("mine")
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    assert main(["train", "there is no such table.csv", "--out", out]) == 2
    assert out.partition("/")[0] in capsys.readouterr().err
    assert sorted(os.listdir()) == ["file", "full"]
    assert Path("file").read_text() == Path("full/notes.txt").read_text() == "mine"


def test_a_loss_that_is_not_finite_exits_1_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_shop(tmp_path / "amount.csv", target="amount")
    arguments = ("--set", "optimizer=sgd", "--set", "learning_rate=1e30", "--set", "base_rate_start=false")
    assert main(["train", path, "--target", "amount", *FAST, *arguments]) == 1
    err = capsys.readouterr().err
    assert "attfm: The loss became" in err
    assert "learning_rate" in err
    assert "Traceback" not in err
    assert os.listdir() == ["amount.csv"]


def test_interruption_leaves_the_folder_as_it_was(
    shop: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("attfm.commands.train_in_memory.fit", interrupt)
    assert main(["train", shop, "--target", "bought", "--out", "deep/run", *FAST]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert os.listdir() == []


def test_interruption_keeps_the_run_that_was_to_be_replaced(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["train", shop, "--target", "bought", "--out", "run", *FAST]) == 0
    before = Path("run/config.json").read_bytes()

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    # In the middle of saving, when the new folder is half-written.
    monkeypatch.setattr("attfm.model.run_folder.model_card", interrupt)
    assert main(["train", shop, "--target", "bought", "--out", "run", "--force", "--seed", "1", *FAST]) == 130
    assert os.listdir() == ["run"]
    assert Path("run/config.json").read_bytes() == before
    load_model("run")


def test_training_errors_are_not_bad_input() -> None:
    assert not issubclass(TrainingError, ValueError)


def test_a_csv_is_read_three_times(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    open_text = DataFile.open_text

    def counted(file: DataFile) -> object:
        opened.append(file.name)
        return open_text(file)

    monkeypatch.setattr(DataFile, "open_text", counted)
    assert main(["train", shop, "--target", "bought", "--out", "run", *FAST]) == 0
    assert len(opened) == 3  # checked and typed; surveyed, with labels; encoded, for fitting and training


MODELS = ("--set", "n_models=3")


def test_cross_fitted_models_take_in_the_validation_rows_unless_they_were_asked_for(
    shop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train_json(capsys, shop, "--target", "bought", "--out", "ours", *MODELS)
    facts = result["training"]
    assert [facts[name] for name in ("models", "training_rows", "validation_rows", "test_rows")] == [3, 160, 0, 40]
    assert set(result["metrics"]) == {"valid", "test"}
    result = train_json(capsys, shop, "--target", "bought", "--out", "theirs", "--valid", "0.2", *MODELS)
    facts = result["training"]
    assert [facts[name] for name in ("models", "training_rows", "validation_rows", "test_rows")] == [3, 120, 40, 40]
    assert main(["train", shop, "--target", "bought", "--out", "said", *FAST[:-1], *MODELS]) == 0
    shown = capsys.readouterr()
    assert "3 models cross-fitted on folds of 160 rows, those for validation among them" in shown.out
    assert "(valid: out of fold, each row by the model that was not trained on it)" in shown.out
    assert "model 3/3, epoch 1: loss" in shown.err
    for folder in ("ours", "theirs"):
        capsys.readouterr()
        assert main(["explain", folder, shop, "--check", "--seeds", "1", "--json", "--quiet"]) == 0
        checked = json.loads(capsys.readouterr().out)["check"]
        assert checked["sum_error"] < 1e-5
        assert checked["seeds"]["refits"] == 1
    assert main(["explain", "ours", shop, "--rows", "1", "--global"]) == 2
    assert main(["explain", "ours", shop, "--rows", "1"]) == 0
    assert "±" in capsys.readouterr().out
    assert main(["explain", "ours", shop, "--global"]) == 0
    assert "±: standard error by the jackknife over 3 cross-fitted models" in capsys.readouterr().out


def test_without_test_rows_the_report_shows_the_training_rows_out_of_fold(
    shop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train_json(capsys, shop, "--target", "bought", "--out", "run", "--test", "none", *MODELS)
    page = Path("run/report.html").read_text()
    content = data_of(page)
    assert content["data"]["name"] == "shop.csv (training rows, out of fold)"
    assert content["data"]["rows"] == 200
    log_loss = next(row for row in content["metrics"] if row[0] == "log_loss")[1]
    assert log_loss == pytest.approx(result["metrics"]["valid"]["log_loss"], rel=1e-4)
    assert [record["epoch"] for record in content["history"]] == [1, 2, 3]
    assert content["spreadOf"] == "standard error by the jackknife over 3 cross-fitted models"
    assert all(shape["spread"] is not None for shape in content["shapes"])
