"""Which rows are trained on, which stop the training and which measure it."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.model_selection import train_test_split

from attfm.data.split import Part, hold_out, split_rows, split_table
from attfm.errors import ConfigError

ROWS = np.arange(1000)
CODES = np.repeat([0, 1], [900, 100])


def test_a_part_is_held_out_stratified_and_the_same_for_a_seed() -> None:
    rest, held = hold_out(ROWS, CODES, stratify=True, fraction=0.1, seed=0)
    assert held is not None
    assert (len(rest), len(held), CODES[held].sum()) == (900, 100, 10)
    assert np.array_equal(np.union1d(rest, held), ROWS)
    assert (np.diff(rest) > 0).all()
    assert (np.diff(held) > 0).all()
    np.testing.assert_array_equal(hold_out(ROWS, CODES, stratify=True, fraction=0.1, seed=0)[0], rest)
    assert (hold_out(ROWS, CODES, stratify=True, fraction=0.1, seed=1)[0] != rest).any()


def test_few_rows_are_left_whole() -> None:
    rest, held = hold_out(ROWS[:49], CODES, stratify=True, fraction=0.1, seed=0)
    assert (rest.tolist(), held) == (list(range(49)), None)
    assert hold_out(ROWS[:50], CODES, stratify=True, fraction=0.1, seed=0)[1] is not None


def test_a_class_of_one_row_does_not_stop_the_split() -> None:
    codes = np.array([0] * 99 + [1])
    rest, part = split_rows(ROWS[:100], codes, stratify=True, fraction=0.2, seed=0)
    assert (len(rest), len(part)) == (80, 20)
    with pytest.raises(ConfigError, match=r"1 rows can't be split with a part of 0\.2"):
        split_rows(ROWS[:1], codes[:1], stratify=True, fraction=0.2, seed=0)


@pytest.mark.parametrize("stratify", [True, False])
def test_rows_are_split_as_scikit_learn_splits_them(stratify: bool) -> None:
    some = ROWS[::2]
    expected = train_test_split(some, test_size=0.3, stratify=CODES[some] if stratify else None, random_state=7)
    for part, other in zip(split_rows(some, CODES, stratify=stratify, fraction=0.3, seed=7), expected, strict=True):
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
    rest, part = split_rows(np.arange(50), np.zeros(50), stratify=False, fraction=0.2, seed=0)
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
