"""The service and the ONNX export read values as the model does: each stored type, and each way to write a value."""

import datetime as dt
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from attfm.model.bundle import Model
from attfm.model.run_folder import save_model
from tests.meaning.routes import MEMORY
from tests.meaning.test_values import VALUES, column
from tests.serve.client import Client
from tests.serve.made import made_model

ROWS = 24
CLOSE = 1e-5  # what a face may differ by; another feature of one field changes a logit by more
Row = dict[str, Any]
Ask = Callable[[list[Row]], np.ndarray[Any, Any]]


def table() -> pa.Table:
    """Return columns whose values can be written in several ways."""
    i = np.arange(ROWS)
    days = [dt.date(2024, 1, 1) + dt.timedelta(int(k % 4) * 40) for k in i]
    return pa.table({
        "word": pa.array([("A-17", "a b", "0012", None)[k % 4] for k in i]),
        "flag": pa.array([(True, False, None)[k % 3] for k in i]),
        "count": pa.array([(3, 70, 500, None)[k % 4] for k in i]),
        "amount": pa.array([(0.5, 2.25, 1e3)[k % 3] for k in i]),
        "price": pa.array([(Decimal("1.50"), Decimal("2.00"))[k % 2] for k in i], pa.decimal128(9, 2)),
        "day": pa.array(days),
        "seen": pa.array([dt.datetime(2024, 1, 1 + int(k % 5), int(7 * k % 24)) for k in i]),
        "tags": pa.array([["x", "y z", "w"][: k % 4] for k in i]),
        "langs": pa.array(["|".join(["de", "en", "fr"][: k % 4]) for k in i]),
        "town": pa.array([(12, 7, 2**60, None)[k % 4] for k in i]),
    })  # fmt: skip


DECLARED: dict[str, Row] = {"town": {"kind": "categorical"}, "langs": {"kind": "multi-valued", "separator": "|"}}
# Of each column: a value as it stood in training, and what else means it, in a table and so in JSON.
WRITTEN: list[tuple[str, Any, list[Any]]] = [
    ("word", "A-17", [" A-17", "A-17   ", "  A-17 "]),
    ("word", "a b", ["a b ", "  a b"]),
    ("word", "0012", [" 0012 "]),
    ("word", "a  b", ["never", " a  b "]),  # unknown: the spaces within are a part of the value
    ("word", None, ["", "  ", "NA", " nan ", "null", "#N/A"]),
    ("flag", True, [" True", "TRUE ", "true", "1", "1.0", 1]),
    ("flag", False, ["False", "fALSE", " 0", 0]),
    ("flag", None, ["", " ", "None", "NaN "]),
    ("tags", ["x", "y z"], [[" x", "y z  "], ["x", None, "y z"], ["", "x", "  ", "y z"]]),
    ("tags", None, [[], [""], [None], ["  "]]),
    ("langs", "de|en", [" de|en ", "de | en", "|de||en|", "de|  |en"]),
    ("langs", "fr|??", ["fr|never"]),
    ("langs", None, ["", "|", " | ", "  ", " NA "]),
    ("count", 70, [70.0]),
    ("amount", 1000.0, [1000]),
    ("town", 7, [7.0]),
    ("day", "2024-02-10", [" 2024-02-10 ", "2024-02-10T00:00", "2024-02-10 00:00:00"]),
    ("seen", "2024-01-04T21:00:00", ["2024-01-04 21:00", "2024-01-04 9:00 PM", "2024-01-04T21"]),
]  # fmt: skip
TYPED = ("count", "amount", "town", "day", "seen")  # which ONNX takes as numbers: they have one form


@pytest.fixture(scope="module")
def model() -> Model:
    return made_model(data=table(), settings=DECLARED)


def usual() -> Row:
    """Return a row of known values, as JSON has them."""
    return {name: in_json(value) for name, value in table().to_pylist()[5].items()}


def in_json(value: Any) -> Any:
    """Return a value of a table as JSON has it."""
    if isinstance(value, Decimal):
        return float(value)
    return value.isoformat() if hasattr(value, "isoformat") else value


@contextmanager
def served(model: Model, path: Path) -> Iterator[Ask]:
    """Give what asks the service for logits."""
    pytest.importorskip("fastapi", reason="attfm[serve] is not installed")
    pytest.importorskip("prometheus_client", reason="attfm[serve] is not installed")
    from attfm.serve.http.access_log import AccessLog
    from attfm.serve.http.app import create_app

    log = io.StringIO()
    client = Client(create_app(save_model(model, path / "run"), log=AccessLog(log)), log)

    def ask(rows: list[Row]) -> np.ndarray[Any, Any]:
        many = client.post("/predict", {"rows": rows})
        assert many.status == 200, many.body
        bodies = [json.dumps({"row": row}).encode() for row in rows]
        singles = [reply.json() for reply in client.all(*(("POST", "/predict", body, {}) for body in bodies))]
        assert singles == many.json()["predictions"]
        return np.array([row["logit"] for row in singles])

    try:
        yield ask
    finally:
        client.close()


def exported(model: Model, path: Path) -> Any:
    """Return the ONNX export of a model in onnxruntime."""
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'attfm[onnx]'")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'attfm[onnx]'")
    from attfm.serve.onnx.check import Session
    from attfm.serve.onnx.graph import export_onnx

    return Session(export_onnx(model, path / "model.onnx", check=False)[0])


