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
    "Tensor embeddings, Tensor? slots, Tensor? W, Tensor? b, Tensor? h, Tensor? pair_bias, Tensor? pair_gate, "
    "Tensor pairs"
)
library.define(
    f"pool({_INPUTS}, "
    "bool plain, float scale, float dropout, float pair_dropout, Tensor? seed, bool want_weights, bool save) "
    "-> (Tensor, Tensor, Tensor, Tensor)"
)
library.define(
    f"pool_backward({_INPUTS}, "
    "bool plain, float scale, float dropout, float pair_dropout, Tensor? seed, Tensor attention, Tensor bits, "
    "Tensor grad_pooled, Tensor? grad_weights) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def native_info() -> dict[str, Any]:
    """Return what the compiled kernels are: available, instruction set, floats a vector, threads they would use."""
    if compiled is None:
        return {"available": False, "isa": None, "lanes": None, "threads": torch.get_num_threads()}
    return {
        "available": True,
        "isa": compiled.isa(),
        "lanes": compiled.lanes(),
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


def seed_number(seed: Tensor | None) -> int:
    return 0 if seed is None else int(seed)


def _work(batch: int, pairs: int, dim: int, W: Tensor | None) -> int:
    return batch * pairs * dim * (2 if W is None else W.shape[1])


def _bits_shape(embeddings: Tensor, slots: Tensor | None, W: Tensor | None, pairs: int) -> tuple[int, ...]:
    """Return the shape of the stored signs, (0,) where backward computes them again."""
    if W is None:
        return (0,)
    (batch, fields), dim = (embeddings if slots is None else slots).shape[:2], embeddings.shape[-1]
    bytes_ = (W.shape[1] + 15) // 16 * 2
    # Inputs, their gradients and the attention weights; the batch divides out.
    return (batch, pairs, bytes_) if pairs * bytes_ <= _BITS_SHARE * 4 * (2 * fields * dim + 2 * dim + pairs) else (0,)


def _pool(
    embeddings: Tensor,
    slots: Tensor | None,
    W: Tensor | None,
    b: Tensor | None,
    h: Tensor | None,
    pair_bias: Tensor | None,
    pair_gate: Tensor | None,
    pairs: Tensor,
    plain: bool,
    scale: float,
    dropout: float,
    pair_dropout: float,
    seed: Tensor | None,
    want_weights: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    assert compiled is not None
    pooled, weights, attention, bits = _pool_shapes(
        embeddings, slots, W, b, h, pair_bias, pair_gate, pairs, plain, scale, dropout, pair_dropout, seed,
        want_weights, save,
    )  # fmt: skip
    if len(pooled):
        compiled.pool_forward(
            plain_tensor(embeddings), slots, *map(plain_tensor, (W, b, h, pair_bias, pair_gate)), pairs.contiguous(),
            plain, scale, dropout, pair_dropout, seed_number(seed),
            thread_count(len(pooled), _work(len(pooled), pairs.shape[1], embeddings.shape[-1], W)),
            pooled, *(t if t.numel() else None for t in (weights, attention, bits)),
        )  # fmt: skip
    return pooled, weights, attention, bits


def _pool_shapes(
    embeddings: Tensor,
    slots: Tensor | None,
    W: Tensor | None,
    b: Tensor | None,
    h: Tensor | None,
    pair_bias: Tensor | None,
    pair_gate: Tensor | None,
    pairs: Tensor,
    plain: bool,
    scale: float,
    dropout: float,
    pair_dropout: float,
    seed: Tensor | None,
    want_weights: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, count = (embeddings if slots is None else slots).shape[0], pairs.shape[1]
    keep = save and W is not None
    return (
        embeddings.new_empty((batch, embeddings.shape[-1])),
        embeddings.new_empty((batch, count) if want_weights else (0,)),
        embeddings.new_empty((batch, count) if keep else (0,)),
        embeddings.new_empty(_bits_shape(embeddings, slots, W, count) if keep else (0,), dtype=torch.uint8),
    )


def _pool_backward(
    embeddings: Tensor,
    slots: Tensor | None,
    W: Tensor | None,
    b: Tensor | None,
    h: Tensor | None,
    pair_bias: Tensor | None,
    pair_gate: Tensor | None,
    pairs: Tensor,
    plain: bool,
    scale: float,
    dropout: float,
    pair_dropout: float,
    seed: Tensor | None,
    attention: Tensor,
    bits: Tensor,
    grad_pooled: Tensor,
    grad_weights: Tensor | None,
) -> tuple[Tensor, ...]:
    assert compiled is not None
    if not len(grad_pooled):
        return tuple(
            torch.zeros_like(t) if t is not None else embeddings.new_empty(0)
            for t in (embeddings, W, b, h, pair_bias, pair_gate)
        )
    grads = _pool_backward_shapes(
        embeddings, slots, W, b, h, pair_bias, pair_gate, pairs, plain, scale, dropout, pair_dropout, seed,
        attention, bits, grad_pooled, grad_weights,
    )  # fmt: skip
    compiled.pool_backward(
        plain_tensor(embeddings), slots, *map(plain_tensor, (W, b, h, pair_bias, pair_gate)), pairs.contiguous(),
        plain, scale, dropout, pair_dropout, seed_number(seed),
        thread_count(len(grad_pooled), _work(len(grad_pooled), pairs.shape[1], embeddings.shape[-1], W)),
        *(t.detach() if t.numel() else None for t in (attention, bits)),
        plain_tensor(grad_pooled), plain_tensor(grad_weights), None,
        *(t if t.numel() else None for t in grads),
    )  # fmt: skip
    return grads


def _pool_backward_shapes(
    embeddings: Tensor,
    slots: Tensor | None,
    W: Tensor | None,
    b: Tensor | None,
    h: Tensor | None,
    pair_bias: Tensor | None,
    pair_gate: Tensor | None,
    pairs: Tensor,
    plain: bool,
    scale: float,
    dropout: float,
    pair_dropout: float,
    seed: Tensor | None,
    attention: Tensor,
    bits: Tensor,
    grad_pooled: Tensor,
    grad_weights: Tensor | None,
) -> tuple[Tensor, ...]:
    # Contiguous whatever the strides of the inputs: the kernel writes them in order.
    return tuple(
        embeddings.new_empty(t.shape if t is not None else (0,)) for t in (embeddings, W, b, h, pair_bias, pair_gate)
    )


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    embeddings, slots, W, b, h, pair_bias, pair_gate, pairs, *settings, seed, want_weights, _ = inputs
    _, _, attention, bits = output
    ctx.save_for_backward(embeddings, slots, W, b, h, pair_bias, pair_gate, pairs, seed, attention, bits)
    ctx.settings = tuple(settings)
    ctx.want_weights = want_weights
    ctx.mark_non_differentiable(attention, bits)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad_pooled: Tensor | None, grad_weights: Tensor | None, *_: Any) -> tuple[Any, ...]:
    embeddings, slots, W, b, h, pair_bias, pair_gate, pairs, seed, attention, bits = ctx.saved_tensors
    plain, scale, dropout, pair_dropout = ctx.settings
    if grad_pooled is None:
        grad_pooled = embeddings.new_zeros(((embeddings if slots is None else slots).shape[0], embeddings.shape[-1]))
    grads = torch.ops.attfm.pool_backward(
        embeddings, slots, W, b, h, pair_bias, pair_gate, pairs, plain, scale, dropout, pair_dropout, seed,
        attention, bits, grad_pooled, grad_weights if ctx.want_weights else None,
    )  # fmt: skip
    inputs = (embeddings, W, b, h, pair_bias, pair_gate)
    needed = (ctx.needs_input_grad[0], *ctx.needs_input_grad[2:7])
    first, *others = [g if t is not None and n else None for t, g, n in zip(inputs, grads, needed, strict=True)]
    return (first, None, *others, *[None] * 8)


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
    slots: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Pool by the compiled kernel; shapes as in `reference.pair_attention_pool`, float32 on the CPU.

    With `slots` (batch, fields) int32, embeddings is (slots, dim) and row r has the field vectors
    `embeddings[slots[r]]`, which are never written out. The second tensor is empty unless `return_weights`.
    Each weight and each entry of a pair vector is kept or not by a counter-based random number, seeded by one draw
    from torch's generator, so `torch.manual_seed` repeats a step bit for bit (see `pair_dropout_mask`).
    """
    numbers = pair_numbers(pairs, (embeddings if slots is None else slots).shape[1])
    attention = W is not None
    plain = pairs is None and not attention and pair_gate is None and weight_dropout == pair_dropout == 0
    seed = torch.randint(2**63 - 1, ()) if weight_dropout > 0 or pair_dropout > 0 else None
    tensors = (embeddings, W, b, h, pair_bias if attention else None, pair_gate)
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    pooled, weights, _, _ = torch.ops.attfm.pool(
        embeddings, slots, *tensors[1:], numbers, plain, scale, weight_dropout, pair_dropout, seed, return_weights, save
    )
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
