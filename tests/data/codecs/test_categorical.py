import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfm.data.codecs import categorical as vocabulary
from attfm.data.codecs.categorical import FIRST_VALUE, MISSING, UNKNOWN, Buckets, Counter, Vocabulary

TEXT = st.text(st.characters(codec="utf-8"), max_size=6)


def large(texts: list[str | None]) -> pa.Array:
    return pa.array(texts, pa.large_string())


def vocabulary_of(texts: list[str]) -> Vocabulary:
    return Vocabulary(large(texts), np.ones(len(texts), np.int64))


@given(st.lists(TEXT, unique=True), st.lists(TEXT))
def test_known_values_have_their_number_and_others_are_unknown(known: list[str], asked: list[str]) -> None:
    numbers = {text: i + FIRST_VALUE for i, text in enumerate(known)}
    found = vocabulary_of(known).find(large([*known, *asked, None]))
    assert found.tolist() == [numbers.get(text, UNKNOWN) for text in [*known, *asked]] + [MISSING]


def test_an_unseen_value_with_the_hash_of_a_known_one_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "hash_strings", lambda texts: np.zeros(len(texts), np.uint64))
    one = vocabulary_of(["a"])
    assert one.find(large(["a", "b", None])).tolist() == [FIRST_VALUE, UNKNOWN, MISSING]


def test_known_values_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "hash_strings", lambda texts: np.zeros(len(texts), np.uint64))
    two = vocabulary_of(["a", "b"])
    assert two.find(large(["b", "c", "a", None])).tolist() == [FIRST_VALUE + 1, UNKNOWN, FIRST_VALUE, MISSING]


def test_an_empty_vocabulary_knows_nothing() -> None:
    assert vocabulary_of([]).find(large(["a", None])).tolist() == [UNKNOWN, MISSING]


def test_a_counter_orders_by_count_and_then_by_value() -> None:
    counter = Counter()
    counter.add(np.array([0, 0, 1, 2, 2, -1]), large(["b", "c", "a", "never"]))
    counter.add(np.array([1, 2, 0, 2]), large(["d", "c", None]))
    found = counter.vocabulary(min_count=1)
    assert found.values.to_pylist() == ["a", "b", "c", "d"]
    assert found.counts.tolist() == [2, 2, 2, 1]
    assert counter.vocabulary(min_count=2).values.to_pylist() == ["a", "b", "c"]


def test_merging_on_the_way_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counter, "_MERGE_ABOVE", 3)
    rng = np.random.default_rng(0)
    counter, expected = Counter(), np.zeros(10, int)
    for _ in range(20):
        codes = rng.integers(0, 10, 7)
        expected += np.bincount(codes, minlength=10)
        counter.add(codes, large([f"v{i}" for i in range(10)]))
    found = counter.vocabulary(min_count=1)
    assert dict(zip(found.values.to_pylist(), found.counts.tolist(), strict=True)) == {
        f"v{i}": count for i, count in enumerate(expected.tolist())
    }


def test_buckets_are_in_range_and_the_same_for_the_same_value() -> None:
    found = Buckets(7).find(large([f"v{i}" for i in range(100)] + ["v3", None]))
    assert set(found[:-1].tolist()) == set(range(FIRST_VALUE, FIRST_VALUE + 7))
    assert found[100] == found[3]
    assert found[-1] == MISSING
