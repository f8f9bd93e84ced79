"""Encoded rows on disk, read block by block, and the data set that training reads them as."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from attfm.data.batch import Batch, FieldFeatures
from attfm.data.codecs.codec import Field
from attfm.data.column_file import Array, ColumnFile, smallest_type
from attfm.data.dataset import Examples, InMemoryDataset, Statistics, batch_count
from attfm.data.rows_writer import BLOCK_ROWS, MANIFEST
from attfm.errors import CacheError, ConfigError
from attfm.files import sha256

BUFFER_BLOCKS = 8  # that are shuffled together


@dataclass(frozen=True)
class CachedRows:
    """Encoded rows in a folder, as `RowsWriter` wrote them.

    Attributes
    ----------
    fields : of the encoder
    known : what the manifest says
    composed : by field what training rows have in place of the encoder's ids: uint32 columns, and what is added to them
    bins : uint8 columns of the bins of remembered pairs, (rows, outputs + 1) each, pair after pair
    """

    folder: Path
    fields: tuple[Field, ...]
    known: Mapping[str, Any]
    composed: Mapping[int, tuple[ColumnFile, int]]
    bins: tuple[ColumnFile, ...] = ()

    @classmethod
    def open(cls, folder: Path, fields: Sequence[Field], *, check: bool = True) -> Self:
        """Open a folder; raise CacheError where it is not whole or (`check` reads all of it) not what was written."""
        try:
            known = json.loads((folder / MANIFEST).read_text())
            digests = known["digests"]
        except (OSError, ValueError, KeyError) as error:
            raise CacheError(
                f"The encoded rows in '{folder}' are damaged: remove the folder, and train again."
            ) from error
        for name, digest in digests.items():
            if not (folder / name).is_file() or (check and sha256(folder / name) != digest):
                raise CacheError(f"'{folder / name}' is damaged: remove the folder, and train again.")
        return cls(folder, tuple(fields), known, {})

    def __len__(self) -> int:
        return int(self.known["rows"])

    @property
    def digest(self) -> str:
        """A digest of all that was written."""
        return hashlib.sha256(json.dumps(self.known["digests"], sort_keys=True).encode()).hexdigest()

    @cached_property
    def _ids(self) -> list[ColumnFile]:
        return [ColumnFile(self.folder / f"{f}.ids", smallest_type(max(field.size - 1, 1)))
                for f, field in enumerate(self.fields)]  # fmt: skip

    @cached_property
    def _of_rows(self) -> dict[str, ColumnFile]:
        classes = self.known["classes"]
        types = {"target": np.dtype(np.float64) if classes is None else smallest_type(classes),
                 "weight": np.dtype(np.float32), "fold": np.dtype(np.uint8), "number": np.dtype(np.int64)}  # fmt: skip
        return {name: ColumnFile(self.folder / name, dtype) for name, dtype in types.items()
                if name in self.known["digests"]}  # fmt: skip

    @cached_property
    def _multiple(self) -> dict[int, tuple[ColumnFile | None, ColumnFile | None, Array | None]]:
        """Of fields whose features have values or are several: these, how many a row has, where each block begins."""
        found: dict[int, tuple[ColumnFile | None, ColumnFile | None, Array | None]] = {}
        for f in range(len(self.fields)):
            own = [ColumnFile(self.folder / f"{f}.{name}", dtype) if f"{f}.{name}" in self.known["digests"] else None
                   for name, dtype in (("values", np.float32), ("counts", np.uint32))]  # fmt: skip
            starts = None
            if own[1] is not None:
                sums = [own[1].read(start, min(start + BLOCK_ROWS, len(self))).sum(dtype=np.int64)
                        for start in range(0, len(self), BLOCK_ROWS)]  # fmt: skip
                starts = np.concatenate([[0], np.cumsum(sums)])
            if own != [None, None]:
                found[f] = own[0], own[1], starts
        return found

    @property
    def counts_of_ordered(self) -> dict[int, Array]:
        """How many rows each feature of an ordered field has, int64 (size,), by field."""
        every, counts, place = np.fromfile(self.folder / "ordered", np.int64), dict[int, Array](), 0
        for f, field in enumerate(self.fields):
            if field.ordered:
                counts[f] = every[place : place + field.size]
                place += field.size
        return counts

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """The first row of each block, and the row after its last."""
        return [(start, min(start + BLOCK_ROWS, len(self))) for start in range(0, len(self), BLOCK_ROWS)]

    @property
    def is_single(self) -> bool:
        """Whether each field of each row has one feature, without a value."""
        return not self._multiple

    def features(self, f: int, start: int, stop: int) -> FieldFeatures:
        """Return the features of one field in the rows of one block, or of the whole of several, by their ids."""
        values, counts, starts = self._multiple.get(f, (None, None, None))
        first, last, of_rows = start, stop, None
        if counts is not None and starts is not None:
            of_rows = counts.read(start, stop).astype(np.int64)
            block = start // BLOCK_ROWS
            before = 0 if start % BLOCK_ROWS == 0 else int(
                counts.read(block * BLOCK_ROWS, start).sum(dtype=np.int64)
            )  # fmt: skip
            first = int(starts[block]) + before
            last = first + int(of_rows.sum())
        if f in self.composed:
            column, added = self.composed[f]
            ids = column.read(first, last).astype(np.int32)
            ids += np.int32(added)
        else:
            ids = self._ids[f].read(first, last).astype(np.int32)
            ids += np.int32(self.fields[f].start)
        return FieldFeatures(ids, None if values is None else values.read(first, last).copy(), of_rows)

    def column(self, name: str, start: int, stop: int) -> Array:
        """Return the targets, weights or folds of some rows; weights that were not given are 1, folds 0."""
        if name in self._of_rows:
            return self._of_rows[name].read(start, stop)
        return np.ones(stop - start, np.float32) if name == "weight" else np.zeros(stop - start, np.uint8)

    def read(self, start: int, stop: int) -> Examples:
        """Return the rows start:stop."""
        return self.gathered([(start, stop)])

    def gathered(self, ranges: Sequence[tuple[int, int]]) -> Examples:
        """Return the rows of each range (start, stop), one after the other; single-valued rows are held only once."""
        if not self.is_single and len(ranges) > 1:
            return Examples.concatenate([self.read(start, stop) for start, stop in ranges])
        count = sum(stop - start for start, stop in ranges)
        ids = np.empty((count if self.is_single else 0, len(self.fields)), np.int32)
        bins = np.empty((count, self.bins[0].width if self.bins else 0, len(self.bins)), np.uint8)
        codes = np.empty(count, np.float64 if self.known["classes"] is None else np.int64)
        weight, first = np.empty(count, np.float32), 0
        for start, stop in ranges:
            part = slice(first, first + stop - start)
            first = part.stop
            for f in range(len(self.fields) if self.is_single else 0):
                ids[part, f] = self.features(f, start, stop).ids
            for p, column in enumerate(self.bins):
                bins[part, :, p] = column.read(start, stop)
            codes[part], weight[part] = self.column("target", start, stop), self.column("weight", start, stop)
        if self.is_single:
            rows = Batch(torch.from_numpy(ids))
        else:
            ((start, stop),) = ranges
            rows = Batch.of_fields([self.features(f, start, stop) for f in range(len(self.fields))])
        if self.bins:
            rows = replace(rows, bins=torch.from_numpy(bins))
        return Examples(rows, torch.from_numpy(codes), torch.from_numpy(weight))

    def whole(self, read: Callable[[int, int], Array]) -> Array:
        """Return what `read` gives of each block, as one array."""
        return np.concatenate([read(start, stop) for start, stop in self.blocks])


@dataclass(frozen=True)
class CachedDataset:
    """A data set (`attfm.data.dataset.Dataset`) whose rows lie in a `CachedRows`; of these a buffer is in memory.

    A shuffled pass takes the blocks in random order, a few at a time, and the rows of these in random order.

    given : statistics that are known already, or None
    """

    rows: CachedRows
    given: Statistics | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def statistics(self) -> Statistics:
        if self.given is not None:
            return self.given
        known = self.rows.known
        seen = np.fromfile(self.rows.folder / "seen", np.bool_)
        last = int(np.flatnonzero(seen)[-1]) + 1 if seen.any() else 0
        total = torch.tensor(known["weight"], dtype=torch.float64)
        return Statistics(
            len(self), known["entries"], (total / max(len(self), 1)).float(), total,
            torch.tensor(known["totals"], dtype=torch.float64), torch.tensor(known["mean"], dtype=torch.float64),
            torch.tensor(known["deviation"], dtype=torch.float64), torch.from_numpy(seen[:last]),
        )  # fmt: skip

    @property
    def numbers(self) -> NDArray[np.int64] | None:
        """The numbers of the rows in their table, int64 (rows,), where they were written."""
        if "number" not in self.rows.known["digests"]:
            return None
        return self.rows.whole(lambda start, stop: self.rows.column("number", start, stop))

    def shuffled(self, size: int, generator: torch.Generator) -> Iterator[Examples]:
        blocks = self.rows.blocks
        order = torch.randperm(len(blocks), generator=generator).tolist()
        buffers = np.array_split(np.array(order), max(1, -(-len(blocks) // BUFFER_BLOCKS)))
        within = [torch.randperm(sum(blocks[b][1] - blocks[b][0] for b in buffer), generator=generator)
                  for buffer in buffers]  # fmt: skip
        with ThreadPoolExecutor(1) as thread:  # the next buffer is read while one is trained on
            coming = thread.submit(self._gathered, buffers[0])
            for number, rows in enumerate(within):
                examples = coming.result()
                if number + 1 < len(buffers):
                    coming = thread.submit(self._gathered, buffers[number + 1])
                for numbers in torch.tensor_split(rows, batch_count(len(rows), size)):
                    yield examples.take(numbers)

    def _gathered(self, blocks: Array) -> Examples:
        return self.rows.gathered([self.rows.blocks[block] for block in blocks])

    def ordered(self) -> Iterator[Examples]:
        for start, stop in self.rows.blocks:
            yield self.rows.read(start, stop)

    def sample(self, most: int) -> Batch:
        kept = np.arange(len(self))
        if len(self) > most:
            kept = np.sort(np.random.default_rng(0).choice(len(self), most, replace=False))
        return self.take(kept).examples.rows

    def take(self, rows: Array) -> InMemoryDataset:
        """Return the given rows, by their numbers, in memory; InMemoryDataset's `take` allows any order, this too."""
        order = np.argsort(rows, kind="stable")
        in_order, parts = rows[order], []
        for start, stop in self.rows.blocks:
            low, high = np.searchsorted(in_order, [start, stop])
            if low < high:
                parts.append(self.rows.read(start, stop).take(torch.from_numpy(in_order[low:high] - start)))
        examples = Examples.concatenate(parts)
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return InMemoryDataset(examples.take(torch.from_numpy(back)))

    def bootstrap(self, seed: int) -> InMemoryDataset:
        raise ConfigError(
            "Refits on bootstrap samples (n_bags) need all rows in memory: give --in-memory where they fit, or "
            "n_bags=0."
        )
