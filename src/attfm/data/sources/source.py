"""Tables in: files of several kinds and table objects, as batches of Arrow columns that can be read again."""

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from attfm.config import Reading
from attfm.data.sources.csv import DelimitedFile
from attfm.data.sources.database_uri import DatabaseUri, is_database
from attfm.data.sources.duckdb_relation import DuckdbRelation, is_relation
from attfm.data.sources.file_set import FileSet
from attfm.data.sources.files import DataFile, known_kinds
from attfm.data.sources.in_memory import as_arrow
from attfm.data.sources.libsvm import LibsvmFile
from attfm.data.sources.text_set import TextSet
from attfm.data.sources.writer import TableWriter
from attfm.errors import ConfigError, SchemaError, SourceError, absent

__all__ = ["MAX_BATCH_ROWS", "Reader", "Source", "TableWriter", "open_source"]

MAX_BATCH_ROWS = 65_536
MOST_KEPT_BYTES = 1 << 28
_TEXT = (DelimitedFile, TextSet)
NumberedBatch = tuple[int, pa.RecordBatch]  # the number of its first row in the table, and some rows


class Reader(Protocol):
    """What a kind of table gives: its columns, its rows where their number is known, and a pass over them."""

    @property
    def schema(self) -> pa.Schema: ...

    @property
    def num_rows(self) -> int | None: ...

    def read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows from the top, with the given columns, in batches of any size."""


@runtime_checkable
class Divisible(Protocol):
    """A reader whose files other processes may read, each by itself."""

    def parts(self) -> Sequence[Reader]: ...


class Source:
    """A table that can be read again and again, batch after batch; its reader is asked for each pass.

    Attributes
    ----------
    name : str, what messages call it, for example "churn.csv" or "DataFrame"
    schema : pyarrow.Schema, of all columns
    num_rows : int or None, where it is known
    reading : Reading or None, how its text is read; None: as that of the training table
    fingerprint : str, the same only of the same files with the same sizes and times; of a table in memory its own
    is_lasting : bool, whether another process that opens the table finds the same fingerprint
    skipped : tuple of str, what is wrong with files that were left out
    """

    def __init__(
        self,
        name: str,
        reader: Reader,
        reading: Reading | None = None,
        *,
        fingerprint: str | None = None,
        skipped: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.schema = reader.schema
        self.num_rows = reader.num_rows
        self.reading = reading
        self.skipped = skipped
        self.is_lasting = fingerprint is not None
        self.fingerprint = uuid.uuid4().hex if fingerprint is None else fingerprint
        self._reader = reader
        self._most_rows: int | None = None  # that are read; None: all

    def __repr__(self) -> str:
        rows = "?" if self.num_rows is None else self.num_rows
        return f"Source({self.name!r}, rows={rows}, columns={len(self.schema)})"

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows from the top, at most 65,536 in a batch and none empty.

        Parameters
        ----------
        columns : sequence of str or None, those wanted, in that order; None for all

        Raises
        ------
        SchemaError : a column is not there
        SourceError : the file is damaged
        """
        return self._sliced(self._checked(self.schema.names if columns is None else columns))

    def _checked(self, columns: Sequence[str]) -> list[str]:
        """Return the columns; raise SchemaError where there are none, or some of them are absent."""
        if not columns:
            raise SchemaError(f"No columns of {self.name} were asked for: name at least one.")
        lacking = absent(columns, self.schema.names)
        if lacking:
            has = ", ".join(self.schema.names[:20]) + (", ..." if len(self.schema) > 20 else "")
            raise SchemaError(f"{self.name} has no column {', '.join(lacking)}. It has {has}.")
        return list(columns)

    def _sliced(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        left = self._most_rows
        for batch in self._reader.read(columns):
            for start in range(0, batch.num_rows, MAX_BATCH_ROWS):
                piece = batch.slice(start, MAX_BATCH_ROWS if left is None else min(left, MAX_BATCH_ROWS))
                yield piece
                if left is not None:
                    left -= piece.num_rows
                    if left == 0:
                        return

    def head(self, rows: int) -> "Source":
        """Return the source of its first rows, which are read for it and kept in memory, but for those of text."""
        fingerprint = f"{self.fingerprint}:{rows}"
        first = Source(self.name, self._reader, self.reading, fingerprint=fingerprint)
        first.num_rows = None if self.num_rows is None else min(self.num_rows, rows)
        first._most_rows = rows
        if self.is_text:
            return first
        # Readers of Arrow files read far ahead: each pass over some rows would take the time of many.
        table = pa.Table.from_batches(first.batches(), self.schema)
        return Source(self.name, _TableReader(table), self.reading, fingerprint=fingerprint)

    @property
    def is_text(self) -> bool:
        """Whether it is delimited text, whose cells have no types of their own."""
        return isinstance(self._reader, _TEXT)

    def parts(self) -> "list[Source]":
        """Return the sources of its files, in their order, whose batches are those of the whole.

        They can be given to another process. Of a table that is not files there are none.
        """
        if self._most_rows is not None or not isinstance(self._reader, Divisible):
            return []
        return [Source(self.name, part, self.reading, fingerprint=self.fingerprint) for part in self._reader.parts()]

    def verbatim(self, names: Sequence[str]) -> "Source":
        """Return the same table, where it is text with some columns as their cells stand, but for the spaces around."""
        if not isinstance(self._reader, _TEXT):
            return self
        cells = Source(self.name, self._reader.verbatim(names), self.reading, fingerprint=self.fingerprint)
        cells._most_rows = self._most_rows
        return cells

    def place(self, row: int) -> str:
        """Return where people find a row, by its number from 0: "line 18" of text, else "row 16"."""
        place = self._reader.place_of(row) if isinstance(self._reader, _TEXT) else None
        return place or f"row {row:,}"

    def kept(self, columns: Sequence[str], *, most_bytes: int = MOST_KEPT_BYTES) -> "Source":
        """Return the source of some columns that keeps its rows in memory when they are first read, if they fit.

        A small file is then read once for any number of passes; a large one is read for each pass, as ever.
        """
        kept = _Kept(self, self._checked(columns), most_bytes)
        return Source(self.name, kept, self.reading, fingerprint=self.fingerprint)


def numbered(batches: Iterable[pa.RecordBatch], first: int = 0) -> Iterator[NumberedBatch]:
    """Yield the batches, each with the number of its first row."""
    for batch in batches:
        yield first, batch
        first += batch.num_rows


class _Kept:
    """Columns of a source, from memory once a whole pass has shown that they fit."""

    def __init__(self, source: Source, columns: Sequence[str], most_bytes: int) -> None:
        self.schema = pa.schema([source.schema.field(name) for name in columns])
        self.num_rows = source.num_rows
        self._source = source
        self._most_bytes = most_bytes
        self._batches: list[pa.RecordBatch] | None = None
        self._fits = True  # as far as is known

    def read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        if self._fits:
            yield from (batch.select(columns) for batch in self._batches or self._keeping())
        else:
            yield from self._source.batches(columns)

    def _keeping(self) -> Iterator[pa.RecordBatch]:
        batches, size = [], 0
        for batch in self._source.batches(self.schema.names):
            if self._fits:
                batches.append(batch)
                size += batch.nbytes
                if size > self._most_bytes:
                    self._fits = False
                    batches.clear()
            yield batch
        if self._fits:
            self._batches = batches


def open_source(
    data: object,
    reading: Reading | None = None,
    *,
    query: str | None = None,
    stored: Mapping[str, pa.DataType] | None = None,
    skip_bad_files: bool = False,
    **options: Any,
) -> Source:
    """Open a table: a file, a folder of files, a query on a database, or a table object.

    Parameters
    ----------
    data : object, path or URI of delimited text, Parquet, Arrow or libsvm/libfm (text also as .gz or .zst); path of a
        folder of such files of one kind, or a pattern of their names (clicks/2024-*.csv.gz), in which folders named
        key=value give columns; pandas or polars DataFrame, pyarrow Table, RecordBatch, RecordBatchReader or
        Dataset, 2-D numpy array, dict of columns, list of dicts, list of rows, relation of DuckDB, any object with
        `__arrow_c_stream__` or `__dataframe__`; URI of a database (postgresql:// or sqlite:///); or a Source
    reading : Reading or None, how text is read, see `attfm.config.Reading`; `names` are for an array too (else x0, x1,
        ...)
    query : str or None, which rows of a database, as SQL; it is run again for each pass and should give the same rows
    stored : mapping of str to pyarrow.DataType, or None
        Types that the columns had in training: text is left to the encoder, which reads it so, and columns that are
        not among them stay as their cells stand. None: types are found in the cells.
    skip_bad_files : bool, whether files of a folder or pattern that can't be read to their end are left out; all of
        them are read for that. `Source.skipped` says which were.
    options : fields of `Reading`, in place of those of `reading`

    Returns
    -------
    source : Source, delimited text and libsvm files have been read once, to check them and find their types

    Raises
    ------
    SourceError : it can't be read, or is no table
    SchemaError : column names are empty or doubled
    ConfigError : an option is unknown or can't be used, or a database has no query
    MissingExtraError : the drivers of databases are not installed

    Examples
    --------
    >>> source = open_source({"age": [39, 50], "job": ["clerk", None]})
    >>> source.num_rows, [batch.num_rows for batch in source.batches(["job"])]
    (2, [2])
    """
    if isinstance(data, Source):
        return data
    reader: Reader
    given = {name: value for name, value in options.items() if value is not None}
    reading = (reading or Reading()).updated(Reading.parse(given, where="the options of reading"))
    names = reading.names
    if query is not None or is_database(data):
        return _of_query(data, query, reading, stored)
    if not isinstance(data, (str, Path)):
        name = type(data).__name__
        if type(data).__module__ == "pyarrow._dataset" and names is None:
            from attfm.data.sources.arrow_files import ArrowDataset

            return Source(name, ArrowDataset(f"the {name}", data))
        if is_relation(data) and names is None:
            return Source(name, DuckdbRelation(data))
        return Source(name, _TableReader(as_arrow(data, names)))
    files = FileSet.locate(data)
    if files is not None:
        files, skipped = _whole_files(files, reading, stored) if skip_bad_files else (files, ())
        reader = _reader_of(files, reading, stored)
        return Source(files.name, reader, reading, fingerprint=files.fingerprint, skipped=skipped)
    file = DataFile.locate(data)
    kind = file.kind
    if kind is None and (names is not None or reading.separator is not None):
        kind = "delimited"
    if kind is None:
        raise SourceError(
            f"{file.name} has an unknown extension. Known are {known_kinds()}; for text of another extension "
            "give separator= (--separator)."
        )
    if names is not None and kind != "delimited" and stored is None:
        raise SourceError(f"names= is for arrays and text without a header, but {file.name} has names of its own.")
    if kind == "delimited":
        reader = DelimitedFile(file, reading, stored)
    elif kind == "libsvm":
        reader = _libsvm(file, reading, stored)
    else:
        # pyarrow.dataset imports pandas where it is installed, which takes long: not before it is needed.
        from attfm.data.sources.arrow_files import open_arrow_file

        reader = open_arrow_file(file, kind)
    return Source(file.name, reader, reading, fingerprint=file.fingerprint)


def _of_query(data: object, query: str | None, reading: Reading, stored: Mapping[str, pa.DataType] | None) -> Source:
    """Open a query on the database at a URI."""
    if not isinstance(data, str) or not is_database(data):
        what = f"'{data}'" if isinstance(data, (str, Path)) else f"a {type(data).__name__}"
        raise ConfigError(
            f"query= (--query) chooses rows of a database (postgresql://user@host/name, sqlite:///file), and {what} is "
            "none: leave it out, or give the URI of the database."
        )
    uri = DatabaseUri(data)
    uri.check()
    if reading.names is not None and stored is None:
        raise SourceError(f"names= is for arrays and text without a header, but {uri} has names of its own.")
    from attfm.data.sources.sql import open_query

    reader = open_query(uri, query)
    return Source(f"the query on {uri.database}", reader, reading, fingerprint=reader.fingerprint)


def _whole_files(
    files: FileSet, reading: Reading, stored: Mapping[str, pa.DataType] | None
) -> tuple[FileSet, tuple[str, ...]]:
    """Return the files that can be read to their end, and a sentence for each of the others."""
    whole, skipped = [], []
    for file in files.files:
        try:
            reader = _reader_of(replace(files, files=(file,)), reading, stored)
            if files.kind != "delimited":  # whose rows were read when it was opened
                for _ in reader.read(reader.schema.names):
                    pass
            whole.append(file)
        except (SourceError, SchemaError) as error:
            skipped.append(str(error))
    if not whole:
        raise SourceError(f"{files.name}: none of the {len(files.files)} files can be read. {skipped[0]}")
    return replace(files, files=tuple(whole)), tuple(skipped)


def _reader_of(files: FileSet, reading: Reading, stored: Mapping[str, pa.DataType] | None) -> Reader:
    """Open the files of a set as one table."""
    if files.kind == "delimited":
        return TextSet(files, reading, stored)
    if reading.names is not None and stored is None:
        raise SourceError(f"names= is for arrays and text without a header, but {files.name} has names of its own.")
    from attfm.data.sources.arrow_files import open_arrow_set

    return open_arrow_set(files)


def _libsvm(file: DataFile, reading: Reading, stored: Mapping[str, pa.DataType] | None) -> LibsvmFile:
    """Open a libsvm file in the layout asked for, else in that of the columns in training."""
    if reading.layout != "auto" or stored is None:
        return LibsvmFile(file, layout=reading.layout)
    fields = sum(re.fullmatch(r"f\d+", name) is not None for name in stored)
    return LibsvmFile(file, layout="fields", n_fields=fields) if fields else LibsvmFile(file, layout="bag")


class _TableReader:
    """A table in memory."""

    def __init__(self, table: pa.Table) -> None:
        self.schema = table.schema
        self.num_rows = table.num_rows
        self._table = table

    def read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return iter(self._table.select(list(columns)).to_batches(max_chunksize=MAX_BATCH_ROWS))
