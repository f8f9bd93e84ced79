"""Arrow's extension types as plain ones: periods and intervals of pandas as its text, UUIDs, booleans of eight bits.

A type is known by its name in the field's metadata too, so that a file means the same whether or not pandas is
there to register its types.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from attfm.data.texts import TICKS

LEVELS = pa.dictionary(pa.int32(), pa.string(), ordered=True)
_ALIASES = {"A": "Y", "H": "h", "T": "min", "S": "s", "L": "ms", "U": "us", "N": "ns"}  # of pandas before 2.2
_WEEK_ENDS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_UNITS: Mapping[str, Any] = {
    "M": "M",
    "D": "D",
    "h": "m",
    "min": "m",
    "s": "s",
    "ms": "ms",
    "us": "us",
    "ns": "ns",
}  # digits shown


@dataclass(frozen=True)
class Extension:
    """What an extension type is: its name, its parameters, and the type that stores its values."""

    name: str
    storage: pa.DataType
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, column: pa.Field) -> "Extension | None":
        """Return the extension type of a field, registered or told in its metadata; None where it has none."""
        metadata = column.metadata or {}
        if isinstance(column.type, pa.BaseExtensionType):
            serialized = column.type.__arrow_ext_serialize__() if isinstance(column.type, pa.ExtensionType) else b""
            return cls(column.type.extension_name, column.type.storage_type, _parameters(serialized))
        if b"ARROW:extension:name" in metadata:
            name = metadata[b"ARROW:extension:name"].decode("utf-8", "replace")
            return cls(name, column.type, _parameters(metadata.get(b"ARROW:extension:metadata", b"")))
        return None

    @property
    def plain_type(self) -> pa.DataType | None:
        """The type that the values are converted to, None where it is that of their storage."""
        if self.name == "pandas.period" and pa.types.is_int64(self.storage) and _frequency(self.parameters):
            return pa.string()
        if self.name == "pandas.interval" and pa.types.is_struct(self.storage):
            return LEVELS
        if self.name == "arrow.uuid" and self.storage == pa.binary(16):
            return pa.string()
        if self.name == "arrow.bool8" and pa.types.is_int8(self.storage):
            return pa.bool_()
        return None

    def plain(self, storage: pa.Array) -> pa.Array:
        """Return stored values in the plain type."""
        if self.plain_type is None:
            return storage
        if self.name == "pandas.interval":
            return _interval_levels(storage, str(self.parameters.get("closed", "right")))
        if self.name == "pandas.period":
            return _period_texts(storage, _frequency(self.parameters))
        return uuid_texts(storage) if self.name == "arrow.uuid" else storage.cast(pa.bool_())


def _parameters(serialized: bytes) -> dict[str, Any]:
    try:
        parameters = json.loads(serialized)
    except ValueError:
        return {}
    return parameters if isinstance(parameters, dict) else {}


def _frequency(parameters: Mapping[str, Any]) -> str:
    """Return the frequency of periods as ("Y", "Q", "W-SUN", "B" or a key of _UNITS), "" where it is unknown."""
    parts = re.fullmatch(r"\d*([A-Za-z]+)(-[A-Z]{3})?", str(parameters.get("freq", "")))
    if parts is None:
        return ""
    base = _ALIASES.get(parts[1], parts[1])
    if base == "W":
        return "W" + (parts[2] or "-SUN") if (parts[2] or "-SUN")[1:] in _WEEK_ENDS else ""
    return base if base in ("Y", "Q", "B", *_UNITS) else ""


def _period_texts(ordinals: pa.Array, frequency: str) -> pa.Array:
    """Return periods, counted from 1970, as pandas prints them: "2024", "2024Q1", "2024-01", "2024-01-31 05:00"."""
    codes = ordinals.dictionary_encode()
    x = codes.dictionary.to_numpy(zero_copy_only=False)
    if frequency == "Y":
        texts = [str(1970 + ordinal) for ordinal in x]
    elif frequency == "Q":
        texts = [f"{1970 + ordinal // 4}Q{ordinal % 4 + 1}" for ordinal in x]
    elif frequency.startswith("W"):
        last = (7 * x + _WEEK_ENDS.index(frequency[2:]) - 4).astype("datetime64[D]")
        texts = [f"{first}/{end}" for first, end in zip(last - 6, last, strict=True)]
    elif frequency == "B":
        texts = [str(day) for day in np.busday_offset(np.datetime64("1970-01-01"), x)]
    else:
        ticks = x.astype(f"datetime64[{'m' if frequency == 'min' else frequency}]")
        texts = _with_space(np.datetime_as_string(ticks, unit=_UNITS[frequency]))
    return pa.array(texts, pa.string()).take(codes.indices)


def _interval_levels(intervals: pa.Array, closed: str) -> pa.Array:
    """Return intervals as an ordered dictionary of pandas' text ("(0, 10]"), sorted by their left and right ends."""
    lefts, rights = (end.dictionary_encode() for end in intervals.flatten())
    missing = (lefts.is_null().to_numpy(zero_copy_only=False)) | (rights.is_null().to_numpy(zero_copy_only=False))
    left_of, right_of = (_ranks(ends)[np.where(missing, 0, _codes(ends))] for ends in (lefts, rights))
    pairs = left_of * (len(rights.dictionary) + 1) + right_of
    _, firsts, levels = np.unique(pairs[~missing], return_index=True, return_inverse=True)
    rows = np.flatnonzero(~missing)[firsts]
    left_texts, right_texts = (_end_texts(ends.dictionary)[_codes(ends)[rows]] for ends in (lefts, rights))
    before = "[" if closed in ("left", "both") else "("
    after = "]" if closed in ("right", "both") else ")"
    texts = [f"{before}{left}, {right}{after}" for left, right in zip(left_texts, right_texts, strict=True)]
    codes = np.zeros(len(intervals), np.int32)
    codes[~missing] = levels
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=missing), pa.array(texts, pa.string()), ordered=True)


