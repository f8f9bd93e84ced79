"""Arrays and facts in one file that holds no code, mapped into memory when it is read; and its checksum beside it."""

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.files import sha256, system_errors, written_whole

ARRAYS, FACTS = "lookup.safetensors", "lookup.json"
FORMAT = 1
_DTYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "u1"}
_LONGEST_HEADER = 100_000_000  # as the safetensors format has it


class DamagedFile(Exception):
    """The file is not what was written; the message says how."""


@dataclass(frozen=True)
class Saved:
    """What was saved: facts as JSON has them, and arrays, mapped into memory."""

    facts: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


def write(folder: Path, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write both files, each whole or not at all; raise OSError where that can't be."""
    from safetensors.numpy import save_file

    with written_whole(folder / ARRAYS) as part:
        with system_errors():
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, part)
        digest = sha256(part)
    with written_whole(folder / FACTS) as part:
        text = json.dumps({"format": FORMAT, "sha256": digest, **facts}, ensure_ascii=False, indent=1)
        part.write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> Saved | None:
    """Return what was saved in a folder, None where nothing was, or in another format.

    Raises
    ------
    DamagedFile : it is not what was written
    """
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        version, digest = facts["format"], facts["sha256"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise DamagedFile(f"'{FACTS}' is damaged") from None
    if version != FORMAT or not (folder / ARRAYS).is_file():
        return None
    if sha256(folder / ARRAYS) != digest:
        raise DamagedFile(f"'{ARRAYS}' is not what was saved (its sha256 differs)")
    return Saved(facts, _mapped(folder / ARRAYS))


def _mapped(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a safetensors file without a copy; processes that read one file share its memory."""
    with path.open("rb") as stream:
        whole = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    size = int.from_bytes(whole[:8], "little")
    if size > min(_LONGEST_HEADER, len(whole) - 8):
        raise DamagedFile(f"'{path.name}' is damaged")
    arrays = {}
    for name, told in json.loads(whole[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        dtype, (start, stop) = np.dtype(_DTYPES[told["dtype"]]), told["data_offsets"]
        count = (stop - start) // dtype.itemsize
        arrays[name] = np.frombuffer(whole, dtype, count, 8 + size + start).reshape(told["shape"])
    return arrays
