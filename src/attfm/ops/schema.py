"""The operators as torch knows them, whatever device computes them: arguments, shapes, derivatives."""

from collections.abc import Callable
from typing import Any, NamedTuple, get_type_hints

import numpy as np
import torch
from torch import Tensor

from attfm.ops.sparse_gradient import sparse_gradient

# The hidden units' signs are kept for backward where they are small beside what a step holds anyway.
BITS_SHARE = 0.2

# torch.library has no type hints.
library: Any = torch.library.Library("attfm", "DEF")  # type: ignore[no-untyped-call]


class PoolCall(NamedTuple):
    """What one pooling takes, in the order of the operators' arguments: first tensors, then settings.

    With `ids`, `embeddings` is a table (features, dim), and row r has the field vectors `values[r] *
    embeddings[ids[r]]`, which are never written out; with `offsets` too, they are sums over entries, as the front
    door's. With `pair_index`, `starts` and `members` the network runs once for each distinct pair of ids.

    Attributes
    ----------
    embeddings : (batch, fields, dim), or (features, dim) with ids
    pairs : int32 (2, pairs), fields of each pair
    W, b, h : (dim, attention_dim) and twice (attention_dim,); all None: no attention
    pair_bias, pair_gate : (pairs,), or None for 0 and for 1
    ids, values : int32 and floating (batch, fields), or (entries,) with offsets; no values: 1
    offsets : int64 (batch · fields + 1,), where the entries of each field of each row start, and the end
    pair_index : int16 (pairs, batch), the distinct pair of each row, as of `find_pairs`
    starts : int32 (pairs + 1,), where the distinct pairs of each pair of fields start
    members : int32 (distinct pairs, 2), their two ids
    seed : int64 (), for dropout
    all_pairs : `pairs` are all i < j, in the order of itertools.combinations
    by_entry : the gradient of the table is sparse, of one row for each entry of ids
    """

    embeddings: Tensor
    pairs: Tensor
    W: Tensor | None
    b: Tensor | None
    h: Tensor | None
    pair_bias: Tensor | None
    pair_gate: Tensor | None
    ids: Tensor | None = None
    values: Tensor | None = None
    offsets: Tensor | None = None
    pair_index: Tensor | None = None
    starts: Tensor | None = None
    members: Tensor | None = None
    seed: Tensor | None = None
    fields: int = 0
    all_pairs: bool = False
    scale: float = 1.0
    weight_dropout: float = 0.0
    pair_dropout: float = 0.0
    by_entry: bool = False

    @property
    def network(self) -> tuple[Tensor | None, ...]:
        """W, b, h, pair_bias and pair_gate: all that has a gradient beside embeddings."""
        return self[2:7]

    @property
    def batch(self) -> int:
        if self.offsets is not None:
            return (len(self.offsets) - 1) // self.fields
        return len(self.embeddings) if self.ids is None else len(self.ids)

    @property
    def work(self) -> int:
        """About how many multiply-adds forward takes."""
        entries, W = self.batch * self.pairs.shape[1] * self.embeddings.shape[-1], self.W
        if W is not None and self.members is not None:
            return entries + len(self.members) * W.shape[0] * W.shape[1]
        return entries * (2 if W is None else W.shape[1])


