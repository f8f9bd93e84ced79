"""Made-up rows of a model's columns: known and unknown values, missing ones, bins' edges and what is beside them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import types

from attfm.data.schema import Column
from attfm.model.bundle import Model
from attfm.serve.raw_inputs import RawInput, raw_inputs

_SHARE_MISSING, _SHARE_UNKNOWN = 0.08, 0.08
_MOST_KNOWN = 20_000  # values of one column that rows are made of
_UNSEEN = pa.array([f"never seen {n}" for n in range(50)], pa.large_string())
_FAR = 1e30


def probe_rows(model: Model, rows: int, *, seed: int = 0) -> pa.Table:
    """Return rows that an export is compared with its model on."""
    rng = np.random.default_rng(seed)
    return pa.table({raw.name: _column(model, raw, rows, rng) for raw in raw_inputs(model)})


def _column(model: Model, raw: RawInput, rows: int, rng: np.random.Generator) -> pa.Array:
    missing = rng.random(rows) < _SHARE_MISSING
    if raw.form == "seconds":
        return _times(raw.column, rng.integers(-(2**32), 2**33, rows), missing)
    if raw.column.kind == "numeric":
        return pa.array(rng.choice(_numbers(model, raw), rows), mask=missing)
    known: Sequence[str] = raw.codec.labels()[:_MOST_KNOWN]
    if raw.column.hash_buckets is not None:
        known = [str(n) for n in range(1000)]
    if raw.form == "whole":
        numbers = np.array([int(text) for text in known if text.lstrip("-").isdigit()] or [0], np.int64)
        return pa.array(_mixed(numbers, rng.integers(-(2**40), 2**40, rows), rng), mask=missing)
    if raw.form == "number":
        numbers = np.array([float(text) for text in known] or [0.0])
        return pa.array(_mixed(numbers, rng.normal(0, 1e3, rows), rng), mask=missing)
    if raw.has_members or raw.form == "joined":
        return _bags(raw, known, np.where(missing, 0, rng.integers(0, 5, rows)), rng)
    texts = _texts(known, rows, rng)
    return pa.array(np.where(missing, None, texts.to_numpy(zero_copy_only=False)), pa.large_string())


def _mixed(known: NDArray[Any], unknown: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    rows = len(unknown)
    return np.where(rng.random(rows) < _SHARE_UNKNOWN, unknown, rng.choice(known, rows))


def _texts(known: Sequence[str], count: int, rng: np.random.Generator) -> pa.Array:
    """Return known texts, and some that are not."""
    pool = pa.concat_arrays([pa.array(known, pa.large_string()), _UNSEEN])
    unknown = len(known) + rng.integers(0, len(_UNSEEN), count)
    return pool.take(pa.array(_mixed(np.arange(max(len(known), 1)), unknown, rng)))


def _numbers(model: Model, raw: RawInput) -> NDArray[np.float64]:
    """Return numbers on and beside the edges of a column's bins, within them, and far beyond."""
    field = next(f for f, field in enumerate(model.encoder.fields) if field.column == raw.name)
    edges = model.encoder.bin_edges(field)
    if edges is None:
        low, high = model.encoder.value_range(field)
        width = high - low or 1.0
        return np.linspace(low - 2 * width, high + 2 * width, 1000)
    far = 6e4 if types.is_float16(raw.terms.stored) else 1e6 if types.is_decimal(raw.terms.stored) else _FAR
    beside = [np.nextafter(edges, -np.inf), edges, np.nextafter(edges, np.inf), 0.5 * (edges[1:] + edges[:-1])]
    return np.concatenate([*beside, [0.0, -0.0, far, -far]])


def _times(column: Column, seconds: NDArray[np.int64], missing: NDArray[np.bool_]) -> pa.Array:
    zone = getattr(column.stored_type, "tz", None)
    return pa.array(seconds, pa.timestamp("s", zone), mask=missing)


def _bags(raw: RawInput, known: Sequence[str], counts: NDArray[np.int64], rng: np.random.Generator) -> pa.Array:
    ends = np.cumsum(counts)
    members = _texts(known, int(counts.sum()), rng)
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
    if raw.form == "weighted":
        return pa.MapArray.from_arrays(offsets, members.cast(pa.string()), pa.array(rng.normal(1, 1, len(members))))
    if raw.form == "texts":
        return pa.ListArray.from_arrays(offsets, members)
    assert raw.column.separator is not None
    texts, separator = members.to_pylist(), raw.column.separator
    return pa.array([separator.join(texts[end - count : end]) for end, count in zip(ends, counts, strict=True)])
