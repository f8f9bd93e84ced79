"""Encodings that were begun: folders of a cache that a process works on, or that one left for the next."""

import contextlib
import json
import os
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from attfm.errors import AttfmError, DataWarning, SourceError
from attfm.files import sha256, written_whole

KEPT = "kept"  # the part of a folder that is only for going on
_LOCK = "lock"
_MOST_LEFT, _MOST_SECONDS = 3, 7 * 86_400.0  # of folders that other trainings left: how many stay, and how long
_GONE = "gone"  # begins the names of folders that are being removed


class Begun:
    """Context manager around an encoding, in a folder that is this process's alone and gets its name when it is whole.

    A folder that a process left which is no more, or which failed, is taken over with what it kept. Where this one
    fails in its turn, what it kept stays: unless the table or the settings are at fault, which would be so again.

    Parameters
    ----------
    cache : pathlib.Path, the folder of all encodings
    key : str, the name of this one when it is whole
    lasting : bool, whether another process can find the key again; else nothing stays
    """

    def __init__(self, cache: Path, key: str, *, lasting: bool = True) -> None:
        self.cache, self.key = cache, key
        self._lasting = lasting
        self._lock: int | None = None

    def __enter__(self) -> "Begun":
        self.cache.mkdir(parents=True, exist_ok=True)
        _remove_old(self.cache, self.key)
        for folder in sorted(begun_of(self.cache, self.key), key=_age):
            self._lock = locked(folder)
            if self._lock is not None:
                self.folder = folder
                os.utime(folder)
                return self
        name = uuid.uuid4().hex[:12]
        new, self.folder = self.cache / f"{name}.new", self.cache / f"{self.key}.{name}.part"
        (new / KEPT).mkdir(parents=True)
        self._lock = locked(new)  # before others can see it
        new.rename(self.folder)
        if self._lock is None:  # a file system or a Python without locks: nobody may take it over
            self._lasting = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        at_fault = isinstance(error, AttfmError) and not isinstance(error, SourceError)
        if error is None or at_fault or not self._lasting or not any((self.folder / KEPT).glob("*.json")):
            _remove(self.folder)
        self._unlock()

    def finish(self) -> None:
        """Give the folder its name, unless another process was faster; remove what others left of the same."""
        whole = self.cache / self.key
        try:
            self.folder.rename(whole)
        except OSError:
            if not whole.is_dir():
                raise
        shutil.rmtree(whole / KEPT, ignore_errors=True)
        (whole / _LOCK).unlink(missing_ok=True)
        _remove_old(self.cache, "")

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)

    def once(self, name: str, read: Callable[[], pa.Table]) -> pa.Table:
        """Return what a pass over the table tells: as the folder has it already, else as it is read, and kept there.

        Warnings of the pass are given in both cases. The table is always that of the file, so that a training that was
        interrupted is the same as one that was not.
        """
        file, note = self.folder / name, self._note(name)
        if not self.has(name):
            note.unlink(missing_ok=True)
            with noted() as told:
                table = read()
            with written_whole(file) as path, pa.ipc.new_file(str(path), table.schema) as writer:
                writer.write_table(table)
            known = {"sha256": sha256(file), "told": told}
            del table
            with written_whole(note) as path:
                path.write_text(json.dumps(known))
        else:
            tell_again(json.loads(note.read_text())["told"])
        with pa.OSFile(str(file)) as source:
            return pa.ipc.open_file(source).read_all()

    def _note(self, name: str) -> Path:
        """Return the file that has the checksum and the warnings of a pass; it is there when the pass is done."""
        return self.folder / KEPT / f"{Path(name).stem}.json"

    def has(self, name: str) -> bool:
        """Whether the folder has what a pass told, undamaged."""
        try:
            note = json.loads(self._note(name).read_text())
            return bool(sha256(self.folder / name) == note["sha256"])
        except (OSError, ValueError, KeyError):
            return False


def begun_of(cache: Path, key: str) -> list[Path]:
    """Return the folders of an encoding that was begun, by this process or others."""
    return list(cache.glob(f"{key}.*.part"))


@contextmanager
def noted() -> Iterator[list[str]]:
    """Give a list that the warnings of a block stand in when it has ended; they are given then."""
    told: list[str] = []
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield told
    finally:
        told += [str(warning.message) for warning in caught if issubclass(warning.category, DataWarning)]
        for warning in caught:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def tell_again(told: list[str]) -> None:
    """Give the warnings of what an interrupted training had done."""
    for sentence in told:
        warnings.warn(sentence, DataWarning, stacklevel=2)


def locked(folder: Path) -> int | None:
    """Return the descriptor of a folder's lock, which ends with this process at the latest; None: it can't be had."""
    try:
        import fcntl

        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(folder / _LOCK)):  # else it was renamed meanwhile
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _age(folder: Path) -> float:
    """Return the seconds since something in a folder was written."""
    times = [0.0]
    for path in (folder, *folder.rglob("*")):
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    return time.time() - max(times)


def _remove_old(cache: Path, key: str) -> None:
    """Remove what processes have left that are no more, but for the latest few, and those of one key."""
    for folder in cache.glob("*.new"):  # a process ended just when it made it
        if _age(folder) > _MOST_SECONDS:
            _remove(folder)
    left, folders = 0, [folder for folder in cache.glob("*.part") if folder.name.partition(".")[0] != key]
    for folder in sorted(folders, key=_age):
        of, is_old = folder.name.partition(".")[0], _age(folder) > _MOST_SECONDS
        is_useless = is_old or of == _GONE or (cache / of).is_dir()
        if not is_useless and len(folders) <= _MOST_LEFT:
            continue
        lock = locked(folder)
        left += lock is not None
        if is_old or (lock is not None and (is_useless or left > _MOST_LEFT)):
            _remove(folder)
        if lock is not None:
            os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a folder, under a name that nobody takes over."""
    gone = folder.with_name(f"{_GONE}.{uuid.uuid4().hex[:12]}.part")
    with contextlib.suppress(OSError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
