"""Where rows lie along an axis, and when it is stretched."""

import numpy as np
import pytest

from attfm.explain.density import density, stretch_of


def test_a_field_that_crowds_near_zero_has_a_stretched_axis() -> None:
    rng = np.random.default_rng(0)
    edges = np.unique(np.quantile(np.exp(rng.normal(3, 2, 5000)), np.linspace(0, 1, 100)))
    stretch = stretch_of(np.full(99, 50), edges)
    assert stretch is not None
    assert edges[0] < stretch < np.median(edges)
    heights, bounds = density(np.full(99, 50), edges, stretch=stretch)
    assert heights.sum() == pytest.approx(99 * 50)
    assert np.ptp(np.diff(np.arcsinh(bounds / stretch))) < 1e-9
    assert heights.max() < 0.2 * heights.sum()  # and no longer all in one bar
    assert stretch_of(np.full(99, 50), np.linspace(17, 90, 100)) is None
    assert stretch_of(np.array([1, 4900, 1]), np.array([-1000.0, 900, 930, 1000])) is None  # crowded, but not near 0
    assert stretch_of(np.array([5]), np.array([3.0, 3.0])) is None
