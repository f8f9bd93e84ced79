"""`--engine ray`: wrong uses get one sentence each; the command's run is that of one process."""

import json
import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from attfm.cli import main
from attfm.commands.asked import Asked
from attfm.commands.train_by_workers import check_by_workers
from attfm.config import Config, Reading
from attfm.errors import AttfmError
from tests.shop import write_shop

has_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'attfm[ray]'")
long = pytest.mark.skipif("ATTFM_LONG_TESTS" not in os.environ, reason="long: make test-ray runs it")


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that fails; return its one sentence."""
    capsys.readouterr()
    assert main(arguments) in (1, 2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_workers_need_an_engine(shop: str, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (("train", shop, "--target", "bought"), ("predict", run, shop)):
        assert "--workers is of several workers: give --engine ray" in error_of(capsys, *command, "--workers", "2")
        assert "--workers 0: give a number of at least 1" in error_of(capsys, *command, "--workers", "0")
        assert "--address is of several" in error_of(capsys, *command, "--address", "127.0.0.1:6379")


def test_where_ray_is_absent_it_is_told(
    shop: str, run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for command in (("train", shop, "--target", "bought"), ("predict", run, shop)):
        told = error_of(capsys, *command, "--engine", "ray")
        assert told == "attfm: ray is not installed. Install it: pip install 'attfm[ray]'."


@pytest.mark.parametrize(
    ("stream", "settings", "message"),
    [
        (False, {}, "--in-memory keeps rows in this process"),
        (None, {"n_bags": 3}, "n_bags"),
        (None, {"n_models": 3}, "Workers of Ray train one model"),
        (None, {"device": "cuda"}, "Setting 'device' is 'cuda'"),
    ],
)
def test_settings_that_do_not_fit(stream: bool | None, settings: dict[str, object], message: str) -> None:
    asked = Asked("t", Reading(), "y", None, None, None, None, None, False, True, stream=stream, workers=2)
    with pytest.raises(AttfmError, match=message):
        check_by_workers(asked, Config.parse({"train": settings}))


@has_ray
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("address", ["head", "127.0.0.1:0", "127.0.0.1:x"])
def test_nobody_at_the_address(address: str, run: str, shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = error_of(capsys, "predict", run, shop, "--engine", "ray", "--address", address)
    assert f"--address {address}" in told


@has_ray
@long
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_somebody_else_at_the_address(run: str, shop: str, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        address = f"127.0.0.2:{server.getsockname()[1]}"
        assert main(["predict", run, shop, "--engine", "ray", "--address", address]) == 2
    assert f"attfm: --address {address}: no Ray cluster answers" in capfd.readouterr().err


@has_ray
@long
@pytest.mark.ray
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
def test_the_command_ends_as_one_process_does(tmp_path: Path) -> None:
    table = write_shop(tmp_path / "shop.csv", 2000)
    options = ["--target", "bought", "--id", "row", "--no-report", "--quiet", "--set", "epochs=1", "--set", "dim=3"]
    options += ["--set", "weight_dropout=0", "--set", "batch_size=128", "--cache", str(tmp_path / "cache")]
    assert main(["train", table, *options, "--stream", "--out", str(tmp_path / "one")]) == 0
    assert main(["train", table, *options, "--engine", "ray", "--workers", "2", "--out", str(tmp_path / "two")]) == 0
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    for name, wanted in one.items():
        np.testing.assert_allclose(two[name], wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    rows = [json.loads((tmp_path / name / "history.jsonl").read_text())["rows"] for name in ("one", "two")]
    assert rows[0] == rows[1] > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "one", "shop.csv", "two"]
