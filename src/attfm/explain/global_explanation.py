"""What a user gets for the model as a whole: importance, attention, shapes and surfaces with names."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from attfm.errors import ConfigError
from attfm.explain.effect import joined
from attfm.explain.levels import Levels
from attfm.explain.stability import Stability
from attfm.explain.summary import Summary
from attfm.model.ensemble import jackknife_error
from attfm.model.task import LOGIT, UNCALIBRATED

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """A field's main effect, value by value.

    Attributes
    ----------
    field, kind : str, its name, and what kind of field it is
    labels : list of str (levels,), names of the values, "unknown" and "missing" first
    edges : float64 (levels − 1,) or None, of the bins of an ordered field, which are the levels from the third on
    effect : float64 (levels, outputs), mean centred main effect of the rows with that value
    rows : int64 (levels,), rows with it; a row with several members of a multi-valued field is in several levels
    spread : float64 (levels, outputs) or None, standard deviation over refits, or else the standard error of an
        ensemble; None of one model without refits
    ordered : bool, whether neighbouring levels are neighbouring values

    Examples
    --------
    >>> import pyarrow as pa
    >>> from attfm import AFMClassifier
    >>> X = pa.table({"job": ["cook", "cook", "pilot", "pilot"] * 20, "age": [25, 61] * 40})
    >>> model = AFMClassifier(epochs=20).fit(X, ["no", "yes"] * 40)
    >>> shape = model.explain_global().shape("age")
    >>> shape.labels, shape.rows[:2].tolist()
    (['unknown', 'missing', '25', '61'], [0, 0])
    >>> bool(shape.effect[2, 0] < shape.effect[3, 0])
    True
    """

    field: str
    kind: str
    labels: list[str]
    edges: Floats | None
    effect: Floats
    rows: NDArray[np.int64]
    spread: Floats | None
    ordered: bool = False

    def most_frequent(self) -> NDArray[np.int64]:
        """Return the levels that occur, int64 (n,), the most frequent first."""
        order = np.argsort(-self.rows, kind="stable")
        return order[self.rows[order] > 0]

    def shown(self, most: int) -> NDArray[np.int64]:
        """Return the `most` levels that occur most, int64 (n,), in the field's own order where it has one."""
        kept = self.most_frequent()[:most]
        return np.sort(kept) if self.ordered else kept


@dataclass(frozen=True)
class PairSurface:
    """A pair's centred effect, cell by cell of those that occur.

    Attributes
    ----------
    fields : tuple of str, the two
    labels : tuple of list of str, names of the levels of each
    first, second : int64 (cells,), level of the first and of the second field
    effect : float64 (cells, outputs)
    rows : int64 (cells,), a row with several members of a multi-valued field is in several cells

    Examples
    --------
    >>> import pyarrow as pa
    >>> from attfm import AFMClassifier
    >>> X = pa.table({"job": ["cook", "cook", "pilot", "pilot"] * 20, "age": [25, 61] * 40})
    >>> model = AFMClassifier(epochs=20).fit(X, ["no", "yes"] * 40)
    >>> surface = model.explain_global().surface("job", "age")
    >>> [(surface.labels[0][u], surface.labels[1][v]) for u, v in zip(surface.first, surface.second)]
    [('cook', '25'), ('cook', '61'), ('pilot', '25'), ('pilot', '61')]
    """

    fields: tuple[str, str]
    labels: tuple[list[str], list[str]]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    effect: Floats
    rows: NDArray[np.int64]

    @property
    def name(self) -> str:
        """What is printed for the fields: "age × job"."""
        return joined(self.fields)


