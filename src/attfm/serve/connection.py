"""Connections that neither dawdle nor pile up, and that answer in one write."""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 64 * 1024
_HELD_BYTES = 64 * 1024
_REFUSALS = {408: b"Request Timeout", 431: b"Request Header Fields Too Large", 503: b"Service Unavailable"}
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    b"x-content-type-options: nosniff\r\ncache-control: no-store\r\n%scontent-length: %d\r\n\r\n%s"
)
_BUSY_BODY = b'{"detail":"The service is busy: its queue is full. Ask again in a second.","problems":[]}'


class _Joined:
    """A transport that sends head and body of an answer by one call of the system: it costs more than all the rest."""

    __slots__ = ("_held", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held = b""

    def write(self, data: bytes) -> None:
        """Hold data back; all of it goes when the answer is complete, or there is much of it."""
        if data.startswith(b"HTTP/1.1 100 "):  # who asks waits for it
            self._transport.write(data)
            return
        self._held = self._held + data if self._held else data
        if len(self._held) > _HELD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what is held back."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)

    def close(self) -> None:
        """Send what is held back, and close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(HttpToolsProtocol):  # type: ignore[misc, unused-ignore]
    """uvicorn's own, with bounds: on connections, on requests in work, and on the time and bytes of a request's head.

    Attributes
    ----------
    seconds : float, most time for a head; most, queue : int, most connections, and most requests in work
    shed : callable, told of each request that is refused because the queue is full: client, method and path
    is_closing : callable, whether the service is to end: then an answer is the last one of its connection
    """

    seconds = 10.0
    most = 1000
    queue = 1000
    shed: Callable[[str | None, str, str], None]
    is_closing: Callable[[], bool]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; refuse where too many connections are open."""
        super().connection_made(transport)
        self._joined = _Joined(transport)
        self._head_bytes = 0
        self._late: asyncio.TimerHandle | None = None
        if len(self.connections) > self.most:
            self._refuse(503)
            return
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._unexpect()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; refuse a head that does not end."""
        if self.transport.is_closing():
            return
        if self._late is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._late is not None and self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        if self._late is None:
            self._expect()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._unexpect()
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Have a request answered, or refuse it at once: then nothing is read, checked or put anywhere."""
        cycle.transport = self._joined
        if self.is_closing():
            cycle.keep_alive = False
        if len(self.tasks) >= self.queue and cycle.scope["method"] == "POST":
            self.shed(self.client[0] if self.client else None, cycle.scope["method"], cycle.scope["path"])
            closing = b"" if cycle.keep_alive else b"connection: close\r\n"
            self._joined.write(_BUSY % (closing, len(_BUSY_BODY), _BUSY_BODY))
            cycle.response_started = cycle.response_complete = True
            cycle.waiting_for_100_continue = False
            if not cycle.keep_alive:
                self._joined.close()
            self.on_response_complete()
            return
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """An answer is whole."""
        self._joined.flush()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._joined.flush()
        super().send_400_response(msg)

    def _expect(self) -> None:
        self._head_bytes = 0
        self._late = self.loop.call_later(self.seconds, self._refuse, 408)

    def _unexpect(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse(self, status: int) -> None:
        self._unexpect()
        again = b"retry-after: 1\r\n" if status == 503 else b""
        self._joined.flush()
        self.transport.write(
            b"HTTP/1.1 %d %s\r\n%sconnection: close\r\ncontent-length: 0\r\n\r\n" % (status, _REFUSALS[status], again)
        )
        self.transport.close()


def bounded(
    *, seconds: float, most: int, queue: int, shed: Callable[[str | None, str, str], None],
    is_closing: Callable[[], bool],
) -> type[Any]:  # fmt: skip
    """Return the class of connections with these bounds."""
    calls = {"shed": staticmethod(shed), "is_closing": staticmethod(is_closing)}
    return type("BoundedConnection", (Connection,), {"seconds": seconds, "most": most, "queue": queue, **calls})
