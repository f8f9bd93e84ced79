"""A relation of DuckDB, whose rows are streamed by running it again for each pass."""

import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import pyarrow as pa

from attfm.data.sources.in_memory import stripped
from attfm.data.sources.plain_reader import PlainReader
from attfm.errors import SourceError

_BATCH_ROWS = 65_536
_READERS = ("to_arrow_reader", "fetch_record_batch", "fetch_arrow_reader")  # the same, in newer and older versions


def is_relation(data: object) -> bool:
    """Return whether something is a relation of DuckDB, which is not imported for that."""
    return type(data).__name__ == "DuckDBPyRelation"


class DuckdbRelation(PlainReader):
    """A relation of DuckDB; see `source.Reader`.

    A connection of DuckDB runs one query at a time: passes over relations of the same one can't overlap.

    Raises
    ------
    SourceError : it can't be run, or has no rows
    SchemaError : columns have no names, or the same
    """

    def __init__(self, relation: Any) -> None:
        name = f"the {type(relation).__name__}"
        self._name, self._relation = name, relation
        stripped(relation.columns, name)
        with self._told():
            self.num_rows = int(relation.aggregate("count(*)").fetchall()[0][0])
        if self.num_rows == 0:
            raise SourceError(f"{name} has 0 rows: a table needs at least one.")
        with self._told(), closing(self._streamed(relation.columns)) as reader:
            stored = reader.schema
        super().__init__(name, stored)

    def _streamed(self, names: Sequence[str]) -> pa.RecordBatchReader:
        quoted = [name.replace('"', '""') for name in names]
        chosen = self._relation.project(", ".join(f'"{name}"' for name in quoted))
        method = next(name for name in _READERS if hasattr(type(chosen), name))
        return getattr(chosen, method)(_BATCH_ROWS)

    def _stored_batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return self._counted(self._again([self._stored[name].name for name in columns]))

    def _again(self, names: Sequence[str]) -> Generator[pa.RecordBatch]:
        with self._told():
            reader = self._streamed(names)
        with closing(reader):
            while True:
                with self._told():
                    batch = next(reader, None)
                if batch is None:
                    return
                yield batch

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sys.modules["duckdb"].Error, pa.ArrowException, OSError) as error:
            told = " ".join(str(error).split()).rstrip(".")
            raise SourceError(
                f"{self._name} can't be read: {told}. Keep its connection open and free of other queries while it is "
                "read, and look whether its query runs by itself."
            ) from error
