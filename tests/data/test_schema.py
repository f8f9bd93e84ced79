import datetime as dt
import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from attfm.config import DataConfig
from attfm.data import codecs, inference
from attfm.data.inference import infer_schema
from attfm.data.schema import INPUT_KINDS, Column, Schema
from attfm.data.sources.source import open_source
from attfm.errors import ConfigError, DataWarning, RunFolderError, SchemaError, TargetError
from tests.data.encoding import infer

DAY = dt.datetime(2024, 1, 1)
KINDS = {
    "string": (pa.array(["a", "b", None]), "categorical", "string, 2 distinct values"),
    "large string": (pa.array(["a", "a"], pa.large_string()), "categorical", "string, 1 distinct value, constant"),
    "string view": (pa.array(["a", "b"], pa.string_view()), "categorical", "string, 2 distinct values"),
    "dictionary": (pa.array([1, 2]).dictionary_encode(), "categorical", "dictionary, 2 distinct values"),
    "boolean": (pa.array([True, False]), "categorical", "boolean"),
    "integer": (pa.array([0, 1, 1]), "numeric", "integer, 2 distinct values"),
    "constant": (pa.array([5, 5, None]), "numeric", "integer, 1 distinct value, constant"),
    "float": (pa.array([0.5, 1.5]), "numeric", "float"),
    "half float": (pa.array(np.array([1, 2], np.float16)), "numeric", "float"),
    "constant float": (pa.array([0.5, float("nan"), None]), "numeric", "float, constant"),
    "decimal": (pa.array([Decimal("0.5"), Decimal("1.5")]), "numeric", "decimal"),
    "duration": (pa.array([1, 2], pa.duration("s")), "numeric", "duration in seconds"),
    "time": (pa.array([1, 2], pa.time64("us")), "numeric", "time of day in seconds"),
    "timestamp": (pa.array([DAY, None]), "datetime", "timestamp, constant"),
    "date": (pa.array([DAY.date(), dt.date(2023, 1, 1)]), "datetime", "date"),
    "list": (pa.array([["a"], ["b", "a"], None]), "multi-valued", "list, 2 distinct values"),
    "list view": (pa.array([[1], [2]], pa.list_view(pa.int64())), "multi-valued", "list, 2 distinct values"),
    "map": (pa.array([[("a", 1.0)]], pa.map_(pa.string(), pa.float32())), "multi-valued", "map from members to"),
    "bytes": (pa.array([b"a", b"b"]), "categorical", "string, 2 distinct values"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_is_read_off_the_type_and_the_reason_is_told(name: str) -> None:
    column, kind, reason = KINDS[name]
    field = infer(pa.table({"x": column})).columns[0]
    assert (field.name, field.kind, field.arrow_type) == ("x", kind, str(column.type))
    assert field.reason.startswith(reason)
    assert (", constant" in field.reason) == (", constant" in reason)


def test_defaults_come_from_the_settings_and_columns_may_differ() -> None:
    data = pa.table({"x": [1.0, 2.0], "y": [1, 2], "s": ["a", "b"], "t": ["a", "b"]})
    columns = {"y": {"bins": "scaled", "max_bins": 9}, "t": {"min_count": 3, "hash_buckets": 8}}
    fields = infer(data, numeric="uniform", max_bins=10, min_count=2, columns=columns).columns
    assert [(f.bins, f.max_bins, f.min_count, f.hash_buckets) for f in fields] == [
        ("uniform", 10, None, None),
        ("scaled", 9, None, None),
        (None, None, 2, None),
        (None, None, 3, 8),
    ]


def test_kinds_can_be_declared() -> None:
    data = pa.table({"zip": [1, 2], "note": ["a", "b"], "bad": pa.nulls(2), "odd": [{"a": 1}] * 2, "x": [1, 2]})
    columns = {
        "zip": {"kind": "categorical", "min_count": 5},
        "note": {"kind": "multi-valued", "separator": " "},
        "bad": {"kind": "ignored"},
        "odd": {"kind": "ignored"},
    }
    schema = infer(data, target="x", columns=columns)
    assert [f.kind for f in schema.columns] == ["categorical", "multi-valued", "ignored", "ignored", "target"]
    assert schema.columns[0].reason == "declared (integer, 2 distinct values)"
    assert [f.name for f in schema.inputs] == ["zip", "note"]


def test_target_and_weight_are_known() -> None:
    data = pa.table({"x": [1, 2], "y": [0, 1], "w": [1.0, 2.0]})
    schema = infer(data, target="y", weight="w")
    assert (schema.target, schema.weight) == ("y", "w")
    assert [f.name for f in schema.inputs] == ["x"]
    assert (infer(data).target, infer(data).weight) == (None, None)


def test_missing_values_and_ranges_are_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "SAMPLE_ROWS", 3)
    data = pa.table({"x": [5.0, None, float("nan"), 9.0, -1.0], "s": ["a", "a", "b", "c", None]})
    for rows in (1, 2, 5):
        schema = infer_schema(data.to_batches(max_chunksize=rows), data.schema, target=None, config=DataConfig())
        x, s = schema.columns
        assert (x.minimum, x.maximum, x.missing, x.distinct) == (-1, 9, 0.4, 1)
        assert (s.distinct, s.missing) == (2, 0.2)
        assert (x.reason, s.reason) == ("float", "string, 2 distinct values in the first 3 rows")
    same = pa.table({"n": [1] * 4, "m": [1, 1, 1, 2], "s": ["a"] * 4})
    assert [f.reason for f in infer(same).columns] == [
        "integer, 1 distinct value in the first 3 rows, constant",
        "integer, 1 distinct value in the first 3 rows",
        "string, 1 distinct value in the first 3 rows",
    ]


def test_values_of_a_dictionary_that_do_not_occur_are_not_counted() -> None:
    column = pa.DictionaryArray.from_arrays([2, 2, None], ["a", "b", "c"])
    assert infer(pa.table({"x": column})).columns[0].reason == "dictionary, 1 distinct value, constant"


def test_a_column_of_nearly_distinct_strings_looks_like_an_id() -> None:
    many = pa.table({"id": [f"u{i}" for i in range(2_000)], "group": [f"g{i % 1_800}" for i in range(2_000)]})
    reasons = [f.reason for f in infer(many).columns]
    assert reasons == ["string, 2,000 distinct values, looks like an id", "string, 1,800 distinct values"]
    assert infer(many).columns[0].kind == "categorical"
    assert "id" not in infer(many.slice(0, 900)).columns[0].reason


@pytest.mark.parametrize("name", ["user_id", "id", "ID", "item.Id", "userId", "user ids", "orderID"])
def test_whole_numbers_that_repeat_under_the_name_of_an_id_are_told(name: str) -> None:
    table = pa.table({name: [7 * (i % 300) for i in range(900)]})
    told = f"Column '{re.escape(name)}' of the table has the name of an id, and 300 whole numbers"
    with pytest.warns(DataWarning, match=told):
        assert infer(table).columns[0].kind == "numeric"
    gaps = pa.array([None if i == 5 else float(i % 300) for i in range(900)])  # whole numbers of pandas with a gap
    with pytest.warns(DataWarning, match=told):
        infer(pa.table({name: gaps}))
    for kind in ("numeric", "categorical", "ignored"):  # who declares it knows; warnings are errors here
        both = table.append_column("x", pa.array(["a", "b"] * 450))
        infer(both, columns={name: {"kind": kind}})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("bid", [i % 300 for i in range(900)]),
        ("humid", [i % 300 for i in range(900)]),
        ("ideal", [i % 300 for i in range(900)]),
        ("user_id", [i % 300 / 2 for i in range(900)]),  # no whole numbers
        ("user_id", [i % 20 for i in range(900)]),  # each has a bin of its own
        ("user_id", [i % 500 for i in range(900)]),  # they hardly repeat
        ("user_id", [f"u{i % 300}" for i in range(900)]),  # categorical anyway
    ],
)
def test_other_columns_are_not_taken_for_ids(name: str, values: list[object]) -> None:
    infer(pa.table({name: values}))  # warnings are errors here


