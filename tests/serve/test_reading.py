"""Compiled models read values as the rest of attfm does: the same features, the same sentences, the same warnings."""

import datetime as dt
import os
import uuid
import warnings
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from attfm.errors import AttfmError
from attfm.model.bundle import Model
from attfm.serve import tables
from attfm.serve.rows import Encoded
from tests.serve.models import model_of

PARIS = "Europe/Paris"
TIME = dt.datetime(2024, 3, 1, 12, 30)
MAP = pa.map_(pa.string(), pa.float32())
# Columns of training tables, with their settings.
TRAINED: dict[str, tuple[pa.Array, dict[str, Any]]] = {
    "text": (pa.array(["cook", "A b", "é", "true", "7", "1.5", "00501", "2024-03-01", "12:30:00", None]), {}),
    "codes": (pa.array(["1", "2", "3", "x"]), {}),
    "kept": (pa.array(["NA", "null", "x"]), {}),
    "hashed": (pa.array(["a", "b"]), {"kind": "categorical", "hash_buckets": 7}),
    "int ids": (pa.array([1, 7, 501, 2**53 + 1]), {"kind": "categorical"}),
    "float ids": (pa.array([0.5, 7.0, 1e-7, 1e20]), {"kind": "categorical"}),
    "float32 ids": (pa.array([0.1, 7.0], pa.float32()), {"kind": "categorical"}),
    "bool": (pa.array([True, False, None]), {}),
    "decimal ids": (pa.array([Decimal("1.50"), Decimal("7.00")]), {"kind": "categorical"}),
    "date ids": (pa.array([dt.date(2024, 3, 1), dt.date(1999, 12, 31)]), {"kind": "categorical"}),
    "datetime ids": (pa.array([TIME, dt.datetime(2024, 3, 1)]), {"kind": "categorical"}),
    "zoned ids": (pa.array([TIME], pa.timestamp("us", PARIS)), {"kind": "categorical"}),
    "time ids": (pa.array([dt.time(12, 30), dt.time(1, 2, 3, 500)]), {"kind": "categorical"}),
    "duration ids": (pa.array([dt.timedelta(seconds=90), dt.timedelta(days=1)]), {"kind": "categorical"}),
    "int": (pa.array([1, 5, 9, 12, None]), {"kind": "numeric"}),
    "float": (pa.array([0.5, 1.5, 7.0, -3.25]), {"kind": "numeric"}),
    "float32": (pa.array([0.1, 0.2, 7.0], pa.float32()), {"kind": "numeric"}),
    "text numbers": (pa.array(["0.5", "1.5", "7"]), {"kind": "numeric"}),
    "decimal": (pa.array([Decimal("1.50"), Decimal("7.00"), Decimal("1.51")]), {"kind": "numeric"}),
    "truths": (pa.array([True, False]), {"kind": "numeric"}),
    "duration": (pa.array([dt.timedelta(seconds=90), dt.timedelta(days=1)]), {"kind": "numeric"}),
    "time": (pa.array([dt.time(12, 30), dt.time(1, 2, 3)]), {"kind": "numeric"}),
    "scaled": (pa.array([0.5, 10.0]), {"kind": "numeric", "bins": "scaled"}),
    "constant": (pa.array([2.0, 2.0]), {"kind": "numeric", "bins": "scaled"}),
    "date": (pa.array([dt.date(2024, 3, 1), dt.date(1999, 12, 31)]), {}),
    "datetime": (pa.array([TIME, dt.datetime(2023, 1, 1)]), {}),
    "zoned": (pa.array([TIME], pa.timestamp("us", PARIS)), {}),
    "text dates": (pa.array(["2024-03-01T12:30", "2023-01-01"]), {"kind": "datetime"}),
    "list": (pa.array([["de", "en"], ["fr"]]), {}),
    "int list": (pa.array([[1, 2], [7]]), {}),
    "separated": (pa.array(["de|en", "fr"]), {"kind": "multi-valued", "separator": "|"}),
    "weighted": (pa.array([[("de", 1.0)], [("fr", 0.5)]], MAP), {}),
}
VALUES: list[Any] = [
    None, float("nan"), pd.NA, pd.NaT, np.datetime64("NaT"), Decimal("NaN"), float("inf"), -float("inf"),
    "cook", " cook ", "Cook", "A b", "é", "é", "", "  ", "\u00a0", "NA", "nan", "null", "None", "x", "unseen",
    "true", "True", "TRUE", "false", "yes", "7", " 7 ", "7.0", "7.", "+7", "-7", "07", "1e3", "1.50", ".5", "0x10",
    "1_000", "12", "1,5", "inf", "-Infinity", "9" * 25, "1e400", "٣", "501", "00501", "0501",
    True, False, np.bool_(True), 0, 1, 2, 3, 7, 501, -1, 2**53 + 1, 2**63,
    2**64, -(2**63) - 1, np.int8(7), np.uint64(2**63),
    0.5, 1.5, 7.0, -0.0, 1e-7, 1e20, 1e300, 0.1, 0.30000000000000004, np.float32(0.1), np.float64(7), np.float16(1.5),
    Decimal("1.5"), Decimal("1.50"), Decimal("7"), Decimal("7.000"), Decimal("1E+2"), Decimal("1E-7"),
    Decimal("Infinity"), Decimal("0.1"), Decimal("1." + "1" * 50),
    dt.date(2024, 3, 1), dt.date(1, 1, 1), TIME, dt.datetime(2024, 3, 1), dt.datetime(2024, 3, 1, 12, 30, 0, 500000),
    TIME.replace(tzinfo=dt.UTC), TIME.replace(tzinfo=ZoneInfo(PARIS)),
    TIME.replace(tzinfo=dt.timezone(dt.timedelta(hours=2))),
    dt.datetime(2024, 3, 31, 2, 30), dt.datetime(2024, 10, 27, 2, 30), dt.datetime(1969, 12, 31, 23, 59, 59, 1),
    dt.datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo(PARIS), fold=1),
    pd.Timestamp("2024-03-01 12:30"), np.datetime64("2024-03-01"), np.datetime64("2024-03-01T12:30"),
    "2024-03-01", "2024-03-01 12:30", "2024-03-01T12:30:00", "2024-03-01T12:30:00Z", "2024-03-01T12:30+02:00",
    "2024-03-31 02:30", "2024-10-27 02:30", "2024-02-30", "1/3/2024", "2024-03-01 12:30:60", "2024-03-01 1:30 pm",
    "0000-01-01", "2024-03-01 00:00", "1999-12-31", "2024-03-01 12:30:00.123456789",
    dt.time(12, 30), dt.time(1, 2, 3, 500), "12:30", "12:30:00", "25:00", "1:02:03.0005",
    dt.timedelta(seconds=90), dt.timedelta(days=-1, hours=2), np.timedelta64(90, "s"), "0:01:30", "90", "1 days",
    "-1 days +02:00:00", "P1D", "PT90S", "P", "days",
    b"cook", b"\xff", bytearray(b"7"), uuid.UUID(int=5), pd.Period("2024-03"), pd.Interval(0, 1),
    [], ["de"], ["de", "xx", None, " en "], ("de", "en"), np.array(["de", "fr"]), [1, 2], [1.0, 7],
    [True, "de"], [None],
    ["1", " 7.0 "], "de|en", "de| fr ||", "|", {"de"}, [["de"]], [Decimal("7.0")], [dt.date(2024, 3, 1), TIME],
    np.array(7), np.array([1, 7]), 1j, object, "\ud800",
]  # fmt: skip


