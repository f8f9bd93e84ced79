"""What is wrong with the values of a table, gathered over all columns and told in one message."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.errors import DataError


@dataclass
class _Count:
    """How many values of a column are bad in one way, and the first of them."""

    first: Any
    row: int
    count: int = 0


@dataclass
class BadValues:
    """Bad values and unreadable columns met during one pass over a table."""

    _counts: dict[tuple[str, str, str, str], _Count] = field(default_factory=dict)
    _sentences: dict[str, None] = field(default_factory=dict)

    def add_values(
        self, column: str, where: NDArray[np.bool_], array: Any, *, row: int, one: str, many: str, advice: str
    ) -> None:
        """Note the bad values of a chunk.

        Parameters
        ----------
        column : str, its name
        where : bool (rows,), true where the value is bad
        array : pyarrow.Array (rows,), the chunk
        row : int, number of its first row in the table
        one, many : str, what the message says of one bad value, and of several
        advice : str, the sentence that says what to do
        """
        positions = np.flatnonzero(where)
        if len(positions) == 0:
            return
        key = (column, one, many, advice)
        if key not in self._counts:
            first = int(positions[0])
            self._counts[key] = _Count(array[first].as_py(), row + first)
        self._counts[key].count += len(positions)

    def add(self, sentence: str) -> None:
        """Note a whole sentence, once."""
        self._sentences[sentence] = None

    def raise_if_any(self, rows: int) -> None:
        """Raise DataError with one sentence or two for each bad column of the `rows` rows read."""
        sentences = list(self._sentences)
        for (column, one, many, advice), bad in self._counts.items():
            what = one if bad.count == 1 else many
            sentences.append(
                f"Column '{column}': {bad.count:,} of {rows:,} values {what} "
                f"(first: {bad.first!r:.60}, row {bad.row:,}). {advice}"
            )
        if sentences:
            raise DataError(" ".join(sentences))
