"""What is known of a run besides its settings: where its rows came from, and how training went."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict


class SplitFacts(BaseModel):
    """How a table was split: shares of the rows or names of tables of their own, and the seed of the random parts.

    `by` is the column by which rows were divided, "time:COLUMN" or "group:COLUMN"; None: by chance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    valid: float | str | None
    test: float | str | None
    seed: int
    by: str | None = None


class TuningFacts(BaseModel):
    """What a study of settings came to; see `attfm.train.tuning`.

    Attributes
    ----------
    study : str, tells the study from all others
    trials, pruned : int, how many there were, and how many of them were given up before their end
    best_trial : int, number of the trial whose settings the run has, from 1
    validation_loss, as_given_loss : float, log loss or mean squared error of the validation rows, with those settings
        and with the settings as they were given; None where that was not finite
    settings, as_given : by name, what was tuned, as the best trial had it and as it was given
    importance : by name, the share of the differences between trials that a setting explains; empty of too few trials
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    trials: int
    pruned: int
    best_trial: int
    validation_loss: float
    as_given_loss: float | None
    settings: dict[str, int | float]
    as_given: dict[str, int | float]
    importance: dict[str, float]

    @property
    def sentence(self) -> str:
        """What the study came to, for people."""
        as_given = "not finite" if self.as_given_loss is None else f"{self.as_given_loss:.5g}"
        return (
            f"{self.trials} trials, {self.pruned} of them given up early; best: trial {self.best_trial}, "
            f"validation loss {self.validation_loss:.5g} (settings as given: {as_given})"
        )


class RunFacts(BaseModel):
    """Facts of a run; None where a fact is not known, or does not apply.

    Attributes
    ----------
    variant, about : str, which part of a reproduced experiment it is
    table : str, name of the table that was trained on, with `rows` rows; `test_rows` were set aside
    split : SplitFacts or "adult", how it was split; "adult": as all figures on Adult are
    training_rows, validation_rows, features, fields : int, sizes of what was trained on
    models : int, how many were cross-fitted and are averaged; with several, each was stopped by a fold of the training
        rows
    epochs, best_epoch : int, how many passes over the rows were made, and whose parameters were kept; of several models
        their means
    stopped : str, why training ended
    refit_epochs : int, passes over training and validation rows of a model that was then trained again on both;
        `training_rows` are both, and metrics of validation rows are those of the model before
    seeds : int, models that were trained on the same rows for as many epochs, each from a seed of its own, and are
        averaged
    seconds : float, from the labels to the trained module
    class_weights : list of float, by which rows were weighted, in the order of the target's classes
    straddling : list of str, field pairs whose groups seem to stand on both sides of the split
    calibration : str, how probabilities were calibrated, in words
    tuning : TuningFacts, how the settings were found
    as_of : str, the day of the latest rows that were learned from, as 2024-03-01
    chosen : settings that were "auto", as the rows decided
    trainings : int, how often the model has learned, where it has learned on from new rows: `rows`, `training_rows` and
        all that follows from rows are of the last training
    new_values, evicted_values : by column, how many were added and forgotten in the last training
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: str | None = None
    about: str | None = None
    table: str | None = None
    rows: int | None = None
    test_rows: int | None = None
    split: SplitFacts | Literal["adult"] | None = None
    training_rows: int | None = None
    validation_rows: int | None = None
    features: int | None = None
    fields: int | None = None
    models: int | None = None
    epochs: int | None = None
    best_epoch: int | None = None
    stopped: str | None = None
    refit_epochs: int | None = None
    seeds: int | None = None
    seconds: float | None = None
    class_weights: list[float] | None = None
    straddling: list[str] | None = None
    calibration: str | None = None
    tuning: TuningFacts | None = None
    as_of: str | None = None
    chosen: dict[str, bool | int | float | str] | None = None
    trainings: int | None = None
    new_values: dict[str, int] | None = None
    evicted_values: dict[str, int] | None = None

    def known(self) -> dict[str, Any]:
        """Return the facts that are known, as JSON values."""
        return {name: value for name, value in self.model_dump(mode="json").items() if value is not None}

    def told(self) -> dict[str, Any]:
        """Return the facts that are known, for people: those of a study are one sentence."""
        return self.known() | ({} if self.tuning is None else {"tuning": self.tuning.sentence})

    def with_facts(self, **facts: Any) -> Self:
        """Return these facts with some more."""
        return type(self).model_validate({**self.known(), **facts})