@lru_cache
def trained(name: str, reading: tuple[tuple[str, Any], ...] = ()) -> tuple[Model, tables.CompiledModel]:
    """Return a model of one column, and the same compiled."""
    values, settings = TRAINED[name]
    model = model_of(table=pa.table({"v": values}), columns={"v": settings}, memory=False, reading=dict(reading))
    return model, tables.compile(model)


def arrays(rows: Encoded) -> list[Any]:
    return [rows.ids.ravel().tolist(), None if rows.values is None else rows.values.ravel().tolist()]


def told(read: Any) -> tuple[Any, list[str]]:
    """Return what reading gives: features, or what is wrong; and the warnings."""
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        try:
            found = read()
        except AttfmError as error:
            # Which of two types of strings it is means nothing to whoever reads it.
            found = type(error).__name__, str(error).replace("large_string", "string")
    return found, [str(warning.message) for warning in noted]


def by_model(model: Model, value: Any) -> tuple[Any, list[str]]:
    """Return what the model makes of one row."""

    def read() -> list[Any]:
        (rows,) = model.encode(model.open([{"v": value}]))
        batch = rows.batch
        counts = None if batch.offsets is None else batch.counts
        assert counts is None or counts.sum() == len(batch.ids)
        return [batch.ids.flatten().tolist(), None if batch.values is None else batch.values.flatten().tolist()]

    return told(read)


def by_lookup(compiled: tables.CompiledModel, value: Any) -> tuple[Any, list[str]]:
    """Return what the compiled model makes of one row."""
    return told(lambda: arrays(compiled.encode([{"v": value}])))


# All values by all columns take half a minute: each column has a third of them, the next column the next third.
EACH = 1 if os.environ.get("ATTFM_LONG_TESTS") else 3
# How text is read otherwise than usual.
GERMAN = {
    "decimal": ",",
    "thousands": ".",
    "signs": True,
    "day_first": True,
    "null_values": ("x", "7"),
    "keep": ("NA",),
}
GERMAN_COLUMNS = ("text", "int ids", "int", "float", "text numbers", "decimal", "text dates", "datetime", "list")
GERMAN_VALUES = [
    "1,5", "1.234,5", "1.5", "7", 7, 7.0, " 7 ", "7,0", "x", "NA", "12 %", "€ 1,5", "-$1.234", "1,5 EUR",
    "1/3/2024", "1.3.24",
    "31/12/1999 11:30 pm", "3/13/2024", "2024-03-01", "cook", ["x", "7", "de"], True,
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(TRAINED)), ids=list(TRAINED))
def test_a_value_is_read_as_everywhere(place: int) -> None:
    check(*trained(list(TRAINED)[place]), VALUES[place % EACH :: EACH])


@pytest.mark.parametrize("name", GERMAN_COLUMNS)
def test_text_is_read_as_the_training_table_was(name: str) -> None:
    check(*trained(name, tuple(GERMAN.items())), GERMAN_VALUES)


def check(model: Model, compiled: tables.CompiledModel, values: Sequence[Any]) -> None:
    """Assert that both make the same of each value."""
    wrong = []
    for value in values:
        expected, found = by_model(model, value), by_lookup(compiled, value)
        again = by_lookup(compiled, value)  # what was kept of the first time
        if not (repr(expected) == repr(found) == repr(again)):
            wrong.append(f"{value!r}: {expected} {found} {again}")
    assert not wrong, "\n".join(wrong)