@dataclass(frozen=True)
class Importance:
    """How much a field or pair moves the outputs: its mean |centred effect| over the rows, summed over outputs.

    Attributes
    ----------
    fields : tuple of str, the field, ("age",), or the two of a pair, ("age", "job")
    importance : float, in logits or in a regression target's unit
    share : float, of the sum of all importances
    spread : float or None, standard deviation over refits, or else the standard error of an ensemble
    attention, attention_spread : float or None, mean and standard deviation of a pair's a_ij over the rows

    Examples
    --------
    >>> Importance(("age", "job"), 0.05, share=0.01, attention=0.2).name
    'age × job'
    """

    fields: tuple[str, ...]
    importance: float
    share: float
    spread: float | None = None
    attention: float | None = None
    attention_spread: float | None = None

    @property
    def name(self) -> str:
        """What is printed for the fields: "age × job"."""
        return joined(self.fields)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, the name included."""
        return {"name": self.name, **vars(self), "fields": list(self.fields)}


@dataclass(frozen=True)
class GlobalExplanation:
    """The model as a whole, averaged over rows.

    Attributes
    ----------
    levels : Levels, the values of each field
    summary : Summary, the averages as arrays
    pairs, outputs, unit, conditional : as in `Explanation`

    Examples
    --------
    >>> import pyarrow as pa
    >>> from attfm import AFMClassifier
    >>> X = pa.table({"job": ["cook", "cook", "pilot", "pilot"] * 20, "age": [25, 61] * 40})
    >>> model = AFMClassifier(epochs=20).fit(X, ["no", "yes"] * 40)
    >>> overview = model.explain_global()
    >>> overview.importance()[0].name
    'age'
    >>> round(sum(effect.share for effect in overview.importance()), 6)
    1.0
    """

    levels: Levels
    pairs: NDArray[np.int64]
    outputs: tuple[str, ...]
    unit: str
    summary: Summary
    conditional: NDArray[np.bool_]

    def __repr__(self) -> str:
        return f"GlobalExplanation({self.rows:,} rows, {len(self.fields)} fields, {len(self.pairs)} pairs)"

    @property
    def in_logits(self) -> bool:
        """Whether effects are in logits, calibrated or not; else they are in the unit of a regression's target."""
        return self.unit in (LOGIT, UNCALIBRATED)

    @property
    def rows(self) -> int:
        """How many rows are averaged over."""
        return self.summary.rows

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields."""
        return self.levels.names

    @cached_property
    def pair_names(self) -> tuple[str, ...]:
        """Names of the pairs, "age × job"."""
        return tuple(joined((self.fields[i], self.fields[j])) for i, j in self.pairs)

    def with_summary(self, summary: Summary) -> Self:
        """Return the overview of other rows, with the spread over refits and members that was stored."""
        stored = self.summary
        return replace(self, summary=replace(summary, refits=stored.refits, members=stored.members))

    @property
    def spread_of(self) -> str | None:
        """What a spread is, such as "standard deviation over 5 refits"; None where there is none."""
        if len(self.summary.refits) > 1:
            return f"standard deviation over {len(self.summary.refits)} refits"
        members = len(self.summary.members)
        return f"standard error by the jackknife over {members} cross-fitted models" if members > 1 else None

    def _spread(self, name: str, part: slice = slice(None), *, summed: bool = False) -> Floats | None:
        """Return how far an array of the summary can be trusted: by the refits, or else by the members."""
        by_refits = len(self.summary.refits) > 1
        others = self.summary.refits if by_refits else self.summary.members
        if len(others) < 2:
            return None
        arrays = [getattr(other, name)[part] for other in others]
        arrays = [array.sum(1) for array in arrays] if summed else arrays
        return np.asarray(np.std(arrays, axis=0, ddof=1), np.float64) if by_refits else jackknife_error(arrays)

    def importance(self) -> list[Importance]:
        """Return fields and pairs, the most important first."""
        return sorted(self.field_importance() + self.pair_importance(), key=lambda effect: -effect.importance)

    def field_importance(self) -> list[Importance]:
        """Return the fields, the most important first."""
        return self._importances("field_importance", [(name,) for name in self.fields])

    def pair_importance(self) -> list[Importance]:
        """Return the pairs, the most important first, with their attention."""
        fields = [(self.fields[i], self.fields[j]) for i, j in self.pairs]
        attention = self.summary.attention_mean, self.summary.attention_std
        return self._importances("pair_importance", fields, *attention)

    def _importances(self, name: str, fields: Sequence[tuple[str, ...]], *attention: Floats) -> list[Importance]:
        """Return importances by their name in the summary, largest first."""
        size = getattr(self.summary, name).sum(1)
        whole = float(self.summary.field_importance.sum() + self.summary.pair_importance.sum()) or 1.0
        rest = (self._spread(name, summed=True), *attention)
        importances = [
            Importance(
                names, float(size[n]), float(size[n] / whole),
                *(None if column is None or np.isnan(column[n]) else float(column[n]) for column in rest),
            )
            for n, names in enumerate(fields)
        ]  # fmt: skip
        return sorted(importances, key=lambda effect: -effect.importance)

    def attention_matrix(self) -> Floats:
        """Return the mean attention of each pair as a symmetric matrix (fields, fields), NaN on the diagonal."""
        matrix = np.full((len(self.fields), len(self.fields)), np.nan)
        if len(self.pairs):
            i, j = self.pairs.T
            matrix[i, j] = matrix[j, i] = self.summary.attention_mean
        return matrix

    def shape(self, field: str) -> Shape:
        """Return one field's main effect, value by value; raise ConfigError where there is no such field."""
        if field not in self.fields:
            raise ConfigError(f"There is no field '{field}': it is one of {', '.join(map(repr, self.fields))}.")
        f = self.fields.index(field)
        levels, summary, kind = self.levels, self.summary, self.levels.kinds[f]
        part = slice(levels.offsets[f], levels.offsets[f] + levels.sizes[f])
        spread = self._spread("shape", part)
        edges = levels.edges(f) if kind in ("numeric", "scaled") else None
        effect, rows, ordered = summary.shape[part], summary.shape_rows[part], levels.ordered[f]
        return Shape(field, kind, levels.labels(f), edges, effect, rows, spread, ordered)

    def shapes(self) -> Iterator[Shape]:
        """Yield all fields' shapes, the most important first."""
        for effect in self.field_importance():
            yield self.shape(effect.fields[0])

    def surfaces(self) -> list[PairSurface]:
        """Return the pair surfaces at hand, the most important first."""
        size, surfaces = self.summary.pair_importance.sum(1), []
        for cells in sorted(self.summary.surfaces, key=lambda surface: -size[surface.pair]):
            i, j = self.pairs[cells.pair].tolist()
            fields, labels = (self.fields[i], self.fields[j]), (self.levels.labels(i), self.levels.labels(j))
            surfaces.append(PairSurface(fields, labels, cells.first, cells.second, cells.effect, cells.rows))
        return surfaces

    def surface(self, first: str, second: str) -> PairSurface:
        """Return one pair's surface; raise ConfigError where it is not at hand."""
        for surface in self.surfaces():
            if set(surface.fields) == {first, second}:
                return surface
        names = ", ".join(repr(surface.name) for surface in self.surfaces()) or "none"
        raise ConfigError(
            f"The surface of '{joined((first, second))}' is not at hand; it is for {names}. Ask for it by pairs=."
        )

    def stability(self) -> Stability | None:
        """Return how far refits agree, or None for fewer than two of them."""
        refits = self.summary.refits
        return Stability.between(refits, refits=len(refits)) if len(refits) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers: importance, shapes, surfaces and stability."""
        stability = self.stability()
        return {
            "rows": self.rows,
            "unit": self.unit,
            "outputs": list(self.outputs),
            "only_mean_moved": [self.pair_names[p] for p in np.flatnonzero(~self.conditional)],
            "fields": [effect.to_dict() for effect in self.field_importance()],
            "pairs": [effect.to_dict() for effect in self.pair_importance()],
            "shapes": [
                {
                    "field": shape.field, "kind": shape.kind, "values": shape.labels,
                    "edges": None if shape.edges is None else shape.edges.tolist(), "effect": shape.effect.tolist(),
                    "rows": shape.rows.tolist(), "spread": None if shape.spread is None else shape.spread.tolist(),
                }
                for shape in self.shapes()
            ],
            "surfaces": [
                {
                    "fields": list(surface.fields),
                    "cells": [
                        {"values": [surface.labels[0][u], surface.labels[1][v]], "effect": effect, "rows": rows}
                        for u, v, effect, rows in zip(
                            surface.first.tolist(), surface.second.tolist(), surface.effect.tolist(),
                            surface.rows.tolist(), strict=True,
                        )
                    ],
                }
                for surface in self.surfaces()
            ],
            "stability": None if stability is None else vars(stability),
        }  # fmt: skip

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)
