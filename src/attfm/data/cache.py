"""Encoded rows on disk: a column of the smallest whole type for each field, read block by block."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attfm.data.batch import Batch, FieldFeatures
from attfm.data.codecs.codec import Field
from attfm.data.dataset import Examples, InMemoryDataset, Statistics, batch_count
from attfm.errors import CacheError, ConfigError
from attfm.files import sha256

BLOCK_ROWS = 1 << 16
BUFFER_BLOCKS = 8  # that are shuffled together
_MANIFEST = "rows.json"
Array = NDArray[Any]


class ColumnFile:
    """A column on disk: values of one type, one after the other; parts of it are read by their numbers.

    It is read, not mapped: the pages of a mapped file count as memory of the process until they are let go.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any] | type, width: int = 1) -> None:
        self.path, self.dtype, self.width = path, np.dtype(dtype), width
        self.folder: object = None  # what must stay as long as the column is read
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
            self.rows = os.fstat(self._descriptor).st_size // (self.dtype.itemsize * width)
        except OSError as error:
            raise CacheError(f"'{path}' can't be read ({error.strerror}): remove the folder, and train again.") from error

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read(self, start: int, stop: int) -> Array:
        """Return the values start:stop, of `width` numbers each where that is more than one."""
        size = self.dtype.itemsize * self.width
        content = os.pread(self._descriptor, (stop - start) * size, start * size)
        if len(content) < (stop - start) * size:
            raise CacheError(f"'{self.path}' is cut short: remove the folder, and train again.")
        values = np.frombuffer(content, self.dtype)
        return values if self.width == 1 else values.reshape(-1, self.width)


def smallest_type(most: int) -> np.dtype[Any]:
    """Return the smallest unsigned type that holds numbers up to `most`."""
    return np.dtype(np.min_scalar_type(most))


