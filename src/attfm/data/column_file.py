"""A column of numbers on disk: written once from the top, read in parts."""

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attfm.errors import CacheError

Array = NDArray[Any]
_CHUNK = 1 << 24  # bytes


class ColumnFile:
    """A column on disk: values of one type, one after the other; parts of it are read by their numbers.

    It is read, not mapped: the pages of a mapped file count as memory of the process until they are let go.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any] | type, width: int = 1) -> None:
        self.path, self.dtype, self.width = path, np.dtype(dtype), width
        self.folder: object = None  # what must stay as long as the column is read
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
            self.rows = os.fstat(self._descriptor).st_size // (self.dtype.itemsize * width)
        except OSError as error:
            raise CacheError(
                f"'{path}' can't be read ({error.strerror}): remove the folder, and train again."
            ) from error

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read(self, start: int, stop: int) -> Array:
        """Return the values start:stop, of `width` numbers each where that is more than one."""
        size = self.dtype.itemsize * self.width
        content = os.pread(self._descriptor, (stop - start) * size, start * size)
        if len(content) < (stop - start) * size:
            raise CacheError(f"'{self.path}' is cut short: remove the folder, and train again.")
        values = np.frombuffer(content, self.dtype)
        return values if self.width == 1 else values.reshape(-1, self.width)


def smallest_type(most: int) -> np.dtype[Any]:
    """Return the smallest unsigned type that holds numbers up to `most`."""
    return np.dtype(np.min_scalar_type(most))


class OnDisk(NamedTuple):
    """How far a column is written: so many bytes, with this SHA-256."""

    size: int
    digest: str


class ColumnWriter:
    """Appends values to a column, and knows the checksum of what was written.

    Parameters
    ----------
    kept : OnDisk or None, how far the file that is there is gone on from; what comes behind that is cut off

    Raises
    ------
    CacheError : the file is not what was kept
    """

    def __init__(self, path: Path, dtype: np.dtype[Any] | type, kept: OnDisk | None = None) -> None:
        self.path, self._dtype, self._size = path, np.dtype(dtype), 0
        self._digest = hashlib.sha256()
        self._stream: BinaryIO = path.open("wb" if kept is None else "r+b")
        if kept is not None:
            self._go_on(kept)

    def _go_on(self, kept: OnDisk) -> None:
        """Read what was kept, for its checksum; cut off the rest."""
        while self._size < kept.size and (content := self._stream.read(min(_CHUNK, kept.size - self._size))):
            self._digest.update(content)
            self._size += len(content)
        if self._size < kept.size or self._digest.hexdigest() != kept.digest:
            self._stream.close()
            raise CacheError(f"'{self.path}' is damaged: remove the folder, and train again.")
        self._stream.truncate(kept.size)

    def add(self, values: Array) -> None:
        """Append values."""
        content = np.ascontiguousarray(values, self._dtype).data
        self._digest.update(content)
        self._stream.write(content)
        self._size += content.nbytes

    def flush(self) -> OnDisk:
        """Write all so far to the disk; return how much that is."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return OnDisk(self._size, self._digest.hexdigest())

    def close(self) -> str:
        """Write all to the disk; return the SHA-256 of the column."""
        digest = self.flush().digest
        self._stream.close()
        return digest

    def abandon(self) -> None:
        """Close the file without waiting for the disk: nobody will read it, or no further than it was flushed."""
        with contextlib.suppress(OSError):  # a full disk does not take what is left in the buffer either
            self._stream.close()
