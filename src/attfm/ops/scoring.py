"""Scoring: encoded ids to logits without autograd, in one call, in chunks that stay in the processor's cache."""

import torch
from torch import Tensor

from attfm.errors import DataError
from attfm.ops import distinct, native, reference

# Rows scored at once: their index of distinct pairs and what is looked up stay in L2, and pairs repeat often enough.
CHUNK = 16_384
_EAGER_CHUNK = 4096  # in plain torch: bounds the memory of the pair vectors


@torch.no_grad()
def score(
    ids: Tensor,
    intercept: Tensor,
    linear: Tensor,
    table: Tensor | None = None,
    projection: Tensor | None = None,
    W: Tensor | None = None,
    b: Tensor | None = None,
    h: Tensor | None = None,
    pair_bias: Tensor | None = None,
    pair_gate: Tensor | None = None,
    *,
    scale: float = 1.0,
    pairs: Tensor | None = None,
    values: Tensor | None = None,
    offsets: Tensor | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """Return the logits of encoded rows: w0 + Σ_f x w[id] + pooled @ projection (Xiao et al. 2017, eq. 8).

    Where the compiled kernels serve (`is_native`), a row's logits are the same bits whatever rows are beside it.

    Parameters
    ----------
    ids : (rows, fields) int32 or int64; with offsets (entries,)
    intercept, linear : (outputs,), (features, outputs)
    table, projection : (features, dim), (dim, outputs), or both None: no pairs
    W, b, h, pair_bias, pair_gate, scale, pairs : as in `pair_attention_pool`
    values : as ids, what multiplies each entry's vector and weight, or None for 1
    offsets : (rows, fields), where the entries of each field start, as in `pair_attention_pool_ids`
    chunk : rows worked on at once

    Returns
    -------
    logits : (rows, outputs)

    Raises
    ------
    DataError
        Shapes that don't fit, or ids outside the table.

    Examples
    --------
    >>> score(torch.tensor([[0, 1], [0, 0]]), torch.tensor([0.5]), torch.tensor([[1.0], [2.0]]))
    tensor([[3.5000],
            [2.5000]])
    """
    from attfm.ops import check_ids, check_parameters  # the front door imports this file

    if chunk < 1:
        raise DataError(f"chunk is {chunk}: at least one row is worked on at once.")
    if linear.ndim != 2 or intercept.shape != linear.shape[1:]:
        raise DataError(
            "linear must be (features, outputs) and intercept (outputs,); "
            f"they are {tuple(linear.shape)} and {tuple(intercept.shape)}."
        )
    if table is not None and (projection is None or projection.shape != (table.shape[1], linear.shape[1])):
        found = None if projection is None else tuple(projection.shape)
        raise DataError(f"projection must be {(table.shape[1], linear.shape[1])}, and is {found}.")
    check_ids(ids, linear, values, offsets)
    rows, fields = (ids if offsets is None else offsets).shape
    if table is None or fields < 2:
        table = projection = W = b = h = pair_bias = pair_gate = None
    else:
        check_ids(ids, table, values, offsets)
        check_parameters(W, b, h, pair_bias, pair_gate, pairs, fields=fields, dim=table.shape[1])
    logits = linear.new_empty((rows, linear.shape[1]))
    tensors = {"intercept": intercept, "linear": linear, "table": table, "projection": projection, "W": W, "b": b,
               "h": h, "pair_bias": pair_bias, "pair_gate": pair_gate, "values": values}  # fmt: skip
    numbers = native.pair_numbers(pairs, fields)
    if native.obstacle(tensors) is None and logits.numel() and (table is None or numbers.numel()):
        assert native.compiled is not None
        ids = ids.to(torch.int32).contiguous()
        chunk = min(chunk, distinct.MOST_ROWS)
        by_pairs = table is not None and W is not None and values is None and offsets is None and (
            _by_distinct_pairs(ids[:chunk], table, W, numbers)
        )  # fmt: skip
        native.compiled.score(
            ids, native.plain_tensor(values), native.ends(offsets, len(ids)), fields,
            *map(native.plain_tensor, (intercept, linear, table, projection, W, b, h, pair_bias, pair_gate)), numbers,
            pairs is None and W is None and pair_gate is None, scale, by_pairs, chunk,
            native.thread_count(rows, ids.numel() * 20), logits,
        )  # fmt: skip
        return logits
    chunk = min(chunk, _EAGER_CHUNK)
    for start in range(0, rows, chunk):
        part, x, starts = _rows(ids, values, offsets, start, start + chunk)
        vectors = reference.field_vectors(part, linear, values=x, offsets=starts)
        out = vectors.sum(1) + intercept
        if table is not None and projection is not None:
            pooled, _ = reference.pair_attention_pool(
                reference.field_vectors(part, table, values=x, offsets=starts),
                W, b, h, pair_bias, pair_gate, scale=scale, pairs=pairs,
            )  # fmt: skip
            out += pooled @ projection
        logits[start : start + chunk] = out
    return logits


def _rows(
    ids: Tensor, values: Tensor | None, offsets: Tensor | None, start: int, stop: int
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return ids, values and offsets of the rows start:stop."""
    if offsets is None:
        return ids[start:stop], None if values is None else values[start:stop], None
    starts = offsets[start:stop]
    first = int(starts[0, 0])
    last = int(offsets[stop, 0]) if stop < len(offsets) else len(ids)
    return ids[first:last], None if values is None else values[first:last], starts - first


def is_native(linear: Tensor) -> bool:
    """Return whether `score` runs on the compiled kernels with these parameters: float32, on the CPU."""
    return native.obstacle({"linear": linear}) is None


def _by_distinct_pairs(ids: Tensor, table: Tensor, W: Tensor, pairs: Tensor) -> bool:
    """Return whether the first chunk is scored faster by distinct pairs; the others are taken to be like it."""
    if table.shape[1] % 16 and len(table) > 2 * ids.numel():
        return False  # the path pads the whole table, chunk by chunk
    return distinct.is_worth_it(ids, table.shape[1], W.shape[1], pairs, backward=False)
