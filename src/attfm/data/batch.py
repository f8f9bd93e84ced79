"""The encoded row: what the encoder writes and the model reads (DESIGN section 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Bag:
    """The active features of one multi-valued field, row after row.

    ids : int32 (entries,), global feature ids
    weights : float32 (entries,)
    offsets : int64 (rows + 1,); row r owns the entries offsets[r]:offsets[r + 1]
    """

    ids: NDArray[np.int32]
    weights: NDArray[np.float32]
    offsets: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Return the bags of the given rows, in their order."""
        counts = (self.offsets[1:] - self.offsets[:-1])[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        entries = np.repeat(self.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
        return type(self)(self.ids[entries], self.weights[entries], offsets)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Return the bags of all parts, one after the other (at least one part)."""
        sizes = np.cumsum([0] + [len(part.ids) for part in parts])
        ends = [part.offsets[1:] + size for part, size in zip(parts, sizes, strict=False)]
        return cls(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.weights for part in parts]),
            np.concatenate([np.zeros(1, np.int64), *ends]),
        )

    def with_empty_row(self) -> Self:
        """Return the bags and an empty one after the last."""
        return type(self)(self.ids, self.weights, np.append(self.offsets, self.offsets[-1:]))


@dataclass(frozen=True)
class EncodedBatch:
    """Encoded rows.

    ids : int32 (rows, fields), the global feature id of each single-valued field;
        in the column of a multi-valued field the field's own `start`, whose value is 0
    values : float32 (rows, fields), the x that multiplies the feature's embedding and weight,
        or None where each is 1 (no scaled and no multi-valued field)
    bags : the active features of each multi-valued field, by field number
    """

    ids: NDArray[np.int32]
    values: NDArray[np.float32] | None = None
    bags: Mapping[int, Bag] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Return the given rows, in their order."""
        values = None if self.values is None else self.values[rows]
        return type(self)(self.ids[rows], values, {f: bag.take(rows) for f, bag in self.bags.items()})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of all parts, one after the other (at least one part, all of one encoder)."""
        bags = {f: Bag.concatenate([part.bags[f] for part in parts]) for f in parts[0].bags}
        values = None if parts[0].values is None else np.concatenate([p.values for p in parts if p.values is not None])
        return cls(np.concatenate([part.ids for part in parts]), values, bags)
