"""The commands evaluate and predict, run in this process."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import recall_score, roc_auc_score

import attfm
import attfm.data.sources.source
from attfm.cli import main
from attfm.model.bundle import Model
from tests.shop import HEADER, shop_rows, train_json, write_csv, write_shop


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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
    score = Model.load(run).predict_proba(table)[:, 1]
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
    decided = Model.load(balanced["run"]).predict_proba(table)[:, 1] > 0.5
    recalls = [recall_score(label, decided), recall_score(~label, ~decided)]
    shares = np.array(balanced["training"]["class_weights"])
    per_class = np.array([label.sum(), (~label).sum()]) * shares[::-1]
    assert balanced["metrics"]["test"]["accuracy"] == pytest.approx(np.average(recalls, weights=per_class))


def test_predict_writes_what_the_library_predicts(
    run: str, shop: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    expected = attfm.load(run).predict_proba(pacsv.read_csv(shop))[:, 1]
    assert main(["predict", run, shop, "--id", "row", "--id", "job"]) == 0
    table = pacsv.read_csv(io.BytesIO(capfdbinary.readouterr().out))
    assert table.column_names == ["row", "job", "prediction", "probability"]
    assert table["row"].to_pylist() == list(range(200))
    np.testing.assert_allclose(table["probability"].to_numpy(), expected, rtol=1e-12)
    decided = ["yes" if p > 0.5 else "no" for p in expected]
    assert table["prediction"].to_pylist() == decided
    assert {"yes", "no"} == set(decided)


def test_predict_streams_to_files(
    run: str, shop: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", run, shop, "-o", "whole.parquet"]) == 0
    monkeypatch.setattr(attfm.data.sources.source, "MAX_BATCH_ROWS", 64)
    capsys.readouterr()
    assert main(["predict", run, shop, "-o", "scores.parquet", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["rows"] == 200
    assert result["columns"] == ["prediction", "probability"]
    assert pq.read_table("scores.parquet").equals(pq.read_table("whole.parquet"))
    assert main(["predict", run, shop, "-o", "scores.csv", "--threshold", "0.9"]) == 0
    table = pacsv.read_csv("scores.csv")
    assert table["prediction"].to_pylist() == ["yes" if p > 0.9 else "no" for p in table["probability"].to_pylist()]
    assert sorted(os.listdir()) == ["scores.csv", "scores.parquet", "whole.parquet"]


def test_a_regression_and_many_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_shop(tmp_path / "amount.csv", target="amount")
    result = train_json(capsys, path, "--target", "amount")
    assert result["task"] == "regression"
    assert set(result["metrics"]["test"]) == {"rmse", "mae", "r2"}
    assert main(["predict", result["run"], path, "-o", "amount.parquet"]) == 0
    scores = pq.read_table("amount.parquet")
    assert scores.column_names == ["prediction"]
    np.testing.assert_array_equal(scores["prediction"], attfm.load(result["run"]).predict(pacsv.read_csv(path)))

    path = write_shop(tmp_path / "likes.csv", target="likes")
    result = train_json(capsys, path, "--target", "likes")
    assert result["classes"] == ["coffee", "milk", "tea"]
    assert main(["predict", result["run"], path, "-o", "likes.parquet"]) == 0
    scores = pq.read_table("likes.parquet")
    names = ["probability_coffee", "probability_milk", "probability_tea"]
    assert scores.column_names == ["prediction", *names]
    shares = np.column_stack([scores[name] for name in names])
    np.testing.assert_allclose(shares.sum(1), 1)
    assert scores["prediction"].to_pylist() == [result["classes"][c] for c in shares.argmax(1)]
    capsys.readouterr()
    assert main(["evaluate", result["run"], path, "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    labels = pacsv.read_csv(path)["likes"].to_pylist()
    assert evaluated["metrics"]["accuracy"] == np.mean(np.array(labels) == scores["prediction"].to_pylist())
    assert evaluated["threshold"] is None


def test_evaluate_prints_metrics_at_a_threshold(run: str, shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    recalls = []
    for threshold in ("0.5", "0.001"):
        assert main(["evaluate", run, shop, "--threshold", threshold]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        recalls.append(next(float(line[1]) for line in lines if line[:1] == ["recall"]))
    assert recalls[0] < recalls[1] == 1


def test_a_folder_that_is_no_run_exits_1(shop: str, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    for command in ("evaluate", "predict"):
        for folder, words in (("absent", "no run folder 'absent'"), ("empty", "is not a run folder")):
            assert main([command, folder, shop]) == 1
            assert words in capsys.readouterr().err


def test_what_was_not_foreseen_exits_1_with_a_traceback_on_request_only(
    shop: str, run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the moon is full")

    monkeypatch.setattr(Model, "load", fail)
    assert main(["evaluate", run, shop]) == 1
    err = capsys.readouterr().err
    assert err.startswith("attfm: RuntimeError: the moon is full.")
    assert "Traceback" not in err
    assert main(["evaluate", run, shop, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


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


def test_ids_are_checked_before_scoring(run: str, shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", run, shop, "--id", "rwo", "-o", "scores.csv"]) == 2
    assert "'rwo' (did you mean 'row'?)" in capsys.readouterr().err
    table = pacsv.read_csv(shop).append_column("prediction", pa.array(range(200)))
    pq.write_table(table, "clash.parquet")
    assert main(["predict", run, "clash.parquet", "--id", "prediction", "-o", "scores.csv"]) == 2
    assert "--id prediction" in capsys.readouterr().err
    assert main(["predict", run, shop, "--json"]) == 2
    assert "give -o FILE" in capsys.readouterr().err
    assert os.listdir() == ["clash.parquet"]
