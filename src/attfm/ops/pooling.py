"""The front doors: pooling by attention, from the field vectors or straight from ids and the table."""

from typing import NamedTuple

import torch
from torch import Tensor

from attfm.ops import checks, cpu, reference
from attfm.ops import distinct as by_pairs
from attfm.ops.backends import Backend, chosen, obstacle, warn_where_slow
from attfm.ops.schema import PoolCall


class Pooled(NamedTuple):
    """What pooling a batch gives.

    Attributes
    ----------
    vector : Tensor of (batch, dim), Σ A_ij q_ij
    weights : Tensor of (batch, pairs), the applied weights A_ij; None unless asked for
    """

    vector: Tensor
    weights: Tensor | None


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
    return_weights: bool = False,
    backend: Backend | None = None,
) -> Pooled:
    """Pool the pair vectors of each row by attention (Xiao et al. 2017, eq. 4 to 6).

    With q = embeddings[:, i] * embeddings[:, j] and a = softmax(relu(q @ W + b) @ h + pair_bias), it is
    `((scale * pair_gate * a)[..., None] * q).sum(1)`, without the tensors of (batch, pairs, dim) floats.

    Parameters
    ----------
    embeddings : Tensor of (batch, fields, dim), any floating dtype
    W : Tensor of (dim, attention_dim), or None, as b and h: no attention, A = scale · g
    b : Tensor of (attention_dim,)
    h : Tensor of (attention_dim,)
    pair_bias : Tensor of (pairs,), or None for 0
    pair_gate : Tensor of (pairs,), or None for 1
    scale : float, factor on all applied weights
    pairs : integer Tensor of (2, pairs), field numbers; or None for all i < j in the order of itertools.combinations
    pair_dropout : float in [0, 1), chance to drop an entry of a pair vector
    weight_dropout : float in [0, 1), chance to drop an applied weight
    return_weights : bool, also return the applied weights; gradients flow through both
    backend : "native" (float32 on the CPU; raises where it can't), "reference" (plain torch), "auto" (native where it
        can), or None for what `use_backend` says, at first "auto"

    Raises
    ------
    ConfigError : unknown backend, dropout outside [0, 1), or backend="native" with tensors that the kernels can't take
    DataError : shapes that don't fit each other, or pairs that don't name fields

    Examples
    --------
    >>> v = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    >>> pair_attention_pool(v, None, None, None, None, None, scale=1.0).vector  # FM: 1·3 + 1·5 + 3·5, ...
    tensor([[23., 44.]])
    """
    backend, parameters = chosen(backend), (W, b, h, pair_bias, pair_gate)
    checks.check_dropout(pair_dropout=pair_dropout, weight_dropout=weight_dropout)
    checks.check_embeddings(embeddings)
    batch, fields, dim = embeddings.shape
    checks.check_parameters(parameters, pairs, fields=fields, dim=dim)
    if _is_native(backend, {"embeddings": embeddings}, parameters, pairs, (batch, fields, dim)):
        call = PoolCall(
            embeddings, cpu.pair_numbers(pairs, fields), *parameters, fields=fields, all_pairs=pairs is None,
            scale=scale, weight_dropout=weight_dropout, pair_dropout=pair_dropout,
        )  # fmt: skip
        vector, weights = cpu.pool(call, return_weights=return_weights)
    else:
        vector, weights = reference.pair_attention_pool(
            embeddings, *parameters, scale=scale, pairs=pairs, pair_dropout=pair_dropout, weight_dropout=weight_dropout
        )
    return Pooled(vector, weights if return_weights else None)


