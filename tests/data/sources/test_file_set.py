"""Several files as one table: folders and patterns, partitions, types that widen, and files that can't be read."""

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attfm.data.sources.source import Source, open_source
from attfm.errors import SchemaError, SourceError


def columns_of(source: Source, names: list[str] | None = None) -> dict[str, list[Any]]:
    batches = list(source.batches(names))
    return pa.Table.from_batches(batches).to_pydict()


def test_text_files_of_a_folder_are_one_table(tmp_path: Path) -> None:
    for day, rows in (("2024-01-01", "1,x\n2,y\n"), ("2024-01-02", "2.5,z\n")):
        folder = tmp_path / "clicks" / f"day={day}" / f"hour={len(rows)}"
        folder.mkdir(parents=True)
        with gzip.open(folder / "part.csv.gz", "wt") as stream:
            stream.write("n,word\n" + rows)
    (tmp_path / "clicks" / "_SUCCESS").write_text("")
    (tmp_path / "clicks" / ".part.csv.crc").write_text("")
    source = open_source(tmp_path / "clicks")
    assert (source.name, source.num_rows, source.is_text) == ("clicks", 3, True)
    assert columns_of(source) == {
        "n": [1.0, 2.0, 2.5],
        "word": ["x", "y", "z"],
        "day": ["2024-01-01"] * 2 + ["2024-01-02"],
        "hour": [8, 8, 6],
    }
    assert columns_of(source, ["hour"]) == {"hour": [8, 8, 6]}
    assert source.place(2) == "line 2 of part.csv.gz"
    assert columns_of(source.verbatim(["n"]), ["n"]) == {"n": ["1", "2", "2.5"]}


def test_patterns_choose_files_in_the_order_of_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("b-2.csv", 3), ("b-1.csv", 2), ("a-1.csv", 1), ("b-1.tsv", 9)):
        (tmp_path / name).write_text(f"v\n{value}\n")
    assert columns_of(open_source(tmp_path / "b-*.csv")) == {"v": [2, 3]}
    assert columns_of(open_source(str(tmp_path / "[ab]-1.csv"))) == {"v": [1, 2]}
    assert columns_of(open_source(f"file://{tmp_path}/b-*.csv")) == {"v": [2, 3]}
    monkeypatch.chdir(tmp_path)
    assert columns_of(open_source("?-1.csv")) == {"v": [1, 2]}
    with pytest.raises(SourceError, match=r"There is no file .*c-\*\.csv: no name fits the pattern"):
        open_source("c-*.csv")
    (tmp_path / "odd[1].csv").write_text("v\n7\n")
    assert columns_of(open_source("odd[1].csv")) == {"v": [7]}


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ("1", "2.5", [1.0, 2.5]),
        ("1", "word", ["1", "word"]),
        ("", "4", [None, 4]),
        ("007", "8", ["007", "8"]),
        ("2024-01-01", "5", ["2024-01-01", "5"]),
        ("true", "false", [True, False]),
    ],
)
def test_a_column_has_the_type_that_holds_the_cells_of_all_files(
    tmp_path: Path, first: str, second: str, wanted: list[Any]
) -> None:
    for number, cell in enumerate((first, second)):
        (tmp_path / f"{number}.csv").write_text(f"a,b\n{cell},1\n")
    assert columns_of(open_source(tmp_path))["a"] == wanted


def test_columns_that_a_file_lacks_are_missing_there(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,b\n1,2\n")
    (tmp_path / "2.csv").write_text("b,c\n3,4\n")
    assert columns_of(open_source(tmp_path)) == {"a": [1, None], "b": [2, 3], "c": [None, 4]}
    assert columns_of(open_source(tmp_path), ["c"]) == {"c": [None, 4]}
    (tmp_path / "3.csv").write_text("5,6\n7,8\n")
    with pytest.raises(SchemaError, match=r"3\.csv has none of the columns .*begins with '5'.*same header"):
        open_source(tmp_path)


def test_a_later_table_is_read_in_the_types_of_the_training(tmp_path: Path) -> None:
    for number, cell in enumerate(("1", "x")):
        (tmp_path / f"{number}.csv").write_text(f"a,b\n{cell},{number}\n")
    source = open_source(tmp_path, stored={"a": pa.large_string(), "b": pa.int64()})
    assert columns_of(source)["a"] == ["1", "x"]


def test_a_file_that_cannot_be_read_is_named_with_its_row_group(tmp_path: Path) -> None:
    for name in ("p-1", "p-2"):
        pq.write_table(
            pa.table({"a": list(range(9000)), "b": [f"{i:09d}" for i in range(9000)]}), tmp_path / f"{name}.parquet",
            row_group_size=3000, compression="zstd", use_dictionary=False,
        )  # fmt: skip
    file = tmp_path / "p-2.parquet"
    content = bytearray(file.read_bytes())
    middle = pq.ParquetFile(file).metadata.row_group(1).column(1)
    start = middle.data_page_offset
    content[start + 40 : start + 400] = bytes(360)
    file.write_bytes(bytes(content))
    source = open_source(tmp_path)
    with pytest.raises(SourceError, match=r"p-2\.parquet is damaged or cut short in row group 1 \(of 3"):
        columns_of(source)
    assert len(columns_of(source, ["a"])["a"]) == 18_000  # what is whole can be read


def test_a_text_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    whole = gzip.compress(b"a,b\n" + b"1,2\n" * 50_000)
    (tmp_path / "1.csv.gz").write_bytes(whole)
    (tmp_path / "2.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"2\.csv\.gz"):
        open_source(tmp_path)


def test_bad_files_can_be_left_out_and_are_listed(tmp_path: Path) -> None:
    for number in range(3):
        pq.write_table(pa.table({"a": [number] * 100, "b": ["x"] * 100}), tmp_path / f"{number}.parquet")
    (tmp_path / "1.parquet").write_bytes(b"no such thing")
    (tmp_path / "3.parquet").write_bytes((tmp_path / "2.parquet").read_bytes()[:-40])
    with pytest.raises(SourceError, match=r"1\.parquet"):
        open_source(tmp_path)
    source = open_source(tmp_path, skip_bad_files=True)
    assert columns_of(source, ["a"])["a"] == [0] * 100 + [2] * 100
    assert [sentence.split()[0] for sentence in source.skipped] == ["1.parquet", "3.parquet"]
    for number in range(2):
        (tmp_path / f"{number}.csv").write_text("a,b\n1,2\n" if number else "a,b\n1,2\n3\n")
    source = open_source(tmp_path / "*.csv", skip_bad_files=True)
    assert columns_of(source) == {"a": [1], "b": [2]}
    assert len(source.skipped) == 1
    (tmp_path / "1.csv").write_text('a,b\n"1,2\n')
    with pytest.raises(SourceError, match=r"none of the 2 files can be read.*0\.csv"):
        open_source(tmp_path / "*.csv", skip_bad_files=True)


def test_files_of_fsspec(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for number in (1, 2):
        memory.pipe(f"/clicks/{number}.csv", f"a\n{number}\n".encode())
    assert columns_of(open_source("memory://clicks/1.csv")) == {"a": [1]}
    assert columns_of(open_source("memory://clicks")) == {"a": [1, 2]}
    assert columns_of(open_source("memory://clicks/*.csv")) == {"a": [1, 2]}
    with pytest.raises(SourceError, match="nowhere://x can't be opened"):
        open_source("nowhere://x")
