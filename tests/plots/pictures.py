"""Whether a picture can be read, shared by the tests; who imports this is skipped where matplotlib is absent."""

from typing import Any

import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


def overlaps(texts: list[Any]) -> list[tuple[str, str]]:
    """Return the texts of one axis whose boxes lie over each other."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    return [
        (one, other)
        for place, (one, box) in enumerate(boxes)
        for other, box2 in boxes[place + 1 :]
        if box.x0 < box2.x1 - 1 and box2.x0 < box.x1 - 1 and box.y0 < box2.y1 - 1 and box2.y0 < box.y1 - 1
    ]


def assert_readable(ax: Any) -> None:
    ax.figure.canvas.draw()
    (left, right), (low, high) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    # Ticks beyond the axes are not drawn.
    across = [text for text in ax.get_xticklabels() if left <= text.get_position()[0] <= right]
    along = [text for text in ax.get_yticklabels() if low <= text.get_position()[1] <= high]
    assert overlaps(along) == []
    assert overlaps(across) == []
    edge = ax.figure.bbox
    for text in [*along, *across, ax.xaxis.label, ax.yaxis.label, ax.title]:
        box = text.get_window_extent()
        assert not text.get_text() or (box.x0 >= edge.x0 - 1 and box.y0 >= edge.y0 - 1 and box.y1 <= edge.y1 + 1)
