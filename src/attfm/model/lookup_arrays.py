"""What is looked up: sums and pair tables made of a model's parameters, as plain arrays."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from attfm.ops.slots import find_slots

Array = NDArray[Any]
Floats = NDArray[np.float64]
BUDGET = 64_000_000  # bytes of pair tables
# Attention logits of a table lie so near to each other that exp of none of them leaves the range of float32.
_SPREAD = 110.0
# Sizes of products below which a BLAS takes one thread: a table has the same bits whatever number of threads it may
# take, and what is worked out at once stays in the cache. Of two matrices (multiply-adds), of a matrix and a vector.
_MATRICES, _MATRIX_AND_VECTOR = 1 << 18, 9_000
_SEARCH = 200  # multiply-adds that take as long as to look one pair of values up in a memory


@dataclass(frozen=True)
class MemoryArrays:
    """A pair memory: see `attfm.ops.remembered.PairTable`; `unit` (outputs,) multiplies its effects."""

    level: Array
    pairs: Array  # (remembered, 2)
    width: Array
    offset: Array
    slots: Array
    effects: Array
    unknown: Array
    unit: Floats


@dataclass(frozen=True)
class Machine:
    """The parameters of one machine as arrays, in float32; None where the formula lacks them."""

    intercept: Array
    linear: Array
    unit: Floats  # (outputs,), what multiplies each output
    mean: Floats
    embedding: Array | None = None
    projection: Array | None = None
    W: Array | None = None
    b: Array | None = None
    h: Array | None = None
    bias: Array | None = None
    gate: Array | None = None
    scale: float = 1.0
    memory: MemoryArrays | None = None

    @classmethod
    def of(cls, module: Any) -> Self:
        """Return the parameters of a FactorizationMachine."""

        def array(parameter: Any) -> Any:
            return None if parameter is None else parameter.detach().cpu().numpy()

        unit, mean = (
            np.broadcast_to(buffer.double().cpu().numpy(), module.outputs)
            for buffer in (module.target_std, module.target_mean)
        )
        memory = None
        if module.memory is not None:
            of = module.memory
            memory = MemoryArrays(
                of.levels.of_feature, of.pairs, of.keys.width, of.keys.offset, of.slots, of.effects, of.unknown, unit
            )
        pairs: dict[str, Any] = {}
        if module.has_pairs:
            a = module.attention
            pairs = {name: array(getattr(a, name)) for name in ("W", "b", "h")}
            pairs |= {"bias": array(a.pair_bias), "gate": array(a.pair_gate), "scale": float(a.scale)}
            pairs |= {"embedding": array(module.embedding.weight), "projection": array(module.projection)}
        return cls(array(module.intercept), array(module.linear.weight), unit, mean, memory=memory, **pairs)


@dataclass(frozen=True)
class FieldRange:
    """A field's features, from `start` to `stop`; is_single: it has one a row, with x = 1."""

    start: int
    stop: int
    is_single: bool

    @property
    def size(self) -> int:
        """Number of features."""
        return self.stop - self.start


class TableCost(NamedTuple):
    """What the tables of all pairs of a model's fields take: bytes, and about how many multiply-adds to make them."""

    bytes: int
    work: int


def table_cost(machines: Sequence[Machine], fields: Sequence[FieldRange]) -> TableCost:
    """Return what tables of all pairs would take; only of fields with one feature a row."""
    builder, machine = _Builder(machines, fields), machines[0]
    hidden = 0 if machine.W is None else machine.W.shape[1]
    each = 0 if machine.embedding is None else machine.embedding.shape[1] * (hidden + builder.outputs + 1)
    work = 0
    for n, pair in enumerate(builder.pairs):
        remembering = sum(pair in own for own in builder.remembered)
        work += builder.cell_count(n) * (len(machines) * each + remembering * _SEARCH)
    return TableCost(sum(builder.table_bytes(n) for n in range(len(builder.pairs))), work)


