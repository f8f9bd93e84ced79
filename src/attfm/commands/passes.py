"""How far a pass over a table has come: a bar with rows a second and the time left, or a line when it is done."""

import sys
import time
from collections.abc import Iterator

import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from attfm.commands.console import Output, duration


class Passes:
    """Shows each pass over a table (see `attfm.data.survey.Watch`); on stderr where a person watches."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def __call__(self, batches: Iterator[pa.RecordBatch], rows: int | None, what: str) -> Iterator[pa.RecordBatch]:
        """Give the batches on."""
        started, done = time.perf_counter(), 0
        bar = None
        if sys.stderr.isatty() and not self._output.quiet:
            bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rows]}"), TimeElapsedColumn(),
                TimeRemainingColumn(), console=Console(stderr=True), transient=True,
            )  # fmt: skip
            task = bar.add_task(what, total=rows, rows="")
            bar.start()
        try:
            for batch in batches:
                yield batch
                done += batch.num_rows
                if bar is not None:
                    rate = done / max(time.perf_counter() - started, 1e-9)
                    bar.update(task, completed=done, rows=f"{done:,} rows, {rate:,.0f}/s")
        finally:
            if bar is not None:
                bar.stop()
        seconds = time.perf_counter() - started
        self._output.say(f"{what}: {done:,} rows in {duration(seconds)} ({done / max(seconds, 1e-9):,.0f} a second)")