def test_rows_are_a_printed_table() -> None:
    data = pa.table({"age": [17, 1_484_705, None], "s": ["a", "b", None], "m": [["a"], ["b"], []], "y": [0, 1, 1]})
    assert infer(data, target="y").rows() == [
        ("age", "numeric", "int64", "17 to 1484705", "33.3 %", "integer, 2 distinct values"),
        ("s", "categorical", "string", "2 distinct", "33.3 %", "string, 2 distinct values"),
        ("m", "multi-valued", "list<item: string>", "2 distinct", "0 %", "list, 2 distinct values"),
        ("y", "target", "int64", "0 to 1", "0 %", "declared"),
    ]


def test_all_frames_give_the_same_kinds(frame: Callable[[Mapping[str, Any]], Any]) -> None:
    columns = {"s": ["a", "b", None], "x": [1.5, None, 2.0], "i": [1, 2, 3], "b": [True, False, True], "d": [DAY] * 3}
    source = open_source(frame(columns))
    schema = infer_schema(source.batches(), source.schema, target=None, config=DataConfig())
    assert [f.kind for f in schema.columns] == ["categorical", "numeric", "numeric", "categorical", "datetime"]
    assert [f.distinct for f in schema.columns] == [2, 2, 3, 2, 1]
    assert [round(f.missing, 3) for f in schema.columns] == [0.333, 0.333, 0, 0, 0]


