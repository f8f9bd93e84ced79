"""The column by which rows are split: its times or groups, in whatever type they come."""

import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from attfm.config import DataConfig, Reading
from attfm.data.folds import Grouping
from attfm.data.inference import infer_schema
from attfm.data.schema import Schema
from attfm.data.sources.source import Source, open_source
from attfm.data.split_column import ColumnSplit, GroupSplit, TimeSplit, grouping_in, split_by
from attfm.data.training_table import read_training_table
from attfm.errors import ConfigError, DataError, SchemaError

DAYS = [dt.date(2024, 3, 9), dt.date(2023, 12, 31), dt.date(2024, 3, 10), dt.date(2024, 3, 9)]
RANKS = [1, 0, 2, 1]
UTC = dt.UTC


def schema_of(source: Source, **columns: dict[str, Any]) -> Schema:
    config = DataConfig(columns=columns)
    return infer_schema(source.batches(), source.schema, target=None, config=config, source=source)


def grouping_of(table: object, by: ColumnSplit, **columns: dict[str, Any]) -> Grouping:
    source = open_source(table)
    return grouping_in(source, schema_of(source, **columns), by)


def ranks(values: object) -> list[int]:
    """Return the places of values among the distinct ones, in their order."""
    assert isinstance(values, np.ndarray)
    return np.unique(values, return_inverse=True)[1].tolist()


def at(hour: int, offset: int) -> dt.datetime:
    return dt.datetime(2024, 3, 9, hour, tzinfo=dt.timezone(dt.timedelta(hours=offset)))


TIMES: dict[str, list[Any]] = {
    "dates": DAYS,
    "timestamps": [dt.datetime.combine(day, dt.time(1, 2, 3, 4)) for day in DAYS],
    "instants": [at(12, 0).astimezone(UTC), at(11, 0).astimezone(UTC), at(13, 0).astimezone(UTC), at(12, 0)],
    "durations": [dt.timedelta(days=rank, microseconds=1) for rank in RANKS],
    "whole numbers": [2**60 + rank for rank in RANKS],
    "numbers": [0.5, -1e9, 0.75, 0.5],
    "text of dates": ["2024-03-09", "2023-12-31", "2024-03-10T00:00:01", " 2024-03-09 "],
    "text of offsets": ["2024-03-09T12:00+02:00", "2024-03-09T11:00+02:00", "2024-03-09T11:30Z", "2024-03-09T10:00Z"],
    "text of months": ["2024-03", "2023-12", "2024-04", "2024-03"],
    "text of numbers": ["9", "-1", "10", "9.0"],
}


@pytest.mark.parametrize("kind", TIMES)
def test_times_of_every_type_are_in_order(kind: str, frame: Callable[[Mapping[str, Any]], Any]) -> None:
    found = grouping_of(frame({"when": TIMES[kind], "x": [1, 2, 3, 4]}), TimeSplit("when"))
    assert ranks(found.times) == RANKS
    assert (found.groups, found.column, found.by_chance) == (None, "when", False)


def test_categories_and_periods_are_times() -> None:
    for values in (
        pd.Categorical(["2024-03-09", "2023-12-31", "2024-03-10", "2024-03-09"]),
        pd.PeriodIndex(["2024-03", "2023-12", "2024-04", "2024-03"], freq="M"),
    ):
        assert ranks(grouping_of(pd.DataFrame({"when": values}), TimeSplit("when")).times) == RANKS
    chunks = pa.chunked_array([pa.array(["b", "a"]).dictionary_encode(), pa.array(["c", "b"]).dictionary_encode()])
    assert grouping_of(pa.table({"who": chunks}), GroupSplit("who")).groups.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(
    "values", [["b", "a", "c", "b"], [5, 0, 7, 5], [0.5, 0.25, 7.0, 0.5], DAYS, [True, False, True, True]]
)
def test_groups_are_numbered_as_they_are_met(values: list[Any], frame: Callable[[Mapping[str, Any]], Any]) -> None:
    found = grouping_of(frame({"who": values, "x": [1, 2, 3, 4]}), GroupSplit("who"))
    assert found.groups is not None
    assert found.groups.tolist() == [0, 1, 0 if values[0] is True else 2, 0]
    assert (found.groups.dtype, found.times, found.column) == (np.int64, None, "who")


