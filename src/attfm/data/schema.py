"""The schema: which columns a table has, what each is, and why."""

from collections.abc import Iterable
from typing import Self

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from attfm.config import DataConfig
from attfm.data.codecs.numeric import short_numbers
from attfm.data.field import Field, Kind
from attfm.data.inference import infer_fields
from attfm.errors import RunFolderError, SchemaError, nearest

__all__ = ["Field", "Kind", "Schema"]

INPUT_KINDS = frozenset({"categorical", "numeric", "multi-valued", "datetime"})


class Schema(BaseModel):
    """All columns of a table, in their order: inputs, target, weight and ignored ones.

    >>> table = pa.table({"age": [17, 42, 42], "job": ["cook", "clerk", None], "income": [0, 1, 1]})
    >>> schema = Schema.infer(table.to_batches(), table.schema, target="income", config=DataConfig())
    >>> [(field.name, field.kind) for field in schema.fields]
    [('age', 'numeric'), ('job', 'categorical'), ('income', 'target')]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fields: tuple[Field, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [field.name for field in self.fields]
        if len(set(names)) < len(names):
            raise ValueError("a column name occurs twice")
        for kind in ("target", "weight"):
            if sum(field.kind == kind for field in self.fields) > 1:
                raise ValueError(f"more than one column is the {kind}")
        for field in self.fields:
            if field.kind == "numeric" and (field.bins is None or field.max_bins is None):
                raise ValueError(f"column '{field.name}' is numeric and has no bins")
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
    def inputs(self) -> tuple[Field, ...]:
        """The columns that are encoded, in table order."""
        return tuple(field for field in self.fields if field.kind in INPUT_KINDS)

    def _named(self, kind: Kind) -> str | None:
        return next((field.name for field in self.fields if field.kind == kind), None)

    @classmethod
    def infer(
        cls,
        batches: Iterable[pa.RecordBatch],
        arrow_schema: pa.Schema,
        *,
        target: str | None,
        weight: str | None = None,
        config: DataConfig,
        source: str = "the table",
    ) -> Self:
        """Return the schema of a table, from the types of its columns, its values and the settings.

        One pass over all rows for missing values and ranges; distinct values are counted on the first 100,000.

        Parameters
        ----------
        batches : the rows, each batch with the columns of `arrow_schema`
        target, weight : names of these two columns, or None
        config : defaults for all columns, and settings of single ones
        source : what messages call the table

        Raises
        ------
        SchemaError : no rows or inputs; a column is doubled, has no values, or is of a type that can't be encoded;
            the weight column is absent
        TargetError : the target column is absent
        ConfigError : a setting is for a column that does not exist, or does not fit its column
        """
        return cls(
            fields=infer_fields(batches, arrow_schema, target=target, weight=weight, config=config, source=source)
        )

    def select(self, batch: pa.RecordBatch | pa.Table) -> dict[str, pa.Array | pa.ChunkedArray]:
        """Return the input columns of some rows by name; raise SchemaError naming all that are absent or doubled."""
        names = batch.schema.names
        inputs = [field.name for field in self.inputs]
        absent = [f"'{name}'{nearest(name, names)}" for name in inputs if name not in names]
        if absent:
            raise SchemaError(
                f"The table lacks {'column' if len(absent) == 1 else 'columns'} {', '.join(absent)}. "
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
            raise RunFolderError(
                f"The schema is damaged: {where}: {first['msg']}. Save the model again, or take another copy."
            ) from None

    def rows(self) -> list[tuple[str, str, str, str, str, str]]:
        """Return a printed table's rows: name, kind, type, distinct values or range, missing share, reason."""
        return [(f.name, f.kind, f.arrow_type, _spread(f), f"{100 * f.missing:.3g} %", f.reason) for f in self.fields]


def _spread(field: Field) -> str:
    if field.minimum is not None and field.maximum is not None:
        return " to ".join(short_numbers(np.array([field.minimum, field.maximum])))
    return "" if field.distinct is None else f"{field.distinct:,} distinct"
