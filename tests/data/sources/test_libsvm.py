"""libsvm and libfm files: both layouts, a round trip, and bad lines."""

import gzip
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfm.data.sources import libsvm
from attfm.data.sources.files import DataFile
from attfm.data.sources.libsvm import LibsvmFile
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


def read(path: Path, **options) -> pa.Table:
    file = LibsvmFile(DataFile.locate(path), **options)
    return pa.Table.from_batches(file.read(file.schema.names), file.schema)


ONE_LINE = {
    "auto": ({}, {"f0": ["3"], "f1": ["5"]}),
    "fields": ({"layout": "fields"}, {"f0": ["3"], "f1": ["5"]}),
    "fields known": ({"layout": "fields", "n_fields": 2}, {"f0": ["3"], "f1": ["5"]}),
    "bag": ({"layout": "bag"}, {"features": [[("3", 1.0), ("5", 1.0)]]}),
}


@pytest.mark.parametrize("case", ONE_LINE)
@pytest.mark.parametrize(("label", "value"), [("1 ", 1.0), ("", None)])
def test_one_line_in_every_layout(tmp_path, case, label, value):
    options, expected = ONE_LINE[case]
    table = read(write(tmp_path, f"{label}3:1 5:1\n"), **options)
    assert table.to_pydict() == {"label": [value], **expected}
    assert table.schema.field("label").type == pa.float64()


def test_known_fields_are_not_compared_by_position(tmp_path):
    path = write(tmp_path, "1 1:1 2:1\n\n0 2:1 3:1\n")
    assert read(path).schema.names == ["label", "features"]
    assert read(path, layout="fields", n_fields=2).to_pydict() == {
        "label": [1.0, 0.0],
        "f0": ["1", "2"],
        "f1": ["2", "3"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 1:1 2:1\n\n3:1\n", r"t\.libfm, line 3 has 1 entries, but there are 2 fields"),
        ("1 1:1 2:1\n# x\n1 1:1 2:1 3:1\n", r"t\.libfm, line 3 has 3 entries, but there are 2 fields"),
        ("1 1:1 2:1\n0 1:1 7:0.5\n", r"t\.libfm, line 2: entry 7 has the value 0\.5, but"),
        ("1\n", r"t\.libfm, line 1 has 0 entries, but there are 2 fields"),
        ("\n", r"t\.libfm is empty"),
    ],
)
@pytest.mark.parametrize("block", [1, 1 << 20])
def test_rows_without_the_known_fields(tmp_path, monkeypatch, text, message, block):
    monkeypatch.setattr(libsvm, "_BLOCK", block)
    with pytest.raises(SourceError, match=message):
        read(write(tmp_path, text), layout="fields", n_fields=2)


@pytest.mark.parametrize("layout", ["auto", "bag"])
def test_a_number_of_fields_is_for_fields(tmp_path, layout):
    with pytest.raises(SourceError, match=rf"belongs to the layout 'fields', not to '{layout}'"):
        read(write(tmp_path, "1 1:1\n"), layout=layout, n_fields=1)


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_lines_without_a_label(tmp_path, monkeypatch, block):
    monkeypatch.setattr(libsvm, "_BLOCK", block)
    table = read(write(tmp_path, "1:2 3:4\n-1 5:1\n\n 7:1  # x\n+2\n9:1"))
    assert table.to_pydict() == {
        "label": [None, -1.0, None, 2.0, None],
        "features": [[("1", 2.0), ("3", 4.0)], [("5", 1.0)], [("7", 1.0)], [], [("9", 1.0)]],
    }


def test_comments_blank_lines_and_spaces(tmp_path):
    source = open_source(write(tmp_path, "# head: er\n\n1  1:2\t3:4   # note: x\n\n 0 7:25e-2"))
    assert table_of(source).to_pydict() == {"label": [1.0, 0.0], "features": [[("1", 2.0), ("3", 4.0)], [("7", 0.25)]]}


ENTRIES = st.lists(
    st.tuples(st.integers(0, 10**12), st.floats(-1e6, 1e6, width=32)), max_size=6, unique_by=lambda e: e[0]
)
LABELLED = st.tuples(st.floats(-1e9, 1e9), ENTRIES)
UNLABELLED = st.tuples(st.none(), ENTRIES.filter(len))  # without label and entries, a line is empty
ROWS = st.lists(LABELLED | UNLABELLED, min_size=1, max_size=30)


@given(rows=ROWS, block=st.integers(1, 200))
def test_round_trip(tmp_path_factory, rows, block):
    text = "".join(
        " ".join([*([] if label is None else [repr(label)]), *(f"{i}:{x!r}" for i, x in entries)]) + "\n"
        for label, entries in rows
    )
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
        ("1 1:1\n\n3:1:2 4:1\n", r"t\.libfm, line 3: '3:1:2' has more than one colon"),
        ("1 1:1\n\n3:1 4\n", r"t\.libfm, line 3: '4' has no colon"),
        ("1 1:1\n\n:1 4:1\n", r"t\.libfm, line 3: ':1' has no id before its colon"),
        ("1 1:1\nqid:1 4:1\n", r"t\.libfm, line 2: 'qid:1' belongs to a ranking file"),
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
