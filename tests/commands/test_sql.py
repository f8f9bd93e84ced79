"""Commands on the rows of an SQLite file."""

import json
import sqlite3
from pathlib import Path

import pytest

from attfm.cli import main
from attfm.commands.interrupted import go_on
from tests.commands.test_resume import interrupt
from tests.shop import FAST, HEADER, shop_rows

pytest.importorskip("adbc_driver_sqlite", reason="needs attfm[sql]")

QUERY = "select row, age, job, town, bought from shop order by row"
TABLE = ("sqlite:///shop.db", "--query", QUERY)


@pytest.fixture(autouse=True)
def _shop(_in_tmp_path: None) -> None:
    connection = sqlite3.connect("shop.db")
    with connection:
        connection.execute(f"create table shop ({', '.join(HEADER)})")
        rows = [tuple(x.item() if hasattr(x, "item") else x for x in row) for row in shop_rows()]
        connection.executemany(f"insert into shop values ({', '.join('?' * len(HEADER))})", rows)
    connection.close()


def test_train_evaluate_predict_explain_and_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *TABLE, "--target", "bought", *FAST]) == 0
    assert f"next:  attfm evaluate runs/shop-1 sqlite:///shop.db --query '{QUERY}'" in capsys.readouterr().out
    assert main(["evaluate", "runs/shop-1", *TABLE, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 200
    later = ["sqlite:///shop.db", "--query", "select * from shop where row >= 150 order by row"]
    assert main(["predict", "runs/shop-1", *later, "--id", "row", "-o", "scores.csv"]) == 0
    assert Path("scores.csv").read_text().splitlines()[1].startswith("150,")
    assert main(["explain", "runs/shop-1", *later, "--rows", "2"]) == 0
    assert main(["report", "runs/shop-1", "--data=sqlite:///shop.db", "--query", QUERY, "-o", "page.html"]) == 0


def test_a_dry_run_says_what_a_training_would_take(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *TABLE, "--target", "bought", "--dry-run"]) == 0
    assert "200, 120 to train on" in capsys.readouterr().out
    assert not Path("runs").exists()


def test_rows_in_a_cache_are_found_again_while_the_file_is_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["train", *TABLE, "--target", "bought", *FAST[:-1], "--stream", "--cache", "cache"]
    assert main([*asked, "--out", "a"]) == 0
    assert "encoded into cache" in capsys.readouterr().out
    assert main([*asked, "--out", "b"]) == 0
    assert "found, encoded before, in cache" in capsys.readouterr().out


def test_an_interrupted_training_goes_on_from_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["train", *TABLE, "--target", "bought", "--out", "run", "--checkpoint-steps", "1"]
    with monkeypatch.context() as patched:
        interrupt(patched, after=3)
        assert main([*asked, "--set", "batch_size=32", *FAST]) == 130
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert go_on("../run")[0].query == QUERY
    assert main(["train", "--resume", "../run", "--query", "select 1"]) == 2
    assert main(["train", "--resume", "../run"]) == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("sqlite:///shop.db",), "sqlite:///shop.db is a database: say which of its rows by query= (--query)"),
        (("shop.csv", "--query", QUERY), "and 'shop.csv' is none: leave it out"),
        (("adult", "--query", QUERY), "and 'adult' is none: leave it out"),
        ((*TABLE, "--valid", "postgresql://u:secret@h/db"), "--valid names a database, but --query chooses the rows"),
        ((*TABLE, "--test=postgresql://u:secret@h/db"), "--test names a database, but --query chooses the rows"),
        (("mysql://u:secret@h/db", "--query", QUERY), "attfm reads no mysql database (mysql://u@h/db)"),
        (("sqlite:///shpo.db", "--query", QUERY), "There is no file shpo.db. Did you mean shop.db?"),
        (("sqlite:///shop.db", "--query", "select * from shops"), "no such table: shops. Correct it"),
    ],
)
def test_bad_use_is_one_sentence(arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *arguments, "--target", "bought", *FAST]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert "secret" not in error


def test_no_usage_message_tells_a_password(capsys: pytest.CaptureFixture[str]) -> None:
    uri = "postgresql://u:secret@h/db"
    for arguments in ([uri, uri, "--query", QUERY], [uri, "--seed", uri], [f"--seed={uri}"], [uri, "--no-such", uri]):
        assert main(["train", *arguments]) == 2
        told = "".join(capsys.readouterr())
        assert told
        assert "secret" not in told
