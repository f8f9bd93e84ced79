"""Splits by a column: in order of time, or with all rows of a group on one side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from attfm.config import Reading
from attfm.data.arrow_columns import read_categories
from attfm.data.arrow_types import is_scalar, is_text, plain, value_type
from attfm.data.bad_values import BadValues
from attfm.data.folds import Grouping
from attfm.data.schema import Schema
from attfm.data.sources.source import Source
from attfm.data.stored_terms import StoredTerms
from attfm.data.texts import PLAIN, as_dates, typed
from attfm.errors import ConfigError, DataError, SchemaError, no_column

_MONTH = r"^\s*(\d{4}-\d{2})\s*$"


@dataclass(frozen=True)
class TimeSplit:
    """Rows are divided in order of time: trained on the past, stopped by what comes next, measured on the last.

    Rows of equal times stay on one side, whatever the fractions say. Every row needs a time.

    Parameters
    ----------
    column : str, the column of times: dates, timestamps, numbers, or text of ISO 8601. It is an input as well, unless
        it is declared ignored.

    Examples
    --------
    >>> from attfm import AFMClassifier, TimeSplit
    >>> AFMClassifier(split=TimeSplit("date")).split
    TimeSplit(column='date')
    """

    column: str

    def __str__(self) -> str:
        return f"time:{self.column}"

    @property
    def told(self) -> str:
        """What messages call it."""
        return f"by the time in '{self.column}'"

    def grouping_of(self, pieces: Sequence[pa.Array], reading: Reading) -> Grouping:
        """Return the times of all rows, given the column in its stored terms; raise DataError where some have none."""
        return Grouping(times=_times(self.column, pieces, reading), column=self.column)


@dataclass(frozen=True)
class GroupSplit:
    """Rows are divided by chance, with all rows of a group (a user, a patient, a shop) on one side.

    Every row needs a group. The groups are drawn so that a part has as many *rows* as its fraction says, nearly.

    Parameters
    ----------
    column : str, the column that names each row's group. It is an input as well, unless it is declared ignored.

    Examples
    --------
    >>> from attfm import AFMClassifier, GroupSplit
    >>> AFMClassifier(split=GroupSplit("user")).split
    GroupSplit(column='user')
    """

    column: str

    def __str__(self) -> str:
        return f"group:{self.column}"

    @property
    def told(self) -> str:
        """What messages call it."""
        return f"by whole groups of '{self.column}'"

    def grouping_of(self, pieces: Sequence[pa.Array], reading: Reading) -> Grouping:
        """Return the groups of all rows, given the column in its stored terms; raise DataError where some have none."""
        codes, _ = _distinct(self.column, pieces)
        _check_all_there(self.column, codes < 0, "groups", "Give every row a group")
        return Grouping(codes, column=self.column)


ColumnSplit = TimeSplit | GroupSplit


def split_by(text: str) -> ColumnSplit:
    """Return the split that a setting names: "time:COLUMN" or "group:COLUMN"."""
    kind, _, column = text.partition(":")
    return TimeSplit(column) if kind == "time" else GroupSplit(column)


def grouping_in(source: Source, schema: Schema, by: ColumnSplit) -> Grouping:
    """Return the times or groups of a table's rows; raise what `grouping_of_column` does."""
    check_split_column(source, by)
    return grouping_of_column([batch.column(0) for batch in source.batches([by.column])], source, schema, by)


def check_split_column(source: Source, by: ColumnSplit, *, target: str | None = None) -> None:
    """Raise an error where a table lacks the column, or it is the target."""
    if by.column not in source.schema.names:
        raise SchemaError(no_column("split", by.column, source.schema.names, source.name))
    if by.column == target:
        raise ConfigError(f"Split '{by}': '{target}' is the target. Split by another column.")


def grouping_of_column(pieces: Sequence[pa.Array], source: Source, schema: Schema, by: ColumnSplit) -> Grouping:
    """Return what the pieces of a table's column say of its rows.

    They are read as the training column was: text may hold what was a number there.

    Raises
    ------
    DataError : some values are missing, or can't be times or groups
    """
    column = next(column for column in schema.columns if column.name == by.column)
    reading = source.reading or PLAIN
    terms = StoredTerms(column.name, column.stored_type, reading, column.kept)
    return by.grouping_of([terms.apply(piece, BadValues()) for piece in pieces], reading)


