"""Tables in memory (pandas, polars, pyarrow, numpy, dicts, lists) as pyarrow Tables; imports none of them but numpy."""

import datetime
import decimal
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from attfm.errors import SchemaError, SourceError

ACCEPTED = (
    "a path, a pandas or polars DataFrame, a pyarrow Table, reader or Dataset, a 2-D numpy array, a dict of columns, "
    "a list of dicts, or an object with __arrow_c_stream__ or __dataframe__"
)
_SCALARS = (str, int, float, np.generic, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta)
_FAILED = (pa.ArrowException, TypeError, ValueError, OverflowError)


def as_arrow(data: object, names: Sequence[str] | None = None) -> pa.Table:
    """Return a table object as a pyarrow Table.

    Parameters
    ----------
    data : object, one of ACCEPTED, but no path
    names : sequence of str or None, column names, for arrays and lists of rows

    Raises
    ------
    SourceError : not a table, no rows, no columns
    SchemaError : names are empty, doubled or of the wrong number, or a column holds what no field can hold
    """
    table = _convert(data, names)
    kind = type(data).__name__
    if table.num_columns == 0:
        shape = f"0 feature(s) (shape=({_row_count(data, table)}, 0)) while a minimum of 1 is required"
        raise SourceError(f"The {kind} has no columns: {shape}.")
    check_names(table.schema.names, f"the {kind}")
    if table.num_rows == 0:
        raise SourceError(f"The {kind} has 0 rows: a table needs at least one.")
    return _without_views(table)


def _without_views(table: pa.Table) -> pa.Table:
    """Return the table with plain strings for string views, which polars gives and Arrow can't filter."""
    types = [_plain(kind) for kind in table.schema.types]
    return table.cast(pa.schema(zip(table.schema.names, types, strict=True))) if types != table.schema.types else table


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type without views, in lists too."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return (pa.list_ if pa.types.is_list(kind) else pa.large_list)(_plain(kind.value_type))
    return {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}.get(kind, kind)


def check_names(names: Sequence[str], where: str, hint: str = "") -> None:
    """Raise SchemaError if names are empty or stand more than once."""
    empty = [str(i + 1) for i, name in enumerate(names) if not name]
    doubled = sorted({name for name in names if name and names.count(name) > 1})
    if empty:
        raise SchemaError(f"Column {', '.join(empty)} of {where} has no name: name every column.{hint}")
    if doubled:
        listed = ", ".join(f"'{name}'" for name in doubled)
        raise SchemaError(f"Column names stand more than once in {where}: {listed}. Rename them.{hint}")


def is_pandas_index(name: str) -> bool:
    """Return whether a column is the unnamed index that pandas wrote beside its own columns."""
    return re.fullmatch(r"__index_level_\d+__", name) is not None


def _convert(data: Any, names: Sequence[str] | None) -> pa.Table:
    kind, package = type(data).__name__, type(data).__module__.partition(".")[0]
    if package == "scipy":
        raise SourceError(f"A sparse matrix ({kind}) is not supported: convert it by .toarray().")
    if kind == "LazyFrame":
        raise SourceError("A LazyFrame holds no rows yet: pass .collect().")
    one_column = package in ("pandas", "polars") and kind.endswith(("Series", "Index"))
    if one_column or isinstance(data, (pa.Array, pa.ChunkedArray)):
        raise SourceError(
            f"A {kind} is one column, not a table: pass a DataFrame or a table, for example by .to_frame()."
        )
    if isinstance(data, (list, tuple)) and data and not isinstance(data[0], Mapping):
        return _from_rows(data, names)
    if isinstance(data, np.ndarray) and data.dtype.names is None:
        return _from_numpy(data, names)
    if names is not None:
        raise SourceError(
            f"names= is for arrays and text without a header, but this {kind} has column names of its own."
        )
    if package == "pandas" and kind == "DataFrame":
        return _from_pandas(data)
    try:
        table = _from_arrow(data)
    except (SourceError, SchemaError):
        raise
    except _FAILED as error:
        raise SourceError(f"The {kind} can't be read as a table: {error}.") from error
    return table.drop_columns([name for name in table.schema.names if is_pandas_index(name)])


