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


class RunFacts(BaseModel):
    """Facts of a run; None where a fact is not known, or does not apply.

    Attributes
    ----------
    variant, about : str, which part of a reproduced experiment it is
    table : str, name of the table that was trained on, with `rows` rows; `test_rows` were set aside
    split : SplitFacts or "adult", how it was split; "adult": as all figures on Adult are
    training_rows, validation_rows, features, fields : int, sizes of what was trained on
    epochs, best_epoch : int, how many passes over the rows were made, and whose parameters were kept
    stopped : str, why training ended
    seconds : float, from the labels to the trained module
    class_weights : list of float, by which rows were weighted, in the order of the target's classes
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
    epochs: int | None = None
    best_epoch: int | None = None
    stopped: str | None = None
    seconds: float | None = None
    class_weights: list[float] | None = None

    def known(self) -> dict[str, Any]:
        """Return the facts that are known, as JSON values."""
        return {name: value for name, value in self.model_dump(mode="json").items() if value is not None}

    def with_facts(self, **facts: Any) -> Self:
        """Return these facts with some more."""
        return type(self).model_validate({**self.known(), **facts})
