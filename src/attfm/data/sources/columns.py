"""One column of any library (pandas, NumPy, a list, ...) as an Arrow column; imports none of them but NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from attfm.data.sources.object_columns import FAILED, object_column
from attfm.errors import SchemaError, SourceError

_DATE_UNITS = {"Y": "D", "M": "D", "W": "D", "h": "s", "m": "s", "ps": "ns", "fs": "ns", "as": "ns", "generic": "ns"}


def column(values: Any, name: str, rows: Callable[[int], int] = int) -> pa.Array | pa.ChunkedArray:
    """Return the values of a column; `object_column` says what Python objects become, and what `rows` is.

    Periods and intervals of pandas come as its extension types, categories as dictionaries, sparse values as dense.

    Raises
    ------
    SchemaError : a value is no cell of a table
    SourceError : the column has several dimensions, or is complex
    """
    dtype = getattr(values, "dtype", None)
    if isinstance(dtype, np.dtype):
        return _numpy_column(values if isinstance(values, np.ndarray) else np.asarray(values), name, rows)
    if isinstance(values, list | tuple):
        return object_column(values, name, rows)
    categorical = getattr(values, "cat", values)
    if hasattr(categorical, "categories") and hasattr(categorical, "codes"):
        return _categorical(categorical, name, rows)
    if hasattr(values, "sparse"):
        return column(values.sparse.to_dense(), name, rows)
    try:
        return pa.array(values, from_pandas=True)
    except FAILED as error:
        try:
            cells = list(values)
        except TypeError:
            raise SourceError(f"Column '{name}' is a {type(values).__name__}: give a list or array.") from error
        return object_column(cells, name, rows)


def _numpy_column(values: np.ndarray[Any, Any], name: str, rows: Callable[[int], int]) -> pa.Array | pa.ChunkedArray:
    kind, size = values.dtype.kind, values.dtype.itemsize
    if values.ndim != 1:
        raise SourceError(f"Column '{name}' has {values.ndim} dimensions, but a column has 1.")
    if kind == "c":
        raise SourceError(f"Column '{name}' is complex. Complex data not supported: split it into two columns.")
    if kind == "V":
        raise SourceError(f"Column '{name}' is a record of several columns: give each a column of its own.")
    if kind == "f" and size > 8:  # Arrow knows no longer ones
        values = values.astype(np.float64)
    elif kind in "mM":
        unit = np.datetime_data(values.dtype)[0]
        if (kind, unit) == ("m", "D"):
            unit = "h"
        plain = "s" if kind == "m" and _DATE_UNITS.get(unit) == "D" else _DATE_UNITS.get(unit, unit)
        values = values.astype(f"{kind}8[{plain}]")
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if kind in "OUST":
        return object_column(values.astype(object).tolist(), name, rows)  # masked values become None
    return pa.array(values, from_pandas=True)


def _categorical(categorical: Any, name: str, rows: Callable[[int], int]) -> pa.DictionaryArray:
    """Return pandas' categories as a dictionary, in their order, with those that no row has."""
    codes = np.asarray(categorical.codes)
    categories = categorical.categories

    def row(category: int) -> int:
        """The first row of a category."""
        return rows(int((codes == category).argmax()))

    lists = [i for i, category in enumerate(categories) if isinstance(category, tuple | list)]
    if lists:
        raise SchemaError(
            f"Column '{name}' has a category that is a {type(categories[lists[0]]).__name__} in row {row(lists[0])}: "
            f"{categories[lists[0]]!r:.60}. Make the categories text, or numbers."
        )
    values = column(categories, name, row)
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), values, ordered=bool(categorical.ordered))
