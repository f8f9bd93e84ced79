"""Which rows are trained on, which stop the training and which measure it."""

import warnings

import numpy as np
import pyarrow as pa
import pytest
from sklearn.model_selection import train_test_split

from attfm.data.folds import Grouping
from attfm.data.split import Part, hold_out, split_rows, split_table
from attfm.errors import ConfigError, DataWarning

ROWS = np.arange(1000)
CODES = np.repeat([0, 1], [900, 100])
CLASSES = ("no", "yes")


def test_a_part_is_held_out_stratified_and_the_same_for_a_seed() -> None:
    rest, held = hold_out(ROWS, CODES, classes=CLASSES, fraction=0.1, seed=0)
    assert held is not None
    assert (len(rest), len(held), CODES[held].sum()) == (900, 100, 10)
    assert np.array_equal(np.union1d(rest, held), ROWS)
    assert (np.diff(rest) > 0).all()
    assert (np.diff(held) > 0).all()
    np.testing.assert_array_equal(hold_out(ROWS, CODES, classes=CLASSES, fraction=0.1, seed=0)[0], rest)
    assert (hold_out(ROWS, CODES, classes=CLASSES, fraction=0.1, seed=1)[0] != rest).any()


def test_few_rows_are_left_whole() -> None:
    rest, held = hold_out(ROWS[:49], CODES, classes=CLASSES, fraction=0.1, seed=0)
    assert (rest.tolist(), held) == (list(range(49)), None)
    assert hold_out(ROWS[:50], CODES, classes=CLASSES, fraction=0.1, seed=0)[1] is not None


ONE_ROW = (
    r"Class 'yes' has too few rows to hold one out: its rows \(1\) are all kept in training, so it is not measured"
)


@pytest.mark.parametrize("seed", range(6))
def test_a_class_of_one_row_stays_in_training_whatever_the_seed(seed: int) -> None:
    codes = np.array([0] * 98 + [1, 0])
    for rows in (np.arange(100), np.arange(100)[::-1]):
        with pytest.warns(DataWarning, match=ONE_ROW):
            rest, part = split_rows(rows, codes, classes=CLASSES, fraction=0.2, seed=seed)
        assert (len(rest), len(part)) == (80, 20)
        assert 98 in rest
        assert np.array_equal(np.sort(np.concatenate([rest, part])), np.arange(100))
    with pytest.warns(DataWarning, match=ONE_ROW):
        rest, held = hold_out(ROWS[:100], codes, classes=CLASSES, fraction=0.1, seed=seed)
    assert held is not None
    assert (98 in rest, len(held), (np.diff(rest) > 0).all()) == (True, 10, True)
    labels = pa.chunked_array([pa.array(np.array(CLASSES)[codes])])
    with pytest.warns(DataWarning, match=ONE_ROW) as caught:
        split = split_table(labels, name="y", task="auto", valid=Part(0.4), test=Part(0.4), seed=seed)
    assert len(caught) == 1  # of both parts
    assert split.train is not None
    assert 98 in split.train


def test_the_other_classes_are_stratified_beside_a_class_of_one_row() -> None:
    codes = np.array([0] * 80 + [1] * 20 + [2])
    with pytest.warns(DataWarning, match="Class 'c' has"):
        _, part = split_rows(np.arange(101), codes, classes=("a", "b", "c"), fraction=0.2, seed=0)
    assert np.bincount(codes[part]).tolist() == [16, 4]


@pytest.mark.parametrize("seed", range(6))
def test_each_class_keeps_a_row_where_they_are_too_many_to_stratify(seed: int) -> None:
    codes = np.repeat(np.arange(40), 2)  # a part of 36 rows can't have one of each of the 40 classes
    names = tuple(f"c{code}" for code in range(40))
    with pytest.warns(DataWarning, match=r"Class(es)? 'c\d+'.* are all kept in training"):
        rest, part = split_rows(np.arange(80), codes, classes=names, fraction=0.45, seed=seed)
    assert np.array_equal(np.unique(codes[rest]), np.arange(40))
    assert np.array_equal(np.sort(np.concatenate([rest, part])), np.arange(80))
    drawn = train_test_split(np.arange(80), test_size=0.45, random_state=seed)
    assert set(part) < set(drawn[1])  # the draw is the same, but for the rows that are given back


