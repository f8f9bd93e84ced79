"""Tables in: files of several kinds and table objects, as batches of Arrow columns that can be read again."""

from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from attfm.data.delimited import DelimitedFile
from attfm.data.files import DataFile, damaged, known_kinds
from attfm.data.libsvm import Layout, LibsvmFile
from attfm.data.tables import as_arrow, check_names
from attfm.data.writing import TableWriter
from attfm.errors import SchemaError, SourceError

__all__ = ["MAX_BATCH_ROWS", "Source", "TableWriter", "open_source"]

MAX_BATCH_ROWS = 65_536

Read = Callable[[Sequence[str]], Iterator[pa.RecordBatch]]


class Source:
    """A table that can be read again and again, batch after batch.

    Parameters
    ----------
    name : what messages call it, for example "churn.csv" or "DataFrame"
    schema : of all columns
    read : called for each pass with the names of the columns wanted; yields their batches
    num_rows : where it is known
    """

    def __init__(self, name: str, schema: pa.Schema, read: Read, num_rows: int | None = None) -> None:
        self.name = name
        self.schema = schema
        self.num_rows = num_rows
        self._read = read

    def __repr__(self) -> str:
        rows = "?" if self.num_rows is None else self.num_rows
        return f"Source({self.name!r}, rows={rows}, columns={len(self.schema)})"

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows from the top, at most 65,536 in a batch and none empty.

        Parameters
        ----------
        columns : those wanted, in that order; None for all

        Raises
        ------
        SchemaError : a column is not there
        SourceError : the file is damaged
        """
        wanted = list(self.schema.names if columns is None else columns)
        absent = [name for name in wanted if name not in self.schema.names]
        if absent or not wanted:
            raise SchemaError(self._absent(absent))
        return self._sliced(wanted)

    def _sliced(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for batch in self._read(columns):
            for start in range(0, batch.num_rows, MAX_BATCH_ROWS):
                yield batch.slice(start, MAX_BATCH_ROWS)

    def _absent(self, absent: Sequence[str]) -> str:
        if not absent:
            return f"No columns of {self.name} were asked for: name at least one."
        named = []
        for name in absent:
            near = get_close_matches(name, self.schema.names, n=1)
            named.append(f"'{name}'" + (f" (did you mean '{near[0]}'?)" if near else ""))
        has = ", ".join(self.schema.names[:20]) + (", ..." if len(self.schema) > 20 else "")
        return f"{self.name} has no column {', '.join(named)}. It has {has}."


def open_source(
    data: object,
    *,
    names: Sequence[str] | None = None,
    separator: str | None = None,
    null_values: Sequence[str] | None = None,
    encoding: str = "utf-8",
    skip_rows: int = 0,
    layout: Layout = "auto",
) -> Source:
    """Open a table: a file, a folder of files, or a table object.

    Parameters
    ----------
    data : path or URI of delimited text, Parquet, Arrow or libsvm/libfm (text also as .gz or .zst); path of a folder
        of Parquet or Arrow files; pandas or polars DataFrame, pyarrow Table, RecordBatch, RecordBatchReader or
        Dataset, 2-D numpy array, dict of columns, list of dicts, list of rows, any object with
        `__arrow_c_stream__` or `__dataframe__`; or a Source
    names : column names of text without a header, or of an array (else x0, x1, ...)
    separator : of delimited text, one character; None: by extension and first rows, among , ; tab and |
    null_values : markers of a missing cell in delimited text, besides the usual ("", NA, NaN, null, n/a, ...)
    encoding : of delimited text
    skip_rows : lines of delimited text to pass over at the top
    layout : of libsvm/libfm: "fields" gives columns f0, f1, ..., "bag" one column of maps; "auto" looks for fields

    Returns
    -------
    Source : delimited text and libsvm files have been read once, to check them and find their types

    Raises
    ------
    SourceError : it can't be read, or is no table
    SchemaError : column names are empty or doubled

    Examples
    --------
    >>> source = open_source({"age": [39, 50], "job": ["clerk", None]})
    >>> source.num_rows, [batch.num_rows for batch in source.batches(["job"])]
    (2, [2])
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, pads.Dataset):
        return _dataset_source(type(data).__name__, data)
    if not isinstance(data, (str, Path)):
        table = as_arrow(data, names)
        return _table_source(type(data).__name__, table)
    file = DataFile.locate(data)
    if file.is_folder:
        return _folder_source(file)
    kind = file.kind
    if kind is None and (names is not None or separator is not None):
        kind = "delimited"
    if kind is None:
        raise SourceError(
            f"{file.name} has an unknown extension. Known are {known_kinds()}; for text of another extension "
            "give separator= (--separator)."
        )
    if names is not None and kind != "delimited":
        raise SourceError(f"names= is for arrays and text without a header, but {file.name} has names of its own.")
    if kind == "delimited":
        text = DelimitedFile(
            file, names=names, separator=separator, null_values=null_values, encoding=encoding, skip_rows=skip_rows
        )
        return Source(file.name, text.schema, text.read, text.num_rows)
    if kind == "libsvm":
        sparse = LibsvmFile(file, layout=layout)
        return Source(file.name, sparse.schema, sparse.read, sparse.num_rows)
    return _arrow_file_source(file, kind)


