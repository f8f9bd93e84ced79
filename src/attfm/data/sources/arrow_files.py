"""Parquet and Arrow files, and folders of them, as pyarrow Datasets."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from attfm.data.sources.files import DataFile, reading
from attfm.data.sources.in_memory import check_names, is_pandas_index
from attfm.errors import SchemaError, SourceError

# Few rows are read ahead: a batch of wide text can be large.
_BATCH_ROWS, _READAHEAD = 65_536, 4


class ArrowDataset:
    """A pyarrow Dataset that has rows, and columns with names; raises SourceError or SchemaError where it has not."""

    def __init__(self, name: str, dataset: pads.Dataset) -> None:
        self._name = name
        self._dataset = dataset
        self.schema = dataset.schema
        if not self.schema.names:
            raise SourceError(f"{name} has no columns.")
        check_names(self.schema.names, name)
        with reading(name):
            self.num_rows = dataset.count_rows()
        if self.num_rows == 0:
            raise SourceError(f"{name} has 0 rows: a table needs at least one.")

    def read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows from the top, with the given columns."""
        with reading(self._name):
            yield from self._dataset.to_batches(
                columns=list(columns), batch_size=_BATCH_ROWS, batch_readahead=_READAHEAD
            )


def open_arrow_file(file: DataFile, kind: str) -> "ArrowDataset":
    """Open one Parquet or Arrow file; raise SourceError or SchemaError where it is no table."""
    if file.raw_head(1) == b"":
        raise SourceError(f"{file.name} is empty: a table needs at least one row.")
    with reading(file.name):
        if kind == "arrow" and not file.raw_head(6).startswith(b"ARROW1"):
            with file.filesystem.open_input_stream(file.path) as stream, pa.ipc.open_stream(stream) as reader:
                return ArrowDataset(file.name, pads.dataset(reader.read_all()))
        return ArrowDataset(file.name, _dataset([file.path], kind, file.filesystem, None))


def open_folder(folder: DataFile) -> "ArrowDataset":
    """Open all Parquet or all Arrow files below a folder as one table; folders named key=value give columns."""
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
        texts = sorted(path.replace("\\", "/").rpartition("/")[2] for paths in by_kind.values() for path in paths)
        other = f" It holds text tables ({', '.join(texts[:3])}): name one of them." if texts else ""
        raise SourceError(f"The folder {folder.name} holds no Parquet or Arrow files.{other}")
    if len(tables) > 1:
        raise SourceError(f"The folder {folder.name} holds both Parquet and Arrow files: keep one kind.")
    ((kind, paths),) = tables.items()
    with reading(folder.name):
        return ArrowDataset(folder.name, _dataset(paths, kind, folder.filesystem, folder.path))


def _dataset(paths: list[str], kind: str, filesystem: pafs.FileSystem, base: str | None) -> pads.Dataset:
    """Return the files as one dataset, whose schema holds the columns of all of them."""
    format_ = pads.ParquetFileFormat() if kind == "parquet" else pads.IpcFileFormat()
    schema = pa.schema([])
    for path in paths:
        name = path.replace("\\", "/").rpartition("/")[2]
        with reading(name):
            new = format_.inspect(path, filesystem)
        check_names(new.names, name)
        try:
            schema = pa.unify_schemas([schema, new], promote_options="permissive")
        except pa.ArrowException as error:
            raise SchemaError(f"{name} has other columns than the files before it: {error}.") from error
    options = {"format": format_, "filesystem": filesystem, "partition_base_dir": base}
    if base:
        options["partitioning"] = "hive"
        found = pads.dataset(paths, **options).schema  # the columns of the first file and the partitions
        schema = pa.unify_schemas([schema, pa.schema([f for f in found if f.name not in schema.names])])
    return pads.dataset(paths, schema=pa.schema([f for f in schema if not is_pandas_index(f.name)]), **options)
