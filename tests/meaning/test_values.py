"""A value has one feature id, whatever brings it: each stored type by each route, fitted and asked."""

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from attfm.config import DataConfig
from attfm.data.batch import Batch
from attfm.data.codecs.codec import MISSING, UNKNOWN
from attfm.data.encoder import Encoder
from attfm.data.inference import infer_schema
from attfm.data.sources.source import open_source
from tests.data.encoding import assert_same_rows
from tests.meaning.routes import ROUTES

DAYS = [dt.date(2024, 3, 1), dt.date(2024, 7, 14), dt.date(1969, 12, 31), dt.date(2024, 3, 2)]
TIMES = [dt.datetime(2024, 3, 1), dt.datetime(2024, 7, 14, 23, 30), dt.datetime(1969, 12, 31, 1, 2, 3, 250_000)]
CATEGORICAL = {"kind": "categorical"}
# Of each stored type: its values, and the settings of the column.
VALUES: dict[str, tuple[pa.Array, dict[str, Any]]] = {
    "text": (pa.array(["b", "a", "NA", "a b", "Ä"]), {}),
    "codes": (pa.array(["0001", "0002", "10", "0001"]), {}),
    "codes and words": (pa.array(["0001", "12", "A-17"]), {}),
    "versions": (pa.array(["1.0", "1.10", "2.4.1", "1"]), {}),
    "truths as text": (pa.array(["True", "False", "maybe"]), {}),
    "days as text": (pa.array(["2024-03-01", "2024-03-02", "unknown"]), {}),
    "bool": (pa.array([True, False, True]), {}),
    "int8": (pa.array([3, -7, 0], pa.int8()), {}),
    "int64": (pa.array([3, -7, 12_345_678, 0]), {}),
    "int64 categories": (pa.array([3, -7, 12_345_678, 0]), CATEGORICAL),
    "uint64 categories": (pa.array([3, 2**53], pa.uint64()), CATEGORICAL),
    "float32": (pa.array([0.1, -2.5, 3.0, 1e-8], pa.float32()), {}),
    "float32 categories": (pa.array([0.1, -2.5, 3.0], pa.float32()), CATEGORICAL),
    "float64": (pa.array([0.1, -2.5, 3.0, 1e-8, 0.1 + 0.2]), {}),
    "float64 categories": (pa.array([0.1, -2.5, 3.0, 1e-8, 1e22]), CATEGORICAL),
    "decimal": (pa.array([Decimal("1.10"), Decimal("-2.00"), Decimal("0.07")], pa.decimal128(9, 2)), {}),
    "decimal categories": (pa.array([Decimal("1.10"), Decimal("-2.00")], pa.decimal128(9, 2)), CATEGORICAL),
    "date": (pa.array(DAYS), {}),
    "date categories": (pa.array(DAYS), CATEGORICAL),
    "timestamp": (pa.array(TIMES, pa.timestamp("us")), {}),
    "timestamp categories": (pa.array(TIMES, pa.timestamp("us")), CATEGORICAL),
    "timestamp in Tokyo": (pa.array(TIMES, pa.timestamp("us", "Asia/Tokyo")), {}),
    "timestamp in Berlin": (pa.array(TIMES, pa.timestamp("ns", "Europe/Berlin")), {}),
    "duration": (pa.array([dt.timedelta(days=1, seconds=1.5), dt.timedelta(seconds=-90)], pa.duration("us")), {}),
    "time": (pa.array([dt.time(12, 30), dt.time(0, 0, 1)], pa.time64("us")), {}),
    "dictionary": (pa.array(["b", "a", "c"]).dictionary_encode(), {}),
    "list of text": (pa.array([["a", "b"], ["b"], []]), {}),
    "list of integers": (pa.array([[1, 2], [2]]), {}),
}
# Each is asked by all others, and all others are asked by each.
THOROUGH = ("Arrow", "pandas objects", "CSV")
# What a library or format does not have, or writes as something else.
ABSENT = {
    # Python's floats are float64: what a float32 of a file was rounded to is another value there.
    *(
        (route, "float32 categories")
        for route in ("pandas objects", "dict of columns", "list of dicts", "list of rows")
    ),
    *((route, kind) for kind in ("list of text", "list of integers") for route in ROUTES if "CSV" in route),
    *((route, kind) for kind in ("list of text", "list of integers") for route in ("pandas nullable",)),
    ("CSV of polars", "duration"),
}


def column(kind: str) -> tuple[pa.Table, dict[str, Any]]:
    """Return a table of the values, each some times, with gaps, beside a number; and the settings of its column."""
    values, settings = VALUES[kind]
    places = [i % len(values) for i in range(3 * len(values))]
    gaps = pa.array([None if i % 5 == 3 else place for i, place in enumerate(places)])
    table = pa.table({"v": values.take(gaps), "n": range(len(places))})
    return table, {"v": settings} if settings else {}


def fit(data: object, settings: dict[str, Any]) -> Encoder:
    source = open_source(data)
    config = DataConfig.parse({"columns": settings})
    schema = infer_schema(source.batches(), source.schema, target=None, config=config, source=source)
    return Encoder.fit(schema, source.batches())


def encode(encoder: Encoder, data: object) -> Batch:
    source = open_source(data, encoder.schema.reading, stored=encoder.schema.stored_types)
    return Batch.concatenate([encoder.transform(batch, reading=source.reading) for batch in source.batches()])


