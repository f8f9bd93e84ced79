"""What a person sees while a model trains: a bar with loss, validation metric and rows per second."""

import sys
from typing import Literal, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from attfm.model.modules import FactorizationMachine
from attfm.train.trainer import Epoch


class FitProgress:
    """Context manager that shows the epochs of a fit.

    Parameters
    ----------
    epochs : the most that will be run
    show : True: a bar on a terminal, a line for each epoch elsewhere; "auto": a bar on a terminal only; False: nothing
    stream : where it is shown
    """

    def __init__(self, epochs: int, *, show: bool | Literal["auto"], stream: TextIO | None = None) -> None:
        stream = sys.stderr if stream is None else stream
        on_terminal = stream.isatty()
        self._lines = show is True and not on_terminal
        self._stream = stream
        self._bar: Progress | None = None
        if on_terminal and show is not False:
            self._bar = Progress(
                TextColumn("{task.fields[refit]}epoch {task.completed:.0f}/{task.total:.0f}"), BarColumn(),
                TextColumn("{task.description}"), TimeElapsedColumn(),
                console=Console(file=stream), transient=True,
            )  # fmt: skip
        self._epochs = epochs
        self._text, self._seen, self._refit = "", 0, ""

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task("", total=self._epochs, refit="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def on_refit(self, number: int, refits: int) -> None:
        """Show that the epochs that follow are those of a refit."""
        self._refit, self._text, self._seen = f"refit {number}/{refits}, ", "", 0
        if self._bar:
            self._bar.reset(self._task, refit=self._refit)

    def on_batch(self, rows: int) -> None:
        """Show that a batch of so many rows is done."""
        if self._bar:
            self._seen += rows
            self._bar.update(self._task, description=f"{self._text}  {self._seen:,} rows")

    def on_epoch(self, epoch: Epoch, module: FactorizationMachine) -> None:
        """Show an epoch that has ended."""
        valid = "" if epoch.valid_loss is None else f"  validation {epoch.valid_loss:.4f}"
        for name, value in list(epoch.valid_metrics.items())[:1]:
            valid += f" {name} {value:.4f}"
        text = f"loss {epoch.train_loss:.4f}{valid}  {epoch.rows_per_second:,.0f} rows/s"
        self._text, self._seen = text, 0
        if self._bar:
            self._bar.update(self._task, completed=epoch.epoch, description=text)
        if self._lines:
            print(f"{self._refit}epoch {epoch.epoch}: {text}", file=self._stream, flush=True)
