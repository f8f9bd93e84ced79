"""Tables in: files of several kinds and table objects, as batches of Arrow columns that can be read again."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from attfm.data.sources.csv import DelimitedFile
from attfm.data.sources.files import DataFile, known_kinds
from attfm.data.sources.in_memory import as_arrow
from attfm.data.sources.libsvm import Layout, LibsvmFile
from attfm.data.sources.writer import TableWriter
from attfm.errors import SchemaError, SourceError, absent

__all__ = ["MAX_BATCH_ROWS", "Source", "TableWriter", "open_source"]

MAX_BATCH_ROWS = 65_536


class _Reader(Protocol):
    schema: pa.Schema
    num_rows: int

    def read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]: ...


class Source:
    """A table that can be read again and again, batch after batch.

    Parameters
    ----------
    name : what messages call it, for example "churn.csv" or "DataFrame"
    schema : of all columns
    read : called for each pass with the names of the columns wanted; yields their batches
    num_rows : where it is known
    """

    def __init__(
        self,
        name: str,
        schema: pa.Schema,
        read: Callable[[Sequence[str]], Iterator[pa.RecordBatch]],
        num_rows: int | None = None,
    ) -> None:
        self.name = name
        self.schema = schema
        self.num_rows = num_rows
        self._read = read

    def __repr__(self) -> str:
        rows = "?" if self.num_rows is None else self.num_rows
        return f"Source({self.name!r}, rows={rows}, columns={len(self.schema)})"

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows from the top, at most 65,536 in a batch and none empty.

        Parameters
        ----------
        columns : those wanted, in that order; None for all

        Raises
        ------
        SchemaError : a column is not there
        SourceError : the file is damaged
        """
        wanted = list(self.schema.names if columns is None else columns)
        if not wanted:
            raise SchemaError(f"No columns of {self.name} were asked for: name at least one.")
        lacking = absent(wanted, self.schema.names)
        if lacking:
            has = ", ".join(self.schema.names[:20]) + (", ..." if len(self.schema) > 20 else "")
            raise SchemaError(f"{self.name} has no column {', '.join(lacking)}. It has {has}.")
        return self._sliced(wanted)

    def _sliced(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for batch in self._read(columns):
            for start in range(0, batch.num_rows, MAX_BATCH_ROWS):
                yield batch.slice(start, MAX_BATCH_ROWS)


def open_source(
    data: object,
    *,
    names: Sequence[str] | None = None,
    separator: str | None = None,
    null_values: Sequence[str] | None = None,
    encoding: str = "utf-8",
    skip_rows: int = 0,
    layout: Layout = "auto",
) -> Source:
    """Open a table: a file, a folder of files, or a table object.

    Parameters
    ----------
    data : path or URI of delimited text, Parquet, Arrow or libsvm/libfm (text also as .gz or .zst); path of a folder
        of Parquet or Arrow files; pandas or polars DataFrame, pyarrow Table, RecordBatch, RecordBatchReader or
        Dataset, 2-D numpy array, dict of columns, list of dicts, list of rows, any object with
        `__arrow_c_stream__` or `__dataframe__`; or a Source
    names : column names of text without a header, or of an array (else x0, x1, ...)
    separator : of delimited text, one character; None: by extension and first rows, among , ; tab and |
    null_values : markers of a missing cell in delimited text, besides the usual ("", NA, NaN, null, n/a, ...)
    encoding : of delimited text
    skip_rows : lines of delimited text to pass over at the top
    layout : of libsvm/libfm: "fields" gives columns f0, f1, ..., "bag" one column of maps; "auto" looks for fields

    Returns
    -------
    Source : delimited text and libsvm files have been read once, to check them and find their types

    Raises
    ------
    SourceError : it can't be read, or is no table
    SchemaError : column names are empty or doubled

    Examples
    --------
    >>> source = open_source({"age": [39, 50], "job": ["clerk", None]})
    >>> source.num_rows, [batch.num_rows for batch in source.batches(["job"])]
    (2, [2])
    """
    if isinstance(data, Source):
        return data
    if not isinstance(data, (str, Path)):
        return _object_source(data, names)
    file = DataFile.locate(data)
    kind = "folder" if file.is_folder else file.kind
    if kind is None and (names is not None or separator is not None):
        kind = "delimited"
    if kind is None:
        raise SourceError(
            f"{file.name} has an unknown extension. Known are {known_kinds()}; for text of another extension "
            "give separator= (--separator)."
        )
    if names is not None and kind != "delimited":
        raise SourceError(f"names= is for arrays and text without a header, but {file.name} has names of its own.")
    reader: _Reader
    if kind == "delimited":
        reader = DelimitedFile(
            file, names=names, separator=separator, null_values=null_values, encoding=encoding, skip_rows=skip_rows
        )
    elif kind == "libsvm":
        reader = LibsvmFile(file, layout=layout)
    else:
        # pyarrow.dataset imports pandas where it is installed, which takes long: not before it is needed.
        from attfm.data.sources.arrow_files import open_arrow_file, open_folder

        reader = open_folder(file) if kind == "folder" else open_arrow_file(file, kind)
    return Source(file.name, reader.schema, reader.read, reader.num_rows)


def _object_source(data: object, names: Sequence[str] | None) -> Source:
    kind = type(data).__name__
    if type(data).__module__ == "pyarrow._dataset" and names is None:
        from attfm.data.sources.arrow_files import ArrowDataset

        dataset = ArrowDataset(f"the {kind}", data)
        return Source(kind, dataset.schema, dataset.read, dataset.num_rows)
    table = as_arrow(data, names)

    def read(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return iter(table.select(list(columns)).to_batches(max_chunksize=MAX_BATCH_ROWS))

    return Source(kind, table.schema, read, table.num_rows)
