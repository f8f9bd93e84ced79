"""Rows of Python values as feature ids: one dict, several, or a dict of columns."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.data.bad_values import BadValues
from attfm.data.surprise import is_surprising, unknown_sentence
from attfm.errors import DataWarning, SchemaError, SourceError, absent
from attfm.serve.cells import Cell, is_scalar
from attfm.serve.columns import BagColumn, BinsColumn, CellColumn, Features, ScaledColumn
from attfm.serve.vocabulary import MISSING, UNKNOWN

Row = Mapping[str, Any]
_LEAST_ROWS = 4  # fewer unknown values are no surprise


@dataclass(frozen=True)
class Encoded:
    """Encoded rows.

    Attributes
    ----------
    ids : int32 (rows, fields), or (entries,) with offsets
    values : float32, as ids, what multiplies each feature, or None: 1
    offsets : int64 (rows · fields + 1,) or None
        Where the entries of each field of each row start, and the end; None: each has one.
    """

    ids: NDArray[np.int32]
    values: NDArray[np.float32] | None = None
    offsets: NDArray[np.int64] | None = None


class RowEncoder:
    """Reads rows by the columns of a schema.

    Parameters
    ----------
    columns : sequence of CellColumn, in the order of the schema's inputs
    starts : sequence of int, the first feature of each field
    expected_unknown : sequence of float or None, share of each field's values that is expected to be unknown
    """

    def __init__(
        self, columns: Sequence[CellColumn], starts: Sequence[int], expected_unknown: Sequence[float | None]
    ) -> None:
        self.columns, self.fields = tuple(columns), len(starts)
        self._starts, self._expected = starts, expected_unknown
        self.names = [column.name for column in columns]
        self._quick = [(column.name, column.quick(), column) for column in columns]
        self._is_plain = not any(isinstance(column, BagColumn | ScaledColumn) for column in columns)

    def encode(self, rows: object, *, warn: bool = True) -> Encoded:
        """Return the features of some rows, each read as if it came alone.

        Parameters
        ----------
        rows : a dict of values (one row), a sequence of such dicts, or a dict of columns (lists or arrays)
        warn : bool, whether a DataWarning, which shows a value, may be given

        Raises
        ------
        SchemaError : a column is absent; a value is no cell of a table
        DataError : a value can't be read as its column's kind, or is infinite; all of them are told
        SourceError : it is something else, or has no rows

        A DataWarning is given where a column's values are nearly all unknown, though few were in training.
        """
        encoded = self._encoded(rows)
        if warn and len(encoded.ids) >= _LEAST_ROWS:
            self._tell_unknown(encoded, rows)
        return encoded

    def _encoded(self, rows: object) -> Encoded:
        if isinstance(rows, Mapping):
            if self._is_row(rows):
                return self._of_rows([rows])
            return self._of_columns(rows)
        if isinstance(rows, list | tuple) and rows:
            for number, row in enumerate(rows):
                if not isinstance(row, Mapping):
                    raise SourceError(
                        f"Row {number} of the {type(rows).__name__} is a {type(row).__name__}, not a dict."
                    )
            return self._of_rows(rows)
        if isinstance(rows, list | tuple):
            raise SourceError(f"The {type(rows).__name__} has 0 rows: a table needs at least one.")
        raise SourceError(
            f"A {type(rows).__name__} is no row here. Accepted are a dict of values, a list of such dicts, and a dict "
            "of columns; attfm.load(...).predict_proba takes tables of all kinds."
        )

    def quick_ids(self, row: Row) -> list[int] | None:
        """Return the features of a row, one a field, where all its values are ordinary ones; else None."""
        ids = []
        if not self._is_plain:
            return None
        try:
            for name, find, _ in self._quick:
                feature = find(row[name])
                if feature < 0:
                    return None
                ids.append(feature)
        except (KeyError, TypeError):
            return None
        return ids

    def _is_row(self, rows: Row) -> bool:
        """Return whether a dict is one row: it has a value of one in a column whose values are no lists."""
        bags = {column.name for column in self.columns if isinstance(column, BagColumn)}
        values = [value for name, value in rows.items() if str(name).strip() in self.names]
        single = [value for name, value in rows.items() if str(name).strip() in self.names and name not in bags]
        return any(_is_one(value) for value in single or values) or not values

    def _of_rows(self, rows: Sequence[Row]) -> Encoded:
        quick = [self.quick_ids(row) for row in rows]
        if all(ids is not None for ids in quick):
            return Encoded(np.array(quick, np.int32))
        named = [row if all(name in row for name in self.names) else _stripped(row) for row in rows]
        known = named[0].keys() if len(named) == 1 else dict.fromkeys(key for row in named for key in row)
        self._check_names(known)
        bad = BadValues()
        features = [
            part if ids is None else [([feature], None) for feature in ids]
            for number, (ids, row) in enumerate(zip(quick, named, strict=True))
            for part in [self._features(row, number, bad) if ids is None else []]
        ]
        bad.tell(len(rows))
        return _joined(features, self.fields)

    def _features(self, row: Row, number: int, bad: BadValues) -> list[Features]:
        return [of for column in self.columns for of in column.features(row.get(column.name), number, bad)]

    def _of_columns(self, columns: Mapping[str, Any]) -> Encoded:
        named = _stripped(columns)
        self._check_names(named)
        values = {name: _cells(named[name], name) for name in self.names}
        sizes = {name: len(of) for name, of in values.items()}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"'{name}' {size}" for name, size in sizes.items())
            raise SourceError(f"The columns differ in length: {listed}. Give each the same number of rows.")
        rows = next(iter(sizes.values()))
        if rows == 0:
            raise SourceError("The dict has 0 rows: a table needs at least one.")
        bad = BadValues()
        found = [of for column in self.columns for of in _column(column, values[column.name], bad)]
        bad.tell(rows)
        if self._is_plain:
            return Encoded(np.ascontiguousarray(np.column_stack(found), np.int32))
        rows_of = [[of if isinstance(of, tuple) else ([of], None) for of in row] for row in zip(*found, strict=True)]
        return _joined(rows_of, self.fields)

    def _tell_unknown(self, encoded: Encoded, rows: Any) -> None:
        ids, of_row = encoded.ids.ravel(), np.arange(encoded.ids.size) // self.fields
        field = np.arange(len(ids)) % self.fields
        if encoded.offsets is not None:
            place = np.repeat(np.arange(len(encoded.offsets) - 1), np.diff(encoded.offsets))
            of_row, field = place // self.fields, place % self.fields
        number = ids - np.asarray(self._starts)[field]
        for column in self.columns:
            f = self._starts.index(column.first)
            if self._expected[f] is None:
                continue
            own = field == f
            unknown = np.flatnonzero(own & (number == UNKNOWN))
            values = int((own & (number != MISSING)).sum())
            if is_surprising(values, len(unknown), self._expected[f]):
                row = int(of_row[unknown[0]])
                first = f"{_value_of(rows, column.name, row)!r:.60}"
                sentence = unknown_sentence(column.name, values, len(unknown), first=first, row=row)
                warnings.warn(sentence, DataWarning, stacklevel=5)

    def _check_names(self, names: Iterable[str]) -> None:
        names = list(names)
        lacking = absent(self.names, names)
        if lacking:
            raise SchemaError(
                f"The table lacks {'column' if len(lacking) == 1 else 'columns'} {', '.join(lacking)}. "
                "Rename or add what is missing; empty cells are allowed."
            )


def _is_one(value: Any) -> bool:
    """Return whether a value in a dict is that of one row, and no column."""
    if isinstance(value, str | bytes) or getattr(value, "ndim", None) == 0:
        return True
    return is_scalar(value) and not hasattr(value, "__len__")


def _value_of(rows: Any, column: str, row: int) -> Any:
    """Return a value of a sequence of dicts, or of a dict of columns or values."""
    if not isinstance(rows, Mapping):
        return _stripped(rows[row]).get(column)
    values = _stripped(rows)[column]
    return values if _is_one(values) else list(values)[row]


def _stripped(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row with names as text, without the spaces around them."""
    named: dict[str, Any] = {}
    for key, value in row.items():
        name = str(key).strip()
        if name in named:
            raise SchemaError(f"Column names stand more than once in the dict: '{name}'. Rename them.")
        named[name] = value
    return named


