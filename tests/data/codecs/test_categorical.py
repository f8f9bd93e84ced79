import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfm.data.codecs import categorical as vocabulary
from attfm.data.codecs.categorical import Counter, Vocabulary
from attfm.data.codecs.codec import FIRST_VALUE, MISSING, UNKNOWN
from tests.data.encoding import fit, labels, table

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


CATEGORICAL = {"columns": {"x": {"kind": "categorical"}}}


SAME = {
    "int64": pa.array([3, 7, None]),
    "int8": pa.array([3, 7, None], pa.int8()),
    "uint64": pa.array([3, 7, None], pa.uint64()),
    "float64": pa.array([3.0, 7.0, None]),
    "float with NaN": pa.array([3.0, 7.0, float("nan")]),
    "float32": pa.array([3.0, 7.0, None], pa.float32()),
    "float16": pa.array(np.array([3, 7, np.nan], np.float16)),
    "decimal": pa.array([3, 7, None], pa.decimal128(9, 2)),
    "decimal of integers": pa.array([3, 7, None], pa.decimal128(9, 0)),
    "string": pa.array(["3", "7", None]),
    "large string": pa.array(["3", "7", None], pa.large_string()),
    "string view": pa.array(["3", "7", None], pa.string_view()),
    "binary": pa.array([b"3", b"7", None]),
    "dictionary": pa.array(["3", "7", None]).dictionary_encode(),
    "dictionary of integers": pa.array([3, 7, None]).dictionary_encode(),
    "unsigned dictionary": pa.array(["3", "7", None]).dictionary_encode().cast(pa.dictionary(pa.uint8(), pa.string())),
    "null in the dictionary": pa.DictionaryArray.from_arrays([0, 1, 2], pa.array(["3", "7", None])),
    "run ends": pa.RunEndEncodedArray.from_arrays([1, 2, 3], pa.array([3, 7, None])),
}


def test_categories_rarer_than_min_count_are_unknown() -> None:
    encoder = fit(table(x=["a", "b", "a", "c", "b", "a"]), min_count=2)
    assert encoder.feature_names(0) == ["unknown", "missing", "a", "b"]
    assert labels(encoder, table(x=["c", "b", "z", None])) == ["unknown", "b", "unknown", "missing"]


@pytest.mark.parametrize("seen", SAME)
@pytest.mark.parametrize("asked", SAME)
def test_3_and_its_other_spellings_are_one_category(seen: str, asked: str) -> None:
    encoder = fit(table(x=SAME[seen]), **CATEGORICAL)
    assert encoder.feature_names(0) == ["unknown", "missing", "3", "7"]
    assert labels(encoder, table(x=SAME[asked])) == ["3", "7", "missing"]


def test_floats_are_categories_by_their_shortest_digits() -> None:
    values = [0.1, 1e-7, 1e22, 2.5, -0.0, 2.0**53, -(2.0**63), 1e300, float("inf")]
    encoder = fit(table(x=pa.array(values)), **CATEGORICAL)
    expected = ["0.1", "1e-07", "1e+22", "2.5", "0", "9007199254740992", repr(-(2.0**63)), "1e+300", "inf"]
    assert sorted(encoder.feature_names(0)[2:]) == sorted(expected)
    assert labels(encoder, table(x=pa.array([0.1, 2.5], pa.float32()))) == ["0.1", "2.5"]


def test_booleans_are_the_categories_true_and_false() -> None:
    encoder = fit(table(x=[True, False, None, True]))
    assert encoder.feature_names(0) == ["unknown", "missing", "true", "false"]
    assert labels(encoder, table(x=["false", "no", None])) == ["false", "unknown", "missing"]


def test_a_dictionary_with_values_that_do_not_occur_learns_only_those_that_do() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([2, 0, 2]), pa.array(["a", "never", "c"]))
    assert fit(table(x=column)).feature_names(0) == ["unknown", "missing", "c", "a"]


def test_of_too_many_values_the_most_frequent_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counter, "_MERGE_ABOVE", 3)
    monkeypatch.setattr(Counter, "MOST", 20)
    rng, counter, held = np.random.default_rng(0), Counter(), []
    frequent = [f"often{n:02}" for n in range(20)]
    for block in range(200):
        values = [*frequent, *(f"once{block}.{n}" for n in range(15))]
        codes = np.repeat(rng.permutation(35), np.where(np.arange(35) < 3, 2, 1))
        counter.add(codes, large(values))
        held.append(sum(map(len, counter._parts)))
    found = counter.vocabulary(min_count=1)
    assert sorted(found.labels()) == frequent
    assert found.counts.min() >= 200  # none of their rows was forgotten
    assert max(held) <= 4 * 20 + 35


def test_rows_of_values_beyond_the_most_teach_the_unknown_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counter, "MOST", 2)
    encoder = fit(table(x=["a", "a", "b", "b", "c", "d"]), columns={"x": {"kind": "categorical"}})
    assert labels(encoder, table(x=["a", "b", "c", "d"])) == ["a", "b", "unknown", "unknown"]
