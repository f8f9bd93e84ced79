"""One JSON line a request: when, what, how long, and nothing of its rows."""

import asyncio
import json
import logging
import sys
import time
import traceback
from typing import Any, TextIO

_SECONDS = 0.05  # that lines wait to be written together


class AccessLog:
    """Writes lines to a stream, together where they come quickly.

    Parameters
    ----------
    stream : text stream or None: stderr
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lines: list[str] = []

    def write(self, **record: Any) -> None:
        """Write a line with the time and what is given."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        line = json.dumps({"time": stamp, **record}, ensure_ascii=True, default=str)
        if not self._lines:
            try:
                asyncio.get_running_loop().call_later(_SECONDS, self.flush)
            except RuntimeError:  # no loop: nothing comes quickly
                self._lines.append(line)
                self.flush()
                return
        self._lines.append(line)

    def error(self, error: BaseException, **record: Any) -> None:
        """Write where something that was not foreseen came from; not its message, which may hold values of a row."""
        frames = traceback.extract_tb(error.__traceback__)
        where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
        self.write(level="error", error=type(error).__name__, where=where, **record)

    def flush(self) -> None:
        """Write the lines that wait."""
        lines, self._lines = self._lines, []
        if lines:
            stream = self._stream or sys.stderr
            stream.write("\n".join(lines) + "\n")
            stream.flush()


class ServerMessages(logging.Handler):
    """What the HTTP server itself has to say, as lines of the same log."""

    def __init__(self, log: AccessLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        if record.exc_info and record.exc_info[1] is not None:
            self._log.error(record.exc_info[1], message=str(record.msg))
        else:
            self._log.write(level=record.levelname.lower(), message=record.getMessage())
