"""One text for a value, whatever type brings it: int 3, float 3.0 and decimal 3.00 are "3"."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from attfm.data.arrow_types import is_scalar
from attfm.data.texts import TICKS


def canonical_text(values: pa.Array) -> pa.Array:
    """Return values of a scalar type as text (large_string), null where missing.

    Truths are "true" and "false"; whole numbers have no point, others the fewest digits that give the value back in
    its own precision; dates are "2024-03-01", times of the day before "2024-03-01 12:30:00" in their own zone, where
    midnight is left out; durations are seconds; text stays as it is. Bytes that are no text, as all else that is no
    scalar, raise ValueError.
    """
    t = values.type
    if not is_scalar(t):
        raise ValueError(f"values of type {t} have no text")
    if types.is_floating(t):
        return _floats(values)
    if types.is_decimal(t) and t.scale != 0:
        texts = _without_zeros(values.cast(pa.large_string()))
        has_exponent = pc.match_substring(texts, "E")  # such as 1E-7, which a float64 has as 1e-07
        return pc.if_else(has_exponent, _floats(values.cast(pa.float64(), safe=False)), texts)
    if types.is_duration(t):
        ticks = values.cast(pa.int64())
        seconds = pc.divide(ticks.cast(pa.float64(), safe=False), float(TICKS[t.unit]))
        return _floats(seconds)
    if types.is_timestamp(t):
        local = values if t.tz is None else pc.local_timestamp(values)
        return _without_zeros(pc.strftime(local, "%Y-%m-%d %H:%M:%S"))
    if types.is_time(t):
        return _without_zeros(values.cast(pa.large_string()))
    return values if types.is_large_string(t) else values.cast(pa.large_string())


def _without_zeros(texts: pa.Array) -> pa.Array:
    """Return texts without the zeros at the end of their fractions, and without midnight after a date."""
    for zeros, rest in ((r"(\.\d*?)0+$", r"\1"), (r"\.$", ""), (r"(-\d\d) 00:00:00$", r"\1")):
        texts = pc.replace_substring_regex(texts, zeros, rest)
    return texts.cast(pa.large_string())


def _floats(values: pa.Array) -> pa.Array:
    missing = pc.is_null(values, nan_is_null=True).to_numpy(zero_copy_only=False)
    x = np.where(missing, 0, values.fill_null(0).to_numpy(zero_copy_only=False))
    # Shortest digits that give the value back in its own precision: a float32 0.1 is "0.1", as a float64 0.1 is.
    texts = pa.array(x.astype("U32"), pa.large_string())
    with np.errstate(invalid="ignore"):
        whole = (np.abs(x) < 2.0**63) & (x == np.trunc(x))
        integers = np.where(whole, x, 0).astype(np.int64)
    texts = pc.if_else(pa.array(whole), pa.array(integers).cast(pa.large_string()), texts)
    return pc.if_else(pa.array(missing), None, texts)
