"""Folds of rows: by chance, by class, by group, and in order of time."""

import numpy as np
import pytest

from attfm.data.folds import Folds, Grouping

RNG = np.random.default_rng(5)


def sizes(folds: Folds) -> list[int]:
    return np.bincount(folds.number, minlength=folds.count).tolist()


@pytest.mark.parametrize(("rows", "folds"), [(100, 20), (103, 8), (2, 2), (3, 5)])
def test_random_folds_differ_by_a_row_at_most(rows: int, folds: int) -> None:
    found = Folds.random(rows, folds, seed=1)
    assert (len(found), found.count, found.ordered) == (rows, min(rows, folds), False)
    assert max(sizes(found)) - min(sizes(found)) <= 1
    np.testing.assert_array_equal(found.number, Folds.random(rows, folds, seed=1).number)
    if rows > 10:
        assert (found.number != Folds.random(rows, folds, seed=2).number).any()
        assert (np.diff(found.number) != 1).any()  # not in the order of the rows


def test_stratified_folds_have_their_share_of_every_class() -> None:
    codes = RNG.permutation(np.repeat([0, 1, 2], [170, 25, 3]))
    found = Folds.stratified(codes, 8, seed=0)
    assert max(sizes(found)) - min(sizes(found)) <= 1
    for code in range(3):
        of_class = np.bincount(found.number[codes == code], minlength=8)
        assert of_class.max() - of_class.min() <= 1
    by_chance = Folds.random(len(codes), 8, seed=0)
    assert np.ptp(np.bincount(by_chance.number[codes == 1], minlength=8)) > 1
    assert (found.number != Folds.stratified(codes, 8, seed=1).number).any()


def test_a_group_is_in_one_fold() -> None:
    groups = RNG.integers(0, 40, 1000) ** 2  # codes may have gaps
    found = Folds.by_group(groups, 8, seed=0)
    assert (found.count, found.ordered) == (8, False)
    assert len(np.unique(np.stack([groups, found.number]), axis=1).T) == len(np.unique(groups))
    assert max(sizes(found)) - min(sizes(found)) < 30
    assert (found.number != Folds.by_group(groups, 8, seed=1).number).any()
    assert len(np.unique(np.stack([groups, Folds.random(1000, 8, 0).number]), axis=1).T) > len(np.unique(groups))


def test_there_are_no_more_folds_than_groups_or_times() -> None:
    values = np.repeat([7, 9, 4], [50, 1, 1])
    found = Folds.by_group(values, 8, seed=0)
    assert sorted(sizes(found)) == [1, 1, 50]
    assert sizes(Folds.by_time(values, 20)) == [1, 50, 1]
    assert sizes(Folds.by_time(np.repeat([1, 2, 3, 4], [1, 1, 1, 49]), 2)) == [3, 49]
    assert Folds.by_time(np.zeros(9), 3).number.tolist() == [0] * 9
    assert Folds.by_time(np.zeros(0), 3).count == 0


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_folds_by_time_are_blocks_and_equal_times_are_in_one(dtype: type) -> None:
    times = RNG.integers(0, 60, 997).astype(dtype)
    found = Folds.by_time(times, 10)
    assert (found.count, found.ordered) == (10, True)
    for fold in range(9):
        assert times[found.number == fold].max() < times[found.number == fold + 1].min()
    assert max(sizes(found)) - min(sizes(found)) < 70
    np.testing.assert_array_equal(Folds.by_time(np.arange(100), 4).number, np.repeat(np.arange(4), 25))


def test_a_grouping_says_which_folds_its_rows_may_have() -> None:
    times, groups, codes = np.arange(100)[::-1], np.arange(100) // 10, np.arange(100) % 4
    np.testing.assert_array_equal(Grouping(times=times).folds(100, 5, 0).number, Folds.by_time(times, 5).number)
    np.testing.assert_array_equal(Grouping(groups).folds(100, 5, 3, codes).number, Folds.by_group(groups, 5, 3).number)
    np.testing.assert_array_equal(Grouping().folds(100, 5, 3).number, Folds.random(100, 5, 3).number)
    np.testing.assert_array_equal(Grouping().folds(100, 5, 3, codes).number, Folds.stratified(codes, 5, 3).number)
    some = Grouping(times=times).take(np.array([5, 2, 90]))
    assert (some.times.tolist(), some.groups, some.by_chance) == ([94, 97, 9], None, False)
    assert Grouping().take(np.array([1])).by_chance
    with pytest.raises(ValueError, match="99 rows can't be cut into folds by what is known of 100"):
        Grouping(groups).folds(99, 5, 0)
