"""What is wrong with the values of a table, gathered over all columns and told in one message."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from attfm.errors import AttfmError, DataError, DataWarning


@dataclass(frozen=True)
class Fault:
    """One way in which values are bad: what the message says of one, of several, and of what to do."""

    one: str
    many: str
    advice: str


NOT_NUMBERS = Fault("is not a number", "are not numbers", "Clean them, or declare the column categorical.")
NOT_AMOUNTS = Fault("is not a number", "are not numbers", "Clean them, or leave out their rows.")
INFINITE = Fault("is infinite", "are infinite", "Replace them by finite numbers, or leave them empty.")
NOT_DATES = Fault(
    "is not a date",
    "are not dates",
    "Write them as ISO 8601 (2024-03-01 or 2024-03-01T12:30:00), or declare the column categorical.",
)
WEIGHTS = Fault("has a weight that is not finite", "have a weight that is not finite", "Give finite weights.")
NOT_UTF8 = "Column '{column}' holds bytes that are not UTF-8 text. Decode it, or declare it ignored."
NO_CATEGORIES = (
    "Column '{column}' is of type {type}, whose values can't be categories. "
    "Convert it, or declare it ignored or of another kind."
)
NO_NUMBERS = "Column '{column}' is of type {type}, not numbers. Convert it, or declare it ignored or of another kind."
NO_DATES = "Column '{column}' is of type {type}, not dates. Convert it, or declare it ignored or of another kind."
NO_WEIGHTS = "Column '{column}' is of type {type}: the weights of its members must be numbers."


def no_members(column: str, arrow_type: object, *, is_text: bool) -> str:
    """Return the sentence about a multi-valued column whose values hold no members that can be told apart."""
    need = "a separator for its strings, as {'separator': '|'}" if is_text else "lists, or a map to weights"
    return f"Column '{column}' is of type {arrow_type}, but a multi-valued column needs {need}."


def too_far(low: float, high: float) -> Fault:
    """Return the fault of values that can't be scaled from a training range."""
    what, advice = "too far outside the training range", f"It is {low:.6g} to {high:.6g}: correct or clip the values."
    return Fault(f"is {what}", f"are {what}", advice)


@dataclass
class BadValues:
    """Bad values and unreadable columns met during one pass over a table."""

    # Of a column and a fault: the first value, its row, and how many there are.
    _found: dict[tuple[str, Fault], tuple[Any, int, int]] = field(default_factory=dict)
    _sentences: dict[str, None] = field(default_factory=dict)
    _doubts: dict[str, None] = field(default_factory=dict)

    def add_values(self, column: str, where: NDArray[np.bool_], array: Any, *, row: int, fault: Fault) -> None:
        """Note the values of a chunk that are bad in one way; `row` is the number of its first row in the table."""
        positions = np.flatnonzero(where)
        if len(positions) == 0:
            return
        place = int(positions[0])
        first, row, count = self._found.get((column, fault), (array[place].as_py(), row + place, 0))
        self._found[column, fault] = first, row, count + len(positions)

    def add_value(self, column: str, value: Any, *, row: int, fault: Fault) -> None:
        """Note one bad value, of the row with this number."""
        first, row, count = self._found.get((column, fault), (value, row, 0))
        self._found[column, fault] = first, row, count + 1

    def add(self, sentence: str) -> None:
        """Note a whole sentence, once."""
        self._sentences[sentence] = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell."""
        return not (self._found or self._sentences or self._doubts)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return what was met in several columns, in their order."""
        whole = cls()
        for part in parts:
            whole.take_in(part)
        return whole

    def take_in(self, other: Self) -> None:
        """Note what was met elsewhere: in other columns, or in rows that follow."""
        for key, (value, row, count) in other._found.items():
            first, row, before = self._found.get(key, (value, row, 0))
            self._found[key] = first, row, before + count
        self._sentences.update(other._sentences)
        self._doubts.update(other._doubts)

    def warn(self, sentence: str) -> None:
        """Note a sentence that is a warning only, once."""
        self._doubts[sentence] = None

    def warn_of_zone(self, column: str, zone: str | None) -> None:
        """Note that times with a zone came for a column without one (None), or times without for one with this one."""
        if zone is None:
            what, taken = "with a time zone, but had none", "the time of day as it is written counts"
        else:
            what, taken = f"without a time zone, but had times of {zone}", "they are taken as local times there"
        self.warn(f"Column '{column}' holds times {what} in training: {taken}. Convert them to be sure.")

    @property
    def is_clean(self) -> bool:
        """Whether nothing was noted."""
        return not (self._found or self._sentences or self._doubts)

    def tell(self, rows: int) -> None:
        """Raise as `raise_if_any`, or else give the warnings that were noted."""
        self.raise_if_any(rows)
        for sentence in self._doubts:
            warnings.warn(sentence, DataWarning, stacklevel=2)

    def raise_if_any(self, rows: int, error: type[AttfmError] = DataError, *, before: str = "") -> None:
        """Raise an error with one sentence or two for each bad column of the `rows` rows read."""
        sentences = list(self._sentences)
        for (column, fault), (first, row, count) in self._found.items():
            what = fault.one if count == 1 else fault.many
            sentences.append(
                f"Column '{column}': {count:,} of {rows:,} values {what} "
                f"(first: {first!r:.60}, row {row:,}). {fault.advice}"
            )
        if sentences:
            raise error(before + " ".join(sentences))
