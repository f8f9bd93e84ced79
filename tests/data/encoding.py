"""Comparison and construction shared by the tests of the encoder."""

import numpy as np
import pyarrow as pa

from attfm.config import DataConfig
from attfm.data.batch import Batch
from attfm.data.encoder import Encoder
from attfm.data.inference import infer_schema
from attfm.data.schema import Schema


def table(**columns: object) -> pa.Table:
    return pa.table(columns)


def infer(data: pa.Table, target: str | None = None, weight: str | None = None, **settings: object) -> Schema:
    return infer_schema(data.to_batches(), data.schema, target=target, weight=weight, config=DataConfig.parse(settings))


def fit(data: pa.Table, **settings: object) -> Encoder:
    return Encoder.fit(infer(data, **settings), data.to_batches())


def ids_of(encoder: Encoder, batch: Batch, field: int = 0) -> list[int]:
    """Return the ids of one field's entries, counted from the field's start."""
    return (batch.field(field).ids - encoder.fields[field].start).tolist()


def labels(encoder: Encoder, data: pa.Table | pa.RecordBatch, field: int = 0) -> list[str]:
    """Return what people call the features of one field, entry after entry."""
    names = encoder.feature_names(field)
    return [names[i] for i in ids_of(encoder, encoder.transform(data), field)]


def assert_same_rows(one: Batch, other: Batch) -> None:
    for name in ("ids", "values", "offsets"):
        first, second = getattr(one, name), getattr(other, name)
        assert (first is None) == (second is None), name
        if first is not None:
            assert first.dtype == second.dtype
            np.testing.assert_array_equal(first.numpy(), second.numpy(), err_msg=name)
