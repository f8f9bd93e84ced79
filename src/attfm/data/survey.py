"""A table that is not kept in memory: what one pass over it tells of its columns, labels and times."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from attfm.config import Config
from attfm.data.arrow_columns import n_missing
from attfm.data.arrow_types import value_type
from attfm.data.codecs.numeric import Sample
from attfm.data.dealing import Dealing, times_of
from attfm.data.inference import infer_schema
from attfm.data.schema import Column, Schema
from attfm.data.sources.source import Source
from attfm.data.split_column import TimeSplit, check_split_column, split_by
from attfm.data.target import missing_labels
from attfm.data.texts import PLAIN
from attfm.data.training_table import labelled_batches, weights_in

# Gives the batches of a pass on, and may show how far it has come: batches, rows in all (None: unknown), what it does.
Watch = Callable[[Iterator[pa.RecordBatch], int | None, str], Iterator[pa.RecordBatch]]
LOOKING = "looking at the columns"  # what the first pass does
_MOST_DISTINCT = 1_000_000  # labels and times that are kept


def unwatched(batches: Iterator[pa.RecordBatch], rows: int | None, what: str) -> Iterator[pa.RecordBatch]:
    """Give the batches on."""
    return batches


@dataclass(frozen=True)
class StreamedTable:
    """A table to be trained on without keeping its rows in memory, and how they are dealt.

    Attributes
    ----------
    source : Source; target, weight : names of columns
    valid, test : shares of the rows to stop by and to measure on; or tables of their own
    seed : of the deal
    cache : pathlib.Path, the folder under which encoded rows are kept
    watch : sees the batches of each pass over the table
    """

    source: Source
    target: str
    weight: str | None
    valid: float | Source
    test: float | Source
    seed: int
    cache: Path
    watch: Watch = unwatched


@dataclass(frozen=True)
class Survey:
    """What a first pass over a table tells: its columns, its labels, and how its rows are dealt.

    rows : how many there are
    labels, counts : distinct labels (the first million), and how often each occurs
    written : labels as they stand in a text table, by their canonical text
    """

    schema: Schema
    rows: int
    labels: pa.ChunkedArray
    counts: NDArray[np.int64]
    written: Mapping[str, str]
    dealing: Dealing

    @classmethod
    def of(cls, table: StreamedTable, config: Config) -> Self:
        """Read the table once; raise what `read_training_table` does, and TargetError where labels are missing."""
        source, name = table.source, table.target
        by = None if config.train.split is None else split_by(config.train.split)
        if by is not None:
            check_split_column(source, by, target=name)
        written, labels = dict[str, str](), _Labels(name)
        times = Sample(seed=[table.seed], size=_MOST_DISTINCT) if isinstance(by, TimeSplit) else None

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in table.watch(labelled_batches(source, name, written), source.num_rows, LOOKING):
                if table.weight is not None:
                    weights = pa.chunked_array([batch.column(table.weight)])
                    weights_in(weights, table.weight, source.reading or PLAIN, first_row=labels.rows)
                if isinstance(by, TimeSplit) and times is not None:
                    times.add(times_of(by, batch.column(by.column), source, _schema_of(source, by.column)))
                labels.add(batch.column(name))
                yield batch

        schema = infer_schema(
            batches(), source.schema, target=name, weight=table.weight, config=config.data, source=source
        )
        shares = [0.0 if isinstance(part, Source) else part for part in (table.valid, table.test)]
        dealing = Dealing.of(shares[0], shares[1], table.seed, by, times)
        return cls(schema, labels.rows, *labels.known(), written, dealing)

    def to_table(self) -> pa.Table:
        """Return all that it tells, from which `from_table` makes an equal survey."""
        dealing = {key: value for key, value in vars(self.dealing).items() if key != "by"}
        known = {"schema": self.schema.to_json(), "rows": self.rows, "written": self.written, "dealing": dealing}
        table = pa.table({"label": self.labels, "count": self.counts}).unify_dictionaries()  # an IPC file takes one
        return table.replace_schema_metadata({"attfm.survey": json.dumps(known)})

    @classmethod
    def from_table(cls, table: pa.Table, config: Config) -> Self:
        """Return the survey that `to_table` wrote, of a table that is split as the settings say."""
        known = json.loads(table.schema.metadata[b"attfm.survey"])
        by = None if config.train.split is None else split_by(config.train.split)
        of = known["dealing"] | {"cuts": tuple(known["dealing"]["cuts"]), "blocks": tuple(known["dealing"]["blocks"])}
        schema = Schema.from_json(known["schema"])
        return cls(schema, known["rows"], table["label"], table["count"].to_numpy(), known["written"],
                   Dealing(by=by, **of))  # fmt: skip


def _schema_of(source: Source, name: str) -> Schema:
    """Return the schema of one column as its table has it, before it is known what kind of column it is."""
    column = Column(name=name, kind="ignored", arrow_type=str(source.schema.field(name).type), reason="")
    return Schema(columns=(column,))


class _Labels:
    """Counts the distinct labels of a column, as long as there are not too many; and its rows."""

    def __init__(self, name: str) -> None:
        self.rows = 0
        self._name = name
        self._parts: list[pa.Table] = []
        self._pending, self._full = 0, False
        self._missing, self._first_missing = 0, 0
        self._type: pa.DataType | None = None

    def add(self, column: pa.Array) -> None:
        """Take in some rows."""
        missing = n_missing(column)
        if missing and not self._missing:
            nulls = column.is_null(nan_is_null=pa.types.is_floating(column.type))
            self._first_missing = self.rows + int(pc.index(nulls, True).as_py())
        self._missing += missing
        self.rows += len(column)
        self._type = column.type
        if self._full:
            return
        plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        self._parts.append(_counted(pa.table({"label": plain, "count": pa.array(np.ones(len(plain), np.int64))})))
        self._pending += len(self._parts[-1])
        if self._pending > _MOST_DISTINCT:
            self._parts = [_counted(pa.concat_tables(self._parts))]
            self._pending = len(self._parts[0])
            self._full = self._pending > _MOST_DISTINCT

    def known(self) -> tuple[pa.ChunkedArray, NDArray[np.int64]]:
        """Return the labels, and how often each was met; raise TargetError where some rows have none."""
        if self._missing:
            raise missing_labels(self._name, self._missing, self.rows, first=self._first_missing)
        table = _counted(pa.concat_tables(self._parts))
        labels = table["label"]
        if self._type is not None and pa.types.is_dictionary(self._type):  # by which the task is told
            labels = labels.cast(value_type(self._type)).dictionary_encode()
        return labels, table["count"].to_numpy()


def _counted(table: pa.Table) -> pa.Table:
    grouped = table.group_by("label").aggregate([("count", "sum")])
    return grouped.select(["label", "count_sum"]).rename_columns(["label", "count"])
