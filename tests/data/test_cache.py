"""Encoded rows on disk: what is read is what was written, whatever the rows are and wherever blocks end."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from attfm.data.batch import Batch, FieldFeatures
from attfm.data.cache import CachedDataset, CachedRows
from attfm.data.codecs.codec import Field
from attfm.data.dataset import Examples, InMemoryDataset
from attfm.data.rows_writer import RowsWriter
from attfm.errors import CacheError, ConfigError

BLOCK = 16
FIELDS = (
    Field("age", "age", "numeric", 200, ordered=True),
    Field("id", "id", "categorical", 70_000, start=200),
    Field("tags", "tags", "multi-valued", 300, start=70_200),
)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("attfm.data.cache", "attfm.data.rows_writer"):
        monkeypatch.setattr(f"{module}.BLOCK_ROWS", BLOCK)
    monkeypatch.setattr("attfm.data.cache.BUFFER_BLOCKS", 2)


def some_rows(rows: int, *, bags: bool, values: bool = False, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, rows)
    fields = [
        FieldFeatures(rng.integers(0, 200, rows).astype(np.int32)),
        FieldFeatures(
            rng.integers(200, 70_200, rows).astype(np.int32), rng.random(rows).astype(np.float32) if values else None
        ),
    ]
    if bags:
        entries = int(counts.sum())
        fields.append(FieldFeatures(rng.integers(70_200, 70_500, entries).astype(np.int32), None, counts))
    return Batch.of_fields(fields)


def written(folder: Path, parts: list[Batch], fields: tuple[Field, ...], *, classes: int | None = 2) -> CachedDataset:
    rng = np.random.default_rng(1)
    writer = RowsWriter(folder, fields, classes=classes, weighted=True, folded=True, numbered=True)
    for part in parts:
        n = len(part)
        target = rng.normal(5, 2, n) if classes is None else rng.integers(0, classes, n)
        writer.add(part, target, rng.random(n), rng.integers(0, 20, n), np.arange(n) * 3)
    writer.close()
    return CachedDataset(CachedRows.open(folder, fields))


def everything(dataset: CachedDataset) -> Examples:
    return dataset.take(np.arange(len(dataset))).examples


def assert_same(one: Batch, other: Batch) -> None:
    assert len(one) == len(other)
    for f in range(one.fields):
        a, b = one.field(f), other.field(f)
        np.testing.assert_array_equal(a.ids, b.ids)
        np.testing.assert_array_equal(
            np.ones(len(a.ids)) if a.values is None else a.values, np.ones(len(b.ids)) if b.values is None else b.values
        )
        np.testing.assert_array_equal(a.rows, b.rows)


@pytest.mark.parametrize("sizes", [(1,), (16,), (5, 40, 1), (33, 0, 33)])
@pytest.mark.parametrize(("bags", "values"), [(False, False), (True, False), (True, True), (False, True)])
def test_rows_come_back_as_they_were_written(tmp_path: Path, sizes: tuple[int, ...], bags: bool, values: bool) -> None:
    parts = [some_rows(n, bags=bags, values=values, seed=n) for n in sizes]
    dataset = written(tmp_path / "rows", parts, FIELDS if bags else FIELDS[:2])
    whole = Batch.concatenate([part for part in parts if len(part)])
    assert_same(whole, Batch.concatenate([part.rows for part in dataset.ordered()]))
    order = np.random.default_rng(3).permutation(len(dataset))[: max(1, len(dataset) // 2)]
    taken = dataset.take(order).examples
    assert_same(whole.take(torch.from_numpy(order)), taken.rows)
    np.testing.assert_array_equal(taken.target, everything(dataset).target[torch.from_numpy(order)])
    f = whole.fields - 1
    start, stop = len(dataset) // 3, min(len(dataset) // 3 + BLOCK - (len(dataset) // 3) % BLOCK, len(dataset))
    part = dataset.rows.features(f, start, stop)
    np.testing.assert_array_equal(part.ids, whole.slice(start, stop).field(f).ids)


@pytest.mark.parametrize("bags", [False, True])
def test_several_blocks_are_the_rows_of_each_in_the_order_asked_for(tmp_path: Path, bags: bool) -> None:
    dataset = written(tmp_path / "rows", [some_rows(40, bags=bags)], FIELDS if bags else FIELDS[:2])
    blocks = [(32, 40), (0, 16)]
    gathered, parts = dataset.rows.gathered(blocks), [dataset.rows.read(*block) for block in blocks]
    assert_same(gathered.rows, Batch.concatenate([part.rows for part in parts]))
    for name in ("target", "weight"):
        np.testing.assert_array_equal(
            getattr(gathered, name), torch.cat([getattr(part, name) for part in parts]), err_msg=name
        )


def test_blocks_that_are_shuffled_together_are_held_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("attfm.data.cache", "attfm.data.rows_writer"):
        monkeypatch.setattr(f"{module}.BLOCK_ROWS", 4096)
    dataset = written(tmp_path / "rows", [some_rows(8 * 4096, bags=False)], FIELDS[:2])
    assert len(dataset.rows.blocks) == 8
    dataset.rows.read(0, 10)
    tracemalloc.start()
    gathered = dataset.rows.gathered(dataset.rows.blocks)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = sum(array.numpy().nbytes for array in (gathered.rows.ids, gathered.target, gathered.weight))
    assert held > 0.9 * size  # nothing of it is torch's own, which is not traced
    assert peak < 1.5 * size


def test_values_may_come_late(tmp_path: Path) -> None:
    fields = (FIELDS[0], Field("tags", "tags", "multi-valued", 300, start=200))
    one_each = FieldFeatures(np.full(20, 205, np.int32), None, np.ones(20, np.int64))
    plain = Batch.of_fields([FieldFeatures(np.arange(20, dtype=np.int32)), one_each])
    late = Batch.of_fields(
        [
            FieldFeatures(np.array([7, 8], np.int32)),
            FieldFeatures(np.array([300, 301, 302], np.int32), np.array([0.5, 2, 3], np.float32), np.array([1, 2])),
        ]
    )
    dataset = written(tmp_path / "rows", [plain, late, plain], fields)
    assert_same(Batch.concatenate([plain, late, plain]), Batch.concatenate([p.rows for p in dataset.ordered()]))


@pytest.mark.parametrize("classes", [2, 5, None])
def test_the_statistics_are_those_of_the_rows_in_memory(tmp_path: Path, classes: int | None) -> None:
    dataset = written(
        tmp_path / "rows", [some_rows(n, bags=True, seed=n) for n in (7, 60, 21)], FIELDS, classes=classes
    )
    found, of = dataset.statistics, InMemoryDataset(everything(dataset)).statistics
    assert (found.rows, found.entries) == (of.rows, of.entries)
    torch.testing.assert_close(found.seen, of.seen)
    for name in ("mean_weight", "total_weight", "class_totals", "mean", "deviation"):
        torch.testing.assert_close(getattr(found, name), getattr(of, name), rtol=1e-6, atol=1e-9, check_dtype=False)
    ages = everything(dataset).rows.field(0).ids
    np.testing.assert_array_equal(dataset.rows.counts_of_ordered[0], np.bincount(ages, minlength=200))


def test_a_shuffled_pass_has_every_row_once_and_depends_on_the_generator_alone(tmp_path: Path) -> None:
    dataset = written(tmp_path / "rows", [some_rows(100, bags=False)], FIELDS[:2])

    def passed(seed: int) -> tuple[list[int], list[int]]:
        batches = list(dataset.shuffled(10, torch.Generator().manual_seed(seed)))
        return torch.cat([batch.rows.ids[:, 1] for batch in batches]).tolist(), [len(batch) for batch in batches]

    ids, sizes = passed(0)
    whole = everything(dataset).rows.ids[:, 1].tolist()
    assert sorted(ids) == sorted(whole)
    assert ids != whole
    assert ids == passed(0)[0] != passed(1)[0]
    assert all(5 <= size <= 15 for size in sizes)
    places = {value: place for place, value in enumerate(whole)}
    first = {places[value] // BLOCK for value in ids[: 2 * BLOCK]}
    assert len(first) <= 3  # few blocks are open at a time


@pytest.mark.parametrize("name", ["0.ids", "target", "seen", "rows.json", "2.counts"])
def test_damage_is_found(tmp_path: Path, name: str) -> None:
    written(tmp_path / "rows", [some_rows(50, bags=True)], FIELDS)
    file = tmp_path / "rows" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(CacheError, match="damaged"):
        CachedRows.open(tmp_path / "rows", FIELDS)
    file.unlink()
    with pytest.raises(CacheError, match="damaged"):
        CachedRows.open(tmp_path / "rows", FIELDS, check=False)


def test_a_file_that_is_cut_short_while_it_is_read_is_told(tmp_path: Path) -> None:
    dataset = written(tmp_path / "rows", [some_rows(50, bags=False)], FIELDS[:2])
    (tmp_path / "rows" / "1.ids").write_bytes(b"123")
    with pytest.raises(CacheError, match=r"1\.ids' is cut short"):
        list(dataset.ordered())


def test_bootstrap_samples_are_refused(tmp_path: Path) -> None:
    dataset = written(tmp_path / "rows", [some_rows(50, bags=False)], FIELDS[:2])
    with pytest.raises(ConfigError, match="--in-memory"):
        dataset.bootstrap(0)
