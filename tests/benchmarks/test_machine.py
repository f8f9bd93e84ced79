"""What benchmarks say of the machine."""

import numpy as np

from benchmarks import machine


def test_the_peak_grows_with_what_is_held() -> None:
    before = machine.peak_megabytes()
    held = np.ones(50_000_000)
    assert machine.peak_megabytes() > before
    assert held[-1] == 1


def test_the_share_of_others_is_a_share() -> None:
    share = machine.Neighbours().share()
    assert share is None or 0 <= share <= 1


def test_a_commit_has_a_name() -> None:
    assert machine.commit()