def lookup_arrays(machines: Sequence[Machine], fields: Sequence[FieldRange], budget: int) -> dict[str, Array]:
    """Return the arrays of a `Lookup`.

    Where the table of a pair of fields fits, its cell for a pair of features holds, of each machine with attention,
    E = exp(e_ij - shift) and, for each output, N = E · scale · g_ij · (p · q_ij) / machines. What attention does not
    divide (pairs without attention, the pair memory) is in cells of its own, so that

        logit = base + Σ_f x w[feature] + Σ_machines (Σ_pairs N) / (Σ_pairs E) + Σ_pairs sum

    which is the formula: a_ij = E / Σ E. The cell of features a and b is number origin + a · step + b; a pair without
    a table has the last cell, of zeros, whatever its features are.
    """
    arrays: dict[str, Array] = {
        "machines": np.array([len(machines), machines[0].W is not None], np.int64),
        "base": np.mean([m.mean + m.unit * m.intercept.astype(np.float64) for m in machines], axis=0),
        "linear": np.asarray(np.mean([m.unit * m.linear for m in machines], axis=0), np.float32),
        "field_starts": np.array([f.start for f in fields], np.int32),
        "field_stops": np.array([f.stop for f in fields], np.int32),
        "singles": np.array([f.is_single for f in fields], np.uint8),
    }
    builder = _Builder(machines, fields)
    tables, shift = builder.tables(budget)
    arrays.update(builder.cells(tables, shift))
    arrays.update(builder.sums(set(tables)))
    arrays.update(builder.computed(set(tables), shift))
    arrays.update(builder.memories(set(tables)))
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


