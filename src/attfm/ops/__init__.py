"""The arithmetic of the model: one front door before the plain reference and the compiled kernels."""

import warnings
from typing import Literal

import torch
from torch import Tensor

from attfm.errors import ConfigError, DataError
from attfm.ops import distinct as distinct_pairs
from attfm.ops import native, reference
from attfm.ops.averages import RowAverage
from attfm.ops.native import native_info
from attfm.ops.reference import all_pairs
from attfm.ops.rows import adagrad_rows, adam_rows
from attfm.ops.scoring import score

__all__ = [
    "Backend",
    "RowAverage",
    "adagrad_rows",
    "adam_rows",
    "all_pairs",
    "native_info",
    "pair_attention_pool",
    "pair_attention_pool_ids",
    "score",
]

Backend = Literal["auto", "native", "reference"]
_BACKENDS = ("auto", "native", "reference")
# Multiply-adds of one call from which a missing library is worth a warning (some milliseconds in eager torch).
_LARGE = 10_000_000
_warned = False


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
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Pool the pair vectors of each row by attention (Xiao et al. 2017, eq. 4 to 6).

    With q = embeddings[:, i] * embeddings[:, j] and a = softmax(relu(q @ W + b) @ h + pair_bias), it is
    `((scale * pair_gate * a)[..., None] * q).sum(1)`, without the tensors of (batch, pairs, dim) floats.

    Parameters
    ----------
    embeddings : (batch, fields, dim), any floating dtype
    W, b, h : (dim, attention_dim), (attention_dim,), (attention_dim,), or all None: no attention, A = scale · g
    pair_bias, pair_gate : (pairs,) each, or None for 0 and 1
    scale : factor on all applied weights
    pairs : (2, pairs) integer field numbers, or None for all i < j in the order of itertools.combinations
    pair_dropout, weight_dropout : chance to drop an entry of a pair vector, or an applied weight; in [0, 1)
    return_weights : also return the applied weights; gradients flow through both
    backend : "native" (float32 on the CPU; raises where it can't), "reference" (plain torch),
        or "auto": native where it can

    Returns
    -------
    pooled : (batch, dim), Σ A_ij q_ij
    weights : (batch, pairs), the applied weights A_ij; only with return_weights

    Raises
    ------
    ConfigError
        An unknown backend, a dropout outside [0, 1), or backend="native" with tensors that the kernels can't take.
    DataError
        Shapes that don't fit each other, or pairs that don't name fields.

    Examples
    --------
    >>> v = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    >>> pair_attention_pool(v, None, None, None, None, None, scale=1.0)  # FM: 1·3 + 1·5 + 3·5, ...
    tensor([[23., 44.]])
    """
    _check_settings(backend, pair_dropout, weight_dropout)
    _check_shapes(embeddings, W, b, h, pair_bias, pair_gate, pairs)
    tensors = {
        "embeddings": embeddings, "W": W, "b": b, "h": h, "pair_bias": pair_bias, "pair_gate": pair_gate
    }  # fmt: skip
    if backend != "reference" and _use_native(backend, tensors, pairs, shape=tuple(embeddings.shape)):
        pooled, weights = native.pair_attention_pool(
            embeddings, W, b, h, pair_bias, pair_gate,
            scale=scale, pairs=pairs, pair_dropout=pair_dropout, weight_dropout=weight_dropout,
            return_weights=return_weights,
        )  # fmt: skip
    else:
        pooled, weights = reference.pair_attention_pool(
            embeddings, W, b, h, pair_bias, pair_gate,
            scale=scale, pairs=pairs, pair_dropout=pair_dropout, weight_dropout=weight_dropout,
        )  # fmt: skip
    return (pooled, weights) if return_weights else pooled


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
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Pool as `pair_attention_pool` does, with the field vectors `values * table[ids]` never written out.

    The attention network runs once for each distinct pair of features in the batch where that is faster: a pair
    vector depends on the two features, not on the row.

    Parameters
    ----------
    ids : (batch, fields) int32 or int64, rows of the table; with offsets (entries,)
    table : (features, dim), any floating dtype
    W, b, h, pair_bias, pair_gate, scale, pairs, pair_dropout, weight_dropout, return_weights, backend :
        as in `pair_attention_pool`
    values : as ids, what multiplies each entry's vector, or None for 1; data, without a gradient
    offsets : (batch, fields) int64, where the entries of each field of each row start, row by row, the first 0: a
        field's vector is the sum over its entries, which may be none (a multi-valued field); None: one for each field
    sparse : the table's gradient is a sparse tensor with a row for each id of the batch (as of
        `torch.nn.Embedding(sparse=True)`), or each distinct one; what a table of millions of rows needs
    distinct : run the network on distinct pairs (True), row by row (False), or as measured costs say (None);
        with values, offsets or pair_dropout it is row by row always: a pair vector is not that of two ids alone

    Returns
    -------
    pooled : (batch, dim)
    weights : (batch, pairs); only with return_weights

    Raises
    ------
    ConfigError, DataError
        As `pair_attention_pool`; and ids outside the table, or not of shape (batch, fields).

    Examples
    --------
    >>> table = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> ids = torch.tensor([[0, 1], [0, 2]], dtype=torch.int32)
    >>> pair_attention_pool_ids(ids, table, None, None, None, None, None, scale=1.0)
    tensor([[ 3.,  8.],
            [ 5., 12.]])
    """
    _check_settings(backend, pair_dropout, weight_dropout)
    check_ids(ids, table, values, offsets)
    batch, fields = (ids if offsets is None else offsets).shape
    check_parameters(W, b, h, pair_bias, pair_gate, pairs, fields=fields, dim=table.shape[1])
    tensors = {
        "table": table, "W": W, "b": b, "h": h, "pair_bias": pair_bias, "pair_gate": pair_gate, "values": values
    }  # fmt: skip
    if backend != "reference" and _use_native(backend, tensors, pairs, shape=(batch, fields, table.shape[1])):
        pooled, weights = distinct_pairs.pair_attention_pool_ids(
            ids.to(torch.int32).contiguous(), table, W, b, h, pair_bias, pair_gate,
            scale=scale, pairs=pairs, values=values, offsets=offsets,
            pair_dropout=pair_dropout, weight_dropout=weight_dropout,
            return_weights=return_weights, sparse=sparse, distinct=distinct,
        )  # fmt: skip
        return (pooled, weights) if return_weights else pooled
    return pair_attention_pool(
        reference.field_vectors(ids, table, values=values, offsets=offsets, sparse=sparse),
        W, b, h, pair_bias, pair_gate,
        scale=scale, pairs=pairs, pair_dropout=pair_dropout, weight_dropout=weight_dropout,
        return_weights=return_weights, backend=backend,
    )  # fmt: skip


def check_ids(ids: Tensor, table: Tensor, values: Tensor | None, offsets: Tensor | None = None) -> None:
    """Raise DataError where ids are not rows of the table, or values and offsets don't match them."""
    wanted = "(batch, fields)" if offsets is None else "(entries,) beside offsets"
    if table.ndim != 2 or ids.ndim != (2 if offsets is None else 1) or ids.dtype not in (torch.int32, torch.int64):
        raise DataError(
            f"ids must be an integer tensor {wanted} and table (features, dim); ids is "
            f"{str(ids.dtype).removeprefix('torch.')} {tuple(ids.shape)}, table is {tuple(table.shape)}."
        )
    if ids.device != table.device:
        raise DataError(f"ids is on {ids.device} and table on {table.device}: move one of them.")
    if values is not None and values.shape != ids.shape:
        raise DataError(f"values must be {tuple(ids.shape)} as ids is, and is {tuple(values.shape)}.")
    if values is not None and values.requires_grad:
        raise DataError("values asks for a gradient: they are data here. Pool gathered embeddings instead.")
    if offsets is not None:
        _check_offsets(offsets, len(ids))
    # On a GPU reading the ids would wait for it; torch checks them there.
    if ids.numel() and ids.device.type == "cpu" and not torch.compiler.is_compiling():
        low, high = native.id_range(ids)
        if low < 0 or high >= len(table):
            worst = low if low < 0 else high
            at = (ids == worst).nonzero()[0].tolist()
            where = f"row {at[0]}, field {at[1]}" if offsets is None else f"entry {at[0]}"
            raise DataError(f"ids holds {worst} ({where}), and the table has {len(table)} rows.")


def _check_offsets(offsets: Tensor, entries: int) -> None:
    if offsets.ndim != 2 or offsets.dtype not in (torch.int32, torch.int64):
        raise DataError(
            f"offsets must be an integer tensor (batch, fields), and is {str(offsets.dtype).removeprefix('torch.')} "
            f"{tuple(offsets.shape)}."
        )
    starts = offsets.flatten()
    if torch.compiler.is_compiling() or offsets.device.type != "cpu":  # reading them there would wait for the GPU
        return
    if not len(starts):
        fits = entries == 0
    else:
        fits = int(starts[0]) == 0 and int(starts[-1]) <= entries and bool((starts[1:] >= starts[:-1]).all())
    if not fits:
        raise DataError(f"offsets must start at 0, never fall, and end at most at the {entries} entries of ids.")


def _use_native(
    backend: Backend,
    tensors: dict[str, Tensor | None],
    pairs: Tensor | None,
    *,
    shape: tuple[int, ...],
) -> bool:
    """Return whether the kernels serve; raise ConfigError where they are asked for and can't."""
    why_not = native.obstacle(tensors)
    batch, fields, dim = shape
    if backend == "native":
        if why_not is not None:
            raise ConfigError(f"backend='native' can't serve: {why_not}. Use backend='auto' or 'reference'.")
        native.raise_unless_contiguous(tensors)
    count = fields * (fields - 1) // 2 if pairs is None else pairs.shape[1]
    W = tensors["W"]
    if why_not is not None:
        if native.compiled is None and all(t is None or t.device.type == "cpu" for t in tensors.values()):
            _warn_once(batch * count * dim * (1 if W is None else W.shape[1]))
        return False
    # Without pairs or columns there is nothing to compute; the reference returns the right empty shapes.
    return count > 0 and dim > 0 and (W is None or W.shape[1] > 0)


def _warn_once(work: int) -> None:
    global _warned
    if work >= _LARGE and not _warned and not torch.compiler.is_compiling():
        _warned = True
        warnings.warn(
            "attfm runs without its compiled kernels, 5 to 40 times slower: no C++ compiler was found when it was "
            "installed. Install a compiler (g++ or clang) and run 'pip install --force-reinstall --no-deps attfm'.",
            RuntimeWarning,
            stacklevel=4,
        )


def _check_settings(backend: str, pair_dropout: float, weight_dropout: float) -> None:
    if backend not in _BACKENDS:
        raise ConfigError(f"Unknown backend {backend!r}: it is one of {', '.join(_BACKENDS)}.")
    for name, value in (("pair_dropout", pair_dropout), ("weight_dropout", weight_dropout)):
        if not 0 <= value < 1:
            raise ConfigError(f"{name} is {value}: a chance to drop must be at least 0 and below 1.")


def _check_shapes(
    embeddings: Tensor,
    W: Tensor | None,
    b: Tensor | None,
    h: Tensor | None,
    pair_bias: Tensor | None,
    pair_gate: Tensor | None,
    pairs: Tensor | None,
) -> None:
    if embeddings.ndim != 3:
        raise DataError(f"embeddings must be (batch, fields, dim); its shape is {tuple(embeddings.shape)}.")
    _, fields, dim = embeddings.shape
    check_parameters(W, b, h, pair_bias, pair_gate, pairs, fields=fields, dim=dim)


def check_parameters(
    W: Tensor | None,
    b: Tensor | None,
    h: Tensor | None,
    pair_bias: Tensor | None,
    pair_gate: Tensor | None,
    pairs: Tensor | None,
    *,
    fields: int,
    dim: int,
) -> None:
    """Raise DataError, naming every parameter whose shape does not fit."""
    if pairs is not None and (pairs.ndim != 2 or pairs.shape[0] != 2):
        raise DataError(f"pairs must be an integer tensor (2, pairs); its shape is {tuple(pairs.shape)}.")
    count = fields * (fields - 1) // 2 if pairs is None else pairs.shape[-1]
    given = [t is not None for t in (W, b, h)]
    if any(given) and not all(given):
        raise DataError("W, b and h come together: all tensors, or all None for no attention.")
    wanted: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "pair_bias": (pair_bias, (count,)),
        "pair_gate": (pair_gate, (count,)),
    }
    if W is not None:
        hidden = W.shape[-1]
        wanted |= {"W": (W, (dim, hidden)), "b": (b, (hidden,)), "h": (h, (hidden,))}
    wrong = [
        f"{name} must be {shape}, and is {tuple(tensor.shape)}"
        for name, (tensor, shape) in wanted.items()
        if tensor is not None and tuple(tensor.shape) != shape
    ]
    if wrong:
        raise DataError(f"With {fields} fields of dim {dim} and {count} pairs: {'; '.join(wrong)}.")
