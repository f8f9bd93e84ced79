"""A machine whose fields are told apart: those of the context of a request, and those of an item."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attfm.data.batch import Batch, FieldFeatures
from attfm.data.codecs.pairs import PairKeys
from attfm.model.memory import PairMemory
from attfm.model.modules import FactorizationMachine
from attfm.ops.ranking import Context, CrossMemory, PairNetwork
from attfm.ops.remembered import PairTable, find_remembered
from attfm.ops.slots import FREE, find_slots

Floats = NDArray[np.float32]
Longs = NDArray[np.int64]


@dataclass(frozen=True)
class Sides:
    """The numbers of the context's fields and of the item's, int64, each rising."""

    context: Longs
    item: Longs


@dataclass(frozen=True)
class RememberedSides:
    """The pair memory of a machine: the pairs within the context, across, and within an item.

    Attributes
    ----------
    memory : PairMemory
    context : PairKeys of the pairs within the context, by the places of the fields among the context's
    context_unknown : float32 (context pairs, outputs)
    cross : CrossMemory; cross_context : int64 (cross pairs,), place of the context's field
    cross_offset, cross_step : int64 (cross pairs,), a key without levels, and by which the context's level counts
    item : PairTable of the pairs within an item, by the places of the fields among the item's
    """

    memory: PairMemory
    context: PairKeys
    context_unknown: Floats
    cross: CrossMemory
    cross_context: Longs
    cross_offset: Longs
    cross_step: Longs
    item: PairTable

    @classmethod
    def of(cls, memory: PairMemory, sides: Sides) -> Self:
        """Return the sides of a memory."""
        keys = memory.keys
        is_item = np.isin(keys.pairs, sides.item)
        place = np.zeros(int(max(sides.context.max(), sides.item.max())) + 1, np.int64)
        place[sides.context], place[sides.item] = np.arange(len(sides.context)), np.arange(len(sides.item))
        context, item = (np.flatnonzero((is_item == of).all(1)) for of in (False, True))
        across = np.flatnonzero(is_item[:, 0] != is_item[:, 1])
        item_is_first = is_item[across, 0]
        item_field = place[keys.pairs[across, np.where(item_is_first, 0, 1)]]
        across, order = across[np.argsort(item_field, kind="stable")], np.argsort(item_field, kind="stable")
        item_is_first, item_field = item_is_first[order], item_field[order]
        width = keys.width[across]
        starts = np.searchsorted(item_field, np.arange(len(sides.item) + 1))
        cross = CrossMemory(
            starts.astype(np.int64), np.where(item_is_first, width, 1), np.ascontiguousarray(memory.slots),
            np.ascontiguousarray(memory.effects), np.ascontiguousarray(memory.unknown[across]),
        )  # fmt: skip
        pairs = [np.ascontiguousarray(place[keys.pairs[kept]]) for kept in (context, item)]
        table = PairTable(
            memory.levels.of_feature, np.ascontiguousarray(pairs[1].T), np.ascontiguousarray(keys.width[item]),
            np.ascontiguousarray(keys.offset[item]), memory.slots, memory.effects, memory.rows,
            np.ascontiguousarray(memory.unknown[item]),
        )  # fmt: skip
        return cls(
            memory, PairKeys(pairs[0], keys.width[context], keys.offset[context]), memory.unknown[context], cross,
            place[keys.pairs[across, np.where(item_is_first, 1, 0)]], keys.offset[across],
            np.where(item_is_first, 1, width), table,
        )  # fmt: skip

    def levels(self, features: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the level of each feature."""
        return self.memory.levels.of_feature[features]

    def within_context(self, levels: Longs) -> Floats:
        """Return the sum of what is remembered of the pairs within a context, given its levels, (outputs,)."""
        first, second = levels[self.context.pairs].T
        slots = find_slots(self.memory.slots, self.context.offset + first * self.context.width + second)
        known = np.where(slots[:, None] >= 0, self.memory.effects[slots], self.context_unknown)
        return np.asarray(known.sum(0, dtype=np.float32))