def _from_arrow(data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if isinstance(data, pa.RecordBatchReader):  # can be read once only
        return data.read_all()
    if isinstance(data, np.ndarray):
        return _from_columns({name: data[name] for name in data.dtype.names or ()})
    if isinstance(data, Mapping):
        return _from_columns({str(name): values for name, values in data.items()})
    if isinstance(data, (list, tuple)):
        if not data:
            raise SourceError("The list has 0 rows: a table needs at least one.")
        for row, values in enumerate(data):
            if not isinstance(values, Mapping):
                raise SourceError(f"Row {row} of the list is a {type(values).__name__}, but the first is a dict.")
        keys = dict.fromkeys(key for values in data for key in values)
        return _from_columns({str(key): [values.get(key) for values in data] for key in keys})
    if hasattr(data, "__arrow_c_stream__"):
        return pa.table(data)
    if hasattr(data, "__arrow_c_array__"):
        return pa.Table.from_batches([pa.record_batch(data)])
    if hasattr(data, "__dataframe__"):
        from pyarrow.interchange import from_dataframe

        return from_dataframe(data)
    raise SourceError(f"A {type(data).__name__} is not a table. Accepted are {ACCEPTED}.")


def _from_pandas(data: Any) -> pa.Table:
    names = [str(name) for name in data.columns]
    check_names(names, "the DataFrame")
    arrays = []
    for i, name in enumerate(names):
        series = data.iloc[:, i]
        if str(series.dtype).startswith("Sparse"):
            series = series.sparse.to_dense()
        elif str(series.dtype).startswith(("interval", "period")):
            series = series.astype(str).where(series.notna(), None)
        arrays.append(_column(series, name))
    return pa.table(arrays, names=names)


def _from_columns(columns: Mapping[str, Any]) -> pa.Table:
    arrays = {}
    for name, values in columns.items():
        if isinstance(values, (*_SCALARS, bytes, type(None))) or getattr(values, "ndim", 1) == 0:
            raise SourceError(f"Column '{name}' of the dict is {values!r}: give a list or array of its values.")
        arrays[name] = _column(values, name)
    sizes = {name: len(array) for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"'{name}' {size}" for name, size in sizes.items())
        raise SourceError(f"The columns differ in length: {listed}. Give each the same number of rows.")
    return pa.table(arrays)


def _from_numpy(data: np.ndarray[Any, Any], names: Sequence[str] | None) -> pa.Table:
    if data.ndim != 2:
        raise SourceError(
            f"The array has {data.ndim} dimensions, shape {data.shape}, but a table has 2. Reshape your data, for "
            "example by .reshape(-1, 1) for one column or .reshape(1, -1) for one row."
        )
    if np.iscomplexobj(data):
        raise SourceError("Complex data not supported: split it into real and imaginary columns.")
    rows, columns = data.shape
    if columns == 0:
        raise SourceError(f"The array has 0 feature(s) (shape=({rows}, 0)) while a minimum of 1 is required.")
    names = _array_names(names, columns, "array")
    return pa.table([_column(data[:, i], name) for i, name in enumerate(names)], names=names)


def _from_rows(rows: Sequence[Any], names: Sequence[str] | None) -> pa.Table:
    """Return a list of rows, each a list, tuple or 1-D array of the same length, as columns."""
    for number, row in enumerate(rows):
        if isinstance(row, (str, bytes)) or not isinstance(row, (Sequence, np.ndarray)):
            raise SourceError(
                f"Row {number} of the list is {row!r:.60}, no row of a table. Reshape your data: a list needs a list "
                "or a dict for each row."
            )
        if len(row) != len(rows[0]):
            raise SourceError(f"Row {number} of the list has {len(row)} cells, but the first has {len(rows[0])}.")
    names = _array_names(names, len(rows[0]), "list")
    cells = zip(*rows, strict=True)
    return pa.table([_column(list(column), name) for name, column in zip(names, cells, strict=True)], names=names)


def _array_names(names: Sequence[str] | None, columns: int, kind: str) -> list[str]:
    if names is not None and len(names) != columns:
        raise SchemaError(f"The {kind} has {columns} columns, but {len(names)} names are given: give one for each.")
    given = [f"x{i}" for i in range(columns)] if names is None else [str(name) for name in names]
    check_names(given, "names=")
    return given


def _column(values: Any, name: str) -> pa.Array | pa.ChunkedArray:
    """Return one column; values of several types become strings."""
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise SourceError(f"Column '{name}' has {values.ndim} dimensions, but a column has 1.")
        if values.dtype.kind == "f" and values.dtype.itemsize > 8:  # Arrow knows no longer ones
            values = values.astype(np.float64)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if getattr(getattr(values, "dtype", None), "kind", "") == "c":
        raise SourceError(f"Column '{name}' is complex. Complex data not supported: split it into two columns.")
    try:
        return pa.array(values, from_pandas=True)
    except _FAILED:
        cells = list(values)
    for row, cell in enumerate(cells):
        if not isinstance(cell, _SCALARS) and not _is_missing(cell):
            raise SchemaError(
                f"Column '{name}' holds values of several types; in row {row} stands a {type(cell).__name__}: "
                f"{cell!r:.60}. Make them all numbers, all strings or all lists."
            )
    return pa.array([None if _is_missing(cell) else str(cell) for cell in cells], pa.string())


def _is_missing(cell: object) -> bool:
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):  # of pandas
        return True
    return isinstance(cell, (float, np.floating)) and bool(np.isnan(cell))


def _row_count(data: Any, table: pa.Table) -> int:
    return len(data) if hasattr(data, "__len__") and not isinstance(data, Mapping) else table.num_rows
