"""Delimited text that can't be read: what is wrong, in which line, and what to do."""

import random
import re

import pytest

from attfm.data.sources import csv as delimited
from attfm.data.sources.source import open_source
from attfm.errors import ConfigError, SchemaError, SourceError
from tests.data.sources.test_csv import compressed

BAD = {
    "empty": ("", SourceError, r"t\.csv is empty"),
    "blank": ("\n \n", SourceError, r"t\.csv is empty"),
    "header only": ("a,b\n", SourceError, r"t\.csv has a header but no rows"),
    "short row": ("a,b\n1,2\n\n3\n4,5\n", SourceError, r"Line 4 of t\.csv has 1 cell, but 2 are expected: '3'"),
    "long row": ('a,b\n1,"2\n\n3"\n3,4,5\n', SourceError, r"Line 5 of t\.csv has 3 cells, but 2 .*'3,4,5'\. Quote"),
    "doubled": ("a,b,a,b,c\n1,2,3,4,5\n", SchemaError, r"more than once in the header of t\.csv: 'a', 'b'.*names="),
    "no name": ("a,,b, \n1,2,3,4\n", SchemaError, r"Column 2, 4 of the header of t\.csv has no name"),
    "index": (",a\n0,1\n", SchemaError, r"Column 1 of .* has no name.*index=False"),
    "NUL": ("a,b\n1,2\n3,x\0y\n", SourceError, r"t\.csv has a NUL byte in line 3"),
    "unclosed at the end": ('a,b\n1,"x\n2,y\n3,z\n', SourceError, r"never closed.*starts at line 2\. Close"),
    "unclosed in the last line": ('a,b\n1,x\n2,"y', SourceError, r"never closed.*starts at line 3\. Close"),
    "unclosed in the middle": ('a,b,c\n1,2,3\n4,"x,5\n6,7,8\n', SourceError, r"never closed.*starts at line 3\. Close"),
    "swallowed rows": ('a,b\n1,"x\n2,y\n3,z"w,4\n', SourceError, r"Line 2 of .*3 cells.*quote seems to be unclosed"),
    "zip": (b"PK\x03\x04abc", SourceError, r"t\.csv is a zip archive or an Excel workbook"),
    "parquet": (b"PAR1abc", SourceError, r"t\.csv holds Parquet data: rename"),
    "utf-16": ("a,b\n1,2\n".encode("utf-16"), SourceError, r"not UTF-8 text: byte 0xff at offset 0.*utf-16"),
    "cut character": ("a,b\n1,é".encode()[:-1], SourceError, r"ends in the middle of a character"),
    "binary": (bytes(range(256)), SourceError, r"t\.csv (is not UTF-8|has a NUL)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(write, case):
    content, error, message = BAD[case]
    with pytest.raises(error, match=re.compile(message, re.DOTALL)) as caught:
        open_source(write(content))
    assert "straddl" not in str(caught.value)
    assert "__attfm" not in str(caught.value)


@pytest.mark.parametrize("at", [10, 900_000, 3_000_000])
def test_latin_1_byte_is_located(write, at):
    content = bytearray(b"name,b\n" + b"abc,1\n" * 600_000)
    content[at] = 0xE9
    line = content[:at].count(b"\n") + 1
    message = rf"t\.csv is not UTF-8 text: byte 0xe9 at offset {at} \(line {line}\).*encoding='latin-1'"
    with pytest.raises(SourceError, match=message):
        open_source(write(bytes(content)))


def test_bad_row_in_a_late_block(write, monkeypatch):
    monkeypatch.setattr(delimited, "_BLOCK_SIZES", (4096,))
    rows = ["1,2"] * 20_000
    rows[15_000] = "7"
    with pytest.raises(SourceError, match=r"Line 15002 of t\.csv has 1 cell, but 2 are expected: '7'"):
        open_source(write("a,b\n" + "\n".join(rows)))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_truncated_compression(write, suffix):
    rng = random.Random(1)
    content = compressed("".join(["a,b\n"] + [f"{rng.random()},1\n" for _ in range(200_000)]).encode(), suffix)
    with pytest.raises(SourceError, match=rf"t\.csv\{suffix} is damaged or cut short"):
        open_source(write(content[: len(content) // 2], f"t.csv{suffix}"))


def test_damaged_after_it_was_opened(write):
    path = write("a,b\n" + "1,2\n" * 100)
    source = open_source(path)
    path.write_text("a,b\nx,2\n")
    with pytest.raises(SourceError, match=r"t\.csv was changed while it was read"):
        list(source.batches())


def test_not_really_gzip(write):
    with pytest.raises(SourceError, match=r"t\.csv\.gz is not gzip data"):
        open_source(write("a,b\n1,2\n", "t.csv.gz"))
    with pytest.raises(SourceError, match=r"t\.csv\.gz is empty"):
        open_source(write("", "t.csv.gz"))


@pytest.mark.parametrize("text", ["a;b\n1;2\n", "a\tb\n1\t2\n"])
def test_wrong_separator(write, text):
    message = rf"t\.csv has one column only.*contains {re.escape(repr(text[1]))}.*separator=.*--separator"
    with pytest.raises(SourceError, match=message):
        open_source(write(text), separator=",")


def test_space_separated_is_suggested(write):
    path = write("a b c\n1 2 3\n4 5 6\n", "t.data")
    with pytest.raises(SourceError, match=r"t\.data has one column only.*separator=' '"):
        open_source(path)
    with pytest.raises(SourceError, match=r"t\.data has 1 cells.*but 3 names are given\. Pass separator=' '"):
        open_source(path, names=["x", "y", "z"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"names": ["x"]}, SourceError, r"t\.csv has 2 cells in its first row .*but 1 names are given\. Give one"),
        ({"names": ["x", "x"]}, SchemaError, r"more than once in names=: 'x'"),
        ({"names": ["x", ""]}, SchemaError, r"Column 2 of names= has no name"),
        ({"separator": "::"}, SourceError, r"separator='::' can't be used"),
        ({"separator": '"'}, SourceError, r"separator='\"' can't be used"),
        ({"encoding": "utf-99"}, SourceError, r"encoding='utf-99' is unknown"),
        ({"encoding": "hex"}, SourceError, r"encoding='hex' is unknown"),
        ({"skip_rows": 9}, SourceError, r"t\.csv is empty after the first 9 lines"),
        ({"skip_rows": -1}, ConfigError, r"Setting 'skip_rows' in the options of reading is -1"),
    ],
)
def test_bad_options(write, options, error, message):
    with pytest.raises(error, match=message):
        open_source(write("a,b\n1,2\n"), **options)
