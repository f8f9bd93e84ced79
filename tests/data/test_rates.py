"""Rates and counts of ids, and statistics of pairs of ids: against plain loops, and blind to a row's own target."""

import numpy as np
import pytest

from attfm.data.codecs.codec import Field
from attfm.data.codecs.grouped import Earlier, Grouped, Outcomes
from attfm.data.codecs.pairs import PairLevels, PairStatistics, SingleRates
from attfm.data.codecs.rates import Composition, FieldRates, StatisticBins

ROWS = 300


def outcomes(*, ordered: bool = False, outputs: int = 1, rows: int = ROWS) -> Outcomes:
    rng = np.random.default_rng(3)
    values = (rng.random((rows, outputs)) < 0.3).astype(np.float64)
    return Outcomes(values, rng.uniform(0.5, 2, rows), rng.integers(0, 5, rows), True, ordered)


def changed(of: Outcomes, row: int) -> Outcomes:
    values = of.values.copy()
    values[row] = 1 - values[row]
    return Outcomes(values, of.weight, of.folds, of.is_rate, of.ordered)


@pytest.mark.parametrize("ordered", [False, True])
def test_a_row_gets_the_sums_of_the_other_folds(ordered: bool) -> None:
    of, keys = outcomes(ordered=ordered, outputs=2), np.random.default_rng(0).integers(0, 40, ROWS) * 10**15
    grouped = Grouped.of(keys, of)
    for row in range(0, ROWS, 7):
        other = of.folds < of.folds[row] if ordered else of.folds != of.folds[row]
        there = (keys == keys[row]) & other
        assert grouped.others.rows[row] == there.sum()
        np.testing.assert_allclose(grouped.others.weight[row], of.weight[there].sum(), atol=1e-12)
        np.testing.assert_allclose(grouped.others.sums[row], of.weight[there] @ of.values[there], atol=1e-12)
        every = keys == keys[row]
        np.testing.assert_allclose(
            grouped.all_rows.sums[grouped.find(keys[[row]])[0]], of.weight[every] @ of.values[every]
        )
    assert grouped.find(np.array([-5, 10**18])).tolist() == [-1, -1]


@pytest.mark.parametrize("ordered", [False, True])
def test_a_rows_own_target_changes_its_own_statistics_by_nothing(ordered: bool) -> None:
    of, rng = outcomes(ordered=ordered), np.random.default_rng(1)
    own, other = rng.integers(0, 12, ROWS), rng.integers(0, 9, ROWS)
    field = [Field("a", "a", "categorical", 14), Field("b", "b", "categorical", 11, start=14)]
    levels = PairLevels.of(field, {})
    keys, seen = levels.keys(np.array([[0, 1]])), 0
    for row in range(0, ROWS, 11):
        statistics = []
        for version in (of, changed(of, row)):
            version.__dict__["base"] = of.base  # the base rate is that of all rows, its own among them
            singles = SingleRates.of(own, 14, version), SingleRates.of(other, 11, version)
            pair = PairStatistics.of(keys, 0, (own, other), singles, version)
            statistics.append((singles[0].of_rows, pair.of_rows))
        for before, after in zip(*statistics, strict=True):
            assert abs(before[row] - after[row]) < 1e-9  # of sums less a part: rounded, no more
            seen += int((abs(before - after) > 1e-3).any())
    assert seen  # the target does change the statistics of other rows


def test_bins_keep_one_for_what_is_unknown_and_share_the_rest() -> None:
    rng = np.random.default_rng(2)
    statistic, rows = rng.normal(size=(500, 1)), rng.integers(0, 9, 500).astype(np.float64)
    bins = StatisticBins.of(statistic, rows, bins=8, least_rows=2)
    found, counts = bins.find(statistic, rows)
    assert (found[rows < 2] == 0).all()
    assert (counts[rows < 2] == 0).all()
    sizes = np.bincount(found[rows >= 2, 0])[1:]
    assert len(sizes) == 8 == bins.sizes[0] - 1
    assert sizes.max() - sizes.min() <= 2
    assert counts[rows == 8].tolist() == [3] * int((rows == 8).sum())
    assert bins.find(statistic[:1], np.array([1e9]))[1].tolist() == [bins.most_rows]


