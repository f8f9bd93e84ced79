"""Scoring: encoded ids to logits without autograd, in chunks that stay in the processor's cache."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attfm.errors import DataError
from attfm.ops import distinct, native

# Rows scored at once: their index of distinct pairs and what is looked up stay in L2, and pairs repeat often enough.
CHUNK = 16_384


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
    chunk: int = CHUNK,
) -> Tensor:
    """Return the logits of encoded rows: w0 + Σ_f x w[id] + pooled @ projection (Xiao et al. 2017, eq. 8).

    Parameters
    ----------
    ids : (rows, fields) int32 or int64
    intercept, linear : (outputs,), (features, outputs)
    table, projection : (features, dim), (dim, outputs), or both None: no pairs
    W, b, h, pair_bias, pair_gate, scale, pairs : as in `pair_attention_pool`
    values : (rows, fields), what multiplies each field's vector and weight, or None for 1
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
    from attfm.ops import check_ids, pair_attention_pool_ids  # the front door imports this file

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
    check_ids(ids, linear, values)
    logits = linear.new_empty((len(ids), linear.shape[1]))
    path: bool | None = None
    for start in range(0, len(ids), chunk):
        part = ids[start : start + chunk]
        x = None if values is None else values[start : start + chunk]
        out = F.embedding_bag(part.long(), linear, mode="sum", per_sample_weights=x) + intercept
        if table is not None and projection is not None and ids.shape[1] > 1:
            if path is None:
                path = values is None and _by_distinct_pairs(part, table, W, pairs)
            pooled = pair_attention_pool_ids(
                part, table, W, b, h, pair_bias, pair_gate, scale=scale, pairs=pairs, values=x, distinct=path
            )
            out = torch.addmm(out, torch.as_tensor(pooled), projection)
        logits[start : start + chunk] = out
    return logits


def _by_distinct_pairs(ids: Tensor, table: Tensor, W: Tensor | None, pairs: Tensor | None) -> bool:
    """Return whether the first chunk is scored faster by distinct pairs; the others are taken to be like it."""
    if W is None or native.obstacle({"table": table, "W": W}) is not None or len(ids) > distinct.MOST_ROWS:
        return False
    if not len(ids) or int(ids.min()) < 0 or int(ids.max()) >= len(table):
        return False  # the front door says what is wrong
    share = distinct.distinct_share(ids.to(torch.int32), native.pair_numbers(pairs, ids.shape[1]))
    return distinct.distinct_is_faster(table.shape[1], W.shape[1], share, backward=False)
