"""Asks a service so many requests a second, whatever becomes of them: by raw sockets, pipelined, from one thread.

A client that waits for its answers asks a slow service less, and so measures it better than it is. This one has a
timetable: request n is due n / rate seconds after the start, goes out then on connection n modulo connections, behind
what is not answered there yet, and its time counts from when it was due.
"""

import contextlib
import re
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
_LONGEST_PART = 11  # bytes of a status line's start that may end one read and go on in the next
_READ = 1 << 16


@dataclass(frozen=True)
class Offered:
    """What came of a timetable.

    Attributes
    ----------
    connections : int; rate : float, requests a second that were wanted
    seconds : float, from the first to the last, more than was wanted where the client could not keep up
    sent : int, requests that went out whole; late : float, seconds that one of them was behind the timetable at most
    answers : Counter, how many by status
    lost : int, requests whose connection ended; unanswered : int, those that were waited for in vain
    p50, p99 : milliseconds of status 200 from due to answered, NaN where there is none
    """

    connections: int
    rate: float
    seconds: float
    sent: int
    late: float
    answers: Counter[int]
    lost: int
    unanswered: int
    p50: float
    p99: float

    @property
    def asked(self) -> float:
        """Requests a second that went out."""
        return self.sent / self.seconds

    @property
    def predicted(self) -> float:
        """Answers of status 200 a second."""
        return self.answers[200] / self.seconds

    @property
    def others(self) -> int:
        """Answers that are neither results nor refusals, and requests without any."""
        return self.lost + self.unanswered + sum(n for status, n in self.answers.items() if status not in (200, 503))


@dataclass
class Connection:
    """A connection to the service that is asked, which does not block."""

    socket: socket.socket
    out: bytearray = field(default_factory=bytearray)  # what the system did not take yet
    due: deque[float] = field(default_factory=deque)  # of requests without an answer
    tail: bytes = b""

    def send(self) -> bool:
        """Send what the system takes, and return whether all went; that the connection has ended is told by `read`."""
        with contextlib.suppress(OSError):
            del self.out[: self.socket.send(self.out)]
        return not self.out

    def read(self) -> list[int] | None:
        """Return the statuses that came; None: the connection has ended."""
        try:
            data = self.socket.recv(_READ)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        text = self.tail + data
        found = list(_STATUS.finditer(text))
        self.tail = text[found[-1].end() if found else 0 :][-_LONGEST_PART:]
        return [int(match[1]) for match in found]


def offer(
    url: str, requests: Sequence[bytes], *, rate: float, seconds: float, connections: int = 600, patience: float = 15.0
) -> Offered:
    """Ask rate x seconds requests by the timetable, then wait for the answers, `patience` seconds at most.

    Parameters
    ----------
    requests : whole requests of HTTP/1.1, head and body, that are sent in turn
    """
    place = (urlsplit(url).hostname or "", urlsplit(url).port or 80)
    poll = select.epoll()
    open_ones = dict[int, Connection]()

    def connect() -> Connection:
        opened = Connection(socket.create_connection(place))
        opened.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.socket.setblocking(False)
        poll.register(opened.socket.fileno(), select.EPOLLIN)
        open_ones[opened.socket.fileno()] = opened
        return opened

    ring = [connect() for _ in range(connections)]
    count, given, lost = round(rate * seconds), 0, 0
    answers, times = Counter[int](), list[float]()
    blocked = dict[int, Connection]()  # by file number: has bytes that the system did not take yet
    start = now = time.perf_counter()
    late = took = 0.0
    while given < count or (now < start + seconds + patience and any(each.due for each in ring)):
        for number in range(given, min(int((now - start) * rate) + 1, count)):
            asked = ring[number % connections]
            asked.due.append(start + number / rate)
            asked.out += requests[number % len(requests)]
            blocked[asked.socket.fileno()] = asked
            given, late = number + 1, max(late, now - start - number / rate)
        took = took or (time.perf_counter() - start if given == count else 0.0)
        blocked = {number: each for number, each in blocked.items() if not each.send()}
        for number, _ in poll.poll(max(min(start + given / rate - now, 0.01), 0.0005)):
            each = open_ones[number]
            statuses, now = each.read(), time.perf_counter()
            if statuses is None:
                lost += len(each.due)
                poll.unregister(number)
                each.socket.close()
                del open_ones[number]
                blocked.pop(number, None)
                ring[ring.index(each)] = connect()
                continue
            # A connection that has nothing left to ask is told in the end that no request came: that answers none.
            del statuses[len(each.due) :]
            answers.update(statuses)
            for status in statuses:
                due = each.due.popleft()
                if status == 200:
                    times.append(now - due)
        now = time.perf_counter()
    unsent = sum(each.out.count(b"POST ") for each in blocked.values())
    unanswered = sum(len(each.due) for each in ring)
    for each in open_ones.values():
        each.socket.close()
    poll.close()
    p50, p99 = np.percentile(1000 * np.array(times or [np.nan]), [50, 99]).tolist()
    return Offered(connections, rate, max(took, seconds), given - unsent, late, answers, lost, unanswered, p50, p99)
