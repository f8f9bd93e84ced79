"""How fast an Adult-like table is read from a CSV, and turned into feature ids.

Example: python -m benchmarks.encode --rows 1000000 --json
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

import attfm
from attfm.config import DataConfig
from attfm.data.encoder import Encoder
from attfm.data.inference import infer_schema
from attfm.data.sources.source import open_source

# Distinct values of the string columns of the Adult table, and the mean length of their strings.
STRINGS = {
    "workclass": (8, 9),
    "education": (16, 9),
    "marital-status": (7, 15),
    "occupation": (14, 13),
    "relationship": (6, 10),
    "race": (5, 7),
    "sex": (2, 5),
    "native-country": (41, 11),
}


def adult_like(rows: int, *, seed: int = 0) -> pa.Table:
    """Return a random table with 8 string columns, plain and not dictionaries, and 6 of integers."""
    rng = np.random.default_rng(seed)
    columns: dict[str, pa.Array] = {
        "age": pa.array(np.clip(rng.normal(38, 13, rows), 17, 90).astype(np.int64)),
        "fnlwgt": pa.array(rng.lognormal(12, 0.6, rows).astype(np.int64)),
        "education-num": pa.array(rng.integers(1, 17, rows)),
        "capital-gain": pa.array(np.where(rng.random(rows) < 0.92, 0, rng.integers(100, 100_000, rows))),
        "capital-loss": pa.array(np.where(rng.random(rows) < 0.95, 0, rng.integers(150, 4_400, rows))),
        "hours-per-week": pa.array(np.clip(rng.normal(40, 12, rows), 1, 99).astype(np.int64)),
    }
    for name, (distinct, length) in STRINGS.items():
        share = 1 / np.arange(1, distinct + 1)
        codes = rng.choice(distinct, rows, p=share / share.sum())
        words = pa.array([f"{name[:3]}-{i}".ljust(length, "x") for i in range(distinct)])
        columns[name] = words.take(pa.array(codes))
    return pa.table(columns)


def csv_seconds(table: pa.Table, repeats: int) -> tuple[float, float]:
    """Return the median seconds to open the table as a CSV, which checks and types it, and to read all of it."""
    opening, reading = [], []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "table.csv"
        pacsv.write_csv(table, file)
        for _ in range(repeats):
            start = time.perf_counter()
            source = open_source(file)
            opened = time.perf_counter()
            assert sum(batch.num_rows for batch in source.batches()) == len(table)
            opening.append(opened - start)
            reading.append(time.perf_counter() - opened)
    return statistics.median(opening), statistics.median(reading)


def main() -> None:
    """Measure fit and transform, and print seconds and rows per second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    if options.rows < 1 or options.repeats < 1:
        parser.error("--rows and --repeats must be at least 1")

    table = adult_like(options.rows)
    schema = infer_schema(table.to_batches(), table.schema, target=None, config=DataConfig())
    start = time.perf_counter()
    encoder = Encoder.fit(schema, table.to_batches())
    fit = time.perf_counter() - start
    seconds = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        encoder.transform(table)
        seconds.append(time.perf_counter() - start)
    one_row = table.slice(0, 1)
    start = time.perf_counter()
    for _ in range(100):
        encoder.transform(one_row)
    single = (time.perf_counter() - start) / 100
    opening, reading = csv_seconds(table, options.repeats)
    result = {
        "rows": options.rows,
        "columns": table.num_columns,
        "fit_seconds": round(fit, 3),
        "transform_seconds": round(statistics.median(seconds), 3),
        "transform_rows_per_second": round(options.rows / statistics.median(seconds)),
        "single_row_milliseconds": round(1e3 * single, 3),
        "csv_open_seconds": round(opening, 3),
        "csv_read_seconds": round(reading, 3),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {
            "attfm": getattr(attfm, "__version__", "?"),
            "numpy": np.__version__,
            "pyarrow": pa.__version__,
            "python": platform.python_version(),
        },
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"{options.rows:,} rows x {table.num_columns} columns on {result['machine']}")
    print(f"fit        {result['fit_seconds']:8.3f} s")
    print(
        f"transform  {result['transform_seconds']:8.3f} s   {result['transform_rows_per_second']:,} rows/s"
        f"   (median of {options.repeats})"
    )
    print(f"one row    {result['single_row_milliseconds']:8.3f} ms")
    print(f"CSV        {opening:8.3f} s to check it and find its types, {reading:.3f} s to read it")


if __name__ == "__main__":
    sys.exit(main())
