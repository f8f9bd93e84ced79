"""Parquet and Arrow files, and folders of them, as pyarrow Datasets."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from attfm.data.sources.file_set import FileSet
from attfm.data.sources.files import DataFile, reading
from attfm.data.sources.in_memory import is_pandas_index, stripped
from attfm.data.sources.plain_columns import is_ordered
from attfm.data.sources.plain_reader import PlainReader
from attfm.errors import SchemaError, SourceError

# Few rows are read ahead: a batch of wide text can be large.
_BATCH_ROWS, _READAHEAD = 65_536, 4


class ArrowDataset(PlainReader):
    """A pyarrow Dataset that has rows, and columns with names; raises SourceError or SchemaError where it has not.

    Its columns have plain types (see `plain_type`), and names without the spaces around them.
    """

    def __init__(self, name: str, dataset: pads.Dataset) -> None:
        super().__init__(name, dataset.schema)
        self._dataset = dataset
        with reading(name):
            self.num_rows = dataset.count_rows()
        if self.num_rows == 0:
            raise SourceError(f"{name} has 0 rows: a table needs at least one.")

    def parts(self) -> "list[ArrowDataset]":
        """Return the files one by one."""
        if not isinstance(self._dataset, pads.FileSystemDataset):
            return []
        for name, kind in zip(self.schema.names, self.schema.types, strict=True):
            if is_ordered(kind):
                self._levels_of(name)  # those of all files
        parts = []
        for fragment in self._dataset.get_fragments():
            part = copy.copy(self)
            part._dataset = pads.FileSystemDataset(
                [fragment], self._dataset.schema, self._dataset.format, self._dataset.filesystem
            )
            with reading(self._name):
                part.num_rows = fragment.count_rows()
            parts.append(part)
        return parts

    def _stored_batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        names = [self._stored[name].name for name in columns]
        for fragment in self._dataset.get_fragments():
            with _naming(fragment, names, self._name):
                yield from fragment.to_batches(
                    schema=self._dataset.schema, columns=names, batch_size=_BATCH_ROWS, batch_readahead=_READAHEAD
                )


@contextmanager
def _naming(fragment: pads.Fragment, columns: Sequence[str], table: str) -> Iterator[None]:
    """Raise SourceError where the bytes of a file can't be read to their end: it names the file, and its row group."""
    name = str(getattr(fragment, "path", table)).replace("\\", "/").rpartition("/")[2] or table
    try:
        with reading(name):
            yield
    except SourceError:
        if not isinstance(fragment, pads.ParquetFileFragment):
            raise
        try:
            groups = fragment.split_by_row_group()
        except (pa.ArrowException, OSError):
            groups = []
        for number, group in enumerate(groups):
            with reading(name, f" in row group {number} (of {len(groups)}, counted from 0)"):
                for _ in group.to_batches(columns=[c for c in columns if c in group.physical_schema.names]):
                    pass
        raise


def open_arrow_file(file: DataFile, kind: str) -> "ArrowDataset":
    """Open one Parquet or Arrow file; raise SourceError or SchemaError where it is no table."""
    if file.raw_head(1) == b"":
        raise SourceError(f"{file.name} is empty: a table needs at least one row.")
    with reading(file.name):
        if kind == "arrow" and not file.raw_head(6).startswith(b"ARROW1"):
            with file.filesystem.open_input_stream(file.path) as stream, pa.ipc.open_stream(stream) as reader:
                return ArrowDataset(file.name, pads.dataset(reader.read_all()))
        return ArrowDataset(file.name, _dataset([file.path], kind, file.filesystem, None))


def open_arrow_set(files: FileSet) -> "ArrowDataset":
    """Open Parquet or Arrow files as one table."""
    with reading(files.name):
        paths = [file.path for file in files.files]
        return ArrowDataset(files.name, _dataset(paths, files.kind, files.files[0].filesystem, files.base))


def _dataset(paths: list[str], kind: str, filesystem: pafs.FileSystem, base: str | None) -> pads.Dataset:
    """Return the files as one dataset, whose schema holds the columns of all of them."""
    format_ = _parquet() if kind == "parquet" else pads.IpcFileFormat()
    schema = pa.schema([])
    for path in paths:
        name = path.replace("\\", "/").rpartition("/")[2]
        with reading(name):
            new = format_.inspect(path, filesystem)
        stripped(new.names, name)
        try:
            schema = pa.unify_schemas([_viewless(schema), _viewless(new)], promote_options="permissive")
        except pa.ArrowException as error:
            raise SchemaError(f"{name} has other columns than the files before it: {error}.") from error
    options = {"format": format_, "filesystem": filesystem, "partition_base_dir": base}
    if base:
        options["partitioning"] = "hive"
        found = pads.dataset(paths, **options).schema  # the columns of the first file and the partitions
        schema = pa.unify_schemas([schema, pa.schema([f for f in found if f.name not in schema.names])])
    return pads.dataset(paths, schema=pa.schema([f for f in schema if not is_pandas_index(f.name)]), **options)


def _parquet() -> pads.ParquetFileFormat:
    """Return the format of Parquet files, with the types that their columns say they have."""
    # The old times of Spark (INT96) reach further than nanoseconds do: a year 1 would become 1754.
    options = pads.ParquetReadOptions(coerce_int96_timestamp_unit="us")
    scan = pads.ParquetFragmentScanOptions()
    if hasattr(scan, "arrow_extensions_enabled"):  # UUIDs of files that pyarrow did not write, since pyarrow 21
        scan.arrow_extensions_enabled = True
    return pads.ParquetFileFormat(read_options=options, default_fragment_scan_options=scan)


def _viewless(schema: pa.Schema) -> pa.Schema:
    """Return a schema with strings for views of them, which Arrow does not promote to the strings of another file."""
    strings = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    return pa.schema([field.with_type(strings.get(field.type, field.type)) for field in schema])
