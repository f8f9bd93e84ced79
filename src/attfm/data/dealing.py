"""Which part and which fold each row of a stream goes to, told from the row alone: no list of all rows is kept."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attfm.data.arrow_columns import read_categories
from attfm.data.bad_values import BadValues
from attfm.data.cache import CachedRows
from attfm.data.codecs.hashing import hash_strings, mix
from attfm.data.codecs.numeric import Sample
from attfm.data.folds import BY_CHANCE, Grouping
from attfm.data.schema import Schema
from attfm.data.sources.source import Source
from attfm.data.split import first_of_latest
from attfm.data.split_column import ColumnSplit, GroupSplit, TimeSplit, grouping_of_column

TRAIN, VALID, TEST = 0, 1, 2
_NEGATIVES = 0x6E65676174697665  # keeps what is drawn of negatives apart from how rows are dealt
FOLDS = 20
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Dealing:
    """How rows are dealt: by a hash of their number, or of their group, or by their time.

    Attributes
    ----------
    valid, test : float, shares of the rows to stop by and to measure on
    seed : of the hash
    by : GroupSplit, TimeSplit or None
    cuts : float64 (2,), the first times of validation and of test rows
    blocks : float64 (FOLDS - 1,) or fewer, the first time of each fold of the training rows but the first
    """

    valid: float
    test: float
    seed: int
    by: ColumnSplit | None = None
    cuts: tuple[float, float] = (np.inf, np.inf)
    blocks: tuple[float, ...] = ()

    @classmethod
    def of(cls, valid: float, test: float, seed: int, by: ColumnSplit | None, times: Sample | None) -> Self:
        """Return how rows are dealt; times : of the rows, or a sample of them, where they are split by time.

        Raises
        ------
        ConfigError : the times leave a part without rows
        """
        if not isinstance(by, TimeSplit) or times is None:
            return cls(valid, test, seed, by)
        in_order = np.sort(times.values())
        test_cut = _cut(in_order, test, by.column)
        valid_cut = _cut(in_order[in_order < test_cut], valid / (1 - test), by.column)
        training = in_order[in_order < min(valid_cut, test_cut)]
        blocks = np.unique(training[(np.arange(1, FOLDS) * len(training)) // FOLDS])
        return cls(valid, test, seed, by, (valid_cut, test_cut), tuple(blocks[blocks > training[0]].tolist()))

    @property
    def is_ordered(self) -> bool:
        """Whether folds are in order of time."""
        return isinstance(self.by, TimeSplit)

    def deal(self, column: pa.Array | None, source: Source, schema: Schema, first_row: int, rows: int) -> "Dealt":
        """Return the part and the fold of some rows.

        Parameters
        ----------
        column : of the split, of these rows; None: they are dealt by their numbers
        first_row, rows : the number of the first, and how many there are
        """
        if isinstance(self.by, TimeSplit) and column is not None:
            times = times_of(self.by, column, source, schema)
            parts = np.where(times >= self.cuts[1], TEST, np.where(times >= self.cuts[0], VALID, TRAIN))
            return Dealt(parts.astype(np.uint8), np.searchsorted(self.blocks, times, side="right").astype(np.uint8))
        if isinstance(self.by, GroupSplit) and column is not None:
            grouping_of_column([column], source, schema, self.by)  # which looks for rows without a group
            codes, values = read_categories(column, column=self.by.column, bad=BadValues())
            keys = hash_strings(values)[codes]
        else:
            keys = np.arange(first_row, first_row + rows, dtype=np.uint64)
        seeded = mix(keys + mix(np.array([self.seed % 2**63], np.uint64)))
        chance = seeded.astype(np.float64) / 2.0**64
        parts = np.where(chance < self.test, TEST, np.where(chance < self.test + self.valid, VALID, TRAIN))
        return Dealt(parts.astype(np.uint8), (mix(seeded) % np.uint64(FOLDS)).astype(np.uint8))


@dataclass(frozen=True)
class Dealt:
    """Of some rows the parts they are in, uint8 (rows,): TRAIN, VALID or TEST; and their folds, uint8 (rows,)."""

    parts: NDArray[np.uint8]
    folds: NDArray[np.uint8]


def kept_negatives(numbers: NDArray[np.int64], codes: NDArray[Any], rate: float, seed: int) -> NDArray[np.bool_]:
    """Return which training rows are kept where of the first class only a share is, told by their numbers."""
    if rate >= 1:
        return np.ones(len(numbers), np.bool_)
    salted = mix(np.array([seed % 2**63], np.uint64)) ^ np.uint64(_NEGATIVES)
    chance = mix(numbers.astype(np.uint64) + salted).astype(np.float64) / 2.0**64
    return np.asarray((codes != 0) | (chance < rate))


def times_of(by: TimeSplit, column: pa.Array, source: Source, schema: Schema) -> Floats:
    """Return the times of some rows as numbers in their order, float64 (rows,)."""
    times = grouping_of_column([column], source, schema, by).times
    return np.asarray(times, np.float64)


def grouping_of_folds(rows: CachedRows, by: ColumnSplit | None) -> Grouping:
    """Return what must stay together in rows that were dealt by times or groups: those of a fold."""
    if by is None:
        return BY_CHANCE
    folds = rows.whole(lambda start, stop: rows.column("fold", start, stop))
    return Grouping(times=folds, column=by.column) if isinstance(by, TimeSplit) else Grouping(folds, column=by.column)


def _cut(in_order: Floats, share: float, column: str) -> float:
    """Return the first of the latest times, about such a share of them; infinity for none."""
    return float(first_of_latest(in_order, share, column)) if share > 0 else np.inf
