"""The service that tests ask: of the small table of tests/shop.py."""

import io
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from tests.serve.client import Client

# Without attfm[serve] the rest of this folder is tested all the same.
collect_ignore = [] if find_spec("fastapi") and find_spec("prometheus_client") else ["http", "test_docs.py"]

ROW = {"age": 41, "job": "cook", "town": "town 1"}


Opened = Callable[..., Client]


@pytest.fixture(scope="session")
def opened() -> Iterator[Opened]:
    """Return what opens the service of a run, with some settings; its log is `client.log`, a stream of text."""
    from attfm.serve.http.access_log import AccessLog
    from attfm.serve.http.app import create_app
    from attfm.serve.http.settings import ServiceSettings

    clients = list[Client]()

    def open_service(folder: str, **settings: Any) -> Client:
        log = io.StringIO()
        clients.append(Client(create_app(folder, ServiceSettings(**settings), log=AccessLog(log)), log))
        return clients[-1]

    yield open_service
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def client(opened: Opened, run: str) -> Client:
    """Return what asks the service of the small table."""
    return opened(run, rows=50, body_bytes=20_000)
