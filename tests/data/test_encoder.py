import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from attfm.config import DataConfig
from attfm.data.encoder import Encoder
from attfm.data.schema import Schema
from tests.data.encoding import assert_same_rows, fit, infer, labels

CATEGORICAL = {"columns": {"x": {"kind": "categorical"}}}


def table(**columns: object) -> pa.Table:
    return pa.table(columns)


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
    assert batch.ids.dtype == np.int32
    assert batch.values is None
    assert batch.bags == {}


def test_target_weight_and_ignored_columns_are_not_encoded() -> None:
    data = table(x=["a", "b"], y=[0, 1], w=[1.0, 2.0], note=["p", "q"])
    schema = infer(data, target="y", weight="w", columns={"note": {"kind": "ignored"}})
    encoder = Encoder.fit(schema, data.to_batches())
    assert [f.name for f in encoder.fields] == ["x"]
    assert labels(encoder, table(x=["b"])) == ["b"]


def test_categories_rarer_than_min_count_are_unknown() -> None:
    encoder = fit(table(x=["a", "b", "a", "c", "b", "a"]), min_count=2)
    assert encoder.feature_names(0) == ["unknown", "missing", "a", "b"]
    assert labels(encoder, table(x=["c", "b", "z", None])) == ["unknown", "b", "unknown", "missing"]


SAME = {
    "int64": pa.array([3, 7, None]),
    "int8": pa.array([3, 7, None], pa.int8()),
    "uint64": pa.array([3, 7, None], pa.uint64()),
    "float64": pa.array([3.0, 7.0, None]),
    "float with NaN": pa.array([3.0, 7.0, float("nan")]),
    "float32": pa.array([3.0, 7.0, None], pa.float32()),
    "float16": pa.array(np.array([3, 7, np.nan], np.float16)),
    "decimal": pa.array([3, 7, None], pa.decimal128(9, 2)),
    "decimal of integers": pa.array([3, 7, None], pa.decimal128(9, 0)),
    "string": pa.array(["3", "7", None]),
    "large string": pa.array(["3", "7", None], pa.large_string()),
    "string view": pa.array(["3", "7", None], pa.string_view()),
    "binary": pa.array([b"3", b"7", None]),
    "dictionary": pa.array(["3", "7", None]).dictionary_encode(),
    "dictionary of integers": pa.array([3, 7, None]).dictionary_encode(),
    "unsigned dictionary": pa.array(["3", "7", None]).dictionary_encode().cast(pa.dictionary(pa.uint8(), pa.string())),
    "null in the dictionary": pa.DictionaryArray.from_arrays([0, 1, 2], pa.array(["3", "7", None])),
    "run ends": pa.RunEndEncodedArray.from_arrays([1, 2, 3], pa.array([3, 7, None])),
}


@pytest.mark.parametrize("seen", SAME)
@pytest.mark.parametrize("asked", SAME)
def test_3_and_its_other_spellings_are_one_category(seen: str, asked: str) -> None:
    encoder = fit(table(x=SAME[seen]), **CATEGORICAL)
    assert encoder.feature_names(0) == ["unknown", "missing", "3", "7"]
    assert labels(encoder, table(x=SAME[asked])) == ["3", "7", "missing"]


def test_floats_are_categories_by_their_shortest_digits() -> None:
    values = [0.1, 1e-7, 1e22, 2.5, -0.0, 2.0**53, -(2.0**63), 1e300, float("inf")]
    encoder = fit(table(x=pa.array(values)), **CATEGORICAL)
    expected = ["0.1", "1e-07", "1e+22", "2.5", "0", "9007199254740992", repr(-(2.0**63)), "1e+300", "inf"]
    assert sorted(encoder.feature_names(0)[2:]) == sorted(expected)
    assert labels(encoder, table(x=pa.array([0.1, 2.5], pa.float32()))) == ["0.1", "2.5"]


def test_booleans_are_the_categories_true_and_false() -> None:
    encoder = fit(table(x=[True, False, None, True]))
    assert encoder.feature_names(0) == ["unknown", "missing", "true", "false"]
    assert labels(encoder, table(x=["false", "no", None])) == ["false", "unknown", "missing"]


