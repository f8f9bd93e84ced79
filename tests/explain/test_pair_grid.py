"""Pair surfaces on a grid for people."""

import numpy as np
import pytest

from attfm.explain.explainer import explain_global
from attfm.explain.global_explanation import GlobalExplanation
from attfm.explain.pair_grid import MOST_GROUPS, pair_grid
from tests.explain.account import mixed, model


@pytest.fixture(scope="module")
def overview() -> GlobalExplanation:
    return explain_global(model())


def test_a_cell_is_the_mean_of_its_rows(overview: GlobalExplanation) -> None:
    surface = overview.surface("job", "age")
    grid = pair_grid(overview, surface, 0)
    ages = mixed()["age"].to_numpy()
    jobs = np.array(mixed()["job"].to_pylist())
    assert grid.fields == ("job", "age")
    assert sorted(grid.labels[0]) == ["clerk", "cook", "pilot"]
    assert grid.counts.sum() == len(ages) == surface.rows.sum()
    for name, counts in zip(grid.labels[0], grid.counts, strict=True):
        assert counts.sum() == (jobs == name).sum()
        assert counts[0] == (np.isnan(ages) & (jobs == name)).sum()  # "missing" stands before the bins
    assert len(grid.labels[1]) == 1 + MOST_GROUPS
    assert grid.labels[1][1].split(" to ")[0] == f"{np.nanmin(ages):g}"
    np.testing.assert_allclose(
        np.nansum(grid.mean * grid.counts), (surface.effect[:, 0] * surface.rows).sum(), rtol=1e-9, atol=1e-9
    )
    assert np.array_equal(np.isnan(grid.mean), grid.counts == 0)
    assert grid.counts.max() < 10
    assert grid.limit == np.nanmax(np.abs(grid.mean))


def test_few_bins_keep_their_names(overview: GlobalExplanation) -> None:
    grid = pair_grid(overview, overview.surface("born.weekday", "langs"), 0)
    assert set(grid.labels[grid.fields.index("langs")]) == {"missing", "de", "en", "fr"}
    assert len(grid.labels[grid.fields.index("born.weekday")]) == 7
    thick = grid.counts >= 10
    assert thick.any()
    assert not thick.all()
    assert grid.limit == np.abs(grid.mean[thick]).max()  # cells of few rows don't wash out the others
