"""Several files of delimited text as one table."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import pyarrow as pa

from attfm.config import Reading
from attfm.data.sources.csv import DelimitedFile
from attfm.data.sources.file_set import FileSet
from attfm.errors import SchemaError


class TextSet:
    """Text files with the same columns, one after the other; see `DelimitedFile`.

    A column has the narrowest type that holds the cells of all files. One that a file lacks is missing in its rows.
    """

    def __init__(self, files: FileSet, reading: Reading, stored: Mapping[str, pa.DataType] | None = None) -> None:
        self._members = [DelimitedFile(file, reading, stored) for file in files.files]
        own, self._constants = files.partitions()
        types = dict[str, pa.DataType]()
        for file, member in zip(files.files, self._members, strict=True):
            if types and not set(types) & set(member.schema.names):
                raise SchemaError(
                    f"{file.name} has none of the columns of the files before it (it begins with "
                    f"'{member.schema.names[0]}'). Give all files the same header, or --names to files without one."
                )
            for field in member.schema:
                types[field.name] = _wider(types.get(field.name, pa.null()), field.type)
        doubled = [name for name in own if name in types]
        if doubled:
            raise SchemaError(
                f"'{doubled[0]}' is a column of the files of {files.name}, and of their folders: rename one."
            )
        self._members = [member.typed(types) for member in self._members]
        self.num_rows = sum(member.num_rows for member in self._members)
        self.schema = pa.schema(types | own)

    def verbatim(self, names: Sequence[str]) -> Self:
        """Return the same files, some columns of which are text, as their cells stand but for the spaces around."""
        other = copy.copy(self)
        other._members = [member.verbatim(names) for member in self._members]
        own = set(other._members[0].schema.names)
        kept = {
            field.name: pa.string() if field.name in names and field.name in own else field.type
            for field in self.schema
        }
        other.schema = pa.schema(kept)
        return other

    def parts(self) -> list[Self]:
        """Return the files one by one."""
        parts = []
        for member, constants in zip(self._members, self._constants, strict=True):
            part = copy.copy(self)
            part._members, part._constants, part.num_rows = [member], [constants], member.num_rows
            parts.append(part)
        return parts

    def place_of(self, row: int) -> str | None:
        """Return where people find a row: "line 18 of part-2.csv"."""
        for member in self._members:
            if row < member.num_rows:
                place = member.place_of(row)
                return None if place is None else f"{place} of {member.name}"
            row -= member.num_rows
        return None

    def read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows from the top, file after file, with the given columns."""
        schema = pa.schema([self.schema.field(name) for name in columns])
        for member, constants in zip(self._members, self._constants, strict=True):
            there = [name for name in columns if name in member.schema.names]
            for batch in member.read(there or member.schema.names[:1]):
                arrays = [
                    batch.column(there.index(field.name)) if field.name in there
                    else pa.repeat(pa.scalar(constants.get(field.name), field.type), batch.num_rows)
                    for field in schema
                ]  # fmt: skip
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Return the narrowest type that holds the cells of two columns."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if {one, other} == {pa.int64(), pa.float64()}:
        return pa.float64()
    return pa.string()
