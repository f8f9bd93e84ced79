"""The client that asks by a timetable counts what it sent and what came back, however the bytes are cut."""

import itertools
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.open_loop import Connection, offer

REQUEST = b"POST /predict HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
pytestmark = pytest.mark.timeout(30)


@contextmanager
def answering(answers: list[bytes], *, pause: float = 0.0, hangs_up: bool = False) -> Iterator[str]:
    """Give the address of a server that answers each request by the next of `answers`."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked, answered = b"", 0
            while data := self.request.recv(1 << 16):
                asked += data
                for number in range(answered, asked.count(REQUEST)):
                    time.sleep(pause)
                    self.request.sendall(answers[number % len(answers)])
                    answered = number + 1
                    if hangs_up:
                        return

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_an_answer_is_counted_once_wherever_it_is_cut() -> None:
    answers = b"HTTP/1.1 200 OK\r\n\r\n{}HTTP/1.1 503 Busy\r\n\r\n{}"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        connection = Connection(ours)
        for cut in range(len(answers)):
            statuses = list[int | None]()
            for part in (answers[:cut], answers[cut:]):
                theirs.sendall(part)
                statuses += connection.read() or []
            assert statuses == [200, 503], cut
        theirs.close()
        assert connection.read() is None


def test_every_answer_is_counted_by_its_status() -> None:
    answers = [b"HTTP/1.1 200 OK\r\n\r\n{}", b"HTTP/1.1 503 Busy\r\n\r\n{}", b"HTTP/1.1 500 Oh\r\n\r\n{}"]
    with answering(answers) as url:
        load = offer(url, [REQUEST], rate=200, seconds=0.3, connections=2, patience=5)
    assert (load.sent, load.lost, load.unanswered) == (60, 0, 0)
    assert load.answers == {200: 20, 503: 20, 500: 20}
    assert load.others == 20
    assert load.asked == pytest.approx(200, rel=0.2)


def test_time_counts_from_when_a_request_was_due() -> None:
    with answering([b"HTTP/1.1 200 OK\r\n\r\n"], pause=0.05) as url:
        load = offer(url, [REQUEST], rate=100, seconds=0.2, connections=1, patience=5)
    # The twentieth is due after .19 s and answered after 20 x .05 s.
    assert load.answers == {200: 20}
    assert load.p99 > 700


def test_what_is_never_answered_is_told() -> None:
    with answering([b""]) as url:
        load = offer(url, [REQUEST], rate=50, seconds=0.1, connections=2, patience=0.2)
    assert load.unanswered == load.others == 5
    with answering([b"HTTP/1.1 200 OK\r\n\r\n"], hangs_up=True) as url:
        load = offer(url, [REQUEST] * 2, rate=1000, seconds=0.05, connections=1, patience=1)
    assert load.lost
    assert load.lost + load.answers[200] + load.unanswered == load.sent


def test_an_answer_to_no_request_counts_for_none() -> None:
    opened = itertools.count()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            number = next(opened)
            self.request.settimeout(0.1)
            try:
                self.request.recv(1 << 16)
            except TimeoutError:  # as the service answers a connection that sends no request
                self.request.sendall(b"HTTP/1.1 408 Late\r\n\r\n")
                return
            if number:  # the first one hangs up, long before the other one is answered
                time.sleep(0.5)
                self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}"
            load = offer(url, [REQUEST], rate=1000, seconds=0.002, connections=2, patience=5)
        finally:
            server.shutdown()
            thread.join()
    assert (load.sent, load.lost, load.unanswered, load.answers) == (2, 1, 0, {200: 1})