def _table_source(name: str, table: pa.Table) -> Source:
    def read(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return iter(table.select(list(columns)).to_batches(max_chunksize=MAX_BATCH_ROWS))

    return Source(name, table.schema, read, table.num_rows)


def _arrow_file_source(file: DataFile, kind: str) -> Source:
    if file.raw_head(1) == b"":
        raise SourceError(f"{file.name} is empty: a table needs at least one row.")
    try:
        if kind == "arrow" and not file.raw_head(6).startswith(b"ARROW1"):
            with file.filesystem.open_input_stream(file.path) as stream, pa.ipc.open_stream(stream) as reader:
                return _table_source(file.name, as_arrow(reader))
        return _dataset_source(file.name, _dataset([file.path], kind, file.filesystem, None))
    except (pa.ArrowException, OSError) as error:
        raise damaged(file.name, error) from error


def _folder_source(folder: DataFile) -> Source:
    selector = pafs.FileSelector(folder.path, recursive=True)
    # Names that begin so are hidden, or the notes of the engines that write such folders (_SUCCESS, _delta_log).
    depth = len(folder.path.rstrip("/").split("/"))
    infos = [info for info in folder.filesystem.get_file_info(selector) if info.is_file]
    infos = [i for i in infos if not any(part.startswith((".", "_")) for part in i.path.split("/")[depth:])]
    by_kind: dict[str, list[str]] = {}
    for info in infos:
        kind = DataFile(info.base_name, info.path, folder.filesystem, False).kind
        if kind:
            by_kind.setdefault(kind, []).append(info.path)
    tables = {kind: sorted(by_kind[kind]) for kind in ("parquet", "arrow") if kind in by_kind}
    if not tables:
        other = f" It holds {sum(map(len, by_kind.values()))} text tables: name one of them." if by_kind else ""
        raise SourceError(f"The folder {folder.name} holds no Parquet or Arrow files.{other}")
    if len(tables) > 1:
        raise SourceError(f"The folder {folder.name} holds both Parquet and Arrow files: keep one kind.")
    ((kind, paths),) = tables.items()
    try:
        return _dataset_source(folder.name, _dataset(paths, kind, folder.filesystem, folder.path))
    except (pa.ArrowException, OSError) as error:
        raise damaged(folder.name, error) from error


def _dataset(paths: list[str], kind: str, filesystem: pafs.FileSystem, base: str | None) -> Any:
    """Return the files as one dataset, whose schema holds the columns of all of them."""
    dataset = pads.dataset(
        paths,
        format="parquet" if kind == "parquet" else "ipc",
        filesystem=filesystem,
        partitioning="hive" if base else None,
        partition_base_dir=base,
    )
    schema = dataset.schema
    for fragment in dataset.get_fragments() if len(paths) > 1 else ():
        try:
            schema = pa.unify_schemas([schema, fragment.physical_schema], promote_options="permissive")
        except pa.ArrowException as error:
            raise SchemaError(f"{fragment.path} has other columns than the files before it: {error}.") from error
    return dataset.replace_schema(schema)


def _dataset_source(name: str, dataset: Any) -> Source:
    names = dataset.schema.names
    if not names:
        raise SourceError(f"{name} has no columns.")
    check_names(names, name)
    rows = dataset.count_rows()
    if rows == 0:
        raise SourceError(f"{name} has 0 rows: a table needs at least one.")

    def read(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        try:
            yield from dataset.to_batches(columns=list(columns), batch_size=MAX_BATCH_ROWS)
        except (pa.ArrowInvalid, OSError) as error:
            raise damaged(name, error) from error

    return Source(name, dataset.schema, read, rows)