def texts_of(values: list[Any], *, has_members: bool) -> np.ndarray[Any, Any]:
    """Return texts as a tensor, as a program makes it that knows nothing of attfm: members side by side."""
    if not has_members:
        return np.array(["" if value is None else str(value) for value in values], object)
    bags = [["" if one is None else one for one in bag or []] for bag in values]
    width = max(1, *(len(bag) for bag in bags))
    return np.array([bag + [""] * (width - len(bag)) for bag in bags], object)


def asked() -> tuple[list[Row], list[Row]]:
    """Return rows with a value as it stood, and the same rows with it written in another way."""
    known, others = [], []
    for name, value, ways in WRITTEN:
        known += [{**usual(), name: value} for _ in ways]
        others += [{**usual(), name: way} for way in ways]
    return known, others


def test_what_is_written_in_several_ways_is_known_to_the_model(model: Model) -> None:
    # The service and ONNX are compared with the model: this says what the model itself makes of it.
    known, others = asked()
    np.testing.assert_array_equal(model.logits(others), model.logits(known))
    for name, value, _ in WRITTEN:  # and that a score tells values apart
        strange = {"tags": ["strange"], "flag": None if value is not None else True}
        missing = {name: "strange" if value is None else None}
        other = {**usual(), name: strange[name]} if name in strange and value is None else {**usual(), **missing}
        assert np.abs(model.logits([other]) - model.logits([{**usual(), name: value}])).max() > 100 * CLOSE, name


def test_the_service_reads_what_is_written_in_several_ways(model: Model, tmp_path: Path) -> None:
    known, others = asked()
    with served(model, tmp_path) as ask:
        np.testing.assert_allclose(ask(others), model.logits(known)[:, 0], rtol=0, atol=CLOSE)


def test_the_exported_graph_reads_what_is_written_in_several_ways(model: Model, tmp_path: Path) -> None:
    from attfm.serve.raw_inputs import raw_inputs, tensors_of

    known, others = asked()
    tensors = tensors_of(model, known)
    for raw in raw_inputs(model):
        if raw.dtype == "string":
            tensors[raw.name] = texts_of([row[raw.name] for row in others], has_members=raw.has_members)
    assert {raw.name for raw in raw_inputs(model) if raw.dtype != "string"} == {*TYPED, "price"}
    found = exported(model, tmp_path).run(tensors)["logits"]
    np.testing.assert_allclose(found, model.logits(known), rtol=0, atol=CLOSE)


def test_a_blank_that_is_no_space_stays_in_the_exported_graph(model: Model, tmp_path: Path) -> None:
    # As docs/export.md says: no node of ONNX removes it in onnxruntime, where the model does.
    from attfm.serve.raw_inputs import tensors_of

    session, row = exported(model, tmp_path), usual()
    strange = model.logits([{**row, "word": "strange"}])
    for blank in "\t\n\r\u00a0\u3000":
        written = {**row, "word": f"A-17{blank}"}
        np.testing.assert_array_equal(model.logits([written]), model.logits([{**row, "word": "A-17"}]))
        tensors = {**tensors_of(model, [row]), "word": np.array([written["word"]], object)}
        np.testing.assert_allclose(session.run(tensors)["logits"], strange, rtol=0, atol=CLOSE)
        # What attfm itself makes the tensors of has no blanks.
        np.testing.assert_allclose(
            session.run(tensors_of(model, [written]))["logits"], model.logits([written]), rtol=0, atol=CLOSE
        )


@pytest.mark.parametrize("kind", VALUES)
def test_each_stored_type_means_the_same_to_the_exported_graph(kind: str, tmp_path: Path) -> None:
    from attfm.serve.raw_inputs import tensors_of

    rows, settings = column(kind)
    model = made_model(data=rows, settings=settings)
    session, expected = exported(model, tmp_path), model.logits(rows)
    assert len(np.unique(expected.round(4))) > 3
    for name, route in MEMORY.items():
        if name == "list of rows":  # which has no names
            continue
        if name in ("pandas objects", "dict of columns", "list of dicts") and kind == "float32 categories":
            continue  # Python's floats are float64: what a float32 was rounded to is another value there
        if name == "pandas nullable" and "list" in kind:
            continue
        found = session.run(tensors_of(model, route(rows, tmp_path)))["logits"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE, err_msg=name)


@pytest.mark.parametrize("kind", VALUES)
def test_each_stored_type_means_the_same_to_the_service(kind: str, tmp_path: Path) -> None:
    rows, settings = column(kind)
    model = made_model(data=rows, settings=settings)
    if kind in ("duration", "time"):  # the service takes their seconds
        numbers = rows["v"].cast(pa.int64())
        per_second = 1e6
        sent = [
            {**row, "v": None if number is None else number / per_second}
            for row, number in zip(rows.to_pylist(), numbers.to_pylist(), strict=True)
        ]
    else:
        sent = [{name: in_json(value) for name, value in row.items()} for row in rows.to_pylist()]
    if kind == "float32 categories":  # as it is written with the digits that a float32 has
        sent = [{**row, "v": None if row["v"] is None else float(str(np.float32(row["v"])))} for row in sent]
    with served(model, tmp_path) as ask:
        np.testing.assert_allclose(ask(sent), model.logits(rows)[:, 0], rtol=0, atol=CLOSE)
