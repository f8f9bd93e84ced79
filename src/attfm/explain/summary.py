"""The model as a whole: importance, attention, shape curves and pair surfaces, averaged over many rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from attfm.data.batch import Batch
from attfm.data.dataset import Dataset
from attfm.data.encoder import Encoder
from attfm.explain.background import Arrays, Background, sample_size
from attfm.explain.levels import Levels, cells
from attfm.model.bundle import Model
from attfm.model.ensemble import Ensemble, Scorer, members_of
from attfm.model.terms import Terms, chunks, field_pairs, terms_chunk, terms_of

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
STORED_SURFACES = 20
_MOST_CELLS = 4096  # of a surface: the ones with most rows
_PENDING = 1 << 20  # cells held before they are merged
_JOINED_ROWS = 1024  # whose cells are found at once: two multi-valued fields have many in a row


@dataclass(frozen=True)
class Surface:
    """A pair's mean centred effect, and rows, in each cell that occurs.

    A row is in a cell for each combination of its members where a field is multi-valued.

    pair : its number; first, second : int64 (cells,), levels of the two fields
    effect : float64 (cells, outputs); rows : int64 (cells,)
    """

    pair: int
    first: Counts
    second: Counts
    effect: Floats
    rows: Counts


@dataclass(frozen=True)
class Summary:
    """Averages over rows, as arrays that can be stored.

    rows : how many
    field_importance, pair_importance : float64 (fields, outputs) and (pairs, outputs), mean |centred effect|
    attention_mean, attention_std : float64 (pairs,), of a_ij, NaN without attention; applied_mean : of A_ij
    shape, shape_rows : float64 (levels, outputs) and int64 (levels,), mean centred main effect of each level, and its
        rows; the levels of all fields one after the other
    surfaces : of the most important pairs; refits : the same figures of refits on bootstrap samples
    members : the same figures of the members of an ensemble
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
    refits: tuple["Summary", ...] = ()
    members: tuple["Summary", ...] = ()

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that `from_arrays` needs."""
        arrays: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in _ARRAYS}
        arrays["summary_rows"] = np.array([self.rows])
        for surface in self.surfaces:
            arrays |= {f"surface.{surface.pair}.{name}": getattr(surface, name) for name in _SURFACE_ARRAYS}
        for kind, others in (("bag", self.refits), ("member", self.members)):
            for number, other in enumerate(others):
                arrays |= {f"{kind}.{number}.{name}": getattr(other, name) for name in _ARRAYS}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Return the summary that `to_arrays` wrote."""
        rows = int(arrays["summary_rows"][0])
        pairs = sorted({int(name.split(".")[1]) for name in arrays if name.startswith("surface.")})
        surfaces = tuple(Surface(p, *(arrays[f"surface.{p}.{name}"] for name in _SURFACE_ARRAYS)) for p in pairs)
        own: dict[str, Any] = {name: arrays[name] for name in _ARRAYS}

        def others(kind: str) -> tuple[Self, ...]:
            numbers = sorted({int(name.split(".")[1]) for name in arrays if name.startswith(f"{kind}.")})
            figures: list[dict[str, Any]] = [{name: arrays[f"{kind}.{n}.{name}"] for name in _ARRAYS} for n in numbers]
            return tuple(cls(rows, **of_other) for of_other in figures)

        return cls(rows, **own, surfaces=surfaces, refits=others("bag"), members=others("member"))


# The names in a run folder; there a refit is called "bag".
_ARRAYS = (
    "field_importance", "pair_importance", "attention_mean", "attention_std", "applied_mean", "shape", "shape_rows"
)  # fmt: skip
_SURFACE_ARRAYS = ("first", "second", "effect", "rows")


class Tally:
    """Sums over chunks of rows, from which a summary is made; surfaces : numbers of the pairs that have theirs kept."""

    def __init__(self, background: Background, surfaces: Sequence[int] = ()) -> None:
        self.background = background
        pairs, outputs = len(background.pairs), background.main_mean.shape[1]
        self._rows = 0
        self._field, self._pair = np.zeros_like(background.main_mean), np.zeros_like(background.pair_mean)
        self.weights = WeightSums(pairs)
        self._shape, self._counts = np.zeros((len(background.counts), outputs)), np.zeros_like(background.counts)
        self._surfaces = {p: _Cells(outputs) for p in surfaces}

    def add(self, levels: Batch, terms: Terms) -> None:
        """Take in the levels and terms of some rows."""
        self.weights.add(terms)
        self.add_effects(levels, terms)

    def add_effects(self, levels: Batch, terms: Terms) -> None:
        """Take in the levels and terms of some rows, without their weights."""
        centred = self.background.centre(terms, levels)
        self._rows += len(levels)
        self._field += np.abs(centred.main).sum(0)
        self._pair += np.abs(centred.pair).sum(0)
        sizes = self.background.levels.sizes
        for f, (start, size) in enumerate(zip(self.background.levels.offsets, sizes, strict=True)):
            of_field = levels.field(f)
            part = slice(int(start), int(start + size))
            self._counts[part] += np.bincount(of_field.ids, minlength=int(size))
            for output in range(self._shape.shape[1]):
                effect = centred.main[of_field.rows, f, output]
                self._shape[part, output] += np.bincount(of_field.ids, effect, minlength=int(size))
        for p, surface in self._surfaces.items():
            i, j = (int(f) for f in self.background.pairs[p])
            for first in range(0, len(levels), _JOINED_ROWS):
                piece = levels.slice(first, first + _JOINED_ROWS)
                row, u, v = cells(piece.field(i), piece.field(j))
                surface.add(u * sizes[j] + v, centred.pair[first + row, p])

    def summary(self) -> Summary:
        """Return the averages of all rows so far."""
        n = max(self._rows, 1)
        return Summary(
            self._rows, self._field / n, self._pair / n, *self.weights.figures(n),
            self._shape / np.maximum(self._counts, 1)[:, None], self._counts,
            tuple(self._surface(p, surface) for p, surface in self._surfaces.items()),
        )  # fmt: skip

    def _surface(self, p: int, surface: "_Cells") -> Surface:
        code, rows, sums = surface.merged()
        most = np.sort(np.argsort(-rows, kind="stable")[:_MOST_CELLS])
        first, second = np.divmod(code[most], self.background.levels.sizes[self.background.pairs[p][1]])
        return Surface(p, first, second, sums[most] / rows[most, None], rows[most])


