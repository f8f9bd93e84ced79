"""Files that are one table together: those of a folder, or of a pattern such as clicks/2024-*.csv.gz."""

import fnmatch
import glob
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs

from attfm.data.sources.files import DataFile
from attfm.errors import SourceError

_PATTERN = re.compile(r"[*?\[]")
_PARTITION = re.compile(r"^([^=/]+)=(.*)$")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_CALLED = {"parquet": "Parquet", "arrow": "Arrow", "delimited": "text"}


@dataclass(frozen=True)
class FileSet:
    """Files of one kind, in the order of their names.

    Attributes
    ----------
    name : str, what messages call it
    kind : str, "parquet", "arrow" or "delimited"
    files : tuple of DataFile, at least one
    base : str, the folder below which folders named key=value give columns
    """

    name: str
    kind: str
    files: tuple[DataFile, ...]
    base: str

    @classmethod
    def locate(cls, path: str | Path) -> Self | None:
        """Return the files of a folder or pattern; None of anything else. Raises SourceError where there are none."""
        text = str(path)
        scheme, _, rest = text.rpartition("://")
        if _PATTERN.search(rest) and not (scheme == "" and Path(text).expanduser().exists()):
            return cls._of_pattern(text, scheme, rest)
        if not text.strip():
            return None
        folder = DataFile.locate(path)
        if not folder.is_folder:
            return None
        found = folder.filesystem.get_file_info(pafs.FileSelector(folder.path, recursive=True))
        return cls._of(folder.name, [i.path for i in found if i.is_file], folder.filesystem, folder.path.rstrip("/"))

    @classmethod
    def _of_pattern(cls, text: str, scheme: str, rest: str) -> Self:
        fixed = rest[: _PATTERN.search(rest).start()]  # type: ignore[union-attr]
        base = fixed.rpartition("/")[0] or ("/" if fixed.startswith("/") else ".")
        name = text.rstrip("/").rpartition("/")[2]
        if not scheme:
            pattern = str(Path(text).expanduser())
            paths = [path for path in glob.glob(pattern, recursive=True) if Path(path).is_file()]
            filesystem: pafs.FileSystem = pafs.LocalFileSystem()
        else:
            folder = DataFile.locate(f"{scheme}://{base}")
            filesystem = folder.filesystem
            infos = filesystem.get_file_info(pafs.FileSelector(folder.path, recursive=True))
            wanted = folder.path.rstrip("/") + "/" + rest[len(base) :].lstrip("/")
            paths = [info.path for info in infos if info.is_file and fnmatch.fnmatchcase(info.path, wanted)]
            base = folder.path
        if not paths:
            raise SourceError(f"There is no file {text}: no name fits the pattern. Look at the folder '{base}'.")
        return cls._of(name, paths, filesystem, base)

    @classmethod
    def _of(cls, name: str, paths: Sequence[str], filesystem: pafs.FileSystem, base: str) -> Self:
        """Return the files that are a table, of all that lie there; raise SourceError where they are several."""
        by_kind: dict[str, list[DataFile]] = {}
        for path in sorted(paths):
            # Names that begin so are hidden, or notes of the engines that write such folders (_SUCCESS, _delta_log).
            below = path.removeprefix(base).strip("/")
            if any(part.startswith((".", "_")) for part in below.split("/")):
                continue
            file = DataFile(path.replace("\\", "/").rpartition("/")[2], path, filesystem, False)
            if file.kind in _CALLED:
                by_kind.setdefault(str(file.kind), []).append(file)
        if "parquet" in by_kind and "arrow" in by_kind:
            raise SourceError(f"{name} holds both Parquet and Arrow files: keep one kind, or name one by a pattern.")
        kind = next((kind for kind in _CALLED if kind in by_kind), None)
        if kind is None:
            raise SourceError(f"{name} holds no Parquet, Arrow or text files that are a table.")
        suffixes = sorted({file.suffixes[0] for file in by_kind[kind]})
        if kind == "delimited" and len(suffixes) > 1:
            raise SourceError(
                f"{name} holds {' and '.join(suffixes)} files: name those of one table by a pattern, such as "
                f"'{name}/*{suffixes[0]}'."
            )
        return cls(name, kind, tuple(by_kind[kind]), base)

    @property
    def fingerprint(self) -> str:
        """A digest of the paths, sizes and times of all files."""
        return hashlib.sha256("".join(file.fingerprint for file in self.files).encode()).hexdigest()

    def partitions(self) -> tuple[dict[str, pa.DataType], list[dict[str, str | int | None]]]:
        """Return the columns that folders named key=value give, with their types, and the values of each file."""
        found = []
        for file in self.files:
            folders = file.path.removeprefix(self.base).strip("/").split("/")[:-1]
            parts = [match for folder in folders if (match := _PARTITION.match(folder))]
            found.append({unquote(part[1]): None if part[2] == _NO_VALUE else unquote(part[2]) for part in parts})
        names = list(dict.fromkeys(name for values in found for name in values))
        types, of_files = dict[str, pa.DataType](), [dict[str, str | int | None]() for _ in found]
        for name in names:
            texts = [values.get(name) for values in found]
            whole = all(text is None or re.fullmatch(r"-?(0|[1-9]\d{0,17})", text) for text in texts)
            types[name] = pa.int64() if whole else pa.string()
            for values, text in zip(of_files, texts, strict=True):
                values[name] = int(text) if whole and text is not None else text
        return types, of_files
