"""Moving out of a pair's effect what is really a main effect."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfm.data.batch import FieldFeatures
from attfm.explain import purification as centring
from attfm.explain.purification import Design, conditional_parts

SIZES = (5, 4)


def parts(
    effect: np.ndarray, first: np.ndarray, second: np.ndarray, sizes: tuple[int, int] = SIZES
) -> tuple[np.ndarray, np.ndarray]:
    return conditional_parts(
        effect, Design.of_levels(FieldFeatures(first), sizes[0]), Design.of_levels(FieldFeatures(second), sizes[1])
    )


def bags(rows: int, size: int, seed: int) -> Design:
    """A multi-valued field: none to three weighted members in a row."""
    rng = np.random.default_rng(seed)
    held = rng.random((rows, size)) < 1.5 / size
    row, state = np.nonzero(held)
    return Design(row, state, rng.choice([0.5, 1.0, -2.0], len(row)), rows, size, False)


def dependent(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """States of two fields; the second often repeats the first."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, SIZES[0], rows)
    second = np.where(rng.random(rows) < 0.6, first % SIZES[1], rng.integers(0, SIZES[1], rows))
    return first, second


def means(values: np.ndarray, states: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(states, values, minlength=size) / np.maximum(np.bincount(states, minlength=size), 1)


@given(rows=st.integers(1, 300), seed=st.integers(0, 10**6))
def test_what_is_left_has_mean_zero_given_either_state(rows: int, seed: int) -> None:
    first, second = dependent(rows, seed)
    effect = np.random.default_rng(seed).normal(size=(rows, 2))
    effect -= effect.mean(0)
    a, b = parts(effect, first, second)
    left = effect - a[first] - b[second]
    for output in range(2):
        np.testing.assert_allclose(means(left[:, output], first, SIZES[0]), 0, atol=1e-7)
        np.testing.assert_allclose(means(left[:, output], second, SIZES[1]), 0, atol=1e-7)
        assert abs(a[first, output].mean()) < 1e-7
        assert abs(b[second, output].mean()) < 1e-7


def test_a_main_effect_in_disguise_is_moved_whole() -> None:
    first, second = dependent(400, 1)
    effect = np.array([3.0, -1, 0, 2, -2])[first] + np.array([0.5, -0.5, 1, 4])[second]
    effect -= effect.mean()
    a, b = parts(effect[:, None], first, second)
    np.testing.assert_allclose(a[first, 0] + b[second, 0], effect, atol=1e-7)
    # Plain conditional means would count twice what the dependent fields share.
    plain = means(effect, first, SIZES[0])[first] + means(effect, second, SIZES[1])[second]
    assert np.abs(plain - effect).max() > 0.5


def test_fields_that_say_the_same_share_the_effect_evenly() -> None:
    state = np.arange(60) % 4
    effect = np.array([1.0, -1, 3, -3])[state][:, None]
    a, b = parts(effect, state, state, (4, 4))
    np.testing.assert_allclose(a, b)
    np.testing.assert_allclose(a[:, 0], [0.5, -0.5, 1.5, -1.5])


def test_many_states_are_counted_sparsely_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = dependent(200, 2)
    effect = np.random.default_rng(0).normal(size=(200, 1))
    effect -= effect.mean()
    dense = parts(effect, first, second)
    monkeypatch.setattr(centring, "_DENSE_CELLS", 0)
    for one, other in zip(parts(effect, first, second), dense, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_states_without_rows_get_nothing() -> None:
    a, b = parts(np.array([[1.0], [-1.0]]), np.array([0, 2]), np.array([1, 1]), (4, 3))
    np.testing.assert_allclose(a[:, 0], [1, 0, -1, 0], atol=1e-9)
    np.testing.assert_allclose(b, 0, atol=1e-9)


@given(rows=st.integers(2, 200), seed=st.integers(0, 10**6), both=st.booleans())
def test_what_is_left_has_mean_zero_given_any_member(rows: int, seed: int, both: bool) -> None:
    rng = np.random.default_rng(seed)
    first = bags(rows, 4, seed + 1) if both else Design.of_levels(FieldFeatures(rng.integers(0, 5, rows)), 5)
    second = bags(rows, 6, seed)
    effect = rng.normal(size=(rows, 2))
    effect -= effect.mean(0)
    a, b = conditional_parts(effect, first, second)
    for output in range(2):
        moved = first.apply(a[:, output]) + second.apply(b[:, output])
        left = effect[:, output] - moved
        assert abs(moved.mean()) < 1e-7
        for design in (first, second):
            np.testing.assert_allclose(np.bincount(design.level, design.weight * left[design.row]), 0, atol=1e-5)


def test_a_sum_over_members_is_moved_whole() -> None:
    first, second = Design.of_levels(FieldFeatures(np.arange(300) % 5), 5), bags(300, 6, 3)
    values = np.array([3.0, -1, 0, 2, -2, 0.5])
    effect = second.apply(values) + np.array([0.5, -0.5, 1, 4, 2])[first.level]
    effect -= effect.mean()
    a, b = conditional_parts(effect[:, None], first, second)
    np.testing.assert_allclose(first.apply(a[:, 0]) + second.apply(b[:, 0]), effect, atol=1e-7)
    np.testing.assert_allclose(b[:, 0], values, atol=1e-6)  # the members do not depend on the other field


def test_members_one_a_row_are_a_single_valued_field() -> None:
    first, second = dependent(200, 4)
    effect = np.random.default_rng(1).normal(size=(200, 1))
    effect -= effect.mean()
    one = Design.of_levels(FieldFeatures(second), SIZES[1])
    as_bag = Design(one.row, one.level, one.weight, 200, SIZES[1], False)
    a, b = conditional_parts(effect, Design.of_levels(FieldFeatures(first), SIZES[0]), as_bag)
    plain_a, plain_b = parts(effect, first, second)
    np.testing.assert_allclose(a, plain_a, atol=1e-6)
    np.testing.assert_allclose(as_bag.apply(b[:, 0]), plain_b[second, 0], atol=1e-6)