def test_a_dictionary_with_values_that_do_not_occur_learns_only_those_that_do() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([2, 0, 2]), pa.array(["a", "never", "c"]))
    assert fit(table(x=column)).feature_names(0) == ["unknown", "missing", "c", "a"]


def test_hashed_categories_need_no_vocabulary() -> None:
    encoder = fit(table(x=["a", None, "b"]), columns={"x": {"hash_buckets": 5}})
    assert encoder.n_features == 7
    assert encoder.feature_names(0)[:3] == ["unknown", "missing", "bucket 0"]
    first, missing, other, again = encoder.transform(table(x=["a", None, "unseen", "a"])).ids[:, 0].tolist()
    assert missing == 1
    assert first == again
    assert {first, other} <= set(range(2, 7))
    assert encoder.transform(table(x=[3, 3.0])).ids.tolist() == encoder.transform(table(x=["3", "3"])).ids.tolist()


def test_numeric_columns_take_every_spelling_of_numbers() -> None:
    encoder = fit(table(x=[1, 2, 3, 4]))
    for column in (
        pa.array([2, None, 4], pa.int16()),
        pa.array([2.0, float("nan"), 4.0]),
        pa.array(["2", "", " 4 "]),
        pa.array(["2.0", None, "4e0"], pa.string_view()),
        pa.array(["2", None, "4"]).dictionary_encode(),
        pa.array([2, None, 4]).dictionary_encode(),
        pa.array([2, None, 4], pa.decimal128(5, 1)),
    ):
        assert labels(encoder, table(x=column)) == ["2", "missing", "4"], column.type


def test_durations_are_seconds_in_whatever_unit() -> None:
    encoder = fit(table(x=pa.array([1_000, 2_000, 3_000], pa.duration("ms"))))
    assert labels(encoder, table(x=pa.array([2_000_000, None], pa.duration("us")))) == ["2", "missing"]
    assert labels(fit(table(x=pa.array([5, 9], pa.time32("s")))), table(x=pa.array([9], pa.time32("s")))) == ["9"]


def test_uniform_bins_and_their_edges() -> None:
    encoder = fit(table(x=[0.0, 10.0]), numeric="uniform", max_bins=5)
    edges = encoder.bin_edges(0)
    assert edges is not None
    np.testing.assert_allclose(edges, [0, 2, 4, 6, 8, 10])
    assert labels(encoder, table(x=[-5.0, 3.0, 99.0])) == ["< 2", "[2, 4)", ">= 8"]


def test_quantile_edges_run_from_the_smallest_to_the_greatest_value() -> None:
    encoder = fit(table(x=[1.5, 2.0, 4.0], s=["a", "b", "c"]))
    edges = encoder.bin_edges(0)
    assert edges is not None
    assert edges.tolist() == [1.5, 1.75, 3.0, 4.0]
    assert encoder.bin_edges(1) is None


def test_neighbours_are_bins_of_one_field_and_never_unknown_or_missing() -> None:
    encoder = fit(
        table(
            s=["a", "b"],
            x=[
                1,
                2,
            ],
            y=[1.0, 1.0],
        ),
        columns={"x": {"max_bins": 2}},
    )
    assert [(f.start, f.stop) for f in encoder.fields] == [(0, 4), (4, 8), (8, 11)]
    assert encoder.neighbours().tolist() == [6]
    assert fit(table(s=["a", "b"])).neighbours().tolist() == []


def test_scaled_columns_are_one_feature_with_a_value() -> None:
    encoder = fit(table(x=[10.0, 20.0, None], s=["a", "b", "c"]), numeric="scaled")
    assert encoder.fields[0].kind == "scaled"
    assert not encoder.fields[0].ordered
    assert encoder.feature_names(0) == ["unknown", "missing", "value"]
    batch = encoder.transform(table(x=[10.0, 12.5, 30.0, None], s=["a"] * 4))
    assert batch.ids[:, 0].tolist() == [2, 2, 2, 1]
    assert batch.values is not None
    assert batch.values.tolist() == [[0, 1], [0.25, 1], [2, 1], [1, 1]]
    assert batch.values.dtype == np.float32


