"""Encoded rows written to disk: a column of the smallest whole type for each field, and what is known of all rows."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np

from attfm.data.batch import Batch
from attfm.data.codecs.codec import Field
from attfm.data.column_file import Array, ColumnWriter, OnDisk, smallest_type
from attfm.files import sha256

BLOCK_ROWS = 1 << 16
MANIFEST = "rows.json"
_MULTIPLE: dict[str, type] = {"values": np.float32, "counts": np.uint32}  # of fields that have several features a row


class RowsWriter:
    """Writes encoded rows with their targets, weights and folds into a folder, from which `CachedRows` reads them.

    It is a context, at whose end its files are closed; what was not `close`d before is not whole.

    Parameters
    ----------
    folder : pathlib.Path, is made where it is not there
    fields : of the encoder
    classes : how many classes the target has; None of a regression
    weighted, folded, numbered : whether rows have weights, folds, and their numbers in the table
    kept : what `flush` returned, where the folder is gone on with; what was written since is cut off

    Raises
    ------
    CacheError : a file is not what was kept of it
    """

    def __init__(
        self, folder: Path, fields: Sequence[Field], *, classes: int | None, weighted: bool = False,
        folded: bool = False, numbered: bool = False, kept: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._fields = folder, fields
        self._kept = {name: OnDisk(*of) for name, of in (kept["columns"] if kept else {}).items()}
        self._open = ExitStack()
        self._tally = _Tally(fields, classes) if kept is None else _Tally.of(fields, classes, kept)
        self.rows: int = kept["rows"] if kept else 0
        try:
            self._ids = [self._column(f"{f}.ids", smallest_type(max(field.size - 1, 1)))
                         for f, field in enumerate(fields)]  # fmt: skip
            target = np.float64 if classes is None else smallest_type(classes)
            self._columns = {"target": self._column("target", target)}
            self._columns |= {"weight": self._column("weight", np.float32)} if weighted else {}
            self._columns |= {"fold": self._column("fold", np.uint8)} if folded else {}
            self._columns |= {"number": self._column("number", np.int64)} if numbered else {}
            names = [name for name in self._kept if name.endswith(tuple(_MULTIPLE))]
            self._multiple = {name: self._column(name, _MULTIPLE[name.partition(".")[2]]) for name in names}
        except BaseException:
            self._open.close()
            raise

    def _column(self, name: str, dtype: np.dtype[Any] | type) -> ColumnWriter:
        """Open a column, or go on with it."""
        column = ColumnWriter(self._folder / name, dtype, self._kept.get(name))
        self._open.callback(column.abandon)
        return column

    @property
    def class_totals(self) -> Array:
        """Summed weight of each class so far, float64 (classes,); empty of a regression."""
        return self._tally.totals

    def add(
        self, batch: Batch, target: Array, weight: Array | None = None, fold: Array | None = None,
        number: Array | None = None,
    ) -> None:  # fmt: skip
        """Append rows; those of weight 0 are to be left out before."""
        if not len(batch):
            return
        for f, field in enumerate(self._fields):
            features = batch.field(f)
            own = features.ids - field.start
            self._ids[f].add(own)
            for name, values, size in (("values", features.values, len(own)), ("counts", features.counts, len(batch))):
                key, dtype = f"{f}.{name}", _MULTIPLE[name]
                if values is not None and key not in self._multiple:
                    self._multiple[key] = self._column(key, dtype)
                    self._fill(f, name, self._multiple[key], dtype)
                if key in self._multiple:
                    self._multiple[key].add(np.ones(size, dtype) if values is None else values)
            self._tally.see(f, own)
        for name, of_rows in (("target", target), ("weight", weight), ("fold", fold), ("number", number)):
            if name in self._columns and of_rows is not None:
                self._columns[name].add(of_rows)
        self._tally.add(batch, target, np.ones(len(batch), np.float32) if weight is None else weight)
        self.rows += len(batch)

    def _fill(self, f: int, name: str, column: ColumnWriter, dtype: type) -> None:
        """Write 1 for all that came before the first rows with such values."""
        before = self.rows if name == "counts" else self._tally.entries_of(f)
        for start in range(0, before, BLOCK_ROWS):
            column.add(np.ones(min(BLOCK_ROWS, before - start), dtype))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def flush(self) -> dict[str, Any]:
        """Write all so far to the disk; return what another writer needs to go on from here.

        That is numbers, text, lists and dictionaries of them, and arrays.
        """
        columns = {column.path.name: list(column.flush()) for column in self._all()}
        return {"rows": self.rows, "columns": columns, **self._tally.state()}

    def _all(self) -> tuple[ColumnWriter, ...]:
        return (*self._ids, *self._columns.values(), *self._multiple.values())

    def close(self) -> None:
        """Write what is known of all rows."""
        digests = {column.path.name: column.close() for column in self._all()}
        known = {"rows": self.rows, "digests": digests, **self._tally.known()}
        self._tally.seen.tofile(self._folder / "seen")
        self._tally.ordered.tofile(self._folder / "ordered")
        for name in ("seen", "ordered"):
            digests[name] = sha256(self._folder / name)
        with (self._folder / MANIFEST).open("w") as stream:
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
        self.totals = np.zeros(classes or 0)
        self._mean = self._squares = 0.0

    @property
    def ordered(self) -> Array:
        """The counts of all ordered fields, one after the other."""
        return np.concatenate([np.empty(0, np.int64), *self.counts.values()])

    def state(self) -> dict[str, Any]:
        """Return all that was summed, from which `of` makes an equal tally."""
        sums = [self._rows, self._weight, self._mean, self._squares]
        return {"sums": sums, "totals": self.totals, "entries": self._entries, "seen": self.seen,
                "ordered": self.ordered}  # fmt: skip

    @classmethod
    def of(cls, fields: Sequence[Field], classes: int | None, state: Mapping[str, Any]) -> Self:
        """Return the tally whose `state` this was."""
        tally = cls(fields, classes)
        tally._rows, tally._weight, tally._mean, tally._squares = state["sums"]
        tally.totals, tally._entries, tally.seen = state["totals"], state["entries"], state["seen"]
        ends = np.cumsum([fields[f].size for f in tally.counts])[:-1]
        if tally.counts:
            tally.counts = dict(zip(tally.counts, np.split(state["ordered"], ends), strict=True))
        return tally

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
            self.totals += np.bincount(target, weight, minlength=self._classes)
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
            "entries": int(self._entries.sum()), "weight": self._weight, "totals": self.totals.tolist(),
            "mean": self._mean, "deviation": deviation, "classes": self._classes,
        }  # fmt: skip
