"""The tables, lines and verdicts of benchmarks.accuracy; no peer is needed, and none is fitted."""

import gzip
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.accuracy import __main__ as command
from benchmarks.accuracy import means, models, page, records, tables, worker
from benchmarks.accuracy.goals import duels, figures, presets
from benchmarks.accuracy.peers import Codes, Ids
from benchmarks.accuracy.summary import costs_block, scores_block, summary, verdict_block
from benchmarks.remembered_pairs import remembered_pairs


def line(table: str, model: str, seed: int = 0, **test: float) -> records.Record:
    taught = "training and validation" if model.endswith(("_refit", "_folds")) or model == "ebm" else "training"
    return {
        "table": table, "model": model, "seed": seed, "split_seed": 1234, "taught_by": taught, "valid": None,
        "test": test, "rows_per_second": 1000, "fit_seconds": 2.0, "cpu_seconds": 3.0, "peak_mb": 100, "idle": True,
        "versions": {"python": "3.11"}, "commit": "abc", "machine": {"processor": "P", "cores": 2}, "threads": 1,
    }  # fmt: skip


def parts_of(table: tables.Table) -> list[np.ndarray]:
    assert table.parts is not None
    return [table.parts.train, table.parts.valid, table.parts.test]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder with a small German credit and a small Frappe."""
    folder = tmp_path / "german-credit"
    folder.mkdir()
    rows = [" ".join(["A11", *map(str, range(row, row + 19)), str(1 + (row % 10 < 3))]) for row in range(100)]
    (folder / "german.data").write_text("\n".join(rows))
    folder = tmp_path / "frappe"
    folder.mkdir()
    for part, count in (("train.reconstructed", 7), ("validation", 2), ("test", 1)):
        with gzip.open(folder / f"frappe.{part}.libfm.gz", "wt") as out:
            out.writelines(
                f"{1 - 2 * (row % 2)} " + " ".join(f"{i + row}:1" for i in range(10)) + "\n" for row in range(count)
            )
    return tmp_path


def test_a_split_at_random_has_every_row_once_and_the_same_share_of_each_class(data: Path) -> None:
    table = tables.load("german", data)
    parts = parts_of(table)
    assert [len(part) for part in parts] == [60, 20, 20]
    assert sorted(np.concatenate(parts)) == list(range(100))
    assert [table.y[part].mean() for part in parts] == pytest.approx([0.3, 0.3, 0.3])
    assert table.categorical == ("c0",)
    other = tables.load("german", data, split_seed=1235)
    assert not np.array_equal(parts[2], parts_of(other)[2])


def test_files_of_a_divided_table_stay_divided(data: Path) -> None:
    table = tables.load("frappe", data, split_seed=7)
    assert [part.tolist() for part in parts_of(table)] == [list(range(7)), [7, 8], [9]]
    assert table.y.tolist() == [1, 0, 1, 0, 1, 0, 1, 1, 0, 1]
    assert table.X.loc[2, "item"] == "3"


def test_a_day_stands_in_one_part_only() -> None:
    rng = np.random.default_rng(0)
    days = 100 * rng.integers(1, 4, 500) + rng.integers(1, 11, 500)
    parts = tables.by_time(days)
    dates = [set(days[rows]) for rows in (parts.train, parts.valid, parts.test)]
    assert max(dates[0]) < min(dates[1])
    assert max(dates[1]) < min(dates[2])
    assert sorted(np.concatenate([parts.train, parts.valid, parts.test])) == list(range(500))
    assert 300 <= len(parts.train) < 330


def test_adult_is_bundled_and_divided_as_everywhere() -> None:
    from attfm.data.datasets import adult_split, load_dataset

    table = tables.load("adult", None)
    for mine, usual in zip(parts_of(table), adult_split(load_dataset("adult")["income"].to_numpy()), strict=True):
        np.testing.assert_array_equal(mine, usual)
    assert table.X.shape == (tables.TABLES["adult"].rows, tables.TABLES["adult"].columns)


def test_an_absent_table_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(tables.AbsentTableError, match=r"Table 'churn' is not bundled: .* --data"):
        tables.load("churn", None)
    with pytest.raises(tables.AbsentTableError, match=r"Table 'churn' needs the file .*telco-churn.csv.gz"):
        tables.load("churn", tmp_path)


def test_codes_are_of_the_rows_that_they_were_made_from() -> None:
    X = pd.DataFrame({"a": ["y", "x", None], "n": [1.0, 2, 3]})
    new = pd.DataFrame({"a": ["x", "z", "y", None], "n": [0.0, 2, 9, np.nan]})
    np.testing.assert_array_equal(Codes(X, ["a"])(new)["a"], [0, np.nan, 1, np.nan])
    ids = Ids(X, ["a"])
    coded = ids(new)
    assert coded["a"].tolist() == [1, 0, 2, 0]
    assert coded["n"][3] == 0
    assert coded["n"][2] < ids.sizes()["n"]


def test_the_later_line_of_a_run_counts(tmp_path: Path) -> None:
    file = tmp_path / "results" / "lines.jsonl"
    assert records.read(file) == []
    records.append(file, [line("adult", "attfm", auc=0.8, log_loss=0.4), line("adult", "fm", auc=0.7, log_loss=0.5)])
    records.append(file, [line("adult", "attfm", auc=0.9, log_loss=0.3)])
    assert [(r["model"], r["test"]["auc"]) for r in records.read(file)] == [("attfm", 0.9), ("fm", 0.7)]


def test_means_spreads_and_the_best_are_shown() -> None:
    lines = [line("adult", "attfm", seed, auc=0.92 + 0.01 * seed, log_loss=0.3) for seed in range(3)]
    lines.append(line("adult", "lightgbm", auc=0.91, log_loss=0.29) | {"idle": False})
    lines.append({"table": "adult", "model": "ebm", "seed": 0, "split_seed": 1234, "skipped": "took longer than 9 s"})
    text = scores_block(lines)
    assert "| `attfm` | **0.9300** ± 0.0100 |" in text
    assert "| `lightgbm` | **0.2900** |" in text
    assert "| `ebm` | took longer than 9 s |" in text
    assert "| `lightgbm` | ~2.0 |" in costs_block(lines)
    assert "| `attfm` | 2.0 |" in costs_block(lines)
    assert "| `attfm` | 3.0 |" in costs_block(lines)


def test_a_refit_stands_after_what_it_refits() -> None:
    cells = means.cells_of(
        [line("adult", name, auc=0.9, log_loss=0.3) for name in ("catboost_refit", "catboost", "fm")]
    )
    assert means.models_of(cells) == ["fm", "catboost", "catboost_refit"]


def test_splits_that_are_lacking_are_told() -> None:
    assert "± 0.0000 (2 of 10 splits)" in scores_block(
        [line("german", "attfm", s, auc=0.8, log_loss=0.5) for s in (0, 1)]
    )


def test_losses_and_wins_are_told_alike() -> None:
    lines = [
        line("adult", "attfm", auc=0.93, log_loss=0.27), line("adult", "lightgbm", auc=0.92, log_loss=0.28),
        line("adult", "lightgbm_refit", auc=0.94, log_loss=0.26),
        line("adult", "attfm_folds", auc=0.935, log_loss=0.27),
        line("hotel", "attfm", rmse=14.0), line("hotel", "catboost", rmse=13.0), line("hotel", "lightgbm", rmse=13.5),
        line("tags", "attfm", auc=0.99, log_loss=0.1), line("tags", "lightgbm", auc=0.9, log_loss=0.3),
    ]  # fmt: skip
    cells = means.cells_of(lines)
    ours = {duel.table: duel for duel in duels(cells, "attfm")}
    assert set(ours) == {"adult", "hotel"}  # nothing is claimed of tags
    assert (ours["adult"].peer, ours["hotel"].peer) == ("lightgbm", "catboost")  # a refit saw more rows than attfm
    assert ours["hotel"].margin == pytest.approx(-1)
    folds = duels(cells, "attfm_folds")
    assert [(duel.peer, round(duel.margin, 3)) for duel in folds] == [("lightgbm_refit", -0.005)]
    text = verdict_block(lines)
    assert "at or above the best peer on 1 of 2 tables (two thirds are 2)" in text
    assert "| hotel | RMSE | 14.00 | `catboost` | 13.00 | -1.00 | lost |" in text
    assert "| adult | AUC | 0.9300 | `lightgbm` | 0.9200 | +0.0100 | won |" in text
    assert "| adult | log loss at most 0.277 (aim 0.275) | 0.2700 | +0.0070 | reached |" in text
    assert "| hotel | RMSE at most 13.5 (aim 13.1) | 14.00 | -0.50 | not reached |" in text


def test_german_credit_is_judged_by_log_loss_and_flights_by_the_model_without_memory() -> None:
    lines = [
        line("german", "attfm", auc=0.7, log_loss=0.502), line("german", "catboost", auc=0.8, log_loss=0.5),
        line("flights_t", "attfm", auc=0.61, log_loss=0.5), line("flights_t", "lightgbm", auc=0.60, log_loss=0.5),
        line("flights_t", "attfm_no_memory", auc=0.613, log_loss=0.5),
    ]  # fmt: skip
    cells = means.cells_of(lines)
    assert [duel.metric for duel in duels(cells, "attfm") if duel.table == "german"] == ["log_loss"]
    held = {check.what: check.held for check in figures(cells, "attfm") if check.table in ("german", "flights_t")}
    assert list(held.values()) == [True, False, True, None]


def test_the_defaults_stand_beside_the_smaller_presets() -> None:
    lines = [
        line("adult", "attfm", auc=0.93, log_loss=0.3), line("adult", "fm", auc=0.9304, log_loss=0.3),
        line("adult", "paper", auc=0.9306, log_loss=0.3), line("hotel", "attfm", rmse=14.0),
        line("hotel", "fm", rmse=13.0),
    ]  # fmt: skip
    held = {(check.table, check.what): check.held for check in presets(means.cells_of(lines))}
    assert held == {
        ("adult", "at least as good as `fm`"): True,
        ("adult", "at least as good as `paper`"): False,
        ("hotel", "at least as good as `fm`"): False,
    }
    assert "in 1 of 3 cases" in summary(lines)


def test_the_page_has_a_place_for_each_section(tmp_path: Path) -> None:
    copy = tmp_path / "benchmarks.md"
    copy.write_text(page.PAGE.read_text())
    page.write_page([line("adult", "attfm", auc=0.93215, log_loss=0.27)], copy)
    assert "0.9321" in copy.read_text() or "0.9322" in copy.read_text()
    assert "attfm at abc." in copy.read_text()


def toy(_: Path) -> tables.Table:
    y = np.arange(40) % 2
    return tables.Table(pd.DataFrame({"x": y + 0.1}), y.astype(np.float64), (), "binary")


def fit_toy(job: models.Job) -> Any:
    yield models.Fitted(lambda X: X["x"].to_numpy() / 2, facts={"rounds": 3})
    yield models.Fitted(lambda X: X["x"].to_numpy() / 2, "_refit", "training and validation")


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a small table and a model that is right into the registries."""
    monkeypatch.setattr(worker, "MODELS", {"mean": models.Model(fit_toy, ("numpy",), "right")})
    monkeypatch.setattr(tables, "TABLES", {"toy": tables.Recipe(toy, None, 40, 1)})


