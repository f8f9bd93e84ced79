"""Encoded rows as torch tensors: what the module's forward pass takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from attfm.data.batch import EncodedBatch


@dataclass(frozen=True)
class BagRows:
    """The active features of one multi-valued field: ids (entries,), weights (entries,), offsets (batch + 1,)."""

    ids: Tensor
    weights: Tensor
    offsets: Tensor

    def take(self, rows: Tensor) -> Self:
        """Return the bags of the given rows, in their order."""
        counts = (self.offsets[1:] - self.offsets[:-1])[rows]
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        shift = torch.repeat_interleave(self.offsets[:-1][rows] - offsets[:-1], counts)
        entries = torch.arange(len(shift), device=shift.device) + shift
        return type(self)(self.ids[entries], self.weights[entries], offsets)


@dataclass(frozen=True)
class Rows:
    """Encoded rows on one device.

    ids : int32 (batch, fields), one feature for each field; values : float (batch, fields), or None for 1;
    bags : the features of multi-valued fields, by field number. See `attfm.data.batch.EncodedBatch`.
    """

    ids: Tensor
    values: Tensor | None = None
    bags: Mapping[int, BagRows] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return all active features as one list, row by row and field by field: ids, values, offsets.

        Returns
        -------
        ids : int32 (entries,)
        values : float32 (entries,)
        offsets : int64 (batch, fields), where the entries of each field of each row start
        """
        batch, fields = self.ids.shape
        counts = torch.ones((batch, fields), dtype=torch.int64, device=self.ids.device)
        for f, bag in self.bags.items():
            counts[:, f] = torch.diff(bag.offsets)
        stops = counts.flatten().cumsum(0).reshape(batch, fields)
        offsets = stops - counts
        ids = self.ids.new_empty(int(counts.sum()))
        values = torch.ones(len(ids), device=ids.device)
        single = [f for f in range(fields) if f not in self.bags]
        ids[offsets[:, single]] = self.ids[:, single]
        if self.values is not None:
            values[offsets[:, single]] = self.values[:, single].to(values.dtype)
        for f, bag in self.bags.items():
            shift = torch.repeat_interleave(offsets[:, f] - bag.offsets[:-1], counts[:, f])
            place = torch.arange(len(bag.ids), device=ids.device) + shift
            ids[place], values[place] = bag.ids.to(ids.dtype), bag.weights.to(values.dtype)
        return ids, values, offsets

    @classmethod
    def from_encoded(cls, batch: EncodedBatch) -> Self:
        """Wrap the arrays of an encoded batch, on the CPU and without a copy."""
        tensor = torch.as_tensor
        bags = {f: BagRows(tensor(bag.ids), tensor(bag.weights), tensor(bag.offsets)) for f, bag in batch.bags.items()}
        return cls(tensor(batch.ids), None if batch.values is None else tensor(batch.values), bags)

    def take(self, rows: Tensor) -> Self:
        """Return the given rows (int64 numbers), in their order."""
        values = None if self.values is None else self.values[rows]
        return type(self)(self.ids[rows], values, {f: bag.take(rows) for f, bag in self.bags.items()})

    def to(self, device: torch.device | str) -> Self:
        """Return the rows on another device."""
        bags = {f: BagRows(*(t.to(device) for t in (b.ids, b.weights, b.offsets))) for f, b in self.bags.items()}
        return type(self)(self.ids.to(device), None if self.values is None else self.values.to(device), bags)

    def slice(self, start: int, stop: int) -> Self:
        """Return the rows start:stop."""
        if self.bags:
            return self.take(torch.arange(start, min(stop, len(self)), device=self.ids.device))
        return type(self)(self.ids[start:stop], None if self.values is None else self.values[start:stop])
