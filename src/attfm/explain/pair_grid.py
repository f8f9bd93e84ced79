"""Pair surfaces on a grid that people can read: neighbouring bins averaged, rare categories left out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attfm.data.codecs.codec import FIRST_VALUE, MISSING, UNKNOWN
from attfm.explain.global_explanation import GlobalExplanation, PairSurface

Floats = NDArray[np.float64]
FEW_ROWS = 10  # a mean of fewer rows is marked as thin
MOST_CATEGORIES, MOST_GROUPS = 20, 14


@dataclass(frozen=True)
class PairGrid:
    """A pair's mean centred effect, cell by cell.

    fields, labels : first of the rows of the grid, then of its columns
    mean, counts : float64 (rows, columns), NaN where no row of the table falls, and rows of the table in each cell
    limit : the largest |mean| of a cell that is not thin, at which colours end; above 0
    """

    fields: tuple[str, str]
    labels: tuple[list[str], list[str]]
    mean: Floats
    counts: Floats
    limit: float


def pair_grid(overview: GlobalExplanation, surface: PairSurface, output: int) -> PairGrid:
    """Return the surface of a pair and output on a grid of at most 20 × 20 categories or 14 groups of bins."""
    kinds = [overview.levels.kinds[overview.fields.index(field)] for field in surface.fields]
    in_order = [overview.levels.ordered[overview.fields.index(field)] for field in surface.fields]
    axes = [
        _axis(surface, side, binned=kind in ("numeric", "scaled"), ordered=in_order[side])
        for side, kind in enumerate(kinds)
    ]
    (rows_of, row_names), (columns_of, column_names) = axes
    u, v = rows_of[surface.first], columns_of[surface.second]
    kept = (u >= 0) & (v >= 0)
    shape = (len(row_names), len(column_names))
    cells, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(cells, (u[kept], v[kept]), (surface.effect[:, output] * surface.rows)[kept])
    np.add.at(counts, (u[kept], v[kept]), surface.rows[kept])
    mean = np.where(counts > 0, cells / np.maximum(counts, 1), np.nan)
    # A cell of one or two rows may be far out; it must not wash out the others.
    thick = np.abs(mean[counts >= FEW_ROWS])
    limit = float(thick.max() if thick.size else np.nanmax(np.abs(mean), initial=0)) or 1.0
    return PairGrid(surface.fields, (row_names, column_names), mean, counts, limit)


def _axis(surface: PairSurface, side: int, *, binned: bool, ordered: bool) -> tuple[NDArray[np.int64], list[str]]:
    """Return each level's place on an axis (−1: left out), and what the places are called."""
    labels = surface.labels[side]
    rows = np.bincount((surface.first, surface.second)[side], surface.rows, minlength=len(labels))
    place = np.full(len(labels), -1)
    if not binned or (rows[FIRST_VALUE:] > 0).sum() <= MOST_GROUPS:
        order = np.flatnonzero(rows) if binned else np.argsort(-rows, kind="stable")[: (rows > 0).sum()]
        order = np.sort(order[:MOST_CATEGORIES]) if ordered else order[:MOST_CATEGORIES]
        place[order] = np.arange(len(order))
        return place, [labels[level] for level in order]
    special = [level for level in (UNKNOWN, MISSING) if rows[level]]
    place[special] = np.arange(len(special))
    # Groups of neighbouring bins, each with about the same number of rows.
    values = rows[FIRST_VALUE:]
    group = ((np.cumsum(values) - values / 2) / values.sum() * MOST_GROUPS).astype(np.int64)
    occurs = values > 0
    present = np.unique(group[occurs])
    numbers = np.searchsorted(present, group)
    place[FIRST_VALUE:][occurs] = numbers[occurs] + len(special)
    names = []
    for number in range(len(present)):
        bins = np.flatnonzero(occurs & (numbers == number)) + FIRST_VALUE
        names.append(_span(labels[bins[0]], labels[bins[-1]]))
    return place, [labels[level] for level in special] + names


def _span(low: str, high: str) -> str:
    """Return what a run of bins is called, from the names of its first and last: "17 to 23", "[5, 8)"."""
    start = low.removeprefix("[").split(",")[0]
    end = high.removesuffix(")").split(", ")[-1]
    if low == high or low.startswith("< ") or high.startswith(">= "):
        return low if low == high else f"{low if low.startswith('< ') else start} … {end}"
    return f"{start} to {end}"
