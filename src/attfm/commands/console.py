"""What the commands print: tables, lines and JSON, each on the stream where it belongs."""

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from attfm.files import finite


@dataclass(frozen=True)
class Output:
    """Where a command's messages and its result go, and how long it has taken.

    With `as_json` the result is one JSON object on stdout, and messages go to stderr; else both go to stdout. With
    `quiet` there are no messages.
    """

    as_json: bool = False
    quiet: bool = False
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds since the command began, to the millisecond."""
        return round(time.perf_counter() - self.started, 3)

    @property
    def _stream(self) -> TextIO:
        return sys.stderr if self.as_json else sys.stdout

    def say(self, text: str = "") -> None:
        """Print a line that is not the result."""
        if not self.quiet:
            print(_printable(text), file=self._stream, flush=True)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
        """Print a table that is not the result; `right` are the numbers of the columns flushed right."""
        if not self.quiet:
            print_table(header, rows, stream=self._stream, right=right)

    def result_lines(self, *lines: str) -> None:
        """Print lines of the result for people, which `quiet` keeps."""
        if not self.as_json:
            for line in lines:
                print(_printable(line), flush=True)

    def result_table(self, header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
        """Print a table of the result for people, which `quiet` keeps."""
        if not self.as_json:
            print_table(header, rows, stream=sys.stdout, right=right)

    def result_json(self, values: Mapping[str, Any]) -> None:
        """Print the result for programs, where JSON was asked for."""
        if self.as_json:
            print(json.dumps(finite(values), indent=2, default=str, allow_nan=False), flush=True)


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, stream: TextIO, right: Sequence[int] = ()
) -> None:
    """Print a table: drawn on a terminal, as aligned plain lines elsewhere."""
    lines = [[_printable(cell) for cell in line] for line in (header, *rows)]
    if stream.isatty():
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for number, name in enumerate(lines[0]):
            table.add_column(Text(name), justify="right" if number in right else "left")
        for line in lines[1:]:
            table.add_row(*map(Text, line))  # no markup and no emoji codes in a Text
        Console(file=stream).print(table)
        return
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip(), file=stream)
    stream.flush()


def _printable(text: str) -> str:
    """Return text without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else "·" for c in text)


def metric_rows(metrics: Mapping[str, Mapping[str, float]]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table of metrics: one row for each metric, one column for each part."""
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    rows = [[name.replace("_", " "), *(number(values.get(name)) for values in metrics.values())] for name in names]
    return ["metric", *metrics], rows


def number(value: float | None) -> str:
    """Return a metric as people read it: four decimals, more digits for large values, "-" where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.6g}"


def duration(seconds: float) -> str:
    """Return "0.8 s", "12 s" or "3 min 20 s"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C (and a request to terminate) while something is saved, and obey it afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)

    before = [(number, signal.signal(number, hold)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
        for held_back in held:
            os.kill(os.getpid(), held_back)
