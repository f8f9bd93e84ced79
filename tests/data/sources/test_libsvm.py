"""libsvm and libfm files: both layouts, a round trip, and bad lines."""

import gzip
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfm.data.sources import libsvm
from attfm.data.sources.source import open_source
from attfm.errors import SourceError


def table_of(source) -> pa.Table:
    return pa.Table.from_batches(source.batches(), source.schema)


def write(folder: Path, text: str | bytes, name: str = "t.libfm") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["t.libfm", "t.svm", "t.libsvm.gz"])
def test_one_hot_fields_become_columns(tmp_path, end, name):
    text = end.join(["-1 0:1 5:1 9:1", "1 2:1 6:1 10:1", "+1 0:1.0 6:1 9:1", ""]).encode()
    source = open_source(write(tmp_path, gzip.compress(text) if name.endswith("gz") else text, name))
    assert [str(t) for t in source.schema.types] == ["double", "string", "string", "string"]
    assert table_of(source).to_pydict() == {
        "label": [-1.0, 1.0, 1.0],
        "f0": ["0", "2", "0"],
        "f1": ["5", "6", "6"],
        "f2": ["9", "10", "9"],
    }
    assert source.num_rows == 3


BAGS = {
    "rows differ in their number": "1 1:1 2:1\n0 1:1\n",
    "some values are not 1": "1 1:0.5 2:1\n0 1:1 2:1\n",
    "stands at several positions": "1 1:1 2:1\n0 2:1 3:1\n",
    "rows have no entries": "1\n0\n",
}


@pytest.mark.parametrize("reason", BAGS)
def test_other_rows_become_bags(tmp_path, reason):
    path = write(tmp_path, BAGS[reason])
    source = open_source(path)
    assert source.schema.field("features").type == pa.map_(pa.string(), pa.float32())
    lines = [line.split()[1:] for line in BAGS[reason].splitlines()]
    expected = [[(e.split(":")[0], float(e.split(":")[1])) for e in line] for line in lines]
    assert table_of(source)["features"].to_pylist() == expected
    with pytest.raises(SourceError, match=rf"t\.libfm can't be read as fields: .*{reason}"):
        open_source(path, layout="fields")


def test_layout_can_be_asked_for(tmp_path):
    path = write(tmp_path, "1 1:1 2:1\n")
    assert open_source(path, layout="fields").schema.names == ["label", "f0", "f1"]
    assert open_source(path, layout="bag").schema.names == ["label", "features"]


def test_comments_blank_lines_and_spaces(tmp_path):
    source = open_source(write(tmp_path, "# head: er\n\n1  1:2\t3:4   # note: x\n\n 0 7:25e-2"))
    assert table_of(source).to_pydict() == {"label": [1.0, 0.0], "features": [[("1", 2.0), ("3", 4.0)], [("7", 0.25)]]}


ENTRIES = st.lists(
    st.tuples(st.integers(0, 10**12), st.floats(-1e6, 1e6, width=32)), max_size=6, unique_by=lambda e: e[0]
)
ROWS = st.lists(st.tuples(st.floats(-1e9, 1e9), ENTRIES), min_size=1, max_size=30)


@given(rows=ROWS, block=st.integers(1, 200))
def test_round_trip(tmp_path_factory, rows, block):
    text = "".join(f"{label!r} {' '.join(f'{i}:{x!r}' for i, x in entries)}\n" for label, entries in rows)
    path = write(tmp_path_factory.getbasetemp(), text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(libsvm, "_BLOCK", block)
        source = open_source(path, layout="bag")
        table = table_of(source)
    assert table["label"].to_pylist() == [label for label, _ in rows]
    assert table["features"].to_pylist() == [[(str(i), x) for i, x in entries] for _, entries in rows]
    assert source.num_rows == len(rows)


@given(
    rows=st.lists(st.lists(st.integers(0, 99), min_size=3, max_size=3), min_size=1, max_size=50),
    block=st.integers(1, 200),
)
def test_round_trip_of_fields(tmp_path_factory, rows, block):
    text = "".join("1 " + " ".join(f"{100 * f + i}:1" for f, i in enumerate(row)) + "\n" for row in rows)
    path = write(tmp_path_factory.getbasetemp(), text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(libsvm, "_BLOCK", block)
        table = table_of(open_source(path))
    for f in range(3):
        assert table[f"f{f}"].to_pylist() == [str(100 * f + row[f]) for row in rows]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 1:1\n0 2\n", r"t\.libfm, line 2: '2' has no colon"),
        ("1 1:1\n\n3:1 4:1\n", r"t\.libfm, line 3: '3:1' stands where the label should be"),
        ("1 1:1\nyes 4:1\n", r"t\.libfm, line 2: 'yes' is no number, but stands as the label"),
        ("1 1:1 2:x\n", r"t\.libfm, line 1: '2:x' has no number after its colon"),
        ("1 1:1 2:\n", r"t\.libfm, line 1: '2:' has no number after its colon"),
        ("1 1:1 :2\n", r"t\.libfm, line 1: ':2' has no id before its colon"),
        ("1 1:1\n1 0:1:0.5\n", r"t\.libfm, line 2: '0:1:0\.5' has more than one colon"),
        ("1 qid:3 1:1\n", r"t\.libfm, line 1: 'qid:3' belongs to a ranking file"),
        ("1 1:1\n1 1:\0\n", r"t\.libfm has a NUL byte in line 2"),
        (b"1 \xe9:1\n", r"t\.libfm is not UTF-8 text"),
        ("", r"t\.libfm is empty"),
        ("# nothing\n\n", r"t\.libfm is empty"),
    ],
)
def test_bad_lines(tmp_path, text, message):
    with pytest.raises(SourceError, match=message):
        open_source(write(tmp_path, text))


@pytest.mark.parametrize("bad", range(0, 3000, 701))
def test_bad_line_in_a_late_block(tmp_path, monkeypatch, bad):
    monkeypatch.setattr(libsvm, "_BLOCK", 512)
    lines = ["1 1:1 2:0.5"] * 3000
    lines[bad] = "1 1:1 2:oops"
    with pytest.raises(SourceError, match=rf"line {bad + 1}: '2:oops'"):
        open_source(write(tmp_path, "\n".join(lines)))