def test_composed_features_are_the_sums_that_training_rows_have() -> None:
    of, rng = outcomes(), np.random.default_rng(4)
    ids = rng.integers(2, 30, ROWS)
    rates = FieldRates.of(ids, 32, of)
    composition, (composed,) = Composition.of(50, [(10, rates)], [ids + 10])
    assert composed.min() >= composition.rows
    assert len(np.unique(composition.parts, axis=0)) == len(composition.parts)
    parts = composition.parts[composed - composition.rows]
    np.testing.assert_array_equal(parts[:, 0], ids + 10)
    np.testing.assert_array_equal(parts[:, 1] - 50, rates.of_entries[:, 0])
    np.testing.assert_array_equal(parts[:, 2] - 50 - rates.sums.sizes[0], rates.of_entries[:, 1])
    np.testing.assert_array_equal(composition.folded[:, 0], np.arange(10, 42))
    # Unknown and missing were in no training row: their rate and their count are those of nothing.
    assert (composition.folded[:2, 1:] == [50, 50 + rates.sums.sizes[0]]).all()
    assert 50 not in composition.neighbours
    assert composition.neighbours.max() < composition.rows - 1


def test_pairs_say_what_goes_beyond_the_two_values() -> None:
    rng = np.random.default_rng(5)
    rows = 4000
    a, b = rng.integers(0, 2, (2, rows))
    values = (rng.random(rows) < np.where(a == b, 0.8, 0.2)).astype(np.float64)[:, None]
    of = Outcomes(values, np.ones(rows), np.arange(rows) % 20, True)
    levels = PairLevels.of([Field("a", "a", "categorical", 4), Field("b", "b", "categorical", 4, start=4)], {})
    keys = levels.keys(np.array([[0, 1]]))
    pair = PairStatistics.of(keys, 0, (a + 2, b + 2), (SingleRates.of(a + 2, 4, of), SingleRates.of(b + 2, 4, of)), of)
    statistic, count = pair.elsewhere(np.array([2, 2, 0]), np.array([2, 3, 0]))
    np.testing.assert_allclose(statistic[:2, 0], [np.log(4), -np.log(4)], atol=0.25)
    assert statistic[2, 0] == 0 == count[2]
    known, first, second = pair.known(least_rows=1)
    np.testing.assert_array_equal(keys.of(0, first, second), known)
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == [(2, 2), (2, 3), (3, 2), (3, 3)]


def test_ordered_fields_have_at_most_32_levels_in_pairs_and_other_kinds_take_no_part() -> None:
    fields = [
        Field("x", "x", "numeric", 257, ordered=True),
        Field("s", "s", "scaled", 3, start=257),
        Field("t", "t", "multi-valued", 40, start=260),
        Field("empty", "empty", "categorical", 2, start=300),
    ]
    ids = np.random.default_rng(6).integers(2, 257, 5000)
    levels = PairLevels.of(fields, {0: np.bincount(ids, minlength=257)})
    assert levels.fields == [0]
    assert levels.sizes[0] == 34
    of_x = levels.of_feature[:257]
    assert of_x[:2].tolist() == [0, 1]
    assert (np.diff(of_x) >= 0).all()
    shares = np.bincount(of_x[ids], minlength=34)[2:]
    assert shares.min() > 0.5 * shares.mean()


