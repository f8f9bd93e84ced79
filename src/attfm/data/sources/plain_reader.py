"""What all readers of Arrow columns share: plain types, names without spaces around, ordered levels that stay."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

import pyarrow as pa

from attfm.data.sources.in_memory import stripped
from attfm.data.sources.plain_columns import Levels, is_ordered, plain_array, plain_schema, recoded
from attfm.errors import SourceError


class PlainReader(ABC):
    """Reads columns as they are stored and gives them in plain types (see `plain_type`); see `source.Reader`."""

    num_rows: int | None

    def __init__(self, name: str, stored: pa.Schema) -> None:
        self._name = name
        if not stored.names:
            raise SourceError(f"{name} has no columns.")
        names = stripped(stored.names, name)
        self._stored = dict(zip(names, stored, strict=True))  # fields as they are stored
        self.schema = pa.schema(zip(names, plain_schema(stored, name).types, strict=True))
        self._levels: dict[str, pa.Array] = {}  # of ordered dictionaries, once they are known

    @abstractmethod
    def _stored_batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows from the top, with these columns as they are stored."""

    def read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows from the top, with the given columns; an ordered dictionary is the same in all batches."""
        levels = {name: self._levels_of(name) for name in columns if is_ordered(self.schema.field(name).type)}
        schema = pa.schema([self.schema.field(name) for name in columns])
        for batch in self._stored_batches(columns):
            arrays = [plain_array(batch.column(i), self._stored[name]) for i, name in enumerate(columns)]
            arrays = [
                recoded(array, levels[name]) if name in levels else array
                for name, array in zip(columns, arrays, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _levels_of(self, name: str) -> pa.Array:
        """Return the values of an ordered dictionary, which the first call reads from the whole column."""
        if name not in self._levels:
            levels = Levels(self._stored[name])
            for batch in self._stored_batches([name]):
                levels.add(batch.column(0))
            self._levels[name] = levels.dictionary()
        return self._levels[name]

    def _counted(self, batches: Generator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Give the batches of a query that was run again on; raise SourceError where it gives other rows by number."""
        rows = 0
        with closing(batches):
            for batch in batches:
                rows += batch.num_rows
                if self.num_rows is not None and rows > self.num_rows:
                    break
                yield batch
        if self.num_rows is not None and rows != self.num_rows:
            more = "more" if rows > self.num_rows else f"{rows:,}"
            raise SourceError(
                f"{self._name} gave {self.num_rows:,} rows when it was opened and {more} when it was run again: it is "
                "run for each pass over the table. Make it give the same rows each time, from a table or a snapshot "
                "that does not change."
            )
