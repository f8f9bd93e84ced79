"""Which rows a report looks at, and which it shows."""

import numpy as np
import pyarrow as pa
import pytest

from attfm import AFMClassifier
from attfm.report.rows_shown import RANDOM, RIGHT, WRONG, Examined, shown_rows
from tests.report.pages import table


def test_a_hundred_rows_are_chosen_right_wrong_and_random(model: AFMClassifier, examined: Examined) -> None:
    groups = shown_rows(model.model_, examined)
    assert list(groups) == [RIGHT, WRONG, RANDOM]
    places = [place for group in groups.values() for place in group]
    assert len(places) == len(set(places)) == 100
    right = model.model_.decide(examined.logits) == examined.target
    assert right[groups[RIGHT]].all()
    assert not right[groups[WRONG]].any()
    certainty = np.abs(examined.logits[:, 0])
    assert certainty[groups[RIGHT]].min() >= np.sort(certainty[right])[-33]
    assert np.all(np.diff(certainty[groups[WRONG]]) <= 0)


def test_few_rows_are_all_shown(model: AFMClassifier) -> None:
    X, y = table(20, seed=2)
    few = Examined.of_table(model.model_, model._source(X), model.model_.target.encode(pa.array(y)))
    groups = shown_rows(model.model_, few)
    assert sorted(place for group in groups.values() for place in group) == list(range(20))


def test_a_large_table_is_sampled_evenly(model: AFMClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attfm.report.rows_shown.MOST_ROWS", 100)
    X, y = table(1000, seed=4)
    codes = model.model_.target.encode(pa.array(y))
    some = Examined.of_table(model.model_, model._source(X), codes)
    assert some.total == 1000
    assert 50 < len(some) <= 100
    assert some.numbers.max() > 800
    assert some.numbers.min() < 200
    assert some.target is not None
    assert np.array_equal(some.target, codes[some.numbers])
