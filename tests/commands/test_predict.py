"""The command predict, run in this process."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

import attfm
import attfm.data.sources.source
from attfm.cli import main
from tests.shop import train_json, write_shop


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
