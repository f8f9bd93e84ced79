"""Sums over training rows by group and fold, of more rows than are in memory."""

from functools import cached_property

import numpy as np

from attfm.data.codecs.grouped import Floats, Grouped, Integers, Outcomes
from attfm.data.dealing import FOLDS

_PENDING = 1 << 21  # rows of cells that wait to be merged


class Cells:
    """Sums over training rows by group and fold.

    Beyond `most` groups those of the fewest rows are forgotten, as if their rows so far had not been (Misra and Gries
    1982, in blocks): what is left out is rare.
    """

    def __init__(self, width: int, *, most: int | None = None) -> None:
        self._parts: list[tuple[Integers, Floats]] = []
        self._width, self._most = width, most
        self._pending, self._merged = 0, 0

    def add(self, groups: Integers, folds: Integers, columns: Floats) -> None:
        """Take in rows; columns : float64 (rows, outputs + 2), see `Outcomes.columns`."""
        self._parts.append(_summed(groups * FOLDS + folds, columns))
        self._pending += len(self._parts[-1][0])
        if self._pending > max(_PENDING, self._merged):
            self._merge()

    def _merge(self) -> tuple[Integers, Floats]:
        if not self._parts:
            return np.empty(0, np.int64), np.zeros((0, self._width))
        if not self._pending:  # they are merged
            return self._parts[0]
        keys, sums = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
        self._parts = []
        keys, sums = _summed(keys, sums)
        if self._most is not None:
            keys, sums = _of_most_rows(keys, sums, self._most)
        self._parts, self._pending, self._merged = [(keys, sums)], 0, len(keys)
        return keys, sums

    @cached_property
    def keys(self) -> Integers:
        """The cells, rising: group · FOLDS + fold."""
        return self._merge()[0]

    @property
    def sums(self) -> Floats:
        """What is summed of each cell, float64 (cells, outputs + 2)."""
        return self._merge()[1]

    def grouped(self, outcomes: Outcomes) -> Grouped:
        """Return the statistics of the groups, `others` of each cell, once: the sums are let go, `keys` stay."""
        keys, sums = self.keys, self.sums
        self._parts = []
        return Grouped.of_cells(*np.divmod(keys, FOLDS), sums, outcomes)

    def find(self, groups: Integers, folds: Integers) -> Integers:
        """Return the place of each row's cell; -1 of one that was forgotten."""
        wanted, back = np.unique(groups * FOLDS + folds, return_inverse=True)
        if not len(self.keys):
            return np.full(len(groups), -1)
        places = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        found: Integers = np.where(self.keys[places] == wanted, places, -1)[back.reshape(-1)]
        return found


def _summed(keys: Integers, columns: Floats) -> tuple[Integers, Floats]:
    """Return the distinct keys, rising, and the summed rows of each."""
    order = np.argsort(keys, kind="stable")
    in_order = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], in_order[1:] != in_order[:-1]])) if len(keys) else order
    return in_order[starts], np.add.reduceat(columns[order], starts, axis=0) if len(keys) else columns


def _of_most_rows(keys: Integers, sums: Floats, most: int) -> tuple[Integers, Floats]:
    groups, places = np.unique(keys // FOLDS, return_inverse=True)
    if len(groups) <= most:
        return keys, sums
    rows = np.bincount(places, sums[:, -1])
    kept = np.zeros(len(groups), np.bool_)
    kept[np.argpartition(-rows, most)[:most]] = True
    return keys[kept[places]], sums[kept[places]]
