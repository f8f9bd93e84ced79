"""Connections that neither dawdle nor pile up, and that answer in one write."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from attfm.serve.http.plain_request import plain_request

MOST_HEAD_BYTES = 64 * 1024
_HELD_BYTES = 64 * 1024
_READ_BYTES = 8 * 1024
_UNSENT_BYTES = 16 * 1024  # of answers that who asks does not take: then no more is done for it
_MOST_PARSED = 32  # requests of one connection that the parser is ahead of their answers
_REFUSALS = {408: b"Request Timeout", 431: b"Request Header Fields Too Large", 503: b"Service Unavailable"}
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    b"x-content-type-options: nosniff\r\ncache-control: no-store\r\n%scontent-length: %d\r\n\r\n%s"
)
_BUSY_BODY = b'{"detail":"The service is busy: its queue is full. Ask again in a second.","problems":[]}'
_BUSY_GOING_ON = _BUSY % (b"", len(_BUSY_BODY), _BUSY_BODY)


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


class _Flow(FlowControl):  # type: ignore[misc, unused-ignore]
    """Reads on only where few bytes wait to be taken: uvicorn reads on whenever an application asks for a body.

    Parameters
    ----------
    waiting : callable, how many bytes wait
    """

    def __init__(self, transport: asyncio.Transport, waiting: Callable[[], int]) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Read on: before all is taken, since what ends within a request waits for the rest of it."""
        if self._waiting() < _READ_BYTES:
            super().resume_reading()


