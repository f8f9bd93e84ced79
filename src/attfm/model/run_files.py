"""Which files a run folder has, and whether they are those that were written; read without torch or Arrow."""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from attfm.errors import RunFolderError
from attfm.files import sha256

FORMAT = 1
SETTINGS = "config.json"
# Not in every folder: a model may have none.
BACKGROUND = "background.safetensors"
CALIBRATION = "calibration.json"
MEMORY = "memory.safetensors"
SUMS = "sums.safetensors"  # by which a model learns on
FILES = ("schema.json", "vocabulary.arrow", "weights.safetensors", "metrics.json", "history.jsonl", "README.md")
OPTIONAL = (BACKGROUND, CALIBRATION, MEMORY, SUMS)


def folder_path(folder: object) -> Path:
    """Return the path of a folder; raise RunFolderError where it is neither text nor path."""
    if not isinstance(folder, str | PathLike):
        raise RunFolderError(f"The run folder is {folder!r:.60}: give its path.")
    return Path(folder)


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a run folder; raise RunFolderError where it is none, or of a newer format."""
    if not path.is_dir():
        raise RunFolderError(f"There is no run folder '{path}': give the folder that 'attfm train' printed.")
    try:
        settings = json.loads((path / SETTINGS).read_text(encoding="utf-8"))
        version, digests = settings["format"], settings["sha256"]
    except FileNotFoundError:
        raise RunFolderError(f"'{path}' is not a run folder: it has no '{SETTINGS}'.") from None
    except (ValueError, KeyError, TypeError):
        raise RunFolderError(f"'{path / SETTINGS}' is damaged: copy the run folder again, or train again.") from None
    if not isinstance(version, int) or version > FORMAT:
        raise RunFolderError(
            f"The run folder '{path}' has format {version}, this attfm reads up to {FORMAT}: install a newer attfm."
        )
    if not isinstance(digests, dict) or set(digests) - set(OPTIONAL) != set(FILES):
        raise RunFolderError(f"'{path / SETTINGS}' is damaged: copy the run folder again, or train again.")
    return dict(settings)


def check_files(path: Path, digests: Mapping[str, str]) -> None:
    """Raise RunFolderError where a file is absent or is not what was saved."""
    for name, digest in digests.items():
        file = path / name
        if not file.is_file():
            raise RunFolderError(f"The run folder '{path}' lacks '{name}': copy it again, or train again.")
        # The texts are for people: they may be edited, and nothing is loaded from them.
        if name != "README.md" and sha256(file) != digest:
            raise RunFolderError(
                f"'{name}' in the run folder '{path}' is not what was saved (its sha256 differs): "
                "copy the folder again, or train again."
            )
