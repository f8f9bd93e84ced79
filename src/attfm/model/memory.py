"""Pair memory: one effect for each pair of values that training rows had, found by hash."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attfm.data.batch import Batch
from attfm.data.codecs.pairs import PairKeys, PairLevels
from attfm.ops.remembered import PairTable, find_remembered
from attfm.ops.slots import FREE, home

_MOST_FULL = 0.5  # share of the slots that are taken: a search then looks at 1.5 slots on average, at 2.5 in vain


@dataclass(frozen=True)
class PairMemory:
    """The scalars u_ij(a, b) of DESIGN section 1, for the field pairs that earn it.

    Attributes
    ----------
    levels : PairLevels, which value of a field a feature counts as
    keys : PairKeys, how the value pairs of the remembered field pairs, int64 (remembered, 2), are numbered
    slots : int64 (slots,), keys of the known value pairs (see `attfm.ops.remembered.PairTable`)
    effects : float32 (slots, outputs), u of each, in logits (or standard deviations of a regression's target)
    rows : int32 (slots,), training rows that had the value pair
    unknown : float32 (remembered, outputs), u of a value pair that is not known
    """

    levels: PairLevels
    keys: PairKeys
    slots: NDArray[np.int64]
    effects: NDArray[np.float32]
    rows: NDArray[np.int32]
    unknown: NDArray[np.float32]

    def __deepcopy__(self, memo: dict[int, Any]) -> "PairMemory":
        return self  # never changed, and large

    @property
    def pairs(self) -> NDArray[np.int64]:
        """The remembered field pairs, int64 (remembered, 2)."""
        return self.keys.pairs

    @property
    def size(self) -> int:
        """Number of known value pairs."""
        return int((self.slots != FREE).sum())

    @classmethod
    def of(
        cls,
        levels: PairLevels,
        keys: PairKeys,
        known: NDArray[np.int64],
        effects: NDArray[np.floating[Any]],
        rows: NDArray[np.integer[Any]],
        unknown: NDArray[np.floating[Any]],
    ) -> Self:
        """Return the memory of known value pairs.

        Parameters
        ----------
        known : int64 (n,), distinct keys; effects : (n, outputs), their u; rows : (n,), training rows that have each
        """
        size = 1 << max(int(np.ceil(len(known) / _MOST_FULL)), 1).bit_length()
        slots = np.full(size, FREE, np.int64)
        held = np.zeros((size, effects.shape[1]), np.float32)
        counts = np.zeros(size, np.int32)
        # All keys look at the same time; of those at one free slot the first takes it: one of many rows, which new rows
        # will have often too, so that most searches end where they begin.
        place, left = home(known, size), np.argsort(-rows.astype(np.int64), kind="stable")
        while len(left):
            here = place[left]
            free = np.flatnonzero(slots[here] == FREE)
            _, first = np.unique(here[free], return_index=True)
            taken = free[first]
            slots[here[taken]] = known[left[taken]]
            held[here[taken]], counts[here[taken]] = effects[left[taken]], rows[left[taken]]
            left = np.delete(left, taken)
            place[left] = np.where(slots[place[left]] == FREE, place[left], (place[left] + 1) % size)
        return cls(levels, keys, slots, held, counts, np.asarray(unknown, np.float32))

    @cached_property
    def _table(self) -> PairTable:
        pairs, width, offset = (np.ascontiguousarray(a) for a in (self.pairs.T, self.keys.width, self.keys.offset))
        return PairTable(
            self.levels.of_feature, pairs, width, offset, self.slots, self.effects, self.rows, self.unknown
        )  # fmt: skip

    def look_up(self, batch: Batch) -> tuple[Tensor, NDArray[np.int32]]:
        """Return what is remembered of each row.

        Returns
        -------
        effects : float32 Tensor of (batch, remembered, outputs), u
        rows : int32 (batch, remembered), how many training rows had the pair of values; 0: it is not known
        """
        return find_remembered(self._table, batch.ids, batch.offsets)

    def total(self, batch: Batch) -> Tensor:
        """Return the sum of u over the remembered pairs of each row, float32 (batch, outputs)."""
        return find_remembered(self._table, batch.ids, batch.offsets, summed=True)[0]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all arrays by name, from which `from_arrays` makes an equal memory."""
        arrays = {
            "levels": self.levels.of_feature, "sizes": self.levels.sizes, "pairs": self.pairs, "slots": self.slots,
            "effects": self.effects, "rows": self.rows, "unknown": self.unknown,
        }  # fmt: skip
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], *, features: int, fields: int, outputs: int) -> Self:
        """Return the memory that `to_arrays` wrote; raise ValueError where it can't be one of so large a model."""
        slots, remembered = len(arrays["slots"]), len(arrays["pairs"])
        shapes = {
            "levels": (features,), "sizes": (fields,), "pairs": (remembered, 2), "slots": (slots,),
            "effects": (slots, outputs), "rows": (slots,), "unknown": (remembered, outputs),
        }  # fmt: skip
        wrong = [name for name, shape in shapes.items() if arrays[name].shape != shape]
        levels = PairLevels(arrays["levels"], arrays["sizes"])
        pairs = arrays["pairs"]
        if wrong or slots < 2 or slots & (slots - 1) or (arrays["slots"] != FREE).all():
            raise ValueError(f"the pair memory's {', '.join(wrong) or 'slots'} have another size than expected")
        if (pairs < 0).any() or (pairs >= fields).any() or not levels.sizes[pairs].all():
            raise ValueError("the pair memory is of fields that the model does not have")
        own = (arrays[name] for name in ("slots", "effects", "rows", "unknown"))
        return cls(levels, levels.keys(pairs), *own)
