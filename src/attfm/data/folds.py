"""Folds of rows: what is learned of a row from the others comes from other folds, or from earlier ones."""

import heapq
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Folds:
    """Rows cut into folds of about equal size.

    Attributes
    ----------
    number : int64 (rows,), the fold of each row, from 0
    ordered : bool
        Whether the folds are in order of time: a statistic of a row may then use rows of *earlier* folds only. Else it
        may use those of all other folds.

    Examples
    --------
    >>> Folds.by_time(np.array([30, 10, 20, 20]), 2).number
    array([1, 0, 1, 1])
    """

    number: NDArray[np.int64]
    ordered: bool = False

    def __len__(self) -> int:
        return len(self.number)

    @property
    def count(self) -> int:
        """How many folds there are: as many as were asked for, or fewer where there are few rows, groups or times."""
        return int(self.number.max()) + 1 if len(self.number) else 0

    @classmethod
    def random(cls, rows: int, folds: int, seed: int) -> Self:
        """Return folds by chance, whose sizes differ by a row at most."""
        return cls(np.random.default_rng(seed).permutation(rows) % folds)

    @classmethod
    def stratified(cls, codes: NDArray[Any], folds: int, seed: int) -> Self:
        """Return folds by chance, each with its share of every code: both differ by a row at most."""
        shuffled = np.random.default_rng(seed).permutation(len(codes))
        dealt = shuffled[np.argsort(codes[shuffled], kind="stable")]  # code after code, each in random order
        number = np.empty(len(codes), np.int64)
        number[dealt] = np.arange(len(codes)) % folds
        return cls(number)

    @classmethod
    def by_group(cls, groups: NDArray[np.int64], folds: int, seed: int) -> Self:
        """Return folds that hold all rows of a group, or none; at most as many as there are groups.

        Large groups are dealt first, each to the fold that has the fewest rows; equally large ones in random order.
        """
        _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        shuffled = np.random.default_rng(seed).permutation(len(sizes))
        largest_first = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
        fold_of, loads = np.empty(len(sizes), np.int64), [(0, fold) for fold in range(folds)]
        for group, size in zip(largest_first.tolist(), sizes[largest_first].tolist(), strict=True):
            load, fold = loads[0]
            fold_of[group] = fold
            heapq.heapreplace(loads, (load + size, fold))
        return cls(fold_of[codes])

    @classmethod
    def by_time(cls, times: NDArray[Any], folds: int) -> Self:
        """Return ordered folds, blocks of time; rows of equal times are in one, so there may be fewer folds."""
        _, codes, counts = np.unique(times, return_inverse=True, return_counts=True)
        middle = np.cumsum(counts) - counts / 2  # of the rows of a time, in order of time
        block = (middle * folds / max(len(times), 1)).astype(np.int64)
        return cls(np.unique(block, return_inverse=True)[1].astype(np.int64)[codes], ordered=True)


@dataclass(frozen=True)
class Grouping:
    """What forbids that rows are taken apart at random: groups that stay together, or times; or nothing.

    Attributes
    ----------
    groups : int64 (rows,), the code of each row's group, or None
    times : int64 or float64 (rows,), when each row was, or None
    column : str or None, the column that says so, for messages
    """

    groups: NDArray[np.int64] | None = None
    times: NDArray[np.int64] | NDArray[np.float64] | None = None
    column: str | None = None

    @property
    def by_chance(self) -> bool:
        """Whether nothing is known of the rows, so that they are taken apart by chance."""
        return self.groups is None and self.times is None

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Return what is known of the given rows, in their order."""
        groups = None if self.groups is None else self.groups[rows]
        return type(self)(groups, None if self.times is None else self.times[rows], self.column)

    def joined(self, other: Self) -> Self:
        """Return what is known of these rows and of those of another part of their table, one after the other."""

        def both(own: NDArray[Any] | None, others: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if own is None or others is None else np.concatenate([own, others])

        return type(self)(both(self.groups, other.groups), both(self.times, other.times), self.column)

    def folds(self, rows: int, folds: int, seed: int, codes: NDArray[Any] | None = None) -> Folds:
        """Return at most so many folds of the rows that this is known of.

        In order of time, or by groups; else by chance, stratified by the codes of classes where they are given.

        Parameters
        ----------
        rows : how many there are
        folds : how many are wanted, at least 2
        seed : of what is left to chance
        codes : int64 (rows,) or None, the classes of the rows
        """
        for known in (self.groups, self.times, codes):
            if known is not None and len(known) != rows:
                raise ValueError(f"{rows} rows can't be cut into folds by what is known of {len(known)}")
        if self.times is not None:
            return Folds.by_time(self.times, folds)
        if self.groups is not None:
            return Folds.by_group(self.groups, folds, seed)
        return Folds.random(rows, folds, seed) if codes is None else Folds.stratified(codes, folds, seed)


BY_CHANCE = Grouping()