class Connection(HttpToolsProtocol):  # type: ignore[misc, unused-ignore]
    """uvicorn's own, with bounds: on connections, on requests in work, and on the time and bytes of a request's head.

    What comes behind a request that is in work waits as bytes, and no more is read meanwhile: however many requests a
    client sends at once, one of them is held as objects. Where the queue is full, those that can be told apart without
    the parser are refused without it, all that came together by one write: to refuse costs a tenth of an answer, or a
    service that is asked three times what it can do would spend all its time on refusals.

    Attributes
    ----------
    seconds : float, most time for a head; most, queue : int, most connections, and most requests in work
    shed : callable, told of requests that are refused because the queue is full: their path, and how many
    is_closing : callable, whether the service is to end: then an answer is the last one of its connection
    """

    seconds = 10.0
    most = 1000
    queue = 1000
    shed: Callable[[str, int], None]
    is_closing: Callable[[], bool]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; refuse where too many connections are open."""
        super().connection_made(transport)
        self.flow = _Flow(transport, lambda: len(self._behind))
        transport.set_write_buffer_limits(_UNSENT_BYTES)
        self._joined = _Joined(transport)
        self._behind = b""  # what came behind a request that is in work
        self._is_within = False  # a request, whose end the parser waits for
        self._head_bytes = 0
        self._head_due: float | None = None  # until when the head that is expected has to be there
        self._timer: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None  # None: a request is in work
        if len(self.connections) > self.most:
            self._refuse(503)
            return
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        for timer in (self._timer, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Take bytes, or keep them until what was asked before is answered."""
        if self.transport.is_closing():
            return
        if self._behind or self._must_wait:
            self._behind += data
            self.flow.pause_reading()
        else:
            self._take(data)

    def resume_writing(self) -> None:
        """Who asks has read answers again."""
        super().resume_writing()
        self._go_on_soon()

    @property
    def _must_wait(self) -> bool:
        """Whether a request is in work whose body is here, or answers are not read."""
        in_work = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        return in_work or self.flow.write_paused

    def _take(self, data: bytes) -> None:
        """Have one request parsed; refuse those in front of it where the queue is full, and keep those behind it."""
        place, shed = 0, Counter[bytes]()
        while place < len(data):
            plain = None if self._is_within else plain_request(data, place)
            if plain is None or plain.method != b"POST" or len(self.tasks) < self.queue or self.is_closing():
                break
            shed[plain.path] += 1
            place = plain.end
        if shed:
            self._shed(shed)
        if place < len(data):
            end = len(data) if plain is None else plain.end
            self._parse(data[place:end])
            self._behind = data[end:]
        if self._behind and not self.transport.is_closing():
            self.flow.pause_reading()
            if not self._must_wait:
                self._go_on_soon()

    def _go_on_soon(self) -> None:
        if self._behind:
            self.flow.pause_reading()  # what comes now would stand before it
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Take what waited, where nothing is in work any more."""
        if self._behind and not self._must_wait and not self.transport.is_closing():
            data, self._behind = self._behind, b""
            self.flow.resume_reading()
            self._take(data)

    def _shed(self, shed: Counter[bytes]) -> None:
        """Refuse requests that were not parsed."""
        self._unexpect()
        for path, count in shed.items():
            self.shed(path.decode(), count)
        self._joined.write(_BUSY_GOING_ON * shed.total())
        self._joined.flush()
        self._idle()

    def _idle(self) -> None:
        """Wait for the next request, as long as a connection may."""
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._end_when_idle(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        # The timer stays: one for each request, cancelled, would pile up until Python looks for what nobody holds.
        self._idle_since = None

    def _end_when_idle(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """End, where nothing was asked meanwhile."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._end_when_idle(left)
        else:
            super().timeout_keep_alive_handler()

    def _parse(self, data: bytes) -> None:
        """Feed the parser; refuse a head that does not end."""
        if self._head_due is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_due is not None and self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._is_within = True
        if self._head_due is None:
            self._expect()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._unexpect()
        super().on_headers_complete()
        if len(self.pipeline) > _MOST_PARSED and not self.transport.is_closing():
            self._refuse(503)

    def on_message_complete(self) -> None:
        """The body is there."""
        super().on_message_complete()
        self._is_within = False

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Have a request answered, or refuse it at once: then nothing is read, checked or put anywhere."""
        cycle.transport = self._joined
        if self.is_closing():
            cycle.keep_alive = False
        if len(self.tasks) >= self.queue and cycle.scope["method"] == "POST":
            self.shed(cycle.scope["path"], 1)
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
        """An answer is whole; as uvicorn has it, but for the timer."""
        self._joined.flush()
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle()
        self._go_on_soon()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._joined.flush()
        super().send_400_response(msg)

    def _expect(self) -> None:
        self._head_bytes = 0
        self._head_due = self.loop.time() + self.seconds
        if self._timer is None:
            self._timer = self.loop.call_at(self._head_due, self._look)

    def _unexpect(self) -> None:
        self._head_due = None  # the timer stays, for the next head

    def _look(self) -> None:
        """Refuse a head that is late."""
        self._timer = None
        if self._head_due is None:
            return
        if self.loop.time() < self._head_due:
            self._timer = self.loop.call_at(self._head_due, self._look)
        else:
            self._refuse(408)

    def _refuse(self, status: int) -> None:
        self._unexpect()
        again = b"retry-after: 1\r\n" if status == 503 else b""
        self._joined.flush()
        self.transport.write(
            b"HTTP/1.1 %d %s\r\n%sconnection: close\r\ncontent-length: 0\r\n\r\n" % (status, _REFUSALS[status], again)
        )
        self.transport.close()


class Reader(asyncio.BufferedProtocol):
    """Reads for a connection into one buffer, which is small: a client may send much before it is answered.

    Parameters
    ----------
    connection : Connection
    """

    _buffer = memoryview(bytearray(_READ_BYTES))  # of all: what is read is taken before anything else is read

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.connection_made = connection.connection_made  # type: ignore[method-assign, assignment, unused-ignore]
        self.connection_lost = connection.connection_lost  # type: ignore[method-assign, unused-ignore]
        self.eof_received = connection.eof_received  # type: ignore[method-assign, unused-ignore]
        self.pause_writing = connection.pause_writing  # type: ignore[method-assign, unused-ignore]
        self.resume_writing = connection.resume_writing  # type: ignore[method-assign, unused-ignore]

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on what was read."""
        self._connection.data_received(bytes(self._buffer[:nbytes]))


def bounded(
    *, seconds: float, most: int, queue: int, shed: Callable[[str, int], None], is_closing: Callable[[], bool],
) -> Callable[..., Reader]:  # fmt: skip
    """Return what makes connections with these bounds."""
    calls = {"shed": staticmethod(shed), "is_closing": staticmethod(is_closing)}
    bounds = {"seconds": seconds, "most": most, "queue": queue}
    kind = type("BoundedConnection", (Connection,), {**bounds, **calls})
    return lambda **settings: Reader(kind(**settings))
