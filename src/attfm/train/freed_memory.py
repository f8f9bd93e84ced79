"""Memory that was freed, given back to the system."""

import ctypes
import sys
from collections.abc import Callable
from functools import cache

import pyarrow as pa


def give_back() -> None:
    """Give the memory that is free to the system, so that what a phase has worked with is not held beside the next.

    The C library keeps what is freed between arrays that stay, and for each thread apart: after the statistics of a
    million rows that are 250 MB. Arrow's pool keeps too. Where the C library is not GNU's, its own part stays as it is.
    """
    pa.default_memory_pool().release_unused()
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    """The C library's `malloc_trim`, where it has one."""
    if not sys.platform.startswith("linux"):
        return None
    function: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return function
