"""What all pictures share."""

import builtins
from typing import Any

import numpy as np
import pytest

from attfm.errors import MissingExtraError
from attfm.plots.style import label, new_axes, stretched_ticks


def test_labels_are_one_short_line_and_no_formula() -> None:
    assert label("a" * 50 + "end", 20) == "a" * 13 + "…" + "aaaend"
    assert label("$x$\n<b>") == r"\$x\$·<b>"
    assert label("short") == "short"


def test_without_matplotlib_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"matplotlib is not installed: run 'pip install \"attfm\[plots\]\"'"):
        new_axes(None, width=3, height=2)


def test_ticks_of_a_stretched_axis_keep_their_distance() -> None:
    assert stretched_ticks(0, 1000, 1.0) == [0, 1, 10, 100, 1000]
    ticks = stretched_ticks(-100, 100, 1.0, apart=0.2)
    assert ticks == [-100, -10, 0, 10, 100]
    assert np.diff(np.arcsinh(ticks)).min() >= 0.2 * np.ptp(np.arcsinh([-100, 100]))
