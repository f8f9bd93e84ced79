"""Columns whose values are nearly all unknown, though few were in training: most likely they are written otherwise."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attfm.data.batch import Batch
from attfm.data.codecs.codec import MISSING, UNKNOWN
from attfm.data.encoder import Encoder
from attfm.data.surprise import is_surprising, unknown_sentence
from attfm.errors import DataWarning

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class UnknownCounts:
    """Of some rows, by field: values, unknown ones, both int64 (fields,), and the first unknown value and its row."""

    values: Integers
    unknown: Integers
    first: dict[int, tuple[str, int]]


class UnknownValues:
    """Counts the unknown values of each field over the batches of a table, and warns once of those beyond chance.

    How many are expected is known from the training rows: what share of them was unknown, or the only one of its value.

    Parameters
    ----------
    kept : what `state` returned of the batches before, where the table is gone on with
    """

    def __init__(self, encoder: Encoder, kept: Mapping[str, Any] | None = None) -> None:
        self._encoder = encoder
        self._expected = encoder.expected_unknowns
        self._values = np.zeros(len(encoder.fields), np.int64)
        self._unknown = np.zeros(len(encoder.fields), np.int64)
        self._first: dict[int, tuple[str, int]] = {}  # the first unknown value of a field as Python has it, and its row
        if kept is not None:
            self._values, self._unknown = np.array(kept["values"]), np.array(kept["unknown"])
            self._first = {f: (value, row) for f, value, row in kept["first"]}

    def state(self) -> dict[str, Any]:
        """Return what was counted, as JSON has it."""
        first = [[f, value, row] for f, (value, row) in self._first.items()]
        return {"values": self._values.tolist(), "unknown": self._unknown.tolist(), "first": first}

    def observe(self, batch: Batch, columns: pa.RecordBatch, first_row: int) -> None:
        """Take in encoded rows beside their raw columns, the first of which is row `first_row` of the table."""
        self.add(self.counted(batch, columns, first_row))

    def counted(self, batch: Batch, columns: pa.RecordBatch, first_row: int) -> UnknownCounts:
        """Return what `observe` takes in, which another process may `add`."""
        counts = UnknownCounts(np.zeros_like(self._values), np.zeros_like(self._unknown), {})
        for f, field in enumerate(self._encoder.fields):
            if self._expected[f] is None:
                continue
            features = batch.field(f)
            ids = features.ids - field.start
            unknown = ids == UNKNOWN
            counts.values[f] = (ids != MISSING).sum()
            counts.unknown[f] = unknown.sum()
            if f not in self._first and unknown.any():
                place = int(unknown.argmax())
                row = place if features.counts is None else int(np.searchsorted(np.cumsum(features.counts), place + 1))
                value = columns.column(field.column)[row].as_py()
                counts.first[f] = f"{value!r:.60}", first_row + row
        return counts

    def add(self, counts: UnknownCounts) -> None:
        """Take in the counts of the rows that follow."""
        self._values += counts.values
        self._unknown += counts.unknown
        self._first = {**counts.first, **self._first}

    def warn(self) -> None:
        """Give a DataWarning for each column whose values are nearly all unknown."""
        for f in self.surprising():
            values, unknown, (first, row) = int(self._values[f]), int(self._unknown[f]), self._first[f]
            sentence = unknown_sentence(self._encoder.fields[f].column, values, unknown, first=first, row=row)
            warnings.warn(sentence, DataWarning, stacklevel=2)

    def surprising(self) -> list[int]:
        """Return the fields whose values are nearly all unknown, by more than chance."""
        return [
            f for f, expected in enumerate(self._expected)
            if is_surprising(int(self._values[f]), int(self._unknown[f]), expected)
        ]  # fmt: skip
