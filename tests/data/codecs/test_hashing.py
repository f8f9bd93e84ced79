import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfm.data.codecs import hashing
from attfm.data.codecs.codec import FIRST_VALUE, MISSING
from attfm.data.codecs.hashing import Buckets, HashIndex, hash_strings
from tests.data.encoding import fit, table

TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=12))


def large(texts: list[str | None]) -> pa.Array:
    return pa.array(texts, pa.large_string())


def naive(text: str) -> int:
    """Return the hash, as its formula says: a byte polynomial and splitmix64's finaliser."""
    h = sum((byte + 1) * pow(0x9E3779B97F4A7C15, i, 2**64) for i, byte in enumerate(text.encode())) % 2**64
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    h = (h ^ (h >> 27)) * 0x94D049BB133111EB % 2**64
    return h ^ (h >> 31)


@given(TEXTS)
def test_it_is_the_byte_polynomial_of_each_string(texts: list[str]) -> None:
    assert hash_strings(large(texts)).tolist() == [naive(text) for text in texts]


@given(TEXTS, st.integers(0, 5), st.integers(0, 5))
def test_a_slice_hashes_as_its_strings_do(texts: list[str], start: int, length: int) -> None:
    whole = hash_strings(large(texts))
    assert hash_strings(large(texts).slice(start, length)).tolist() == whole[start : start + length].tolist()


def test_blocks_do_not_change_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["", "a", "longer than a block", "", "bb", "ccc", "é", ""]
    whole = hash_strings(large(texts))
    monkeypatch.setattr(hashing, "_BLOCK_BYTES", 4)
    assert hash_strings(large(texts)).tolist() == whole.tolist()


def test_known_values_hold_on_every_machine() -> None:
    assert hash_strings(large(["", "a", "Private"])).tolist() == [0, 17508005127702757215, 18384433539029201591]


def test_a_null_hashes_as_the_empty_string() -> None:
    assert hash_strings(large([None, "a", ""]))[[0, 2]].tolist() == [naive(""), naive("")]


def test_strings_spread_evenly_over_buckets() -> None:
    hashes = hash_strings(large([f"user-{i}" for i in range(40_000)]))
    assert len(np.unique(hashes)) == 40_000
    counts = np.bincount((hashes % np.uint64(64)).astype(int), minlength=64)
    chi_squared = ((counts - 625) ** 2 / 625).sum()
    assert chi_squared < 110  # 63 degrees of freedom: 110 is passed with probability 0.0002


def test_hashed_categories_need_no_vocabulary() -> None:
    encoder = fit(table(x=["a", None, "b"]), columns={"x": {"hash_buckets": 5}})
    assert encoder.n_features == 7
    assert encoder.feature_names(0)[:3] == ["unknown", "missing", "bucket 0"]
    first, missing, other, again = encoder.transform(table(x=["a", None, "unseen", "a"])).ids[:, 0].tolist()
    assert missing == 1
    assert first == again
    assert {first, other} <= set(range(2, 7))
    assert encoder.transform(table(x=[3, 3.0])).ids.tolist() == encoder.transform(table(x=["3", "3"])).ids.tolist()


def test_buckets_are_in_range_and_the_same_for_the_same_value() -> None:
    found = Buckets(7).find(large([f"v{i}" for i in range(100)] + ["v3", None]))
    assert set(found[:-1].tolist()) == set(range(FIRST_VALUE, FIRST_VALUE + 7))
    assert found[100] == found[3]
    assert found[-1] == MISSING


@pytest.mark.parametrize(("known", "spread"), [(1, True), (2, False), (3, True), (1000, False), (70_000, True)])
@pytest.mark.parametrize("sought", [0, 1, 5_000])
def test_hashes_are_found_among_few_and_many(
    known: int, sought: int, spread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(known + sought)
    hashes = rng.integers(0, 2**64, known, dtype=np.uint64) if spread else np.arange(7, known + 7, dtype=np.uint64)
    rng.shuffle(hashes)
    wanted = np.concatenate([rng.choice(hashes, sought), rng.integers(0, 2**64, sought, dtype=np.uint64), hashes[:1]])
    places = {h: i for i, h in enumerate(hashes.tolist())}
    expected = [places.get(h, -1) for h in wanted.tolist()]
    assert HashIndex(hashes).positions(wanted).tolist() == expected
    monkeypatch.setattr(hashing, "_MANY_KNOWN", 0)
    monkeypatch.setattr(hashing, "_MANY_SOUGHT", 0)
    assert HashIndex(hashes).positions(wanted).tolist() == expected


def test_the_index_says_whether_hashes_are_the_same() -> None:
    assert HashIndex(np.array([5, 1, 5], np.uint64)).collides
    assert not HashIndex(np.array([5, 1, 6], np.uint64)).collides
