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
            whole._found.update(part._found)
            whole._sentences.update(part._sentences)
            whole._doubts.update(part._doubts)
        return whole

    def warn(self, sentence: str) -> None:
        """Note a sentence that is a warning only, once."""
        self._doubts[sentence] = None

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
