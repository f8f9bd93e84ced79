"""What a connection does with many requests at once: in order, bounded, and refused at little cost."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

httptools = pytest.importorskip("httptools", reason="attfm[serve] is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="attfm[serve] is not installed")

from attfm.serve.http import connection as connections  # noqa: E402
from attfm.serve.http.plain_request import plain_request  # noqa: E402

pytestmark = pytest.mark.timeout(30)


def request(body: bytes = b"{}", *, method: bytes = b"POST", path: bytes = b"/predict", more: bytes = b"") -> bytes:
    return b"%s %s HTTP/1.1\r\nhost: localhost\r\n%scontent-length: %d\r\n\r\n%s" % (
        method,
        path,
        more,
        len(body),
        body,
    )


class Parsed:
    """Requests as llhttp tells them apart."""

    def __init__(self, data: bytes) -> None:
        self.paths, self.bodies = list[bytes](), list[bytes]()
        self.whole = 0
        httptools.HttpRequestParser(self).feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.paths.append(url)
        self.bodies.append(b"")

    def on_body(self, body: bytes) -> None:
        self.bodies[-1] += body

    def on_message_complete(self) -> None:
        self.whole += 1


@given(
    bodies=st.lists(st.binary(max_size=40), min_size=1, max_size=4),
    names=st.lists(st.sampled_from([b"accept", b"X-Y", b"content-type", b"cookie"]), max_size=3),
    values=st.binary(max_size=10).filter(
        lambda value: not set(value) & set(b"\r\n\0\x7f") and min(value, default=32) > 31
    ),
)
def test_requests_end_where_the_parser_has_them_end(bodies: list[bytes], names: list[bytes], values: bytes) -> None:
    more = b"".join(name + b": " + values + b"\r\n" for name in names)
    data = b"".join(request(body, more=more) for body in bodies)
    parsed, place = Parsed(data), 0
    for body in bodies:
        plain = plain_request(data, place)
        assert plain is not None
        assert data[: plain.end].endswith(body)
        place = plain.end
    assert place == len(data)
    assert (parsed.whole, parsed.bodies) == (len(bodies), bodies)
    assert plain_request(data[:-1], place - len(request(bodies[-1], more=more))) is None  # not all of it is here


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: +2\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 2, 2\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length : 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\n content-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\ncontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\rcontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: \0\r\n\r\n",
        b"POST / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\nhost: x\n\n",
        b"POST / HTTP/1.1\r\nconnection: close\r\n\r\n",
        b"POST / HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\n\r\n",
        b"POST / HTTP/1.1\r\nupgrade: h2c\r\n\r\n",
        b"POST / HTTP/1.1\r\nExpect: 100-continue\r\ncontent-length: 2\r\n\r\n",
        b"post / HTTP/1.1\r\n\r\n",
        b"PUT / HTTP/1.1\r\n\r\n",
        b"POST http://x/ HTTP/1.1\r\n\r\n",
        b"POST /a b HTTP/1.1\r\n\r\n",
        b"\r\nPOST / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_could_be_read_in_two_ways_is_left_to_the_parser(head: bytes) -> None:
    assert plain_request(head + b"{}" + request()) is None
    assert plain_request(b"POST / HTTP/1.1\r\nhost: x\r\nConnection: Keep-Alive\r\n\r\n") is not None


class Held:
    """A server of connections with bounds whose application answers each request with its path, when it is let."""

    keep_alive: float = 5  # seconds

    def __init__(self, queue: int) -> None:
        self.go_on = asyncio.Event()
        self.rounds = 0  # of the loop that an answer takes
        self.begun = list[str]()
        self.shed = Counter[str]()
        self.connections = list[Any]()
        config = uvicorn.Config(self._app, interface="asgi3", ws="none", lifespan="off", log_config=None)
        config.timeout_keep_alive = self.keep_alive
        make = connections.bounded(
            seconds=5, most=100, queue=queue, shed=lambda path, count: self.shed.update({path: count}),
            is_closing=lambda: False,
        )  # fmt: skip
        state = uvicorn.server.ServerState()

        def protocol() -> Any:
            reader = make(config=config, server_state=state, app_state={})
            self.connections.append(reader._connection)
            return reader

        self.protocol = protocol

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun.append(scope["path"])
        await receive()
        await self.go_on.wait()
        for _ in range(self.rounds):
            await asyncio.sleep(0)
        body = scope["path"].encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


def asked(
    main: Callable[[Held, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], *, queue: int = 100,
    loop: str = "asyncio",
) -> None:  # fmt: skip
    async def run() -> None:
        held = Held(queue)
        async with await asyncio.get_running_loop().create_server(held.protocol, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            try:
                await main(held, reader, writer)
            finally:
                held.go_on.set()
                for transport in (writer.transport, *(each.transport for each in held.connections)):
                    transport.abort()
                for _ in range(20):
                    await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=pytest.importorskip(loop).new_event_loop) as runner:
        runner.run(run())


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("more", [b"", b"expect: nothing\r\n"])
def test_requests_sent_at_once_are_answered_one_after_the_other(loop: str, more: bytes) -> None:
    async def main(held: Held, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        paths = [f"/{number}" for number in range(12)]
        writer.write(b"".join(request(path=path.encode(), more=more) for path in paths))
        await until(lambda: bool(held.begun))
        assert held.begun == ["/0"]
        held.go_on.set()
        assert [await answer(reader) for _ in paths] == [(200, path.encode()) for path in paths]
        # And it goes on: one in pieces, one whose body comes later, and one without a body.
        whole = request(path=b"/pieces") + request(b"x" * 100_000, path=b"/large") + b"GET /get HTTP/1.1\r\n\r\n"
        for start in range(0, len(whole), 5001):
            writer.write(whole[start : start + 5001])
            await asyncio.sleep(0)
        assert [await answer(reader) for _ in range(3)] == [(200, b"/pieces"), (200, b"/large"), (200, b"/get")]

    asked(main, loop=loop)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_flood_behind_one_request_is_held_as_few_bytes(loop: str) -> None:
    async def main(held: Held, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flood = request() * 50_000
        writer.write(flood)
        await until(lambda: bool(held.begun))
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(held.connections[-1]._behind) <= 4 * connections._READ_BYTES
        assert not held.connections[-1].pipeline
        assert held.connections[-1].flow.read_paused  # the rest waits where it came from

    asked(main, loop=loop)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_flood_that_is_answered_one_by_one_is_held_as_few_bytes(loop: str) -> None:
    async def main(held: Held, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.go_on.set()
        held.rounds = 5
        writer.write(request() * 50_000)
        for _ in range(100):
            assert await answer(reader) == (200, b"/predict")
            assert len(held.connections[-1]._behind) <= 4 * connections._READ_BYTES

    asked(main, loop=loop)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_all_of_a_flood_is_answered_wherever_what_is_read_ends(loop: str) -> None:
    async def main(held: Held, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.go_on.set()
        held.rounds = 5
        paths = [f"/{number}" for number in range(600)]
        writer.write(b"".join(request(b"x" * 400, path=path.encode()) for path in paths))
        assert [await answer(reader) for _ in paths] == [(200, path.encode()) for path in paths]

    asked(main, loop=loop)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_requests_leave_no_timers_behind(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A timer that is cancelled is held by a cycle: at thousands a second they were 100 MB before Python looked.
    async def main(held: Held, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other = await asyncio.open_connection(*writer.get_extra_info("peername"))
        for _ in range(3):
            writer.write(request(path=b"/a"))
            await until(lambda: bool(held.begun))
            held.go_on.set()
            assert await answer(reader) == (200, b"/a")
            held.go_on.clear()
            other.write(request(path=b"/first"))
            await until(lambda: held.begun[-1] == "/first")
            writer.write(
                request(path=b"/b") + request(path=b"/c", more=b"expect: nothing\r\n") + b"POST /d HTTP/1.1\r\n"
            )
            assert [(await answer(reader))[0] for _ in range(2)] == [503, 503]
            writer.write(b"content-length: 0\r\n\r\n")
            assert (await answer(reader))[0] == 503
            held.go_on.set()
            assert await answer(other_reader) == (200, b"/first")
            held.go_on.clear()
        asked, idle = held.connections[0], held.connections[0].timeout_keep_alive_task
        assert idle is not None
        assert asked._timer is not None
        assert made == [2, 2]  # of each connection: one for heads, and one for when it is idle
        other.close()

    made = [0, 0]
    expected, ended = connections.Connection._expect, connections.Connection._end_when_idle

    def expect(self: Any) -> None:
        before = self._timer
        expected(self)
        made[0] += self._timer is not before

    def end(self: Any, seconds: float) -> None:
        made[1] += 1
        ended(self, seconds)

    monkeypatch.setattr(connections.Connection, "_expect", expect)
    monkeypatch.setattr(connections.Connection, "_end_when_idle", end)
    asked(main, queue=1, loop=loop)


def test_a_connection_ends_when_it_is_idle_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(held: Held, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.go_on.set()
        loop, begun = asyncio.get_running_loop(), 0.0
        for _ in range(4):
            writer.write(request())
            assert await answer(reader) == (200, b"/predict")
            begun = loop.time()
            await asyncio.sleep(0.15)  # less than it may be idle, and more than that in all
        assert await asyncio.wait_for(reader.read(), 10) == b""
        assert 0.19 < loop.time() - begun < 5

    monkeypatch.setattr(Held, "keep_alive", 0.2)
    asked(main)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_finds_the_queue_full_is_refused_in_order_and_counted(loop: str) -> None:
    async def main(held: Held, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other = await asyncio.open_connection(*writer.get_extra_info("peername"))
        other.write(request(path=b"/first"))
        await until(lambda: held.begun == ["/first"])
        sent = [request(path=b"/a?x=1"), request(path=b"/b"), b"GET /c HTTP/1.1\r\n\r\n", request(path=b"/a"),
                request(path=b"/d", more=b"expect: nothing\r\n")]  # fmt: skip
        writer.write(b"".join(sent))
        assert [(await answer(reader))[0] for _ in range(2)] == [503, 503]
        await until(lambda: held.begun == ["/first", "/c"])
        held.go_on.set()
        assert await answer(other_reader) == (200, b"/first")
        replies = [await answer(reader) for _ in range(3)]
        assert replies[0] == (200, b"/c")
        assert held.shed["/b"] == 1
        assert held.shed.total() == 2 + [status for status, _ in replies].count(503)
        other.close()

    asked(main, queue=1, loop=loop)


def test_who_does_not_read_answers_is_not_read() -> None:
    async def main(held: Held, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, other = await asyncio.open_connection(*writer.get_extra_info("peername"))
        other.write(request(path=b"/first"))
        await until(lambda: held.begun == ["/first"])
        number = 60_000
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request() * number)
        for _ in range(3000):
            await asyncio.sleep(0)
        assert held.shed["/predict"] < number
        assert held.connections[-1].transport.get_write_buffer_size() < 1_000_000
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(number):
            assert (await answer(reader))[0] == 503
        held.go_on.set()
        other.close()

    asked(main, queue=1)


def test_requests_that_only_the_parser_tells_apart_are_bounded_too() -> None:
    async def main(held: Held, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"OPTIONS / HTTP/1.1\r\n\r\n" * 1000)
        await until(lambda: bool(held.connections) and held.connections[-1].transport.is_closing())
        assert len(held.connections[-1].pipeline) < 1000
        assert len(held.begun) <= 1

    asked(main)
