"""The plan of a training: what it says of tables larger than its sample, and of disk and memory, against what is."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import attfm.commands.plan as command
import attfm.estimators.base as estimators
from attfm import AFMClassifier, AFMRegressor, Plan
from attfm.cli import main
from attfm.train.footprint import Load, grown, memory_at_peak
from tests.shop import write_shop

QUICK = ("--set", "dim=2", "--set", "attention_dim=2", "--set", "epochs=1", "--no-report", "--checkpoint-minutes", "0")


def zipf_table(rows: int, *, values: int = 3_000, seed: int = 0) -> pd.DataFrame:
    """Return ids that follow Zipf's law, a number and a target that depends on both."""
    rng = np.random.default_rng(seed)
    chances = 1 / np.arange(1, values + 1)
    ids = {name: rng.choice(values, rows, p=chances / chances.sum()) for name in ("user", "item")}
    x = np.round(rng.normal(size=rows), 2)
    y = rng.random(rows) < 1 / (1 + np.exp(-x - (ids["user"] % 3 - 1)))
    return pd.DataFrame({**{name: pd.Series(of).astype(str) for name, of in ids.items()}, "x": x, "y": y.astype(int)})


@pytest.fixture
def sample_of_4000(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (command, estimators):
        monkeypatch.setattr(module, "SAMPLE_ROWS", 4_000)


@pytest.fixture
def zipf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.Table.from_pandas(zipf_table(20_000)), "zipf.parquet", row_group_size=1_000)
    return "zipf.parquet"


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> Plan:
    capsys.readouterr()
    assert main(["train", *arguments, *QUICK, "--dry-run", "--json"]) == 0
    return Plan(**json.loads(capsys.readouterr().out))