@pytest.mark.parametrize("is_rate", [True, False])
def test_earlier_times_are_told_as_of_all_rows(is_rate: bool) -> None:
    rng = np.random.default_rng(4)
    folds, keys = rng.integers(0, 6, ROWS), rng.integers(0, 12, ROWS)
    values = rng.random((ROWS, 2)) + folds[:, None] / 3
    values = (values > 1).astype(np.float64) if is_rate else values
    weight = rng.uniform(0.5, 2, ROWS)
    found = Grouped.of(keys, Outcomes(values, weight, folds, is_rate, ordered=True, timed=True)).others
    whole = np.average(values, axis=0, weights=weight)
    for row in range(0, ROWS, 7):
        earlier = folds < folds[row]
        there = earlier & (keys == keys[row])
        assert found.weight[row] == pytest.approx(weight[there].sum())
        if not there.any():
            assert found.rows[row] == 0
            continue
        assert found.rows[row] == pytest.approx(there.sum() * ROWS / earlier.sum())
        mean, past = (np.average(values[some], axis=0, weights=weight[some]) for some in (there, earlier))
        if is_rate:
            past = np.clip(past, 1e-4, 1 - 1e-4)
            odds = mean / np.maximum(1 - mean, 1e-300) * (whole / (1 - whole)) * ((1 - past) / past)
            moved = np.where(mean == 1, 1, odds / (1 + odds))
        else:
            moved = mean + whole - past
        np.testing.assert_allclose(found.sums[row] / found.weight[row], moved, atol=1e-9)


def test_times_of_other_rates_are_no_rates_of_their_ids() -> None:
    rng, rows = np.random.default_rng(5), 40_000
    folds = np.repeat(np.arange(20), rows // 20)
    ids = rng.integers(0, 50, rows)
    values = (rng.random((rows, 1)) < 0.1 + 0.3 * folds[:, None] / 20).astype(np.float64)

    def related(timed: bool) -> tuple[float, float]:
        outcomes = Outcomes(values, np.ones(rows), folds, True, ordered=True, timed=timed)
        bins = FieldRates.of(ids, 50, outcomes).of_entries[folds > 0]
        return tuple(abs(np.corrcoef(bin_of, folds[folds > 0])[0, 1]) for bin_of in bins.T)

    assert max(related(timed=True)) < 0.1
    assert min(related(timed=False)) > 0.6


def test_keys_tell_all_value_pairs_apart() -> None:
    levels = PairLevels(np.empty(0, np.int32), np.array([5, 7, 3]))
    keys = levels.keys(np.array([[0, 1], [0, 2], [1, 2]]))
    every = [keys.of(p, np.array([u]), np.array([v]))[0] for p, (i, j) in enumerate(keys.pairs)
             for u in range(levels.sizes[i]) for v in range(levels.sizes[j])]  # fmt: skip
    assert sorted(every) == list(range(5 * 7 + 5 * 3 + 7 * 3))


@pytest.mark.parametrize("ordered", [False, True])
def test_earlier_rows_are_others_to_all_new_ones(ordered: bool) -> None:
    rng = np.random.default_rng(3)
    old, new = rng.integers(0, 9, 40), rng.integers(4, 14, 60)
    y_old, y_new = rng.random((40, 1)), rng.random((60, 1))
    folds = np.sort(rng.integers(0, 5, 60)) if ordered else rng.integers(0, 5, 60)
    before = Grouped.of(old, Outcomes(y_old, np.ones(40), np.zeros(40, np.int64), is_rate=True))
    outcomes = Outcomes(y_new, np.ones(60), folds, is_rate=True, ordered=ordered)
    found = Grouped.of(new, outcomes).after(Earlier(before.keys, before.all_rows), new)
    assert found.keys.tolist() == np.union1d(old, new).tolist()
    for group, total in zip(found.keys, found.all_rows.columns, strict=True):
        expected = y_old[old == group].sum() + y_new[new == group].sum()
        rows = (old == group).sum() + (new == group).sum()
        np.testing.assert_allclose(total, [expected, rows, rows])
    for row, other in enumerate(found.others.columns):
        apart = folds < folds[row] if ordered else folds != folds[row]
        mine = apart & (new == new[row])
        expected = y_old[old == new[row]].sum() + y_new[mine].sum()
        rows = (old == new[row]).sum() + mine.sum()
        np.testing.assert_allclose(other, [expected, rows, rows], atol=1e-12)
