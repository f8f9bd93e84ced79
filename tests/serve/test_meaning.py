"""A value has one feature, whatever brings it: the tables of tests/meaning by rows and columns of Python values."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from attfm.data.batch import Batch
from attfm.data.encoder import Encoder
from attfm.serve.column_facts import row_encoder
from attfm.serve.compiling import encoder_facts
from attfm.serve.rows import RowEncoder
from tests.data.encoding import assert_same_rows
from tests.meaning.routes import ROUTES
from tests.meaning.test_properties import tables
from tests.meaning.test_values import VALUES, column, encode, fit


def compiled(encoder: Encoder) -> RowEncoder:
    arrays: dict[str, Any] = {}
    return row_encoder(encoder_facts(encoder, arrays), arrays)


def batch_of(encoder: RowEncoder, rows: object) -> Batch:
    """Return rows as the compiled encoder has them, as a Batch."""
    found = encoder.encode(rows)
    offsets = None if found.offsets is None else found.offsets[:-1].reshape(-1, encoder.fields)
    parts = [None if part is None else torch.from_numpy(part) for part in (found.ids, found.values, offsets)]
    return Batch(*parts)  # type: ignore[arg-type]


@pytest.mark.parametrize("route", ["Arrow", "pandas objects", "CSV", "polars"])
@pytest.mark.parametrize("kind", VALUES)
def test_rows_have_the_features_of_every_route(kind: str, route: str, tmp_path: Any) -> None:
    if "list" in kind and route == "CSV":
        pytest.skip("a CSV has no lists")
    table, declared = column(kind)
    if route in ("pandas objects", "CSV") and kind == "float32 categories":
        pytest.skip("what a float32 was rounded to is another value to whom it never was one")
    data = ROUTES[route](table, tmp_path)
    encoder = fit(data, declared)
    expected, own = encode(encoder, table), compiled(encoder)
    assert_same_rows(batch_of(own, table.to_pylist()), expected)
    assert_same_rows(batch_of(own, table.to_pydict()), expected)
    if pa.types.is_timestamp(table.schema.field("v").type) and table.schema.field("v").type.unit == "ns":
        return  # NumPy's objects of nanoseconds are no cells of a table
    as_arrays = {name: table[name].to_pandas().to_numpy() for name in table.column_names}
    if not pa.types.is_temporal(table.schema.field("v").type):  # NumPy has neither zones nor times of day
        assert_same_rows(batch_of(own, as_arrays), expected)


@pytest.mark.parametrize("kind", VALUES)
def test_a_row_alone_means_what_it_means_among_others(kind: str) -> None:
    table, declared = column(kind)
    own, rows = compiled(fit(table, declared)), table.to_pylist()
    whole = own.encode(rows)
    alone = [own.encode(row) if "list" not in kind else own.encode([row]) for row in rows]
    np.testing.assert_array_equal(np.concatenate([one.ids.ravel() for one in alone]), whole.ids.ravel())


@given(drawn=tables())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_random_table_has_the_same_features(drawn: tuple[pa.Table, dict[str, Any]]) -> None:
    table, declared = drawn
    encoder = fit(table, declared)
    assert_same_rows(batch_of(compiled(encoder), table.to_pylist()), encode(encoder, table))


def test_a_comparison_notices_another_feature() -> None:
    table, declared = column("text")
    encoder = fit(table, declared)
    rows = table.to_pylist()
    with pytest.raises(AssertionError):
        assert_same_rows(batch_of(compiled(encoder), rows[1:] + rows[:1]), encode(encoder, table))
