"""Delimited text (CSV and its kin): types over the whole file, streaming, errors with a line number."""

import copy
import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import pyarrow as pa
import pyarrow.csv as pacsv

from attfm.config import Reading
from attfm.data.sources.csv_header import long_cells, read_heading
from attfm.data.sources.csv_types import RawColumn, StoredColumn, TextColumn
from attfm.data.sources.files import DataFile
from attfm.data.sources.text_stream import TextStream, known_encoding
from attfm.data.texts import markers
from attfm.errors import SourceError

# Text that stands behind the last row while the file is checked: a quote that is never closed swallows it.
_END = "__attfm_end_of_file__"
# What pyarrow says of a row with too many or too few cells; a test pins it.
_RAGGED = re.compile(r"Expected (\d+) columns, got (\d+): ?(.*)", re.DOTALL)
_BLOCK_SIZES = (1 << 23, 1 << 26, 1 << 29)


class DelimitedFile:
    """A text file of rows, checked and typed by one pass when it is opened.

    With the types that its columns had in training, those are taken, and other columns stay as their cells stand;
    without, types are found in the cells. Raises SourceError where it is empty, ragged, not text of that encoding, or
    has a quote that is never closed.
    """

    def __init__(self, file: DataFile, reading: Reading, stored: Mapping[str, pa.DataType] | None = None) -> None:
        self._file = file
        self._reading = reading
        self._encoding = known_encoding(reading.encoding)
        self._stored = stored
        with self._open(check=True) as stream:
            self._heading = read_heading(file, stream, reading)
            columns, self.num_rows = self._scan(stream)
        self._columns = {column.name: column for column in columns}

    @property
    def schema(self) -> pa.Schema:
        """The names and types of the columns."""
        return pa.schema([(column.name, column.type) for column in self._columns.values()])

    def verbatim(self, names: Sequence[str]) -> Self:
        """Return the same file, some columns of which are text, as their cells stand but for the spaces around."""
        other = copy.copy(self)
        other._columns = {name: column.as_text() if name in names else column for name, column in self._columns.items()}
        return other

    def typed(self, types: Mapping[str, pa.DataType]) -> Self:
        """Return the same file, whose columns have these types, wider than its own where they differ."""
        other = copy.copy(self)
        other._columns = {
            name: column if column.type == types[name] else column.widened(types[name])
            for name, column in self._columns.items()
        }
        return other

    def parts(self) -> list[Self]:
        """Return the file, which is read from its top."""
        return [self]

    @property
    def name(self) -> str:
        """The name of the file."""
        return self._file.name

    def place_of(self, row: int) -> str | None:
        """Return where people find a row: "line 18", at which it begins; None if it can't be told."""
        for number, (line, _) in enumerate(self._lines()):
            if number == row:
                return f"line {line:,}"
        return None

    def _open(self, *, check: bool = False) -> TextStream:
        return TextStream(self._file, self._encoding, check=check, comment=self._reading.comment)

    def read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows from the top, with the given columns."""
        wanted = [self._columns[name] for name in columns]
        schema = pa.schema([(column.name, column.type) for column in wanted])
        types = {column.name: column.read_type for column in wanted}
        try:
            with self._open() as stream, self._reader(stream, types) as reader:
                for batch in reader:
                    cells = zip(wanted, batch.columns, strict=True)
                    arrays = [column.convert(array) for column, array in cells]
                    yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        except pa.ArrowInvalid as error:
            raise SourceError(f"{self._file.name} was changed while it was read: {error}.") from error

    def _reader(self, stream: TextStream, types: dict[str, pa.DataType]) -> pacsv.CSVStreamingReader:
        # pyarrow reads ahead in threads of its own. One that still holds a Python object when the process ends aborts
        # it, and a command that refuses a small file ends that fast: so they get memory of Arrow's where that is cheap.
        text = stream.peek(self._block_size)
        source: Any = stream
        if len(text) < self._block_size:
            memory = pa.BufferOutputStream()
            memory.write(text)
            source = pa.BufferReader(memory.getvalue())
        return pacsv.open_csv(
            source,
            read_options=pacsv.ReadOptions(
                block_size=self._block_size, skip_rows=self._heading.skip, column_names=self._heading.names
            ),
            # No handler of invalid rows: it is an object of Python's, and what refuses a file would hold it at the end.
            parse_options=pacsv.ParseOptions(delimiter=self._heading.separator, newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types=types,
                include_columns=list(types),
                null_values=markers(self._reading),
                strings_can_be_null=self._stored is None,  # else the encoder knows which cells are missing
            ),
        )

    def _scan(self, stream: TextStream) -> tuple[list[TextColumn], int]:
        """Return the typed columns and the number of rows, with blocks as long as the longest row needs."""
        for self._block_size in _BLOCK_SIZES:
            try:
                stream = self._open(check=True) if stream.closed else stream
                with stream:
                    return self._scan_blocks(stream)
            except pa.ArrowInvalid as error:
                # A row longer than a block; no other message of pyarrow has this word (a test pins it).
                if "straddl" not in str(error):
                    raise SourceError(f"{self._file.name} can't be read as delimited text: {error}.") from error
        raise SourceError(
            f"{self._file.name} has a row longer than {_BLOCK_SIZES[-1] >> 20} MB: most likely a quote that is "
            "never closed."
        )

    def _scan_blocks(self, stream: TextStream) -> tuple[list[TextColumn], int]:
        """Read all cells as strings, and find each column's type."""
        names = self._heading.names
        columns = [self._column(name) for name in names]
        stream.ending = ("\n" + self._heading.separator.join([_END] * len(names))).encode()
        rows = 0
        held: pa.RecordBatch | None = None  # the last batch so far, which may end with _END
        try:
            with self._reader(stream, dict.fromkeys(names, pa.string())) as reader:
                for batch in reader:
                    if batch.num_rows and held is not None:
                        _observe(columns, held)
                        rows += held.num_rows
                    held = batch if batch.num_rows else held
        except pa.ArrowInvalid as error:
            ragged = _RAGGED.search(str(error))
            if ragged is None:
                raise
            raise self._ragged(int(ragged[1]), int(ragged[2]), ragged[3], stream.lines) from error
        last = [] if held is None else [str(cells[-1]) for cells in held.columns]
        if held is None or last[0] != _END:
            raise self._unclosed(stream.lines, sum(cell.count("\n") for cell in last))
        held = held.slice(0, held.num_rows - 1)
        _observe(columns, held)
        rows += held.num_rows
        if rows == 0:
            raise SourceError(f"{self._file.name} has a header but no rows: a table needs at least one row.")
        return columns, rows

    def _column(self, name: str) -> TextColumn:
        if self._stored is None:
            return TextColumn(name, self._reading)
        if name not in self._stored:
            return RawColumn(name, self._reading)
        return StoredColumn(name, self._reading, self._stored[name])

    def _ragged(self, expected: int, actual: int, row: str, lines: int) -> SourceError:
        if _END in row:
            return self._unclosed(lines, row.count("\n"))
        found = self._first_ragged(expected) or (None, actual, row, False)
        line, cells, text, is_last = found
        if is_last and row.rstrip().endswith("...") and "\n" in text.strip():  # the end of a long row is not shown
            return self._unclosed(lines, text.count("\n") + 1)
        where = f"Line {line} of {self._file.name}" if line else f"A row of {self._file.name}"
        shown = text.strip() if len(text) <= 80 else f"{text[:77]}..."
        separator = self._heading.separator
        quote = "A quote seems to be unclosed." if "\n" in text.strip() else f"Quote cells that contain {separator!r}."
        if is_last and cells < expected:
            quote = "It is the last row: remove it, if it is a total or a note."
        return SourceError(
            f"{where} has {cells} {'cell' if cells == 1 else 'cells'}, but {expected} are expected: {shown!r}. {quote}"
        )

    def _unclosed(self, lines: int, swallowed: int) -> SourceError:
        return SourceError(
            f'{self._file.name} has a quote (") that is never closed, in the row that starts at line '
            f"{lines + 1 - swallowed}. Close it, or double it inside a quoted cell."
        )

    def _first_ragged(self, expected: int) -> tuple[int, int, str, bool] | None:
        """Return line, number of cells and text of the first row with another number, and whether it is the last.

        None if it can't be told.
        """
        rows = self._lines()
        for line, cells in rows:
            if len(cells) != expected:
                return line, len(cells), self._heading.separator.join(cells), next(rows, None) is None
        return None

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line at which each row begins, and its cells, as far as the csv module can tell."""
        with self._open() as stream, long_cells():
            text = io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8-sig", newline="")
            for _ in range(self._heading.skip):
                text.readline()
            reader = csv.reader(text, delimiter=self._heading.separator)
            line = self._heading.skip
            try:
                for cells in reader:
                    if cells:
                        yield line + 1, cells
                    line = self._heading.skip + reader.line_num
            except (csv.Error, UnicodeDecodeError):  # pyarrow takes some rows that the csv module doesn't
                return


def _observe(columns: Sequence[TextColumn], batch: pa.RecordBatch) -> None:
    for column, cells in zip(columns, batch.columns, strict=True):
        column.observe(cells)
