"""How far the values that a service is asked about are from those of training, field by field."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.data.batch import Batch, FieldFeatures
from attfm.data.codecs.codec import FIRST_VALUE, MISSING, UNKNOWN
from attfm.errors import ConfigError
from attfm.explain.background import Background
from attfm.explain.levels import Levels
from attfm.model.bundle import Model

Counts = NDArray[np.int64]
WINDOW = 10_000  # rows: a field's drift is that of its last one to two times as many
_GROUPS = 10  # of a field's levels, besides unknown and missing
_PENDING = 512  # rows, or so, that are counted together


@dataclass(frozen=True)
class FieldDrift:
    """One field's values since the service began, and their drift.

    Attributes
    ----------
    field : its name
    values, unknown, missing : how many; members of a bag each
    psi : float or None, population stability index of the last rows against training, Σ (p − q) ln(p / q) over groups
        of values; None where nothing is known of training, or no row has come
    by_chance : float or None, what it would be on average without any drift, of so many rows
    """

    field: str
    values: int
    unknown: int
    missing: int
    psi: float | None
    by_chance: float | None


class Drift:
    """Counts the levels of rows; safe to use from several threads.

    Parameters
    ----------
    levels : Levels
    training : int64 (levels of all fields,), how many training rows had each; None: not known
    """

    def __init__(self, levels: Levels, training: Counts | None, *, window: int = WINDOW) -> None:
        self._levels = levels
        self._training = training
        self._window = window
        self._groups = None if training is None else _groups(levels, training)
        size = int(levels.sizes.sum())
        self._total, self._current, self._previous = (np.zeros(size, np.int64) for _ in range(3))
        self._rows_in_current = np.zeros(len(levels.sizes), np.int64)  # of each field
        self._pending: list[Batch] = []
        self._pending_rows = 0
        self._lock = threading.Lock()

    @classmethod
    def of_model(cls, model: Model) -> "Drift":
        """Return the counts to be of a model's rows; training is known by its background."""
        try:
            background = Background.of_model(model)
        except ConfigError:
            return cls(Levels(model.encoder, {}), None)
        return cls(background.levels, background.counts)

    def add(self, rows: Batch) -> None:
        """Take in encoded rows."""
        with self._lock:
            self._pending.append(rows)
            self._pending_rows += len(rows)
            if self._pending_rows >= _PENDING or len(self._pending) >= _PENDING:
                self._count()

    def add_fields(self, features: Mapping[int, FieldFeatures]) -> None:
        """Take in some fields only, by number, of some rows: a context that is ranked for, or candidates."""
        levels = {f: self._levels.of_field(f, of) for f, of in features.items()}
        with self._lock:
            self._count_levels(levels)

    def fields(self) -> list[FieldDrift]:
        """Return what is known of each field."""
        with self._lock:
            self._count()
            recent, total = self._current + self._previous, self._total.copy()
        return [self._field(f, recent, total) for f in range(len(self._levels.names))]

    def _field(self, f: int, recent: Counts, total: Counts) -> FieldDrift:
        start, size = int(self._levels.offsets[f]), int(self._levels.sizes[f])
        of_field, now = total[start : start + size], recent[start : start + size]
        psi = by_chance = None
        if self._training is not None and self._groups is not None and now.sum():
            groups = self._groups[start : start + size]
            count = int(groups.max()) + 1
            before = np.bincount(groups, self._training[start : start + size], count)
            psi, by_chance = stability_index(before, np.bincount(groups, now, count))
        return FieldDrift(
            self._levels.names[f], int(of_field.sum()), int(of_field[UNKNOWN]), int(of_field[MISSING]), psi, by_chance
        )

    def _count(self) -> None:
        if not self._pending:
            return
        rows = self._pending[0] if len(self._pending) == 1 else Batch.concatenate(self._pending)
        self._pending, self._pending_rows = [], 0
        levels = self._levels.of(rows)
        self._count_levels({f: levels.field(f) for f in range(len(self._levels.sizes))})

    def _count_levels(self, levels: Mapping[int, FieldFeatures]) -> None:
        for f, of in levels.items():
            start, size = int(self._levels.offsets[f]), int(self._levels.sizes[f])
            place = slice(start, start + size)
            counts = np.bincount(of.ids, minlength=size)
            self._total[place] += counts
            self._current[place] += counts
            self._rows_in_current[f] += len(of.ids if of.counts is None else of.counts)
            if self._rows_in_current[f] >= self._window:
                self._previous[place], self._current[place], self._rows_in_current[f] = self._current[place], 0, 0


def stability_index(before: NDArray[Any], now: NDArray[Any]) -> tuple[float, float]:
    """Return the population stability index of two histograms, and its mean where both are draws of the same.

    Half a row is added to every group, so that an empty one does not make it infinite.
    """
    held = (before > 0) | (now > 0)
    p, q = (counts[held] + 0.5 for counts in (before, now))
    p, q = p / p.sum(), q / q.sum()
    chance = (held.sum() - 1) * (1 / max(before.sum(), 1) + 1 / max(now.sum(), 1))
    return float(((q - p) * np.log(q / p)).sum()), float(chance)


def _groups(levels: Levels, training: Counts) -> Counts:
    """Return the group of each level within its field: unknown, missing, then about ten with as many rows each.

    Of an ordered field these are neighbours; of another, the most frequent levels each for itself, and the rest.
    """
    parts: list[Counts] = []
    for f, (start, size) in enumerate(zip(levels.offsets.tolist(), levels.sizes.tolist(), strict=True)):
        counts = training[start + FIRST_VALUE : start + size]
        groups = np.zeros(size, np.int64)
        groups[MISSING] = MISSING
        groups[FIRST_VALUE:] = FIRST_VALUE + (
            _neighbours(counts) if levels.ordered[f] else _most_frequent(counts)
        )  # fmt: skip
        parts.append(groups)
    return np.concatenate(parts)


def _neighbours(counts: Counts) -> Counts:
    middle = np.cumsum(counts) - counts / 2
    places = (_GROUPS * middle / max(counts.sum(), 1)).astype(np.int64)
    return np.asarray(np.minimum(places, _GROUPS - 1), np.int64)


def _most_frequent(counts: Counts) -> Counts:
    groups = np.full(len(counts), _GROUPS, np.int64)
    frequent = np.argsort(-counts, kind="stable")[:_GROUPS]
    groups[frequent] = np.arange(len(frequent))
    return groups
