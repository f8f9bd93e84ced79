"""The arithmetic: attentional pooling of pair vectors behind one front door."""

from torch import Tensor

from attfm.ops import reference
from attfm.ops.reference import all_pairs

__all__ = ["all_pairs", "pair_attention_pool"]


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
) -> Tensor | tuple[Tensor, Tensor]:
    """Pool the pair vectors of each row by attention; see `attfm.ops.reference` for shapes and formula."""
    pooled, weights = reference.pair_attention_pool(
        embeddings, W, b, h, pair_bias, pair_gate,
        scale=scale, pairs=pairs, pair_dropout=pair_dropout, weight_dropout=weight_dropout,
    )  # fmt: skip
    return (pooled, weights) if return_weights else pooled
