"""Who watches a training, and what a person sees of it: a bar with loss, validation metric and rows per second."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from attfm.model.modules import FactorizationMachine

if TYPE_CHECKING:
    from attfm.train.trainer import Trainer


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training rows gave: mean losses of a weighted row, and figures of the validation rows.

    seconds, rows_per_second : of the steps; where a killed training was gone on with, of those since then
    rows : training rows that its steps took, all workers' together
    """

    epoch: int
    train_loss: float
    valid_loss: float | None
    seconds: float
    rows_per_second: float
    valid_metrics: Mapping[str, float] = field(default_factory=dict)
    rows: int = 0

    def record(self) -> dict[str, float | int | None]:
        """Return all numbers in one flat dictionary."""
        values = asdict(self)
        metrics = values.pop("valid_metrics")
        return {**values, **{f"valid_{name}": value for name, value in metrics.items()}}


class Observer:
    """Is told what happens while a model trains, and may ask to stop; this one looks on."""

    def on_start(self, trainer: "Trainer") -> None:
        """Take note that a training begins; it may be given a state to go on from (`Trainer.load_state_dict`)."""

    def on_step(self, trainer: "Trainer") -> None:
        """Take note that a step is done, after which the trainer's `state_dict` is whole."""

    def on_end(self, trainer: "Trainer") -> None:
        """Take note that a training has ended; see `Trainer.result`."""

    def on_epoch(self, epoch: Epoch, module: FactorizationMachine) -> bool:
        """Take note of an epoch that has ended, with the module as it would be kept; return whether to stop."""
        return False

    def on_batch(self, rows: int) -> None:
        """Take note that a batch of so many rows is done."""

    def on_refit(self, number: int, refits: int) -> None:
        """Take note that the epochs that follow are those of a refit, the `number`-th of `refits`, from 1."""

    def on_model(self, number: int, models: int) -> None:
        """Take note that the epochs that follow are those of a cross-fitted model, the `number`-th of `models`."""

    def on_seed(self, number: int, seeds: int) -> None:
        """Take note that the epochs that follow are of one of the models that are trained for as many as were best."""


class Together(Observer):
    """Several observers; each asks to stop for all."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def on_start(self, trainer: "Trainer") -> None:
        for observer in self._observers:
            observer.on_start(trainer)

    def on_step(self, trainer: "Trainer") -> None:
        for observer in self._observers:
            observer.on_step(trainer)

    def on_end(self, trainer: "Trainer") -> None:
        for observer in self._observers:
            observer.on_end(trainer)

    def on_epoch(self, epoch: Epoch, module: FactorizationMachine) -> bool:
        asked = [observer.on_epoch(epoch, module) for observer in self._observers]  # all are told
        return any(asked)

    def on_batch(self, rows: int) -> None:
        for observer in self._observers:
            observer.on_batch(rows)

    def on_refit(self, number: int, refits: int) -> None:
        for observer in self._observers:
            observer.on_refit(number, refits)

    def on_model(self, number: int, models: int) -> None:
        for observer in self._observers:
            observer.on_model(number, models)

    def on_seed(self, number: int, seeds: int) -> None:
        for observer in self._observers:
            observer.on_seed(number, seeds)


class FitProgress(Observer):
    """Context manager that shows the epochs of a fit.

    Parameters
    ----------
    epochs : int, the most that will be run
    show : bool or "auto"
        True: a bar on a terminal, a line for each epoch elsewhere; "auto": a bar on a terminal only; False: nothing.
    stream : text file or None, where it is shown; None: standard error
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
        self._text, self._seen, self._refit, self._model = "", 0, "", ""

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
        self._refit, self._model = f"refit {number}/{refits}, ", ""
        self._begin()

    def on_model(self, number: int, models: int) -> None:
        """Show that the epochs that follow are those of a cross-fitted model."""
        self._model = f"model {number}/{models}, "
        self._begin()

    def on_seed(self, number: int, seeds: int) -> None:
        """Show that the epochs that follow are those of a model that nothing stops."""
        self._model = "last training, " if seeds == 1 else f"seed {number}/{seeds}, "
        self._begin()

    def _begin(self) -> None:
        self._text, self._seen = "", 0
        if self._bar:
            self._bar.reset(self._task, refit=self._refit + self._model)

    def on_batch(self, rows: int) -> None:
        """Show that a batch of so many rows is done."""
        if self._bar:
            self._seen += rows
            self._bar.update(self._task, description=f"{self._text}  {self._seen:,} rows")

    def on_epoch(self, epoch: Epoch, module: FactorizationMachine) -> bool:
        """Show an epoch that has ended."""
        valid = "" if epoch.valid_loss is None else f"  validation {epoch.valid_loss:.4f}"
        for name, value in list(epoch.valid_metrics.items())[:1]:
            valid += f" {name} {value:.4f}"
        text = f"loss {epoch.train_loss:.4f}{valid}  {epoch.rows_per_second:,.0f} rows/s"
        self._text, self._seen = text, 0
        if self._bar:
            self._bar.update(self._task, completed=epoch.epoch, description=text)
        if self._lines:
            print(f"{self._refit}{self._model}epoch {epoch.epoch}: {text}", file=self._stream, flush=True)
        return False
