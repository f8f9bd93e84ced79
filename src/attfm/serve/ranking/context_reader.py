"""The context of a request, read: one row of some columns, as features."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from attfm.data.bad_values import BadValues
from attfm.data.batch import FieldFeatures
from attfm.data.encoder import Encoder
from attfm.data.schema import Schema
from attfm.data.sources.source import open_source
from attfm.errors import DataError, SchemaError, absent
from attfm.serve.column_facts import row_encoder
from attfm.serve.columns import BagColumn, CellColumn
from attfm.serve.compiling import Arrays, encoder_facts

_QUICK_TYPES = (str, int, float, bool, type(None))  # others may have no hash


class ContextReader:
    """Reads one row of some columns of a model: a dict of values as the compiled model does, without Arrow.

    Parameters
    ----------
    encoder : Encoder, of all columns; schema : Schema, its; columns : names of those that are read
    """

    def __init__(self, encoder: Encoder, schema: Schema, columns: Sequence[str]) -> None:
        self._schema = schema
        self._columns = list(columns)
        self._encoder, arrays = encoder.part(columns), Arrays()
        self._cells = row_encoder(encoder_facts(self._encoder, arrays), arrays).columns
        self._quick = [column.quick() for column in self._cells]
        self._names = set(columns)
        self._known = {column.name for column in schema.columns}
        self._bags = {column.name for column in schema.inputs if column.kind == "multi-valued"}

    def read(self, context: Any) -> list[FieldFeatures]:
        """Return the features of each field of the columns, one row.

        Raises
        ------
        SchemaError : a column is absent, or there is one that the model does not know
        DataError : it is not one row; a value can't be read
        """
        if type(context).__name__ == "Series" and type(context).__module__.partition(".")[0] == "pandas":
            context = context.to_dict()
        # A dict is one row, unless a column other than a bag has a list: then it is a table.
        if isinstance(context, Mapping) and not any(
            _is_list(value) and name not in self._bags for name, value in context.items()
        ):
            return self._of_row(context)
        source = open_source(context, self._schema.reading, stored=self._schema.stored_types)
        self._check_names(source.schema.names)
        if source.num_rows not in (None, 1):
            raise not_one_row(source.num_rows)
        batches = list(source.batches(self._columns))
        rows = sum(batch.num_rows for batch in batches)
        if rows != 1:
            raise not_one_row(rows)
        encoded = self._encoder.transform(batches[0], reading=source.reading)
        return [encoded.field(f) for f in range(encoded.fields)]

    def _of_row(self, row: Mapping[Any, Any]) -> list[FieldFeatures]:
        if row.keys() != self._names:
            row = {str(name).strip(): value for name, value in row.items()}
            self._check_names(list(row))
        features, bad = list[FieldFeatures](), BadValues()
        for column, find in zip(self._cells, self._quick, strict=True):
            value = row[column.name]
            feature = find(value) if type(value) in _QUICK_TYPES else -1
            if feature >= 0:
                features.append(FieldFeatures(np.array([feature], np.int32)))
            else:
                features += [_of_field(column, *of) for of in column.features(value, 0, bad)]
        bad.tell(1)
        return features

    def _check_names(self, names: Sequence[str]) -> None:
        lacking, unknown = absent(self._columns, names), absent(names, self._known)
        if lacking:
            raise SchemaError(lacks("The context", lacking))
        if unknown:
            raise SchemaError(
                f"The context has {'column' if len(unknown) == 1 else 'columns'} {', '.join(unknown)}, which the model "
                "does not know: leave out what is not of the context."
            )


def _of_field(column: CellColumn, ids: list[int], weights: list[float] | None) -> FieldFeatures:
    counts = np.array([len(ids)]) if isinstance(column, BagColumn) else None
    values = None if weights is None else np.array(weights, np.float32)
    return FieldFeatures(np.array(ids, np.int32), values, counts)


def lacks(who: str, lacking: Sequence[str]) -> str:
    """Return the sentences about columns that a context or items lack, as `attfm.errors.absent` gives them."""
    return (
        f"{who} {'lacks' if who.endswith('context') else 'lack'} {'column' if len(lacking) == 1 else 'columns'} "
        f"{', '.join(lacking)}. Rename or add what is missing; empty cells are allowed."
    )


def not_one_row(rows: int | None) -> DataError:
    """Return the error for a context that is not one row."""
    return DataError(
        f"The context has {rows:,} rows, and a request is one: pass one row, a dict or such as df.iloc[[0]], and rank "
        "for each of the others."
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray | pa.Array | pa.ChunkedArray) or hasattr(value, "to_numpy")
