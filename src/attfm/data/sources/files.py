"""Finding and opening files: what kind a name says it is, decompressed bytes, and errors that help."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.fs as pafs

from attfm.data.sources.database_uri import DatabaseUri, is_database
from attfm.errors import SourceError, near_names

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
KINDS = {
    **dict.fromkeys([".csv", ".tsv", ".tab", ".psv", ".txt", ".data", ".dat"], "delimited"),
    **dict.fromkeys([".parquet", ".pq"], "parquet"),
    **dict.fromkeys([".arrow", ".arrows", ".feather", ".ipc"], "arrow"),
    **dict.fromkeys([".libsvm", ".svm", ".svmlight", ".libfm"], "libsvm"),
}
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_FOREIGN = {
    b"PAR1": "holds Parquet data: rename it to end in .parquet",
    b"ARROW1": "holds Arrow data: rename it to end in .arrow",
    b"PK\x03\x04": "is a zip archive or an Excel workbook: unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook: save it as CSV",
    b"BZh": "is compressed by bzip2: unpack it, or compress it by gzip or zstd",
    b"SQLite": "is an SQLite database: give it as sqlite:///file, with a query (--query)",
}


@dataclass(frozen=True)
class DataFile:
    """A file or folder that exists, on this machine or in an object store; messages call it `name`, its last part."""

    name: str
    path: str
    filesystem: pafs.FileSystem
    is_folder: bool

    @classmethod
    def locate(cls, path: str | Path) -> Self:
        """Return what lies at a path or URI (s3://, gs://, file://); raise SourceError where nothing does."""
        text = str(path)
        if not text.strip():
            raise SourceError("The path of the table is empty: give a file or a folder.")
        if "://" in text:
            filesystem, inner = _opened(text)
            try:
                info = filesystem.get_file_info(inner)
            except (pa.ArrowException, OSError) as error:
                raise SourceError(f"{text} can't be opened: {_one_line(error)}.") from error
        else:
            filesystem, inner = pafs.LocalFileSystem(), str(Path(text).expanduser())
            info = filesystem.get_file_info(inner)
        if info.type == pafs.FileType.NotFound:
            raise SourceError(f"There is no file {text}.{_near_names(inner)}")
        name = inner.rstrip("/\\").replace("\\", "/").rpartition("/")[2] or inner
        return cls(name, inner, filesystem, info.type == pafs.FileType.Directory)

    @property
    def suffixes(self) -> tuple[str, str]:
        """The extension and that of the compression, in lower case: (".csv", ".gz")."""
        stem = Path(self.name.lower())
        if stem.suffix in COMPRESSIONS:
            return Path(stem.stem).suffix, stem.suffix
        return stem.suffix, ""

    @property
    def fingerprint(self) -> str:
        """A digest of the paths, sizes and times of the file, or of all files below the folder."""
        asked = pafs.FileSelector(self.path, recursive=True) if self.is_folder else [self.path]
        is_local = isinstance(self.filesystem, pafs.LocalFileSystem)  # whose paths may be those of a working directory
        infos = sorted(
            (str(Path(i.path).absolute()) if is_local else i.path, i.size, i.mtime_ns)
            for i in self.filesystem.get_file_info(asked) if i.is_file
        )  # fmt: skip
        return hashlib.sha256(repr(infos).encode()).hexdigest()

    @property
    def kind(self) -> str | None:
        """What the extension says: delimited, parquet, arrow or libsvm; None if unknown."""
        return KINDS.get(self.suffixes[0])

    def raw_head(self, size: int) -> bytes:
        """Return the first bytes as they lie on disk."""
        try:
            with self.filesystem.open_input_stream(self.path, compression=None) as stream:
                return bytes(stream.read(size))
        except OSError as error:
            raise SourceError(f"{self.name} can't be read: {_one_line(error)}.") from error

    def open_text(self) -> pa.NativeFile:
        """Open the decompressed bytes of a text file; raise SourceError where it is not what its extension says."""
        head = self.raw_head(8)
        compression = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
        claimed = COMPRESSIONS.get(self.suffixes[1])
        if claimed and head and compression != claimed:
            raise SourceError(f"{self.name} is not {claimed} data, although its name says so: rename it.")
        for magic, sentence in _FOREIGN.items():
            if head.startswith(magic):
                raise SourceError(f"{self.name} {sentence}.")
        if claimed and not head:
            compression = None
        try:
            return self.filesystem.open_input_stream(self.path, compression=compression)
        except OSError as error:
            raise SourceError(f"{self.name} can't be read: {_one_line(error)}.") from error


def _opened(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a URI, Arrow's own or else fsspec's, and the path in it."""
    try:
        filesystem, path = pafs.FileSystem.from_uri(uri)
        return filesystem, path
    except (pa.ArrowException, OSError) as error:
        scheme = uri.partition("://")[0]
        if scheme in ("http", "https"):  # which can't be listed, and seldom be read twice
            raise SourceError(f"{uri} can't be opened: download it first.") from error
        try:
            import fsspec

            other, path = fsspec.core.url_to_fs(uri)
            return pafs.PyFileSystem(pafs.FSSpecHandler(other)), str(path)
        except Exception as other_error:
            raise SourceError(
                f"{uri} can't be opened: {_one_line(other_error)}. Known are paths, file://, s3://, gs:// and what "
                "fsspec knows; download anything else first."
            ) from error


@contextmanager
def reading(name: str, where: str = "") -> Iterator[None]:
    """Raise SourceError where the bytes of a file can't be read to their end; where : in it, such as a row group."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"{name} is damaged or cut short{where}: {_one_line(error)}. Copy or download it again."
        ) from error


def known_kinds() -> str:
    """Return the sentence part that names what can be read."""
    names: dict[str, list[str]] = {}
    for suffix, kind in KINDS.items():
        names.setdefault(kind, []).append(suffix)
    return "; ".join(" ".join(suffixes) for suffixes in names.values()) + " (text also with .gz or .zst)"


def table_stem(path: str) -> str:
    """Return the name of a table without its folder and extensions; of a database its name."""
    if is_database(path):
        return DatabaseUri(path).stem
    path = path.rstrip("/")
    name = Path(path).name
    for suffix in COMPRESSIONS:
        name = name.removesuffix(suffix)
    stem = re.sub(r"\[[^]]*\]|[*?]", "", Path(name).stem).strip("-_. ")  # of a pattern what is not one
    if stem != Path(name).stem and not stem:
        return table_stem(str(Path(path).parent))
    return stem or "run"


def _near_names(path: str) -> str:
    folder = Path(path).parent
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return f" There is no folder {folder} either."
    near = near_names(Path(path).name, names, most=3, cutoff=0.5)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