@pytest.mark.usefixtures("toys")
def test_a_worker_writes_a_line_for_each_scorer() -> None:
    out = io.StringIO()
    worker.run({"table": "toy", "model": "mean", "seed": 1, "split_seed": 1234, "threads": 1, "data": None}, out)
    first, second = map(json.loads, out.getvalue().splitlines())
    assert (first["model"], second["model"]) == ("mean", "mean_refit")
    assert first["test"]["auc"] == 1
    assert first["valid"]["auc"] == 1
    assert second["valid"] is None  # the validation rows taught it
    assert first["rounds"] == 3
    assert {"fit_seconds", "cpu_seconds", "peak_mb", "rows_per_second", "versions", "commit", "machine", "idle"} <= set(
        first
    )


def test_absent_packages_are_told_and_stop_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    absent = models.Model(fit_toy, ("no-such-package",), "absent")
    monkeypatch.setattr(command, "MODELS", {"ghost": absent})
    out = tmp_path / "lines.jsonl"
    monkeypatch.setattr("sys.argv", ["accuracy", "--tables", "adult", "--models", "ghost", "--out", str(out)])
    assert command.main() == 0
    assert "ghost: skipped, no-such-package not installed (pip install no-such-package)" in capsys.readouterr().out
    assert not out.exists()


def test_unknown_names_are_bad_usage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["accuracy", "--tables", "adlt"])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert "there is no table 'adlt'" in capsys.readouterr().err


def test_german_credit_has_ten_splits_and_tags_is_named_only() -> None:
    assert [split for _, split in command.seeds_of("german", 3)] == list(range(1234, 1244))
    assert [split for _, split in command.seeds_of("german", 3, 30)] == list(range(1234, 1264))
    assert command.seeds_of("adult", 3, 30) == command.seeds_of("adult", 3) == [(0, 1234), (1, 1234), (2, 1234)]
    assert not tables.TABLES["tags"].by_default


def test_pairs_of_all_members_are_counted_once() -> None:
    class Machine:
        def __init__(self, *pairs: int) -> None:
            self.remembered_pairs = np.array(pairs, np.int64)

    ensemble = SimpleNamespace(members=[Machine(1, 2), Machine(2, 5)])
    assert remembered_pairs(SimpleNamespace(module=ensemble)) == 3
    assert remembered_pairs(SimpleNamespace(module=Machine())) == 0
    assert remembered_pairs(SimpleNamespace(module=object())) is None
