"""What a person sees of a tuning."""

from collections.abc import Mapping

from attfm.model.modules import FactorizationMachine
from attfm.train.observer import Epoch, FitProgress


class TuningProgress(FitProgress):
    """Context manager that shows the trials of a tuning: a line for each, and on a terminal the epochs of this one.

    Parameters are those of `FitProgress`, where True shows a line for each trial, on a terminal too.
    """

    _part = ""

    def on_epoch(self, epoch: Epoch, module: FactorizationMachine) -> bool:
        """Show an epoch that has ended, in the bar alone."""
        if self._bar:
            super().on_epoch(epoch, module)
        return False

    def on_trial(self, number: int, trials: int) -> None:
        """Show that the epochs that follow are those of the `number`-th of so many trials, from 1."""
        self._show_part(f"trial {number}/{trials}")

    def on_winner(self, number: int) -> None:
        """Show that the epochs that follow are those of the model that is kept, with the settings of a trial."""
        self._show_part(f"as trial {number}")
        self._print(f"training with the settings of trial {number}")

    def on_tried(self, outcome: str, settings: Mapping[str, int | float]) -> None:
        """Show what came of the trial that has ended."""
        values = (f"{name} {x if isinstance(x, int) else f'{x:.3g}'}" for name, x in settings.items())
        self._print(f"{self._part}: {outcome}: {', '.join(values)}")

    def _show_part(self, part: str) -> None:
        self._part, self._refit, self._model, self._text, self._seen = part, f"{part}, ", "", "", 0
        if self._bar:
            self._bar.reset(self._task, refit=self._refit)

    def _print(self, text: str) -> None:
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False, emoji=False)
        elif self._lines:
            print(text, file=self._stream, flush=True)
