"""Scoring by lookup in plain NumPy, the formula line by line: what the kernel must give."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.ops.slots import find_slots

Array = NDArray[Any]
Floats = NDArray[np.float64]


def lookup_logits(arrays: Mapping[str, Array], ids: Array, values: Array | None, offsets: Array | None) -> Floats:
    """Return the logits of encoded rows, float64 (rows, outputs).

    Parameters
    ----------
    arrays : as `lookup_arrays` gives them
    ids : int32 (rows, fields), or (entries,) with offsets
    values : float32, as ids, or None
    offsets : int64 (rows · fields + 1,) or None, where the entries of each field of each row start, and the end
    """
    fields, outputs = len(arrays["singles"]), len(arrays["base"])
    flat = ids.ravel()
    if offsets is None:
        offsets = np.arange(len(flat) + 1)
    first = offsets[:-1].reshape(-1, fields)
    x = np.ones(len(flat)) if values is None else values.ravel().astype(np.float64)
    rows = np.repeat(np.arange(len(first)), np.diff(np.append(first[:, 0], len(flat))))
    logits = np.tile(arrays["base"], (len(first), 1))
    np.add.at(logits, rows, x[:, None] * arrays["linear"][flat])

    one = flat[np.minimum(first, max(len(flat) - 1, 0))]  # the id of a field with one
    numerator, denominator, most = _tables(arrays, one, logits)
    parts = _computed(arrays, flat, x, offsets, len(first))
    if parts is not None:
        e, pq = parts  # (machines, rows, pairs), (machines, rows, pairs, outputs)
        if e is None:
            logits += pq.sum((0, 2))
        else:
            ahead = np.maximum(e.max(2), most)
            E = np.exp(e - ahead[..., None])
            numerator = numerator * np.exp(-ahead)[..., None] + (E[..., None] * pq).sum(2)
            denominator = denominator * np.exp(-ahead) + E.sum(2)
    if (denominator > 0).any():
        logits += (numerator / denominator[..., None]).sum(0)
    for m in range(len(numerator)):
        if f"memory.{m}.pairs" in arrays:
            logits += _remembered({name: arrays[f"memory.{m}.{name}"] for name in _MEMORY}, one)
    assert logits.shape[1] == outputs
    return logits


_MEMORY = ("level", "pairs", "width", "offset", "slots", "effects", "unknown")


def _tables(arrays: Mapping[str, Array], one: Array, logits: Floats) -> tuple[Floats, Floats, float]:
    """Add what attention does not divide to the logits; return Σ N (machines, rows, outputs), Σ E (machines, rows)."""
    outputs, (machines, attention) = logits.shape[1], arrays["machines"].tolist()
    first, second = np.triu_indices(one.shape[1], 1)
    sums = np.zeros((len(one), arrays["cells"].shape[1]))
    for i, j, origin, step, mask in zip(first, second, *arrays["grid"].tolist(), strict=False):
        sums += arrays["cells"][origin + one[:, i].astype(np.int64) * step + (one[:, j] & mask)]
    for i, j, origin, step in zip(*arrays["sum_pairs"], *arrays["sum_places"].tolist(), strict=True):
        logits += arrays["sum_cells"][origin + one[:, i].astype(np.int64) * step + one[:, j], :outputs]
    numerator, denominator = np.zeros((machines, *logits.shape)), np.zeros((machines, len(logits)))
    if attention:
        parts = sums[:, : machines * (1 + outputs)].reshape(len(one), machines, 1 + outputs)
        denominator, numerator = parts[:, :, 0].T, parts[:, :, 1:].transpose(1, 0, 2)
    else:
        logits += sums[:, :outputs]
    return numerator, denominator, 0.0 if arrays["grid"].size else -np.inf


def _computed(
    arrays: Mapping[str, Array], flat: Array, x: Floats, offsets: Array, rows: int
) -> tuple[Floats | None, Floats] | None:
    """Return the attention logits (None without attention) and values of the pairs without a table."""
    if not arrays["computed_pairs"].size:
        return None
    V, P, factors = (arrays[name].astype(np.float64) for name in ("embeddings", "projections", "factors"))
    entry = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    i, j = arrays["computed_pairs"]
    logits, values = [], []
    for m in range(len(V)):
        summed = np.zeros((len(offsets) - 1, V.shape[2]))
        np.add.at(summed, entry, x[:, None] * V[m][flat])
        vectors = summed.reshape(rows, -1, V.shape[2])
        q = vectors[:, i] * vectors[:, j]
        values.append((q @ P[m]) * factors[m])
        if "W" in arrays:
            hidden = np.maximum(q @ arrays["W"][m].astype(np.float64) + arrays["b"][m], 0)
            logits.append(hidden @ arrays["h"][m].astype(np.float64) + arrays["biases"][m])
    return np.stack(logits) if logits else None, np.stack(values)


def _remembered(memory: Mapping[str, Array], one: Array) -> Floats:
    """Return the sum of what one machine remembers of each row, (rows, outputs)."""
    first, second = (memory["level"][one[:, fields]].astype(np.int64) for fields in memory["pairs"])
    slots = find_slots(memory["slots"], memory["offset"] + first * memory["width"] + second)
    effects = np.where((slots >= 0)[..., None], memory["effects"][np.maximum(slots, 0)], memory["unknown"])
    total: Floats = effects.sum(1, dtype=np.float64)
    return total
