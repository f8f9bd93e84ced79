"""Moving out of a pair's effect what is really a main effect."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfm.explain import centring
from attfm.explain.centring import conditional_parts

SIZES = (5, 4)


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
    a, b = conditional_parts(effect, first, second, SIZES)
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
    a, b = conditional_parts(effect[:, None], first, second, SIZES)
    np.testing.assert_allclose(a[first, 0] + b[second, 0], effect, atol=1e-7)
    # Plain conditional means would count twice what the dependent fields share.
    plain = means(effect, first, SIZES[0])[first] + means(effect, second, SIZES[1])[second]
    assert np.abs(plain - effect).max() > 0.5


def test_fields_that_say_the_same_share_the_effect_evenly() -> None:
    state = np.arange(60) % 4
    effect = np.array([1.0, -1, 3, -3])[state][:, None]
    a, b = conditional_parts(effect, state, state, (4, 4))
    np.testing.assert_allclose(a, b)
    np.testing.assert_allclose(a[:, 0], [0.5, -0.5, 1.5, -1.5])


def test_many_states_are_counted_sparsely_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = dependent(200, 2)
    effect = np.random.default_rng(0).normal(size=(200, 1))
    effect -= effect.mean()
    dense = conditional_parts(effect, first, second, SIZES)
    monkeypatch.setattr(centring, "_DENSE_CELLS", 0)
    for one, other in zip(conditional_parts(effect, first, second, SIZES), dense, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_states_without_rows_get_nothing() -> None:
    a, b = conditional_parts(np.array([[1.0], [-1.0]]), np.array([0, 2]), np.array([1, 1]), (4, 3))
    np.testing.assert_allclose(a[:, 0], [1, 0, -1, 0], atol=1e-9)
    np.testing.assert_allclose(b, 0, atol=1e-9)
