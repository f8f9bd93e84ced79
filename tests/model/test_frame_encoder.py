"""Frames that are read where they stand in memory give the ids that `Encoder.transform` gives."""

import datetime as dt
import pickle
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pytest
import torch

from attfm import AFMClassifier
from attfm.config import DataConfig
from attfm.data.batch import Batch
from attfm.data.encoder import Encoder
from attfm.data.inference import infer_schema
from attfm.data.sources.frame_columns import FrameColumns
from attfm.data.sources.source import open_source
from attfm.errors import DataError, DataWarning, SchemaError
from attfm.model import frame_encoder
from attfm.model.bundle import Model
from attfm.model.frame_encoder import FrameEncoder, NotStanding
from attfm.ops import native_info
from tests.data.encoding import assert_same_rows

pytestmark = pytest.mark.skipif(not native_info()["available"], reason="the compiled kernels are not installed")

ROWS = 60
TEXTS = ["cook", "clerk", "more than twice sixteen bytes long", "Ä", "NAH"]
SETTINGS = {
    "number": {"max_bins": 7}, "uniform": {"bins": "uniform", "max_bins": 5}, "scaled": {"bins": "scaled"},
    "town": {"kind": "categorical"}, "rate": {"kind": "categorical"}, "short rate": {"kind": "categorical"},
    "hashed": {"hash_buckets": 11}, "rare": {"min_count": 3}, "digits": {"kind": "numeric"},
    "price": {"kind": "categorical"},
}  # fmt: skip


def training() -> pa.Table:
    """Return a table with a column of each kind, all with gaps."""
    k = np.arange(ROWS)
    gaps = k % 7 == 3
    columns: dict[str, Any] = {
        "text": pa.array(np.array(TEXTS)[k % 5], mask=gaps),
        "rare": pa.array(np.array([f"v{i // 2}" for i in range(ROWS)]), mask=gaps),
        "hashed": pa.array(np.array([f"id{i % 13}" for i in range(ROWS)]), mask=gaps),
        "number": pa.array(k * 1.5 - 20, mask=gaps),
        "short": pa.array((k * 0.1).astype(np.float32), mask=gaps),
        "uniform": pa.array(k % 17, mask=gaps),
        "scaled": pa.array(k * 0.3, mask=gaps),
        "town": pa.array(k % 6, mask=gaps),
        "rate": pa.array(np.array([0.1, 2.0, -3.5])[k % 3], mask=gaps),
        "short rate": pa.array(np.array([0.1, 2.0, -3.5], np.float32)[k % 3], mask=gaps),
        "member": pa.array(k % 2 == 0, mask=gaps),
        "digits": pa.array([str(i % 9) for i in range(ROWS)], mask=gaps),
        "size": pa.array(np.array(["S", "M", "L"])[k % 3], mask=gaps).dictionary_encode(),
        "seen": pa.array(np.datetime64("2024-01-01T00:30", "s") + (k * 50_000).astype("timedelta64[s]"), mask=gaps),
        "price": pa.array([Decimal(i % 4) / 4 for i in range(ROWS)], pa.decimal128(5, 2), mask=gaps),
        "langs": pa.array([None if i % 7 == 3 else ["de", "en", "fr"][: i % 4] for i in range(ROWS)]),
    }  # fmt: skip
    return pa.table(columns)


def fitted(table: pa.Table) -> Encoder:
    config = DataConfig.parse({"columns": {name: SETTINGS[name] for name in table.column_names if name in SETTINGS}})
    source = open_source(table)
    return Encoder.fit(infer_schema(source.batches(), source.schema, target=None, config=config), source.batches())


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return fitted(training())


@pytest.fixture(scope="module")
def single() -> Encoder:
    """An encoder of the columns that have one feature a row."""
    return fitted(training().drop_columns("langs"))


def opened(encoder: Encoder, data: object) -> Batch:
    """Return the rows of a table, encoded as any table is."""
    source = open_source(data, encoder.schema.reading, stored=encoder.schema.stored_types)
    names = [column.name for column in encoder.schema.inputs]
    return Batch.concatenate([encoder.transform(batch) for batch in source.batches(names)])


