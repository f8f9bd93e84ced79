"""Rows of Python values scored: the one place where the service meets the model."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pyarrow import types

from attfm.data.batch import Batch
from attfm.data.sources.source import Source
from attfm.model.bundle import Model
from attfm.serve.tables import CompiledModel

Floats = NDArray[np.float64]


class RowScorer(Protocol):
    """Scores rows that are dictionaries of Python values.

    is_quick : whether some rows take so little time that the loop of events may wait for them
    """

    is_quick: bool

    def logits(self, rows: Sequence[Mapping[str, Any]]) -> tuple[Floats, Batch]:
        """Return float64 (rows, outputs) and the encoded rows; raise DataError where a value can't be read."""


class ModelScorer:
    """Scores by the model itself."""

    is_quick = False

    def __init__(self, model: Model) -> None:
        self.model = model

    def logits(self, rows: Sequence[Mapping[str, Any]]) -> tuple[Floats, Batch]:
        batch = encoded_rows(self.model, rows)
        return self.model.logits_of(batch), batch


class CompiledScorer:
    """Scores by the model's tables."""

    is_quick = True

    def __init__(self, compiled: CompiledModel) -> None:
        self.compiled = compiled

    def logits(self, rows: Sequence[Mapping[str, Any]]) -> tuple[Floats, Batch]:
        encoded = self.compiled.encode(list(rows), warn=False)  # a warning would show values; they are counted here
        values = None if encoded.values is None else torch.from_numpy(encoded.values)
        offsets = None
        if encoded.offsets is not None:
            offsets = torch.from_numpy(encoded.offsets[:-1].reshape(len(rows), -1))
        return self.compiled.logits_of(encoded), Batch(torch.from_numpy(encoded.ids), values, offsets)


def open_rows(model: Model, rows: Sequence[Mapping[str, Any]]) -> Source:
    """Return rows as a table with all columns of the schema."""
    columns = {}
    for column in model.schema.inputs:
        values: Any = [row.get(column.name) for row in rows]
        if column.kind == "multi-valued" and types.is_map(column.stored_type):
            pairs = [None if value is None else list(value.items()) for value in values]
            values = pa.array(pairs, pa.map_(pa.string(), pa.float64()))
        columns[column.name] = values
    return model.open(columns)


def encoded_rows(model: Model, rows: Sequence[Mapping[str, Any]]) -> Batch:
    """Return rows, encoded, without a warning of unknown values."""
    source, first, encoded = open_rows(model, rows), 0, list[Batch]()
    for columns in source.batches(model.input_names):
        encoded.append(model.encode_batch(columns, first, source.reading).batch)
        first += columns.num_rows
    return encoded[0] if len(encoded) == 1 else Batch.concatenate(encoded)
