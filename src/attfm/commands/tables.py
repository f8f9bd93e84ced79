"""The tables that commands are given: bundled ones by name, files by path."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attfm.data.datasets import DATASETS
from attfm.data.sources.files import DataFile
from attfm.data.sources.source import Source, open_source
from attfm.errors import ConfigError, SchemaError, TargetError, absent, nearest

LIBSVM_LABEL = "label"  # the column that holds the labels of a libsvm or libfm file


@dataclass(frozen=True)
class Reading:
    """How text is read; see `attfm.data.sources.source.open_source`."""

    names: Sequence[str] | None = None
    separator: str | None = None
    encoding: str = "utf-8"
    null_values: Sequence[str] = ()
    skip_rows: int = 0

    @classmethod
    def from_options(
        cls,
        names: str | None,
        separator: str | None,
        encoding: str,
        null_values: Sequence[str] | None,
        skip_rows: int,
    ) -> "Reading":
        """Return the options as typed: names joined by commas, "\\t" or "tab" for a tab."""
        split = None if names is None else [name.strip() for name in names.split(",")]
        separator = {"\\t": "\t", "tab": "\t"}.get(separator or "", separator)
        return cls(split, separator, encoding, tuple(null_values or ()), skip_rows)

    def open(self, data: str) -> Source:
        """Return a bundled table by its name, or a file or folder by its path."""
        if data in DATASETS:
            return open_source(DATASETS[data].path)
        return open_source(
            data, names=self.names, separator=self.separator, null_values=self.null_values or None,
            encoding=self.encoding, skip_rows=self.skip_rows,
        )  # fmt: skip


def target_of(data: str, source: Source, target: str | None) -> str:
    """Return the name of the target column: as given, or that of a bundled table or a libsvm file.

    Raises
    ------
    ConfigError : it was not given and can't be known
    TargetError : there is no such column
    """
    if target is None and data in DATASETS:
        target = DATASETS[data].target
    if target is None and data not in DATASETS and DataFile.locate(data).kind == "libsvm":
        target = LIBSVM_LABEL
    names = source.schema.names
    known = ", ".join(f"'{name}'" for name in names[:20]) + (", ..." if len(names) > 20 else "")
    if target is None:
        raise ConfigError(f"Which column of {source.name} is to be predicted? Give --target, one of {known}.")
    if target not in names:
        raise TargetError(
            f"There is no target column '{target}' in {source.name}{nearest(target, names)}. Its columns: {known}."
        )
    return target


def check_columns(source: Source, needed: Sequence[str], *, why: str) -> None:
    """Raise SchemaError that lists all columns of `needed` that are absent; `why` ends its first sentence."""
    lacking = absent(needed, source.schema.names)
    if lacking:
        raise SchemaError(
            f"{source.name} lacks {len(lacking)} of the {len(needed)} columns {why}: {', '.join(lacking)}. Add them."
        )


def new_folder(parent: Path, stem: str) -> Path:
    """Return parent/stem-n with the next free number, made and empty.

    Raises
    ------
    ConfigError : it can't be made
    """
    number = 1
    while True:
        path = parent / f"{stem}-{number}"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except FileExistsError:
            if parent.is_dir():
                number += 1
                continue
            raise ConfigError(f"'{parent}' is not a folder: give --out, a folder to write to.") from None
        except OSError as error:
            raise ConfigError(f"Can't make the folder '{path}': {error.strerror}. Give another by --out.") from None
        return path
