"""What an encoder learned as one Arrow table, and back."""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attfm.data.codecs.categorical import Buckets, Vocabulary
from attfm.data.codecs.numeric import Bins
from attfm.data.features import CALENDAR, CalendarPart, Features, Range
from attfm.data.field import Field
from attfm.data.schema import Schema
from attfm.errors import RunFolderError

_FORMAT = "1"
# value and count: a category and how often it occurred. lower and upper: of a bin (outermost: the smallest and the
# greatest training value) or of a scaled column. single: the training value of a bin that holds only one.
_COLUMNS = pa.schema(
    [
        ("field", pa.dictionary(pa.int32(), pa.string())),
        ("value", pa.large_string()),
        ("count", pa.int64()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("single", pa.float64()),
    ]
)


def features_to_table(features: Sequence[Features]) -> pa.Table:
    """Return the table: fields in order, and in each field its values in the order of their features."""
    names = pa.array([part.name for part in features], pa.string())
    parts = [_rows(number, names, part) for number, part in enumerate(features)]
    table = pa.concat_tables([_COLUMNS.empty_table(), *parts]).unify_dictionaries()  # an IPC file takes one
    written = {"attfm.format": _FORMAT, "attfm.fields": json.dumps([part.name for part in features])}
    return table.replace_schema_metadata(written)


def _rows(number: int, names: pa.Array, part: Features) -> pa.Table:
    known = part.values
    nothing = np.empty(0)
    columns: dict[str, pa.Array] = {}
    if isinstance(known, Vocabulary):
        columns = {"value": known.values, "count": pa.array(known.counts)}
    elif isinstance(known, Bins) and known.size:
        edges = np.concatenate([[known.low], known.edges, [known.high]])
        single = pa.array(known.single, from_pandas=True)
        columns = {"lower": pa.array(edges[:-1]), "upper": pa.array(edges[1:]), "single": single}
    elif isinstance(known, Range) and known.low <= known.high:
        columns = {"lower": pa.array([known.low]), "upper": pa.array([known.high])}
    size = len(next(iter(columns.values()), nothing))
    fields = pa.DictionaryArray.from_arrays(pa.array(np.full(size, number, np.int32)), names)
    return pa.table(
        [
            fields if column.name == "field" else columns.get(column.name, pa.nulls(size, column.type))
            for column in _COLUMNS
        ],
        schema=_COLUMNS,
    )


def features_from_table(schema: Schema, table: pa.Table) -> list[Features]:
    """Return the features in the table; raise RunFolderError where it does not fit the schema, or itself."""
    metadata = table.schema.metadata or {}
    if metadata.get(b"attfm.format") != _FORMAT.encode():
        raise _damaged(f"its format is {metadata.get(b'attfm.format')!r}, not {_FORMAT!r}")
    if not table.schema.remove_metadata().equals(_COLUMNS):
        raise _damaged(f"its columns are {', '.join(table.schema.names)}, with other names or types than expected")
    try:
        names = json.loads(metadata[b"attfm.fields"])
    except (KeyError, ValueError):
        raise _damaged("the names of its fields are absent") from None
    inputs = {field.name: field for field in schema.inputs}
    owners = {name: _owner(name, inputs) for name in names} if isinstance(names, list) else {}
    if list(dict.fromkeys(f.name for f, _ in owners.values())) != list(inputs) or len(owners) != len(names):
        raise _damaged("its fields are not those of the schema")
    table = table.combine_chunks()
    place = pc.index_in(table["field"].cast(pa.string()), pa.array(names, pa.string()))
    if place.null_count:
        raise _damaged("it has values of a field that the schema does not have")
    places = place.to_numpy()
    if (np.diff(places) < 0).any():
        raise _damaged("its fields are out of order")
    bounds = np.searchsorted(places, np.arange(len(names) + 1))
    return [
        _features(name, *owners[name], table.slice(start, stop - start))
        for name, start, stop in zip(names, bounds[:-1], bounds[1:], strict=True)
    ]


def _owner(name: str, inputs: dict[str, Field]) -> tuple[Field, str | None]:
    """Return the column that a field is read from, and the part of the date that it is."""
    if name in inputs and inputs[name].kind != "datetime":
        return inputs[name], None
    column, _, part = str(name).rpartition(".")
    if column in inputs and inputs[column].kind == "datetime" and part in CALENDAR:
        return inputs[column], part
    raise _damaged(f"the schema has no field '{name}'")


def _features(name: str, field: Field, part: str | None, rows: pa.Table) -> Features:
    if part is not None:
        return Features(name, field.name, "categorical", CalendarPart(part))
    if field.kind in ("categorical", "multi-valued"):
        if field.hash_buckets is not None:
            return Features(name, field.name, field.kind, Buckets(field.hash_buckets))
        return Features(name, field.name, field.kind, _vocabulary(name, rows))
    lower, upper, single = (_floats(rows, column) for column in ("lower", "upper", "single"))
    if np.isinf(lower).any() or np.isinf(upper).any() or np.isnan(lower).any() or np.isnan(upper).any():
        raise _damaged(f"an edge of field '{name}' is not a number")
    low, high = (lower[0], upper[-1]) if len(rows) else (np.inf, -np.inf)
    if field.bins == "scaled":
        if len(rows) > 1 or (len(rows) and not low <= high):
            raise _damaged(f"field '{name}' needs one range")
        return Features(name, field.name, "scaled", Range(float(low), float(high)))
    edges = lower[1:]
    inside = len(edges) == 0 or (low <= edges[0] and edges[-1] <= high)
    if (np.diff(edges) <= 0).any() or (edges != upper[:-1]).any() or not inside or (len(rows) and low > high):
        raise _damaged(f"the bins of field '{name}' are not in increasing order")
    if field.max_bins is not None and len(rows) > field.max_bins:
        raise _damaged(f"field '{name}' has {len(rows)} bins, more than the {field.max_bins} of the schema")
    return Features(name, field.name, "numeric", Bins(edges, float(low), float(high), single))


def _vocabulary(name: str, rows: pa.Table) -> Vocabulary:
    if rows["value"].null_count or rows["count"].null_count:
        raise _damaged(f"a value of field '{name}' is empty")
    values = pa.concat_arrays([pa.array([], pa.large_string()), *rows["value"].chunks])
    if len(values.unique()) < len(values):
        raise _damaged(f"a value of field '{name}' occurs twice")
    return Vocabulary(values, rows["count"].to_numpy())


def _floats(rows: pa.Table, column: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.asarray(rows[column].to_numpy(), np.float64)


def _damaged(what: str) -> RunFolderError:
    return RunFolderError(f"The vocabulary is damaged: {what}. Save the model again, or take another copy.")
