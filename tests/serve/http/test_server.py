"""The service as a process: how it starts, refuses to start, ends, and takes on a new run."""

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attfm.cli import main
from tests.serve.client import Reply, Running, running
from tests.serve.conftest import ROW
from tests.shop import FAST, write_shop

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def served(run: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the run folder, which tests may damage and replace."""
    return Path(shutil.copytree(run, tmp_path_factory.mktemp("serve") / "run"))


@pytest.fixture(scope="module")
def service(served: Path) -> Iterator[Running]:
    """Give a service that all tests of this file ask, one after the other; the last one ends it."""
    options = ["--timeout", "2", "--queue", "64", "--watch", "0.05", "--drain", "0.3"]
    with running(str(served), served.parent / "log", options) as started:
        yield started


def _lines(running: Running) -> list[dict[str, object]]:
    return [json.loads(line) for line in running.log.read_text().splitlines()]


def _until(holds: object, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_it_answers_and_logs_one_line_without_row_contents(service: Running) -> None:
    secret = "a town that nobody may read"
    reply = service.ask("POST", "/predict", {"row": {**ROW, "town": secret}}, **{"x-request-id": "asked-1"})
    assert reply.status == 200
    assert reply.headers["x-request-id"] == "asked-1"
    assert service.ask("POST", "/predict", {"row": {**ROW, "age": secret}}, **{"x-request-id": "asked-2"}).status == 422
    assert service.ask("GET", f"/{secret.replace(' ', '-')}?{secret.replace(' ', '+')}").status == 404
    _until(lambda: sum(line.get("path") == "other" for line in _lines(service)) == 1)
    lines = [line for line in _lines(service) if str(line["id"]).startswith("asked")]
    assert [(line["id"], line["status"], line["path"]) for line in lines] == [
        ("asked-1", 200, "/predict"),
        ("asked-2", 422, "/predict"),
    ]
    assert set(lines[0]) == {"time", "id", "client", "method", "path", "status", "ms", "rows", "bytes"}
    assert "nobody" not in service.log.read_text()


def test_a_head_that_does_not_end_is_refused(service: Running) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as dawdler:
        dawdler.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n")
        assert dawdler.recv(100).startswith(b"HTTP/1.1 408 ")
    with socket.create_connection((host, int(port)), timeout=20) as glutton:
        glutton.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + b"x-more: " + b"x" * 100_000)
        assert glutton.recv(100).startswith(b"HTTP/1.1 431 ")
    with socket.create_connection((host, int(port)), timeout=20) as stranger:
        stranger.sendall(b"\x16\x03\x01 what is this\r\n\r\n")
        assert stranger.recv(100).startswith(b"HTTP/1.1 400 ")
    assert service.ask("GET", "/health").status == 200


def test_a_body_that_does_not_come_is_refused(service: Running) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    head = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as dawdler:
        dawdler.sendall(head + b'{"row":')
        assert dawdler.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_port_in_use_is_told_in_one_sentence(service: Running, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    port = service.url.rsplit(":", 1)[1]
    assert main(["serve", run, "--port", port]) == 2
    assert capsys.readouterr().err == (
        f"attfm: Port {port} of 127.0.0.1 is in use: stop what listens there, or choose another by --port "
        "(0: any free one).\n"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "not a host"], "--host 'not a host' is not a name or an address"),
        (["--host", "192.0.2.1"], "--host 192.0.2.1 is not an address of this machine"),
        (["--port", "70000"], "--port 70000 is no port"),
        (["--api-key-file", "nowhere"], "Can't read the API key from 'nowhere'"),
        (["--cors-origin", "shop.example"], "--cors-origin 'shop.example' is no origin"),
        (["--cors-origin", "https://shop.example/"], "--cors-origin 'https://shop.example/' is no origin: write it as"),
        (["--allow-host", "https://models.example"], "--allow-host 'https://models.example' is no name of a host"),
        (["--allow-host", "models.example:80"], "write it as models.example, without http:// or port"),
        (["--allow-host", "a b"], "--allow-host 'a b' is no name of a host"),
        (["--max-body", "1"], "--max-body 1 is too small: give at least 2."),
        (["--max-rows", "0"], "--max-rows 0 is too small: give at least 1."),
        (["--max-connections", "0"], "--max-connections 0 is too small: give at least 1."),
        (["--queue", "-3"], "--queue -3 is too small: give at least 1."),
        (["--timeout", "0"], "--timeout 0 is no time: give seconds, more than 0."),
        (["--watch", "-1"], "--watch -1 is no time: give seconds, 0 or more."),
        (["--drain", "nan"], "--drain nan is no time: give seconds, 0 or more."),
    ],
)
def test_bad_options_are_told(run: str, options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", run, "--port", "0", *options]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_a_run_that_is_absent_or_damaged_is_told(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path / "none"), "--port", "0"]) == 2
    assert "There is no run folder" in capsys.readouterr().err
    for name in ("weights.safetensors", "vocabulary.arrow", "schema.json"):
        copy = tmp_path / name
        shutil.copytree(run, copy)
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(bytes(content))
        assert main(["serve", str(copy), "--port", "0"]) == 2
        assert f"'{name}' in the run folder '{copy}' is not what was saved" in capsys.readouterr().err


def test_a_new_run_takes_over_without_a_lost_request(service: Running, served: Path, tmp_path: Path) -> None:
    shop = write_shop(tmp_path / "other.csv", 150, seed=5)
    assert main(["train", shop, "--target", "bought", "--out", str(tmp_path / "other"), *FAST]) == 0
    before = service.ask("POST", "/predict", {"row": ROW}).json()
    statuses, over = list[int](), threading.Event()

    def ask() -> None:
        connection = service.connect()
        while not over.is_set():
            connection.request("POST", "/predict", json.dumps({"row": ROW}), {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        # A damaged folder is not taken.
        config = (served / "config.json").read_bytes()
        (served / "config.json").write_bytes(config.replace(b'"format": 1', b'"format": 99'))
        _until(lambda: any(line.get("event") == "reload failed" for line in _lines(service)))
        assert service.ask("POST", "/predict", {"row": ROW}).json() == before
        assert service.ask("GET", "/ready").status == 200
        # As `attfm train --force` does it: the new folder is moved to where the old one was.
        os.rename(served, tmp_path / "old")
        os.rename(tmp_path / "other", served)
        _until(lambda: any(line.get("event") == "reloaded" for line in _lines(service)))
        assert service.ask("POST", "/predict", {"row": ROW}).json() != before
    finally:
        over.set()
        asking.join()
    assert len(statuses) > 3
    assert set(statuses) == {200}
    assert 'attfm_reloads_total{outcome="done"} 1.0' in service.ask("GET", "/metrics").body.decode()


def test_it_finishes_what_it_accepted(service: Running) -> None:
    replies: list[Reply] = []
    asked = threading.Barrier(17)

    def ask(number: int) -> None:
        body = {"rows": [ROW] * 200} if number % 2 else {"row": ROW}
        asked.wait()
        replies.append(service.ask("POST", "/predict", body))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    asked.wait()
    assert service.end() == 0
    for thread in threads:
        thread.join()
    # All were answered; the longer ones may have found the queue of four full, and were told so.
    statuses = [reply.status for reply in replies]
    assert len(statuses) == 16
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 8
    assert _lines(service)[-1]["time"]  # what was logged is written to the end