def _codes(encoded: pa.DictionaryArray) -> NDArray[np.int64]:
    codes: NDArray[np.int64] = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def _ranks(encoded: pa.DictionaryArray) -> NDArray[np.int64]:
    """Return the place of each value of a dictionary in their order; one more where there are none."""
    ranks = np.zeros(len(encoded.dictionary) + 1, np.int64)
    ranks[encoded.dictionary.to_numpy(zero_copy_only=False).argsort()] = np.arange(len(encoded.dictionary))
    return ranks


def _end_texts(ends: pa.Array) -> NDArray[np.object_]:
    """Return the ends of intervals as pandas prints them; one more where there are none."""
    if pa.types.is_timestamp(ends.type):
        texts = _timestamp_texts(ends)
    elif pa.types.is_duration(ends.type):
        texts = _duration_texts(ends)
    else:
        texts = [str(end) for end in ends.to_numpy(zero_copy_only=False)]
    return np.array([*texts, ""], object)


def _timestamp_texts(times: pa.Array) -> list[str]:
    """Return times as pandas prints a Timestamp: "2024-01-01 00:00:00", its fraction and offset if it has them."""
    utc = times.cast(pa.timestamp(times.type.unit)) if times.type.tz else times
    local = pc.local_timestamp(times) if times.type.tz else times
    ticks = local.to_numpy(zero_copy_only=False)
    whole = ticks.astype("datetime64[s]")
    fractions = (ticks - whole).astype("timedelta64[ns]").astype(np.int64)
    offsets = [""] * len(ticks)
    if times.type.tz:
        minutes = (ticks - utc.to_numpy(zero_copy_only=False)).astype("timedelta64[m]").astype(np.int64)
        offsets = [f"{'-' if m < 0 else '+'}{abs(m) // 60:02d}:{abs(m) % 60:02d}" for m in minutes]
    texts = zip(_with_space(np.datetime_as_string(whole)), fractions, offsets, strict=True)
    return [text + _fraction(fraction) + offset for text, fraction, offset in texts]


def _duration_texts(durations: pa.Array) -> list[str]:
    """Return durations as pandas prints a Timedelta: "1 days 02:00:00"; a negative one is "-1 days +23:59:59"."""
    texts = []
    for ticks in durations.cast(pa.int64()).to_numpy(zero_copy_only=False):
        seconds, rest = divmod(int(ticks), TICKS[durations.type.unit])
        days, seconds = divmod(seconds, 86_400)
        clock = f"{seconds // 3_600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        fraction = _fraction(rest * (1_000_000_000 // TICKS[durations.type.unit]))
        texts.append(f"{days} days {'+' if days < 0 else ''}{clock}{fraction}")
    return texts


def _fraction(nanoseconds: int) -> str:
    if nanoseconds % 1_000:
        return f".{nanoseconds:09d}"
    return f".{nanoseconds // 1_000:06d}" if nanoseconds else ""


def _with_space(texts: NDArray[np.str_]) -> list[str]:
    return [text.replace("T", " ") for text in texts.tolist()]


def uuid_texts(values: pa.Array) -> pa.Array:
    """Return UUIDs of 16 bytes as text: "12345678-1234-5678-1234-567812345678"."""
    if not len(values):
        return pa.array([], pa.string())
    size = 16 * len(values)
    raw = np.frombuffer(values.buffers()[1], np.uint8, size, 16 * values.offset).reshape(-1, 16)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    texts = np.full((len(values), 36), ord("-"), np.uint8)
    places = [place for place in range(36) if place not in (8, 13, 18, 23)]
    texts[:, places] = digits[np.stack([raw >> 4, raw & 15], axis=2).reshape(-1, 32)]
    strings = pa.array(texts.view("S36").ravel(), pa.binary()).cast(pa.string())
    return pc.if_else(values.is_valid(), strings, None)
