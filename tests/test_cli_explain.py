"""The command explain, run in this process."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from shop import FAST, write_csv, write_shop

from attfm.cli import main
from attfm.commands.explain import bar
from attfm.data.sources import open_source
from attfm.explain.contributions import Explainer
from attfm.model.bundle import Model


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
    model = Model.load(run)
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
    logits = Model.load(run).logits(open_source(shop))
    assert account["logit"] == pytest.approx(logits[7, 0], rel=1e-4)


def test_raw_terms_start_at_the_intercept(shop: str, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, run, shop, "--rows", "1", "--raw")
    assert result["view"] == "raw"
    assert result["base"]["yes"] == pytest.approx(Model.load(run).module.intercept.item())
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
    np.testing.assert_allclose(total, Model.load(run).logits(open_source(shop))[:, 0], rtol=1e-4, atol=1e-5)


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
        (["--global", "--raw"], "--global shows centred effects: leave --raw out."),
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
    assert main(["explain", run, "--check"]) == 2


def test_a_missing_column_is_named(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_csv(tmp_path / "less.csv", [[30, "cook"]], ["age", "job"])
    assert main(["explain", run, table]) == 2
    assert "less.csv lacks 1 of the 3 columns of the training table: 'town'" in capsys.readouterr().err


def test_a_run_without_background_explains_raw_only(
    shop: str, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Model.load(run)
    model.background = {}
    folder = str(model.save(tmp_path / "bare"))
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
