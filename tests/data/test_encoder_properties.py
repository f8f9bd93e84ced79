"""What holds for every table: properties of the encoder, tried on random ones."""

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from attfm.data.codecs.codec import FIRST_VALUE, MISSING, UNKNOWN
from attfm.data.encoder import Encoder
from attfm.data.texts import NULL_VALUES
from tests.data.encoding import assert_same_rows, ids_of, infer

# Spaces around a text are no part of it, and an empty one is missing.
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=5)
NUMBER = st.one_of(st.integers(-5, 5).map(float), st.floats(allow_infinity=False, allow_nan=False, width=32))
COLUMNS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "text": (pa.string(), TEXT),
    "words": (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["a", "b", "c"])),
    "flag": (pa.bool_(), st.booleans()),
    "integer": (pa.int64(), st.integers(-20, 20)),
    "quantile": (pa.float64(), NUMBER),
    "uniform": (pa.float64(), NUMBER),
    "scaled": (pa.float64(), st.integers(-1_000, 1_000).map(float)),
    "hashed": (pa.string(), TEXT),
    "list": (pa.list_(pa.string()), st.lists(st.sampled_from(["p", "q", "r", "s"]), max_size=3)),
    "map": (
        pa.map_(pa.string(), pa.float32()),
        st.lists(st.tuples(TEXT, st.floats(-4, 4, width=16)), max_size=2, unique_by=lambda pair: pair[0]),
    ),
    "bar": (pa.string(), st.lists(st.sampled_from(["p", "q", "r"]), min_size=1, max_size=3).map("|".join)),
    "when": (pa.timestamp("us"), st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1))),
}
SETTINGS: dict[str, Any] = {
    "integer": {"kind": "categorical"},
    "quantile": {"max_bins": 6},
    "uniform": {"bins": "uniform", "max_bins": 4},
    "scaled": {"bins": "scaled"},
    "hashed": {"hash_buckets": 3},
    "bar": {"kind": "multi-valued", "separator": "|"},
}


@st.composite
def tables(draw: st.DrawFn, names: tuple[str, ...] = tuple(COLUMNS), max_rows: int = 12) -> pa.Table:
    """Return a table whose columns have missing values, but none of them only such."""
    rows = draw(st.integers(1, max_rows))
    columns = {}
    for name in names:
        kind, values = COLUMNS[name]
        first = draw(values)
        others = draw(st.lists(st.one_of(st.none(), values), min_size=rows - 1, max_size=rows - 1))
        columns[name] = pa.array([first, *others], kind)
    return pa.table(columns)


def fitted(table: pa.Table) -> Encoder:
    schema = infer(table, columns={name: SETTINGS[name] for name in table.column_names if name in SETTINGS})
    return Encoder.fit(schema, table.to_batches())


@given(tables())
@settings(max_examples=25, deadline=None)
def test_training_rows_are_never_unknown_and_every_id_is_in_its_field(table: pa.Table) -> None:
    encoder = fitted(table)
    batch = encoder.transform(table)
    stop = 0
    for f, field in enumerate(encoder.fields):
        assert field.start == stop
        stop = field.stop
        assert len(encoder.feature_names(f)) == field.stop - field.start
        features = batch.field(f)
        assert ((features.ids > field.start + UNKNOWN) & (features.ids < field.stop)).all()
        if field.kind != "multi-valued":
            missing = table[field.column].is_null().to_numpy()
            assert ((features.ids == field.start + MISSING) == missing).all()
    assert stop == encoder.n_features


@given(tables(), tables())
@settings(max_examples=25, deadline=None)
def test_any_rows_stay_in_range_and_unseen_categories_are_unknown(table: pa.Table, other: pa.Table) -> None:
    encoder = fitted(table)
    batch = encoder.transform(other)
    for f, field in enumerate(encoder.fields):
        ids = batch.field(f).ids
        assert ((ids >= field.start) & (ids < field.stop)).all()
    for name in ("text", "words", "integer"):
        f = next(f for f, field in enumerate(encoder.fields) if field.column == name)
        names = encoder.feature_names(f)
        seen = set(table[name].to_pylist())
        for value, feature in zip(other[name].to_pylist(), ids_of(encoder, batch, f), strict=True):
            if value is None or (value in NULL_VALUES and value not in seen):
                assert feature == MISSING
            elif value in seen:
                assert feature >= FIRST_VALUE
                assert names[feature] == str(value)
            else:
                assert feature == UNKNOWN


@given(tables(), tables())
@settings(max_examples=25, deadline=None)
def test_a_saved_encoder_is_the_same_bit_for_bit(table: pa.Table, other: pa.Table) -> None:
    encoder = fitted(table)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, encoder.to_table().schema) as writer:
        writer.write_table(encoder.to_table())
    saved = pa.ipc.open_file(sink.getvalue()).read_all()
    again = Encoder.from_table(type(encoder.schema).from_json(encoder.schema.to_json()), saved)
    assert again.fields == encoder.fields
    assert_same_rows(again.transform(other), encoder.transform(other))
    assert again.to_table().equals(encoder.to_table(), check_metadata=True)
    for f in range(len(encoder.fields)):
        assert again.feature_names(f) == encoder.feature_names(f)
        np.testing.assert_array_equal(again.bin_edges(f), encoder.bin_edges(f))


@given(tables(), st.data())
@settings(max_examples=20, deadline=None)
def test_slices_chunks_and_the_order_of_columns_change_nothing(table: pa.Table, data: st.DataObject) -> None:
    encoder = fitted(table)
    whole = encoder.transform(table)
    start = data.draw(st.integers(0, len(table)))
    stop = data.draw(st.integers(start, len(table)))
    part = table.slice(start, stop - start)
    assert_same_rows(encoder.transform(part), whole.slice(start, stop))
    for batch in part.to_batches():
        assert_same_rows(encoder.transform(batch), whole.slice(start, stop))
    chunked = pa.Table.from_batches(table.to_batches(max_chunksize=2))
    shuffled = chunked.select(data.draw(st.permutations(table.column_names))).append_column(
        "extra", pa.nulls(len(table))
    )
    assert_same_rows(encoder.transform(shuffled), whole)
    assert Encoder.fit(encoder.schema, shuffled.to_batches()).to_table().equals(encoder.to_table())


@given(tables(("text", "flag")), st.data())
@settings(max_examples=30, deadline=None)
def test_the_order_of_training_rows_changes_nothing(table: pa.Table, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(table))))
    assert fitted(table.take(order)).to_table().equals(fitted(table).to_table())


@given(tables(("quantile", "uniform"), max_rows=40), NUMBER, NUMBER)
@settings(max_examples=60, deadline=None)
def test_greater_numbers_have_greater_ids(table: pa.Table, x: float, y: float) -> None:
    encoder = fitted(table)
    low, high = sorted([x, y])
    ids = encoder.transform(pa.table({"quantile": [low, high], "uniform": [low, high]})).ids
    assert (ids[0] <= ids[1]).all()
    sizes = [f.stop - f.start - FIRST_VALUE for f in encoder.fields]
    assert sizes[0] <= 6
    assert sizes[1] <= 4
    assert len(encoder.neighbours()) == sum(size - 1 for size in sizes)
