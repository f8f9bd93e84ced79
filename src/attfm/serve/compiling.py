"""A trained model as the facts and arrays of a compiled one. This is where torch and Arrow are needed."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import types

from attfm.data.arrow_types import is_list, is_text
from attfm.data.codecs.categorical import CategoricalCodec, Vocabulary
from attfm.data.codecs.codec import Codec
from attfm.data.codecs.datetime import DateCodec
from attfm.data.codecs.multi_valued import MultiValuedCodec
from attfm.data.codecs.numeric import BinsCodec, ScaledCodec
from attfm.data.encoder import Encoder
from attfm.data.schema import Column
from attfm.data.stored_terms import StoredTerms
from attfm.data.texts import markers
from attfm.model.ensemble import members_of
from attfm.model.lookup_arrays import Machine, lookup_arrays
from attfm.model.lookup_scorer import field_ranges
from attfm.serve.decisions import Link
from attfm.serve.stored import StoredType
from attfm.serve.vocabulary import packed

if TYPE_CHECKING:
    from attfm.model.bundle import Model

Arrays = dict[str, NDArray[Any]]
_TOLD = ("name", "kind", "arrow_type", "ordered", "distinct", "minimum", "maximum", "missing", "separator")


def compiled_parts(model: "Model", budget: int) -> tuple[dict[str, Any], Arrays]:
    """Return the facts of a compiled model, as JSON can hold them, and its arrays."""
    encoder, arrays = model.encoder, Arrays()
    machines = [Machine.of(machine) for machine in members_of(model.module)]
    facts = {"budget": budget, "made_from": {}, "link": _link(model).facts(), **encoder_facts(encoder, arrays)}
    arrays |= {
        f"lookup.{name}": array for name, array in lookup_arrays(machines, field_ranges(encoder), budget).items()
    }
    return facts, arrays


def encoder_facts(encoder: Encoder, arrays: Arrays) -> dict[str, Any]:
    """Return what a compiled model knows of an encoder, and add its arrays."""
    reading = encoder.schema.reading
    columns, field = [], 0
    for number, (column, terms, codec) in enumerate(zip(encoder.schema.inputs, *encoder.parts, strict=True)):
        own = {
            "number": number,
            "fields": list(range(field, field + len(codec.fields))),
            **_terms(column, terms),
            **_codec(codec, f"column.{number}", arrays),
            "told": {name: getattr(column, name) for name in _TOLD},
        }
        field += len(codec.fields)
        columns.append(own)
    return {
        "reading": {name: getattr(reading, name) for name in ("decimal", "thousands", "signs", "day_first")},
        "fields": [
            {"name": of.name, "column": of.column, "kind": of.kind, "start": of.start, "size": of.size,
             "ordered": of.ordered} for of in encoder.fields
        ],
        "expected_unknown": [
            None if (share := encoder.expected_unknown(f)) is None else float(share) for f in range(len(encoder.fields))
        ],
        "columns": columns,
    }  # fmt: skip


def _link(model: "Model") -> Link:
    task = model.task
    curves = tuple((np.array(c.logits), np.array(c.probabilities)) for c in model.calibration.curves)
    return Link(task.name, task.target, task.classes, task.class_names, model.threshold, curves)


def _terms(column: Column, terms: StoredTerms) -> dict[str, Any]:
    return {
        "name": column.name,
        "kind": column.kind,
        "stored": _stored(column.stored_type).facts(),
        "nothing": [text for text in markers(terms.reading) if text not in terms.kept],
        "null_numbers": terms.null_numbers.tolist(),
    }


def _stored(t: pa.DataType) -> StoredType:
    if is_list(t):
        return StoredType("list", member=_stored(t.value_type))
    if types.is_timestamp(t):
        return StoredType("datetime", zone=t.tz)
    if types.is_decimal(t):
        return StoredType("decimal", scale=t.scale)
    if types.is_float32(t) or types.is_float16(t):
        return StoredType("float32")
    tests = {
        "null": types.is_null, "bool": types.is_boolean, "int": types.is_integer, "float": types.is_floating,
        "date": types.is_date, "time": types.is_time, "duration": types.is_duration, "map": types.is_map,
        "text": is_text,
    }  # fmt: skip
    return StoredType(next((family for family, test in tests.items() if test(t)), "other"))


def _codec(codec: Codec, name: str, arrays: Arrays) -> dict[str, Any]:
    """Return the facts of a codec, and add its arrays."""
    labels = [codec.labels(f) for f in range(len(codec.fields))]
    if isinstance(codec, BinsCodec):
        arrays[f"{name}.edges"] = np.asarray(codec.bins.edges, np.float64)
        return {"codec": "bins", "is_empty": not codec.bins.size, "labels": labels}
    if isinstance(codec, ScaledCodec):
        low, high = codec.low, codec.high
        return {"codec": "scaled", "low": str(low), "high": str(high), "labels": labels}
    if isinstance(codec, DateCodec):
        return {"codec": "date", "parts": list(codec.parts), "labels": labels}
    if not isinstance(codec, CategoricalCodec):
        raise TypeError(f"a {type(codec).__name__} can't be compiled")
    own: dict[str, Any] = {"codec": "bag", "separator": codec.column.separator}
    if not isinstance(codec, MultiValuedCodec):
        own = {"codec": "category"}
    values = codec.values
    if not isinstance(values, Vocabulary):
        return {**own, "buckets": values.size}
    arrays |= {f"{name}.{part}": array for part, array in packed(values.labels()).items()}
    alike = is_text(codec.column.stored_type) and not isinstance(codec, MultiValuedCodec)
    spellings = values.spellings() if alike else {}
    return {**own, "buckets": 0, "spellings": spellings, "has_whole": values.has_whole}