class _Builder:
    def __init__(self, machines: Sequence[Machine], fields: Sequence[FieldRange]) -> None:
        self.machines, self.fields, self.outputs = machines, fields, len(machines[0].intercept)
        self.attention = machines[0].W is not None
        self.pairs = list(combinations(range(len(fields)), 2)) if machines[0].embedding is not None else []
        self.remembered = [
            {} if m.memory is None else {(int(i), int(j)): n for n, (i, j) in enumerate(m.memory.pairs)}
            for m in machines
        ]

    @property
    def width(self) -> int:
        """Floats of a cell: rounded up to what is added up at once."""
        return _padded(len(self.machines) * (1 + self.outputs) if self.attention else self.outputs)

    def is_remembered(self, pair: tuple[int, int]) -> bool:
        """Return whether some machine has a memory of a pair of fields."""
        return any(pair in own for own in self.remembered)

    def cell_count(self, number: int) -> int:
        """Return how many cells the table of a pair of fields has."""
        i, j = self.pairs[number]
        return self.fields[i].size * self.fields[j].size

    def table_bytes(self, number: int) -> int:
        """Return how many bytes the table of a pair of fields takes, with that of what is remembered of it."""
        remembered = _padded(self.outputs) if self.is_remembered(self.pairs[number]) else 0
        return 4 * (self.width + remembered) * self.cell_count(number)

    def tables(self, budget: int) -> tuple[dict[int, tuple[Floats, Floats]], Floats]:
        """Return attention logits and pair values of the pairs whose tables fit, by pair number; and the shifts."""
        size = {
            n: self.table_bytes(n) for n, (i, j) in enumerate(self.pairs)
            if self.fields[i].is_single and self.fields[j].is_single
        }  # fmt: skip
        chosen, left = [], budget
        for n in sorted(size, key=lambda n: (size[n], n)):
            if size[n] <= left:
                chosen.append(n)
                left -= size[n]
        found = {n: self._cells(n) for n in sorted(chosen)}
        if not self.attention or not found:
            return found, np.zeros(len(self.machines))
        low = np.array([logits.min(axis=(1, 2)) for logits, _ in found.values()])
        most = np.max([logits.max(axis=(1, 2)) for logits, _ in found.values()], axis=0)
        kept = (most - low <= _SPREAD).all(1)  # the table with the greatest may be dropped itself: rarer than rare
        if not kept.any():
            return {}, most
        return {n: of for (n, of), keep in zip(found.items(), kept, strict=True) if keep}, (most + low[kept].min(0)) / 2

    def _cells(self, number: int) -> tuple[Floats, Floats]:
        """Return attention logits (machines, first, second) and values (machines, first, second, outputs)."""
        i, j = self.pairs[number]
        first, second = self.fields[i], self.fields[j]
        shape = len(self.machines), first.size, second.size
        logits, values = np.zeros(shape), np.empty((*shape, self.outputs))
        for m, machine in enumerate(self.machines):
            V, P = (np.asarray(of, np.float64) for of in (machine.embedding, machine.projection))
            left, right = V[first.start : first.stop], V[second.start : second.stop]
            factor = self.factors(machine)[number]
            for rows, columns in self._blocks(machine, first.size, second.size):
                q = (left[rows, None] * right[columns]).reshape(-1, V.shape[1])
                values[m, rows, columns] = (q @ P * factor).reshape(*values[m, rows, columns].shape)
                if machine.W is not None:
                    hidden = np.maximum(q @ machine.W.astype(np.float64) + np.asarray(machine.b), 0)
                    bias = 0.0 if machine.bias is None else float(machine.bias[number])
                    e = hidden @ np.asarray(machine.h, np.float64) + bias
                    logits[m, rows, columns] = e.reshape(logits[m, rows, columns].shape)
        return logits, values

    def _blocks(self, machine: Machine, rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
        """Yield the blocks of a table that are worked out at once."""
        dim, hidden = len(np.asarray(machine.projection)), 0 if machine.W is None else machine.W.shape[1]
        widest = max(hidden, self.outputs)
        cells = max(1, min(_MATRICES // (dim * widest), _MATRIX_AND_VECTOR // max(dim, hidden)))
        width = min(columns, cells)
        height = cells // width
        for row in range(0, rows, height):
            for column in range(0, columns, width):
                yield slice(row, row + height), slice(column, column + width)

    def factors(self, machine: Machine) -> Floats:
        """Return what multiplies p · q_ij beside the attention weight, float64 (pairs, outputs)."""
        gate = np.ones(len(self.pairs)) if machine.gate is None else machine.gate.astype(np.float64)
        factors: Floats = machine.scale * gate[:, None] * machine.unit / len(self.machines)
        return factors

    def cells(self, tables: Mapping[int, tuple[Floats, Floats]], shift: Floats) -> dict[str, Array]:
        """Return the cells of all tables, one pair of fields after the other, and where those of each pair are."""
        if not tables:
            return {"grid": np.zeros((3, 0), np.int32), "cells": np.zeros((1, self.width), np.float32)}
        pieces = [self._cells_of(*tables[n], shift) for n in sorted(tables)]
        pieces.append(np.zeros((1, self.width), np.float32))
        starts = np.cumsum([0, *(len(piece) for piece in pieces)])
        grid = np.zeros((3, len(self.pairs)), np.int64)
        grid[0] = starts[-2]
        for start, n in zip(starts[:-2], sorted(tables), strict=True):
            grid[:, n] = *self._place(int(start), self.pairs[n]), -1
        return {"grid": grid.astype(np.int32), "cells": np.concatenate(pieces)}

    def _place(self, start: int, pair: tuple[int, int]) -> tuple[int, int]:
        """Return origin and step of a pair of fields whose first cell has this number."""
        first, second = (self.fields[f] for f in pair)
        return start - first.start * second.size - second.start, second.size

    def _cells_of(self, logits: Floats, values: Floats, shift: Floats) -> Array:
        machines, first, second, outputs = values.shape
        cells = np.zeros((first, second, self.width), np.float32)
        if self.attention:
            for m in range(machines):
                E, place = np.exp(logits[m] - shift[m]), m * (1 + outputs)
                cells[:, :, place] = E
                cells[:, :, place + 1 : place + 1 + outputs] = E[..., None] * values[m]
        else:
            cells[:, :, :outputs] = values.sum(0)
        return cells.reshape(first * second, -1)

    def sums(self, tabled: set[int]) -> dict[str, Array]:
        """Return the cells of what is remembered of pairs that have a table, as `cells` does."""
        pieces, places, pairs, at = [], [], [], 0
        for n in sorted(tabled):
            pair = self.pairs[n]
            if not self.is_remembered(pair):
                continue
            cells = np.zeros((self.fields[pair[0]].size, self.fields[pair[1]].size, _padded(self.outputs)))
            for machine, own in zip(self.machines, self.remembered, strict=True):
                if pair in own and machine.memory is not None:
                    effects = self._effects(machine.memory, own[pair], pair)
                    cells[:, :, : self.outputs] += effects / len(self.machines)
            pieces.append(cells.reshape(-1, cells.shape[2]).astype(np.float32))
            places.append(self._place(at, pair))
            pairs.append(pair)
            at += len(pieces[-1])
        return {
            "sum_pairs": np.array(pairs, np.int32).reshape(-1, 2).T,
            "sum_places": np.array(places, np.int64).reshape(-1, 2).T,
            "sum_cells": np.concatenate(pieces) if pieces else np.zeros((0, _padded(self.outputs)), np.float32),
        }

    def _effects(self, memory: MemoryArrays, number: int, pair: tuple[int, int]) -> Floats:
        """Return what a memory holds of all pairs of features of two fields, (first, second, outputs)."""
        first, second = (memory.level[self.fields[f].start : self.fields[f].stop].astype(np.int64) for f in pair)
        keys = memory.offset[number] + first[:, None] * memory.width[number] + second
        slots = find_slots(memory.slots, keys)
        known = (slots >= 0)[..., None]
        effects: Floats = memory.unit * np.where(known, memory.effects[np.maximum(slots, 0)], memory.unknown[number])
        return effects

    def computed(self, tabled: set[int], shift: Floats) -> dict[str, Array]:
        """Return what the other pairs are computed from."""
        numbers = [n for n in range(len(self.pairs)) if n not in tabled]
        arrays = {"computed_pairs": np.array([self.pairs[n] for n in numbers], np.int32).reshape(-1, 2).T}
        if not numbers:
            return arrays
        machines = self.machines
        arrays["embeddings"] = np.stack([np.asarray(m.embedding) for m in machines])
        arrays["projections"] = np.stack([np.asarray(m.projection) for m in machines])
        arrays["factors"] = np.stack([self.factors(m)[numbers] for m in machines]).astype(np.float32)
        if self.attention:
            for name in ("W", "b", "h"):
                arrays[name] = np.stack([np.asarray(getattr(m, name)) for m in machines])
            bias = [np.zeros(len(self.pairs)) if m.bias is None else m.bias for m in machines]
            arrays["biases"] = (np.stack(bias)[:, numbers] - shift[:, None]).astype(np.float32)
        return arrays

    def memories(self, tabled: set[int]) -> dict[str, Array]:
        """Return what the memories hold of pairs without a table."""
        arrays: dict[str, Array] = {}
        place = {pair: n for n, pair in enumerate(self.pairs)}
        for m, (machine, own) in enumerate(zip(self.machines, self.remembered, strict=True)):
            memory = machine.memory
            kept = [n for pair, n in own.items() if place.get(pair) not in tabled]
            if memory is None or not kept:
                continue
            arrays.update({
                f"memory.{m}.level": memory.level, f"memory.{m}.pairs": memory.pairs[kept].T,
                f"memory.{m}.width": memory.width[kept], f"memory.{m}.offset": memory.offset[kept],
                f"memory.{m}.slots": memory.slots,
                f"memory.{m}.effects": (memory.effects * memory.unit / len(self.machines)).astype(np.float32),
                f"memory.{m}.unknown": (memory.unknown[kept] * memory.unit / len(self.machines)).astype(np.float32),
            })  # fmt: skip
        return arrays


def _padded(width: int) -> int:
    return width if width <= 2 else -(-width // 4) * 4
