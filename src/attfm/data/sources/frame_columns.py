"""The columns of a frame as they stand in memory: what can be read there, without a copy of the frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import types

from attfm.data.sources.object_columns import FAILED
from attfm.data.sources.plain_columns import plain_array

_EXTENSION = b"ARROW:extension:name"  # in the metadata of a field whose type is not registered


@dataclass(frozen=True)
class FrameColumns:
    """A frame, column by column.

    Attributes
    ----------
    frame : pandas or polars DataFrame, pyarrow Table or RecordBatch, 2-D NumPy array
    names : sequence of what names the columns, as the frame has them
    rows : int
    columns : list of NumPy, Arrow or pandas arrays
    """

    frame: Any
    names: Sequence[Any]
    rows: int
    columns: Sequence[Any]

    @classmethod
    def of(cls, data: Any, names: Sequence[str] | None = None) -> "FrameColumns | None":
        """Return the columns of a frame, or None of what is none; `names` are for an array, which has none."""
        package, kind = type(data).__module__.partition(".")[0], type(data).__name__
        if isinstance(data, np.ndarray):
            fits = names is not None and data.ndim == 2 and data.shape[1] == len(names)
            return cls(data, names, len(data), list(data.T)) if names is not None and fits else None
        if names is not None:
            return None
        if package == "pandas" and kind == "DataFrame" and hasattr(data, "_iter_column_arrays"):
            # A Series of each column would take longer than all the rest.
            return cls(data, data.columns, len(data), list(data._iter_column_arrays()))
        if package == "polars" and kind == "DataFrame":
            if any(str(dtype) in ("Int128", "UInt128") for dtype in data.dtypes):  # which Arrow does not hold
                return None
            data = pa.table(data)
        if isinstance(data, pa.Table | pa.RecordBatch):
            columns = [_plain(*pair) for pair in zip(data.schema, data.columns, strict=True)]
            return cls(data, data.schema.names, data.num_rows, columns)
        return None

    def select(self, places: Sequence[int]) -> Any:
        """Return the frame of some columns, which `as_arrow` takes."""
        if isinstance(self.frame, pa.Table | pa.RecordBatch):
            return self.frame.select(list(places))
        return self.frame[:, places] if isinstance(self.frame, np.ndarray) else self.frame.iloc[:, list(places)]


def _plain(field: pa.Field, column: Any) -> Any:
    """Return a column of Arrow that is what its type says, else None."""
    return None if field.metadata and _EXTENSION in field.metadata else column


def standing(values: Any) -> Any:
    """Return an array as NumPy's or Arrow's, a column with categories as it is, and None of what is none of these."""
    if type(values) is np.ndarray or is_categorical(values):
        return values
    if not isinstance(values, pa.Array | pa.ChunkedArray):
        if not hasattr(values, "__arrow_array__"):
            return None
        try:
            values = pa.array(values, from_pandas=True)
        except FAILED:
            return None
    if isinstance(values, pa.ChunkedArray):
        values = values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()
    # One that could not be made one piece, or that means something else than its storage.
    return None if isinstance(values, pa.ChunkedArray) or isinstance(values.type, pa.BaseExtensionType) else values


def is_categorical(values: Any) -> bool:
    """Return whether an array has codes of categories, as pandas and Arrow have them."""
    if isinstance(values, pa.Array):
        return bool(types.is_dictionary(values.type))
    return hasattr(values, "categories") and hasattr(values, "codes")


def codes_of(values: Any) -> tuple[NDArray[Any] | pa.Array, Any]:
    """Return the codes of an array with categories, -1 or null where missing, and what tells its categories apart."""
    if isinstance(values, pa.DictionaryArray):
        return values.indices, None
    return values.codes, values.categories


def each_category(values: Any) -> Any:
    """Return an array that has each category once, in the order of their codes."""
    if isinstance(values, pa.DictionaryArray):
        indices = pa.array(np.arange(len(values.dictionary)), values.type.index_type)
        return pa.DictionaryArray.from_arrays(indices, values.dictionary, ordered=values.type.ordered)
    return type(values).from_codes(np.arange(len(values.categories)), dtype=values.dtype)


def decoded(values: Any) -> Any:
    """Return an array with categories as an array of values."""
    if not isinstance(values, pa.DictionaryArray):
        return np.asarray(values)
    dictionary = plain_array(values.dictionary, pa.field("", values.type.value_type))
    return pa.DictionaryArray.from_arrays(values.indices, dictionary).dictionary_decode()