def standing(frames: FrameEncoder, data: Any) -> Batch:
    """Return the rows of a frame, encoded where it stands."""
    frame = FrameColumns.of(data)
    assert frame is not None
    return Batch.concatenate(list(frames.batches(frame)))


def others(table: pa.Table) -> pa.Table:
    """Return rows with values that training did not have, or had written otherwise."""
    more = table.slice(0, 12).to_pydict()
    more["text"] = ["cook ", " clerk", "NA", "", "new", "Ä", "日本語 🙂", "x" * 300, None, "cook", "nan", "null"]
    more["hashed"] = [f"other {i}" for i in range(12)]
    more["number"] = [-1e300, 1e300, 0.0, -0.0, 2.0**53 + 1, None, float("nan"), 1.5, -20.0, -18.5, 3.0, 4.5]
    more["short"] = [0.1, 0.30000001192092896, 1e-30, None, *more["short"][4:]]
    more["town"] = [7, -1, 2**62, 0, 1, 2, 3, 4, 5, None, 6, 10**9]
    more["rate"] = [0.1, 2.0, -3.5, 0.30000000000000004, float("nan"), None, -0.0, 1e22, 2.5, 0.1, 0.1, 0.1]
    more["digits"] = ["1", "2.0", " 3 ", "4e0", None, *more["digits"][5:]]
    return pa.concat_tables([table, pa.table(more, schema=table.schema)])


NULLABLE = {pa.int64(): pd.Int64Dtype(), pa.float64(): pd.Float64Dtype(), pa.string(): pd.StringDtype(),
            pa.bool_(): pd.BooleanDtype(), pa.float32(): pd.Float32Dtype()}  # fmt: skip


def objects(table: pa.Table) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(table[name].to_pylist(), dtype=object) for name in table.column_names})


def categories(table: pa.Table) -> pd.DataFrame:
    """Return a frame with categories, in another order and with more levels than the rows have."""
    frame = table.to_pandas()
    for name in ("text", "rare", "town", "size", "number"):
        levels = list(pd.unique(pd.Series(table[name].to_pylist()).dropna()))[::-1]
        extra = [] if name in ("town", "number") else ["never there", " NA "]
        frame[name] = pd.Categorical(frame[name], categories=extra[:1] + levels + extra[1:])
    return frame


def views(table: pa.Table) -> pa.Table:
    is_text = [field.name for field in table.schema if pa.types.is_string(field.type)]
    return table.set_column(0, "text", table["text"].cast(pa.string_view())) if is_text else table


def cut(table: pa.Table) -> pa.Table:
    """Return the same rows in several chunks, the first of which does not start at its buffers' start."""
    doubled = pa.concat_tables([table, table]).combine_chunks().slice(len(table) - 5)
    head = doubled.slice(5, 20)
    return pa.concat_tables([head, table.slice(20, 11), table.slice(31)])


