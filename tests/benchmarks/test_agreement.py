"""The measures by which benchmarks.compare_explanations compares accounts."""

from dataclasses import replace

import numpy as np
import pytest

from attfm.explain.explainer import Explainer
from attfm.explain.explanation import Explanation
from benchmarks import agreement
from tests.explain.account import model, source


@pytest.fixture(scope="module")
def account() -> Explanation:
    return Explainer(model()).of_rows(source(), range(6))


def test_halves_of_pairs_still_add_up_to_the_logit(account: Explanation) -> None:
    shared = agreement.per_field(account)
    np.testing.assert_allclose(account.base[0] + shared.sum(1), account.logits[:, 0], atol=1e-9)
    i, j = account.pairs[0]
    moved = account.pair.copy()
    moved[:, 0] += 2.0
    change = agreement.per_field(replace(account, pair=moved)) - shared
    expected = np.zeros(change.shape)
    expected[:, [i, j]] = 1.0
    np.testing.assert_allclose(change, expected, atol=1e-12)


def test_touching_counts_each_pair_once(account: Explanation) -> None:
    every = np.tile(np.arange(len(account.fields)), (len(account), 1))
    np.testing.assert_allclose(agreement.touching(account, every), account.values.sum(1), atol=1e-9)
    first = agreement.touching(account, every[:, :1])
    held = (account.pairs == 0).any(1)
    np.testing.assert_allclose(first, account.main[:, 0, 0] + account.pair[:, held, 0].sum(1), atol=1e-9)


def test_rank_correlation_looks_at_the_order_only() -> None:
    one = np.array([0.1, 0.5, 2.0, 9.0])
    assert agreement.rank_correlation(one, np.exp(one)) == pytest.approx(1)
    assert agreement.rank_correlation(one, -one) == pytest.approx(-1)
    assert agreement.rank_correlation(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])) == pytest.approx(0.5)
    both = agreement.rank_correlation(np.stack([one, one]), np.stack([one, -one]))
    assert both == pytest.approx(0)  # the mean of the rows, 1 and −1


def test_ties_share_a_rank() -> None:
    tied = np.array([0.0, 0, 0, 1])
    assert agreement.rank_correlation(tied, np.array([3.0, 2, 1, 4])) == pytest.approx(3 / np.sqrt(15))


def test_points_without_rows_do_not_count() -> None:
    one, other = np.array([0.0, 1, 2, 50]), np.array([1.0, 3, 5, -99])
    assert agreement.weighted_correlation(one, other, np.array([3.0, 1, 2, 0])) == pytest.approx(1)
    assert agreement.weighted_correlation(one, other, np.ones(4)) < 0


def test_a_curve_is_the_mean_effect_at_each_value(account: Explanation) -> None:
    values = np.array([5.0, 3, 5, 3, 3, 8])
    grid, effect, rows = agreement.curve(account, account.fields[1], values)
    assert (grid.tolist(), rows.tolist()) == ([3, 5, 8], [3, 2, 1])
    main = account.main[:, 1, 0]
    np.testing.assert_allclose(effect, [main[[1, 3, 4]].mean(), main[[0, 2]].mean(), main[5]], atol=1e-12)


def test_a_curve_that_turns_goes_a_longer_way() -> None:
    assert agreement.way_over_range(np.array([-1.0, 0, 0.5, 3])) == pytest.approx(1)
    assert agreement.way_over_range(np.array([0.0, 2, 1, 2])) == pytest.approx(2)


def test_the_largest_in_common() -> None:
    assert agreement.in_common(np.array([5.0, 1, 4, 0]), np.array([9.0, 8, 0, 1]), 2) == 1


def test_refits_are_compared_two_by_two(account: Explanation) -> None:
    same = agreement.mean_over_pairs([account, account, account])
    assert same == {"fields": pytest.approx(1), "pairs": pytest.approx(1), "rows": pytest.approx(1)}
    other = replace(account, main=-account.main, pair=-account.pair)
    turned = agreement.mean_over_pairs([account, other])
    assert turned["fields"] == pytest.approx(1)  # importance has no sign
    assert turned["rows"] == pytest.approx(-1)
