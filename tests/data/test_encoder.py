import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from attfm.config import DataConfig
from attfm.data.encoder import Encoder
from attfm.data.inference import infer_schema
from attfm.data.schema import Schema
from attfm.data.sources.source import open_source
from attfm.errors import SchemaError
from tests.data.encoding import assert_same_rows, fit, ids_of, infer, labels, table


def test_each_field_owns_a_range_that_starts_with_unknown_and_missing() -> None:
    encoder = fit(table(job=["cook", "clerk", "cook"], age=[17, 42, 60]))
    assert [(f.name, f.column, f.kind, f.start, f.stop, f.ordered) for f in encoder.fields] == [
        ("job", "job", "categorical", 0, 4, False),
        ("age", "age", "numeric", 4, 9, True),
    ]
    assert encoder.n_features == 9
    assert encoder.feature_names(0) == ["unknown", "missing", "cook", "clerk"]
    assert encoder.feature_names(1) == ["unknown", "missing", "17", "42", "60"]
    batch = encoder.transform(table(age=[41, None], extra=[0, 0], job=["pilot", None]))
    assert batch.ids.tolist() == [[0, 7], [1, 5]]
    assert batch.ids.dtype == torch.int32
    assert batch.values is None
    assert batch.offsets is None


def test_target_weight_and_ignored_columns_are_not_encoded() -> None:
    data = table(x=["a", "b"], y=[0, 1], w=[1.0, 2.0], note=["p", "q"])
    schema = infer(data, target="y", weight="w", columns={"note": {"kind": "ignored"}})
    encoder = Encoder.fit(schema, data.to_batches())
    assert [f.name for f in encoder.fields] == ["x"]
    assert labels(encoder, table(x=["b"])) == ["b"]


def test_a_part_of_the_columns_gets_the_same_ids() -> None:
    data = table(job=["cook", "clerk"], likes=[["a"], ["b", "a"]], age=[17, 42], y=[0, 1])
    schema = infer(data, target="y", columns={"likes": {"kind": "multi-valued"}})
    encoder = Encoder.fit(schema, data.to_batches())
    part = encoder.part(["age", "job"])
    assert [field.name for field in part.fields] == ["job", "age"]
    assert part.n_features == encoder.n_features
    whole, some = encoder.transform(data), part.transform(data.select(["age", "job"]))
    assert [some.field(f).ids.tolist() for f in (0, 1)] == [whole.field(f).ids.tolist() for f in (0, 2)]
    with pytest.raises(SchemaError, match="lacks column 'age'"):
        part.transform(data.select(["job", "likes"]))


def test_neighbours_are_bins_of_one_field_and_never_unknown_or_missing() -> None:
    encoder = fit(table(s=["a", "b"], x=[1, 2], y=[1.0, 1.0]), columns={"x": {"max_bins": 2}})
    assert [(f.start, f.stop) for f in encoder.fields] == [(0, 4), (4, 8), (8, 11)]
    assert encoder.neighbours().tolist() == [6]
    assert fit(table(s=["a", "b"])).neighbours().tolist() == []


def test_a_column_without_training_values_knows_missing_only() -> None:
    data = table(s=["a", "b"], x=[1.0, 2.0], z=[1.0, 2.0], u=[1, 2], bag=[["a"], ["b"]])
    schema = infer(data, columns={"z": {"bins": "scaled"}, "u": {"bins": "uniform"}})
    empty = pa.table({f.name: pa.nulls(2, f.type) for f in data.schema})
    encoder = Encoder.fit(schema, empty.to_batches())
    assert [f.stop - f.start for f in encoder.fields] == [2, 2, 3, 2, 2]
    batch = encoder.transform(data)
    assert [ids_of(encoder, batch, f) for f in range(5)] == [[0, 0], [0, 0], [2, 2], [0, 0], [0, 0]]
    assert batch.field(2).values == pytest.approx([0, 0])
    missing = encoder.transform(pa.table({name: pa.nulls(1) for name in data.column_names}))
    assert [ids_of(encoder, missing, f) for f in range(5)] == [[1]] * 5
    assert_same_rows(Encoder.from_table(schema, encoder.to_table()).transform(data), batch)


FRAME = {
    "text": ["b", "a", None, "b"],
    "number": [1.5, None, 2.5, 9.0],
    "integer": [3, 1, 2, 3],
    "flag": [True, False, True, True],
    "when": [dt.datetime(2024, 3, 1, 5), None, dt.datetime(2023, 1, 9), dt.datetime(2022, 7, 2)],
    "bag": [["p", "q"], [], None, ["q"]],
}


def arrow_of(data: object) -> pa.Table:
    source = open_source(data)
    return pa.Table.from_batches(source.batches(), source.schema)


def assert_encoded_as_arrow(data: pa.Table) -> None:
    arrow, settings = pa.table(FRAME), {"columns": {"integer": {"kind": "categorical"}}}
    encoder = fit(arrow, **settings)
    assert_same_rows(encoder.transform(data), encoder.transform(arrow))
    schema = infer(data, **settings)
    assert [column.kind for column in schema.columns] == [column.kind for column in encoder.schema.columns]
    assert_same_rows(Encoder.fit(schema, data.to_batches()).transform(data), encoder.transform(arrow))


def test_all_frames_give_the_same_ids(frame: Callable[[Mapping[str, Any]], Any]) -> None:
    assert_encoded_as_arrow(arrow_of(frame(FRAME)))


def test_categories_of_frames_give_the_same_ids() -> None:
    assert_encoded_as_arrow(arrow_of(pd.DataFrame(FRAME).astype({"text": "category", "integer": "category"})))
    assert_encoded_as_arrow(arrow_of(pl.DataFrame(FRAME).with_columns(pl.col("text").cast(pl.Categorical))))


def test_the_cut_into_batches_changes_no_ids() -> None:
    assert_encoded_as_arrow(pa.Table.from_batches(pa.table(FRAME).to_batches(max_chunksize=1)))


def test_no_rows_encode_to_no_rows() -> None:
    arrow = pa.table(FRAME)
    encoder = fit(arrow)
    for empty in (arrow.slice(0, 0), arrow.schema.empty_table(), arrow.to_batches()[0].slice(0, 0)):
        batch = encoder.transform(empty)
        assert (len(batch), batch.fields, batch.ids.tolist()) == (0, len(encoder.fields), [])


def test_schema_from_json_gives_the_same_ids() -> None:
    arrow = pa.table(FRAME)
    schema = infer_schema(arrow.to_batches(), arrow.schema, target=None, config=DataConfig())
    again = Schema.from_json(schema.to_json())
    assert again == schema
    assert_same_rows(
        Encoder.fit(again, arrow.to_batches()).transform(arrow),
        Encoder.fit(schema, arrow.to_batches()).transform(arrow),
    )