FRAMES: dict[str, Callable[[pa.Table], Any]] = {
    "pandas": lambda table: table.to_pandas(),
    "pandas objects": objects,
    "pandas nullable": lambda table: table.to_pandas(types_mapper=NULLABLE.get),
    "pandas Arrow": lambda table: table.to_pandas(types_mapper=pd.ArrowDtype),
    "pandas categories": categories,
    "pandas strided": lambda table: pd.concat([table.to_pandas()] * 2).sort_index(kind="stable").iloc[::2],
    "polars": polars.from_arrow,
    "Arrow": lambda table: table,
    "Arrow in pieces": cut,
    "Arrow views": views,
    "record batch": lambda table: table.combine_chunks().to_batches()[0],
}


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("bags", [True, False])
def test_a_frame_means_what_a_table_of_it_means(
    kind: str, bags: bool, encoder: Encoder, single: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, table = (encoder, others(training())) if bags else (single, others(training().drop_columns("langs")))
    frame = FRAMES[kind](table)
    expected, frames = opened(own, frame), FrameEncoder(own)
    assert_same_rows(standing(frames, frame), expected)
    # Again, from what was kept, and from hardly anything that can be.
    assert_same_rows(standing(frames, frame), expected)
    monkeypatch.setattr(frame_encoder, "_MOST_KEPT", 2)
    assert_same_rows(standing(FrameEncoder(own), frame), expected)


def test_the_comparison_notices_another_feature(single: Encoder) -> None:
    frame = training().drop_columns("langs").to_pandas()
    changed = frame.assign(town=frame["town"].to_numpy()[::-1])
    with pytest.raises(AssertionError):
        assert_same_rows(standing(FrameEncoder(single), changed), opened(single, frame))


@pytest.mark.parametrize("kind", FRAMES)
def test_a_row_means_the_same_alone(kind: str, single: Encoder) -> None:
    table = others(training().drop_columns("langs")).slice(50)
    frame, frames = FRAMES[kind](table), FrameEncoder(single)
    expected = opened(single, frame)
    for row in [*range(len(table)), *range(5)]:
        one = frame.iloc[[row]] if isinstance(frame, pd.DataFrame) else frame[row : row + 1]
        assert_same_rows(standing(frames, one), expected.slice(row, row + 1))


def test_many_rows_are_read_in_pieces_and_threads(single: Encoder) -> None:
    table = training().drop_columns("langs")
    rng, many = np.random.default_rng(0), 150_000
    frame = table.take(rng.integers(0, len(table), many)).to_pandas()
    frame["text"] = np.where(np.arange(many) % 5 == 0, [f"t{i}" for i in range(many)], frame["text"])
    for kind in (frame, frame.astype({"text": object, "rare": object})):
        assert_same_rows(standing(FrameEncoder(single), kind), opened(single, kind))


def test_columns_are_found_by_name_and_others_left_out(single: Encoder) -> None:
    frame = training().drop_columns("langs").to_pandas()
    expected, frames = opened(single, frame), FrameEncoder(single)
    for asked in (
        frame[frame.columns[::-1]],
        frame.assign(other="x")[["other", *frame.columns]],
        frame.add_suffix(" "),
    ):
        assert_same_rows(standing(frames, asked), expected)
    assert frames.places_of(["other", *frame.columns]).unseen == ["other"]


def test_names_that_are_numbers_count_by_their_text() -> None:
    table = pa.table({"1": [1, 2, 3] * 9, "True": [0.5, 1.5, 2.5] * 9})
    frames = FrameEncoder(fitted(table))
    frame = table.to_pandas()
    expected = standing(frames, frame)
    assert_same_rows(standing(frames, frame.set_axis([1, "True"], axis=1)), expected)
    assert_same_rows(standing(frames, frame.set_axis(["1", True], axis=1)), expected)
    swapped = frame[["True", "1"]].set_axis([True, 1], axis=1)  # equal to (1, True) as keys of a dict
    assert_same_rows(standing(frames, swapped), expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.drop(columns="town"), lambda frame: frame.iloc[:0],
        lambda frame: frame.set_axis([*frame.columns[:-1], "text"], axis=1),
        lambda frame: frame.set_axis([*frame.columns[:-1], ("a", "b")], axis=1),
        lambda frame: frame.assign(number=np.inf), lambda frame: frame.assign(scaled=-np.inf),
        lambda frame: frame.assign(scaled=1e300), lambda frame: frame.assign(number="x"),
        lambda frame: frame.assign(text=[["a"]] * len(frame)), lambda frame: frame.assign(digits="no number"),
        lambda frame: frame.assign(text=pd.Series(["cook", "\ud800"] * (ROWS // 2), dtype=object)),
        lambda frame: frame.assign(text="other"),
        lambda frame: frame.assign(seen=frame["seen"].dt.tz_localize("Asia/Tokyo")),
    ],
    ids=["absent", "empty", "doubled", "tuple", "infinite", "infinite scaled", "far away", "text", "lists", "no number",
         "surrogate", "unknown", "zone"],
)  # fmt: skip
def test_whatever_is_to_be_said_is_said_of_the_table(change: Callable[[Any], Any], single: Encoder) -> None:
    frame = change(training().drop_columns("langs").to_pandas())
    frames = FrameEncoder(single)
    for _ in range(2):
        with pytest.raises(NotStanding):
            standing(frames, frame)


def test_a_few_unknown_values_are_nothing_to_say(single: Encoder) -> None:
    frame = training().drop_columns("langs").to_pandas()
    frame.loc[:20, "text"] = "other"
    standing(FrameEncoder(single), frame)


def test_an_encoder_of_frames_can_be_copied(single: Encoder) -> None:
    frame = training().drop_columns("langs").to_pandas()
    frames = FrameEncoder(single)
    expected = standing(frames, frame)
    assert_same_rows(standing(pickle.loads(pickle.dumps(frames)), frame), expected)


def test_threads_that_meet_new_values_do_not_disturb_one_another(
    single: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_encoder, "_MOST_KEPT", 50)
    table = training().drop_columns("langs")
    frame = table.take(np.arange(6_000) % len(table)).to_pandas()
    parts = [frame.assign(text=[f"{i}-{k % 90}" for k in range(len(frame))]) for i in range(3)]
    parts = [part.assign(text=np.where(np.arange(len(part)) % 2, part["text"], "cook")) for part in parts]
    expected, frames = [opened(single, part) for part in parts], FrameEncoder(single)
    found: list[list[Batch]] = [[] for _ in parts]

    def ask(number: int) -> None:
        found[number] = [standing(frames, parts[number]) for _ in range(4)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own, batches in zip(expected, found, strict=True):
        assert len(batches) == 4
        for batch in batches:
            assert torch.equal(batch.ids, own.ids)


@pytest.fixture(scope="module")
def model() -> Model:
    table = training().select(["text", "rare", "number", "short", "town", "size"])
    quick = {"epochs": 1, "dim": 2, "attention_dim": 2, "n_models": 1, "calibrate": "none"}
    estimator = AFMClassifier(**quick, columns={"town": {"kind": "categorical"}})
    return estimator.fit(table, np.arange(ROWS) % 2).model_


def by_opening(model: Model) -> Model:
    """Return the model, which opens every table."""
    other = replace(model)
    other.__dict__["frames"] = None
    return other


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"number": np.inf}, DataError), ({"town": [["a"]] * ROWS}, SchemaError), ({"text": "other"}, DataWarning),
        ({"rare": 3.5}, DataWarning),
    ],
)  # fmt: skip
def test_a_model_says_the_same_as_if_it_had_opened_the_frame(
    change: dict[str, Any], error: type[Exception], model: Model
) -> None:
    frame = training().to_pandas().assign(**change)
    said = []
    for asked in (model, by_opening(model)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(Exception) as raised:  # noqa: PT011
                asked.predict_proba(frame)
        said.append((type(raised.value), str(raised.value)))
    assert said[0] == said[1]
    assert "Column '" in said[0][1]


def test_a_small_row_takes_little_python(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = training().select(model.input_names).to_pandas()
    row = frame.iloc[[5]]
    expected = by_opening(model).predict_proba(row)
    np.testing.assert_array_equal(model.predict_proba(frame)[5:6], expected)  # and all values are kept now
    encoded: list[int] = []
    whole = Encoder.encode_column
    monkeypatch.setattr(Encoder, "encode_column", lambda *args, **names: encoded.append(1) or whole(*args, **names))
    assert calls_of(lambda: model.predict_proba(row)) < 300
    assert calls_of(lambda: list(model.frames.batches(FrameColumns.of(row)))) < 130  # type: ignore[union-attr, arg-type]
    assert not encoded
    np.testing.assert_array_equal(model.predict_proba(row), expected)
    by_opening(model).predict_proba(row)
    assert encoded


def calls_of(action: Callable[[], object]) -> int:
    """Return how many functions of Python are called."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
    return calls


def test_dates_of_a_frame_are_those_of_a_table(single: Encoder) -> None:
    frame = training().drop_columns("langs").to_pandas()
    frame["seen"] = [None, *(dt.datetime(1969, 12, 31, 23, k) for k in range(1, 60))]
    assert_same_rows(standing(FrameEncoder(single), frame), opened(single, frame))
