"""Asks a service in this process, by ASGI, without a socket; and one that runs as a process of its own."""

import asyncio
import contextlib
import http.client
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

JSON_HEADERS = {"content-type": "application/json", "host": "localhost"}


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as Python has it."""
        return json.loads(self.body)

    @property
    def fields(self) -> set[str | None]:
        """The fields that a refusal names."""
        return {problem["field"] for problem in self.json()["problems"]}


class Client:
    """Asks an application of this process; one loop of events for all requests."""

    def __init__(self, app: Any, log: io.StringIO) -> None:
        self.app = app
        self.log = log
        self._runner = asyncio.Runner()

    def close(self) -> None:
        """End the application's threads, and the loop."""
        self.app.service.jobs.close()
        self._runner.close()

    def get(self, path: str, **headers: str) -> Reply:
        """Ask by GET."""
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Reply:
        """Ask by POST; what is not bytes is sent as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", path, raw, **headers)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        """Ask one request."""
        return self.all((method, path, body, headers))[0]

    def all(self, *requests: tuple[str, str, bytes, dict[str, str]]) -> list[Reply]:
        """Ask several at the same time."""

        async def together() -> list[Reply]:
            return await asyncio.gather(*(self._ask(*request) for request in requests))

        return self._runner.run(together())

    def run(self, main: Any) -> Any:
        """Run a coroutine in the loop of the requests."""
        return self._runner.run(main)

    async def _ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Reply:
        sent: list[dict[str, Any]] = []
        parts = urlsplit(path)
        given = {**JSON_HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": parts.path,
            "raw_path": path.encode(), "query_string": parts.query.encode(), "root_path": "", "scheme": "http",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "state": {},
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        head = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Reply(sent[0]["status"], head, b"".join(message.get("body", b"") for message in sent[1:]))


@dataclass
class Running:
    """A service that runs as a process."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection to it."""
        return http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """Ask one request on a connection of its own."""
        connection = self.connect()
        try:
            raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, raw, {"content-type": "application/json", **headers})
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def end(self) -> int:
        """Ask it to end, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextlib.contextmanager
def running(run: str, log: Path, options: Sequence[str] = ()) -> Iterator[Running]:
    """Give a service that runs as a process, on a port that is free."""
    command = [sys.executable, "-m", "attfm", "serve", run, "--port", "0", "--json", *options]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stream, text=True, env=environment)
    try:
        lines = ""
        assert process.stdout is not None
        for line in process.stdout:
            lines += line
            if line.startswith("}"):
                break
        assert lines, log.read_text()
        yield Running(process, json.loads(lines)["url"], log)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
