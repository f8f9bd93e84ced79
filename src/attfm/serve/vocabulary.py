"""The known values of a field, found by text where they lie in a file; and hash buckets in place of them."""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from attfm.data.spellings import SPELLINGS

UNKNOWN, MISSING, FIRST_VALUE = 0, 1, 2  # the numbers of a field's features, from its start
_MOST_IN_DICT = 100_000  # values that are looked up in a dict, which takes time to fill and memory
_POINT_ZERO = re.compile(r"([+-]?\d+)\.0+", re.ASCII)
_SPELLINGS = tuple((re.compile(pattern.replace("$", r"\Z"), re.ASCII), plain) for pattern, plain in SPELLINGS)
_BASE, _MASK = 0x9E3779B97F4A7C15, 2**64 - 1
Arrays = Mapping[str, NDArray[Any]]


class Values(Protocol):
    """What finds a text among the values of a field."""

    def find(self, text: str, *, alike: bool) -> int:
        """Return the number of a canonical text's feature: UNKNOWN, or from FIRST_VALUE on.

        With `alike`, for a value that was no text in a column of text, another way to write it counts too.
        """

    @property
    def size(self) -> int:
        """Number of values."""

    def label(self, number: int) -> str:
        """Return what people call a value, by its number from 0."""


class LookupVocabulary:
    """Values as one piece of UTF-8, of which a file mapped into memory is read where a search passes.

    Parameters
    ----------
    text, ends, order : uint8 (bytes,), int64 (size,), int32 (size,)
        All values one after the other, where each ends, and their numbers in the order of their bytes.
    spellings : mapping from a folded text to the number of the value that is a way to write it, where these differ
    has_whole : bool, whether some values are whole numbers, and none is one with zeros behind its point
    """

    def __init__(
        self, text: NDArray[np.uint8], ends: NDArray[np.int64], order: NDArray[np.int32], *,
        spellings: Mapping[str, int], has_whole: bool,
    ) -> None:  # fmt: skip
        self._text, self._ends, self._order = text, ends, order
        self._spellings, self._has_whole = spellings, has_whole

    @property
    def size(self) -> int:
        return len(self._ends)

    def label(self, number: int) -> str:
        return self._bytes(number).decode()

    def find(self, text: str, *, alike: bool) -> int:
        number = self._number(text)
        if number < 0 and not alike and self._has_whole and (point := _POINT_ZERO.fullmatch(text)):
            number = self._number(point[1])
        if number < 0 and alike:
            number = self._spelled(text)
        return number + FIRST_VALUE if number >= 0 else UNKNOWN

    def _spelled(self, text: str) -> int:
        text = folded(text)
        if text in self._spellings:
            return self._spellings[text]
        return self._number(text) if folded(text) == text else -1

    def _number(self, text: str) -> int:
        if self.size <= _MOST_IN_DICT:
            return self._numbers.get(text, -1)
        wanted, low, high = text.encode(), 0, self.size
        while low < high:
            middle = (low + high) // 2
            if self._bytes(int(self._order[middle])) < wanted:
                low = middle + 1
            else:
                high = middle
        found = int(self._order[low]) if low < self.size else -1
        return found if found >= 0 and self._bytes(found) == wanted else -1

    @cached_property
    def _numbers(self) -> dict[str, int]:
        whole, starts = self._text.tobytes(), [0, *self._ends.tolist()]
        return {whole[starts[n] : starts[n + 1]].decode(): n for n in range(self.size)}

    def _bytes(self, number: int) -> bytes:
        start = int(self._ends[number - 1]) if number else 0
        return self._text[start : int(self._ends[number])].tobytes()


class LookupBuckets:
    """So many hash buckets; the twin of `attfm.data.codecs.hashing.Buckets`."""

    def __init__(self, size: int) -> None:
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    def label(self, number: int) -> str:
        return f"bucket {number}"

    def find(self, text: str, *, alike: bool) -> int:
        return hashed(text) % self._size + FIRST_VALUE


def hashed(text: str) -> int:
    """Return the hash of a text's UTF-8: mix(Σ_i (s_i + 1) · B^i) modulo 2^64, see `hash_strings`."""
    h = 0
    for byte in reversed(text.encode()):
        h = (h * _BASE + byte + 1) & _MASK
    h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & _MASK
    return h ^ (h >> 31)


def folded(text: str) -> str:
    """Return a text with one way to write a truth, a number and a time."""
    if text.lower() in ("true", "false"):
        text = text.lower()
    for pattern, plain in _SPELLINGS:
        text = pattern.sub(plain, text)
    return text


def packed(values: list[str]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a vocabulary: text, ends, order."""
    pieces = [value.encode() for value in values]
    order = sorted(range(len(pieces)), key=pieces.__getitem__)
    return {
        "text": np.frombuffer(b"".join(pieces), np.uint8),
        "ends": np.cumsum([len(piece) for piece in pieces], dtype=np.int64),
        "order": np.array(order, np.int32),
    }
