"""Encoded rows: what the encoder writes and the model reads (DESIGN section 2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class FieldFeatures:
    """The features of one field in some rows, row after row.

    Attributes
    ----------
    ids : int32 (entries,), feature ids
    values : float32 (entries,) or None, the x that multiplies each feature's embedding and weight; None: 1
    counts : int64 (rows,) or None, how many features each row has; None: one each
    """

    ids: NDArray[np.int32]
    values: NDArray[np.float32] | None = None
    counts: NDArray[np.int64] | None = None

    @property
    def rows(self) -> NDArray[np.int64]:
        """The row of each entry, int64 (entries,)."""
        return np.arange(len(self.ids)) if self.counts is None else np.repeat(np.arange(len(self.counts)), self.counts)

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Return the features of the given rows, in their order."""
        if self.counts is None:
            return type(self)(self.ids[rows], None if self.values is None else self.values[rows])
        counts = self.counts[rows]
        entries = np.repeat((np.cumsum(self.counts) - self.counts)[rows] - (np.cumsum(counts) - counts), counts)
        entries += np.arange(len(entries))
        return type(self)(self.ids[entries], None if self.values is None else self.values[entries], counts)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of all parts (at least one, all of one field), one after the other."""
        values = counts = None
        if any(part.values is not None for part in parts):
            values = np.concatenate([np.ones(len(p.ids), np.float32) if p.values is None else p.values for p in parts])
        if any(part.counts is not None for part in parts):
            counts = np.concatenate([np.ones(len(p.ids), np.int64) if p.counts is None else p.counts for p in parts])
        return cls(np.concatenate([part.ids for part in parts]), values, counts)


@dataclass(frozen=True)
class Batch:
    """Encoded rows, on one device.

    Where each field of each row has one feature, ids and values are arrays of rows and fields. Where a field may have
    several (multi-valued columns), they are lists of entries, row by row and field by field.

    Attributes
    ----------
    ids : int32 (batch, fields), or (entries,) with offsets, global feature ids
    values : float32, shaped as ids, or None, the x that multiplies each feature's embedding and weight; None: 1
    offsets : int64 (batch, fields) or None, where the entries of each field of each row start; None: each has one
    bins : uint8 (batch, outputs + 1, pairs) or None
        While a pair memory is learned: the bins of each remembered pair's statistic, for each output, and of its count.
    """

    ids: Tensor
    values: Tensor | None = None
    offsets: Tensor | None = None
    bins: Tensor | None = None

    def __len__(self) -> int:
        return (self.ids if self.offsets is None else self.offsets).shape[0]  # torch's len() takes 15 times as long

    @property
    def fields(self) -> int:
        """Number of fields."""
        return (self.ids if self.offsets is None else self.offsets).shape[1]

    @classmethod
    def of_fields(cls, fields: Sequence[FieldFeatures]) -> Self:
        """Return the rows that have the given features, field by field (at least one, all of the same rows)."""
        weighted = any(field.values is not None for field in fields)
        if all(field.counts is None for field in fields):
            shape = (len(fields[0].ids), len(fields))
            places: list[Any] = [(slice(None), f) for f in range(len(fields))]
            size: Any = shape
            offsets = None
        else:
            rows = next(len(field.counts) for field in fields if field.counts is not None)
            counts = np.ones((rows, len(fields)), np.int64)
            for f, field in enumerate(fields):
                if field.counts is not None:
                    counts[:, f] = field.counts
            offsets = (np.cumsum(counts) - counts.ravel()).reshape(counts.shape)
            first = np.cumsum(counts, axis=0) - counts  # of each field's own entries
            places = [
                offsets[:, f] if field.counts is None
                else np.repeat(offsets[:, f] - first[:, f], counts[:, f]) + np.arange(len(field.ids))
                for f, field in enumerate(fields)
            ]  # fmt: skip
            size = int(counts.sum())
        ids = np.empty(size, np.int32)
        values = np.ones(size, np.float32) if weighted else None
        for place, field in zip(places, fields, strict=True):
            ids[place] = field.ids
            if values is not None and field.values is not None:
                values[place] = field.values
        return cls(*(None if array is None else torch.from_numpy(array) for array in (ids, values, offsets)))  # type: ignore[arg-type]

    def field(self, f: int) -> FieldFeatures:
        """Return the features of one field, on the CPU."""
        if self.offsets is None:
            return FieldFeatures(self.ids[:, f].numpy(), None if self.values is None else self.values[:, f].numpy())
        place, _ = self.entries(f)
        counts = self.counts[:, f]
        values = None if self.values is None else self.values[place].numpy()
        one_each = bool((counts == 1).all())
        return FieldFeatures(self.ids[place].numpy(), values, None if one_each else counts.numpy())

    @cached_property
    def counts(self) -> Tensor:
        """How many entries each field of each row has, int64 (batch, fields)."""
        if self.offsets is None:
            return torch.ones(self.ids.shape, dtype=torch.int64, device=self.ids.device)
        starts = self.offsets.flatten()
        return torch.diff(starts, append=starts.new_full((1,), len(self.ids))).reshape(self.offsets.shape)

    def entries(self, f: int) -> tuple[Tensor, Tensor]:
        """Return where one field's entries stand, int64 (entries,), and where each row's start in that list, (batch,).

        Only for rows with offsets.
        """
        counts = self.counts[:, f]
        starts = counts.cumsum(0) - counts
        shift = self.offsets[:, f] - starts  # type: ignore[index]
        place = torch.repeat_interleave(shift, counts)
        return place + torch.arange(len(place), device=place.device), starts

    def take(self, rows: Tensor) -> Self:
        """Return the given rows, by int64 row numbers, in their order."""
        bins = None if self.bins is None else self.bins.index_select(0, rows)
        if self.offsets is None:
            values = None if self.values is None else self.values.index_select(0, rows)
            return type(self)(self.ids.index_select(0, rows), values, bins=bins)
        starts = self.offsets[:, 0]
        counts = self.counts.sum(1)[rows]
        shift = starts[rows] - (counts.cumsum(0) - counts)
        entries = torch.repeat_interleave(shift, counts) + torch.arange(int(counts.sum()), device=rows.device)
        values = None if self.values is None else self.values[entries]
        return type(self)(self.ids[entries], values, self.offsets[rows] - shift[:, None], bins)

    def slice(self, start: int, stop: int) -> Self:
        """Return the rows start:stop, without a copy."""
        bins = None if self.bins is None else self.bins[start:stop]
        if self.offsets is None:
            return type(self)(self.ids[start:stop], None if self.values is None else self.values[start:stop], bins=bins)
        offsets = self.offsets[start:stop]
        first = int(offsets[0, 0]) if len(offsets) else 0
        last = int(self.offsets[stop, 0]) if stop < len(self.offsets) else len(self.ids)
        entries = slice(first, last if len(offsets) else first)
        values = None if self.values is None else self.values[entries]
        return type(self)(self.ids[entries], values, offsets - first, bins)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of all parts (at least one, all of one encoder), one after the other."""
        if len(parts) == 1:
            return parts[0]
        values = None
        if any(part.values is not None for part in parts):
            values = torch.cat(
                [torch.ones_like(p.ids, dtype=torch.float32) if p.values is None else p.values for p in parts]
            )
        offsets, size = [], 0
        for part in parts:
            if part.offsets is not None:
                offsets.append(part.offsets + size)
            size += len(part.ids)
        bins = [part.bins for part in parts if part.bins is not None]
        return cls(
            torch.cat([part.ids for part in parts]), values, torch.cat(offsets) if offsets else None,
            torch.cat(bins) if bins else None,
        )  # fmt: skip

    def to(self, device: torch.device | str) -> Self:
        """Return the rows on another device."""
        parts = (self.ids, self.values, self.offsets, self.bins)
        return type(self)(*(None if t is None else t.to(device) for t in parts))  # type: ignore[arg-type]