_TENSORS = PoolCall._fields.index("fields")
_LEARNED = ("embeddings", "W", "b", "h", "pair_bias", "pair_gate")
_TYPES = {Tensor: "Tensor", Tensor | None: "Tensor?", int: "int", bool: "bool", float: "float"}
_CALL = ", ".join(f"{_TYPES[kind]} {name}" for name, kind in get_type_hints(PoolCall).items())
library.define(f"pool({_CALL}, bool want_weights, bool save) -> (Tensor, Tensor, Tensor, Tensor)")
library.define(
    f"pool_backward({_CALL}, Tensor attention, Tensor bits, Tensor grad_pooled, Tensor? grad_weights) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
library.define("find_slots(Tensor ids, int features) -> (Tensor, Tensor)")
library.define("find_pairs(Tensor slots, Tensor pairs) -> (Tensor, Tensor, Tensor)")


def new_outputs(call: PoolCall, want_weights: bool, save: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return empty tensors for the pooled vectors, applied weights, attention and signs; (0,) for what is not kept."""
    new_empty, entries = call.embeddings.new_empty, (call.batch, call.pairs.shape[1])
    save = save and call.W is not None
    return (
        new_empty((call.batch, call.embeddings.shape[-1])),
        new_empty(entries if want_weights else (0,)),
        new_empty(entries if save else (0,)),
        new_empty(_bits_shape(call) if save else (0,), dtype=torch.uint8),
    )


def _bits_shape(call: PoolCall) -> tuple[int, ...]:
    """Return the shape of the stored signs, (0,) where backward computes them again."""
    assert call.W is not None
    bytes_ = (call.W.shape[1] + 15) // 16 * 2
    if call.members is not None:
        return (call.members.shape[0], bytes_)
    pairs, dim = call.pairs.shape[1], call.embeddings.shape[-1]
    # Inputs, their gradients and the attention weights; the batch divides out.
    small = pairs * bytes_ <= BITS_SHARE * 4 * (2 * call.fields * dim + 2 * dim + pairs)
    return (call.batch, pairs, bytes_) if small else (0,)


def new_gradients(call: PoolCall) -> tuple[Tensor, ...]:
    """Return empty tensors for the gradients of embeddings and the network; (0,) for what is None."""
    # Contiguous whatever the strides of the inputs: the kernel writes them in order.
    embeddings = call.embeddings
    by_entry = call.ids is not None and call.by_entry
    first = (call.ids.numel(), embeddings.shape[1]) if call.ids is not None and by_entry else embeddings.shape
    others = (t.shape if t is not None else (0,) for t in call.network)
    return tuple(embeddings.new_empty(shape) for shape in (first, *others))


def keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep what `differentiate` needs of the arguments of `pool` and of what it returned."""
    *call, want_weights, _ = inputs
    _, _, attention, bits = output
    ctx.save_for_backward(*call[:_TENSORS], attention, bits)
    ctx.settings, ctx.want_weights = call[_TENSORS:], want_weights
    ctx.mark_non_differentiable(attention, bits)
    ctx.set_materialize_grads(False)


def differentiate(
    ctx: Any, grad_pooled: Tensor | None, grad_weights: Tensor | None, backward: Callable[..., tuple[Tensor, ...]]
) -> tuple[Any, ...]:
    """Return the gradients of all arguments of `pool`, of which `backward` computes those of what is learned."""
    *tensors, attention, bits = ctx.saved_tensors
    call = PoolCall(*tensors, *ctx.settings)
    if grad_pooled is None:
        grad_pooled = call.embeddings.new_zeros((call.batch, call.embeddings.shape[-1]))
    found = backward(*call, attention, bits, grad_pooled, grad_weights if ctx.want_weights else None)
    needed = {
        name: gradient
        for name, gradient in zip(_LEARNED, found, strict=True)
        if getattr(call, name) is not None and ctx.needs_input_grad[PoolCall._fields.index(name)]
    }
    if "embeddings" in needed and call.ids is not None and call.by_entry:
        # One row for each entry, as of torch.nn.Embedding(sparse=True): nothing of the size of the table.
        # NumPy converts: torch would leave threads of OpenMP spinning, which hold up those of the next kernel.
        where = torch.from_numpy(call.ids.flatten().numpy().astype(np.int64))
        needed["embeddings"] = sparse_gradient(where, needed["embeddings"], call.embeddings.shape)
    return (*(needed.get(name) for name in PoolCall._fields), None, None)


def _differentiate(ctx: Any, grad_pooled: Tensor | None, grad_weights: Tensor | None, *_: Any) -> tuple[Any, ...]:
    return differentiate(ctx, grad_pooled, grad_weights, torch.ops.attfm.pool_backward)


def _pool_shapes(*arguments: Any) -> tuple[Tensor, ...]:
    *call, want_weights, save = arguments
    return new_outputs(PoolCall(*call), want_weights, save)


def _pool_backward_shapes(*arguments: Any) -> tuple[Tensor, ...]:
    return new_gradients(PoolCall(*arguments[:-4]))


def _find_slots_shapes(ids: Tensor, features: int) -> tuple[Tensor, Tensor]:
    size = torch.library.get_ctx().new_dynamic_size()
    return ids.new_empty(ids.shape), ids.new_empty((size,), dtype=torch.int64)


def _find_pairs_shapes(slots: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    size = torch.library.get_ctx().new_dynamic_size()
    batch, count = slots.shape[0], pairs.shape[1]
    return slots.new_empty((count, batch), dtype=torch.int16), slots.new_empty((count + 1,)), slots.new_empty((size, 2))


for _name, _shapes in (
    ("pool", _pool_shapes),
    ("pool_backward", _pool_backward_shapes),
    ("find_slots", _find_slots_shapes),
    ("find_pairs", _find_pairs_shapes),
):
    torch.library.register_fake(f"attfm::{_name}", _shapes, lib=library)
torch.library.register_autograd("attfm::pool", _differentiate, setup_context=keep_for_backward, lib=library)
