"""Pooling straight from ids and the table: by row, or with the network run once for each distinct pair of features.

Which is faster depends on how often the pairs of a batch repeat; `distinct_is_faster` decides by measured costs.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attfm.ops import cpu
from attfm.ops.schema import PoolCall

# The index numbers a batch's distinct pairs in 16 bits.
MOST_ROWS = 65_536
# Pairs of fields that are counted to estimate how many distinct pairs a batch holds.
_SAMPLED_PAIRS = 8


def distinct_is_faster(dim: int, attention_dim: int, share: float, *, backward: bool = True) -> bool:
    """Return whether distinct pairs are faster, where they are `share` of all pairs of the batch.

    The costs are nanoseconds for each pair of a row, fitted to one thread's times of both paths on the shapes of
    `benchmarks/kernels.py` (docs/performance.md has the figures; a test pins the choice on those shapes).
    """
    padded_dim, padded_hidden = (-(-n // 16) * 16 for n in (dim, attention_dim))
    forward = dim * padded_hidden
    if backward:
        network = 7 + 0.5 * padded_dim + 0.0105 * (2 * forward + attention_dim * padded_dim)
        lookup = 18 + 0.4 * padded_dim
    else:
        network = 3 + 0.1 * padded_dim + 0.0105 * forward
        lookup = 6 + 0.03 * padded_dim
    return lookup + share * network < network


def is_worth_it(ids: Tensor, dim: int, attention_dim: int, pairs: Tensor, *, backward: bool = True) -> bool:
    """Return whether a batch is pooled faster by its distinct pairs, as far as a few pairs of fields tell."""

    def faster(share: float) -> bool:
        return distinct_is_faster(dim, attention_dim, share, backward=backward)

    if not 0 < len(ids) <= MOST_ROWS or not faster(0.0):
        return False
    # There are at least as many distinct pairs as distinct features in either field: cheap to count, and often enough.
    return faster(least_share(ids, pairs)) and faster(distinct_share(ids, pairs))


def least_share(ids: Tensor, pairs: Tensor) -> float:
    """Return a lower bound of the distinct pairs as a share of all pairs of the batch."""
    counts: Tensor = cpu.compiled.count_distinct(ids.contiguous())
    return float(counts[pairs.long()].amax(0).double().mean()) / max(1, len(ids))


def distinct_share(ids: Tensor, pairs: Tensor) -> float:
    """Estimate the distinct pairs as a share of all pairs of the batch, from a few pairs of fields."""
    count = pairs.shape[1]
    step = max(1, count // _SAMPLED_PAIRS)
    sample = pairs[:, step // 2 :: step].contiguous()
    _, _, members = torch.ops.attfm.find_pairs(ids, sample)
    return len(members) / max(1, len(ids) * sample.shape[1])


class _DenseGradient(torch.autograd.Function):
    """The table itself, with its sparse gradient made dense."""

    @staticmethod
    def forward(ctx: Any, table: Tensor) -> Tensor:
        return table.view_as(table)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        dense = gradient._values().new_zeros(gradient.shape)
        return dense.index_add_(0, gradient._indices()[0], gradient._values())


def pool_ids(call: PoolCall, *, sparse: bool, distinct: bool | None, return_weights: bool) -> tuple[Tensor, Tensor]:
    """Pool a call with ids as `cpu.pool` does, by row or by distinct pairs (`distinct` forces a path, None chooses).

    It is by row always where a pair vector is not that of two features alone: with values, bags or pair_dropout.
    """
    ids, table, W = call.ids, call.embeddings, call.W
    assert ids is not None
    by_row = distinct is False or call.values is not None or call.offsets is not None or call.pair_dropout > 0
    if W is not None and not by_row and distinct is None:
        # The choice reads the ids, which torch.compile can't.
        by_row = torch.compiler.is_compiling() or not is_worth_it(ids, table.shape[1], W.shape[1], call.pairs)
    large = len(table) > 2 * ids.numel()
    if by_row or W is None:
        # A dense gradient is summed in a copy of the table for each thread, unless the table is large.
        by_entry = sparse or (large and not torch.compiler.is_compiling())  # which knows no sparse tensors
        if by_entry and not sparse:
            table = _DenseGradient.apply(table)  # type: ignore[no-untyped-call]
        return cpu.pool(call._replace(embeddings=table, by_entry=by_entry), return_weights=return_weights)
    if sparse or large:
        # Only the rows of this batch: a gradient of the whole table would cost more than the step.
        ids, rows = torch.ops.attfm.find_slots(ids, len(table))
        table = F.embedding(rows, table, sparse=sparse)
    index, starts, members = torch.ops.attfm.find_pairs(ids, call.pairs)
    call = call._replace(embeddings=table, ids=ids, pair_index=index, starts=starts, members=members)
    return cpu.pool(call, return_weights=return_weights)
