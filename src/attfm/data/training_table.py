"""The table that a model is trained on, surveyed and labelled in one pass."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attfm.config import DataConfig
from attfm.data.arrow_columns import read_numbers
from attfm.data.bad_values import BadValues
from attfm.data.inference import infer_schema
from attfm.data.schema import Schema
from attfm.data.sources.source import Source
from attfm.errors import DataError


class TrainingTable(NamedTuple):
    """What one pass over a table gives.

    Attributes
    ----------
    schema : Schema, what each column is
    labels : pyarrow.ChunkedArray (rows,), the target column, as it is in the table
    weights : float64 (rows,) or None, the weight of each row; None without such a column
    """

    schema: Schema
    labels: pa.ChunkedArray
    weights: NDArray[np.float64] | None


def read_training_table(source: Source, *, target: str, weight: str | None = None, config: DataConfig) -> TrainingTable:
    """Return the schema, the labels and the weights of a table, read once.

    Parameters
    ----------
    source : Source, the rows
    target : str, name of the column to predict
    weight : str or None, name of the column of row weights
    config : DataConfig, defaults for all columns, and settings of single ones

    Raises
    ------
    SchemaError, TargetError, ConfigError : see `attfm.data.inference.infer_schema`
    DataError : a weight is no number, missing, negative or infinite
    """
    labels: list[pa.Array] = []
    weights = None if weight is None else WeightColumn(weight)

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in source.batches():
            label = batch.column(target)
            labels.append(pa.concat_arrays([label, label[:0]]))  # a copy: a slice could keep the whole batch
            if weights is not None:
                weights.add(batch.column(weights.name))
            yield batch

    schema = infer_schema(batches(), source.schema, target=target, weight=weight, config=config, source=source.name)
    return TrainingTable(schema, pa.chunked_array(labels), None if weights is None else weights.values())


class WeightColumn:
    """Gathers the weights of rows, chunk after chunk.

    Parameters
    ----------
    name : str, of the column
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._parts = [np.empty(0)]
        self._rows = 0
        self._bad = BadValues()

    def add(self, chunk: pa.Array) -> None:
        """Take in the next rows."""
        self._parts.append(read_numbers(chunk, column=self.name, row=self._rows, bad=self._bad))
        self._rows += len(chunk)

    def values(self) -> NDArray[np.float64]:
        """Return all weights, float64 (rows,).

        Raises
        ------
        DataError : a weight is no number, missing, negative or infinite
        """
        self._bad.raise_if_any(self._rows)
        weights = np.concatenate(self._parts)
        wrong = np.flatnonzero(~(weights >= 0))
        if len(wrong):
            first = "missing" if np.isnan(weights[wrong[0]]) else f"{weights[wrong[0]]:g}"
            raise DataError(
                f"Weight column '{self.name}': {len(wrong):,} of {self._rows:,} weights are missing or negative "
                f"(first: {first}, row {wrong[0]:,}). Give a number of at least 0 in every row."
            )
        return weights


def column_of(source: Source, name: str) -> pa.ChunkedArray:
    """Return all values of one column."""
    batches = list(source.batches([name]))
    return pa.chunked_array([batch.column(0) for batch in batches], type=None if batches else pa.null())


def weights_of(source: Source, name: str | None) -> NDArray[np.float64] | None:
    """Return the weights of the rows, or None without such a column.

    Parameters
    ----------
    source : Source, the rows
    name : str or None, of the column

    Returns
    -------
    weights : float64 (rows,) or None

    Raises
    ------
    SchemaError : the column is absent
    DataError : a weight is no number, missing, negative or infinite
    """
    if name is None:
        return None
    weights = WeightColumn(name)
    for batch in source.batches([name]):
        weights.add(batch.column(0))
    return weights.values()
