"""Labels and weights of rows, whatever holds them, as plain arrays."""

import contextlib
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import types
from sklearn.utils import check_array, column_or_1d

from attfm.data.sources.object_columns import is_missing
from attfm.data.texts import is_unicode
from attfm.errors import ConfigError, TargetError

_UNREADABLE = (pa.ArrowException, TypeError, ValueError, OverflowError)
_FRAMES = ("DataFrame", "Table", "RecordBatch")


def read_labels(y: Any, called: str = "y") -> NDArray[Any]:
    """Return labels as an array (rows,) of numbers, booleans or strings.

    Parameters
    ----------
    y : list or array of labels, one column of pandas, polars or Arrow, or a table of one column
    called : str, what messages call it

    Raises
    ------
    TargetError : labels are missing, infinite, of several types, or no labels, told with the first such row
    ValueError : what scikit-learn says of other shapes
    """
    y = _only_column(y, called)
    if isinstance(y, np.ma.MaskedArray):
        _check_present(np.ma.getmaskarray(y).ravel(), called)
    cells = y if isinstance(y, list | tuple) else column_or_1d(_array(y), warn=True)
    if isinstance(cells, list | tuple) or cells.dtype.kind == "O":
        cells = _of_cells(cells, called)
    labels = _plain(cells, called)
    array: NDArray[Any] = check_array(labels, ensure_2d=False, dtype=None, input_name=called)
    return array


def label_name(y: Any) -> str:
    """Return the name of the column that held the labels, "target" where there was none."""
    if isinstance(y, pa.Table | pa.RecordBatch):
        name = y.schema.names[0]
    else:
        name = next(iter(y.columns)) if type(y).__name__ == "DataFrame" else getattr(y, "name", None)
    return name if isinstance(name, str) and name else "target"


def label_column(labels: NDArray[Any], called: str = "y") -> pa.ChunkedArray:
    """Return labels as an Arrow column; raise TargetError where one is no valid text."""
    try:
        return pa.chunked_array([pa.array(labels)])
    except UnicodeError:
        raise _no_text(labels, called) from None


def read_weights(sample_weight: Any) -> NDArray[np.float64] | None:
    """Return weights as an array, None for none; raise ConfigError where one is no number."""
    if sample_weight is None:
        return None
    try:
        weights = np.asarray(sample_weight)
    except ValueError:
        raise ConfigError("sample_weight is not one column of numbers: give a number of at least 0 a row.") from None
    if weights.dtype.kind in "biuf":
        return weights.astype(np.float64)
    for row, weight in enumerate(weights.ravel().tolist()):
        if not isinstance(weight, Real | Decimal):
            raise ConfigError(f"sample_weight: {weight!r:.60} in row {row:,} is no number. Give weights of at least 0.")
    return weights.astype(np.float64)


def _only_column(y: Any, called: str) -> Any:
    """Return the column of a table of one column; all else as it is."""
    if type(y).__name__ not in _FRAMES:
        return y
    if y.shape[1] != 1:
        raise TargetError(f"{called} is a {type(y).__name__} of {y.shape[1]} columns: give the one that is the target.")
    if isinstance(y, pa.Table | pa.RecordBatch):
        return y.column(0)
    return y.iloc[:, 0] if hasattr(y, "iloc") else y.to_series(0)


def _array(y: Any) -> NDArray[Any]:
    return np.asarray(y.sparse.to_dense() if str(getattr(y, "dtype", "")).startswith("Sparse") else y)


def _of_cells(cells: Any, called: str) -> NDArray[Any]:
    """Return labels that are Python objects as an array of the type that they share."""
    try:
        column = pa.array(cells, from_pandas=True)  # NaN and pandas' NA are null too
    except UnicodeError:
        raise _no_text(cells, called) from None
    except _UNREADABLE:
        array = _of_unlike_cells(cells, called)
    else:
        _check_present(column.is_null().to_numpy(zero_copy_only=False), called)
        if types.is_nested(column.type):
            array = _of_unlike_cells(cells, called)
        elif types.is_decimal(column.type):
            array = column.cast(pa.float64()).to_numpy()
        elif types.is_temporal(column.type):
            raise TargetError(f"{called} holds values of type {column.type}; labels are numbers, strings or booleans.")
        else:
            of_numbers = types.is_primitive(column.type)  # strings stay as they are, in numpy's type or as objects
            array = column.to_numpy(zero_copy_only=False) if of_numbers else np.asarray(cells)
    return array


def _of_unlike_cells(cells: Any, called: str) -> NDArray[Any]:
    """Return labels that Arrow finds no type for, but numpy does: lists of one label each, or numbers beside text."""
    _check_present(np.array([is_missing(cell) for cell in cells]), called)
    for row, cell in enumerate(cells):
        if not isinstance(cell, str | bytes) and hasattr(cell, "__len__") and len(cell) != 1:
            raise TargetError(
                f"{called} holds no single labels: in row {row:,} stands a {type(cell).__name__}, {cell!r:.60}. "
                "Give one number, string or boolean for each row."
            )
    with contextlib.suppress(ValueError):  # numpy's, of lists in some rows
        array = np.asarray(cells)
        if array.dtype.kind != "O":
            flat: NDArray[Any] = column_or_1d(array, warn=True)
            return flat
    first = {type(cell).__name__: (row, cell) for row, cell in reversed(list(enumerate(cells)))}
    listed = ", ".join(f"{name} ({cell!r:.60}, row {row:,})" for name, (row, cell) in sorted(first.items()))
    raise TargetError(
        f"{called} holds values of the type{'s' * (len(first) > 1)} {listed}: "
        "labels are all strings, all booleans or all numbers of at most 64 bits. Convert them."
    )


def _plain(array: NDArray[Any], called: str) -> NDArray[Any]:
    """Return labels in a type of this machine that Arrow has too; raise TargetError for those that are none."""
    kind = array.dtype.kind
    if kind == "S":
        raise TargetError(f"{called} holds bytes (first: {bytes(array[0])!r:.60}, row 0). Decode them to strings.")
    if kind in "mM":
        raise TargetError(f"{called} holds values of type {array.dtype}; labels are numbers, strings or booleans.")
    if kind == "f":
        array = array.astype(np.float64) if array.dtype.itemsize > 8 else array
        _check_present(np.isnan(array), called)
        infinite = np.isinf(array)
        if infinite.any():
            row = int(infinite.argmax())
            raise TargetError(
                f"{called}: {int(infinite.sum()):,} of {len(array):,} labels are infinite "
                f"(first: {array[row]}, row {row:,}). Drop those rows, or give them finite values."
            )
    if kind == "T":  # numpy's strings of any length
        array = array.astype(object)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_present(missing: NDArray[np.bool_], called: str) -> None:
    if missing.any():
        raise TargetError(
            f"{called}: {int(missing.sum()):,} of {len(missing):,} labels are missing "
            f"(first: row {int(missing.argmax()):,}). Drop those rows, or fill them in."
        )


def _no_text(labels: Any, called: str) -> TargetError:
    texts = [str(label) for label in labels]
    row = next(row for row, text in enumerate(texts) if not is_unicode(text))
    return TargetError(
        f"{called} holds a string that is no valid text (first: {texts[row]!a:.60}, row {row:,}). Clean it."
    )
