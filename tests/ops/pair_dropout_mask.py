"""What the compiled kernels drop of the pair vectors: the readable twin of native/pair_dropout.h."""

import torch
from torch import Tensor


def pair_dropout_mask(seed: int, batch: int, pairs: int, dim: int, pair_dropout: float) -> Tensor:
    """Return what the kernel multiplies pair vectors by: float64 (batch, pairs, dim) of 0 and 1 / (1 - pair_dropout).

    The chance is rounded to a multiple of 1 / 65536, at most 65535 of them.
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
