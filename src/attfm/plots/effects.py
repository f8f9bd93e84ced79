"""Pictures of what the rest of this package computes; each takes `ax=` and works without a display."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from attfm.data.codecs.codec import FIRST_VALUE, MISSING, UNKNOWN
from attfm.errors import ConfigError
from attfm.explain.density import density, stretch_of
from attfm.explain.explanation import Explanation, output_number
from attfm.explain.global_explanation import GlobalExplanation, Shape
from attfm.explain.pair_grid import FEW_ROWS, MOST_CATEGORIES, pair_grid
from attfm.model.task import LOGIT
from attfm.plots.curves import learning_curve, precision_recall, reliability, roc
from attfm.plots.style import (
    ACCENT,
    NEGATIVE,
    NEUTRAL,
    POSITIVE,
    diverging,
    finished,
    label,
    limits_around,
    new_axes,
    sequential,
    stretched_ticks,
    tick_size,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "attention_matrix", "importance", "learning_curve", "pair_map", "precision_recall", "reliability", "roc", "shape",
    "waterfall",
]  # fmt: skip


def waterfall(
    explanation: Explanation, row: int = 0, *, output: str | int | None = None, n: int = 12, ax: Axes | None = None
) -> Axes:
    """Draw one row's account from the base value to its logit, the n largest effects first, the others summed."""
    account = explanation[row]
    number = output_number(account.outputs, output)
    effects = account.top(n, output=number)[0]
    base, total = float(account.base[number]), float(account.logits[0, number])
    names = [f"{_short(effect.fields)} = {_short(effect.values)}" for effect in effects]
    sizes = [effect.effect for effect in effects]
    others = len(account.names) - len(effects)
    if others:
        names.append(f"{others:,} others")
        sizes.append(total - base - sum(sizes))
    longest = max(len(name) for name in names) if names else 0
    ax = new_axes(ax, width=5 + 0.07 * max(longest, 21), height=1.7 + 0.34 * (len(sizes) + 2))
    ends = base + np.cumsum([0.0, *sizes])
    positions = np.arange(1, len(sizes) + 1)
    colours = [NEGATIVE if size < 0 else POSITIVE for size in sizes]
    ax.barh(positions, sizes, left=ends[:-1], color=colours, height=0.68)
    ax.vlines(ends, np.arange(len(ends)) - 0.34, np.arange(len(ends)) + 1.34, color=NEUTRAL, linewidth=0.8)
    ax.plot([base], [0], "o", color=NEUTRAL, markersize=6)
    ax.plot([total], [len(sizes) + 1], "D", color="black", markersize=6)
    limits_around(ax, float(ends.min()), float(ends.max()))
    room = 0.012 * np.ptp(ax.get_xlim())
    for position, size, end in zip(positions.tolist(), sizes, ends[1:].tolist(), strict=True):
        side, effect = "right" if size < 0 else "left", effects[position - 1] if position <= len(effects) else None
        told = _signed(size)
        if effect is not None and effect.spread is not None:
            told += f" ± {_amount(effect.spread)}"
        if effect is not None and effect.memory:
            told += f" ({_signed(effect.memory)} remembered)"
        ax.text(end + (-room if size < 0 else room), position, told, va="center", ha=side, fontsize=8.5)
    for x, position in ((base, 0), (total, len(sizes) + 1)):
        ax.text(x + 1.6 * room, position, _amount(x), va="center", ha="left", fontsize=8.5)
    start = "mean of training rows" if account.view == "centred" else "intercept"
    unit = label(account.unit)
    ax.set_yticks(np.arange(len(sizes) + 2), [start, *names, f"{unit} of this row" if account.in_logits else unit])
    ax.tick_params(axis="y", length=0, labelsize=tick_size(ax, len(sizes) + 2))
    ax.set_ylim(len(sizes) + 1.6, -0.6)
    ax.set_xlabel(f"{unit} of {label(account.outputs[number])}" if account.in_logits else unit)
    title = f"row {account.rows[0]:,}: {unit} {_amount(total)}"
    if account.unit == LOGIT and len(account.outputs) == 1:
        title += f", probability of {label(account.outputs[0], 20)} {1 / (1 + np.exp(-total)):.3f}"
    ax.locator_params(axis="x", nbins=5)
    return finished(ax, title)