def test_columns_without_values_are_ignored_and_all_named() -> None:
    data = pa.table({"x": pa.nulls(2), "y": [1, 2], "z": pa.array([None, None], pa.float64()), "n": [float("nan")] * 2})
    with pytest.warns(DataWarning, match=r"Column '.' has no values in t\.csv: it is ignored") as told:
        schema = infer_schema(data.to_batches(), data.schema, target=None, config=DataConfig(), source="t.csv")
    assert [str(warning.message)[8] for warning in told] == ["x", "z", "n"]
    assert [column.kind for column in schema.columns] == ["ignored", "numeric", "ignored", "ignored"]
    with pytest.warns(DataWarning), pytest.raises(SchemaError, match="No column of the table is left to predict from"):
        infer(data.select(["x", "n"]))
    with pytest.raises(TargetError, match="target column 'x' has no values"):
        infer(data.select(["x", "y"]), target="x")


def test_doubled_names_are_all_named() -> None:
    data = pa.table([pa.array([1])] * 5, names=["a", "b", "a", "b", "c"])
    with pytest.raises(SchemaError, match="Column name 'a', 'b' occurs more than once in the table"):
        infer(data)


def test_an_absent_target_or_weight_suggests_the_nearest_name() -> None:
    data = pa.table({"Income": [1, 2], "weights": [1, 2]})
    with pytest.raises(
        TargetError, match=r"no target column 'income' in the table \(did you mean 'Income'\?\).*'weights'"
    ):
        infer(data, target="income")
    with pytest.raises(SchemaError, match=r"no weight column 'weight' in the table \(did you mean 'weights'\?\)"):
        infer(data, target="Income", weight="weight")
    with pytest.raises(SchemaError, match="'Income' can't be both the target and the weight"):
        infer(data, target="Income", weight="Income")


def test_types_that_can_not_be_encoded_are_all_named() -> None:
    data = pa.table({"a": [{"p": 1}], "b": [[[1]]], "c": [1], "d": [[{"p": 1}]]})
    with pytest.raises(SchemaError, match=r"'a' is of type struct<p: int64>, which.*'b' is.*'d' is.*mark it ignored"):
        infer(data)
    with pytest.raises(SchemaError, match="'a' is of type struct"):
        infer(data.select(["a", "c"]), columns={"a": {"kind": "categorical"}})


def test_a_table_without_rows_or_inputs_is_an_error() -> None:
    data = pa.table({"x": [1, 2], "y": [0, 1]})
    with pytest.raises(SchemaError, match="no rows in the table"):
        infer(data.slice(0, 0))
    with pytest.raises(SchemaError, match="No column of the table is left to predict from"):
        infer(data, target="y", columns={"x": {"kind": "ignored"}})