def test_a_constant_scaled_column_has_the_value_0() -> None:
    batch = fit(table(x=[3, 3]), numeric="scaled").transform(table(x=[3, 8, None]))
    assert batch.values is not None
    assert batch.values[:, 0].tolist() == [0, 0, 1]


def test_lists_become_bags() -> None:
    data = table(s=["p", "q", "p", "p", "q"], x=[["a", "b"], [], None, ["a", None], ["c", "a"]])
    encoder = fit(data)
    assert encoder.fields[1].kind == "multi-valued"
    assert encoder.feature_names(1) == ["unknown", "missing", "a", "b", "c"]
    batch = encoder.transform(table(s=["p"] * 6, x=[["b", "a"], [], None, [None], ["z", "a", "z"], ["a", "a"]]))
    assert batch.ids[:, 1].tolist() == [4] * 6
    assert batch.values is not None
    assert batch.values.tolist() == [[1, 0]] * 6
    bag = batch.bags[1]
    assert bag.offsets.tolist() == [0, 2, 3, 4, 5, 8, 10]
    assert (bag.ids - 4).tolist() == [3, 2, 1, 1, 1, 0, 2, 0, 2, 2]
    assert bag.weights.tolist() == [1] * 10
    assert (bag.ids.dtype, bag.weights.dtype, bag.offsets.dtype) == (np.int32, np.float32, np.int64)


def test_maps_become_bags_with_weights() -> None:
    kind = pa.map_(pa.string(), pa.float32())
    column = pa.array([[("zero", 9.0)], [("a", 0.5), ("b", -2.0)], None, [], [("z", 3.0), ("a", None)]], kind)
    encoder = fit(table(x=column.slice(1, 2)))
    bag = encoder.transform(table(x=column.slice(1))).bags[0]
    assert bag.ids.tolist() == [2, 3, 1, 1, 0, 2]
    assert bag.weights.tolist() == [0.5, -2, 1, 1, 3, 1]
    assert bag.offsets.tolist() == [0, 2, 3, 4, 6]


def test_strings_with_a_separator_become_bags() -> None:
    settings = {"x": {"kind": "multi-valued", "separator": "|"}}
    encoder = fit(table(x=["a|b", "b", None, ""]), columns=settings)
    assert encoder.feature_names(0) == ["unknown", "missing", "b", "a"]
    column = pa.array(["b|a", None, "", "|a| z |", "b|a"])
    for spelling in (column, column.dictionary_encode(), column.cast(pa.string_view())):
        bag = encoder.transform(table(x=spelling)).bags[0]
        assert bag.ids.tolist() == [2, 3, 1, 1, 3, 0, 2, 3]
        assert bag.offsets.tolist() == [0, 2, 3, 4, 6, 8]
    assert encoder.transform(table(x=[["b"], ["a"]])).bags[0].ids.tolist() == [2, 3]


def test_members_of_any_list_type_are_categories() -> None:
    encoder = fit(table(x=[[3, 4], [4]]))
    for kind in (
        pa.large_list(pa.float64()),
        pa.list_(pa.string()),
        pa.list_view(pa.int8()),
        pa.list_(pa.dictionary(pa.int8(), pa.string())),
    ):
        text = kind.value_type if not pa.types.is_dictionary(kind.value_type) else pa.string()
        values = [["3"], ["4", "3"]] if pa.types.is_string(text) else [[3], [4, 3]]
        assert encoder.transform(table(x=pa.array(values, kind))).bags[0].ids.tolist() == [3, 2, 3], kind
    fixed = pa.array([[3, 4], [4, 5]], pa.list_(pa.int64(), 2))
    assert encoder.transform(table(x=fixed)).bags[0].ids.tolist() == [3, 2, 2, 0]


def test_members_can_be_hashed_and_rare_ones_unknown() -> None:
    hashed = fit(table(x=[["a"], ["b"]]), columns={"x": {"hash_buckets": 4}})
    assert set(hashed.transform(table(x=[["a", "z"], None])).bags[0].ids[:2].tolist()) <= {2, 3, 4, 5}
    rare = fit(table(x=[["a", "b"], ["b"]]), min_count=2)
    assert rare.feature_names(0) == ["unknown", "missing", "b"]


