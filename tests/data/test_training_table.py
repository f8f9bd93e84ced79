"""The table that a model is trained on, read as seldom as can be."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from attfm.config import DataConfig
from attfm.data.encoder import Encoder
from attfm.data.inference import infer_schema
from attfm.data.sources.csv import DelimitedFile
from attfm.data.sources.files import DataFile
from attfm.data.sources.source import open_source
from attfm.data.training_table import column_of, read_training_table, weights_of
from attfm.errors import DataError, SchemaError, TargetError
from tests.data.encoding import assert_same_rows

CONFIG = DataConfig()
TABLE = pa.table({"x": [1.0, 2.0, 3.0], "s": ["a", "b", None], "y": ["no", "yes", "no"], "w": [1, 0, 2]})


def test_one_pass_gives_what_three_give() -> None:
    source = open_source(TABLE)
    schema, labels, weights, written, _ = read_training_table(source, target="y", weight="w", config=CONFIG)
    assert schema == infer_schema(
        source.batches(), source.schema, target="y", weight="w", config=CONFIG, source=source.name
    )
    assert labels.equals(column_of(source, "y"))
    assert written == {}
    assert labels.to_pylist() == ["no", "yes", "no"]
    assert weights is not None
    assert weights.tolist() == weights_of(source, "w").tolist() == [1, 0, 2]
    assert read_training_table(source, target="y", config=CONFIG).weights is None
    assert weights_of(source, None) is None


@pytest.mark.parametrize(
    "labels",
    [
        pa.array(["a", "b", None]).dictionary_encode(),
        pa.array([True, False, None]),
        pa.array([1, 2, 3], pa.decimal128(9, 2)),
    ],
    ids=lambda array: str(array.type),
)
def test_labels_are_as_they_are_in_the_table(labels: pa.Array) -> None:
    read = read_training_table(open_source(pa.table({"x": [1, 2, 3], "y": labels})), target="y", config=CONFIG).labels
    assert read.type == labels.type
    assert read.to_pylist() == labels.to_pylist()


BAD_WEIGHTS = [
    ([1.0, None, -2.0], r"Weight column 'w': 2 of 3 weights are missing or negative \(first: missing, row 1\)"),
    ([1.0, 3.0, -2.0], r"Weight column 'w': 1 of 3 weights are missing or negative \(first: -2, row 2\)"),
    ([1.0, float("inf"), 1.0], r"Column 'w': 1 of 3 values is infinite"),
    (["1", "x", "2"], r"Column 'w': 1 of 3 values is not a number \(first: 'x', row 1\)"),
]


@pytest.mark.parametrize(("column", "message"), BAD_WEIGHTS)
def test_bad_weights_are_named_with_their_row(column: list[Any], message: str) -> None:
    source = open_source(TABLE.set_column(3, "w", pa.array(column)))
    with pytest.raises(DataError, match=message):
        read_training_table(source, target="y", weight="w", config=CONFIG)
    with pytest.raises(DataError, match=message):
        weights_of(source, "w")


def test_absent_columns_are_named() -> None:
    source = open_source(TABLE)
    with pytest.raises(TargetError, match=r"no target column 'Y' in Table \(did you mean 'y'\?\)"):
        read_training_table(source, target="Y", config=CONFIG)
    with pytest.raises(SchemaError, match="no weight column 'v' in Table"):
        read_training_table(source, target="y", weight="v", config=CONFIG)
    with pytest.raises(SchemaError, match="Table has no column 'v'"):
        weights_of(source, "v")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return a count of how often a file is opened, and of how often all its rows are read as a table."""
    counts: Counter[str] = Counter()
    opened, read = DataFile.open_text, DelimitedFile.read

    def counted_open(self: DataFile) -> Any:
        counts["opened"] += 1
        return opened(self)

    def counted_read(self: DelimitedFile, columns: list[str]) -> Any:
        counts["read"] += 1
        return read(self, columns)

    monkeypatch.setattr(DataFile, "open_text", counted_open)
    monkeypatch.setattr(DelimitedFile, "read", counted_read)
    return counts


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = [f"v{i},{x:.3f},{i % 2},1" for i, x in zip(rng.integers(0, 30, 500), rng.normal(size=500), strict=True)]
    path = tmp_path / "clicks.csv"
    path.write_text("s,x,y,w\n" + "\n".join(rows) + "\n")
    return path


def test_a_csv_is_read_three_times_from_opening_to_encoded_rows(clicks: Path, passes: Counter[str]) -> None:
    source = open_source(clicks)
    schema, labels, *_ = read_training_table(source, target="y", weight="w", config=CONFIG)
    inputs = source.kept([column.name for column in schema.inputs])
    encoder = Encoder.fit(schema, inputs.batches())
    for _ in range(2):
        encoded = [encoder.transform(batch) for batch in inputs.batches()]
        assert sum(len(batch) for batch in encoded) == len(labels) == 500
    # For the check and the types of all cells, for the survey with labels and weights, and for the encoder.
    assert passes == {"opened": 3, "read": 2}
    assert_same_rows(encoded[0], encoder.transform(next(source.batches())))
