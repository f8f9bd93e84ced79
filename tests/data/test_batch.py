import dataclasses

import numpy as np
import pytest

from attfm.data.batch import Bag, EncodedBatch
from tests.data.encoding import assert_same_rows


def bag_of(*rows: list[tuple[int, float]]) -> Bag:
    entries = [entry for row in rows for entry in row]
    return Bag(
        np.array([i for i, _ in entries], np.int32),
        np.array([w for _, w in entries], np.float32),
        np.cumsum([0] + [len(row) for row in rows]).astype(np.int64),
    )


def batch_of(*rows: list[tuple[int, float]], first: int = 0) -> EncodedBatch:
    ids = np.arange(first, first + 2 * len(rows), dtype=np.int32).reshape(-1, 2)
    return EncodedBatch(ids, ids.astype(np.float32) / 4, {1: bag_of(*rows)})


ROWS = [[(5, 1.0)], [], [(6, 0.5), (7, 2.0)], [(5, 3.0)]]


def test_take_gives_the_rows_in_the_order_asked_for() -> None:
    taken = batch_of(*ROWS).take(np.array([2, 0, 2, 1]))
    assert_same_rows(taken, dataclasses.replace(taken, bags={1: bag_of(ROWS[2], ROWS[0], ROWS[2], ROWS[1])}))
    assert taken.ids.tolist() == [[4, 5], [0, 1], [4, 5], [2, 3]]
    assert taken.values is not None
    assert taken.values[0].tolist() == [1.0, 1.25]


def test_take_of_no_rows_is_empty() -> None:
    taken = batch_of(*ROWS).take(np.array([], np.int64))
    assert len(taken) == 0
    assert taken.bags[1].offsets.tolist() == [0]


def test_concatenate_is_the_inverse_of_take() -> None:
    whole = batch_of(*ROWS)
    parts = [whole.take(np.array(rows)) for rows in ([0], [1, 2], [3])]
    assert_same_rows(EncodedBatch.concatenate(parts), whole)
    assert EncodedBatch.concatenate([EncodedBatch(whole.ids), EncodedBatch(whole.ids)]).values is None


def test_with_empty_row_leaves_the_others_alone() -> None:
    bag = bag_of(*ROWS).with_empty_row()
    assert bag.offsets.tolist() == [0, 1, 1, 3, 4, 4]
    assert bag.take(np.array([4, 3])).ids.tolist() == [5]


@pytest.mark.parametrize("part", ["ids", "values", "bag ids", "bag weights", "bag offsets", "bags"])
def test_the_comparison_of_batches_notices_a_change(part: str) -> None:
    whole, other = batch_of(*ROWS), batch_of(*ROWS)
    bag = other.bags[1]
    if part == "ids":
        other.ids[3, 1] += 1
    elif part == "values":
        other = dataclasses.replace(other, values=None)
    elif part == "bag ids":
        bag.ids[0] += 1
    elif part == "bag weights":
        bag.weights[0] += 1
    elif part == "bag offsets":
        bag.offsets[1] += 1
    else:
        other = dataclasses.replace(other, bags={})
    with pytest.raises(AssertionError):
        assert_same_rows(whole, other)