def _cells(values: Any, name: str) -> Any:
    """Return a column as a list of values, or a one-dimensional array of numbers."""
    if _is_one(values):
        raise SourceError(
            f"Column '{name}' of the dict is {values!r:.60}, but others hold several values: give each column a list "
            "or array of its values, or pass a list of dicts, one for each row."
        )
    if hasattr(values, "to_pylist"):
        return values.to_pylist()
    if not isinstance(values, np.ndarray) and hasattr(values, "to_numpy"):
        values = values.to_numpy()
    if not isinstance(values, np.ndarray):
        return list(values)
    if values.ndim != 1:
        raise SourceError(f"Column '{name}' has {values.ndim} dimensions, but a column has 1.")
    if values.dtype.kind == "f":
        return values.astype(values.dtype if values.dtype.itemsize in (4, 8) else np.float64)
    return values if values.dtype.kind in "iu" else list(values) if values.dtype.kind in "mM" else values.tolist()


def _column(column: CellColumn, values: Any, bad: BadValues) -> list[Any]:
    """Return the features of a whole column, for each of its fields: ids (rows,), or the features of each row."""
    if isinstance(values, np.ndarray):
        x = values.astype(np.float64)
        if isinstance(column, BinsColumn) and column.takes_floats and not np.isinf(x).any():
            return [column.bins(x)]
        values = (
            [Cell("float32", v) if v == v else None for v in values]
            if values.itemsize == 4 and values.dtype.kind == "f"
            else values.tolist()
        )
    if isinstance(column, BagColumn | ScaledColumn):
        return [[column.features(value, row, bad)[0] for row, value in enumerate(values)]]
    find = column.quick()
    ids = [find(value) for value in values]
    slow = {row: column.features(values[row], row, bad) for row, feature in enumerate(ids) if feature < 0}
    if not slow:
        return [ids]
    fields = len(next(iter(slow.values())))
    return [[slow[row][f][0][0] if feature < 0 else feature for row, feature in enumerate(ids)] for f in range(fields)]


def _joined(rows: Sequence[Sequence[Features]], fields: int) -> Encoded:
    """Return the features of rows as arrays."""
    ids = np.array([feature for row in rows for of, _ in row for feature in of], np.int32)
    counts = np.array([len(of) for row in rows for of, _ in row], np.int64)
    values = None
    if any(weights is not None for row in rows for _, weights in row):
        values = np.array(
            [x for row in rows for of, weights in row for x in ([1.0] * len(of) if weights is None else weights)],
            np.float32,
        )  # fmt: skip
    if (counts == 1).all():
        shape = (len(rows), fields)
        return Encoded(ids.reshape(shape), None if values is None else values.reshape(shape))
    return Encoded(ids, values, np.concatenate([[0], np.cumsum(counts)]))