BAD_SETTINGS = [
    ({"zp": {"kind": "categorical"}}, r"no column 'zp' in the table, but the settings.*did you mean 'zip'\?"),
    ({"zip": {"kind": "categorial"}}, r"'kind' of column 'zip' is 'categorial'.*did you mean 'categorical'\?"),
    ({"zip": {"kind": ["numeric"]}}, r"'kind' of column 'zip' is \['numeric'\]"),
    ({"zip": {"kind": "target"}}, r"'kind' of column 'zip' is 'target'; it must be one of categorical, numeric"),
    ({"zip": {"knd": "numeric"}}, r"Unknown setting 'knd' in the settings of column 'zip': did you mean 'kind'\?"),
    ({"zip": {"bins": "quantiles"}}, r"'bins' of column 'zip' is 'quantiles'.*did you mean 'quantile'\?"),
    ({"zip": {"max_bins": 1}}, "'max_bins' of column 'zip' is 1; it must be an integer from 2 to 65,535"),
    ({"zip": {"max_bins": 70_000}}, "'max_bins' of column 'zip' is 70000; it must be an integer from 2 to 65,535"),
    ({"zip": {"max_bins": True}}, "'max_bins' of column 'zip' is True"),
    ({"job": {"min_count": "5"}}, "'min_count' of column 'job' is '5'"),
    ({"job": {"hash_buckets": 0}}, "'hash_buckets' of column 'job' is 0; it must be an integer from 1 to"),
    ({"job": {"kind": "multi-valued", "separator": ""}}, "'separator' of column 'job' is ''"),
    ({"job": {"kind": "multi-valued"}}, "'job' is declared multi-valued and holds strings: give the separator"),
    ({"zip": {"min_count": 3}}, "'min_count' does not apply to column 'zip', which is numeric"),
    ({"job": {"bins": "scaled"}}, "'bins' does not apply to column 'job', which is categorical"),
    ({"y": {"kind": "categorical"}}, "'y' is the target: it can't have settings"),
    ({"zp": {}, "zip": {"max_bins": 0}}, "no column 'zp'.*'max_bins' of column 'zip'"),
]


@pytest.mark.parametrize(("columns", "message"), BAD_SETTINGS)
def test_bad_settings_of_a_column_are_named(columns: dict[str, object], message: str) -> None:
    data = pa.table({"zip": [1, 2], "job": ["a", "b"], "y": [0, 1]})
    with pytest.raises(ConfigError, match=message):
        infer(data, target="y", columns=columns)


def test_json_gives_the_schema_back() -> None:
    data = pa.table({"x": [1.0, 0.1 + 0.2], "s": ["a", "b"], "tags": ["a|b", "c"], "y": [0, 1]})
    schema = infer(data, target="y", columns={"tags": {"kind": "multi-valued", "separator": "|"}})
    assert json.loads(schema.to_json()).keys() == {"columns", "reading"}
    assert Schema.from_json(schema.to_json()) == schema
    old = schema.to_json().replace('"columns"', '"fields"')  # as run folders of 0.1 have it
    assert Schema.from_json(old) == schema


def test_each_kind_of_input_has_a_codec() -> None:
    assert codecs.KINDS.keys() == INPUT_KINDS


NUMERIC = '{"name": "x", "kind": "numeric", "arrow_type": "int64", "reason": "", "bins": "quantile", "max_bins": 9}'
DAMAGED = [
    ("", "The schema is damaged"),
    ("{}", "damaged: columns: Field required"),
    ('{"columns": [{"name": "x"}]}', r"columns\.0\.kind: Field required"),
    ('{"columns": [' + NUMERIC.replace("numeric", "odd") + "]}", r"columns\.0\.kind"),
    ('{"columns": [' + NUMERIC.replace("max_bins", "most") + "]}", r"columns\.0\.most"),
    ('{"columns": [' + NUMERIC.replace("9", "1") + "]}", r"columns\.0\.max_bins"),
    ('{"columns": [' + NUMERIC.replace(', "max_bins": 9', "") + "]}", "column 'x' is numeric and has no bins"),
    ('{"columns": [' + NUMERIC + ", " + NUMERIC + "]}", "a column name occurs twice"),
    (
        '{"columns": [' + ", ".join(NUMERIC.replace('"x"', f'"{n}"').replace("numeric", "target") for n in "ab") + "]}",
        "more than one column is the target",
    ),
]


@pytest.mark.parametrize(("text", "message"), DAMAGED)
def test_a_damaged_schema_is_noticed(text: str, message: str) -> None:
    with pytest.raises(RunFolderError, match=message):
        Schema.from_json(text)


def test_a_column_can_not_be_changed() -> None:
    column = Column(name="x", kind="ignored", arrow_type="int64", reason="declared")
    with pytest.raises(ValueError, match="frozen"):
        column.kind = "numeric"  # type: ignore[misc]  # what the test is about
