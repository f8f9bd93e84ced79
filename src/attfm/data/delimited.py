"""Delimited text (CSV and its kin): types over the whole file, streaming, errors with a line number."""

import csv
import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from attfm.data.files import DataFile
from attfm.data.tables import check_names
from attfm.data.text import TextStream, known_encoding
from attfm.errors import SourceError

NULL_VALUES = (
    *("", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "<NA>", "#N/A", "#N/A N/A"),
    *("#NA", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN"),
)
SEPARATORS = (",", ";", "\t", "|")
# Text that stands behind the last row while the file is checked: a quote that is never closed swallows it.
_END = "__attfm_end_of_file__"
_BLOCK_SIZES = (1 << 23, 1 << 26, 1 << 29)
_SAMPLE = 1 << 20
_TIMESTAMPS = (pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.timestamp("ns"))


class DelimitedFile:
    """A text file of rows, checked and typed by one pass when it is opened.

    Parameters
    ----------
    file : where it is
    names : column names of a file without a header; None: the first row holds them
    separator : one character; None: by the extension and the first rows
    null_values : markers of a missing cell besides NULL_VALUES
    encoding : of the text, as Python names it
    skip_rows : lines to pass over at the top

    Raises
    ------
    SourceError : empty, ragged, not text of that encoding, a quote never closed, wrong number of names
    SchemaError : column names are empty or doubled
    """

    def __init__(
        self,
        file: DataFile,
        *,
        names: Sequence[str] | None = None,
        separator: str | None = None,
        null_values: Sequence[str] | None = None,
        encoding: str = "utf-8",
        skip_rows: int = 0,
    ) -> None:
        self._file = file
        self._encoding = known_encoding(encoding)
        self._null_values = [*NULL_VALUES, *(null_values or ())]
        self._read_head(names, separator, skip_rows)
        columns, self.num_rows = self._scan()
        self._columns = dict(zip(self._names, columns, strict=True))
        self.schema = pa.schema([(name, column.type) for name, column in self._columns.items()])

    def read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows from the top, with the given columns."""
        types = {name: self._columns[name].read_type for name in columns}
        schema = pa.schema([self.schema.field(name) for name in columns])
        try:
            stream = TextStream(self._file, self._encoding)
            with self._reader(stream, self._block_size, types) as reader:
                for batch in reader:
                    cells = zip(columns, batch.columns, strict=True)
                    arrays = [self._columns[name].convert(column, self._null_values) for name, column in cells]
                    yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        except pa.ArrowInvalid as error:
            raise SourceError(f"{self._file.name} changed while it was read: {error}") from error

    def _read_head(self, names: Sequence[str] | None, separator: str | None, skip_rows: int) -> None:
        """Find the separator, the column names and the number of lines before the first row."""
        name = self._file.name
        with TextStream(self._file, self._encoding, check=True) as stream:
            text = stream.read(_SAMPLE).decode("utf-8", "ignore").removeprefix("\ufeff")
        lines = text.splitlines(keepends=True)
        if len(text) >= _SAMPLE // 2 and len(lines) > 1:
            lines.pop()  # may be cut
        body = lines[skip_rows:]
        if not "".join(body).strip():
            after = f" after the {skip_rows} lines passed over" if skip_rows else ""
            raise SourceError(f"{name} is empty{after}: a table needs a header and at least one row.")
        self._separator = separator or _detect_separator(body, self._file.suffixes[0])
        if len(self._separator) != 1 or self._separator in '"\r\n':
            raise SourceError(f"separator={separator!r} can't be used: give one character, for example ',' or '\\t'.")
        first, line_count = _first_record(body, self._separator, name)
        if names is None:
            self._names = [cell.strip() for cell in first]
            self._skip = skip_rows + line_count
            check_names(self._names, f"the header of {name}", self._header_hint())
            if len(first) == 1:
                _check_one_column(first[0], body, self._separator, name)
            return
        self._names = [str(n) for n in names]
        check_names(self._names, "names=")
        if len(first) != len(self._names):
            likely = next(
                (s for s in (*SEPARATORS, " ") if len(_first_record(body, s, name)[0]) == len(self._names)), None
            )
            hint = (
                f"The cells seem to be separated by {likely!r}: pass separator={likely!r}."
                if likely
                else ("Give one name for each column.")
            )
            raise SourceError(
                f"{name} has {len(first)} cells in its first row, but {len(self._names)} names are given. {hint}"
            )
        # Names that are also there as a header are no row.
        same = [cell.strip() for cell in first] == self._names
        self._skip = skip_rows + (line_count if same else 0)

    def _header_hint(self) -> str:
        if self._names[0] == "" and all(self._names[1:]):  # as pandas writes its index
            return " If it is a pandas index, write the file by to_csv(..., index=False)."
        return " If the first row of the file is no header, pass names=."

    def _scan(self) -> tuple[list["_Column"], int]:
        for self._block_size in _BLOCK_SIZES:
            try:
                return self._scan_blocks()
            except pa.ArrowInvalid as error:
                # A row longer than a block; no other message of pyarrow has this word (a test pins it).
                if "straddl" not in str(error):
                    raise SourceError(
                        f"{self._file.name} can't be read as text separated by {self._separator!r}: {error}"
                    ) from error
        raise SourceError(
            f"{self._file.name} has a row longer than {_BLOCK_SIZES[-1] >> 20} MB: most likely a quote that is "
            "never closed."
        )

    def _scan_blocks(self) -> tuple[list["_Column"], int]:
        """Read all cells as strings, and find each column's type."""
        ending = "\n" + self._separator.join([_END] * len(self._names))
        bad_rows: list[pacsv.InvalidRow] = []

        def keep(row: pacsv.InvalidRow) -> str:
            bad_rows.append(row)
            return "error"

        columns = [_Column(name) for name in self._names]
        rows = 0
        held: pa.RecordBatch | None = None  # the last batch so far, which may end with _END
        stream = TextStream(self._file, self._encoding, check=True, ending=ending.encode())
        try:
            with self._reader(stream, self._block_size, dict.fromkeys(self._names, pa.string()), keep) as reader:
                for batch in reader:
                    if batch.num_rows and held is not None:
                        self._observe(columns, held)
                        rows += held.num_rows
                    held = batch if batch.num_rows else held
        except pa.ArrowInvalid as error:
            if not bad_rows:
                raise
            raise self._ragged(bad_rows[0], stream.lines) from error
        last = [] if held is None else [str(column[-1]) for column in held.columns]
        if held is None or last[0] != _END:
            raise self._unclosed(stream.lines, sum(cell.count("\n") for cell in last))
        held = held.slice(0, held.num_rows - 1)
        self._observe(columns, held)
        rows += held.num_rows
        if rows == 0:
            raise SourceError(f"{self._file.name} has a header but no rows: a table needs at least one row.")
        return columns, rows

    def _observe(self, columns: Sequence["_Column"], batch: pa.RecordBatch) -> None:
        for column, cells in zip(columns, batch.columns, strict=True):
            try:
                column.observe(cells, self._null_values)
            except _NulCell:
                raise SourceError(
                    f"{self._file.name} has a NUL byte in column '{column.name}': it is damaged, or not text."
                ) from None

    def _reader(
        self, stream: "TextStream", block_size: int, types: dict[str, pa.DataType], on_bad_row: object = None
    ) -> pacsv.CSVStreamingReader:
        return pacsv.open_csv(
            stream,
            read_options=pacsv.ReadOptions(block_size=block_size, skip_rows=self._skip, column_names=self._names),
            parse_options=pacsv.ParseOptions(
                delimiter=self._separator, newlines_in_values=True, invalid_row_handler=on_bad_row
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=types,
                include_columns=list(types),
                null_values=self._null_values,
                strings_can_be_null=True,
            ),
        )

    def _ragged(self, row: pacsv.InvalidRow, lines: int) -> SourceError:
        if _END in row.text:
            return self._unclosed(lines, row.text.count("\n"))
        line = self._line_of_bad_row(row.expected_columns)
        where = f"line {line} of {self._file.name}" if line else f"a row of {self._file.name}"
        return SourceError(
            f"{where[0].upper()}{where[1:]} has {row.actual_columns} cells, but {row.expected_columns} are expected: "
            f"{_short(row.text)}. Correct the row, or quote cells that contain {self._separator!r}."
        )

    def _unclosed(self, lines: int, swallowed: int) -> SourceError:
        return SourceError(
            f'{self._file.name} has a quote (") that is never closed, in the row that starts at line '
            f"{lines + 1 - swallowed}: close it, or double it inside of a quoted cell."
        )

    def _line_of_bad_row(self, expected: int) -> int | None:
        """Return the line of the first row with another number of cells; None if it can't be told."""
        with TextStream(self._file, self._encoding) as stream:
            text = io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8-sig", newline="")
            for _ in range(self._skip):
                text.readline()
            reader = csv.reader(text, delimiter=self._separator)
            line = self._skip
            try:
                for cells in reader:
                    if cells and len(cells) != expected:
                        return line + 1
                    line = self._skip + reader.line_num
            except (csv.Error, UnicodeDecodeError):  # a cell longer than the module takes
                return None
        return None


class _NulCell(Exception):
    pass


class _Column:
    """The type of one column, narrowed block after block."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.type = pa.null()
        self.spaced = False  # some cell has spaces around it

    @property
    def read_type(self) -> pa.DataType:
        """The type that pyarrow's reader is asked for: it doesn't take spaces around missing cells and dates."""
        native = not self.spaced and (pa.types.is_int64(self.type) or pa.types.is_float64(self.type))
        return self.type if native else pa.string()

    def observe(self, cells: pa.StringArray, null_values: Sequence[str]) -> None:
        """Widen the type until it holds these cells too."""
        trimmed = _trim(cells, null_values)
        self.spaced = self.spaced or trimmed is not cells
        if trimmed.null_count == len(trimmed):
            return
        if pa.types.is_null(self.type):
            candidates = [pa.int64(), pa.float64(), pa.bool_(), *_TIMESTAMPS]
        elif pa.types.is_int64(self.type):
            candidates = [pa.int64(), pa.float64()]
        else:
            candidates = [] if pa.types.is_string(self.type) else [self.type]
        self.type = next((type_ for type_ in candidates if _fits(trimmed, type_)), pa.string())
        if pa.types.is_string(self.type) and pc.any(pc.match_substring(trimmed, "\0")).as_py():
            raise _NulCell

    def convert(self, cells: pa.Array, null_values: Sequence[str]) -> pa.Array:
        """Return the cells, read as `read_type`, in the type of the column."""
        if cells.type != pa.string():
            return cells
        return _cast(_trim(cells, null_values), self.type)


def _trim(cells: pa.StringArray, null_values: Sequence[str]) -> pa.StringArray:
    """Return the cells without spaces around them; the same object where there were none."""
    trimmed = pc.ascii_trim(cells, characters=" \t")
    if pc.sum(pc.binary_length(trimmed)).as_py() == pc.sum(pc.binary_length(cells)).as_py():
        return cells
    return pc.if_else(pc.is_in(trimmed, pa.array(null_values)), None, trimmed)


def _cast(cells: pa.StringArray, type_: pa.DataType) -> pa.Array:
    if pa.types.is_null(type_):
        return pa.nulls(len(cells))
    return pc.cast(pc.ascii_lower(cells) if pa.types.is_boolean(type_) else cells, type_)


def _fits(cells: pa.StringArray, type_: pa.DataType) -> bool:
    # A cast words an error for each bad cell before it raises the first: most types are ruled out by a few cells.
    return _fits_all(cells.drop_null()[:16], type_) and _fits_all(cells, type_)


def _fits_all(cells: pa.StringArray, type_: pa.DataType) -> bool:
    if pa.types.is_boolean(type_):  # a cast would take 0 and 1 too
        words = pa.array(["true", "false"])
        return bool(pc.all(pc.is_in(pc.ascii_lower(cells.drop_null()), words)).as_py())
    try:
        pc.cast(cells, type_)
    except pa.ArrowInvalid:
        return False
    # Whole numbers that only a float64 could hold are ids; it would round them to others.
    return not (pa.types.is_float64(type_) and pc.any(pc.match_substring_regex(cells, r"^[+-]?[0-9]{17,}$")).as_py())


def _detect_separator(lines: Sequence[str], suffix: str) -> str:
    """Return the separator that gives the same, largest number of cells in the first rows."""
    if suffix in (".tsv", ".tab"):
        return "\t"
    if suffix == ".psv":
        return "|"
    best, cells = ",", 1
    for separator in SEPARATORS:
        rows = [row for row in _records(lines[:50], separator) if row][:20]
        if rows and len({len(row) for row in rows}) == 1 and len(rows[0]) > cells:
            best, cells = separator, len(rows[0])
    if cells > 1:
        return best
    return max(SEPARATORS, key=lambda s: len(_records(lines[:50], s)[0]))  # no luck: ask the first row alone


def _records(lines: Sequence[str], separator: str) -> list[list[str]]:
    records = []
    try:
        for cells in csv.reader(lines, delimiter=separator):
            records.append(cells)  # one by one: those before an error count
    except csv.Error:
        pass  # a cell longer than the module takes: what came before it is sample enough
    return [cells for cells in records if cells] or [[""]]


def _first_record(lines: Sequence[str], separator: str, name: str) -> tuple[list[str], int]:
    """Return the cells of the first row that is not blank, and the number of lines up to its end."""
    reader = csv.reader(lines, delimiter=separator)
    try:
        cells = next(cells for cells in reader if cells)
    except csv.Error as error:
        raise SourceError(f"The first row of {name} can't be read: {error}.") from error
    return cells, reader.line_num


def _check_one_column(header: str, lines: Sequence[str], separator: str, file: str) -> None:
    others = [s for s in SEPARATORS if s != separator and s in header]
    spaces = {line.strip().count(" ") for line in lines[:20] if line.strip()}
    if not others and len(spaces) == 1 and min(spaces) >= 2:
        others = [" "]
    if others:
        raise SourceError(
            f"{file} has only one column when it is separated by {separator!r}, and its header {_short(header)} "
            f"contains {others[0]!r}: pass separator={others[0]!r} (--separator {others[0]!r})."
        )


def _short(text: str, length: int = 80) -> str:
    return repr(text if len(text) <= length else text[: length - 3] + "...")