def _times(column: str, pieces: Sequence[pa.Array], reading: Reading) -> NDArray[np.int64] | NDArray[np.float64]:
    """Return values in whose order the rows are: numbers, ticks, or seconds."""
    kinds = [value_type(piece.type) for piece in pieces]
    unfit = next((kind for kind in kinds if not is_scalar(kind)), None)
    if unfit is not None:
        raise DataError(f"Column '{column}' is of type {unfit}, not times. Split by a column of dates or numbers.")
    if any(is_text(kind) for kind in kinds):
        codes, texts = _distinct(column, pieces)
        times, missing = _times_of_texts(column, codes, texts, reading)
    else:
        parts = [_ticks(piece) for piece in pieces]
        times, missing = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    _check_all_there(column, missing, "times", "Give every row a time")
    return times


def codes_of(column: str, pieces: Sequence[pa.Array]) -> NDArray[np.int64]:
    """Return codes of a column's values, int64 (rows,), in the order in which they are met, -1 where missing."""
    return _distinct(column, pieces)[0]


def _distinct(column: str, pieces: Sequence[pa.Array]) -> tuple[NDArray[np.int64], pa.Array]:
    """Return the codes of values, in the order in which they are met, -1 where missing, and their canonical texts."""
    bad = BadValues()
    encoded = []
    for piece in pieces:
        codes, texts = read_categories(piece, column=column, bad=bad)
        missing = np.append(texts.is_null().to_numpy(zero_copy_only=False), True)[codes]
        encoded.append(texts.take(pa.array(codes, mask=missing)))
    bad.raise_if_any(sum(map(len, pieces)))
    values = pa.chunked_array(encoded, pa.large_string()).dictionary_encode().unify_dictionaries().combine_chunks()
    return pc.fill_null(values.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False), values.dictionary


def _times_of_texts(
    column: str, codes: NDArray[np.int64], texts: pa.Array, reading: Reading
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the times of rows, as codes into texts, and which are missing: numbers where all are, else instants."""
    values, lost = typed(texts, pa.float64(), reading)
    if lost.any():
        values, lost, _ = as_dates(pc.replace_substring_regex(texts, _MONTH, r"\1-01"), "UTC", reading)
    if lost.any():
        rows = np.flatnonzero(lost[codes] & (codes >= 0))
        first = texts[int(codes[rows[0]])].as_py()
        raise DataError(
            f"Column '{column}', by which rows are split in order of time: {len(rows):,} of {len(codes):,} values are "
            f"neither dates nor numbers (first: {first!r:.60}, row {rows[0]:,}). Write them as ISO 8601 (2024-03-01 or "
            "2024-03-01T12:30:00), or split by another column."
        )
    ticks, missing = _ticks(values)
    return np.append(ticks, 0)[codes], np.append(missing, True)[codes]


def _ticks(values: pa.Array) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return numbers, truths, dates or times in a form that sorts as they do, and which are missing."""
    values = plain(values)
    if types.is_dictionary(values.type):
        codes = pc.fill_null(values.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
        ticks, missing = _ticks(values.dictionary)
        return np.append(ticks, 0)[codes], np.append(missing, True)[codes]
    t = values.type
    if types.is_floating(t) or types.is_decimal(t) or types.is_null(t):
        numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return numbers, np.isnan(numbers)
    missing = values.is_null().to_numpy(zero_copy_only=False)
    if types.is_date(t):
        values = values.cast(pa.timestamp("ms"))
    elif types.is_time32(t) or types.is_boolean(t):
        values = values.cast(pa.int32())
    try:
        whole = values.cast(pa.int64())
    except pa.ArrowInvalid:  # unsigned ones that are too large
        whole = values.cast(pa.float64(), safe=False)
    return pc.fill_null(whole, 0).to_numpy(zero_copy_only=False), missing


def _check_all_there(column: str, missing: NDArray[np.bool_], what: str, advice: str) -> None:
    rows = np.flatnonzero(missing)
    if len(rows):
        raise DataError(
            f"Column '{column}', by which rows are split: {len(rows):,} of {len(missing):,} {what} are missing "
            f"(first: row {rows[0]:,}). {advice}, or leave out the rows without."
        )
