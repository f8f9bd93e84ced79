"""Comparison and construction shared by the tests of the encoder."""

import numpy as np
import pyarrow as pa

from attfm.config import DataConfig
from attfm.data.batch import EncodedBatch
from attfm.data.encoder import Encoder
from attfm.data.schema import Schema


def infer(table: pa.Table, target: str | None = None, weight: str | None = None, **settings: object) -> Schema:
    return Schema.infer(
        table.to_batches(), table.schema, target=target, weight=weight, config=DataConfig.parse(settings)
    )


def fit(table: pa.Table, **settings: object) -> Encoder:
    return Encoder.fit(infer(table, **settings), table.to_batches())


def labels(encoder: Encoder, table: pa.Table | pa.RecordBatch, field: int = 0) -> list[str]:
    """Return what people call the feature of each row in one field."""
    names, start = encoder.feature_names(field), encoder.fields[field].start
    return [names[i - start] for i in encoder.transform(table).ids[:, field].tolist()]


def assert_same_rows(one: EncodedBatch, other: EncodedBatch) -> None:
    np.testing.assert_array_equal(one.ids, other.ids)
    assert (one.values is None) == (other.values is None)
    if one.values is not None:
        np.testing.assert_array_equal(one.values, other.values)
    assert one.bags.keys() == other.bags.keys()
    for f, bag in one.bags.items():
        np.testing.assert_array_equal(bag.ids, other.bags[f].ids)
        np.testing.assert_array_equal(bag.weights, other.bags[f].weights)
        np.testing.assert_array_equal(bag.offsets, other.bags[f].offsets)
