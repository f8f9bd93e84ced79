"""Knots: which bins are learned by themselves, and what those between them say while a model learns and after."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from attfm import AFMClassifier, AFMRegressor
from attfm.config import ModelConfig
from attfm.data.batch import Batch
from attfm.data.codecs.codec import FIRST_VALUE, Field
from attfm.data.codecs.rates import Composition
from attfm.model.knots import Knots, knots_of_rows
from attfm.train.statistical_machine import StatisticalMachine

BINS = 40
FIELDS = (
    Field("age", "age", "numeric", BINS + FIRST_VALUE, ordered=True),
    Field("job", "job", "categorical", 30, start=BINS + FIRST_VALUE),
    Field("grade", "grade", "categorical", 5 + FIRST_VALUE, ordered=True, start=BINS + FIRST_VALUE + 30),
)
FEATURES = FIELDS[-1].stop


def rows_of(counts: Any) -> dict[int, np.ndarray[Any, Any]]:
    """Return how many rows each feature of the ordered fields has: so many each bin of the first field."""
    return {0: np.concatenate([[0, 0], np.broadcast_to(counts, BINS)]), 2: np.array([0, 0, 0, 0, 0, 1, 0])}


def knots(counts: Any = 10, *, edges: Any = None, most: int = 9) -> Knots:
    return Knots.of(FIELDS, rows_of(counts), [edges, None, None], most=most)


def test_knots_share_the_rows_and_bins_between_them_are_on_the_line() -> None:
    found = knots()
    own = np.flatnonzero((found.left == np.arange(FEATURES)) & (found.share == 0))
    bins = own[(own >= FIRST_VALUE) & (own < FIELDS[0].stop)] - FIRST_VALUE
    assert bins[0] == 0
    assert bins[-1] == BINS - 1
    assert len(bins) == 10  # nine shares begin with one, and the last bin is one
    assert np.diff(bins).max() <= 6
    position = (1 - found.share) * found.left + found.share * found.right
    np.testing.assert_allclose(position, np.arange(FEATURES), rtol=1e-6)  # as far apart as numbers


def test_distances_are_those_of_the_values() -> None:
    edges = np.cumsum(np.concatenate([[0.0], np.linspace(1, 5, BINS)]))
    found, centre = knots(edges=edges), 0.5 * edges[:-1] + 0.5 * edges[1:]
    bins = slice(FIRST_VALUE, FIELDS[0].stop)
    left, right = centre[found.left[bins] - FIRST_VALUE], centre[found.right[bins] - FIRST_VALUE]
    np.testing.assert_allclose((1 - found.share[bins]) * left + found.share[bins] * right, centre, rtol=1e-6)


def test_a_value_of_many_rows_says_nothing_of_its_neighbours() -> None:
    counts = np.full(BINS, 10)
    counts[17] = 400
    found = knots(counts)
    for bin_ in (16, 17, 18):
        assert found.left[FIRST_VALUE + bin_] == found.right[FIRST_VALUE + bin_] == FIRST_VALUE + bin_
    reads = {f for f in range(FEATURES) if FIRST_VALUE + 17 in (found.left[f], found.right[f])}
    assert reads == {FIRST_VALUE + 17}


def test_bins_without_rows_say_what_their_neighbours_do() -> None:
    counts = np.full(BINS, 10)
    counts[[0, 1, 20, 38, 39]] = 0
    found = knots(counts)
    assert (found.left[FIRST_VALUE : FIRST_VALUE + 2] == FIRST_VALUE + 2).all()
    assert (found.left[FIRST_VALUE + 38 : FIRST_VALUE + 40] == FIRST_VALUE + 37).all()
    assert not found.share[[FIRST_VALUE, FIRST_VALUE + 1, FIRST_VALUE + 38, FIRST_VALUE + 39]].any()
    assert 0 < found.share[FIRST_VALUE + 20] < 1 or found.left[FIRST_VALUE + 20] != FIRST_VALUE + 20


def test_unknown_missing_and_other_fields_have_rows_of_their_own() -> None:
    found = knots()
    others = [0, 1, *range(FIELDS[0].stop, FEATURES)]
    assert (found.left[others] == others).all()
    assert (found.right[others] == others).all()
    # Neighbours: the knots of the first field, and all bins of the short one.
    assert found.neighbours.shape == (2, 9 + 4)
    assert found.neighbours[:, -4:].tolist() == [[74, 75, 76, 77], [75, 76, 77, 78]]


def test_a_short_field_and_one_without_rows_have_no_knots() -> None:
    assert not knots(most=BINS).interpolates
    assert not knots(0).interpolates
    assert knots().interpolates


@pytest.mark.parametrize(("rows", "most"), [(10, 16), (900, 30), (40_000, 200), (10**9, 255)])
def test_more_rows_are_good_for_more_knots(rows: int, most: int) -> None:
    assert knots_of_rows(rows) == most


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("bag", [False, True])
def test_the_machine_reads_the_line_and_keeps_it(sparse: bool, bag: bool) -> None:
    torch.manual_seed(0)
    none = np.empty((0, 3), np.int64)
    composition = Composition(FEATURES, FEATURES, none, none, np.empty(0, np.int64))
    machine = StatisticalMachine(composition, knots(), None, 3, 1, ModelConfig.parse({"dim": 4, "embedding_std": 0.5}))
    machine.double()
    with torch.no_grad():
        machine.linear.weight.normal_()
    machine.sparse_gradients(sparse)
    ids = torch.stack([torch.arange(2, 40), torch.arange(38) % 30 + 42, torch.arange(38) % 7 + 72], 1).int()
    batch = Batch(ids)
    if bag:
        batch = Batch(ids.flatten(), None, torch.arange(ids.numel()).view(ids.shape))
    machine.eval()
    found = knots()
    expected = machine.linear.weight.detach().clone()
    line = (1 - torch.from_numpy(found.share))[:, None].double() * expected[found.left]
    line = line + torch.from_numpy(found.share)[:, None].double() * expected[found.right]
    folded = machine.folded().eval()
    torch.testing.assert_close(folded.linear.weight.detach(), line)
    logits = machine(batch)
    torch.testing.assert_close(logits, folded(batch), atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(logits, machine.predict(batch), atol=1e-6, rtol=1e-6)
    # What is learned is the knots alone: other bins get no gradient, and the sum of a knot's shares goes to it.
    logits.sum().backward()
    gradient = machine.linear.weight.grad
    assert gradient is not None
    reads = torch.zeros(FEATURES, dtype=torch.float64)
    for f in ids.flatten().tolist():
        reads[found.left[f]] += 1 - found.share[f]
        reads[found.right[f]] += found.share[f]
    torch.testing.assert_close(gradient.to_dense()[:, 0], reads, atol=1e-6, rtol=1e-6)
    assert set(machine.features_of(batch).tolist()) >= set(reads.nonzero()[:, 0].tolist())


def test_a_regression_has_finer_bins_where_nobody_chose_them() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=3000), "z": rng.normal(size=3000)})
    y, quick = frame.x.to_numpy(), {"epochs": 1, "n_models": 1, "knots": 16, "weight_dropout": 0.0, "smoothness": 9.0}

    def bins(estimator: AFMClassifier | AFMRegressor, target: Any) -> list[int | None]:
        return [column.max_bins for column in estimator.fit(frame, target).model_.schema.inputs]

    assert bins(AFMRegressor(**quick), y) == [1023, 1023]
    assert bins(AFMRegressor(**quick, columns={"z": {"max_bins": 255}}), y) == [1023, 255]
    assert bins(AFMRegressor(**quick, max_bins=300), y) == [300, 300]
    assert bins(AFMClassifier(**quick), y > 0) == [255, 255]
