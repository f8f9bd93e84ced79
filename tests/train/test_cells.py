"""Sums by group and fold: the statistics are those of all rows at once, and what is summed is let go with them."""

import os
import tracemalloc

import numpy as np
import pytest

from attfm.data.codecs.grouped import Grouped, Outcomes
from attfm.data.dealing import FOLDS
from attfm.train import cells as module
from attfm.train.cells import Cells
from attfm.train.streamed_statistics import pairs_at_once


def outcomes(rows: int, seed: int = 0) -> Outcomes:
    rng = np.random.default_rng(seed)
    folds = rng.integers(0, FOLDS, rows)
    return Outcomes(rng.random((rows, 1)), rng.random(rows), folds, is_rate=True)


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("pending", [1, 300, 1 << 21])
def test_blocks_of_rows_have_the_statistics_of_all_rows(
    pending: int, timed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PENDING", pending)
    groups, cells, parts = np.random.default_rng(1).integers(0, 40, 900), Cells(3), []
    for start in range(0, 900, 100):
        part = outcomes(100, seed=start)
        cells.add(groups[start : start + 100], part.folds, part.columns)
        parts.append(part)
    values, weight, folds = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("values", "weight", "folds")
    )
    whole = Outcomes(values, weight, folds, is_rate=True, ordered=timed, timed=timed)
    wanted, total = Grouped.of(groups, whole), cells.sums.sum(0)
    np.testing.assert_allclose(total, whole.columns.sum(0))
    found = cells.grouped(whole)
    np.testing.assert_array_equal(found.keys, wanted.keys)
    np.testing.assert_allclose(found.all_rows.columns, wanted.all_rows.columns)
    place = cells.find(groups, whole.folds)
    np.testing.assert_allclose(found.others.columns[place], wanted.others.columns, atol=1e-12)
    np.testing.assert_array_equal(cells.keys[place], groups * FOLDS + whole.folds)


def test_of_cells_that_are_grouped_only_the_keys_stay() -> None:
    rows = outcomes(200_000)
    columns = rows.columns
    tracemalloc.start()
    cells = Cells(3)
    cells.add(np.arange(200_000) // 2, rows.folds, columns)
    times = cells.grouped(rows).times
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert times is not None
    assert held < 1.1 * (cells.keys.nbytes + times.nbytes)


def test_many_pairs_are_summed_side_by_side_of_few_rows_and_two_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert [pairs_at_once(rows) for rows in (0, 10_000, 1_000_000, 1_000_000_000)] == [64, 64, 4, 2]
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert pairs_at_once(10_000) == 2