@pytest.mark.parametrize("way", ["--stream", "--in-memory"])
def test_what_a_larger_table_takes_is_within_a_quarter(
    way: str, zipf: str, sample_of_4000: None, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (zipf, "--target", "y", way, "--set", "n_models=1")
    plan = planned(capsys, *options)
    assert [path.name for path in Path().iterdir()] == [zipf]  # nothing is written
    assert (plan.rows, plan.sampled_rows, plan.exact, plan.fields) == (20_000, 4_000, False, 3)
    assert plan.streamed is (way == "--stream")
    assert plan.seconds_to_prepare > 0
    assert 0 < plan.seconds_an_epoch < plan.seconds_at_most
    assert main(["train", *options, *QUICK, "--out", "run", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["training"]
    assert plan.training_rows == pytest.approx(facts["training_rows"], rel=0.05)
    assert plan.features == pytest.approx(facts["features"], rel=0.25)
    assert plan.run == pytest.approx(size_of(Path("run")), rel=0.25)
    if plan.streamed:
        assert plan.cache == pytest.approx(size_of(Path(".attfm-cache")), rel=0.25)
    else:
        assert plan.cache == plan.statistics == 0


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_all_is_known_of_a_table_that_is_no_larger_than_the_sample(
    zipf: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned(capsys, zipf, "--target", "y")
    assert main(["train", zipf, "--target", "y", *QUICK, "--out", "run", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["training"]
    assert plan.exact
    assert plan.features == facts["features"]


def test_a_run_holds_sums_of_the_remembered_fields_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    ids = {name: rng.integers(0, 30, 20_000) for name in ("user", "item")} | {
        name: rng.integers(0, 4_000, 20_000) for name in ("shop", "page", "query")
    }
    both = np.random.default_rng(1).random((30, 30)) < 0.5
    y = rng.random(20_000) < np.where(both[ids["user"], ids["item"]], 0.8, 0.2)
    columns = {name: pd.Series(of).astype(str).radd("v") for name, of in ids.items()}
    pd.DataFrame({**columns, "y": y.astype(int)}).to_parquet("shops.parquet")
    options = ("shops.parquet", "--target", "y", "--set", "n_models=1")
    plan = planned(capsys, *options)
    assert main(["train", *options, *QUICK, "--out", "run"]) == 0
    assert plan.remembered_pairs == 1
    assert plan.run == pytest.approx(size_of(Path("run")), rel=0.05)


def test_estimators_plan_and_stay_as_they_are(sample_of_4000: None) -> None:
    table = zipf_table(20_000).sort_values("y")  # of its first rows nothing could be learned
    model = AFMClassifier(dim=2, attention_dim=2)
    plan = model.plan(table[["user", "item", "x"]], table.y)
    assert isinstance(plan, Plan)
    assert not hasattr(model, "n_features_in_")
    assert (plan.rows, plan.sampled_rows, plan.models) == (20_000, 4_000, 1)
    fitted = AFMClassifier(dim=2, attention_dim=2, epochs=1).fit(table[["user", "item", "x"]], table.y)
    assert plan.features == pytest.approx(fitted.model_.facts.features, rel=0.25)
    assert str(plan) == repr(plan)
    for text in ("20,000", "field pairs remembered", "passes", "memory", "to prepare", "4,000 rows, from which"):
        assert text in str(plan)


def test_small_tables_have_cross_fitted_models() -> None:
    table = zipf_table(800, values=20)
    plan = AFMClassifier(dim=2, attention_dim=2).plan(table[["user", "x"]], table.y)
    assert (plan.models, plan.training_rows, plan.exact) == (8, 800, True)
    one = AFMRegressor(dim=2, attention_dim=2, n_models=1).plan(table[["user", "x"]], table.x)
    assert one.models == 1
    # Candidates of a regression are trained to the end too.
    assert one.seconds_at_most > 2.9 * one.epochs * one.seconds_an_epoch


def test_a_table_of_its_own_counts_whole(
    zipf: str, sample_of_4000: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.Table.from_pandas(zipf_table(500, seed=1)), tmp_path / "valid.parquet")
    plan = planned(capsys, zipf, "--target", "y", "--valid", "valid.parquet", "--test", "none")
    assert plan.training_rows == 20_000


@pytest.mark.parametrize("way", ["--stream", "--in-memory"])
def test_what_a_model_takes_that_learns_on_is_within_a_quarter(
    way: str, zipf: str, sample_of_4000: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", zipf, "--target", "y", *QUICK, "--set", "n_models=1", "--out", "run"]) == 0
    later = zipf_table(16_000, values=6_000, seed=1)
    pq.write_table(pa.Table.from_pandas(later), "later.parquet", row_group_size=1_000)
    options, before = ("later.parquet", "--from", "run", way), sorted(Path().rglob("*"))
    plan = planned(capsys, *options)
    assert sorted(Path().rglob("*")) == before
    assert (plan.rows, plan.sampled_rows, plan.models, plan.streamed) == (16_000, 4_000, 1, way == "--stream")
    assert plan.seconds_to_prepare > 0
    assert 0 < plan.seconds_an_epoch < plan.seconds_at_most
    assert plan.known_features is not None
    assert plan.known_features == json.loads(Path("run/config.json").read_text())["training"]["features"]
    capsys.readouterr()
    assert main(["train", *options, *QUICK, "--out", "next", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["training"]
    assert plan.training_rows == pytest.approx(facts["training_rows"], rel=0.05)
    new = facts["features"] - plan.known_features
    assert new == sum(facts["new_values"].values()) > 500
    assert plan.features - plan.known_features == pytest.approx(new, rel=0.25)
    assert plan.run == pytest.approx(size_of(Path("next")), rel=0.25)
    if plan.streamed:
        assert plan.cache == pytest.approx(size_of(Path(".attfm-cache")), rel=0.25)
    assert main(["train", *options, *QUICK, "--dry-run"]) == 0
    assert f"{plan.known_features:,} of them known to the run" in capsys.readouterr().out


def test_all_models_of_a_run_learn_on_and_without_validation_as_long_as_was_best(
    zipf: str, capsys: pytest.CaptureFixture[str]
) -> None:
    several = ("--set", "n_models=3", "--set", "rates=false", "--set", "memory_pairs=0")
    assert main(["train", zipf, "--target", "y", *QUICK, *several, "--out", "several"]) == 0
    assert planned(capsys, zipf, "--from", "several").models == 3
    assert main(["train", zipf, "--target", "y", *QUICK, "--set", "n_models=1", "--out", "run"]) == 0
    options = (zipf, "--from", "run", "--valid", "none", "--test", "none", "--stream")
    plan = planned(capsys, *options, "--set", "epochs=50")
    assert plan.epochs == 1  # those of the run
    assert plan.training_rows == plan.rows
    assert plan.known_features == json.loads(Path("run/config.json").read_text())["training"]["features"]


def test_people_read_aligned_lines(zipf: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", zipf, "--target", "y", *QUICK, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "rows", "features", "pairs", "passes", "memory", "disk", "time", "seen"
    ]  # fmt: skip
    assert {len(line) - len(line[10:]) for line in lines} == {10}
    assert all(line[9] == " " and line[10] != " " for line in lines)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--target", "z"],
        ["--target", "y", "--valid", "0.6", "--test", "0.5"],
        ["--target", "y", "--split", "time:when"],
        ["--target", "y", "--set", "dims=3"],
        ["--target", "y", "--weight", "user", "--set", 'columns.user={"kind":"numeric"}'],
    ],
)
def test_bad_input_is_told_as_training_tells_it(
    wrong: list[str], zipf: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for dry in ([], ["--dry-run"]):
        assert main(["train", zipf, *wrong, *QUICK, *dry]) == 2
        told.append(capsys.readouterr().err)
    assert told[0] == told[1]


def test_bad_rows_are_told_as_training_tells_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_shop(tmp_path / "shop.csv", 300)
    lines = (tmp_path / "shop.csv").read_text().splitlines()
    lines[7] = lines[7].rsplit(",", 1)[0] + ","
    (tmp_path / "shop.csv").write_text("\n".join(lines) + "\n")
    told = []
    for dry in ([], ["--dry-run"]):
        assert main(["train", "shop.csv", "--target", "bought", *QUICK, *dry]) == 2
        told.append(capsys.readouterr().err)
    assert told[0] == told[1]
    assert "missing in 1 of 300 rows" in " ".join(told[0].split())


def test_a_target_that_the_sample_does_not_show_is_said_to_be_of_the_sample(
    tmp_path: Path, sample_of_4000: None, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.Table.from_pandas(zipf_table(9_000).sort_values("y")), tmp_path / "sorted.parquet")
    assert main(["train", str(tmp_path / "sorted.parquet"), "--target", "y", "--dry-run"]) == 2
    assert "In the 4,000 rows that a plan looks at:" in " ".join(capsys.readouterr().err.split())


def test_the_out_folder_of_another_run_is_refused(
    zipf: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    assert main(["train", zipf, "--target", "y", "--out", "run", "--dry-run"]) == 2
    assert "'run' holds" in " ".join(capsys.readouterr().err.split())


def test_resume_takes_no_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", "run", "--dry-run"]) == 2
    assert "give it alone" in capsys.readouterr().err


def test_vocabularies_grow_by_heaps_law_and_stop_where_all_is_known() -> None:
    assert grown(100, 200, 400, 4) == pytest.approx(1600)  # each row has a value of its own
    assert grown(100, 141.42, 200, 4) == pytest.approx(400, rel=0.01)  # the root of the rows
    assert grown(90, 100, 100, 1000) == 100
    assert grown(80, 96, 99, 1000) < 102
    assert grown(100, 200, 400, 1) == 400
    assert grown(100, 150, 200, 2.5) > grown(100, 150, 200, 2)


LOAD = Load(
    train=60_000, valid=20_000, test=20_000, fields=39, outputs=1, dim=16, features=100_000, table_rows=101_000,
    entries=39.0, rated=22.0, pairs=20, known=100_000, levels=60_000, cells=200_000, pair_cells=50_000, surface=3_000.0,
    vocabulary=5_000_000, table_bytes=30_000_000, begun=1,
)  # fmt: skip


@pytest.mark.parametrize("streamed", [True, False])
def test_more_of_anything_takes_no_less_memory(streamed: bool) -> None:
    def memory(load: Load) -> int:
        return memory_at_peak(load, 400_000_000, streamed=streamed)

    for name in ("train", "valid", "test", "features", "table_rows", "entries", "rated", "pairs", "known", "cells",
                 "pair_cells", "vocabulary", "dim", "fields", "outputs", "models", "begun"):  # fmt: skip
        more = replace(LOAD, **{name: 20 * getattr(LOAD, name)})
        assert memory(more) >= memory(LOAD), name
    larger = replace(LOAD, train=6_000_000, valid=2_000_000, test=2_000_000)
    assert memory(larger) >= memory(LOAD)
    assert streamed or memory(larger) > 2 * memory(LOAD)
    assert memory_at_peak(larger, 0, streamed=True) < memory_at_peak(larger, 0, streamed=False)


_CHILD = """
import sys
from pathlib import Path
import attfm.commands.train
from attfm.cli import main
from attfm.train.footprint import memory_now
print(memory_now())
main(["train", *sys.argv[1:], "--quiet"])
status = Path("/proc/self/status").read_text().splitlines()
print(next(line for line in status if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell a process's peak")
def test_memory_is_within_a_quarter_of_what_a_process_takes(
    zipf: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [str(Path(zipf).absolute()), "--target", "y", *QUICK, "--set", "n_models=1"]
    command_line = [sys.executable, "-c", _CHILD, *options, "--out", str(Path("run").absolute())]
    done = subprocess.run(command_line, capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parents[2], env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    lines = done.stdout.splitlines()
    monkeypatch.setattr(command, "memory_now", lambda: int(lines[0]))
    assert planned(capsys, *options).memory == pytest.approx(1024 * int(lines[-1]), rel=0.25)
