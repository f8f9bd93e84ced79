"""The model as a whole: importance, attention, shape curves and pair surfaces, averaged over many rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from attfm.explain.background import Arrays, Background, Centred
from attfm.explain.effects import Effects
from attfm.explain.levels import RowStates

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
STORED_SURFACES = 20
_MOST_CELLS = 4096  # of a surface: the ones with most rows
_PENDING = 1 << 20  # cells held before they are merged
_JOINED_ROWS = 1024  # whose cells are found at once: two multi-valued fields have many in a row


@dataclass(frozen=True)
class Surface:
    """A pair's mean centred effect, and rows, in each cell that occurs.

    first, second : int64 (cells,) states of the two fields; effect : float64 (cells, outputs); rows : int64 (cells,);
        a row is in a cell for each combination of its members where a field is multi-valued
    """

    pair: int
    first: Counts
    second: Counts
    effect: Floats
    rows: Counts


@dataclass(frozen=True)
class Summary:
    """Averages over rows, as arrays that can be stored.

    field_importance, pair_importance : float64 (fields, outputs) and (pairs, outputs), mean |centred effect|
    attention_mean, attention_std : float64 (pairs,) of a_ij, NaN without attention
    applied_mean : float64 (pairs,) of A_ij
    shape, shape_rows : float64 (points, outputs) mean centred main effect of each value, and its rows, int64 (points,);
        the points of all fields one after the other, a point for each state
    surfaces : of the most important pairs
    bags : the same figures of refits on bootstrap samples
    """

    rows: int
    field_importance: Floats
    pair_importance: Floats
    attention_mean: Floats
    attention_std: Floats
    applied_mean: Floats
    shape: Floats
    shape_rows: Counts
    surfaces: tuple[Surface, ...] = ()
    bags: tuple["Summary", ...] = ()

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that `from_arrays` needs."""
        arrays: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in _ARRAYS}
        arrays["summary_rows"] = np.array([self.rows])
        for surface in self.surfaces:
            arrays |= {f"surface.{surface.pair}.{name}": getattr(surface, name) for name in _SURFACE_ARRAYS}
        for number, bag in enumerate(self.bags):
            arrays |= {f"bag.{number}.{name}": getattr(bag, name) for name in _ARRAYS}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Return the summary that `to_arrays` wrote."""
        rows = int(arrays["summary_rows"][0])
        pairs = sorted({int(name.split(".")[1]) for name in arrays if name.startswith("surface.")})
        surfaces = tuple(Surface(p, *(arrays[f"surface.{p}.{name}"] for name in _SURFACE_ARRAYS)) for p in pairs)
        numbers = sorted({int(name.split(".")[1]) for name in arrays if name.startswith("bag.")})

        def held(prefix: str) -> dict[str, Any]:
            return {name: arrays[prefix + name] for name in _ARRAYS}

        bags = tuple(cls(rows, **held(f"bag.{n}.")) for n in numbers)
        return cls(rows, **held(""), surfaces=surfaces, bags=bags)


_ARRAYS = (
    "field_importance",
    "pair_importance",
    "attention_mean",
    "attention_std",
    "applied_mean",
    "shape",
    "shape_rows",
)
_SURFACE_ARRAYS = ("first", "second", "effect", "rows")


class Tally:
    """Sums over chunks of rows, from which a summary is made.

    Parameters
    ----------
    background : that the effects are centred by
    surfaces : numbers of the pairs whose surfaces are kept
    """

    def __init__(self, background: Background, surfaces: Sequence[int] = ()) -> None:
        self.background = background
        self.states = background.states
        fields, pairs, outputs = len(self.states.names), len(background.pairs), background.main_mean.shape[1]
        sizes = self.states.sizes
        self._rows = 0
        self._field, self._pair = np.zeros((fields, outputs)), np.zeros((pairs, outputs))
        self._attention, self._squares, self._applied = np.zeros(pairs), np.zeros(pairs), np.zeros(pairs)
        self._shape, self._counts = np.zeros((int(sizes.sum()), outputs)), np.zeros(int(sizes.sum()), np.int64)
        self._surfaces = {p: _Cells(outputs) for p in surfaces}

    def add(self, states: RowStates, effects: Effects, centred: Centred) -> None:
        """Take in the states, raw and centred effects of some rows."""
        self._rows += len(states)
        self._field += np.abs(centred.main).sum(0)
        self._pair += np.abs(centred.pair).sum(0)
        if effects.attention is not None:
            attention = effects.attention.astype(np.float64)
            self._attention += attention.sum(0)
            self._squares += (attention**2).sum(0)
        self._applied += effects.applied.sum(0, dtype=np.float64)
        for f, (start, size) in enumerate(zip(self.states.offsets, self.states.sizes, strict=True)):
            held = states.of_field(f)
            part = slice(int(start), int(start + size))
            self._counts[part] += np.bincount(held.state, minlength=int(size))
            for output in range(self._shape.shape[1]):
                sums = np.bincount(held.state, centred.main[held.row, f, output], minlength=int(size))
                self._shape[part, output] += sums
        for p, cells in self._surfaces.items():
            i, j = (int(f) for f in self.background.pairs[p])
            for first in range(0, len(states), _JOINED_ROWS):
                part_states = states.slice(first, first + _JOINED_ROWS)
                row, u, v = part_states.cells(i, j)
                cells.add(u * self.states.sizes[j] + v, centred.pair[first + row, p])

    def summary(self) -> Summary:
        """Return the averages of all rows so far."""
        n = max(self._rows, 1)
        attention = self._attention / n if self._attention.any() else np.full(len(self._pair), np.nan)
        return Summary(
            self._rows, self._field / n, self._pair / n, attention,
            np.sqrt(np.maximum(self._squares / n - attention**2, 0)), self._applied / n,
            self._shape / np.maximum(self._counts, 1)[:, None], self._counts,
            tuple(self._surface(p, cells) for p, cells in self._surfaces.items()),
        )  # fmt: skip

    def _surface(self, p: int, cells: "_Cells") -> Surface:
        code, rows, sums = cells.merged()
        most = np.sort(np.argsort(-rows, kind="stable")[:_MOST_CELLS])
        first, second = np.divmod(code[most], self.states.sizes[self.background.pairs[p][1]])
        return Surface(p, first, second, sums[most] / rows[most, None], rows[most])


class _Cells:
    """Rows and sums of each cell that occurs."""

    def __init__(self, outputs: int) -> None:
        self._parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, outputs)))]

    def add(self, code: Counts, values: Floats) -> None:
        self._parts.append((code, np.ones(len(code), np.int64), values))
        if sum(len(part[0]) for part in self._parts[1:]) > _PENDING:
            self._parts = [self.merged()]

    def merged(self) -> tuple[Counts, Counts, Floats]:
        code, rows, sums = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        distinct, place = np.unique(code, return_inverse=True)
        place = place.ravel()
        total = np.zeros((len(distinct), sums.shape[1]))
        np.add.at(total, place, sums)
        return distinct, np.bincount(place, rows, len(distinct)).astype(np.int64), total


def of_effects(background: Background, states: RowStates, effects: Effects, *, step: int, surfaces: int) -> Summary:
    """Return the summary of effects that are all at hand, centred `step` rows at a time."""

    def tally(pairs: Sequence[int]) -> Summary:
        sums = Tally(background, pairs)
        for start in range(0, len(states), step):
            part, of_rows = effects.slice(start, start + step), states.slice(start, start + step)
            sums.add(of_rows, part, background.centre(part, of_rows))
        return sums.summary()

    summary = tally(())
    top = np.argsort(-summary.pair_importance.sum(1), kind="stable")[:surfaces]
    return replace(summary, surfaces=tally(top.tolist()).surfaces) if surfaces and len(top) else summary
