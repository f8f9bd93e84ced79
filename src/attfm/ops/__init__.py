"""The arithmetic of the model: one front door before the plain reference and the compiled kernels."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attfm.ops.backends import Backend, set_backend, use_backend
    from attfm.ops.cpu import native_info
    from attfm.ops.pooling import Pooled, pair_attention_pool, pair_attention_pool_ids
    from attfm.ops.reference import all_pairs
    from attfm.ops.scoring import score
    from attfm.ops.sparse import RowAverage, adagrad_rows, adam_rows

__all__ = [
    "Backend",
    "Pooled",
    "RowAverage",
    "adagrad_rows",
    "adam_rows",
    "all_pairs",
    "native_info",
    "pair_attention_pool",
    "pair_attention_pool_ids",
    "score",
    "set_backend",
    "use_backend",
]

# Loaded at first use: who scores by the compiled kernels alone does not wait for torch.
_HOMES = {
    "backends": ("Backend", "set_backend", "use_backend"),
    "cpu": ("native_info",),
    "pooling": ("Pooled", "pair_attention_pool", "pair_attention_pool_ids"),
    "reference": ("all_pairs",),
    "scoring": ("score",),
    "sparse": ("RowAverage", "adagrad_rows", "adam_rows"),
}
_LAZY = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"attfm.ops.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'attfm.ops' has no attribute {name!r}")
