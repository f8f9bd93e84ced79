"""What all pictures share: matplotlib when it is needed, colours that everybody can tell apart, labels that fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from attfm.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

# Okabe & Ito's colours, which people with any colour vision can tell apart.
NEGATIVE, POSITIVE, NEUTRAL, ACCENT, GRID = "#0072B2", "#D55E00", "#7F7F7F", "#009E73", "#DDDDDD"


def new_axes(ax: Axes | None, *, width: float, height: float) -> Axes:
    """Return the axes given, or those of a new figure of that size in inches."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise MissingExtraError("matplotlib is not installed: run 'pip install \"attfm[plots]\"'.") from None
    return plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax


def label(text: str, longest: int = 34) -> str:
    """Return text as it may stand in a picture: not too long, one line, and no formula."""
    return shortened(text, longest).replace("$", r"\$")


def shortened(text: str, longest: int) -> str:
    """Return text on one line without control characters, the middle of a long one left out."""
    flat = "".join(c if c.isprintable() else "·" for c in text)
    # Names that share a long beginning differ at their end, so the middle goes.
    tail = longest // 3
    return flat if len(flat) <= longest else f"{flat[: longest - tail - 1]}…{flat[-tail:]}"


def finished(ax: Axes, title: str = "", *, grid: str = "x") -> Axes:
    """Return the axes with a title, without the frame's upper and right lines, and with a faint grid."""
    if title:
        ax.set_title(title, fontsize=9, loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    ax.grid(axis=grid, color=GRID, linewidth=0.7)  # type: ignore[arg-type]
    return ax


def diverging() -> Colormap:
    """Return the colours from negative over white to positive; cells without rows are light grey."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("attfm", [NEGATIVE, "#FFFFFF", POSITIVE]).with_extremes(bad="#EEEEEE")


def sequential() -> Colormap:
    """Return the colours from none to much; cells without a value are light grey."""
    import matplotlib

    return matplotlib.colormaps["cividis"].with_extremes(bad="#EEEEEE")


def tick_size(ax: Axes, count: int, *, across: bool = False) -> float:
    """Return the font size of `count` tick labels, one to a line, that fit on the axes (or across them)."""
    box = ax.get_position()
    figure = ax.get_figure(root=True)
    if figure is None:
        return 9.0
    inches = figure.get_figwidth() * box.width if across else figure.get_figheight() * box.height
    return float(np.clip(72 * inches / max(count, 1) / 1.3, 4, 9))


def limits_around(ax: Axes, low: float, high: float, share: float = 0.2) -> None:
    """Set the x limits with room for texts beside the bars."""
    room = share * (high - low) or 1.0
    ax.set_xlim(low - room, high + room)


def stretched_ticks(low: float, high: float, stretch: float, *, apart: float = 0.11) -> list[float]:
    """Return ticks from low to high for an axis stretched as by `attfm.explain.density.stretch_of`.

    They are 0, powers of ten, and their fivefold and double, no two nearer than the share `apart` of the axis.
    """
    most = int(np.ceil(np.log10(max(abs(low), abs(high)))))
    sizes = [times * 10.0**power for times in (1, 5, 2) for power in range(most, most - 12, -1)]
    least = apart * (np.arcsinh(high / stretch) - np.arcsinh(low / stretch))
    ticks = list[float]()
    for tick in (0.0, *(sign * size for size in sizes for sign in (1, -1))):
        far = all(abs(np.arcsinh(tick / stretch) - np.arcsinh(other / stretch)) >= least for other in ticks)
        if low <= tick <= high and far:
            ticks.append(tick)
    return sorted(ticks)
