"""Encoded items with all that does not depend on the context: rows that are added and never changed."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attfm.data.batch import Batch, FieldFeatures
from attfm.ops.ranking import Candidates, ItemParts, item_pairs
from attfm.serve.ranking.two_sided import TwoSidedMachine

Integers = NDArray[np.int32]


class GrowingArray:
    """An array with room for more rows; whoever holds `held` keeps the rows that were there, whatever is added.

    Examples
    --------
    >>> numbers = GrowingArray((), np.int32)
    >>> numbers.append(np.arange(3, dtype=np.int32))
    >>> numbers.rows.tolist()
    [0, 1, 2]
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.held: NDArray[Any] = np.empty((0, *shape), dtype)
        self.size = 0

    @property
    def rows(self) -> NDArray[Any]:
        """The rows that were added."""
        return self.held[: self.size]

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows at the end."""
        size = self.size + len(rows)
        if size > len(self.held):
            larger = np.zeros(
                (size if not self.size else max(size, 2 * self.size), *self.held.shape[1:]), self.held.dtype
            )
            larger[: self.size] = self.rows
            self.held = larger
        self.held[self.size : size] = rows
        self.size = size


class _Parts:
    """What one machine knows of the entries and items, see `ItemParts`."""

    def __init__(self, machine: TwoSidedMachine) -> None:
        dim, outputs = machine.network.projection.shape
        self.machine = machine
        self.vectors, self.level = GrowingArray((dim,), np.float32), GrowingArray((), np.int32)
        self.log_sum = GrowingArray((), np.float32)
        self.effect, self.plain = (GrowingArray((outputs,), np.float32) for _ in range(2))

    @property
    def arrays(self) -> tuple[GrowingArray, ...]:
        return self.vectors, self.level, self.log_sum, self.effect, self.plain

    def append_items(self, batch: Batch, entries: Integers) -> None:
        log_sum, effect = item_pairs(self.machine.network, self.vectors.rows, entries)
        self.log_sum.append(log_sum)
        self.effect.append(effect)
        self.plain.append(self.machine.plain(batch))


@dataclass(frozen=True)
class ItemView:
    """The items of a table at one moment, or some of them; what is added later does not change it.

    Attributes
    ----------
    items : int32 (candidates,), numbers of items, in the order in which they stand
    entries : int32 (items, item fields); field_of_entry : int32 (entries,)
    parts : tuple of ItemParts, of each machine
    """

    items: Integers
    entries: Integers
    field_of_entry: Integers
    parts: tuple[ItemParts, ...]

    @cached_property
    def candidates(self) -> Candidates:
        """All of the items, with the entries that they have."""
        used = np.zeros(len(self.field_of_entry), np.bool_)
        used[self.entries[self.items]] = True
        numbers = np.flatnonzero(used)
        fields = self.field_of_entry[numbers]
        listed = numbers[np.argsort(fields, kind="stable")].astype(np.int32)
        starts = np.searchsorted(np.sort(fields), np.arange(self.entries.shape[1] + 1)).astype(np.int64)
        return Candidates(self.entries, self.items, listed, starts)

    def some(self, items: Integers) -> Candidates:
        """Return some of the items, by number."""
        return Candidates(self.entries, items)


class ItemTable:
    """Items by number, from 0 on. An item has in each field one *entry*: a distinct vector, such as that of a category.

    Parameters
    ----------
    machines : sequence of TwoSidedMachine
    with_values : sequence of bool, for each field of an item whether its features have values, or are several
    """

    def __init__(self, machines: Sequence[TwoSidedMachine], with_values: Sequence[bool]) -> None:
        self.machines, self._with_values = machines, with_values
        self._entries = GrowingArray((len(with_values),), np.int32)
        self._field_of_entry = GrowingArray((), np.int32)
        self._numbers: list[dict[Hashable, int]] = [{} for _ in with_values]
        self._batches = list[Batch]()  # all items, encoded
        self._parts = [_Parts(machine) for machine in machines]

    def __len__(self) -> int:
        return self._entries.size

    def append(self, batch: Batch) -> Integers:
        """Add items, rows of the item's fields, and return their numbers."""
        first = len(self)
        entries = np.stack([self._entries_of(f, batch.field(f)) for f in range(batch.fields)], axis=1)
        for parts in self._parts:
            parts.append_items(batch, entries)
        self._entries.append(entries)
        self._batches.append(batch)
        return np.arange(first, len(self), dtype=np.int32)

    def view(self, items: Integers) -> ItemView:
        """Return some items as they are now."""
        parts = tuple(ItemParts(*(array.held for array in part.arrays)) for part in self._parts)
        return ItemView(items, self._entries.held, self._field_of_entry.rows, parts)

    def by(self, machines: Sequence[TwoSidedMachine]) -> "ItemTable":
        """Return a table of the same items, by the same numbers, as other machines know them."""
        table = ItemTable(machines, self._with_values)
        if self._batches:
            table.append(self._whole())
        return table

    def only(self, items: Integers) -> "ItemTable":
        """Return a table of some items, by number, that are then numbered from 0 on, and of the entries they have."""
        table = ItemTable(self.machines, self._with_values)
        entries = self._entries.rows[items]
        kept, renumbered = np.unique(entries, return_inverse=True)
        place = dict(zip(kept.tolist(), range(len(kept)), strict=True))
        table._numbers = [
            {key: place[number] for key, number in numbers.items() if number in place} for numbers in self._numbers
        ]
        table._batches = [self._whole().take(torch.from_numpy(items.astype(np.int64)))] if self._batches else []
        table._field_of_entry.append(self._field_of_entry.rows[kept])
        table._entries.append(renumbered.reshape(entries.shape).astype(np.int32))
        for new, old in zip(table._parts, self._parts, strict=True):
            for more, array, rows in zip(new.arrays, old.arrays, (kept, kept, items, items, items), strict=True):
                more.append(array.rows[rows])
        return table

    def _whole(self) -> Batch:
        """Return all items in one batch."""
        self._batches = [Batch.concatenate(self._batches)]
        return self._batches[0]

    def _entries_of(self, field: int, features: FieldFeatures) -> Integers:
        """Return the entry of each row in a field; new ones are added."""
        keys, rows, of_row = _distinct(features, with_values=self._with_values[field])
        known = self._numbers[field]
        new = np.flatnonzero([key not in known for key in keys])
        known.update(zip((keys[n] for n in new), range(self._field_of_entry.size, 2**31), strict=False))
        if len(new):
            added = features.take(rows[new])
            self._field_of_entry.append(np.full(len(new), field, np.int32))
            for parts in self._parts:
                parts.vectors.append(parts.machine.entry_vectors(added))
                parts.level.append(parts.machine.entry_levels(added))
        return np.array([known[key] for key in keys], np.int32)[of_row]


def _distinct(
    features: FieldFeatures, *, with_values: bool
) -> tuple[list[Hashable], NDArray[np.int64], NDArray[np.int64]]:
    """Return what tells the vectors of rows apart: distinct keys, a row of each, and the number of each row's key."""
    if with_values and (features.counts is not None or features.values is not None):
        places = dict[Hashable, int]()
        counts = np.ones(len(features.ids), np.int64) if features.counts is None else features.counts
        stops = np.cumsum(counts)
        ids, values = features.ids, features.values
        of_row, rows = np.empty(len(counts), np.int64), list[int]()
        for row, (start, stop) in enumerate(zip((stops - counts).tolist(), stops.tolist(), strict=True)):
            key = (ids[start:stop].tobytes(), b"" if values is None else values[start:stop].tobytes())
            of_row[row] = places.setdefault(key, len(places))
            if len(places) > len(rows):
                rows.append(row)
        return list(places), np.array(rows, np.int64), of_row
    distinct, row_numbers, of_row = np.unique(features.ids, return_index=True, return_inverse=True)
    return distinct.tolist(), row_numbers, of_row.reshape(-1)
