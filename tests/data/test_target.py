import datetime as dt
import json
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfm.data.target import Target, infer_task
from attfm.errors import RunFolderError, TargetError

TASKS = [
    (pa.array(["a", "b"]), "binary"),
    (pa.array(["a", "b", "c"]), "multiclass"),
    (pa.array([f"c{i}" for i in range(50)]), "multiclass"),
    (pa.array(["a", "b", "a"]).dictionary_encode(), "binary"),
    (pa.array(list(range(30))).dictionary_encode(), "multiclass"),
    (pa.array([True, False]), "binary"),
    (pa.array([0, 1, 1]), "binary"),
    (pa.array([-1, 1], pa.int8()), "binary"),
    (pa.array([0.0, 1.0]), "binary"),
    (pa.array([0.25, 0.75, 0.25]), "binary"),
    (pa.array(list(range(20))), "multiclass"),
    (pa.array(list(range(21))), "regression"),
    (pa.array([0.0, 1.0, 2.0]), "regression"),
    (pa.array([1, 2, 3], pa.decimal128(9, 2)), "regression"),
    (pa.chunked_array([["a"], ["b"], ["c"]]), "multiclass"),
    (pa.array([0, 1, None]), "binary"),
]


@pytest.mark.parametrize(("column", "task"), TASKS)
def test_the_task_is_read_off_the_type_and_the_distinct_values(column: Any, task: str) -> None:
    assert infer_task(column) == task
    if column.null_count == 0:
        assert Target.fit(column, task="auto", name="y").task == task


LABELS = [
    np.array(["b", "a", "é", "B", "a"]),
    np.array([3, -1, 10, 3]),
    np.array([2.5, 1.5, 2.5]),
    np.array([True, False, True]),
    np.array([0, 255, 7], np.uint8),
    np.array([0.1, 0.7], np.float32),
]


@pytest.mark.parametrize("labels", LABELS, ids=lambda labels: str(labels.dtype))
def test_classes_are_sorted_as_numpy_does_and_coded_in_that_order(labels: np.ndarray) -> None:
    target = Target.fit(pa.array(labels), task="multiclass", name="y")
    expected, codes = np.unique(labels, return_inverse=True)
    assert target.classes is not None
    np.testing.assert_array_equal(np.array(target.classes, labels.dtype), expected)
    found = target.encode(pa.array(labels))
    assert found.dtype == np.int64
    assert found.tolist() == codes.tolist()


@given(st.lists(st.one_of(st.integers(-(2**40), 2**40)), min_size=2, unique=True))
def test_decoding_gives_the_labels_back(labels: list[int]) -> None:
    target = Target.fit(pa.array(labels), task="multiclass", name="y")
    assert target.classes is not None
    assert [target.classes[code] for code in target.encode(pa.array(labels))] == labels


def test_classes_have_the_type_of_the_column() -> None:
    kinds = {
        str: pa.array(["0", "1"]),
        int: pa.array([0, 1], pa.int8()),
        float: pa.array([0.0, 1.0]),
        bool: pa.array([False, True]),
    }
    for kind, column in kinds.items():
        classes = Target.fit(column, task="auto", name="y").classes
        assert classes is not None
        assert [type(label) for label in classes] == [kind, kind]
        coded = Target.fit(column.dictionary_encode(), task="auto", name="y").classes
        assert coded == classes


def test_1_and_its_other_spellings_are_one_class() -> None:
    target = Target.fit(pa.array([0, 1]), task="auto", name="y")
    for column in (pa.array([1.0, 0.0]), pa.array(["1", "0"]), pa.array([1, 0]).dictionary_encode()):
        assert target.encode(column).tolist() == [1, 0]
    for frame in (pd.DataFrame({"y": [1, 0]}), pl.DataFrame({"y": [1, 0]})):
        assert target.encode(pa.table(frame)["y"]).tolist() == [1, 0]


def test_regression_values_are_float64() -> None:
    column = pa.chunked_array([pa.array([1, 2]), pa.array([40])])
    target = Target.fit(column, task="regression", name="y")
    assert target.classes is None
    assert target.encode(column).tolist() == [1, 2, 40]
    assert target.encode(column).dtype == np.float64
    assert target.encode(pa.array(["1.5", "2"])).tolist() == [1.5, 2]


@pytest.mark.parametrize(
    ("task", "value", "shown"),
    [
        ("auto", "0", "0"),
        ("auto", 0, "0"),
        ("auto", 0.5, "0.5"),
        ("auto", True, "True"),
        ("multiclass", 3, "3"),
        ("regression", "0", "0"),
        ("regression", 1234567, "1234567"),
        ("regression", 0.5, "0.5"),
    ],
)
def test_a_constant_target_is_an_error(task: Any, value: object, shown: str) -> None:
    with pytest.raises(TargetError, match=rf"Target 'y' has one value only: '{shown}' in all 3 rows.*another target"):
        Target.fit(pa.array([value] * 3), task=task, name="y")


