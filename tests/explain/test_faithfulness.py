"""The check must pass where the account is right, and must not where it is wrong."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from attfm.explain import faithfulness
from attfm.explain.faithfulness import Refits, check
from attfm.model.terms import Terms, terms_of
from tests.explain.account import encoded, model, source


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("preset", ["nested", "fm", "linear"])
def test_a_right_account_passes(task: str, preset: str) -> None:
    found = check(model(task, preset=preset), source())
    assert found.rows == 150
    assert found.sum_error < 1e-5
    assert found.removal_error < 1e-5
    assert found.stability is None


@pytest.mark.parametrize("term", ["main", "pair"])
def test_a_wrong_account_is_found_out(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: Any) -> Terms:
        terms = terms_of(*arguments)
        return replace(terms, **{term: getattr(terms, term) * 1.01})

    monkeypatch.setattr(faithfulness, "terms_of", wrong)
    found = check(model(), source())
    assert found.sum_error > 1e-4
    assert found.removal_error > 1e-4


def test_effects_on_the_wrong_pairs_are_found_out_by_removal(monkeypatch: pytest.MonkeyPatch) -> None:
    """They still add up, so that only cutting them out of the model tells."""

    def shuffled(*arguments: Any) -> Terms:
        terms = terms_of(*arguments)
        return replace(terms, pair=np.roll(terms.pair, 1, axis=1))

    monkeypatch.setattr(faithfulness, "terms_of", shuffled)
    found = check(model(background=False), source())
    assert found.sum_error < 1e-5
    assert found.removal_error > 1e-2


def test_deleting_the_largest_first_moves_the_logit_faster_than_at_random() -> None:
    found = check(model(), source(), rows=40)
    assert found.rows == 40
    curve = found.deletion
    assert curve is not None
    assert curve.removed.tolist() == list(range(16))
    assert curve.largest_first[0] == curve.random[0] == 0
    assert curve.largest_first[1] > curve.random[1]
    assert curve.largest_first[-1] == pytest.approx(curve.random[-1])
    assert curve.advantage > 1.1
    assert check(model(), source(), rows=40).deletion.random.tolist() == curve.random.tolist()


def test_without_a_background_the_sums_are_checked_all_the_same() -> None:
    found = check(model(background=False), source())
    assert found.sum_error < 1e-5
    assert found.deletion is None
    assert found.stability is None


def test_the_stability_is_that_of_the_stored_refits() -> None:
    stability = check(model(refits=2), source()).stability
    assert stability is not None
    assert stability.refits == 2


def test_seeds_are_compared_with_the_model_itself() -> None:
    made, other = model(), model(seed=5)
    rows = encoded(made, source())
    same = check(made, source(), rows=20, refits=Refits(rows, [made.module])).seeds
    assert same is not None
    assert (same.refits, same.fields, same.pairs, same.top, same.largest) == pytest.approx((1, 1, 1, 1, 7))
    found = check(made, source(), rows=20, refits=Refits(rows, [other.module, made.module])).seeds
    assert found is not None
    # Of three models two are equal: one of the three comparisons is perfect.
    pair = check(made, source(), rows=20, refits=Refits(rows, [other.module])).seeds
    assert found.fields == pytest.approx((1 + 2 * pair.fields) / 3)
    assert found.fields < 0.9
    bare = check(model(background=False), source(), rows=20, refits=Refits(rows, [other.module]))
    assert bare.seeds == pair
