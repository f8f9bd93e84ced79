"""The files of a table, one by one, give the batches of the whole, in other processes too."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from attfm.data.sources.source import open_source


def written(folder: Path, kind: str) -> Path:
    """Write three files, below folders that give a column; return where they lie."""
    for number, rows in enumerate((70_000, 3, 500)):
        path = folder / kind / f"day={number}"
        path.mkdir(parents=True)
        level = pa.DictionaryArray.from_arrays(
            pa.array(np.arange(rows, dtype=np.int32) % (number + 2)),
            pa.array(["low", "mid", "high", "top"]),
            ordered=True,
        )
        table = pa.table({"x": np.arange(rows) * 0.5, "level": level})
        if kind == "csv":
            pacsv.write_csv(table.cast(pa.schema({"x": pa.float64(), "level": pa.string()})), path / "part.csv")
        else:
            pq.write_table(table, path / "part.parquet")
    return folder / kind


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_parts_are_the_whole(kind: str, tmp_path: Path) -> None:
    source = open_source(str(written(tmp_path, kind)))
    parts = pickle.loads(pickle.dumps(source.parts()))
    assert [part.num_rows for part in parts] == [70_000, 3, 500]
    for columns in (None, ["day", "level"]):
        whole = list(source.batches(columns))
        assert len(whole) == 4
        for batch, of_part in zip(whole, (b for part in parts for b in part.batches(columns)), strict=True):
            assert batch.equals(of_part)


def test_what_is_not_files_has_no_parts(tmp_path: Path) -> None:
    assert open_source({"x": [1, 2]}).parts() == []
    path = written(tmp_path, "csv")
    assert open_source(str(path)).head(5).parts() == []
    assert len(open_source(str(path / "day=1" / "part.csv")).parts()) == 1
