"""Safe points of an encoding: how far its files are written, kept from time to time, to go on from there."""

import json
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attfm.files import written_whole

SECONDS = 60.0  # from one to the next: what they write is flushed to the disk


class SafePoints:
    """The latest safe point of an encoding: one file of numbers, text and arrays, written whole; no pickle.

    Attributes
    ----------
    latest : what was kept, by name; empty where there is none, or none that can be read
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = time.monotonic()
        self.latest: Mapping[str, Any] = _read(path)

    @property
    def is_due(self) -> bool:
        """Whether it is time to keep another."""
        return time.monotonic() - self._written >= SECONDS

    def keep(self, state: Mapping[str, Any]) -> None:
        """Replace the safe point. `state` may hold dictionaries, whose values are plain or arrays."""
        arrays = dict[str, Any]()

        def plain(value: Any, name: str) -> Any:
            if isinstance(value, np.ndarray):
                arrays[name] = value
                return None
            return {k: plain(v, f"{name}/{k}") for k, v in value.items()} if isinstance(value, Mapping) else value

        text = json.dumps({"state": plain(state, ""), "arrays": list(arrays)})
        with written_whole(self._path) as path, path.open("wb") as stream:
            np.savez(stream, known=np.frombuffer(text.encode(), np.uint8), **_numbered(arrays))
        self._written = time.monotonic()

    def forget(self) -> None:
        """Remove it: what it says of the files is not so."""
        self._path.unlink(missing_ok=True)
        self.latest = {}


def _numbered(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {str(number): array for number, array in enumerate(arrays.values())}


def _read(path: Path) -> dict[str, Any]:
    """Return what a file keeps; nothing where it is not there or damaged (a zip file has checksums)."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
            known = json.loads(kept["known"].tobytes())
            for number, name in enumerate(known["arrays"]):
                *folders, last = name.split("/")[1:]
                place = known["state"]
                for folder in folders:
                    place = place[folder]
                place[last] = kept[str(number)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
    state: dict[str, Any] = known["state"]
    return state
