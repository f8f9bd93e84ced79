"""Delimited text: types over the whole file, separators, compression, and every kind of bad file."""

import csv
import datetime
import gzip
import random
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attfm.data.sources import csv as delimited
from attfm.data.sources.source import MAX_BATCH_ROWS, Source, open_source
from attfm.data.sources.text_stream import TextStream
from attfm.data.texts import NULL_VALUES
from attfm.errors import SchemaError, SourceError


def columns_of(source: Source) -> dict[str, list[object]]:
    return pa.Table.from_batches(source.batches(), source.schema).to_pydict()


def types_of(source: Source) -> dict[str, str]:
    return {field.name: str(field.type) for field in source.schema}


def test_types_of_a_small_file(write):
    source = open_source(
        write(
            "n,x,flag,day,instant,word,none\n"
            "1,1.5,true,2013-01-02,2013-01-02T10:00:00Z,a,\n"
            "-2,2,False,2013-01-03 04:05,2013-01-02 10:00:00.5+00:00,NA,null\n"
        )
    )
    assert types_of(source) == {
        "n": "int64",
        "x": "double",
        "flag": "bool",
        "day": "timestamp[us]",
        "instant": "timestamp[us, tz=UTC]",
        "word": "string",
        "none": "null",
    }
    columns = columns_of(source)
    assert columns["n"] == [1, -2]
    assert columns["x"] == [1.5, 2.0]
    assert columns["flag"] == [True, False]
    assert columns["day"] == [datetime.datetime(2013, 1, 2), datetime.datetime(2013, 1, 3, 4, 5)]
    assert columns["instant"][1].microsecond == 500_000
    assert columns["word"] == ["a", None]
    assert columns["none"] == [None, None]
    assert source.num_rows == 2
    assert source.name == "t.csv"


@pytest.mark.parametrize(
    ("cells", "type_"),
    [
        (["1", "2.5"], "double"),
        (["1", "x"], "string"),
        (["true", "1"], "string"),
        (["1", "true"], "string"),
        (["2013-01-01", "soon"], "string"),
        (["2013-01-01T10:00:00+02:00", "2013-01-02T10:00:00+0200"], "timestamp[us, tz=+02:00]"),
        (["2013-01-01T10:00:00+01:00", "2013-07-01T10:00:00+02:00"], "timestamp[us, tz=UTC]"),
        (["2013-01-01T10:00:00Z", "2013-07-01T10:00:00+00:00"], "timestamp[us, tz=UTC]"),
        (["2013-01-01T10:00:00+02:00", "2013-07-01T10:00:00"], "string"),
        (["00501", "10001"], "string"),  # codes
        (["10001", "00501"], "string"),
        (["0", "0.5", "-0.5"], "double"),
        (["01.5", "2"], "string"),
        (["10000949271186029916", "3"], "string"),  # an id that no float64 holds
        (["9007199254740993", "3"], "int64"),
        (["", "3"], "int64"),
    ],
)
def test_type_holds_all_cells(write, cells, type_):
    source = open_source(write("a,b\n" + "".join(f"{cell},k\n" for cell in cells)))
    assert types_of(source)["a"] == type_
    if type_ == "string":
        assert columns_of(source)["a"] == cells


@pytest.mark.parametrize(("late", "type_"), [("x7", "string"), ("0.5", "double"), ("", "int64")])
def test_type_widens_in_a_late_block(write, monkeypatch, late, type_):
    monkeypatch.setattr(delimited, "_BLOCK_SIZES", (4096,))
    rows = [f"{i},{i % 3}" for i in range(5000)]
    rows[4000] = f"{late},1"
    source = open_source(write("a,b\n" + "\n".join(rows)))
    assert types_of(source) == {"a": type_, "b": "int64"}
    batches = list(source.batches())
    assert len(batches) > 5  # several blocks
    column = columns_of(source)["a"]
    convert = {"string": str, "double": float, "int64": int}[type_]
    expected = [convert(i) for i in range(5000)]
    expected[4000] = convert(late) if late else None
    assert column == expected


def test_a_type_that_only_the_last_row_shows(write, monkeypatch):
    monkeypatch.setattr(delimited, "_BLOCK_SIZES", (4096,))
    source = open_source(write("a,b\n" + ",1\n" * 5000 + "2013-01-01,1\n"))
    assert types_of(source)["a"] == "timestamp[us]"
    assert columns_of(source)["a"][-1] == datetime.datetime(2013, 1, 1)


