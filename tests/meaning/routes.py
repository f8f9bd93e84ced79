"""The ways by which a table can come: frames, rows, and files; each from an Arrow table."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

from attfm.data.sources.source import open_source

Route = Callable[[pa.Table, Path], Any]
NULLABLE: dict[pa.DataType, Any] = {
    **{pa.type_for_alias(f"int{bits}"): pd.array([], f"Int{bits}").dtype for bits in (8, 16, 32, 64)},
    pa.uint64(): pd.UInt64Dtype(),
    pa.float32(): pd.Float32Dtype(),
    pa.float64(): pd.Float64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
    pa.string(): pd.StringDtype(),
}


def _rows(table: pa.Table, path: Path) -> Any:
    return open_source([list(row.values()) for row in table.to_pylist()], names=table.column_names)


def _csv(table: pa.Table, path: Path) -> str:
    table.to_pandas().to_csv(path / "table.csv", index=False)
    return str(path / "table.csv")


def _spaced_csv(table: pa.Table, path: Path) -> str:
    """A CSV with spaces around all cells, in the header too, and another separator."""
    frame = pd.read_csv(_csv(table, path), dtype=str, keep_default_na=False)
    lines = [frame.columns.tolist(), *frame.to_numpy().tolist()]
    text = "\n".join(";".join(f"  {cell} " for cell in line) for line in lines)
    (path / "spaced.csv").write_text(text + "\n")
    return str(path / "spaced.csv")


def _gz(table: pa.Table, path: Path) -> str:
    text = Path(_csv(table, path)).read_bytes()
    (path / "table.csv.gz").write_bytes(gzip.compress(text))
    return str(path / "table.csv.gz")


def _polars_csv(table: pa.Table, path: Path) -> str:
    polars.from_arrow(table).write_csv(path / "polars.csv")  # type: ignore[union-attr]
    return str(path / "polars.csv")


def _parquet(table: pa.Table, path: Path) -> str:
    pq.write_table(table, path / "table.parquet")
    return str(path / "table.parquet")


def _pandas_parquet(table: pa.Table, path: Path) -> str:
    table.to_pandas().to_parquet(path / "pandas.parquet")
    return str(path / "pandas.parquet")


def _ipc(table: pa.Table, path: Path) -> str:
    pyarrow.feather.write_feather(table, path / "table.arrow")
    return str(path / "table.arrow")


def _polars_ipc(table: pa.Table, path: Path) -> str:
    polars.from_arrow(table).write_ipc(path / "polars.arrow")  # type: ignore[union-attr]
    return str(path / "polars.arrow")


MEMORY: dict[str, Route] = {
    "Arrow": lambda table, path: table,
    "pandas numpy": lambda table, path: table.to_pandas(),
    "pandas nullable": lambda table, path: table.to_pandas(types_mapper=NULLABLE.get),
    "pandas Arrow": lambda table, path: table.to_pandas(types_mapper=pd.ArrowDtype),
    "pandas objects": lambda table, path: pd.DataFrame(table.to_pydict(), dtype=object),
    "polars": lambda table, path: polars.from_arrow(table),
    "dict of columns": lambda table, path: table.to_pydict(),
    "list of rows": _rows,
    "list of dicts": lambda table, path: table.to_pylist(),
}
FILES: dict[str, Route] = {
    "CSV": _csv,
    "CSV with spaces": _spaced_csv,
    "CSV.gz": _gz,
    "CSV of polars": _polars_csv,
    "Parquet": _parquet,
    "Parquet of pandas": _pandas_parquet,
    "IPC": _ipc,
    "IPC of polars": _polars_ipc,
}
ROUTES = {**MEMORY, **FILES}
