"""Looking pairs of values up: the kernel against plain numpy and against a dictionary."""

import numpy as np
import pytest
import torch

from attfm.data.batch import Batch, FieldFeatures
from attfm.data.codecs.pairs import PairLevels
from attfm.model.memory import PairMemory
from attfm.ops import native_info, use_backend
from attfm.ops.slots import FREE, home

FIELDS, EACH = 5, 50


def memory(entries: int, outputs: int = 1) -> PairMemory:
    rng = np.random.default_rng(entries)
    levels = PairLevels(np.tile(np.arange(EACH, dtype=np.int32), FIELDS), np.full(FIELDS, EACH))
    keys = levels.keys(np.array([[0, 1], [0, 4], [2, 3]]))
    known = rng.choice(3 * EACH * EACH, entries, replace=False).astype(np.int64)
    effects = rng.normal(size=(entries, outputs)).astype(np.float32)
    return PairMemory.of(levels, keys, known, effects, rng.integers(1, 99, entries), rng.normal(size=(3, outputs)))


def batch(rows: int, *, bags: bool = False) -> Batch:
    rng = np.random.default_rng(rows)
    fields = [FieldFeatures((rng.integers(0, EACH, rows) + f * EACH).astype(np.int32)) for f in range(FIELDS)]
    if bags:  # a field of no remembered pair holds several features
        counts = rng.integers(1, 4, rows)
        ids = (rng.integers(0, EACH, counts.sum()) + FIELDS * EACH).astype(np.int32)
        fields.append(FieldFeatures(ids, None, counts))
    return Batch.of_fields(fields)


@pytest.mark.parametrize("entries", [0, 1, 2, 1000, 7500])
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("bags", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 33, 700])
def test_each_row_gets_what_a_dictionary_holds(entries: int, outputs: int, bags: bool, rows: int) -> None:
    kept = memory(entries, outputs)
    if bags:  # the features of the bag have a level too, which nothing reads
        kept = PairMemory(PairLevels(np.concatenate([kept.levels.of_feature, np.zeros(EACH, np.int32)]), np.append(
            kept.levels.sizes, 0)), kept.keys, kept.slots, kept.effects, kept.rows, kept.unknown)  # fmt: skip
    by_key = {int(key): slot for slot, key in enumerate(kept.slots) if key != FREE}
    assert len(by_key) == entries == kept.size
    some = batch(rows, bags=bags)
    effects, counts = kept.look_up(some)
    assert effects.shape == (rows, 3, outputs)
    assert counts.shape == (rows, 3)
    for row in range(0, rows, 5):
        level = [int(some.field(f).ids[row]) - f * EACH for f in range(FIELDS)]
        for p, (i, j) in enumerate(kept.pairs.tolist()):
            slot = by_key.get(p * EACH * EACH + level[i] * EACH + level[j])
            expected = kept.unknown[p] if slot is None else kept.effects[slot]
            assert effects[row, p].tolist() == expected.tolist()
            assert counts[row, p] == (0 if slot is None else kept.rows[slot])
    with use_backend("reference"):
        same, same_counts = kept.look_up(some)
        total = kept.total(some)
    assert torch.equal(same, effects)
    assert (same_counts == counts).all()
    torch.testing.assert_close(kept.total(some), total)
    torch.testing.assert_close(total, effects.sum(1))


@pytest.mark.skipif(not native_info()["available"], reason="needs the compiled kernels")
def test_a_row_gets_the_same_bits_in_any_company_and_by_any_number_of_threads() -> None:
    kept, some = memory(3000), batch(20_000)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = kept.total(some)
        torch.set_num_threads(2)
        assert torch.equal(kept.total(some), alone)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.cat([kept.total(some.slice(i, i + 7)) for i in range(0, 70, 7)]), alone[:70])


def test_searches_end_in_a_crowded_table() -> None:
    kept = memory(7500)
    assert (kept.slots == FREE).any()
    assert kept.size == 3 * EACH * EACH == 7500
    starts = home(kept.slots[kept.slots != FREE], len(kept.slots))
    assert starts.min() >= 0
    assert starts.max() < len(kept.slots)


def test_of_value_pairs_with_one_home_that_of_the_most_rows_is_found_first() -> None:
    kept = memory(1000)
    rows = {int(key): int(number) for key, number in zip(kept.slots, kept.rows, strict=True) if key != FREE}
    homes = dict.fromkeys(home(np.array(list(rows)), len(kept.slots)).tolist(), 0)
    for key, place in zip(rows, home(np.array(list(rows)), len(kept.slots)).tolist(), strict=True):
        homes[place] = max(homes[place], rows[key])
    assert len(homes) < len(rows)
    for place, most in homes.items():
        assert kept.rows[place] >= most


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("slots", lambda a: a[:-1]),
        ("effects", lambda a: a[:, :0]),
        ("pairs", lambda a: a + 4),
        ("levels", lambda a: a[1:]),
    ],
)
def test_a_memory_that_does_not_fit_is_refused(name: str, wrong: object) -> None:
    arrays = memory(40).to_arrays()
    sizes = {"features": FIELDS * EACH, "fields": FIELDS, "outputs": 1}
    again = PairMemory.from_arrays(arrays, **sizes)
    assert torch.equal(again.total(batch(50)), memory(40).total(batch(50)))
    with pytest.raises(ValueError, match="pair memory"):
        PairMemory.from_arrays({**arrays, name: wrong(arrays[name])}, **sizes)  # type: ignore[operator]
