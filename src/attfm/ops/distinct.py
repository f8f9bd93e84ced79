"""Pooling straight from ids and the table: by row, or with the network run once for each distinct pair of features.

Which is faster depends on how often the pairs of a batch repeat; `distinct_is_faster` decides by measured costs.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attfm.ops import native
from attfm.ops.native import compiled, library, plain_tensor, seed_number, thread_count

# The index numbers a batch's distinct pairs in 16 bits.
MOST_ROWS = 65_536
# Pairs of fields that are counted to estimate how many distinct pairs a batch holds.
_SAMPLED_PAIRS = 8

_NETWORK = "Tensor W, Tensor b, Tensor h, Tensor? pair_bias, Tensor? pair_gate, Tensor pairs"
_INDEX = "Tensor vectors, Tensor slots, Tensor index, Tensor offsets, Tensor members"
library.define("find_slots(Tensor ids, int features) -> (Tensor, Tensor)")
library.define("find_pairs(Tensor slots, Tensor pairs) -> (Tensor, Tensor, Tensor)")
library.define(
    f"pool_distinct({_INDEX}, {_NETWORK}, float scale, float dropout, Tensor? seed, bool want_weights, bool save) "
    "-> (Tensor, Tensor, Tensor, Tensor)"
)
library.define(
    f"pool_distinct_backward({_INDEX}, {_NETWORK}, float scale, float dropout, Tensor? seed, Tensor attention, "
    "Tensor bits, Tensor grad_pooled, Tensor? grad_weights) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def _find_slots(ids: Tensor, features: int) -> tuple[Tensor, Tensor]:
    assert compiled is not None
    slots = torch.empty_like(ids, memory_format=torch.contiguous_format)
    return slots, compiled.find_slots(ids.contiguous(), features, slots)


def _find_slots_shapes(ids: Tensor, features: int) -> tuple[Tensor, Tensor]:
    size = torch.library.get_ctx().new_dynamic_size()
    return ids.new_empty(ids.shape), ids.new_empty((size,), dtype=torch.int64)


def _find_pairs(slots: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    assert compiled is not None
    batch, count = slots.shape[0], pairs.shape[1]
    index = torch.empty((count, batch), dtype=torch.int16)
    offsets, members = compiled.find_pairs(
        slots.contiguous(), pairs.contiguous(), thread_count(count, batch * count * 4), index
    )
    return index, offsets, members


def _find_pairs_shapes(slots: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    size = torch.library.get_ctx().new_dynamic_size()
    batch, count = slots.shape[0], pairs.shape[1]
    return (
        slots.new_empty((count, batch), dtype=torch.int16),
        slots.new_empty((count + 1,)),
        slots.new_empty((size, 2)),
    )


def _threads(slots: Tensor, vectors: Tensor, members: Tensor, pairs: Tensor, W: Tensor) -> int:
    work = pairs.shape[1] * len(slots) * vectors.shape[1] + len(members) * W.shape[0] * W.shape[1]
    return thread_count(len(slots), work)


def _pool_shapes(
    vectors: Tensor, slots: Tensor, index: Tensor, offsets: Tensor, members: Tensor,
    W: Tensor, b: Tensor, h: Tensor, pair_bias: Tensor | None, pair_gate: Tensor | None, pairs: Tensor,
    scale: float, dropout: float, seed: Tensor | None, want_weights: bool, save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    entries = (slots.shape[0], pairs.shape[1])
    bits = (members.shape[0], (W.shape[1] + 15) // 16 * 2)
    return (
        vectors.new_empty((slots.shape[0], vectors.shape[1])),
        vectors.new_empty(entries if want_weights else (0,)),
        vectors.new_empty(entries if save else (0,)),
        vectors.new_empty(bits if save else (0,), dtype=torch.uint8),
    )


def _pool(
    vectors: Tensor, slots: Tensor, index: Tensor, offsets: Tensor, members: Tensor,
    W: Tensor, b: Tensor, h: Tensor, pair_bias: Tensor | None, pair_gate: Tensor | None, pairs: Tensor,
    scale: float, dropout: float, seed: Tensor | None, want_weights: bool, save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    assert compiled is not None
    outputs = _pool_shapes(
        vectors, slots, index, offsets, members, W, b, h, pair_bias, pair_gate, pairs,
        scale, dropout, seed, want_weights, save,
    )  # fmt: skip
    compiled.distinct_forward(
        plain_tensor(vectors), slots, index, offsets, members,
        *map(plain_tensor, (W, b, h, pair_bias, pair_gate)), pairs,
        scale, dropout, seed_number(seed), _threads(slots, vectors, members, pairs, W),
        outputs[0], *(t if t.numel() else None for t in outputs[1:]),
    )  # fmt: skip
    return outputs


def _pool_backward_shapes(
    vectors: Tensor, slots: Tensor, index: Tensor, offsets: Tensor, members: Tensor,
    W: Tensor, b: Tensor, h: Tensor, pair_bias: Tensor | None, pair_gate: Tensor | None, pairs: Tensor,
    scale: float, dropout: float, seed: Tensor | None, attention: Tensor, bits: Tensor,
    grad_pooled: Tensor, grad_weights: Tensor | None,
) -> tuple[Tensor, ...]:  # fmt: skip
    return tuple(
        vectors.new_empty(t.shape if t is not None else (0,)) for t in (vectors, W, b, h, pair_bias, pair_gate)
    )


def _pool_backward(
    vectors: Tensor, slots: Tensor, index: Tensor, offsets: Tensor, members: Tensor,
    W: Tensor, b: Tensor, h: Tensor, pair_bias: Tensor | None, pair_gate: Tensor | None, pairs: Tensor,
    scale: float, dropout: float, seed: Tensor | None, attention: Tensor, bits: Tensor,
    grad_pooled: Tensor, grad_weights: Tensor | None,
) -> tuple[Tensor, ...]:  # fmt: skip
    assert compiled is not None
    grads = _pool_backward_shapes(
        vectors, slots, index, offsets, members, W, b, h, pair_bias, pair_gate, pairs,
        scale, dropout, seed, attention, bits, grad_pooled, grad_weights,
    )  # fmt: skip
    compiled.distinct_backward(
        plain_tensor(vectors), slots, index, offsets, members,
        *map(plain_tensor, (W, b, h, pair_bias, pair_gate)), pairs,
        scale, dropout, seed_number(seed), _threads(slots, vectors, members, pairs, W),
        attention, bits, plain_tensor(grad_pooled), plain_tensor(grad_weights),
        *(t if t.numel() else None for t in grads),
    )  # fmt: skip
    return grads


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, scale, dropout, seed, want_weights, _ = inputs
    _, _, attention, bits = output
    ctx.save_for_backward(*tensors, seed, attention, bits)
    ctx.settings = scale, dropout
    ctx.want_weights = want_weights
    ctx.mark_non_differentiable(attention, bits)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad_pooled: Tensor | None, grad_weights: Tensor | None, *_: Any) -> tuple[Any, ...]:
    *tensors, seed, attention, bits = ctx.saved_tensors
    vectors, slots = tensors[:2]
    if grad_pooled is None:
        grad_pooled = vectors.new_zeros((slots.shape[0], vectors.shape[1]))
    grads = torch.ops.attfm.pool_distinct_backward(
        *tensors, *ctx.settings, seed, attention, bits, grad_pooled, grad_weights if ctx.want_weights else None
    )
    inputs = (vectors, *tensors[5:10])
    needed = (ctx.needs_input_grad[0], *ctx.needs_input_grad[5:10])
    first, *others = [g if t is not None and n else None for t, g, n in zip(inputs, grads, needed, strict=True)]
    return (first, *[None] * 4, *others, *[None] * 6)


for _name, _kernel, _shapes in (
    ("find_slots", _find_slots, _find_slots_shapes),
    ("find_pairs", _find_pairs, _find_pairs_shapes),
    ("pool_distinct", _pool, _pool_shapes),
    ("pool_distinct_backward", _pool_backward, _pool_backward_shapes),
):
    library.impl(_name, _kernel, "CPU")
    torch.library.register_fake(f"attfm::{_name}", _shapes, lib=library)
torch.library.register_autograd("attfm::pool_distinct", _differentiate, setup_context=_keep_for_backward, lib=library)


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
    assert compiled is not None
    counts: Tensor = compiled.count_distinct(ids.contiguous())
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
    pairs: Tensor | None,
    values: Tensor | None,
    offsets: Tensor | None,
    pair_dropout: float,
    weight_dropout: float,
    return_weights: bool,
    sparse: bool,
    distinct: bool | None,
) -> tuple[Tensor, Tensor]:
    """Pool by the compiled kernels; `distinct` forces a path, None chooses. See the front door for the rest.

    It is by row always where a pair vector is not that of two features alone: with values, bags or pair_dropout.
    """
    by_row = values is not None or offsets is not None or pair_dropout > 0 or W is None
    if W is not None and not by_row and distinct is None:
        numbers = native.pair_numbers(pairs, ids.shape[1])
        # The choice reads the ids, which torch.compile can't.
        by_row = torch.compiler.is_compiling() or not is_worth_it(ids, table.shape[1], W.shape[1], numbers)
    if by_row or distinct is False:
        # A dense gradient is summed in a copy of the table for each thread, unless the table is large.
        large = len(table) > 2 * ids.numel() and not torch.compiler.is_compiling()  # which knows no sparse tensors
        by_entry = sparse or large
        vectors: Tensor = table
        if by_entry and not sparse:
            vectors = _DenseGradient.apply(table)  # type: ignore[no-untyped-call]
        return native.pair_attention_pool(
            vectors, W, b, h, pair_bias, pair_gate,
            scale=scale, pairs=pairs, pair_dropout=pair_dropout, weight_dropout=weight_dropout,
            return_weights=return_weights, ids=ids, values=values, offsets=offsets, sparse=by_entry,
        )  # fmt: skip
    slots, vectors = ids, table
    if sparse or len(table) > 2 * ids.numel():
        # Only the rows of this batch: a gradient of the whole table would cost more than the step.
        slots, rows = torch.ops.attfm.find_slots(ids, len(table))
        vectors = F.embedding(rows, table, sparse=sparse)
    numbers = native.pair_numbers(pairs, ids.shape[1])
    index, offsets, members = torch.ops.attfm.find_pairs(slots, numbers)
    tensors = (vectors, W, b, h, pair_bias, pair_gate)
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    seed = torch.randint(2**63 - 1, ()) if weight_dropout > 0 else None
    pooled, weights, _, _ = torch.ops.attfm.pool_distinct(
        vectors, slots, index, offsets, members, W, b, h, pair_bias, pair_gate, numbers,
        scale, weight_dropout, seed, return_weights, save,
    )  # fmt: skip
    return pooled, weights