def test_rows_that_are_all_alone_in_their_class_are_left_whole_or_can_not_be_split() -> None:
    names = tuple(f"c{code}" for code in range(60))
    rest, held = hold_out(np.arange(60), np.arange(60), classes=names, fraction=0.1, seed=0)
    assert (rest.tolist(), held) == (list(range(60)), None)
    with pytest.raises(ConfigError, match=r"60 rows can't be split with a part of 0\.2"):
        split_rows(np.arange(60), np.arange(60), classes=names, fraction=0.2, seed=0)
    with pytest.raises(ConfigError, match=r"1 rows can't be split with a part of 0\.2"):
        split_rows(ROWS[:1], CODES, classes=CLASSES, fraction=0.2, seed=0)


def test_many_such_classes_are_told_in_one_sentence() -> None:
    codes = np.concatenate([np.zeros(100, np.int64), np.arange(1, 13)])
    names = tuple(f"c{code}" for code in range(13))
    with pytest.warns(DataWarning) as caught:
        split_rows(np.arange(112), codes, classes=names, fraction=0.2, seed=0)
    (warning,) = caught
    assert str(warning.message).startswith("Classes 'c1', 'c2', ")
    assert "'c10' and 2 more have too few rows to hold one out: their rows (12) are all kept" in str(warning.message)


@pytest.mark.parametrize("stratify", [True, False])
def test_rows_are_split_as_scikit_learn_splits_them(stratify: bool) -> None:
    classes = CLASSES if stratify else None
    some = ROWS[::2]
    expected = train_test_split(some, test_size=0.3, stratify=CODES[some] if stratify else None, random_state=7)
    for part, other in zip(split_rows(some, CODES, classes=classes, fraction=0.3, seed=7), expected, strict=True):
        np.testing.assert_array_equal(part, other)


def test_a_table_gives_the_test_rows_first_and_then_the_validation_rows() -> None:
    labels = pa.chunked_array([pa.array(["no", "yes"] * 100)])
    split = split_table(labels, name="y", task="auto", valid=Part(0.4), test=Part(0.2), seed=5)
    assert split.valid is not None
    assert split.test is not None
    assert [len(part) for part in (split.train, split.valid, split.test)] == [80, 80, 40]
    assert np.array_equal(np.sort(np.concatenate([split.train, split.valid, split.test])), np.arange(200))
    for part in (split.train, split.valid, split.test):
        assert (part % 2).mean() == 0.5  # stratified
    alone = split_table(labels, name="y", task="auto", valid=Part(), test=Part(0.2), seed=5)
    assert alone.valid is None
    np.testing.assert_array_equal(alone.test, split.test)
    none = split_table(labels, name="y", task="auto", valid=Part(data="v.csv"), test=Part(), seed=5)
    assert (none.train.tolist(), none.valid, none.test) == (list(range(200)), None, None)


def test_numbers_are_split_without_strata() -> None:
    labels = pa.chunked_array([pa.array(np.linspace(0, 1, 50))])
    split = split_table(labels, name="y", task="auto", valid=Part(0.2), test=Part(), seed=0)
    rest, part = split_rows(np.arange(50), np.zeros(50), classes=None, fraction=0.2, seed=0)
    np.testing.assert_array_equal(split.train, rest)
    np.testing.assert_array_equal(split.valid, part)


def test_parts_are_parsed() -> None:
    assert Part.parse(None, "--test") == Part(0.2)
    assert Part.parse("0.25", "--test") == Part(0.25)
    assert Part.parse("none", "--test") == Part()
    assert Part.parse("test.csv", "--test") == Part(data="test.csv")
    with pytest.raises(ConfigError, match=r"--test 1 is not a fraction"):
        Part.parse("1", "--test")


def test_what_was_asked_for_is_told_without_the_folder() -> None:
    parts = (Part(0.25), Part(), Part(data="tables/clicks.csv.gz"), Part(data="s3://a/clicks/"))
    assert [part.asked for part in parts] == [0.25, None, "clicks", "clicks"]


def test_the_latest_rows_are_held_out() -> None:
    times = np.random.default_rng(0).permutation(1000)
    later = Grouping(times=times, column="date")
    rest, part = split_rows(ROWS, CODES, classes=CLASSES, fraction=0.2, seed=0, grouping=later)
    assert (len(rest), len(part)) == (800, 200)
    assert times[rest].max() < times[part].min()
    labels = pa.chunked_array([pa.array(np.array(CLASSES)[CODES])])
    split = split_table(labels, name="y", task="auto", valid=Part(0.3), test=Part(0.1), seed=5, grouping=later)
    assert split.valid is not None
    assert split.test is not None
    assert [len(part) for part in (split.train, split.valid, split.test)] == [600, 300, 100]
    assert times[split.train].max() < times[split.valid].min()
    assert times[split.valid].max() < times[split.test].min()
    assert split.grouping is later
    again = split_table(labels, name="y", task="auto", valid=Part(0.3), test=Part(0.1), seed=6, grouping=later)
    np.testing.assert_array_equal(again.test, split.test)  # nothing is left to chance
    some = np.arange(0, 1000, 3)
    rest, held = hold_out(some, CODES, classes=CLASSES, fraction=0.1, seed=0, grouping=later)
    assert held is not None
    assert times[rest].max() < times[held].min()
    assert np.array_equal(np.union1d(rest, held), some)