MOMENTS = [dt.datetime(2024, 3, 1, 23, 30), dt.datetime(1969, 12, 31, 0, 0), None]  # a Friday and a Wednesday


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_dates_become_hour_weekday_and_month(unit: str) -> None:
    encoder = fit(table(when=pa.array(MOMENTS, pa.timestamp(unit))))
    assert [(f.name, f.column, f.stop - f.start, f.ordered) for f in encoder.fields] == [
        ("when.hour", "when", 26, False),
        ("when.weekday", "when", 9, False),
        ("when.month", "when", 14, False),
    ]
    data = table(when=pa.array(MOMENTS, pa.timestamp(unit)))
    assert labels(encoder, data, 0) == ["23", "0", "missing"]
    assert labels(encoder, data, 1) == ["Friday", "Wednesday", "missing"]
    assert labels(encoder, data, 2) == ["March", "December", "missing"]


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64(), pa.timestamp("us")])
def test_dates_without_a_time_have_no_hour(kind: pa.DataType) -> None:
    data = table(when=pa.array([dt.date(2024, 3, 1), None]).cast(kind))
    encoder = fit(data)
    assert [f.name for f in encoder.fields] == ["when.weekday", "when.month"]
    assert labels(encoder, data) == ["Friday", "missing"]


def test_an_hour_is_that_of_the_time_zone() -> None:
    utc = pa.array([dt.datetime(2024, 6, 30, 23, 0)], pa.timestamp("us", "UTC"))
    data = table(when=utc.cast(pa.timestamp("us", "Europe/Berlin")))
    encoder = fit(data)
    assert [labels(encoder, data, f) for f in range(3)] == [["1"], ["Monday"], ["July"]]
    assert labels(encoder, table(when=utc), 0) == ["23"]


def test_iso_strings_are_dates() -> None:
    encoder = fit(table(when=["2024-03-01T23:30:00"]), columns={"when": {"kind": "datetime"}})
    texts = [
        "2024-03-01",
        "2024-02-29 07:05",
        "2024-03-01T23:30:59.123456789Z",
        "2024-03-01T01:00:00+02:00",
        " 1969-12-31T08 ",
        "",
        None,
    ]
    for column in (pa.array(texts), pa.array(texts).dictionary_encode()):
        assert labels(encoder, table(when=column), 0) == ["0", "7", "23", "1", "8", "missing", "missing"]
    assert labels(encoder, table(when=texts), 1)[:5] == ["Friday", "Thursday", "Friday", "Friday", "Wednesday"]
    assert labels(encoder, table(when=texts), 2)[:5] == ["March", "February", "March", "March", "December"]


def test_a_column_without_training_values_knows_missing_only() -> None:
    data = table(s=["a", "b"], x=[1.0, 2.0], z=[1.0, 2.0], u=[1, 2], bag=[["a"], ["b"]])
    schema = infer(data, columns={"z": {"bins": "scaled"}, "u": {"bins": "uniform"}})
    empty = pa.table({f.name: pa.nulls(2, f.type) for f in data.schema})
    encoder = Encoder.fit(schema, empty.to_batches())
    assert [f.stop - f.start for f in encoder.fields] == [2, 2, 3, 2, 2]
    batch = encoder.transform(data)
    assert (batch.ids - [f.start for f in encoder.fields]).tolist() == [[0, 0, 2, 0, 0]] * 2
    assert batch.values is not None
    assert batch.values[:, 2].tolist() == [0, 0]
    assert batch.bags[4].ids.tolist() == [encoder.fields[4].start] * 2
    missing = encoder.transform(pa.table({name: pa.nulls(1) for name in data.column_names}))
    assert (missing.ids - [f.start for f in encoder.fields]).tolist() == [[1, 1, 1, 1, 0]]
    assert missing.bags[4].ids.tolist() == [encoder.fields[4].start + 1]
    assert_same_rows(Encoder.from_table(schema, encoder.to_table()).transform(data), batch)


