"""The command datasets, run in this process."""

import json

import pytest

from attfm.cli import main


def test_datasets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["datasets"]) == 0
    out = capsys.readouterr().out
    assert "adult       32,561  income" in out
    assert "CC BY 4.0" in out
    assert main(["datasets", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["datasets"]
    assert [(d["name"], d["rows"]) for d in listed] == [("adult", 32561), ("adult-test", 16281)]
