"""Tables in memory (pandas, polars, pyarrow, numpy, dicts, lists) as pyarrow Tables; imports none of them but numpy."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from attfm.data.sources.columns import column
from attfm.data.sources.object_columns import FAILED, is_scalar
from attfm.data.sources.plain_columns import plain_column, plain_schema
from attfm.data.texts import is_unicode
from attfm.errors import SchemaError, SourceError

ACCEPTED = (
    "a path, a pandas or polars DataFrame, a pyarrow Table, reader or Dataset, a 2-D numpy array, a dict of columns, "
    "a list of dicts, or an object with __arrow_c_stream__ or __dataframe__"
)
# How tables that hold no rows yet, or hold them elsewhere, give them.
_LAZY = ("toArrow", "toPandas", "to_pyarrow", "to_arrow", "to_pandas", "compute", "collect")


def as_arrow(data: object, names: Sequence[str] | None = None) -> pa.Table:
    """Return a table object (see ACCEPTED) as a pyarrow Table of plain types (see `plain_type`).

    `names` are for arrays and lists of rows. Spaces around names are dropped.
    Raises SourceError where it is no table or has no rows or columns, SchemaError where a name or a column is wrong.
    """
    table = _convert(data, names)
    kind = type(data).__name__
    if table.num_columns == 0:
        rows = len(data) if hasattr(data, "__len__") and not isinstance(data, Mapping) else table.num_rows
        shape = f"0 feature(s) (shape=({rows}, 0)) while a minimum of 1 is required"
        raise SourceError(f"The {kind} has no columns: {shape}.")
    table = table.rename_columns(stripped(table.schema.names, f"the {kind}"))
    if table.num_rows == 0:
        raise SourceError(f"The {kind} has 0 rows: a table needs at least one.")
    schema = plain_schema(table.schema, f"the {kind}")
    columns = [plain_column(values, field) for values, field in zip(table.columns, table.schema, strict=True)]
    return pa.table(columns, schema=schema)


def stripped(names: Iterable[object], where: str) -> list[str]:
    """Return column names as text without the spaces around them; raise SchemaError where they are no good names."""
    texts = []
    for name in names:
        if isinstance(name, tuple):
            raise SchemaError(
                f"Column {name!r} of {where} is named by a tuple. Join its parts into one text, for example by "
                "df.columns = ['_'.join(map(str, name)) for name in df.columns]."
            )
        texts.append(str(name).strip())
    broken = next((text for text in texts if not is_unicode(text)), None)
    if broken is not None:
        raise SchemaError(f"The column name {broken!r} of {where} is not Unicode text. Rename the column.")
    check_names(texts, where)
    return texts


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
    if package == "polars":
        # Integers that no type of Arrow holds are ids, and text as those of a CSV are.
        wide = [name for name, dtype in data.schema.items() if str(dtype) in ("Int128", "UInt128")]
        data = data.cast(dict.fromkeys(wide, sys.modules["polars"].String)) if wide else data
    try:
        table = _from_arrow(data)
    except (SourceError, SchemaError):
        raise
    except FAILED as error:
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
        return _from_columns(data.dtype.names or (), [data[name] for name in data.dtype.names or ()], "the ndarray")
    if isinstance(data, Mapping):
        return _from_columns(data.keys(), _row_as_columns(data), f"the {type(data).__name__}")
    if isinstance(data, (list, tuple)):
        if not data:
            raise SourceError("The list has 0 rows: a table needs at least one.")
        for row, values in enumerate(data):
            if not isinstance(values, Mapping):
                raise SourceError(f"Row {row} of the list is a {type(values).__name__}, but the first is a dict.")
        keys = dict.fromkeys(key for values in data for key in values)
        return _from_columns(keys, [[values.get(key) for values in data] for key in keys], "the list")
    if hasattr(data, "__arrow_c_stream__"):
        return pa.table(data)
    if hasattr(data, "__arrow_c_array__"):
        return pa.Table.from_batches([pa.record_batch(data)])
    if hasattr(data, "__dataframe__"):
        from pyarrow.interchange import from_dataframe

        return from_dataframe(data)
    lazy = next((name for name in _LAZY if callable(getattr(data, name, None))), "")
    if lazy:
        raise SourceError(f"A {type(data).__name__} of {type(data).__module__} holds no rows here: pass .{lazy}().")
    raise SourceError(f"A {type(data).__name__} is not a table. Accepted are {ACCEPTED}.")


def _from_pandas(data: Any) -> pa.Table:
    names = stripped(data.columns, "the DataFrame")
    return pa.table([column(data.iloc[:, i], name) for i, name in enumerate(names)], names=names)


def _row_as_columns(data: Mapping[Any, Any]) -> list[Any]:
    """Return the values of a dict of columns, each a list; a dict of single values is one row."""
    singles = [name for name, values in data.items() if is_scalar(values)]
    if len(singles) == len(data):
        return [[value] for value in data.values()]
    if singles:
        several = next(name for name, values in data.items() if name not in singles)
        raise SourceError(
            f"Column '{singles[0]}' of the dict is {data[singles[0]]!r:.60}, but '{several}' holds several values: "
            "give each column a list or array of its values, or pass a list of dicts, one for each row."
        )
    return list(data.values())


def _from_columns(keys: Iterable[object], columns: Sequence[Any], where: str) -> pa.Table:
    names = stripped(keys, where)
    arrays = [column(values, name) for values, name in zip(columns, names, strict=True)]
    sizes = {name: len(array) for name, array in zip(names, arrays, strict=True)}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"'{name}' {size}" for name, size in sizes.items())
        raise SourceError(f"The columns differ in length: {listed}. Give each the same number of rows.")
    return pa.table(arrays, names=names)


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
    return pa.table([column(data[:, i], name) for i, name in enumerate(names)], names=names)


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
    columns = zip(*rows, strict=True)
    return pa.table([column(cells, name) for name, cells in zip(names, columns, strict=True)], names=names)


def _array_names(names: Sequence[str] | None, columns: int, kind: str) -> list[str]:
    if names is not None and len(names) != columns:
        raise SchemaError(f"The {kind} has {columns} columns, but {len(names)} names are given: give one for each.")
    return [f"x{i}" for i in range(columns)] if names is None else stripped(names, "names=")
