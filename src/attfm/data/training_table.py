"""The table that a model is trained on, surveyed and labelled in one pass."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attfm.config import DataConfig
from attfm.data.arrow_columns import read_column
from attfm.data.inference import infer_schema
from attfm.data.schema import Schema
from attfm.data.sources.source import Source
from attfm.errors import DataError


class TrainingTable(NamedTuple):
    """What one pass over a table gives: its schema, its target column as it is, and the weights of its rows, if any."""

    schema: Schema
    labels: pa.ChunkedArray
    weights: NDArray[np.float64] | None


def read_training_table(source: Source, *, target: str, weight: str | None = None, config: DataConfig) -> TrainingTable:
    """Return the schema, the labels and the weights of a table, read once.

    Raises what `infer_schema` raises, and DataError where a weight is no number, missing, negative or infinite.
    """
    gathered: dict[str, list[pa.Array]] = {name: [] for name in (target, weight) if name is not None}

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in source.batches():
            for name, parts in gathered.items():
                part = batch.column(name)
                parts.append(pa.concat_arrays([part, part[:0]]))  # a copy: a slice could keep the whole batch
            yield batch

    schema = infer_schema(batches(), source.schema, target=target, weight=weight, config=config, source=source.name)
    weights = None if weight is None else _weights(pa.chunked_array(gathered[weight]), weight)
    return TrainingTable(schema, pa.chunked_array(gathered[target]), weights)


def _weights(column: pa.ChunkedArray, name: str) -> NDArray[np.float64]:
    weights = read_column(column, name=name)
    wrong = np.flatnonzero(~(weights >= 0))
    if len(wrong):
        first = "missing" if np.isnan(weights[wrong[0]]) else f"{weights[wrong[0]]:g}"
        raise DataError(
            f"Weight column '{name}': {len(wrong):,} of {len(weights):,} weights are missing or negative "
            f"(first: {first}, row {wrong[0]:,}). Give a number of at least 0 in every row."
        )
    return weights


def column_of(source: Source, name: str) -> pa.ChunkedArray:
    """Return all values of one column."""
    batches = list(source.batches([name]))
    return pa.chunked_array([batch.column(0) for batch in batches], type=None if batches else pa.null())


def weights_of(source: Source, name: str | None) -> NDArray[np.float64] | None:
    """Return the weights of the rows, None without such a column; raise DataError where some can't be weights."""
    return None if name is None else _weights(column_of(source, name), name)
