"""Hash buckets in place of a vocabulary, by a 64-bit hash that is the same on every machine and in every run."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attfm.data.codecs.codec import FIRST_VALUE, MISSING

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2^64
_BASE_INVERSE = np.uint64(pow(int(_BASE), -1, 2**64))
_MANY_KNOWN, _MANY_SOUGHT = 1 << 16, 1 << 10
_BLOCK_BYTES = 1 << 20  # a block and its powers stay in the cache


@dataclass(frozen=True)
class Buckets:
    """So many hash buckets in place of a vocabulary that would be too large."""

    size: int

    def find(self, values: pa.Array) -> NDArray[np.int32]:
        """Return the number of each value's feature: MISSING, or from FIRST_VALUE on."""
        found = (hash_strings(values) % np.uint64(self.size)).astype(np.int64) + FIRST_VALUE
        if values.null_count:
            found[values.is_null().to_numpy(zero_copy_only=False)] = MISSING
        return found.astype(np.int32)

    def labels(self) -> list[str]:
        """Return "bucket 0", "bucket 1", ..."""
        return [f"bucket {i}" for i in range(self.size)]

    def rows(self) -> dict[str, pa.Array]:
        """Return no rows of the encoder file: the settings of the column say all."""
        return {}


def hash_strings(strings: pa.Array) -> NDArray[np.uint64]:
    """Return a 64-bit hash of the UTF-8 bytes of each string, of a large_string array (nulls hash as the empty string).

    A byte polynomial modulo 2^64 with a final mixer: h(s) = mix(Σ_i (s_i + 1) · B^i). All strings are hashed at
    once, from differences of one running sum over their concatenated bytes.
    """
    _, offsets_buffer, bytes_buffer = strings.buffers()
    rows = len(strings)
    if rows == 0:
        return np.empty(0, np.uint64)
    offsets = np.frombuffer(offsets_buffer, np.int64)[strings.offset : strings.offset + rows + 1]
    content = np.empty(0, np.uint8) if bytes_buffer is None else np.frombuffer(bytes_buffer, np.uint8)
    hashes = np.empty(rows, np.uint64)
    start = 0
    while start < rows:
        stop = int(np.searchsorted(offsets, offsets[start] + _BLOCK_BYTES, side="right")) - 1
        stop = min(max(stop, start + 1), rows)
        hashes[start:stop] = _hash_block(content, offsets[start : stop + 1])
        start = stop
    if strings.null_count:
        hashes[strings.is_null().to_numpy(zero_copy_only=False)] = mix(np.zeros(1, np.uint64))
    return hashes


def _hash_block(content: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.uint64]:
    first, last = int(offsets[0]), int(offsets[-1])
    size = last - first
    terms = (content[first:last].astype(np.uint64) + np.uint64(1)) * _powers(_BASE, size)
    sums = np.zeros(size + 1, np.uint64)
    np.cumsum(terms, out=sums[1:])  # wraps modulo 2^64, which is what makes the differences exact
    starts, stops = offsets[:-1] - first, offsets[1:] - first
    # The running sum holds B^(start + i); the inverse power takes each string back to B^i.
    return mix((sums[stops] - sums[starts]) * _powers(_BASE_INVERSE, size + 1)[starts])


def _powers(base: np.uint64, count: int) -> NDArray[np.uint64]:
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, dtype=np.uint64)


class HashIndex:
    """Finds hashes among many. It costs a small batch nothing to use, unlike pyarrow's index_in.

    Few are found by binary search. Many, among very many, are found by where the hashes of a range begin: hashes are
    spread evenly, so that a range has about one of them, and a search reads two or three places of the memory instead
    of twenty.

    Attributes
    ----------
    collides : bool, whether two of the hashes are the same
    """

    def __init__(self, hashes: NDArray[np.uint64]) -> None:
        self._order = np.argsort(hashes)
        self._sorted = hashes[self._order]
        self.collides = bool((self._sorted[1:] == self._sorted[:-1]).any())

    @cached_property
    def _ranges(self) -> tuple[np.uint64, NDArray[np.int64]]:
        """How many low bits of a hash do not tell its range, and where the hashes of each range begin."""
        bits = max(len(self._sorted).bit_length() - 1, 1)
        shift = np.uint64(64 - bits)
        return shift, np.searchsorted(self._sorted >> shift, np.arange((1 << bits) + 1, dtype=np.uint64))

    def positions(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return where each hash stands among those that were given, int64, -1 where it is none of them."""
        if len(self._sorted) < _MANY_KNOWN or len(hashes) < _MANY_SOUGHT:
            slots = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
            return np.where(self._sorted[slots] == hashes, self._order[slots], -1)
        positions = np.full(len(hashes), -1, np.int64)
        shift, starts = self._ranges
        ranges = hashes >> shift
        slots, stops = starts[ranges], starts[ranges + np.uint64(1)]
        left = np.flatnonzero(slots < stops)
        while left.size:
            at = slots[left]
            found = self._sorted[at] == hashes[left]
            positions[left[found]] = self._order[at[found]]
            slots[left] += 1
            left = left[~found & (at + 1 < stops[left])]
        return positions


def mix(h: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread every input bit over all output bits (the finaliser of splitmix64, Steele et al. 2014)."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))