def test_spaces_after_separators_are_stripped(write):
    source = open_source(
        write("39, State-gov, 77516, 2013-01-01, ?\n 40,  Private , NA,, x\n"),
        names=["age", "work", "weight", "day", "odd"],
        null_values=["?"],
    )
    assert types_of(source) == {
        "age": "int64",
        "work": "string",
        "weight": "int64",
        "day": "timestamp[us]",
        "odd": "string",
    }
    columns = columns_of(source)
    assert columns["age"] == [39, 40]
    assert columns["work"] == ["State-gov", "Private"]
    assert columns["weight"] == [77516, None]
    assert columns["odd"] == [None, "x"]


@pytest.mark.parametrize(
    ("name", "separator"), [("t.csv", ","), ("t.csv", ";"), ("t.tsv", "\t"), ("t.txt", "|"), ("t.txt", "\t")]
)
def test_separator_is_found(write, name, separator):
    rows = [["a", "b c", "d"], ["1,5" if separator != "," else "15", "x", "y"], ["2", '"p;q,r|s\nt"', "z"]]
    source = open_source(write("\n".join(separator.join(row) for row in rows), name))
    assert source.schema.names == ["a", "b c", "d"]
    assert columns_of(source)["b c"] == ["x", "p;q,r|s\nt"]


@pytest.mark.parametrize("separator", ["\t", "\\t", "tab"])
def test_separator_is_given(write, separator):
    source = open_source(write("a,b\tc\n1,2\t3\n"), separator=separator)
    assert columns_of(source) == {"a,b": ["1,2"], "c": [3]}


def test_separator_of_unknown_extension(write):
    path = write("1 a\n2 b\n", "t.part")
    assert columns_of(open_source(path, separator=" ", names=["n", "w"])) == {"n": [1, 2], "w": ["a", "b"]}
    with pytest.raises(SourceError, match=r"t\.part has an unknown extension\. Known are \.csv .*separator="):
        open_source(path)


def test_names_that_are_also_the_header(write):
    assert columns_of(open_source(write("a,b\n1,2\n"), names=["a", "b"])) == {"a": [1], "b": [2]}


def test_skip_rows_blank_lines_and_bom(write):
    source = open_source(write(b"\xef\xbb\xbf|comment, with | marks\r\n\r\na,b\r\n\r\n1,2\r\n\r\n"), skip_rows=1)
    assert columns_of(source) == {"a": [1], "b": [2]}
    assert columns_of(open_source(write(b"\xef\xbb\xbfa,b\n1,2\n"))) == {"a": [1], "b": [2]}


