"""The compiled kernels as torch operators: checks before any pointer is taken, autograd, shapes for torch.compile.

The arithmetic is in native/*.cpp; `reference.py` says what it must be.
"""

import importlib
import os
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from attfm.errors import ConfigError, DataError
from attfm.ops.reference import all_pairs


def _import_compiled() -> ModuleType | None:
    try:
        return importlib.import_module("attfm.ops._native")
    except ModuleNotFoundError:  # a pure-Python install: no compiler was there
        return None


compiled = _import_compiled()

# Below this many multiply-adds a second thread costs more than it brings.
_WORK_PER_THREAD = 100_000
# The hidden units' signs are kept for backward where they are small beside what a step holds anyway.
_BITS_SHARE = 0.2

# torch.library has no type hints.
library: Any = torch.library.Library("attfm", "DEF")  # type: ignore[no-untyped-call]
_INPUTS = (
    "Tensor embeddings, Tensor? ids, Tensor? values, Tensor? offsets, Tensor? W, Tensor? b, Tensor? h, "
    "Tensor? pair_bias, Tensor? pair_gate, Tensor pairs"
)
_SETTINGS = "int fields, bool plain, float scale, float dropout, float pair_dropout, Tensor? seed"
library.define(
    f"pool({_INPUTS}, {_SETTINGS}, bool by_entry, bool want_weights, bool save) -> (Tensor, Tensor, Tensor, Tensor)"
)
library.define(
    f"pool_backward({_INPUTS}, {_SETTINGS}, bool by_entry, Tensor attention, Tensor bits, "
    "Tensor grad_pooled, Tensor? grad_weights) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


# From the lowest; each machine that has one has those before it.
_SETS = ("portable", "avx2", "avx512")


def native_info() -> dict[str, Any]:
    """Return what the compiled kernels are: available, instruction set, floats a vector, lower sets, threads.

    The environment variable ATTFM_ISA forces a lower set, by its name.
    """
    if compiled is None:
        return {"available": False, "isa": None, "lanes": None, "threads": torch.get_num_threads()}
    return {
        "available": True,
        "isa": compiled.isa(),
        "lanes": compiled.lanes(),
        "lower": list(_SETS[: _SETS.index(compiled.isa())]),
        "threads": torch.get_num_threads(),
        "forced": os.environ.get("ATTFM_ISA"),
    }


def obstacle(tensors: dict[str, Tensor | None]) -> str | None:
    """Return why the kernels can't take these tensors (which, and what it is), or None where they can."""
    if compiled is None:
        return "the compiled kernels are not installed (no C++ compiler was found when attfm was installed)"
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if tensor.device.type != "cpu":
            return f"{name} is on {tensor.device}, and the kernels run on the CPU"
        if tensor.dtype != torch.float32:
            return f"{name} is {str(tensor.dtype).removeprefix('torch.')}, and the kernels take float32"
        if tensor.layout != torch.strided:
            return f"{name} is {str(tensor.layout).removeprefix('torch.')}, and the kernels take dense tensors"
    return None


def raise_unless_contiguous(tensors: dict[str, Tensor | None]) -> None:
    """Raise ConfigError, naming every tensor that is not contiguous."""
    scattered = [name for name, tensor in tensors.items() if tensor is not None and not tensor.is_contiguous()]
    if scattered:
        raise ConfigError(
            f"backend='native' takes contiguous tensors, and {', '.join(scattered)} is not: "
            "call .contiguous() on it, or use backend='auto', which copies."
        )


def thread_count(batch: int, work: int) -> int:
    """Return the threads that `work` multiply-adds over `batch` rows are worth, at most torch's number."""
    return max(1, min(torch.get_num_threads(), batch, work // _WORK_PER_THREAD))


_pairs_of: dict[int, Tensor] = {}


def _all_pairs(fields: int) -> Tensor:
    if torch.compiler.is_compiling():
        return all_pairs(fields).to(torch.int32).contiguous()
    if fields not in _pairs_of:
        _pairs_of[fields] = all_pairs(fields).to(torch.int32).contiguous()
    return _pairs_of[fields]


def pair_numbers(pairs: Tensor | None, fields: int) -> Tensor:
    """Return the pairs as a contiguous int32 tensor (2, pairs); raise DataError where one is not two of the fields."""
    if pairs is None:
        return _all_pairs(fields)
    if pairs.ndim != 2 or pairs.shape[0] != 2 or pairs.dtype not in (torch.int64, torch.int32):
        raise DataError(
            f"pairs must be an integer tensor (2, pairs); it is {str(pairs.dtype).removeprefix('torch.')} "
            f"{tuple(pairs.shape)}."
        )
    if pairs.numel() and (int(pairs.min()) < 0 or int(pairs.max()) >= fields):
        worst = int(pairs.min()) if int(pairs.min()) < 0 else int(pairs.max())
        raise DataError(f"pairs names field {worst}, and the fields are 0 to {fields - 1}.")
    return pairs.to(torch.int32).contiguous()


def plain_tensor(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.detach().contiguous()


def ends(offsets: Tensor | None, entries: int) -> Tensor | None:
    """Return where the entries of each field of each row start, and after the last where they end, int64 or None."""
    return None if offsets is None else torch.cat([offsets.reshape(-1).long(), torch.tensor([entries])])


def seed_number(seed: Tensor | None) -> int:
    return 0 if seed is None else int(seed)


def _work(batch: int, pairs: int, dim: int, W: Tensor | None) -> int:
    return batch * pairs * dim * (2 if W is None else W.shape[1])


def _batch(embeddings: Tensor, ids: Tensor | None, offsets: Tensor | None, fields: int) -> int:
    if offsets is not None:
        return (len(offsets) - 1) // fields
    return len(embeddings) if ids is None else len(ids)


def _bits_shape(batch: int, fields: int, dim: int, W: Tensor, pairs: int) -> tuple[int, ...]:
    """Return the shape of the stored signs, (0,) where backward computes them again."""
    bytes_ = (W.shape[1] + 15) // 16 * 2
    # Inputs, their gradients and the attention weights; the batch divides out.
    return (batch, pairs, bytes_) if pairs * bytes_ <= _BITS_SHARE * 4 * (2 * fields * dim + 2 * dim + pairs) else (0,)


def _pool(
    embeddings: Tensor,
    ids: Tensor | None,
    values: Tensor | None,
    offsets: Tensor | None,
    W: Tensor | None,
    b: Tensor | None,
    h: Tensor | None,
    pair_bias: Tensor | None,
    pair_gate: Tensor | None,
    pairs: Tensor,
    fields: int,
    plain: bool,
    scale: float,
    dropout: float,
    pair_dropout: float,
    seed: Tensor | None,
    by_entry: bool,
    want_weights: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    assert compiled is not None
    pooled, weights, attention, bits = _pool_shapes(
        embeddings, ids, values, offsets, W, b, h, pair_bias, pair_gate, pairs, fields, plain, scale, dropout,
        pair_dropout, seed, by_entry, want_weights, save,
    )  # fmt: skip
    if len(pooled):
        compiled.pool_forward(
            plain_tensor(embeddings), *map(plain_tensor, (ids, values, offsets)), fields,
            *map(plain_tensor, (W, b, h, pair_bias, pair_gate)), pairs.contiguous(),
            plain, scale, dropout, pair_dropout, seed_number(seed),
            thread_count(len(pooled), _work(len(pooled), pairs.shape[1], embeddings.shape[-1], W)),
            pooled, *(t if t.numel() else None for t in (weights, attention, bits)),
        )  # fmt: skip
    return pooled, weights, attention, bits


def _pool_shapes(
    embeddings: Tensor,
    ids: Tensor | None,
    values: Tensor | None,
    offsets: Tensor | None,
    W: Tensor | None,
    b: Tensor | None,
    h: Tensor | None,
    pair_bias: Tensor | None,
    pair_gate: Tensor | None,
    pairs: Tensor,
    fields: int,
    plain: bool,
    scale: float,
    dropout: float,
    pair_dropout: float,
    seed: Tensor | None,
    by_entry: bool,
    want_weights: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, count, dim = _batch(embeddings, ids, offsets, fields), pairs.shape[1], embeddings.shape[-1]
    return (
        embeddings.new_empty((batch, dim)),
        embeddings.new_empty((batch, count) if want_weights else (0,)),
        embeddings.new_empty((batch, count) if save and W is not None else (0,)),
        embeddings.new_empty(
            _bits_shape(batch, fields, dim, W, count) if save and W is not None else (0,), dtype=torch.uint8
        ),
    )


def _pool_backward(
    embeddings: Tensor,
    ids: Tensor | None,
    values: Tensor | None,
    offsets: Tensor | None,
    W: Tensor | None,
    b: Tensor | None,
    h: Tensor | None,
    pair_bias: Tensor | None,
    pair_gate: Tensor | None,
    pairs: Tensor,
    fields: int,
    plain: bool,
    scale: float,
    dropout: float,
    pair_dropout: float,
    seed: Tensor | None,
    by_entry: bool,
    attention: Tensor,
    bits: Tensor,
    grad_pooled: Tensor,
    grad_weights: Tensor | None,
) -> tuple[Tensor, ...]:
    assert compiled is not None
    grads = _pool_backward_shapes(
        embeddings, ids, values, offsets, W, b, h, pair_bias, pair_gate, pairs, fields, plain, scale, dropout,
        pair_dropout, seed, by_entry, attention, bits, grad_pooled, grad_weights,
    )  # fmt: skip
    if not len(grad_pooled):
        return tuple(grad.zero_() for grad in grads)
    compiled.pool_backward(
        plain_tensor(embeddings), *map(plain_tensor, (ids, values, offsets)), fields,
        *map(plain_tensor, (W, b, h, pair_bias, pair_gate)), pairs.contiguous(),
        plain, scale, dropout, pair_dropout, seed_number(seed),
        thread_count(len(grad_pooled), _work(len(grad_pooled), pairs.shape[1], embeddings.shape[-1], W)),
        *(t.detach() if t.numel() else None for t in (attention, bits)),
        plain_tensor(grad_pooled), plain_tensor(grad_weights), by_entry,
        grads[0], *(t if t.numel() else None for t in grads[1:]),
    )  # fmt: skip
    return grads


def _pool_backward_shapes(
    embeddings: Tensor,
    ids: Tensor | None,
    values: Tensor | None,
    offsets: Tensor | None,
    W: Tensor | None,
    b: Tensor | None,
    h: Tensor | None,
    pair_bias: Tensor | None,
    pair_gate: Tensor | None,
    pairs: Tensor,
    fields: int,
    plain: bool,
    scale: float,
    dropout: float,
    pair_dropout: float,
    seed: Tensor | None,
    by_entry: bool,
    attention: Tensor,
    bits: Tensor,
    grad_pooled: Tensor,
    grad_weights: Tensor | None,
) -> tuple[Tensor, ...]:
    # Contiguous whatever the strides of the inputs: the kernel writes them in order.
    of_entries = (ids.numel(), embeddings.shape[1]) if ids is not None and by_entry else embeddings.shape
    others = (t.shape if t is not None else (0,) for t in (W, b, h, pair_bias, pair_gate))
    return tuple(embeddings.new_empty(shape) for shape in (of_entries, *others))


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, fields, plain, scale, dropout, pair_dropout, seed, by_entry, want_weights, _ = inputs
    _, _, attention, bits = output
    ctx.save_for_backward(*tensors, seed, attention, bits)
    ctx.settings = fields, plain, scale, dropout, pair_dropout
    ctx.by_entry, ctx.want_weights = by_entry, want_weights
    ctx.mark_non_differentiable(attention, bits)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad_pooled: Tensor | None, grad_weights: Tensor | None, *_: Any) -> tuple[Any, ...]:
    *tensors, seed, attention, bits = ctx.saved_tensors
    embeddings, ids, _values, offsets = tensors[:4]
    if grad_pooled is None:
        batch = _batch(embeddings, ids, offsets, ctx.settings[0])
        grad_pooled = embeddings.new_zeros((batch, embeddings.shape[-1]))
    grads = torch.ops.attfm.pool_backward(
        *tensors, *ctx.settings, seed, ctx.by_entry,
        attention, bits, grad_pooled, grad_weights if ctx.want_weights else None,
    )  # fmt: skip
    inputs = (embeddings, *tensors[4:9])
    needed = (ctx.needs_input_grad[0], *ctx.needs_input_grad[4:9])
    first, *others = [g if t is not None and n else None for t, g, n in zip(inputs, grads, needed, strict=True)]
    if first is not None and ids is not None and ctx.by_entry:
        # One row for each entry, as of torch.nn.Embedding(sparse=True): nothing of the size of the table.
        where = ids.reshape(1, -1).long()
        first = torch.sparse_coo_tensor(where, first, embeddings.shape, check_invariants=False)
    return (first, None, None, None, *others, *[None] * 10)


library.impl("pool", _pool, "CPU")
library.impl("pool_backward", _pool_backward, "CPU")
torch.library.register_fake("attfm::pool", _pool_shapes, lib=library)
torch.library.register_fake("attfm::pool_backward", _pool_backward_shapes, lib=library)
torch.library.register_autograd("attfm::pool", _differentiate, setup_context=_keep_for_backward, lib=library)


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
    ids: Tensor | None = None,
    values: Tensor | None = None,
    offsets: Tensor | None = None,
    sparse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Pool by the compiled kernel; shapes as in `reference.pair_attention_pool`, float32 on the CPU.

    With `ids` (batch, fields) int32, embeddings is a table (features, dim), and row r has the field vectors
    `values[r] * embeddings[ids[r]]`, which are never written out; with `offsets` too, they are sums over entries, as
    the front door's. `sparse`: the table's gradient is a sparse tensor of one row for each entry.
    The second tensor is empty unless `return_weights`.
    Each weight and each entry of a pair vector is kept or not by a counter-based random number, seeded by one draw
    from torch's generator, so `torch.manual_seed` repeats a step bit for bit (see `pair_dropout_mask`).
    """
    fields = embeddings.shape[1] if ids is None else (ids if offsets is None else offsets).shape[1]
    numbers = pair_numbers(pairs, fields)
    attention = W is not None
    plain = pairs is None and not attention and pair_gate is None and weight_dropout == pair_dropout == 0
    seed = torch.randint(2**63 - 1, ()) if weight_dropout > 0 or pair_dropout > 0 else None
    tensors = (embeddings, W, b, h, pair_bias if attention else None, pair_gate)
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    pooled, weights, _, _ = torch.ops.attfm.pool(
        embeddings, ids, values, None if ids is None else ends(offsets, len(ids)), *tensors[1:], numbers,
        fields, plain, scale, weight_dropout, pair_dropout, seed, sparse, return_weights, save,
    )  # fmt: skip
    return pooled, weights


def pair_dropout_mask(seed: int, batch: int, pairs: int, dim: int, pair_dropout: float) -> Tensor:
    """Return what the kernel multiplies pair vectors by: float64 (batch, pairs, dim) of 0 and 1 / (1 - pair_dropout).

    The readable twin of native/pair_dropout.h. The chance is rounded to a multiple of 1 / 65536, at most 65535 of them.
    """
    low, high = seed % 2**32 ^ 0xA511E9B3, seed >> 32 ^ 0x63D83595
    row = torch.arange(batch)[:, None, None]
    first = _mix((_mix(row ^ low) + high) % 2**32)
    second = _mix(first ^ high)
    padded = -(-dim // 16) * 16
    pair = torch.arange(pairs)[:, None]
    counter = pair // 2 * padded + torch.arange(dim)
    bits = _mix(counter * 0x9E3779B1 % 2**32 ^ first, second)
    bits = torch.where(pair % 2 == 0, bits % 2**16, bits >> 16)
    return (bits >= min(65535, int(pair_dropout * 65536 + 0.5))).double() / (1 - pair_dropout)


def _mix(x: Tensor, key: Tensor | int = 0) -> Tensor:
    """Hash numbers of 32 bits, held in int64."""
    x = (x ^ x >> 16) * 0x7FEB352D + key & 0xFFFFFFFF
    x = (x ^ x >> 15) * 0x846CA68B & 0xFFFFFFFF
    return x ^ x >> 16
