"""A training that was asked for, and what all ways of training do with it."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from attfm.commands.asked import Asked
from attfm.commands.console import Output
from attfm.commands.interrupted import Interruptible
from attfm.config import Config
from attfm.data.schema import Schema
from attfm.data.sources.source import Source
from attfm.data.split import Part
from attfm.model.facts import RunFacts, SplitFacts
from attfm.train.continued import Continuation, day_of, day_told
from attfm.train.observer import FitProgress, Observer, Together

SPLIT_SEED = 1234
Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """A training that was asked for, on a table that is open.

    valid, test : what is asked for as validation and test rows
    kept : what writes checkpoints, or None
    continued : a model that learns on from the table, or None
    """

    asked: Asked
    config: Config
    output: Output
    source: Source
    target: str
    valid: Part
    test: Part
    kept: Interruptible | None
    continued: Continuation | None = None

    @property
    def seed(self) -> int:
        """That of the split."""
        return SPLIT_SEED if self.asked.split_seed is None else self.asked.split_seed

    def show(self, schema: Schema, rows: int) -> None:
        """Print the table's columns."""
        self.output.say(f"{self.source.name}: {rows:,} rows, target '{self.target}'")
        self.output.say()
        self.output.table(("column", "kind", "type", "values", "missing", "why"), schema.rows(), right=(4,))
        self.output.say()

    def show_rows(self, rows: int) -> None:
        """Print from which rows a run learns on."""
        self.output.say(f"{self.source.name}: {rows:,} rows, from which {self.asked.from_run} learns on")

    def facts(self, rows: int, *, split: str | None = None) -> RunFacts:
        """Return what is known of the run; split : its name, where it is none by fractions."""
        asked = SplitFacts(valid=self.valid.asked, test=self.test.asked, seed=self.seed, by=self.config.train.split)
        as_of = day_told(day_of(self.asked.as_of))
        return RunFacts(table=self.source.name, rows=rows, split=asked if split is None else split, as_of=as_of)

    def watched(self, fit: Callable[[Observer], Result], *, writes: bool = True) -> Result:
        """Return what is fitted, and show the epochs; say how to go on where it ends early and left checkpoints.

        writes : whether this process writes the checkpoints; else its workers do
        """
        with FitProgress(self.config.train.epochs, show=not self.output.quiet) as progress:
            if self.kept is None:
                return fit(progress)
            try:
                return fit(Together(self.kept.observer, progress) if writes else progress)
            except BaseException:
                if self.kept.has_checkpoint:
                    run = shlex.quote(str(self.kept.run))
                    self.output.say(f"What was done is kept: attfm train --resume {run} goes on.")
                raise
