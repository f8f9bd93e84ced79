"""What an encoder learned as one Arrow table, and back."""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attfm.data.codecs import KINDS
from attfm.data.codecs.codec import Codec
from attfm.data.schema import Schema, damaged

_FORMAT = "1"
# value and count: a category and how often it occurred. lower and upper: of a bin (outermost: the smallest and the
# greatest training value) or of a scaled column. single: the training value of a bin that holds only one. day: when a
# category was seen last, where the model was trained more than once.
_COLUMNS = pa.schema(
    [
        ("field", pa.dictionary(pa.int32(), pa.string())),
        ("value", pa.large_string()),
        ("count", pa.int64()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("single", pa.float64()),
        ("day", pa.int32()),
    ]
)
_BEFORE_DAYS = pa.schema(list(_COLUMNS)[:-1])  # which folders of 0.1 have


def codecs_to_table(codecs: Sequence[Codec]) -> pa.Table:
    """Return the table: fields in order, and in each field its values in the order of their features."""
    names = [field.name for codec in codecs for field in codec.fields]
    rows = [codec.rows(f) for codec in codecs for f in range(len(codec.fields))]
    parts = [_COLUMNS.empty_table()]
    for number, columns in enumerate(rows):
        size = len(next(iter(columns.values()), ()))
        field = pa.DictionaryArray.from_arrays(pa.array(np.full(size, number, np.int32)), pa.array(names, pa.string()))
        parts.append(pa.table({"field": field, **columns}))
    table = pa.concat_tables(parts, promote_options="default").unify_dictionaries()  # an IPC file takes one
    return table.replace_schema_metadata({"attfm.format": _FORMAT, "attfm.fields": json.dumps(names)})


def codecs_from_table(schema: Schema, table: pa.Table) -> list[Codec]:
    """Return the codec of each input column; raise RunFolderError where the table fits not the schema, or itself."""
    names = _field_names(table)
    fields_of = _fields_of_columns(schema, names)
    rows_of = _rows_by_field(table, names)
    return [
        KINDS[column.kind].codec(column, {name: rows_of[name] for name in fields})
        for column, fields in zip(schema.inputs, fields_of, strict=True)
    ]


def _field_names(table: pa.Table) -> list[str]:
    """Return the names of the fields, in order; raise RunFolderError where this is no encoder file."""
    metadata = table.schema.metadata or {}
    if metadata.get(b"attfm.format") != _FORMAT.encode():
        raise damaged(f"its format is {metadata.get(b'attfm.format')!r}, not {_FORMAT!r}")
    if not any(table.schema.remove_metadata().equals(columns) for columns in (_COLUMNS, _BEFORE_DAYS)):
        raise damaged(f"its columns are {', '.join(table.schema.names)}, with other names or types than expected")
    try:
        names = json.loads(metadata[b"attfm.fields"])
    except (KeyError, ValueError):
        raise damaged("the names of its fields are absent") from None
    return [str(name) for name in names] if isinstance(names, list) else []


def _fields_of_columns(schema: Schema, names: Sequence[str]) -> list[list[str]]:
    """Return the names of each input column's fields: the columns in turn take those that they can have, in order."""
    possible = [KINDS[column.kind].field_names(column) for column in schema.inputs]
    known = {name for own in possible for name in own}
    for name in names:
        if name not in known:
            raise damaged(f"the schema has no field '{name}'")
    left = list(reversed(names))
    fields_of = [[left.pop() for name in own if left[-1:] == [name]] for own in possible]
    if left or not all(fields_of):
        raise damaged("its fields are not those of the schema")
    return fields_of


def _rows_by_field(table: pa.Table, names: Sequence[str]) -> dict[str, pa.Table]:
    """Return the rows of each field, by its name."""
    table = table.combine_chunks()
    place = pc.index_in(table["field"].cast(pa.string()), pa.array(names, pa.string()))
    if place.null_count:
        raise damaged("it has values of a field that the schema does not have")
    places = place.to_numpy()
    if (np.diff(places) < 0).any():
        raise damaged("its fields are out of order")
    bounds = np.searchsorted(places, np.arange(len(names) + 1))
    return {
        name: table.slice(start, stop - start) for name, start, stop in zip(names, bounds[:-1], bounds[1:], strict=True)
    }