class TwoSidedMachine:
    """A factorization machine as a ranker needs it, in numpy.

    Attributes
    ----------
    network : PairNetwork; memory : CrossMemory, of no pairs where the machine has no memory
    offset, slope : float32 (outputs,), prediction = offset + slope · logit
    """

    def __init__(self, machine: FactorizationMachine, sides: Sides) -> None:
        outputs = machine.outputs
        self._intercept = _array(machine.intercept)
        self._linear = _array(machine.linear.weight)
        self._vectors = _array(machine.embedding.weight) if machine.has_pairs else np.empty((0, 0), np.float32)
        self.offset, self.slope = (
            np.ascontiguousarray(np.broadcast_to(_array(buffer), outputs))
            for buffer in (machine.target_mean, machine.target_std)
        )
        self.network = _network(machine, sides)
        self._remembered = None if machine.memory is None else RememberedSides.of(machine.memory, sides)
        self.memory = _no_memory(len(sides.item), outputs) if self._remembered is None else self._remembered.cross

    def context(self, features: Sequence[FieldFeatures]) -> Context:
        """Return the context of a request, given the features of its fields in one row."""
        base, keys = self._intercept, np.empty(0, np.int64)
        if all(len(of.ids) == 1 and of.values is None for of in features):
            ids = np.concatenate([of.ids for of in features])
            base = base + self._linear[ids].sum(0)
            vectors = self._vectors[ids] if len(self._vectors) else np.empty((len(ids), 0), np.float32)
        else:
            base = base + sum(self._sums(self._linear, of)[0] for of in features)
            vectors = np.concatenate([self._sums(self._vectors, of) for of in features])
        if self._remembered is not None:
            # A field without a level, such as a bag, which may be empty, takes no part in pairs.
            first = np.array([of.ids[0] if len(of.ids) else 0 for of in features], np.int32)
            levels = self._remembered.levels(first).astype(np.int64)
            base = base + self._remembered.within_context(levels)
            step = self._remembered.cross_step
            keys = self._remembered.cross_offset + step * levels[self._remembered.cross_context]
        return Context(vectors, base.astype(np.float32), keys)

    def entry_vectors(self, features: FieldFeatures) -> Floats:
        """Return the vectors of a field in some rows, (rows, dim)."""
        return self._sums(self._vectors, features)

    def entry_levels(self, features: FieldFeatures) -> NDArray[np.int32]:
        """Return the levels of a field in some rows, int32 (rows,); 0 of bags."""
        if self._remembered is None or features.counts is not None:
            return np.zeros(len(features.ids if features.counts is None else features.counts), np.int32)
        return self._remembered.levels(features.ids)

    def plain(self, batch: Batch) -> Floats:
        """Return main effects and memory of items, (items, outputs), given rows of the item's fields."""
        total = np.zeros((len(batch), len(self._intercept)), np.float32)
        for f in range(batch.fields):
            total += self._main(batch.field(f))
        if self._remembered is not None:
            total += find_remembered(self._remembered.item, batch.ids, batch.offsets, summed=True)[0].numpy()
        return total

    def _main(self, features: FieldFeatures) -> Floats:
        return self._sums(self._linear, features)

    @staticmethod
    def _sums(table: Floats, features: FieldFeatures) -> Floats:
        """Return Σ x · table[feature] of each row, (rows, columns of the table)."""
        if not len(table):
            return np.empty((len(features.ids if features.counts is None else features.counts), 0), np.float32)
        rows = table[features.ids]
        if features.values is not None:
            rows = rows * features.values[:, None]
        if features.counts is None:
            return rows
        sums = np.zeros((len(features.counts), table.shape[1]), np.float32)
        np.add.at(sums, features.rows, rows)
        return sums


def _array(tensor: Tensor) -> NDArray[Any]:
    """Return a parameter as float32, without a copy where it is that."""
    return tensor.detach().to("cpu", torch.float32).contiguous().numpy()


def _network(machine: FactorizationMachine, sides: Sides) -> PairNetwork:
    context, item = sides.context, sides.item
    if not machine.has_pairs:
        shapes: list[Any] = [(len(context), len(item))] * 2 + [0] * 4
        return PairNetwork(
            np.empty((0, machine.outputs), np.float32),
            1.0,
            None,
            None,
            None,
            *(np.zeros(s, np.float32) for s in shapes),
        )
    attention, fields = machine.attention, machine.fields
    bias = np.zeros(attention.pairs, np.float32) if attention.pair_bias is None else _array(attention.pair_bias)
    gate = np.ones(attention.pairs, np.float32) if attention.pair_gate is None else _array(attention.pair_gate)

    def number(i: Longs, j: Longs) -> Longs:
        first, second = np.minimum(i, j), np.maximum(i, j)
        return np.asarray(first * (2 * fields - first - 1) // 2 + second - first - 1)

    def within(side: Longs) -> Longs:
        i, j = np.triu_indices(len(side), 1)
        return number(side[i], side[j])

    across = number(context[:, None], item[None])
    W, b, h = (None if p is None else _array(p) for p in (attention.W, attention.b, attention.h))
    return PairNetwork(
        _array(machine.projection), attention.scale, W, b, h, bias[across], gate[across], bias[within(context)],
        gate[within(context)], bias[within(item)], gate[within(item)],
    )  # fmt: skip


def _no_memory(item_fields: int, outputs: int) -> CrossMemory:
    none = np.empty(0, np.int64)
    return CrossMemory(
        np.zeros(item_fields + 1, np.int64), none, np.full(2, FREE, np.int64), np.zeros((2, outputs), np.float32),
        np.empty((0, outputs), np.float32),
    )  # fmt: skip
