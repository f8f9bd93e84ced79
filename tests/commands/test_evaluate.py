"""The command evaluate, run in this process."""

import json
from pathlib import Path

import numpy as np
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import recall_score, roc_auc_score

import attfm
from attfm.cli import main
from attfm.model.run_folder import load_model
from tests.shop import HEADER, INPUTS, shop_rows, train_json, write_csv


def test_class_and_row_weights_count_in_all_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_csv(tmp_path / "shop.csv", shop_rows())
    arguments = ("--target", "bought", "--id", "amount", "--id", "likes")
    plain = train_json(capsys, path, *arguments, "--weight", "weight")
    kinds = {column["name"]: column["kind"] for column in plain["columns"]}
    assert kinds["weight"] == "weight"
    run = plain["run"]
    assert main(["evaluate", run, path, "--json"]) == 0
    weighted = json.loads(capsys.readouterr().out)["metrics"]
    table = pacsv.read_csv(path)
    score = load_model(run).predict_proba(table)[:, 1]
    label = np.array(table["bought"].to_pylist()) == "yes"
    weight = table["weight"].to_numpy().astype(float)
    assert weighted["auc"] == pytest.approx(roc_auc_score(label, score, sample_weight=weight))
    assert weighted["auc"] != pytest.approx(roc_auc_score(label, score))

    balanced = train_json(capsys, path, *arguments, "--id", "weight", "--set", "class_weight=balanced", "--test", path)
    assert main(["evaluate", balanced["run"], path, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "weighted by class" in err
    assert json.loads(out)["metrics"] == pytest.approx(balanced["metrics"]["test"], rel=1e-5)
    # Under balanced weights accuracy is the mean of both classes' recalls.
    decided = load_model(balanced["run"]).predict_proba(table)[:, 1] > 0.5
    recalls = [recall_score(label, decided), recall_score(~label, ~decided)]
    shares = np.array(balanced["training"]["class_weights"])
    per_class = np.array([label.sum(), (~label).sum()]) * shares[::-1]
    assert balanced["metrics"]["test"]["accuracy"] == pytest.approx(np.average(recalls, weights=per_class))


def test_evaluate_prints_metrics_at_a_threshold(run: str, shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    recalls = []
    for threshold in ("0.5", "0.001"):
        assert main(["evaluate", run, shop, "--threshold", threshold]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        recalls.append(next(float(line[1]) for line in lines if line[:1] == ["recall"]))
    assert recalls[0] < recalls[1] == 1


def test_what_was_not_foreseen_exits_1_with_a_traceback_on_request_only(
    shop: str, run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the moon is full")

    monkeypatch.setattr("attfm.commands.evaluate.load_model", fail)
    assert main(["evaluate", run, shop]) == 1
    err = capsys.readouterr().err
    assert err.startswith("attfm: RuntimeError: the moon is full.")
    assert "Traceback" not in err
    assert main(["evaluate", run, shop, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_bad_input(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    for command in ("evaluate", "predict"):
        for folder, words in (("absent", "no run folder 'absent'"), ("empty", "is not a run folder")):
            assert main([command, folder, shop]) == 2
            assert words in capsys.readouterr().err


def test_evaluate_needs_the_target_and_all_columns(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = shop_rows(20)
    path = write_csv(tmp_path / "no_target.csv", [row[:4] for row in rows], HEADER[:4])
    assert main(["evaluate", run, path]) == 2
    assert "no_target.csv has no column 'bought', the target" in capsys.readouterr().err
    assert main(["predict", run, path, "-o", "scores.csv"]) == 0
    path = write_csv(tmp_path / "few.csv", [[row[0], row[1], row[4]] for row in rows], ["row", "Age", "bought"])
    for command in ("evaluate", "predict"):
        assert main([command, run, path]) == 2
        err = capsys.readouterr().err
        assert "few.csv lacks 3 of the 3 columns of the training table" in err
        assert "'age' (did you mean 'Age'?), 'job', 'town'" in err


def test_the_target_may_have_another_name(run: str, shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = pacsv.read_csv(shop)
    pq.write_table(table.rename_columns(["row", "age", "job", "town", "did"]), "renamed.parquet")
    capsys.readouterr()
    assert main(["evaluate", run, shop, "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["metrics"]
    assert main(["evaluate", run, "renamed.parquet", "--target", "did", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == expected
    assert main(["evaluate", run, "renamed.parquet"]) == 2
    assert "no column 'bought', the target" in (err := capsys.readouterr().err)
    assert "give that by --target COLUMN" in err
    assert main(["evaluate", run, "renamed.parquet", "--target", "dit"]) == 2
    known = "'row', 'age', 'job', 'town', 'did'"
    assert capsys.readouterr().err == (
        f"attfm: There is no target column 'dit' in renamed.parquet (did you mean 'did'?). Its columns: {known}.\n"
    )
    assert main(["evaluate", run, "renamed.parquet", "--target", "town"]) == 2
    assert "Target 'town': 200 of 200 labels were not seen in training" in capsys.readouterr().err


def test_a_model_fitted_in_python_is_measured_by_the_column_that_is_named(
    shop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pacsv.read_csv(shop)
    labels = table["bought"].to_pylist()
    model = attfm.AFMClassifier(epochs=2, dim=2, attention_dim=2, random_state=0)
    inputs = table.select(INPUTS)
    model.fit(inputs, labels).save("mine")
    capsys.readouterr()
    assert main(["evaluate", "mine", shop, "--target", "bought", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    score = model.predict_proba(inputs)[:, 1]
    assert metrics["auc"] == pytest.approx(roc_auc_score(np.array(labels) == "yes", score))


def test_the_auc_of_groups(run: str, shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", run, shop, "--group-by", "town", "--json"]) == 0
    assert 0.5 < json.loads(capsys.readouterr().out)["metrics"]["auc_by_town"] <= 1
    assert main(["evaluate", run, shop, "--group-by", "twn"]) == 2
    error = capsys.readouterr().err
    assert "no group column 'twn'" in error
    assert "'town'" in error
