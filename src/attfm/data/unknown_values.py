"""Columns whose values are nearly all unknown, though few were in training: most likely they are written otherwise."""

import math
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
from attfm.errors import DataWarning

Integers = NDArray[np.int64]

_NEARLY_ALL = 0.9
_LEAST_EXPECTED = 0.01  # a new value now and then is expected of any column
_SURPRISE = 14.0  # nats: one in a million


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
            values, unknown, (value, row) = int(self._values[f]), int(self._unknown[f]), self._first[f]
            warnings.warn(
                f"Column '{self._encoder.fields[f].column}': {100 * unknown / values:.3g} % of the {values:,} values "
                "were not seen in "
                f"training, where few were unknown (first: {value}, row {row:,}). Check that they are written as "
                "they were there.",
                DataWarning,
                stacklevel=2,
            )

    def surprising(self) -> list[int]:
        """Return the fields whose values are nearly all unknown, by more than chance."""
        return [f for f in np.flatnonzero(self._unknown).tolist() if self._is_surprising(f)]

    def _is_surprising(self, f: int) -> bool:
        values, unknown, expected = int(self._values[f]), int(self._unknown[f]), self._expected[f]
        if expected is None or unknown < _NEARLY_ALL * values:
            return False
        return values * _divergence(unknown / values, max(expected, _LEAST_EXPECTED)) >= _SURPRISE


def _divergence(share: float, expected: float) -> float:
    """Return the Kullback-Leibler divergence of two chances, in nats: what the surprise of many values grows with."""
    if expected >= share:
        return 0.0
    rest = (1 - share) * math.log((1 - share) / (1 - expected)) if share < 1 else 0.0
    return share * math.log(share / expected) + rest
