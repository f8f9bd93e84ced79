"""Where the rows of an ordered field lie along its axis, and whether that axis is stretched."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_NARROW, _CROWDED = 0.05, 0.6  # an axis is stretched where such a part of it holds such a share of the rows


def density(
    rows: NDArray[np.int64], edges: Floats, groups: int = 40, *, stretch: float | None = None
) -> tuple[Floats, Floats]:
    """Return the rows in so many intervals of equal width, as if they lay evenly within each bin, and their bounds.

    The rows are those of the bins, (bins,), and the edges theirs, rising, (bins + 1,). With the stretch of `stretch_of`
    the widths are equal on that axis.
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