CSV = "day,plain,stamp,amount,id\n" + "\n".join(
    f"0{9 - i}/03/2024,2024-03-0{9 - i},2024-03-09T10:0{9 - i}:00Z,{9 - i}0,0{i // 2}" for i in range(9)
)


@pytest.mark.parametrize("column", ["day", "plain", "stamp", "amount"])
@pytest.mark.parametrize("ignored", [False, True])
def test_a_csv_is_split_as_it_is_read(column: str, ignored: bool, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(CSV.replace("90", "9,0") + "\n")
    path.write_text(CSV + "\n")
    reading = Reading(day_first=True)
    declared = {column: {"kind": "ignored"}, "id": {"kind": "ignored"}} if ignored else {}
    source = open_source(path, reading)
    schema = schema_of(source, **declared)
    again = open_source(path, reading, stored=schema.stored_types)  # as a run reads it later
    for table in (source, again):
        assert ranks(grouping_in(table, schema, TimeSplit(column)).times) == list(range(8, -1, -1))
        groups = grouping_in(table, schema, GroupSplit("id")).groups
        assert groups is not None
        assert groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4]


def test_one_pass_over_a_table_gives_its_grouping_too() -> None:
    source = open_source({"when": DAYS, "y": ["a", "b", "a", "b"]})
    read = read_training_table(source, target="y", split=TimeSplit("when"), config=DataConfig())
    assert ranks(read.grouping.times) == RANKS
    assert {column.name: column.kind for column in read.schema.columns}["when"] == "datetime"  # an input still
    assert read_training_table(source, target="y", config=DataConfig()).grouping.by_chance


MISSING: list[list[Any]] = [["2024-03-09", None, "2024-03-09", ""], [1.0, None, 2.0, float("nan")]]


@pytest.mark.parametrize("values", MISSING)
def test_missing_times_and_groups_are_told(values: list[Any], frame: Callable[[Mapping[str, Any]], Any]) -> None:
    table = frame({"when": values, "x": [1, 2, 3, 4]})
    with pytest.raises(DataError, match=r"Column 'when'.*: 2 of 4 times are missing \(first: row 1\)\. Give every row"):
        grouping_of(table, TimeSplit("when"))
    with pytest.raises(DataError, match=r"Column 'when'.*: 2 of 4 groups are missing \(first: row 1\)\. Give every"):
        grouping_of(table, GroupSplit("when"))


def test_what_is_no_time_is_told() -> None:
    texts = ["2024-03-09", "soon", "2024-03-09", "later", "soon", None]
    said = r"'when'.*: 3 of 6 values are neither dates nor numbers \(first: 'soon', row 1\)\. Write them as ISO 8601"
    with pytest.raises(DataError, match=said):
        grouping_of({"when": texts, "x": [1] * 6}, TimeSplit("when"))
    with pytest.raises(DataError, match=r"'when' is of type list<.*>, not times\. Split by a column of dates or num"):
        grouping_of(pa.table({"when": [[1], [2]], "x": [1, 2]}), TimeSplit("when"))
    with pytest.raises(DataError, match=r"'when' is of type list<.*>, whose values can't be categories"):
        grouping_of(pa.table({"when": [[1], [2]], "x": [1, 2]}), GroupSplit("when"))


def test_columns_that_can_not_split_are_told() -> None:
    source = open_source({"when": [1, 2], "y": ["a", "b"]})
    with pytest.raises(SchemaError, match=r"There is no split column 'whn' in dict \(did you mean 'when'\?\)"):
        grouping_in(source, schema_of(source), TimeSplit("whn"))
    with pytest.raises(ConfigError, match=r"Split 'group:y': 'y' is the target\. Split by another column\."):
        read_training_table(source, target="y", split=GroupSplit("y"), config=DataConfig())


def test_a_split_is_its_text_and_back() -> None:
    for split in (TimeSplit("date"), GroupSplit("a:b c")):
        assert split_by(str(split)) == split
    assert [str(TimeSplit("date")), str(GroupSplit("user"))] == ["time:date", "group:user"]
