"""The top of a delimited text file: its separator, its column names and where its rows begin."""

import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from attfm.config import Reading
from attfm.data.sources.files import DataFile
from attfm.data.sources.in_memory import check_names
from attfm.data.sources.text_stream import TextStream
from attfm.errors import SourceError

SEPARATORS = (",", ";", "\t", "|")
_OF_SUFFIX = {".tsv": "\t", ".tab": "\t", ".psv": "|"}
_SPELLED = {"\\t": "\t", "tab": "\t", "space": " "}  # as they come from a command line
_INDEX_HINT = " If it is a pandas index, write the file by to_csv(..., index=False)."
_NAMES_HINT = " If the first row of the file is no header, pass names=."
_COMMENT_MARKS = ("#", "//", "%", ";")
_SAMPLE = 1 << 20
_LONGEST = 1 << 26


@dataclass(frozen=True)
class Heading:
    """How the rows are to be read: their separator, the names of their columns, and how many lines lie before them."""

    separator: str
    names: list[str]
    skip: int


def read_heading(file: DataFile, stream: TextStream, reading: Reading) -> Heading:
    """Look at the first rows of a file, whose stream stays at its start.

    A first line "sep=;", as Excel has it, names the separator.

    Raises SourceError where it is empty or the options don't fit it, SchemaError where names are empty or doubled.
    """
    separator, skip_rows = _SPELLED.get(reading.separator or "", reading.separator), reading.skip_rows
    if separator is not None and (len(separator) != 1 or separator in '"\r\n'):
        raise SourceError(f"separator={separator!r} can't be used: give one character, for example ';' or '\\t'.")
    lines = _sample(stream, skip_rows)[skip_rows:]
    if lines and (told := re.fullmatch(r"(?i)\ufeff?\"?sep=(.)\"?\s*", lines[0])):
        separator, skip_rows, lines = separator or told[1], skip_rows + 1, lines[1:]
    if not "".join(lines).strip():
        after = f" after the first {skip_rows} lines" if skip_rows else ""
        raise SourceError(f"{file.name} is empty{after}: a table needs a header and at least one row.")
    found = separator or _detect_separator(lines, file.suffixes[0])
    cells, line_count = _first_record(lines, found, file.name)
    stripped = [cell.strip() for cell in cells]
    if reading.names is None:
        if reading.comment is None and stripped[0].startswith(_COMMENT_MARKS):
            _check_comment(stripped, lines, found, file.name)
        if len(cells) == 1:
            _check_one_column(stripped[0], lines, found, file.name)
        is_index = stripped[0] == "" and all(stripped[1:])  # as pandas writes it
        check_names(stripped, f"the header of {file.name}", _INDEX_HINT if is_index else _NAMES_HINT)
        return Heading(found, stripped, skip_rows + line_count)
    given = [str(name) for name in reading.names]
    check_names(given, "names=")
    if len(cells) != len(given):
        fitting = (s for s in (*SEPARATORS, " ") if len(_first_record(lines, s, file.name)[0]) == len(given))
        likely = next(fitting, None) if len(given) > 1 else None
        hint = f"Pass separator={likely!r}, which gives {len(given)}." if likely else "Give one for each column."
        raise SourceError(
            f"{file.name} has {len(cells)} cells in its first row (separated by {found!r}), but {len(given)} names "
            f"are given. {hint}"
        )
    # The same names as a header are no row.
    return Heading(found, given, skip_rows + (line_count if stripped == given else 0))


def _check_comment(cells: Sequence[str], lines: Sequence[str], separator: str, file: str) -> None:
    """Raise SourceError where the first line is no header but a comment: the rows have another number of cells."""
    mark = next(mark for mark in _COMMENT_MARKS if cells[0].startswith(mark))
    sizes = {len(record) for record in _records([line for line in lines[:50] if not line.startswith(mark)], separator)}
    if len(sizes) == 1 and sizes != {len(cells)}:
        raise SourceError(
            f"The first line of {file} looks like a comment: {lines[0].strip()[:60]!r}. Pass comment={mark[0]!r} "
            f"(--comment '{mark[0]}'), or the number of lines to pass over by skip_rows= (--skip-rows)."
        )


@contextmanager
def long_cells() -> Iterator[None]:
    """Let the csv module read cells of any length for a while."""
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _sample(stream: TextStream, skip_rows: int) -> list[str]:
    """Return the whole lines of the first megabyte; more where there would be none behind those to skip."""
    size = _SAMPLE
    while True:
        text = stream.peek(size)
        # newline="": lines end where the csv module ends them, and their ends are kept.
        lines = list(io.StringIO(text.decode("utf-8", "ignore").removeprefix("\ufeff"), newline=""))
        if len(text) < size or size >= _LONGEST:
            return lines
        if len(lines) > skip_rows + 1:
            return lines[:-1]  # the last one may be cut
        size *= 4


def _detect_separator(lines: Sequence[str], suffix: str) -> str:
    """Return the separator that gives the same, largest number of cells in the first rows."""
    if suffix in _OF_SUFFIX:
        return _OF_SUFFIX[suffix]
    best, most = ",", 1
    for separator in SEPARATORS:
        sizes = [len(cells) for cells in _records(lines[:50], separator)]
        if len(set(sizes)) == 1 and sizes[0] > most:
            best, most = separator, sizes[0]
    if most > 1:
        return best
    # Ragged by any of them: the first row alone, which then leads to an error that names the line.
    return max(SEPARATORS, key=lambda separator: len(_records(lines[:50], separator)[0]))


def _records(lines: Sequence[str], separator: str) -> list[list[str]]:
    """Return the rows that are not blank; at least one."""
    records: list[list[str]] = []
    with long_cells(), suppress(csv.Error):  # those before an error are sample enough
        records.extend(csv.reader(lines, delimiter=separator))
    return [cells for cells in records if cells] or [[""]]


def _first_record(lines: Sequence[str], separator: str, file: str) -> tuple[list[str], int]:
    """Return the cells of the first row that is not blank, and the number of lines up to its end."""
    reader = csv.reader(lines, delimiter=separator)
    try:
        with long_cells():
            return next(cells for cells in reader if cells), reader.line_num
    except csv.Error as error:
        raise SourceError(f"The first row of {file} can't be read: {error}.") from error


def _check_one_column(header: str, lines: Sequence[str], separator: str, file: str) -> None:
    """Raise SourceError if the only column looks like several with another separator between them."""
    others = [other for other in SEPARATORS if other != separator and other in header]
    spaces = {line.strip().count(" ") for line in lines[:20] if line.strip()}
    if not others and separator != " " and len(spaces) == 1 and min(spaces) >= 2:
        others = [" "]
    if others:
        raise SourceError(
            f"{file} has one column only when it is separated by {separator!r}, but its header contains "
            f"{others[0]!r}: {header[:80]!r}. Pass separator={others[0]!r} (--separator {others[0]!r})."
        )