FRAME = {
    "text": ["b", "a", None, "b"],
    "number": [1.5, None, 2.5, 9.0],
    "integer": [3, 1, 2, 3],
    "flag": [True, False, True, True],
    "when": [dt.datetime(2024, 3, 1, 5), None, dt.datetime(2023, 1, 9), dt.datetime(2022, 7, 2)],
    "bag": [["p", "q"], [], None, ["q"]],
}


@pytest.mark.parametrize("kind", ["pandas", "pandas categorical", "polars", "polars categorical", "batches"])
def test_pandas_polars_and_pyarrow_give_the_same_ids(kind: str) -> None:
    arrow = pa.table(FRAME)
    encoder = fit(arrow, columns={"integer": {"kind": "categorical"}})
    if kind.startswith("pandas"):
        frame = pd.DataFrame(FRAME)
        if kind.endswith("categorical"):
            frame = frame.astype({"text": "category", "integer": "category"})
        data = pa.Table.from_pandas(frame)
    elif kind.startswith("polars"):
        polars = pl.DataFrame(FRAME)
        if kind.endswith("categorical"):
            polars = polars.with_columns(pl.col("text").cast(pl.Categorical))
        data = pa.table(polars)
    else:
        data = pa.Table.from_batches(arrow.to_batches(max_chunksize=1))
    assert_same_rows(encoder.transform(data), encoder.transform(arrow))
    schema = infer(data, columns={"integer": {"kind": "categorical"}})
    assert [f.kind for f in schema.fields] == [f.kind for f in encoder.schema.fields]
    assert_same_rows(Encoder.fit(schema, data.to_batches()).transform(data), encoder.transform(arrow))


def test_no_rows_encode_to_no_rows() -> None:
    arrow = pa.table(FRAME)
    encoder = fit(arrow)
    for empty in (arrow.slice(0, 0), arrow.schema.empty_table(), arrow.to_batches()[0].slice(0, 0)):
        batch = encoder.transform(empty)
        assert batch.ids.shape == (0, len(encoder.fields))
        assert batch.bags[len(encoder.fields) - 1].offsets.tolist() == [0]


def test_beyond_the_sample_the_bins_depend_on_the_seed_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attfm.data.learning.SAMPLE_SIZE", 200)
    data = table(x=np.random.default_rng(0).normal(size=5_000))
    schema = infer(data, max_bins=50)

    def edges(seed: int, rows: int) -> list[float]:
        found = Encoder.fit(schema, data.to_batches(max_chunksize=rows), seed=seed).bin_edges(0)
        assert found is not None
        return list(found)

    assert edges(0, 5_000) == edges(0, 17)
    assert edges(0, 17) != edges(1, 17)
    assert edges(1, 17)[0] == data["x"].to_numpy().min()
    assert len(edges(1, 17)) == 51


def test_uniform_10_bins_of_adult_like_columns() -> None:
    """Education years 1 to 16 and hours 1 to 99 in ten bins, where 4, 10 and 50 lie on edges, as scikit-learn cuts."""
    years, hours = np.arange(1, 17), np.arange(1, 100)
    encoder = Encoder.fit(
        infer(table(years=years, hours=hours[:16]), numeric="uniform", max_bins=10),
        [pa.RecordBatch.from_pydict({"years": np.resize(years, 99), "hours": hours})],
    )
    batch = encoder.transform(table(years=years, hours=np.resize([1, 10, 11, 50, 51, 99], 16)))
    assert (batch.ids[:, 0] - 2).tolist() == [0, 0, 1, 2, 2, 3, 4, 4, 5, 5, 6, 7, 8, 8, 9, 9]
    assert (batch.ids[:6, 1] - encoder.fields[1].start - 2).tolist() == [0, 0, 1, 5, 5, 9]


def test_schema_from_json_gives_the_same_ids() -> None:
    arrow = pa.table(FRAME)
    schema = Schema.infer(arrow.to_batches(), arrow.schema, target=None, config=DataConfig())
    again = Schema.from_json(schema.to_json())
    assert again == schema
    assert_same_rows(
        Encoder.fit(again, arrow.to_batches()).transform(arrow),
        Encoder.fit(schema, arrow.to_batches()).transform(arrow),
    )
