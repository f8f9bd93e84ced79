"""Writing tables: streamed, and never left half-written."""

import csv
import io
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pyarrow.types as pat

from attfm.data.sources.files import COMPRESSIONS
from attfm.errors import SchemaError, SourceError
from attfm.files import written_whole

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_PACKED = [text + packed for text in _DELIMITERS for packed in COMPRESSIONS]
_KNOWN = (*_DELIMITERS, *_PACKED, ".parquet", ".arrow", ".feather")


class TableWriter:
    """Write a table to a file, batch after batch; the file appears when the last one is written.

    The rows go to a temporary name in the same folder, which is renamed when the `with` block ends, and removed
    when it ends by an exception. A writer to which nothing was written leaves no file. The path ends in .csv or .tsv
    (also .gz, .zst), .parquet, .arrow or .feather; any other raises SourceError, as one that can't be written does.

    Examples
    --------
    >>> with TableWriter("/tmp/scores.csv") as writer:
    ...     writer.write(pa.table({"row": [0, 1], "score": [0.25, 0.5]}))
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).expanduser()
        name = self._path.name.lower()
        self._compression = next((c for suffix, c in COMPRESSIONS.items() if name.endswith(suffix)), None)
        self._suffix = Path(Path(name).stem if self._compression else name).suffix
        if not name.endswith(_KNOWN):
            raise SourceError(f"{path} can't be written: its name must end in one of {', '.join(_KNOWN)}.")
        if not self._path.parent.is_dir():
            raise SourceError(f"{path} can't be written: there is no folder {self._path.parent}.")
        if self._path.is_dir():
            raise SourceError(f"{path} can't be written: it is a folder.")
        self._open = ExitStack()
        self._schema: pa.Schema | None = None
        self._writer: Any = None

    def __enter__(self) -> Self:
        self._temporary = self._open.enter_context(written_whole(self._path))
        return self

    def write(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Append rows; raise SchemaError where they lack the first ones' columns, or a type can't be written."""
        table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
        if self._suffix in _DELIMITERS:
            table = _flat(table, self._path.name)
        try:
            if self._schema is None:
                self._start(table.schema)
            elif table.schema != self._schema:
                table = _cast(table, self._schema, self._path.name)
            self._writer.write_table(table)
        except OSError as error:
            raise SourceError(f"{self._path} can't be written: {error}.") from error

    def _start(self, schema: pa.Schema) -> None:
        sink: Any = self._open.enter_context(pa.OSFile(str(self._temporary), "wb"))
        if self._compression:
            sink = self._open.enter_context(pa.CompressedOutputStream(sink, self._compression))
        if self._suffix in _DELIMITERS:
            delimiter = _DELIMITERS[self._suffix]
            header = io.StringIO()
            csv.writer(header, delimiter=delimiter, lineterminator="\n").writerow(schema.names)
            sink.write(header.getvalue().encode())
            options = pacsv.WriteOptions(include_header=False, delimiter=delimiter)
            self._writer = pacsv.CSVWriter(sink, schema, write_options=options)
        elif self._suffix == ".parquet":
            self._writer = pq.ParquetWriter(sink, schema)
        else:
            self._writer = pa.ipc.new_file(sink, schema)
        self._open.callback(self._writer.close)
        self._schema = schema

    def __exit__(self, kind: type[BaseException] | None, *details: Any) -> None:
        try:
            self._open.__exit__(kind, *details)
        except OSError as problem:
            if kind is None:
                raise SourceError(f"{self._path} can't be written: {problem}.") from problem


def _flat(table: pa.Table, file: str) -> pa.Table:
    """Return the table with dictionaries decoded, as CSV wants it."""
    columns = []
    for name, column in zip(table.schema.names, table.columns, strict=True):
        if pat.is_nested(column.type):
            raise SchemaError(f"Column '{name}' ({column.type}) can't be written to {file}: use .parquet or .arrow.")
        columns.append(column.cast(column.type.value_type) if pat.is_dictionary(column.type) else column)
    return pa.table(columns, names=table.schema.names)


def _cast(table: pa.Table, schema: pa.Schema, file: str) -> pa.Table:
    if table.schema.names != schema.names:
        raise SchemaError(f"{file} has the columns {', '.join(schema.names)}, not {', '.join(table.schema.names)}.")
    try:
        return table.cast(schema)
    except pa.ArrowInvalid as error:
        raise SchemaError(f"Rows of other types than the first can't be written to {file}: {error}.") from error
