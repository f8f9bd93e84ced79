"""Scoring: encoded ids to logits without autograd, in one call, in chunks that stay in the processor's cache."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from attfm.errors import ConfigError, DataError
from attfm.ops import backends, checks, cpu
from attfm.ops import distinct as by_pairs

# Rows scored at once: their index of distinct pairs and what is looked up stay in L2, and pairs repeat often enough.
CHUNK = 16_384
# So few rows are scored by row before their distinct pairs are counted.
_FEW = 64


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
    distinct: bool | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """Return the logits of encoded rows: w0 + Σ_f x w[id] + pooled @ projection (Xiao et al. 2017, eq. 8).

    It runs on the compiled kernels only (`is_native`); a row's logits are the same bits whatever rows are beside it.

    Parameters
    ----------
    ids : int32 or int64 Tensor of (rows, fields); with offsets (entries,)
    intercept : float32 Tensor of (outputs,), on the CPU as all of them
    linear : Tensor of (features, outputs)
    table : Tensor of (features, dim), or None: no pairs
    projection : Tensor of (dim, outputs), with a table
    W, b, h, pair_bias, pair_gate, scale, pairs : as in `pair_attention_pool`
    values : Tensor as ids, what multiplies each entry's vector and weight, or None for 1
    offsets : Tensor of (rows, fields), where the entries of each field start, as in `pair_attention_pool_ids`
    distinct : bool, run the network on distinct pairs or row by row, as in `pair_attention_pool_ids`
    chunk : int, rows worked on at once

    Returns
    -------
    logits : Tensor of (rows, outputs)

    Raises
    ------
    DataError : shapes that don't fit, or ids outside the table
    ConfigError : the kernels can't take the tensors, or the backend is "reference"

    Examples
    --------
    >>> score(torch.tensor([[0, 1], [0, 0]]), torch.tensor([0.5]), torch.tensor([[1.0], [2.0]]))
    tensor([[3.5000],
            [2.5000]])
    """
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
    checks.check_ids(ids, linear, values, offsets)
    rows, fields = (ids if offsets is None else offsets).shape
    parameters: checks.Parameters = (W, b, h, pair_bias, pair_gate)
    if table is not None and fields > 1:
        checks.check_ids(ids, table, values, offsets)
        checks.check_parameters(parameters, pairs, fields=fields, dim=table.shape[1])
    numbers = cpu.pair_numbers(pairs, fields)
    if table is None or not numbers.numel():
        table = projection = None
        parameters = (None, None, None, None, None)
    names = ("intercept", "linear", "table", "projection", "W", "b", "h", "pair_bias", "pair_gate")
    tensors = dict(zip(names, (intercept, linear, table, projection, *parameters), strict=True))
    why_not = backends.obstacle({**tensors, "values": values})
    if why_not is not None:
        raise ConfigError(f"score runs on the compiled kernels only: {why_not}. Use FactorizationMachine.predict.")
    logits = linear.new_empty((rows, linear.shape[1]))
    if not logits.numel():
        return logits
    ids, chunk = ids.to(torch.int32).contiguous(), min(chunk, by_pairs.MOST_ROWS)
    if table is None or W is None or values is not None or offsets is not None:
        distinct = False
    elif distinct is None:
        distinct = _by_distinct_pairs(ids[:chunk], table, W, numbers)
    cpu.compiled.score(
        ids.numpy(), _array(values), _array(cpu.ends(offsets, len(ids))), fields, *map(_array, tensors.values()),
        numbers.numpy(), pairs is None and parameters[0] is None and parameters[-1] is None, scale, distinct, chunk,
        cpu.thread_count(rows, ids.numel() * 20), logits.numpy(),
    )  # fmt: skip
    return logits


def _array(tensor: Tensor | None) -> NDArray[Any] | None:
    """Return a tensor as the kernel reads it; NumPy's arrays reach it much sooner than tensors do."""
    return None if tensor is None else tensor.detach().contiguous().numpy()


def is_native(linear: Tensor) -> bool:
    """Return whether `score` takes these parameters: float32, on the CPU, and the backend is not "reference"."""
    return backends.obstacle({"linear": linear}) is None


def _by_distinct_pairs(ids: Tensor, table: Tensor, W: Tensor, pairs: Tensor) -> bool:
    """Return whether the first chunk is scored faster by distinct pairs; the others are taken to be like it."""
    if len(ids) < _FEW:
        return False
    if table.shape[1] % 16 and len(table) > 2 * ids.numel():
        return False  # the path pads the whole table, chunk by chunk
    return by_pairs.is_worth_it(ids, table.shape[1], W.shape[1], pairs, backward=False)