def importance(
    overview: GlobalExplanation, *, kind: Literal["all", "fields", "pairs"] = "all", n: int = 20, ax: Axes | None = None
) -> Axes:
    """Draw the n most important fields or pairs as bars, with their spread over refits or models where it is known."""
    importances = {
        "all": overview.importance, "fields": overview.field_importance, "pairs": overview.pair_importance
    }[kind]()[:n]  # fmt: skip
    ax = new_axes(ax, width=7.5, height=1.2 + 0.27 * max(len(importances), 2))
    spread = [effect.spread or 0.0 for effect in importances]
    colours = [ACCENT if len(effect.fields) > 1 else NEGATIVE for effect in importances]
    names, sizes = [_short(effect.fields) for effect in importances], [effect.importance for effect in importances]
    _named_bars(ax, names, sizes, colours, spread if any(spread) else None)
    ax.set_xlim(left=0)
    unit = f"{overview.unit}s" if overview.in_logits else label(overview.unit)
    ax.set_xlabel(f"mean |effect| over {overview.rows:,} rows, {unit}")
    if kind == "all" and {ACCENT, NEGATIVE} <= set(colours):
        from matplotlib.patches import Patch

        ax.legend([Patch(color=NEGATIVE), Patch(color=ACCENT)], ["field", "pair"], frameon=False, loc="lower right")
    return finished(ax, f"whiskers: {overview.spread_of}" if any(spread) else "")


def shape(overview: GlobalExplanation, field: str, *, output: str | int | None = None, ax: Axes | None = None) -> Axes:
    """Draw a field's main effect: a curve with the density of the rows below it, or bars for categories.

    The bars are sorted by rows, or stand in the order of the categories where they have one, at most 20 of them. The
    effect of missing values is a dotted line across a curve.
    The axis of a field whose rows crowd near 0, such as an income, is logarithmic away from 0.
    """
    field_shape = overview.shape(field)
    draw = _bars if field_shape.edges is None else _curve
    return draw(field_shape, output_number(overview.outputs, output), overview, ax)


def _curve(shape: Shape, number: int, overview: GlobalExplanation, ax: Axes | None) -> Axes:
    ax = new_axes(ax, width=7, height=4.4)
    edges = np.empty(0) if shape.edges is None else shape.edges
    effect, rows = shape.effect[FIRST_VALUE:, number], shape.rows[FIRST_VALUE:]
    seen = np.where(rows > 0, effect, np.nan)
    if len(edges) == len(effect) + 1 and len(effect):
        ax.stairs(seen, edges, baseline=None, color=NEGATIVE, linewidth=1.8)
        if shape.spread is not None:
            spread = shape.spread[FIRST_VALUE:, number]
            ax.stairs(seen + 2 * spread, edges, baseline=seen - 2 * spread, fill=True, color=NEGATIVE, alpha=0.2)
    notes = []
    for level, name in ((MISSING, "missing"), (UNKNOWN, "unknown")):
        if shape.rows[level]:
            ax.axhline(shape.effect[level, number], color=POSITIVE, linestyle=":", linewidth=1.6)
            notes.append(f"{name}: {shape.effect[level, number]:+.3f}, {shape.rows[level]:,} rows")
    ax.axhline(0, color=NEUTRAL, linewidth=0.8)
    below = ax.inset_axes((0, -0.27, 1, 0.23), sharex=ax)
    if len(edges) == len(rows) + 1 and len(rows):
        stretch = stretch_of(rows, edges)
        heights, bounds = density(rows, edges, stretch=stretch)
        if stretch is not None:
            ax.set_xscale("asinh", linear_width=stretch)
            below.set_xscale("asinh", linear_width=stretch)
            ticks = stretched_ticks(edges[0], edges[-1], stretch)
            below.set_xticks(ticks, [f"{tick:,.10g}" for tick in ticks], minor=False)
            below.set_xticks([], minor=True)
        below.stairs(heights, bounds, fill=True, color=NEUTRAL, alpha=0.55)
    below.set_yticks([])
    below.set_ylabel("rows", fontsize=8)
    scale = "" if ax.get_xscale() == "linear" else " (logarithmic away from 0)"
    below.set_xlabel(label(shape.field) + scale)
    below.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="x", labelbottom=False)
    ax.set_ylabel(_effect_label(overview, number))
    title = f"{label(shape.field)}, {int(rows.sum()):,} rows" + (f"; dotted: {'; '.join(notes)}" if notes else "")
    return finished(ax, title, grid="y")