def routes_of(kind: str) -> list[str]:
    return [route for route in ROUTES if (route, kind) not in ABSENT]


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_has_one_feature_by_every_route(kind: str, tmp_path: Path) -> None:
    table, settings = column(kind)
    brought = {route: ROUTES[route](table, tmp_path) for route in routes_of(kind)}
    for fitted, training in brought.items():
        encoder = fit(training, settings)
        expected = encode(encoder, training)
        for f, field in enumerate(encoder.fields):
            ids = expected.field(f).ids - field.start
            assert (ids != UNKNOWN).all(), (kind, fitted, field.name)
            assert (ids != MISSING).any(), (kind, fitted, field.name)
        for asked, data in brought.items():
            if fitted not in THOROUGH and asked not in THOROUGH:  # what others say of each other follows
                continue
            try:
                assert_same_rows(encode(encoder, data), expected)
            except AssertionError as error:
                raise AssertionError(f"{kind}: fitted on {fitted}, asked by {asked}: {error}") from error


@pytest.mark.parametrize("kind", VALUES)
def test_a_single_row_means_what_it_meant(kind: str) -> None:
    table, settings = column(kind)
    encoder = fit(table, settings)
    whole = encode(encoder, table)
    for row in range(len(VALUES[kind][0])):
        (one,) = table.slice(row, 1).to_pylist()
        if "list" not in kind:  # which would be a dict of columns
            assert_same_rows(encode(encoder, one), whole.slice(row, row + 1))
        assert_same_rows(encode(encoder, [one]), whole.slice(row, row + 1))


@pytest.mark.parametrize(
    ("training", "asked"),
    [
        (pa.array([True, False]), pa.array([1, 0])),
        (pa.array([True, False]), pa.array([1.0, 0.0])),
        (pa.array([True, False]), pa.array([1, 0]).dictionary_encode()),
        (pa.array([True, False]), pa.array(["True", "FALSE"])),
        (pa.array([True, False]), pa.array(["1", "0.0"]).dictionary_encode()),
        (pa.array([1, 0]), pa.array([True, False])),
        (pa.array([1, 0]), pa.array(["True", "False"])),
        (pa.array([3, 7]), pa.array([3.0, 7.0])),
        (pa.array([3, 7]), pa.array([Decimal("3.00"), Decimal("7.00")])),
        (pa.array(["True", "False", "maybe"]), pa.array([True, False, None])),
        (pa.array(["1.50", "2"]), pa.array([1.5, 2.0])),
        (pa.array(["00501", "A-17", "10001"]), pa.array([501, None, 10001])),  # as pandas reads the file
        (pa.array(["2024-03-01 00:00:00", "x"]), pa.array([dt.date(2024, 3, 1), None])),
        (pa.array(["2024-03-01T09:30", "x"]), pa.array([dt.datetime(2024, 3, 1, 9, 30), None])),
        (pa.array([dt.date(2024, 3, 1), None]), pa.array([dt.datetime(2024, 3, 1), None])),
        (pa.array([[True], [False, True]]), pa.array([["True"], ["0", "1"]])),
        (pa.array([[1, 2], [3]]), pa.array([["1", "2.0"], [" 3 "]])),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["usual", "categorical"])
def test_another_type_brings_the_same_value(training: pa.Array, asked: pa.Array, kind: str) -> None:
    is_list = pa.types.is_list(training.type)
    encoder = fit(pa.table({"v": training}), {} if kind == "usual" or is_list else {"v": CATEGORICAL})
    known = encode(encoder, pa.table({"v": training})).ids
    found = encode(encoder, pa.table({"v": asked})).ids
    there = torch.from_numpy(asked.is_valid().to_numpy(zero_copy_only=False))
    there = torch.ones(len(known), dtype=torch.bool) if is_list else there
    np.testing.assert_array_equal(found[there], known[there])


@pytest.mark.parametrize("fitted", ["frame", "libsvm"])
def test_ids_of_libsvm_are_those_of_a_frame(fitted: str, tmp_path: Path) -> None:
    ids = [(str(k % 3), f"1{k % 4}") for k in range(12)]
    fields = pa.table({"f0": [first for first, _ in ids], "f1": [second for _, second in ids]})
    (tmp_path / "fields.libsvm").write_text("".join(f"{k % 2} {a}:1 {b}:1\n" for k, (a, b) in enumerate(ids)))
    weighted = [[(a, 1.0), (b, k / 2)] for k, (a, b) in enumerate(ids)]
    bags = pa.table({"features": pa.array(weighted, pa.map_(pa.string(), pa.float32()))})
    (tmp_path / "bags.libsvm").write_text("".join(f"{k % 2} {a}:1 {b}:{k / 2}\n" for k, (a, b) in enumerate(ids)))
    for table, file in ((fields, str(tmp_path / "fields.libsvm")), (bags, str(tmp_path / "bags.libsvm"))):
        encoder = fit(table, {}) if fitted == "frame" else fit(file, {"label": {"kind": "ignored"}})
        expected = encode(encoder, table)
        assert all((expected.field(f).ids - field.start > UNKNOWN).all() for f, field in enumerate(encoder.fields))
        assert_same_rows(encode(encoder, file), expected)
    numbers = pa.table({name: fields[name].cast(pa.int64()) for name in fields.column_names})
    encoder = fit(fields, {})
    assert_same_rows(encode(encoder, numbers), encode(encoder, fields))


def test_a_comparison_notices_another_feature() -> None:
    table, settings = column("text")
    encoder = fit(table, settings)
    other = table.set_column(0, "v", pa.array(np.roll(table["v"].to_numpy(zero_copy_only=False), 1)))
    with pytest.raises(AssertionError):
        assert_same_rows(encode(encoder, table), encode(encoder, other))