class ColumnWriter:
    """Appends values to a column, and knows the checksum of what was written."""

    def __init__(self, path: Path, dtype: np.dtype[Any] | type) -> None:
        self.path, self._dtype = path, np.dtype(dtype)
        self._stream: BinaryIO = path.open("wb")
        self._digest = hashlib.sha256()

    def add(self, values: Array) -> None:
        """Append values."""
        content = np.ascontiguousarray(values, self._dtype).data
        self._digest.update(content)
        self._stream.write(content)

    def close(self) -> str:
        """Write all to the disk; return the SHA-256 of the column."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        return self._digest.hexdigest()


class RowsWriter:
    """Writes encoded rows with their targets, weights and folds into a folder, from which `CachedRows` reads them.

    Parameters
    ----------
    folder : pathlib.Path, is made
    fields : of the encoder
    classes : how many classes the target has; None of a regression
    weighted, folded : whether rows have weights, and folds
    """

    def __init__(
        self, folder: Path, fields: Sequence[Field], *, classes: int | None, weighted: bool, folded: bool
    ) -> None:
        folder.mkdir(parents=True)
        self._folder, self._fields = folder, fields
        self._ids = [ColumnWriter(folder / f"{f}.ids", smallest_type(max(field.size - 1, 1)))
                     for f, field in enumerate(fields)]  # fmt: skip
        target = np.float64 if classes is None else smallest_type(classes)
        self._columns = {"target": ColumnWriter(folder / "target", target)}
        self._columns |= {"weight": ColumnWriter(folder / "weight", np.float32)} if weighted else {}
        self._columns |= {"fold": ColumnWriter(folder / "fold", np.uint8)} if folded else {}
        self._multiple: dict[str, ColumnWriter] = {}
        self._tally = _Tally(fields, classes)
        self.rows = 0

    def add(self, batch: Batch, target: Array, weight: Array | None = None, fold: Array | None = None) -> None:
        """Append rows; those of weight 0 are to be left out before."""
        if not len(batch):
            return
        for f, field in enumerate(self._fields):
            features = batch.field(f)
            own = features.ids - field.start
            self._ids[f].add(own)
            for name, values, dtype, of_all in (
                ("values", features.values, np.float32, np.ones(len(own), np.float32)),
                ("counts", features.counts, np.uint32, np.ones(len(batch), np.uint32)),
            ):
                key = f"{f}.{name}"
                if values is not None and key not in self._multiple:
                    self._multiple[key] = ColumnWriter(self._folder / key, dtype)
                    self._fill(f, name, self._multiple[key], dtype)
                if key in self._multiple:
                    self._multiple[key].add(of_all if values is None else values)
            self._tally.see(f, own)
        for name, of_rows in (("target", target), ("weight", weight), ("fold", fold)):
            if name in self._columns and of_rows is not None:
                self._columns[name].add(of_rows)
        self._tally.add(batch, target, np.ones(len(batch), np.float32) if weight is None else weight)
        self.rows += len(batch)

    def _fill(self, f: int, name: str, column: ColumnWriter, dtype: type) -> None:
        """Write 1 for all that came before the first rows with such values."""
        before = self.rows if name == "counts" else self._tally.entries_of(f)
        for start in range(0, before, BLOCK_ROWS):
            column.add(np.ones(min(BLOCK_ROWS, before - start), dtype))

    def close(self) -> None:
        """Write what is known of all rows."""
        digests = {column.path.name: column.close() for column in
                   (*self._ids, *self._columns.values(), *self._multiple.values())}  # fmt: skip
        known = {"rows": self.rows, "digests": digests, **self._tally.known()}
        self._tally.seen.tofile(self._folder / "seen")
        np.concatenate([np.empty(0, np.int64), *self._tally.counts.values()]).tofile(self._folder / "ordered")
        for name in ("seen", "ordered"):
            digests[name] = sha256(self._folder / name)
        with (self._folder / _MANIFEST).open("w") as stream:
            json.dump(known, stream)
            stream.flush()
            os.fsync(stream.fileno())


class _Tally:
    """What `Statistics` says of rows, summed while they are written, and the rows of each feature of ordered fields."""

    def __init__(self, fields: Sequence[Field], classes: int | None) -> None:
        self._fields, self._classes = fields, classes
        self.seen = np.zeros(fields[-1].stop if fields else 0, np.bool_)
        self.counts = {f: np.zeros(field.size, np.int64) for f, field in enumerate(fields) if field.ordered}
        self._entries = np.zeros(len(fields), np.int64)
        self._rows, self._weight = 0, 0.0
        self._totals = np.zeros(classes or 0)
        self._mean = self._squares = 0.0

    def entries_of(self, f: int) -> int:
        """Return how many features the rows had in a field, without those of the rows that are being written."""
        return int(self._entries[f])

    def see(self, f: int, own: Array) -> None:
        """Take in the features of some rows in a field."""
        field = self._fields[f]
        if f in self.counts:
            self.counts[f] += np.bincount(own, minlength=field.size)
        self.seen[field.start + own] = True
        self._entries[f] += len(own)

    def add(self, batch: Batch, target: Array, weight: Array) -> None:
        """Take in the targets of some rows; of a regression as Chan, Golub and LeVeque (1979) merge variances."""
        total = float(weight.sum(dtype=np.float64))
        self._rows += len(batch)
        if self._classes is not None:
            self._totals += np.bincount(target, weight, minlength=self._classes)
        elif total > 0:
            mean = float((weight * target).sum(dtype=np.float64)) / total
            apart, whole = mean - self._mean, self._weight + total
            self._squares += float((weight * (target - mean) ** 2).sum(dtype=np.float64))
            self._squares += apart**2 * self._weight * total / whole
            self._mean += apart * total / whole
        self._weight += total

    def known(self) -> dict[str, Any]:
        """Return all but `seen` and `counts`."""
        deviation = (self._squares / self._weight) ** 0.5 if self._weight and self._classes is None else 1.0
        return {
            "entries": int(self._entries.sum()), "weight": self._weight, "totals": self._totals.tolist(),
            "mean": self._mean, "deviation": deviation, "classes": self._classes,
        }  # fmt: skip


@dataclass(frozen=True)
class CachedRows:
    """Encoded rows in a folder, as `RowsWriter` wrote them.

    Attributes
    ----------
    fields : of the encoder
    known : what the manifest says
    composed : ids that training rows have in place of the encoder's, uint32 columns by field
    bins : uint8 columns of the bins of remembered pairs, (rows, outputs + 1) each, pair after pair
    """

    folder: Path
    fields: tuple[Field, ...]
    known: Mapping[str, Any]
    composed: Mapping[int, ColumnFile]
    bins: tuple[ColumnFile, ...] = ()

    @classmethod
    def open(cls, folder: Path, fields: Sequence[Field], *, check: bool = True) -> Self:
        """Open a folder; raise CacheError where it is not whole, or (to `check` reads all of it) not what was written."""
        try:
            known = json.loads((folder / _MANIFEST).read_text())
            digests = known["digests"]
        except (OSError, ValueError, KeyError) as error:
            raise CacheError(f"The encoded rows in '{folder}' are damaged: remove the folder, and train again.") from error
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
                 "weight": np.dtype(np.float32), "fold": np.dtype(np.uint8)}  # fmt: skip
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
        every = np.fromfile(self.folder / "ordered", np.int64)
        ordered = [f for f, field in enumerate(self.fields) if field.ordered]
        ends = np.cumsum([self.fields[f].size for f in ordered])[:-1] if ordered else []
        return dict(zip(ordered, np.split(every, ends), strict=True)) if ordered else {}

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
            ids = self.composed[f].read(first, last).astype(np.int32)
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
        if self.is_single:
            ids = np.empty((stop - start, len(self.fields)), np.int32)
            for f in range(len(self.fields)):
                ids[:, f] = self.features(f, start, stop).ids
            rows = Batch(torch.from_numpy(ids))
        else:
            rows = Batch.of_fields([self.features(f, start, stop) for f in range(len(self.fields))])
        if self.bins:
            bins = np.stack([column.read(start, stop) for column in self.bins], 2)
            rows = replace(rows, bins=torch.from_numpy(bins))
        target = self.column("target", start, stop)
        codes = target.astype(np.float64 if self.known["classes"] is None else np.int64)
        weight = self.column("weight", start, stop).copy()
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
        parts = [self.rows.read(*self.rows.blocks[block]) for block in blocks]
        return _joined(parts)

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
        examples = _joined(parts)
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return InMemoryDataset(examples.take(torch.from_numpy(back)))

    def bootstrap(self, seed: int) -> InMemoryDataset:
        raise ConfigError(
            "Refits on bootstrap samples (n_bags) need all rows in memory: set in_memory=true where they fit, or n_bags=0."
        )


def _joined(parts: Sequence[Examples]) -> Examples:
    if len(parts) == 1:
        return parts[0]
    rows = Batch.concatenate([part.rows for part in parts])
    columns: list[Tensor] = [torch.cat([getattr(part, name) for part in parts]) for name in ("target", "weight")]
    return Examples(rows, *columns)