def pair_attention_pool_ids(
    ids: Tensor,
    table: Tensor,
    W: Tensor | None,
    b: Tensor | None,
    h: Tensor | None,
    pair_bias: Tensor | None,
    pair_gate: Tensor | None,
    *,
    scale: float,
    pairs: Tensor | None = None,
    values: Tensor | None = None,
    offsets: Tensor | None = None,
    pair_dropout: float = 0.0,
    weight_dropout: float = 0.0,
    return_weights: bool = False,
    sparse: bool = False,
    distinct: bool | None = None,
    backend: Backend | None = None,
) -> Pooled:
    """Pool as `pair_attention_pool` does, with the field vectors `values * table[ids]` never written out.

    The attention network runs once for each distinct pair of features in the batch where that is faster: a pair
    vector depends on the two features, not on the row.

    Parameters
    ----------
    ids : int32 or int64 Tensor of (batch, fields), rows of the table; with offsets (entries,)
    table : Tensor of (features, dim), any floating dtype
    W, b, h, pair_bias, pair_gate, scale, pairs, pair_dropout, weight_dropout, return_weights, backend :
        as in `pair_attention_pool`
    values : Tensor as ids, what multiplies each entry's vector, or None for 1; data, without a gradient
    offsets : int64 Tensor of (batch, fields), where the entries of each field of each row start, row by row, the
        first 0: a field's vector is the sum over its entries, which may be none (a multi-valued field); None: one
        for each field
    sparse : bool, the table's gradient is a sparse tensor with a row for each id of the batch (as of
        `torch.nn.Embedding(sparse=True)`), or each distinct one; what a table of millions of rows needs
    distinct : bool, run the network on distinct pairs or row by row; None: as measured costs say. With values, offsets
        or pair_dropout it is row by row always: a pair vector is not that of two ids alone

    Raises
    ------
    ConfigError, DataError : as `pair_attention_pool`; and ids outside the table, or not of shape (batch, fields)

    Examples
    --------
    >>> table = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> ids = torch.tensor([[0, 1], [0, 2]], dtype=torch.int32)
    >>> pair_attention_pool_ids(ids, table, None, None, None, None, None, scale=1.0).vector
    tensor([[ 3.,  8.],
            [ 5., 12.]])
    """
    backend, parameters = chosen(backend), (W, b, h, pair_bias, pair_gate)
    checks.check_dropout(pair_dropout=pair_dropout, weight_dropout=weight_dropout)
    checks.check_ids(ids, table, values, offsets)
    (batch, fields), dim = (ids if offsets is None else offsets).shape, table.shape[1]
    checks.check_parameters(parameters, pairs, fields=fields, dim=dim)
    if _is_native(backend, {"table": table, "values": values}, parameters, pairs, (batch, fields, dim)):
        call = PoolCall(
            table, cpu.pair_numbers(pairs, fields), *parameters,
            ids=ids.to(torch.int32).contiguous(), values=values, offsets=cpu.ends(offsets, len(ids)),
            fields=fields, all_pairs=pairs is None, scale=scale, weight_dropout=weight_dropout,
            pair_dropout=pair_dropout,
        )  # fmt: skip
        vector, weights = by_pairs.pool_ids(call, sparse=sparse, distinct=distinct, return_weights=return_weights)
        return Pooled(vector, weights if return_weights else None)
    return pair_attention_pool(
        reference.field_vectors(ids, table, values=values, offsets=offsets, sparse=sparse),
        *parameters, scale=scale, pairs=pairs, pair_dropout=pair_dropout, weight_dropout=weight_dropout,
        return_weights=return_weights, backend=backend,
    )  # fmt: skip


def _is_native(
    backend: Backend,
    entries: dict[str, Tensor | None],
    parameters: checks.Parameters,
    pairs: Tensor | None,
    shape: tuple[int, int, int],
) -> bool:
    """Return whether the kernels compute; raise ConfigError where they are asked for and can't."""
    names = ("W", "b", "h", "pair_bias", "pair_gate")
    tensors, W = {**entries, **dict(zip(names, parameters, strict=True))}, parameters[0]
    batch, fields, dim = shape
    count = fields * (fields - 1) // 2 if pairs is None else pairs.shape[1]
    if obstacle(tensors, backend) is not None:
        if backend != "reference" and all(t is None or t.device.type == "cpu" for t in tensors.values()):
            warn_where_slow(batch * count * dim * (1 if W is None else W.shape[1]))
        return False
    # Without pairs or columns there is nothing to compute; the reference returns the right empty shapes.
    return count > 0 and dim > 0 and (W is None or W.shape[1] > 0)
