import datetime as dt
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from attfm.data.encoder import Encoder
from attfm.errors import RunFolderError
from tests.data.encoding import fit

DATA = pa.table(
    {
        "s": ["a", "b", "a"],
        "x": [1.0, 2.0, 4.0],
        "z": [0.0, 1.0, 0.5],
        "h": ["p", "q", "r"],
        "when": [dt.datetime(2024, 1, 1, 5)] * 3,
        "bag": [["u"], ["v"], None],
    }
)


def saved() -> tuple[Encoder, pa.Table]:
    encoder = fit(DATA, columns={"z": {"bins": "scaled"}, "h": {"hash_buckets": 4}})
    return encoder, encoder.to_table()


def test_the_table_has_one_row_a_value_and_its_count() -> None:
    rows = saved()[1].to_pylist()
    assert [(row["field"], row["value"], row["count"]) for row in rows if row["value"] is not None] == [
        ("s", "a", 2),
        ("s", "b", 1),
        ("bag", "u", 1),
        ("bag", "v", 1),
    ]
    assert [(row["lower"], row["upper"], row["single"]) for row in rows if row["field"] == "x"] == [
        (1, 2, 1),
        (2, 3, 2),
        (3, 4, 4),
    ]
    assert [(row["lower"], row["upper"]) for row in rows if row["field"] == "z"] == [(0, 1)]


def test_the_time_of_day_stays_in_or_out() -> None:
    encoder, table = saved()
    names = [f.name for f in Encoder.from_table(encoder.schema, table).fields]
    assert names == ["s", "x", "z", "h", "when.hour", "when.weekday", "when.month", "bag"]


def replaced(table: pa.Table, column: str, values: object) -> pa.Table:
    place = table.schema.get_field_index(column)
    new = pa.array(values, table.schema.field(column).type)
    return table.set_column(place, table.schema.field(column), new)


def edited(column: str, row: int, value: object) -> Callable[[pa.Table], pa.Table]:
    def edit(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[row] = value
        return replaced(table, column, values)

    return edit


def metadata(**changes: str | None) -> Callable[[pa.Table], pa.Table]:
    def edit(table: pa.Table) -> pa.Table:
        kept = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        kept = {key: value for key, value in {**kept, **changes}.items() if value is not None}
        return table.replace_schema_metadata(kept)

    return edit


DAMAGES: list[tuple[Callable[[pa.Table], pa.Table], str]] = [
    (lambda table: table.replace_schema_metadata(None), "format is None, not '1'"),
    (metadata(**{"attfm.format": "2"}), "format is b'2', not '1'"),
    (metadata(**{"attfm.fields": None}), "names of its fields are absent"),
    (metadata(**{"attfm.fields": "{"}), "names of its fields are absent"),
    (metadata(**{"attfm.fields": "3"}), "not those of the schema"),
    (metadata(**{"attfm.fields": '["s", "x"]'}), "not those of the schema"),
    (metadata(**{"attfm.fields": '["s", "x", "zz"]'}), "has no field 'zz'"),
    (metadata(**{"attfm.fields": '["s", "x", "z", "h", "when.year", "bag"]'}), "has no field 'when.year'"),
    (metadata(**{"attfm.fields": '["s", "s", "x", "z", "h", "when.month", "bag"]'}), "not those of the schema"),
    (metadata(**{"attfm.fields": '["x", "s", "z", "h", "when.month", "bag"]'}), "not those of the schema"),
    (lambda table: table.drop(["count"]), "columns are field, value, lower"),
    (lambda table: table.set_column(2, "count", pc.cast(table["count"], pa.int32())), "other names or types"),
    (edited("field", 0, "other"), "a field that the schema does not have"),
    (edited("field", 0, "x"), "out of order"),
    (edited("value", 1, "a"), "value of field 's' occurs twice"),
    (edited("value", 1, None), "value of field 's' is empty"),
    (edited("count", 0, None), "value of field 's' is empty"),
    (edited("lower", 3, None), "edge of field 'x' is not a number"),
    (edited("upper", 4, float("inf")), "edge of field 'x' is not a number"),
    (edited("lower", 3, 9.0), "bins of field 'x' are not in increasing order"),
    (edited("lower", 2, 2.5), "bins of field 'x' are not in increasing order"),
    (edited("upper", 4, 2.5), "bins of field 'x' are not in increasing order"),
    (edited("upper", 5, -1.0), "field 'z' needs one range"),
    (lambda table: table.take([0, 1, 2, 3, 4, 5, 5, 6, 7]), "field 'z' needs one range"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damage_is_noticed(damage: Callable[[pa.Table], pa.Table], message: str) -> None:
    encoder, table = saved()
    damaged = damage(table)
    assert not damaged.equals(table, check_metadata=True)
    with pytest.raises(RunFolderError, match=message):
        Encoder.from_table(encoder.schema, damaged)


def test_more_bins_than_the_schema_allows_are_noticed() -> None:
    encoder = fit(DATA.select(["x"]))
    narrow = fit(DATA.select(["x"]), max_bins=2)
    with pytest.raises(RunFolderError, match="'x' has 3 bins, more than the 2"):
        Encoder.from_table(narrow.schema, encoder.to_table())
