"""The schema: which columns a table has, what each is, and why."""

import re
from functools import lru_cache
from typing import Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from attfm.config import Reading
from attfm.data.texts import short_numbers
from attfm.errors import RunFolderError, SchemaError, absent

Kind = Literal["categorical", "numeric", "multi-valued", "datetime", "target", "weight", "ignored"]

INPUT_KINDS = frozenset({"categorical", "numeric", "multi-valued", "datetime"})


def damaged(what: str, *, part: str = "vocabulary") -> RunFolderError:
    """Return the error for a part of a saved model that is not what was written."""
    return RunFolderError(f"The {part} is damaged: {what}. Save the model again, or take another copy.")


class Column(BaseModel):
    """One column of a table: what it is, how it becomes features, and why it is of its kind.

    Attributes
    ----------
    name : str
    kind : str, of the input kinds, or "target", "weight" or "ignored"
    arrow_type : str
        The type in the table that the schema was inferred from: every later table is read as if it had this type.
    kept : tuple of str, usual markers of missing values, such as "NA", that were values of the training rows
    ordered : bool, whether the categories have an order, so that neighbours are pulled together
    prefix : str or None, what the names of a date's fields begin with, where it is not the column's name
    reason : str, why it is of its kind
    bins, max_bins, min_count, hash_buckets, separator
        Settings of its kind, see `attfm.data.codecs`; None where they do not apply or are not set.
    distinct : int or None, distinct values among at most the first 100,000 rows
    minimum, maximum : float or None, of a numeric column, over all rows
    missing : float, share of the rows without a value, 0 to 1
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Kind
    arrow_type: str
    reason: str
    kept: tuple[str, ...] = ()
    ordered: bool = False
    prefix: str | None = None
    bins: Literal["quantile", "uniform", "scaled"] | None = None
    max_bins: int | None = Field(None, ge=2, le=65_535)
    min_count: int | None = Field(None, ge=1)
    hash_buckets: int | None = Field(None, ge=1)
    separator: str | None = None
    distinct: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    missing: float = 0.0

    @property
    def stored_type(self) -> pa.DataType:
        """The Arrow type of its values in training, without dictionaries and the like; text where it is unknown."""
        return stored_type(self.arrow_type)

    @property
    def spread(self) -> str:
        """The range of a numeric column, the number of distinct values of another, or nothing."""
        if self.minimum is not None and self.maximum is not None:
            return " to ".join(short_numbers(np.array([self.minimum, self.maximum])))
        return "" if self.distinct is None else f"{self.distinct:,} distinct"


@lru_cache(maxsize=4096)
def stored_type(name: str) -> pa.DataType:
    """Return the Arrow type of a name that `str` of it gives, without dictionaries and the like; else large_string."""
    for wrapper in (
        r"dictionary<values=(.*), indices=\w+, ordered=\d>",
        r"run_end_encoded<run_ends: \w+, values: (.*)>",
    ):
        if found := re.fullmatch(wrapper, name):
            return stored_type(found[1])
    if found := re.fullmatch(r"timestamp\[(\w+), tz=(.+)\]", name):
        return pa.timestamp(found[1], found[2])
    if found := re.fullmatch(r"decimal\d+\((\d+), (-?\d+)\)", name):
        kind = pa.decimal128 if int(found[1]) <= 38 else pa.decimal256
        return kind(int(found[1]), int(found[2]))
    if found := re.fullmatch(r"(?:large_|fixed_size_)?list(?:_view)?<\w+: (.*?)(?: not null)?>(?:\[\d+\])?", name):
        return pa.list_(stored_type(found[1]))
    if found := re.fullmatch(r"map<([^,]+), ([^,]+).*>", name):
        return pa.map_(stored_type(found[1]), stored_type(found[2]))
    try:
        known = pa.type_for_alias(name)
    except ValueError:
        return pa.large_string()
    is_text = pa.types.is_string(known) or pa.types.is_binary(known) or pa.types.is_string_view(known)
    return pa.large_string() if is_text or pa.types.is_large_binary(known) else known


class Schema(BaseModel):
    """All columns of a table, in their order: inputs, target, weight and ignored ones.

    Attributes
    ----------
    columns : tuple of Column
    reading : Reading, how the text of its table was read, which holds for every later one

    Examples
    --------
    >>> from attfm.config import DataConfig
    >>> from attfm.data.inference import infer_schema
    >>> table = pa.table({"age": [17, 42, 42], "job": ["cook", "clerk", None], "income": [0, 1, 1]})
    >>> schema = infer_schema(table.to_batches(), table.schema, target="income", config=DataConfig())
    >>> [(column.name, column.kind) for column in schema.columns]
    [('age', 'numeric'), ('job', 'categorical'), ('income', 'target')]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Run folders of 0.1 call them fields.
    columns: tuple[Column, ...] = Field(validation_alias=AliasChoices("columns", "fields"))
    reading: Reading = Field(default_factory=Reading)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [column.name for column in self.columns]
        if len(set(names)) < len(names):
            raise ValueError("a column name occurs twice")
        for kind in ("target", "weight"):
            if sum(column.kind == kind for column in self.columns) > 1:
                raise ValueError(f"more than one column is the {kind}")
        for column in self.columns:
            if column.kind == "numeric" and (column.bins is None or column.max_bins is None):
                raise ValueError(f"column '{column.name}' is numeric and has no bins")
        return self

    @property
    def target(self) -> str | None:
        """Name of the target column, or None."""
        return self._named("target")

    @property
    def weight(self) -> str | None:
        """Name of the column of row weights, or None."""
        return self._named("weight")

    @property
    def inputs(self) -> tuple[Column, ...]:
        """The columns that are encoded, in table order."""
        return tuple(column for column in self.columns if column.kind in INPUT_KINDS)

    @property
    def stored_types(self) -> dict[str, pa.DataType]:
        """The types that the columns had in training, by name, without ignored ones."""
        return {column.name: column.stored_type for column in self.columns if column.kind != "ignored"}

    def _named(self, kind: Kind) -> str | None:
        return next((column.name for column in self.columns if column.kind == kind), None)

    def select(self, batch: pa.RecordBatch | pa.Table) -> dict[str, pa.Array | pa.ChunkedArray]:
        """Return the input columns of some rows by name.

        Raises
        ------
        SchemaError : columns are absent or doubled: the message names all of them
        """
        names = batch.schema.names
        inputs = [column.name for column in self.inputs]
        lacking = absent(inputs, names)
        if lacking:
            raise SchemaError(
                f"The table lacks {'column' if len(lacking) == 1 else 'columns'} {', '.join(lacking)}. "
                "Rename or add what is missing; empty cells are allowed."
            )
        if len(set(names)) < len(names):
            doubled = [f"'{name}'" for name in inputs if names.count(name) > 1]
            if doubled:
                raise SchemaError(f"Column {', '.join(doubled)} occurs more than once. Rename the columns.")
        places = {name: i for i, name in enumerate(names)}
        return {name: batch.column(places[name]) for name in inputs}

    def to_json(self) -> str:
        """Return the schema as JSON text."""
        return self.model_dump_json(indent=1, exclude_none=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the schema that `to_json` wrote; raise RunFolderError where it is something else."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the whole"
            raise damaged(f"{where}: {first['msg']}", part="schema") from None

    def rows(self) -> list[tuple[str, str, str, str, str, str]]:
        """Return a printed table's rows: name, kind, type, distinct values or range, missing share, reason."""
        return [
            (column.name, column.kind, column.arrow_type, column.spread, f"{100 * column.missing:.3g} %", column.reason)
            for column in self.columns
        ]