@pytest.mark.parametrize(
    ("counts", "sizes"),
    [([100, 700, 200], (800, 200)), ([100, 760, 140], (860, 140)), ([600, 399, 1], (600, 400)), ([1, 999], (1, 999))],
)
def test_rows_of_equal_times_stay_on_one_side(counts: list[int], sizes: tuple[int, int]) -> None:
    times = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    by = Grouping(times=times)
    rest, part = split_rows(ROWS, CODES, classes=None, fraction=0.2, seed=0, grouping=by)
    assert (len(rest), len(part)) == sizes
    assert times[rest].max() < times[part].min()


def test_one_time_or_one_group_can_not_be_split() -> None:
    said = r"Column 'date' has one time only in the 1,000 rows of which the latest 20 % are to be held out"
    with pytest.raises(ConfigError, match=said):
        split_rows(ROWS, CODES, classes=None, fraction=0.2, seed=0, grouping=Grouping(times=ROWS * 0, column="date"))
    said = r"Column 'user' has 1 groups in 1,000 rows, too few to hold out 90 % as whole groups"
    with pytest.raises(ConfigError, match=said):
        split_rows(ROWS, CODES, classes=None, fraction=0.9, seed=0, grouping=Grouping(ROWS * 0, column="user"))
    with pytest.raises(ConfigError, match=r"Column 'user' has 2 groups .* and keep each class in training"):
        split_rows(ROWS, CODES, classes=CLASSES, fraction=0.2, seed=0, grouping=Grouping(CODES, column="user"))


@pytest.mark.parametrize("seed", range(5))
def test_groups_never_straddle_and_parts_have_their_size(seed: int) -> None:
    groups = np.random.default_rng(seed).integers(0, 60, 1000) ** 2
    by = Grouping(groups, column="user")
    labels = pa.chunked_array([pa.array(np.array(CLASSES)[CODES])])
    split = split_table(labels, name="y", task="auto", valid=Part(0.2), test=Part(0.2), seed=seed, grouping=by)
    parts = [split.train, split.valid, split.test]
    assert np.array_equal(np.sort(np.concatenate(parts)), ROWS)
    assert sum(len(np.unique(groups[part])) for part in parts) == len(np.unique(groups))
    assert all(abs(len(part) - wanted) < 25 for part, wanted in zip(parts, (600, 200, 200), strict=True))
    other = split_table(labels, name="y", task="auto", valid=Part(0.2), test=Part(0.2), seed=seed + 1, grouping=by)
    assert set(other.test) != set(split.test)
    by_chance = split_table(labels, name="y", task="auto", valid=Part(0.2), test=Part(0.2), seed=seed)
    assert sum(len(np.unique(groups[part])) for part in (by_chance.train, by_chance.test)) > len(np.unique(groups))


@pytest.mark.parametrize(
    ("fraction", "sizes"), [(0.01, {100}), (0.2, {100, 300}), (0.35, {300, 400, 600}), (0.99, {900})]
)
def test_large_groups_are_taken_where_that_comes_nearer(fraction: float, sizes: set[int]) -> None:
    by, found = Grouping(np.repeat([0, 1, 2], [100, 300, 600])), set()
    for seed in range(30):
        rest, part = split_rows(ROWS, CODES, classes=None, fraction=fraction, seed=seed, grouping=by)
        assert len(rest) + len(part) == 1000
        found.add(len(part))
    assert found == sizes


def test_groups_that_hold_a_class_stay_in_training() -> None:
    groups, codes = np.repeat(np.arange(50), 20), np.zeros(1000, np.int64)
    codes[40:45] = 1  # in group 2 only
    for seed in range(12):
        rest, part = [], []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rest, part = split_rows(ROWS, codes, classes=CLASSES, fraction=0.3, seed=seed, grouping=Grouping(groups))
        assert set(range(40, 60)) <= set(rest)
        assert len(part) in (280, 300)
        assert [str(one.message)[:45] for one in caught] == ["Class 'yes' has too few rows to hold one out:"] * (
            len(part) == 280
        )
