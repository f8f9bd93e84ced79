"""The command explain, run in this process."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from attfm.cli import main
from attfm.commands.explain import bar
from attfm.config import Config
from attfm.data.sources.source import open_source
from attfm.explain import background
from attfm.explain.explainer import Explainer
from attfm.model.facts import RunFacts
from attfm.model.run_folder import load_model, save_model
from attfm.train import refit
from attfm.train.observer import Observer
from attfm.train.prepare import Prepared
from tests.shop import FAST, HEADER, INPUTS, shop_rows, write_csv, write_shop


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    capsys.readouterr()
    assert main(["explain", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_markup_in_names_is_text_in_a_terminal_and_in_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evil, loud = "<script>alert(1)</script>", "[bold]:warning:[/bold]"
    names = [loud, evil, "[red]c", "d"]
    rows = [[names[i % 4], i % 7, "no\x1b[31m" if i % 4 < 2 else "[i]yes"] for i in range(80)]
    data = write_csv(tmp_path / "evil.csv", rows, [evil, "[link=x]n", "bought"])
    folder = str(tmp_path / "run")
    assert main(["train", data, "--target", "bought", "--out", folder, *FAST[:-3], "--quiet"]) == 0
    for terminal in (False, True):
        capsys.readouterr()
        if terminal:
            monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
            monkeypatch.setenv("COLUMNS", "200")
        assert main(["explain", folder, data, "--rows", "3"]) == 0
        out = capsys.readouterr().out
        for text in (evil, loud, "[red]c", "[link=x]n", "probability of no·[31m"):
            assert text in out, (terminal, text)
        assert "\x1b[3" not in out  # neither red nor italic: a terminal's own bold header is all


def test_rows_are_printed_with_prediction_and_bars(shop: str, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["explain", run, shop, "--rows", "2", "--top", "3"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    model = load_model(run)
    explanation = Explainer(model).of_rows(open_source(shop), [0, 1])
    share = model.predict_proba(pacsv.read_csv(shop))[1, 1]
    decided = "yes" if share > 0.5 else "no"
    logit = explanation.logits[1, 0]
    assert f"row 1: {decided}, probability of yes {share:.4f}, logit {logit:+.4f}" in lines
    base = explanation.base[0]
    assert f"{base:+.4g} the mean of the training rows, {logit - base:+.4g} effects of this row" in lines
    assert lines.count("effect value logit") == 2
    for effect in explanation.top(3)[1]:
        assert any(line.startswith(f"{effect.name} {effect.value} {effect.effect:+.4f}") for line in lines)
    assert sum(line.startswith("3 others") for line in lines) == 2
    assert any("█" in line for line in lines)


def test_three_rows_are_the_default_and_fewer_are_said(
    shop: str, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [row["row"] for row in run_json(capsys, run, shop)["rows"]] == [0, 1, 2]  # type: ignore[index, union-attr]
    short = write_shop(tmp_path / "short.csv", 2)
    assert main(["explain", run, short, "--rows", "9"]) == 0
    out = capsys.readouterr().out
    assert "short.csv has 2 rows, all of which are shown" in out
    assert "row 1:" in out


def test_single_rows_are_chosen_by_number(shop: str, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, run, shop, "--row", "150", "--row", "7", "--top", "2")
    assert [row["row"] for row in result["rows"]] == [150, 7]
    account = result["rows"][1]["accounts"][0]
    assert len(account["effects"]) == 2
    logits = load_model(run).logits(open_source(shop))
    assert account["logit"] == pytest.approx(logits[7, 0], rel=1e-4)


def test_raw_terms_start_at_the_intercept(shop: str, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, run, shop, "--rows", "1", "--raw")
    assert result["view"] == "raw"
    module = load_model(run).module  # mean and deviation are the calibration's offset and slope
    start = module.target_mean + module.target_std * module.intercept
    assert result["base"]["yes"] == pytest.approx(start.item())
    assert main(["explain", run, shop, "--rows", "1", "--raw"]) == 0
    assert "the intercept" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["effects.parquet", "effects.csv"])
def test_all_rows_are_written_to_a_file(
    file: str, shop: str, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / file
    assert main(["explain", run, shop, "--output", str(path)]) == 0
    assert f"200 rows explained: {path}" in capsys.readouterr().out
    table = pq.read_table(path) if file.endswith("parquet") else pacsv.read_csv(path)
    assert table["row"].to_pylist() == list(range(200))
    effects = [name for name in table.column_names if name.startswith("effect of ")]
    assert effects == [f"effect of {name}" for name in ("age", "job", "town", "age × job", "age × town", "job × town")]
    total = table["base"].to_numpy() + sum(table[name].to_numpy() for name in effects)
    np.testing.assert_allclose(total, table["logit"].to_numpy(), rtol=1e-6)
    np.testing.assert_allclose(total, load_model(run).logits(open_source(shop))[:, 0], rtol=1e-4, atol=1e-5)


def test_global_prints_importance_with_and_without_a_table(
    shop: str, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["explain", run, "--global", "--top", "2"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "mean |effect| over 120 training rows, in logits" in lines
    assert "field mean |effect| share" in lines
    assert "pair mean |effect| share attention" in lines
    assert "(1 more: --top)" in lines
    result = run_json(capsys, run, shop, "--global")
    assert result["global"]["rows"] == 200
    shares = [one["share"] for kind in ("fields", "pairs") for one in result["global"][kind]]
    assert math.isclose(sum(shares), 1)
    assert {shape["field"] for shape in result["global"]["shapes"]} == {"age", "job", "town"}


@pytest.mark.parametrize("arguments", [["--rows", "1"], ["--global"], ["--output", "effects.csv"]])
def test_pairs_out_of_which_only_the_mean_is_moved_are_named(
    arguments: list[str], shop: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_MOST_PAIRS", 1)
    assert main(["train", shop, "--target", "bought", "--out", "run", *FAST]) == 0
    conditional = Explainer(load_model("run")).background.centred
    left = [name for name, kept in zip(("age × job", "age × town", "job × town"), conditional, strict=True) if not kept]
    assert len(left) == 2
    capsys.readouterr()
    assert main(["explain", "run", shop, *arguments]) == 0
    assert f"2 of 3 pairs are centred by their overall mean only: {', '.join(left)}" in capsys.readouterr().out


def test_check_prints_what_was_measured(shop: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "bagged")
    assert main(["train", shop, "--target", "bought", "--out", folder, *FAST, "--set", "n_bags=2"]) == 0
    capsys.readouterr()
    assert main(["explain", folder, shop, "--check"]) == 0
    out = capsys.readouterr().out
    assert "measured on 200 rows of shop.csv" in out
    assert "base + effects = logit: off by at most" in out
    assert "2 refits on bootstrap samples agree" in out
    found = run_json(capsys, folder, shop, "--check")["check"]
    assert found["sum_error"] < 1e-5
    assert found["removal_error"] < 1e-5
    assert found["stability"]["refits"] == 2
    assert len(found["deletion"]["largest_first"]) == 7
    assert "stability of importance over seeds is not known: ask for it by --seeds 5" in out
    assert found["seeds"] is None


FOUR_EPOCHS = ("--set", "epochs=4", "--set", "n_seeds=1")
SPLITS = {
    "fractions": [],
    "no validation": ["--valid", "none"],
    "no test": ["--test", "none", "--valid", "0.3"],
    "a table of its own": ["--valid", "valid.csv"],
    "weights": ["--weight", "amount", "--set", "class_weight=balanced"],
}


@pytest.mark.parametrize("split", list(SPLITS))
def test_seeds_refit_the_run_on_the_rows_of_its_training(
    split: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [[age, job, town, bought, weight] for _, age, job, town, bought, *_, weight in shop_rows()]
    table = write_csv(tmp_path / "shop.csv", rows, ["age", "job", "town", "bought", "amount"])
    write_csv(tmp_path / "valid.csv", rows[:60], ["age", "job", "town", "bought", "amount"])
    train = ["train", table, "--target", "bought", "--out", "run", *FOUR_EPOCHS, "--quiet", *SPLITS[split]]
    assert main(train) == 0
    trained_on = []
    real = refit.train_module

    def watched(prepared: Prepared, config: Config, observer: Observer) -> Any:
        trained_on.append((config.train, prepared.data.train))
        return real(prepared, config, observer)

    monkeypatch.setattr(refit, "train_module", watched)
    capsys.readouterr()
    found = run_json(capsys, "run", table, "--check", "--seeds", "2")["check"]
    facts = load_model("run").facts
    assert [settings.seed for settings, _ in trained_on] == [1, 2]
    for settings, dataset in trained_on:
        assert len(dataset) == facts.training_rows
        assert settings.early_stopping == (split not in ("no validation", "a table of its own"))
        if split == "a table of its own":
            assert settings.epochs == facts.best_epoch
    assert found["seeds"]["refits"] == 2
    assert -1 <= found["seeds"]["fields"] <= 1
    assert found["seeds"]["largest"] == (3 if split == "weights" else 5)
    other = write_csv(tmp_path / "other.csv", rows[:30], ["age", "job", "town", "bought", "amount"])
    assert main(["explain", "run", other, "--check", "--seeds", "1", "--train-table", table]) == 0
    shown = capsys.readouterr()
    assert "the model and 1 refits with other seeds agree: rank correlation of importance fields" in shown.out
    assert "refit 1/1, epoch 1: loss" in shown.err


def test_seeds_need_the_table_of_the_training(
    shop: str, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    advice = "It was 'shop.csv' with 200 rows: give that by --train-table."
    shuffled = write_csv(tmp_path / "shuffled.csv", [row[:5] for row in shop_rows(seed=3)], HEADER[:5])
    for table in (write_shop(tmp_path / "short.csv", 50), shuffled):
        assert main(["explain", run, table, "--check", "--seeds", "1"]) == 2
        assert advice in capsys.readouterr().err
    bare = write_csv(tmp_path / "bare.csv", [row[1:4] for row in shop_rows()], INPUTS)
    assert main(["explain", run, bare, "--check", "--seeds", "1"]) == 2
    assert "bare.csv lacks 1 of the 4 columns of the training table: 'bought'" in capsys.readouterr().err
    for arguments in (["--seeds", "1"], ["--check", "--train-table", shop]):
        assert main(["explain", run, shop, *arguments]) == 2
        assert "--seeds belongs to --check, and --train-table to --seeds" in capsys.readouterr().err
    model = load_model(run)
    unsaid = RunFacts(**{**model.facts.known(), "split": None})
    older = str(save_model(replace(model, facts=unsaid), tmp_path / "older"))
    assert main(["explain", older, shop, "--check", "--seeds", "1"]) == 2
    assert "does not say how its table was split" in capsys.readouterr().err


def test_regression_and_several_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for target, said in (("amount", "amount = "), ("likes", ", logit of ")):
        table = write_shop(tmp_path / f"{target}.csv", target=target)
        folder = str(tmp_path / target)
        assert main(["train", table, "--target", target, "--out", folder, *FAST]) == 0
        capsys.readouterr()
        assert main(["explain", folder, table, "--rows", "1"]) == 0
        assert said in capsys.readouterr().out
    accounts = run_json(capsys, folder, table, "--rows", "1")["rows"][0]["accounts"]
    assert [account["output"] for account in accounts] == ["coffee", "milk", "tea"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--row", "200"], "shop.csv has no row 200: it has 200 rows, numbered 0 to 199."),
        (["--row", "3", "--row", "-1"], "shop.csv has no row -1"),
        (["--row", "99999999999999999999"], "shop.csv has no row 99999999999999999999: it has 200 rows"),
        (["--row", "-99999999999999999999"], "shop.csv has no row -99999999999999999999"),
        (["--rows", "garbage"], "Invalid value for '--rows'"),
        (["--rows", "0"], "Invalid value for '--rows'"),
        (["--row", "3.5"], "Invalid value for '--row'"),
        (["--top", "0"], "Invalid value for '--top'"),
        (["--seeds", "-1"], "Invalid value for '--seeds'"),
        (["--global", "--raw"], "--global shows centred effects: leave --raw out."),
        (["--check", "--raw"], "--check measures centred effects: leave --raw out."),
        (["--check", "--row", "3"], "--rows and --row choose rows to print, which --global and --check don't"),
        (["--global", "--rows", "3"], "--rows and --row choose rows to print"),
        (["--output", "effects.xls"], "its name must end in one of"),
    ],
)
def test_bad_use_ends_with_2_and_a_sentence(
    arguments: list[str], message: str, shop: str, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", run, shop, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_table_is_needed_for_rows(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", run]) == 2
    assert "Give a table after the run" in capsys.readouterr().err
    for arguments in (["--check"], ["--global", "--check"], ["--global", "--rows", "2"], ["--output", "effects.csv"]):
        assert main(["explain", run, *arguments]) == 2
        assert "only --global can do without" in capsys.readouterr().err


def test_modes_go_together(shop: str, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    both = run_json(capsys, run, shop, "--global", "--check", "--output", "effects.csv")
    assert list(both) == ["run", "data", "task", "global", "check", "output", "seconds"]
    assert both["output"] == {"file": "effects.csv", "rows": 200}
    assert [row["row"] for row in run_json(capsys, run, shop, "--output", "two.csv", "--rows", "2")["rows"]] == [0, 1]
    assert len(pacsv.read_csv("two.csv")) == 200
    assert "rows" not in run_json(capsys, run, shop, "--output", "all.csv")


def test_a_missing_column_is_named(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_csv(tmp_path / "less.csv", [[30, "cook"]], ["age", "job"])
    assert main(["explain", run, table]) == 2
    assert "less.csv lacks 1 of the 3 columns of the training table: 'town'" in capsys.readouterr().err


def test_a_run_without_background_explains_raw_only(
    shop: str, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(save_model(replace(load_model(run), background={}), tmp_path / "bare"))
    for arguments in ([shop], ["--global"]):
        assert main(["explain", folder, *arguments]) == 2
        assert "no background stored" in capsys.readouterr().err
    assert main(["explain", folder, shop, "--raw"]) == 0
    assert main(["explain", folder, shop, "--check"]) == 0
    assert "no background is stored: no deletion curve" in capsys.readouterr().out


def test_bars_point_left_for_negative_effects() -> None:
    assert bar(2.0, 2.0) == " " * 12 + "│" + "█" * 12
    assert bar(-1.0, 2.0) == " " * 6 + "█" * 6 + "│"
    assert bar(0.0, 0.0) == " " * 12 + "│"
