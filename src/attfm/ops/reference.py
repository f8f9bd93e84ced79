"""The specification: attentional pair pooling in plain torch, line by line from the formula."""

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F


def all_pairs(fields: int) -> Tensor:
    """Return the field pairs i < j as an int64 tensor (2, pairs), ordered as itertools.combinations."""
    return torch.tensor(list(itertools.combinations(range(fields), 2)), dtype=torch.int64).reshape(-1, 2).T


def pair_attention_pool(
    embeddings: Tensor,
    W: Tensor | None,
    b: Tensor | None,
    h: Tensor | None,
    pair_bias: Tensor | None,
    pair_gate: Tensor | None,
    *,
    scale: float,
    pairs: Tensor | None = None,
    pair_dropout: float = 0.0,
    weight_dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Return Σ A_ij q_ij (batch, dim) and the applied weights A_ij (batch, pairs) (Xiao et al. 2017, eq. 4 to 6).

    The arguments are those of `attfm.ops.pair_attention_pool`.
    """
    i, j = (all_pairs(embeddings.shape[1]) if pairs is None else pairs).to(embeddings.device)
    q = embeddings[:, i] * embeddings[:, j]  # q_ij = v_i ⊙ v_j
    q = F.dropout(q, pair_dropout, training=pair_dropout > 0)
    weights = q.new_full(q.shape[:2], scale)
    if W is not None and b is not None and h is not None:
        e = torch.relu(q @ W + b) @ h  # e_ij = h · relu(W q_ij + b) + c_ij
        if pair_bias is not None:
            e = e + pair_bias
        weights = scale * torch.softmax(e, dim=1)  # over the pairs of a row: sums to 1 before the scale
    if pair_gate is not None:
        weights = weights * pair_gate  # A_ij = scale · g_ij · a_ij
    weights = F.dropout(weights, weight_dropout, training=weight_dropout > 0)
    return (weights[..., None] * q).sum(1), weights


def field_vectors(
    ids: Tensor, table: Tensor, *, values: Tensor | None = None, offsets: Tensor | None = None, sparse: bool = False
) -> Tensor:
    """Return each field's vector (batch, fields, dim), Σ x · table[id] over its entries.

    The arguments are those of `attfm.ops.pair_attention_pool_ids`.
    """
    entries = F.embedding(ids, table, sparse=sparse)
    if values is not None:
        entries = entries * values[..., None]
    if offsets is None:
        return entries
    counts = torch.diff(offsets.flatten().to(ids.device), append=torch.tensor([len(ids)], device=ids.device))
    place = torch.repeat_interleave(torch.arange(len(counts), device=ids.device), counts)
    sums = entries.new_zeros((len(counts), table.shape[1])).index_add(0, place, entries)
    return sums.reshape(*offsets.shape, table.shape[1])
