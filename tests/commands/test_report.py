"""The command report, and the report that train writes."""

import json
import re
from pathlib import Path

import pytest

from attfm.cli import main
from attfm.model.run_folder import load_model
from tests.shop import FAST, INPUTS, shop_rows, write_csv


def metrics_of(page: Path) -> dict[str, float]:
    """Return the metrics on a page, without their intervals."""
    data = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page.read_text(encoding="utf-8"), re.S)
    assert data is not None
    return {name: value for name, value, *_ in json.loads(data.group(1))["metrics"]}


def test_a_table_is_measured_and_shown(shop: str, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    capsys.readouterr()
    assert main(["report", run, "--data", shop, "-o", str(page), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["report"] == str(page)
    assert result["rows"] == 200
    assert result["bytes"] == page.stat().st_size < 5_000_000
    shown = metrics_of(page)
    assert main(["evaluate", run, shop, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["metrics"]
    assert set(shown) == set(measured)
    for name in ("auc", "average_precision", "log_loss"):
        assert shown[name] == pytest.approx(measured[name], rel=1e-4)


def test_without_a_table_the_report_says_what_is_lacking(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["report", run]) == 0
    out = capsys.readouterr().out
    assert "--data TABLE adds them" in out
    assert "report: report.html" in out
    assert Path("report.html").is_file()


def test_a_table_without_the_target_has_no_metrics(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = write_csv(tmp_path / "new.csv", [row[1:4] for row in shop_rows(120, seed=5)], INPUTS)
    capsys.readouterr()
    assert main(["report", run, "--data", inputs, "-o", str(tmp_path / "page.html")]) == 0
    assert "new.csv has no column 'bought', the target: nothing is measured" in capsys.readouterr().out
    assert metrics_of(tmp_path / "page.html") == {}


def test_the_target_may_have_another_name(
    run: str, shop: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed = tmp_path / "renamed.csv"
    renamed.write_text(Path(shop).read_text().replace("bought", "did", 1))
    page = tmp_path / "page.html"
    assert main(["report", run, "--data", shop, "-o", str(page)]) == 0
    expected = metrics_of(page)
    assert expected["auc"] > 0.5
    assert main(["report", run, "--data", str(renamed), "--target", "did", "-o", str(page)]) == 0
    assert metrics_of(page) == expected
    page.unlink()
    for options, message in (
        (["--data", str(renamed), "--target", "dit"], "no target column 'dit' in renamed.csv (did you mean 'did'?)"),
        (["--target", "did"], "--target did names a column of --data TABLE: add that, or leave --target out."),
    ):
        capsys.readouterr()
        assert main(["report", run, *options, "-o", str(page)]) == 2
        assert message in capsys.readouterr().err
        assert not page.exists()


def test_train_writes_the_report_into_the_run_folder(
    shop: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    capsys.readouterr()
    assert main(["train", shop, "--target", "bought", "--out", str(folder), *FAST]) == 0
    assert f"report: {folder / 'report.html'}" in capsys.readouterr().out
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "shop.csv (test rows)" in page
    # It is for people: a folder with another one, or with none, is as good.
    (folder / "report.html").write_text("edited")
    load_model(folder)
    (folder / "report.html").unlink()
    load_model(folder)


def test_train_can_do_without(shop: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    capsys.readouterr()
    assert main(["train", shop, "--target", "bought", "--out", str(folder), "--no-report", *FAST, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] is None
    assert not (folder / "report.html").exists()


def test_train_without_test_rows_reports_on_others(shop: str, tmp_path: Path) -> None:
    for valid, expected in (("0.3", "shop.csv (validation rows)"), ("none", '"data":null')):
        folder = tmp_path / valid
        options = ["--test", "none", "--valid", valid, "--out", str(folder)]
        assert main(["train", shop, "--target", "bought", *options, *FAST]) == 0
        assert expected in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["-o", "page.txt"], 2, "page.txt"),
        (["-o", "nowhere/page.html"], 2, "there is no folder 'nowhere'"),
        (["--data", "absent.csv"], 2, "absent.csv"),
    ],
)
def test_bad_use_is_one_sentence(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    options: list[str], code: int, message: str,
) -> None:  # fmt: skip
    capsys.readouterr()
    assert main(["report", run, *options]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_lacks_columns_names_them(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = write_csv(tmp_path / "short.csv", [[30, "yes"]], ["age", "bought"])
    capsys.readouterr()
    assert main(["report", run, "--data", short, "-o", str(tmp_path / "page.html")]) == 2
    assert "'job', 'town'" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_no_run_folder_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "absent"), "-o", str(tmp_path / "page.html")]) == 2
    assert "There is no run folder" in capsys.readouterr().err