@pytest.mark.parametrize("column", [pa.array([1, None, 2, None]), pa.array([1.0, float("nan"), 2.0, None])])
def test_missing_values_are_counted_and_the_first_row_told(column: pa.Array) -> None:
    message = r"Target 'y' is missing in 2 of 4 rows \(first: row 1\)\. Drop those rows"
    with pytest.raises(TargetError, match=message):
        Target.fit(column, task="auto", name="y")
    for task in ("binary", "regression"):
        target = Target.fit(pa.array([1.0, 2.0]), task=task, name="y")  # type: ignore[arg-type]  # both are tasks
        with pytest.raises(TargetError, match=message):
            target.encode(pa.chunked_array([column.slice(0, 1), column.slice(1)]))


def test_labels_not_seen_in_training_are_counted_and_the_first_shown() -> None:
    target = Target.fit(pa.array(["no", "yes"]), task="auto", name="y")
    message = r"Target 'y': 2 of 4 labels were not seen in training \(first: 'maybe', row 1\). Its classes are 'no', 'y"
    with pytest.raises(TargetError, match=message):
        target.encode(pa.array(["no", "maybe", "yes", "No"]))
    many = Target.fit(pa.array([f"c{i:02}" for i in range(12)]), task="auto", name="y")
    with pytest.raises(TargetError, match=r"classes are 'c00', .*'c09' and 2 more\."):
        many.encode(pa.array(["c"]))


def test_a_regression_needs_finite_numbers() -> None:
    with pytest.raises(TargetError, match=r"regression.*Column 'y': 1 of 3 values is not a number \(first: 'x', row 2"):
        Target.fit(pa.array(["1", "2", "x"]), task="regression", name="y")
    with pytest.raises(TargetError, match=r"regression.*Column 'y': 1 of 2 values is infinite \(first: inf, row 1"):
        Target.fit(pa.array([1.0, float("inf")]), task="regression", name="y")
    target = Target.fit(pa.array([1.0, 2.0]), task="regression", name="y")
    with pytest.raises(TargetError, match="infinite"):
        target.encode(pa.array([-float("inf")]))


def test_a_binary_target_needs_two_classes() -> None:
    with pytest.raises(TargetError, match=r"Target 'y' has 3 classes \('a', 'b', 'c'\), but the task is binary"):
        Target.fit(pa.array(["c", "b", "a"]), task="binary", name="y")
    assert Target.fit(pa.array(["b", "a"]), task="multiclass", name="y").task == "multiclass"


@pytest.mark.parametrize("column", [pa.array([dt.date(2024, 1, 1)]), pa.array([[1]]), pa.array([{"a": 1}])])
def test_other_types_are_an_error(column: pa.Array) -> None:
    with pytest.raises(TargetError, match=r"target.*a target is numbers, strings or booleans"):
        infer_task(column)
    with pytest.raises(TargetError, match=r"type of target 'y' is .*a target is numbers"):
        Target.fit(column, task="auto", name="y")
    with pytest.raises(TargetError, match="type of target 'y' is"):
        Target("y", "regression", None).encode(column)


def test_bytes_that_are_not_text_and_no_rows_are_errors() -> None:
    with pytest.raises(TargetError, match="'y'' holds bytes that are not UTF-8"):
        Target.fit(pa.array([b"\xff", b"a"]), task="auto", name="y")
    with pytest.raises(TargetError, match="Target 'y' has no rows"):
        Target.fit(pa.array([], pa.int64()), task="auto", name="y")
    with pytest.raises(TargetError, match="missing in 2 of 2 rows"):
        Target.fit(pa.nulls(2), task="auto", name="y")


@pytest.mark.parametrize("column", [c for c, _ in TASKS if c.null_count == 0])
def test_json_gives_the_target_back_with_the_types_of_its_classes(column: Any) -> None:
    target = Target.fit(column, task="auto", name="y")
    again = Target.from_json(target.to_json())
    assert again == target
    assert [type(label) for label in again.classes or ()] == [type(label) for label in target.classes or ()]
    assert again.encode(column).tolist() == target.encode(column).tolist()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"name": "y", "task": "ranking", "classes": null}',
        '{"name": 1, "task": "binary", "classes": [0, 1]}',
        '{"name": "y", "task": ["binary"], "classes": [0, 1]}',
        '{"name": "y", "task": "binary", "classes": null}',
        '{"name": "y", "task": "binary", "classes": [0, 1, 2]}',
        '{"name": "y", "task": "multiclass", "classes": [0]}',
        '{"name": "y", "task": "multiclass", "classes": [0, "1"]}',
        '{"name": "y", "task": "multiclass", "classes": [1, 0]}',
        '{"name": "y", "task": "multiclass", "classes": [0, 0]}',
        '{"name": "y", "task": "multiclass", "classes": [[0], [1]]}',
        '{"name": "y", "task": "regression", "classes": [0, 1]}',
    ],
)
def test_a_damaged_target_is_noticed(text: str) -> None:
    with pytest.raises(RunFolderError, match="saved target is damaged"):
        Target.from_json(text)


def test_equal_targets_are_equal_and_others_are_not() -> None:
    target = Target.fit(pa.array(["a", "b"]), task="auto", name="y")
    assert target == Target("y", "binary", ("a", "b"), "large_string")
    assert target != Target("y", "binary", ("a", "c"), "large_string")
    assert json.loads(target.to_json())["classes"] == ["a", "b"]
