"""The compiled kernels: whether they are here, what they take, and the operators of `schema.py` computed by them.

The arithmetic is in native/*.cpp; `reference.py` says what it must be.
"""

import contextlib
import importlib
import os
from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from attfm.errors import DataError
from attfm.ops.reference import all_pairs
from attfm.ops.schema import PoolCall, differentiate, keep_for_backward, library, new_gradients, new_outputs

compiled: Any = None
with contextlib.suppress(ModuleNotFoundError):  # a pure-Python install: no compiler was there
    compiled = importlib.import_module("attfm.ops._native")

# A forked child has none of the parent's threads, but OpenMP still counts on them and would wait for them for ever.
# One that asks torch for more threads itself waits all the same.
if hasattr(os, "register_at_fork"):  # not on Windows, which forks nothing
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

# Below this many multiply-adds a second thread costs more than it brings.
WORK_PER_THREAD = 100_000
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


def obstacle(tensors: Mapping[str, Tensor | None]) -> str | None:
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


def id_range(ids: Tensor) -> tuple[int, int]:
    """Return the lowest and the highest of ids on the CPU, at least one."""
    low, high = torch.aminmax(ids) if compiled is None else compiled.id_range(ids.contiguous())
    return int(low), int(high)


def thread_count(batch: int, work: int) -> int:
    """Return the threads that `work` multiply-adds over `batch` rows are worth, at most torch's number."""
    return max(1, min(torch.get_num_threads(), batch, work // WORK_PER_THREAD))


_pairs_of: dict[int, Tensor] = {}


def _all_pairs(fields: int) -> Tensor:
    if torch.compiler.is_compiling():
        return all_pairs(fields).to(torch.int32).contiguous()
    if fields not in _pairs_of:
        with torch.inference_mode(False):  # a step may save it for its gradients, which inference tensors forbid
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


def array_of(t: Tensor | None) -> NDArray[Any] | None:
    """Return what a kernel reads: without autograd, contiguous; NumPy's arrays reach it sooner than tensors do."""
    return None if t is None else t.detach().contiguous().numpy()


def ends(offsets: Tensor | None, entries: int) -> Tensor | None:
    """Return where the entries of each field of each row start, and after the last where they end, int64 or None."""
    return None if offsets is None else torch.cat([offsets.reshape(-1).long(), torch.tensor([entries])])


def pool(call: PoolCall, *, return_weights: bool) -> tuple[Tensor, Tensor]:
    """Return the pooled vectors and the applied weights, empty unless wanted, as `reference.pair_attention_pool` does.

    Each weight and each entry of a pair vector is kept or not by a counter-based random number, seeded by one draw
    from torch's generator, so `torch.manual_seed` repeats a step bit for bit.
    """
    if call.weight_dropout > 0 or call.pair_dropout > 0:
        call = call._replace(seed=torch.randint(2**63 - 1, ()))
    if call.W is None:
        call = call._replace(pair_bias=None)
    learned = (call.embeddings, *call.network)
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in learned)
    pool: Any = torch.ops.attfm.pool if _torch_looks_on() else _Pooling.apply
    pooled, weights, _, _ = pool(*call, return_weights, save)
    return pooled, weights


def _torch_looks_on() -> bool:
    """Return whether torch must be told of operators, because it compiles, transforms or records them."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
    )


class _Pooling(torch.autograd.Function):
    """The operator `pool` without torch's way to it, which for small batches takes longer than the operator."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        outputs = _pool(*arguments)
        keep_for_backward(ctx, arguments, outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, grad_pooled: Tensor | None, grad_weights: Tensor | None, *_: Any) -> tuple[Any, ...]:
        # Whoever differentiates once more is told by torch that this can't be.
        backward = torch.ops.attfm.pool_backward if torch.is_grad_enabled() else _pool_backward
        return differentiate(ctx, grad_pooled, grad_weights, backward)


def _pool(*arguments: Any) -> tuple[Tensor, ...]:
    *values, want_weights, save = arguments
    call = PoolCall(*values)
    outputs = new_outputs(call, want_weights, save)
    if len(outputs[0]):
        forward = compiled.pool_forward if call.pair_index is None else compiled.distinct_forward
        forward(*_kernel_arguments(call), *map(_or_none, outputs))
    return outputs


def _pool_backward(*arguments: Any) -> tuple[Tensor, ...]:
    *values, attention, bits, grad_pooled, grad_weights = arguments
    call = PoolCall(*values)
    gradients = new_gradients(call)
    if not len(grad_pooled):
        return tuple(gradient.zero_() for gradient in gradients)
    backward = compiled.pool_backward if call.pair_index is None else compiled.distinct_backward
    backward(
        *_kernel_arguments(call), *map(_or_none, (attention, bits)), *map(array_of, (grad_pooled, grad_weights)),
        *(() if call.pair_index is not None else (call.by_entry,)), gradients[0].numpy(), *map(_or_none, gradients[1:]),
    )  # fmt: skip
    return gradients


def _or_none(t: Tensor) -> NDArray[Any] | None:
    return t.detach().numpy() if t.numel() else None


def _kernel_arguments(call: PoolCall) -> tuple[Any, ...]:
    """Return what the kernels of one path, by row or by distinct pairs, take in both directions."""
    embeddings, *network = map(array_of, (call.embeddings, *call.network))
    pairs, seed = array_of(call.pairs), 0 if call.seed is None else int(call.seed)
    threads = thread_count(call.batch, call.work)
    if call.pair_index is not None:
        by_pair = map(array_of, (call.ids, call.pair_index, call.starts, call.members))
        return embeddings, *by_pair, *network, pairs, call.scale, call.weight_dropout, seed, threads
    rows = *map(array_of, (call.ids, call.values, call.offsets)), call.fields
    dropout = call.weight_dropout, call.pair_dropout
    plain = call.all_pairs and call.W is None and call.pair_gate is None and dropout == (0, 0)
    return embeddings, *rows, *network, pairs, plain, call.scale, *dropout, seed, threads


def _find_slots(ids: Tensor, features: int) -> tuple[Tensor, Tensor]:
    slots = torch.empty_like(ids, memory_format=torch.contiguous_format)
    return slots, compiled.find_slots(array_of(ids), features, slots.numpy())


def _find_pairs(slots: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, count = slots.shape[0], pairs.shape[1]
    index = torch.empty((count, batch), dtype=torch.int16)
    offsets, members = compiled.find_pairs(
        slots.contiguous(), pairs.contiguous(), thread_count(count, batch * count * 4), index
    )
    return index, offsets, members


for _name, _kernel in (
    ("pool", _pool),
    ("pool_backward", _pool_backward),
    ("find_slots", _find_slots),
    ("find_pairs", _find_pairs),
):
    library.impl(_name, _kernel, "CPU")
