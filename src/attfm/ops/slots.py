"""Hash tables with open addressing: where the search for a key begins, and where it ends."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

FREE = -1  # the key of a free slot
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def home(keys: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return where the search for each key begins in so many slots (Fibonacci hashing, Knuth 1973, section 6.4)."""
    shift = np.uint64(64 - (size.bit_length() - 1))
    return ((keys.astype(np.uint64) * _GOLDEN) >> shift).astype(np.int64)


def find_slots(slots: NDArray[Any], keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the slot of each key, of any shape; -1 where it is not there.

    Parameters
    ----------
    slots : int64 (slots,), keys, `FREE` where there is none; a power of two, with one free at least
    """
    flat = keys.ravel()
    found = np.full(len(flat), -1, np.int64)
    place, left = home(flat, len(slots)), np.arange(len(flat))
    while len(left):
        there = slots[place[left]]
        hit = there == flat[left]
        found[left[hit]] = place[left[hit]]
        left = left[~hit & (there != FREE)]
        place[left] = (place[left] + 1) % len(slots)
    return found.reshape(keys.shape)