def _bars(shape: Shape, number: int, overview: GlobalExplanation, ax: Axes | None) -> Axes:
    order = shape.shown(MOST_CATEGORIES)
    left_out = len(shape.most_frequent()) - len(order)
    ax = new_axes(ax, width=7, height=1.3 + 0.27 * max(len(order), 2))
    sizes, rows = shape.effect[order, number], shape.rows[order]
    spread = None if shape.spread is None else 2 * shape.spread[order, number]
    colours = [NEGATIVE if size < 0 else POSITIVE for size in sizes]
    names = [f"{label(shape.labels[level], 26)}  ({count:,})" for level, count in zip(order, rows, strict=True)]
    _named_bars(ax, names, sizes, colours, spread)
    ax.axvline(0, color=NEUTRAL, linewidth=0.8)
    ax.set_xlabel(_effect_label(overview, number))
    more = f"; {left_out:,} rarer values not shown" if left_out else ""
    return finished(ax, f"{label(shape.field)} (rows){more}")


def _named_bars(ax: Axes, names: Sequence[str], sizes: ArrayLike, colours: Sequence[str], spread: Any) -> None:
    """Draw bars from top to bottom with their names, and whiskers where there is a spread."""
    places, style = np.arange(len(names)), {"ecolor": "black", "elinewidth": 1, "capsize": 2}
    ax.barh(places, sizes, xerr=spread, color=colours, error_kw=style, height=0.72)
    ax.set_yticks(places, names)
    ax.tick_params(axis="y", length=0, labelsize=tick_size(ax, len(names)))
    ax.set_ylim(len(names) - 0.4, -0.6)


def pair_map(
    overview: GlobalExplanation, first: str, second: str, *, output: str | int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw a pair's centred effect as a heat map; neighbouring bins are averaged, and rare categories are left out.

    Grey cells have no rows, dots mark cells with fewer than 10.
    """
    ax = new_axes(ax, width=7.8, height=6)
    surface = overview.surface(first, second)
    number = output_number(overview.outputs, output)
    grid = pair_grid(overview, surface, number)
    image = ax.imshow(grid.mean, cmap=diverging(), vmin=-grid.limit, vmax=grid.limit, aspect="auto")
    thin = np.argwhere((grid.counts > 0) & (grid.counts < FEW_ROWS))
    ax.plot(thin[:, 1], thin[:, 0], ".", color=NEUTRAL, markersize=3)
    _named_cells(ax, *([label(name, 18) for name in names] for names in grid.labels))
    ax.set(ylabel=label(surface.fields[0]), xlabel=label(surface.fields[1]))
    ax.figure.colorbar(image, ax=ax, shrink=0.8).set_label(_effect_label(overview, number))
    ax.set_title(f"{_short(surface.fields)}; dots: fewer than {FEW_ROWS} rows, grey: none", fontsize=9, loc="left")
    return ax


def attention_matrix(overview: GlobalExplanation, *, ax: Axes | None = None) -> Axes:
    """Draw the mean attention of each pair, in multiples of equal attention, as a matrix field by field."""
    matrix = overview.attention_matrix()
    fields = len(overview.fields)
    if np.isnan(matrix).all():
        raise ConfigError("This model has no attention, so there is no matrix of it: the preset is without it.")
    size = float(np.clip(2.5 + 0.28 * fields, 4.5, 13))
    ax = new_axes(ax, width=size + 1.2, height=size)
    image = ax.imshow(matrix * len(overview.pairs), cmap=sequential())
    names = [label(name, 22) for name in overview.fields]
    _named_cells(ax, names, names)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.75)
    bar.set_label("mean attention, 1 = equal attention to all pairs")
    ax.set_title(f"attention, mean of {overview.rows:,} rows (no sign, no size)", fontsize=9, loc="left")
    return ax


def _named_cells(ax: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Name the rows and columns of a matrix that is drawn."""
    ax.set_yticks(np.arange(len(rows)), rows, fontsize=tick_size(ax, len(rows)))
    size = tick_size(ax, len(columns), across=True)
    ax.set_xticks(np.arange(len(columns)), columns, rotation=90, fontsize=size)


def _effect_label(overview: GlobalExplanation, number: int) -> str:
    if overview.in_logits:
        return f"effect on the {overview.unit} of {label(overview.outputs[number], 20)}"
    return f"effect on {label(overview.unit, 24)}"


def _short(texts: Sequence[str]) -> str:
    """Return the name or value of a field, or of the two of a pair, as it may stand beside a bar."""
    return " × ".join(label(text, 20) for text in texts) if len(texts) > 1 else label(texts[0], 26)


def _signed(size: float) -> str:
    return f"{size:+.3f}" if abs(size) < 1000 else f"{size:+,.0f}"


def _amount(x: float) -> str:
    return f"{x:.3g}" if abs(x) < 1000 else f"{x:,.0f}"