def compressed(content: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(content)
    return pa.compress(content, "zstd", asbytes=True) if suffix == ".zst" else content


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("named", [True, False])
def test_compression_is_seen(write, suffix, named):
    content = compressed(b"a,b\n1,x\n2,y\n", suffix)
    source = open_source(write(content, f"t.csv{suffix if named else ''}"))
    assert columns_of(source) == {"a": [1, 2], "b": ["x", "y"]}


def test_passes_are_independent_and_batches_bounded(write):
    rows = MAX_BATCH_ROWS + 10
    source = open_source(write("a,b\n" + "1,2\n" * rows))
    first, second = source.batches(), source.batches()
    a, b = next(first), next(second)
    assert a.equals(b)
    del first  # given up halfway
    assert a.num_rows + sum(batch.num_rows for batch in second) == rows
    sizes = [batch.num_rows for batch in source.batches(["b"])]
    assert sum(sizes) == rows == source.num_rows
    assert max(sizes) <= MAX_BATCH_ROWS


def test_columns_in_the_order_asked_for(write):
    source = open_source(write("a,b,c\n1,x,2.5\n"))
    (batch,) = source.batches(["c", "a"])
    assert batch.to_pydict() == {"c": [2.5], "a": [1]}
    with pytest.raises(SchemaError, match=r"t\.csv has no column 'aa' \(did you mean 'a'\?\), 'zz'\. It has a, b, c"):
        source.batches(["aa", "b", "zz"])


def test_agrees_with_pandas(write):
    rng = random.Random(0)
    frame = pd.DataFrame(
        {
            "n": [rng.randrange(100) for _ in range(500)],
            "x": [rng.choice([None, rng.random()]) for _ in range(500)],
            "w": [rng.choice(['a "quoted", cell', "line\nbreak", "é", "plain"]) for _ in range(500)],
        }
    )
    source = open_source(write(frame.to_csv(index=False)))
    expected = open_source(frame)
    assert columns_of(source) == columns_of(expected)


@pytest.mark.parametrize("size", range(60, 130))
def test_line_ends_at_the_edge_of_a_block(write, monkeypatch, size):
    monkeypatch.setattr(delimited, "_BLOCK_SIZES", (64,))
    rows = "".join(f"{i},{i}\r\n" for i in range(10, 50))
    source = open_source(write(("a,b\r\n" + rows)[:size].rpartition("\r")[0] + "\r\n"))
    text = ("a,b\r\n" + rows)[:size].rpartition("\r")[0]
    assert columns_of(source)["b"] == [int(line.split(",")[1]) for line in text.split("\r\n")[1:]]


TRICKY = ["", " ", "1", " 2", "-3 ", "+4", "1.5", "1e400", "0x1f", "-0", "inf", "true", "False", "T", "NaN", " NA", "?"]
TRICKY += [
    "2013-01-01",
    " 2013-01-01 10:00",
    "2013-02-30",
    "9" * 20,
    "007",
    "a\nb",
    'say "x"',
    "\t5",
    "é",
    "'",
    "#",
    "\\",
]


@settings(deadline=None)
@given(
    rows=st.integers(1, 4).flatmap(
        lambda kinds: st.lists(st.tuples(*[st.sampled_from(TRICKY[:: kinds + 1])] * 2), min_size=1, max_size=60)
    ),
    block=st.sampled_from([64, 1 << 20]),
    separator=st.sampled_from([",", ";", "\t", "|"]),
)
def test_any_cells_are_read_or_kept_as_text(tmp_path_factory, rows, block, separator):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows([("key", "a", "b"), *(("k", *row) for row in rows)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "_BLOCK_SIZES", (block, 1 << 20))
        source = open_source(path, separator=separator)
        columns = columns_of(source)
    assert columns["key"] == ["k"] * len(rows)
    for place, name in enumerate(["a", "b"]):
        cells = [row[place].strip(" \t") for row in rows]
        present = [cell for cell in cells if cell not in NULL_VALUES]
        values = [value for value in columns[name] if value is not None]
        assert [value is None for value in columns[name]] == [cell in NULL_VALUES for cell in cells]
        read = {"string": str, "double": float, "int64": lambda cell: int(cell, 0 if "x" in cell else 10)}.get(
            str(source.schema.field(name).type)
        )
        if read is not None:
            assert values == [read(cell) for cell in present]
        assert len(values) == len(present)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_other_encodings(write, encoding):
    path = write("näme,b\nCafé,1\n".encode(encoding))
    assert columns_of(open_source(path, encoding=encoding)) == {"näme": ["Café"], "b": [1]}


@pytest.mark.parametrize("place", ["first", "middle"])
def test_a_huge_cell_is_read(write, place):
    huge = "x" * 10_000_000
    rows = [f"1,{huge}", "2,b"] if place == "first" else ["2,b", f"1,{huge}", "3,c"]
    source = open_source(write("a,b\n" + "\n".join(rows)))
    assert huge in columns_of(source)["b"]
    assert source.num_rows == len(rows)
    # without a header, the heading itself has the huge cell
    assert open_source(write("\n".join(rows)), names=["a", "b"]).num_rows == len(rows)


def test_a_row_longer_than_the_longest_block(write, monkeypatch):
    monkeypatch.setattr(delimited, "_BLOCK_SIZES", (1 << 19, 1 << 20))
    path = write('a,b\n1,"x\n' + "2,y\n" * 1_000_000)
    with pytest.raises(SourceError, match=r"t\.csv has a row longer than 1 MB: most likely a quote that is never"):
        open_source(path)


def test_threads_of_arrow_hold_no_python_stream_of_a_small_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that still holds one when the process ends aborts it."""
    streams, real = [], pacsv.open_csv

    def watched(stream: object, **options: object) -> object:
        streams.append(type(stream))
        return real(stream, **options)

    monkeypatch.setattr(pacsv, "open_csv", watched)
    path = tmp_path / "small.csv"
    path.write_text("a,b\n" + "1,x\n" * 500)
    assert sum(batch.num_rows for batch in open_source(path).batches()) == 500
    assert set(streams) == {pa.BufferReader}
    monkeypatch.setattr(delimited, "_BLOCK_SIZES", (64, 1 << 10))
    streams.clear()
    assert sum(batch.num_rows for batch in open_source(path).batches()) == 500
    assert set(streams) == {TextStream}
