"""Encoded rows against a naive twin: a list of rows, each a list of fields, each a list of (id, x)."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attfm.data.batch import Batch, FieldFeatures
from tests.data.encoding import assert_same_rows

Entry = tuple[int, float]
Rows = list[list[list[Entry]]]

ENTRY = st.tuples(st.integers(0, 99), st.sampled_from([1.0, 0.25, -2.0, 0.0]))


@st.composite
def naive_rows(draw: st.DrawFn, least: int = 0) -> tuple[Rows, list[bool], list[bool]]:
    """Return rows, and for each field whether it has several features a row, and whether it has values."""
    fields = draw(st.integers(1, 4))
    several = draw(st.lists(st.booleans(), min_size=fields, max_size=fields))
    valued = draw(st.lists(st.booleans(), min_size=fields, max_size=fields))
    rows: Rows = []
    for _ in range(draw(st.integers(least, 6))):
        row = []
        for f in range(fields):
            entries = draw(st.lists(ENTRY, max_size=3)) if several[f] else [draw(ENTRY)]
            row.append([(i, x if valued[f] else 1.0) for i, x in entries])
        rows.append(row)
    return rows, several, valued


def features_of(rows: Rows, f: int, several: bool, valued: bool) -> FieldFeatures:
    entries = [entry for row in rows for entry in row[f]]
    return FieldFeatures(
        np.array([i for i, _ in entries], np.int32),
        np.array([x for _, x in entries], np.float32) if valued else None,
        np.array([len(row[f]) for row in rows], np.int64) if several else None,
    )


def batch_of(rows: Rows, several: Sequence[bool], valued: Sequence[bool]) -> Batch:
    return Batch.of_fields([features_of(rows, f, s, v) for f, (s, v) in enumerate(zip(several, valued, strict=True))])


def naive(batch: Batch) -> Rows:
    """Return the rows of a batch, read entry by entry."""
    ids = batch.ids.tolist()
    values = torch.ones(batch.ids.shape).tolist() if batch.values is None else batch.values.tolist()
    if batch.offsets is None:
        return [[[(i, x)] for i, x in zip(*row, strict=True)] for row in zip(ids, values, strict=True)]
    starts = [*batch.offsets.flatten().tolist(), len(ids)]
    bags = [list(zip(ids[start:stop], values[start:stop], strict=True)) for start, stop in pairwise(starts)]
    return [bags[r * batch.fields : (r + 1) * batch.fields] for r in range(len(batch))]


@given(naive_rows())
def test_a_batch_holds_the_features_of_its_fields(drawn: tuple[Rows, list[bool], list[bool]]) -> None:
    rows, several, valued = drawn
    batch = batch_of(*drawn)
    assert naive(batch) == rows
    assert (len(batch), batch.fields) == (len(rows), len(several))
    assert (batch.offsets is None) == (not any(several))
    assert (batch.values is None) == (not any(valued))
    assert batch.ids.dtype == torch.int32
    for f in range(len(several)):
        features = batch.field(f)
        assert features.ids.tolist() == [i for row in rows for i, _ in row[f]]
        assert features.rows.tolist() == [r for r, row in enumerate(rows) for _ in row[f]]
        x = [1.0] * len(features.ids) if features.values is None else features.values.tolist()
        assert x == [x for row in rows for _, x in row[f]]
        assert (features.counts is None) == all(len(row[f]) == 1 for row in rows)


@given(naive_rows(), st.data())
def test_take_gives_the_rows_in_the_order_asked_for(
    drawn: tuple[Rows, list[bool], list[bool]], data: st.DataObject
) -> None:
    rows, several, valued = drawn
    order = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8)) if rows else []
    taken = batch_of(*drawn).take(torch.tensor(order, dtype=torch.int64))
    assert naive(taken) == [rows[r] for r in order]
    for f, (more, x) in enumerate(zip(several, valued, strict=True)):
        features = features_of(rows, f, more, x).take(np.array(order, np.int64))
        expected = features_of([rows[r] for r in order], f, more, x)
        np.testing.assert_array_equal(features.ids, expected.ids)
        np.testing.assert_array_equal(features.values, expected.values)
        np.testing.assert_array_equal(features.counts, expected.counts)


@given(naive_rows(), st.integers(0, 7), st.integers(0, 7))
def test_slice_gives_the_rows_between(drawn: tuple[Rows, list[bool], list[bool]], start: int, length: int) -> None:
    rows, several, valued = drawn
    batch = batch_of(*drawn)
    piece = batch.slice(start, start + length)
    assert naive(piece) == rows[start : start + length]
    if len(piece):
        assert piece.ids.untyped_storage().data_ptr() == batch.ids.untyped_storage().data_ptr()
    assert_same_rows(piece, batch_of(rows[start : start + length], several, valued))


@given(naive_rows(least=1), st.lists(st.integers(0, 6), max_size=3))
def test_concatenate_is_the_inverse_of_slice(drawn: tuple[Rows, list[bool], list[bool]], cuts: list[int]) -> None:
    rows, several, valued = drawn
    ends = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    batch = batch_of(*drawn)
    pieces = [batch.slice(start, stop) for start, stop in pairwise(ends)]
    assert_same_rows(Batch.concatenate(pieces), batch)
    for f, (more, x) in enumerate(zip(several, valued, strict=True)):
        parts = [features_of(rows[start:stop], f, more, x) for start, stop in pairwise(ends)]
        whole, expected = FieldFeatures.concatenate(parts), features_of(rows, f, more, x)
        np.testing.assert_array_equal(whole.ids, expected.ids)
        np.testing.assert_array_equal(whole.values, expected.values)
        np.testing.assert_array_equal(whole.counts, expected.counts)


@given(naive_rows(), naive_rows())
def test_parts_with_and_without_values_are_one_batch(
    first: tuple[Rows, list[bool], list[bool]], second: tuple[Rows, list[bool], list[bool]]
) -> None:
    """Values and counts that one part leaves out are 1: a map column may arrive as lists in another file."""
    rows, more = ([[row[0]] for row in drawn[0]] for drawn in (first, second))
    plain = [[[(i, 1.0) for i, _ in bag] for bag in row] for row in more]
    parts = [batch_of(rows, [True], [True]), batch_of(plain, [True], [False])]
    assert naive(Batch.concatenate(parts)) == rows + plain
    counted = FieldFeatures.concatenate([part.field(0) for part in parts])
    assert naive(Batch.of_fields([counted])) == rows + plain


@given(naive_rows())
def test_to_a_device_and_back_changes_nothing(drawn: tuple[Rows, list[bool], list[bool]]) -> None:
    batch = batch_of(*drawn)
    assert_same_rows(batch.to("cpu"), batch)
    assert batch.to("meta").ids.device.type == "meta"


@pytest.mark.parametrize("part", ["ids", "values", "offsets", "no values", "no offsets"])
def test_the_comparison_of_batches_notices_a_change(part: str) -> None:
    rows: Rows = [[[(5, 1.0)]], [[]], [[(6, 0.5), (7, 2.0)]]]
    whole, other = batch_of(rows, [True], [True]), batch_of(rows, [True], [True])
    assert_same_rows(whole, other)
    assert other.values is not None
    assert other.offsets is not None
    if part == "ids":
        other.ids[2] += 1
    elif part == "values":
        other.values[0] += 1
    elif part == "offsets":
        other.offsets[1] += 1
    elif part == "no values":
        other = Batch(other.ids, None, other.offsets)
    else:
        other = Batch(other.ids, other.values)
    with pytest.raises(AssertionError):
        assert_same_rows(whole, other)
