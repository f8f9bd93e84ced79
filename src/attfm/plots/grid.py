"""Pair surfaces on a grid that people can read: neighbouring bins averaged, rare categories left out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attfm.data.codecs.codec import FIRST_VALUE, MISSING, UNKNOWN
from attfm.explain.global_explanation import GlobalExplanation, PairSurface

Floats = NDArray[np.float64]
FEW_ROWS = 10  # a mean of fewer rows is marked as thin
MOST_CATEGORIES, MOST_GROUPS = 20, 14
_NARROW, _CROWDED = 0.05, 0.6  # an axis is stretched where such a part of it holds such a share of the rows


@dataclass(frozen=True)
class PairGrid:
    """A pair's mean centred effect, cell by cell.

    labels : names of the rows and of the columns of the grid
    mean : float64 (rows, columns), NaN where no row of the table falls
    counts : float64 (rows, columns), rows of the table in each cell
    limit : the largest |mean| of a cell that is not thin, at which colours end; above 0
    """

    fields: tuple[str, str]
    labels: tuple[list[str], list[str]]
    mean: Floats
    counts: Floats
    limit: float


def pair_grid(overview: GlobalExplanation, surface: PairSurface, output: int) -> PairGrid:
    """Return the surface of a pair and output on a grid of at most 20 × 20 categories or 14 groups of bins."""
    kinds = {field: overview.states.kinds[overview.fields.index(field)] for field in surface.fields}
    groups = [_axis(surface, side, ordered=kinds[surface.fields[side]] in ("numeric", "scaled")) for side in (0, 1)]
    (rows_of, row_names), (columns_of, column_names) = groups
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


def density(
    rows: NDArray[np.int64], edges: Floats, groups: int = 40, *, stretch: float | None = None
) -> tuple[Floats, Floats]:
    """Return the rows in intervals of equal width, as if they lay evenly within each bin, and the intervals' bounds.

    stretch : as of `stretch_of`; the widths are then equal on that axis
    """
    ends = edges[[0, -1]] if stretch is None else np.arcsinh(edges[[0, -1]] / stretch)
    bounds = np.linspace(ends[0], ends[1], groups + 1)
    if stretch is not None:
        bounds = stretch * np.sinh(bounds)
        bounds[[0, -1]] = edges[[0, -1]]
    through = np.concatenate([[0], np.cumsum(rows)])
    return np.diff(np.interp(bounds, edges, through)), bounds


def stretch_of(rows: NDArray[np.int64], edges: Floats) -> float | None:
    """Return the width around 0 beyond which an axis should be logarithmic (x becomes arcsinh(x / width)), or None.

    That is so where nearly all rows lie in a small part of the range near 0, as of incomes: on a plain axis their curve
    would be a vertical line.
    """
    reach, sizes = float(np.abs(edges).max()), np.abs(edges[edges != 0])
    if not rows.sum() or edges[-1] <= edges[0] or not len(sizes):
        return None
    heights, bounds = density(rows, edges, round(1 / _NARROW))
    most = int(heights.argmax())
    near = min(abs(bounds[most]), abs(bounds[most + 1])) <= 2 * _NARROW * reach
    if not near or heights[most] < _CROWDED * rows.sum():
        return None
    return float(np.quantile(sizes, 0.1))


def stretched_ticks(low: float, high: float, stretch: float, *, apart: float = 0.11) -> list[float]:
    """Return ticks for a stretched axis: 0, powers of ten, and their fivefold and double, no two too close.

    apart : the least distance as a share of the axis
    """
    most = int(np.ceil(np.log10(max(abs(low), abs(high)))))
    sizes = [times * 10.0**power for times in (1, 5, 2) for power in range(most, most - 12, -1)]
    least = apart * (np.arcsinh(high / stretch) - np.arcsinh(low / stretch))
    found = list[float]()
    for tick in (0.0, *(sign * size for size in sizes for sign in (1, -1))):
        far = all(abs(np.arcsinh(tick / stretch) - np.arcsinh(other / stretch)) >= least for other in found)
        if low <= tick <= high and far:
            found.append(tick)
    return sorted(found)


def _axis(surface: PairSurface, side: int, *, ordered: bool) -> tuple[NDArray[np.int64], list[str]]:
    """Return each state's place on an axis (−1: left out), and what the places are called."""
    labels = surface.labels[side]
    rows = np.bincount((surface.first, surface.second)[side], surface.rows, minlength=len(labels))
    place = np.full(len(labels), -1)
    if not ordered or (rows[FIRST_VALUE:] > 0).sum() <= MOST_GROUPS:
        order = np.flatnonzero(rows) if ordered else np.argsort(-rows, kind="stable")[: (rows > 0).sum()]
        order = order[:MOST_CATEGORIES]
        place[order] = np.arange(len(order))
        return place, [labels[state] for state in order]
    special = [state for state in (UNKNOWN, MISSING) if rows[state]]
    place[special] = np.arange(len(special))
    # Groups of neighbouring bins, each with about the same number of rows.
    values = rows[FIRST_VALUE:]
    group = ((np.cumsum(values) - values / 2) / values.sum() * MOST_GROUPS).astype(np.int64)
    present = np.unique(group[values > 0])
    numbers = np.searchsorted(present, group)
    held = values > 0
    place[FIRST_VALUE:][held] = numbers[held] + len(special)
    names = []
    for number in range(len(present)):
        bins = np.flatnonzero(held & (numbers == number)) + FIRST_VALUE
        names.append(_span(labels[bins[0]], labels[bins[-1]]))
    return place, [labels[state] for state in special] + names


def _span(low: str, high: str) -> str:
    """Return what a run of bins is called, from the names of its first and last: "17 to 23", "[5, 8)"."""
    start = low.removeprefix("[").split(",")[0]
    end = high.removesuffix(")").split(", ")[-1]
    if low == high or low.startswith("< ") or high.startswith(">= "):
        return low if low == high else f"{low if low.startswith('< ') else start} … {end}"
    return f"{start} to {end}"
