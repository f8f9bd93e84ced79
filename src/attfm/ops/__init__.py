"""The arithmetic of the model: one front door before the plain reference and the compiled kernels."""

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