class WeightSums:
    """Sums of the attention weights of each pair, of their squares, and of the applied weights."""

    def __init__(self, pairs: int) -> None:
        self._attention, self._squares, self._applied = np.zeros(pairs), np.zeros(pairs), np.zeros(pairs)

    def add(self, terms: Terms) -> None:
        """Take in the weights of some rows."""
        if terms.attention is not None:
            attention = terms.attention.astype(np.float64)
            self._attention += attention.sum(0)
            self._squares += (attention**2).sum(0)
        self._applied += terms.applied.sum(0, dtype=np.float64)

    def figures(self, rows: int) -> tuple[Floats, Floats, Floats]:
        """Return mean and deviation of the attention weights, NaN without attention, and mean of the applied ones."""
        mean = self._attention / rows if self._attention.any() else np.full(len(self._attention), np.nan)
        return mean, np.sqrt(np.maximum(self._squares / rows - mean**2, 0)), self._applied / rows


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
        total = np.zeros((len(distinct), sums.shape[1]))
        np.add.at(total, place, sums)
        return distinct, np.bincount(place, rows, len(distinct)).astype(np.int64), total


def summarise(
    module: Scorer, encoder: Encoder, rows: Dataset, *, refits: Sequence[Scorer] = ()
) -> dict[str, NDArray[Any]]:
    """Return background and global summary of a trained module as arrays by name, to be stored beside the model.

    Of many training rows a random sample is taken. The refits were trained on bootstrap samples of the rows: their
    summaries show how far figures can be trusted. So do those of the members of a cross-fitted ensemble.
    """
    part = rows.sample(sample_size(module))
    background, summary = averaged(module, encoder, part, surfaces=STORED_SURFACES)
    others = tuple(averaged(refit, encoder, part)[1] for refit in refits)
    machines = members_of(module) if isinstance(module, Ensemble) and module.cross_fitted else ()
    members = [averaged(machine, encoder, part, centred=background.centred) for machine in machines]
    background = replace(background, training_rows=len(rows), members=tuple(own for own, _ in members))
    summary = replace(summary, refits=others, members=tuple(own for _, own in members))
    return background.to_arrays() | summary.to_arrays()


def is_of(model: Model, rows: Dataset) -> bool:
    """Return whether a model's background can be that of these training rows (true where none is stored)."""
    if not model.background:
        return True
    stored = Background.of_model(model)
    if stored.training_rows != len(rows):
        return False
    levels = stored.levels.of(rows.sample(sample_size(model.module)))
    counts = [np.bincount(levels.field(f).ids, minlength=size) for f, size in enumerate(stored.levels.sizes)]
    return np.array_equal(np.concatenate(counts), stored.counts)


def averaged(
    module: Scorer, encoder: Encoder, rows: Batch, *, surfaces: int = 0, centred: NDArray[np.bool_] | None = None
) -> tuple[Background, Summary]:
    """Return background and summary of some rows.

    Parameters
    ----------
    surfaces : int, how many of the most important pairs get their surfaces
    centred : bool (pairs,) or None, which pairs get conditional means; None: as many as are affordable
    """
    levels = Levels.of_rows(encoder, rows)
    of_rows = levels.of(rows)
    terms, weights = _effects_of(module, rows)
    background = Background.of_sample(terms, levels, of_rows, centred=centred)
    step = terms_chunk(module)

    def tally(pairs: Sequence[int]) -> Summary:
        sums = Tally(background, pairs)
        sums.weights = weights
        for start in range(0, len(rows), step):
            sums.add_effects(of_rows.slice(start, start + step), terms.slice(start, start + step))
        return sums.summary()

    summary = tally(())
    top = np.argsort(-summary.pair_importance.sum(1), kind="stable")[:surfaces].tolist()
    return background, replace(summary, surfaces=tally(top).surfaces) if top else summary


def _effects_of(module: Scorer, rows: Batch) -> tuple[Terms, WeightSums]:
    """Return the effects of some rows, and sums of their weights.

    The effects are needed twice, for their means and relative to them, and are kept: of pairs in float32, less space.
    Of the weights, which are as many as the pairs' effects, nothing but the sums is needed.
    """
    pairs = len(field_pairs(module))
    main = np.empty((len(rows), module.fields, module.outputs))
    pair = np.empty((len(rows), pairs, module.outputs), np.float32)
    intercept, weights, start = np.zeros(module.outputs), WeightSums(pairs), 0
    for chunk in chunks(module, rows):
        terms = terms_of(module, chunk)
        weights.add(terms)
        stop = start + len(chunk)
        main[start:stop], pair[start:stop], intercept = terms.main, terms.pair, terms.intercept
        start = stop
    return Terms(intercept, main, pair, None, np.empty((len(rows), 0), np.float32)), weights
