"""The frames and the runs on which the faces are compared."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attfm import AFMClassifier, AFMRegressor
from attfm.cli import main
from tests.contract.golden import labels, table

Frame = Callable[[pa.Table], Any]
TASKS = ("binary", "multiclass", "regression")
THRESHOLDS = (0.5, 0.9)
SETTINGS = {"epochs": 3, "learning_rate": 0.05, "dim": 3, "attention_dim": 2}
NULLABLE = {pa.int64(): pd.Int64Dtype(), pa.float64(): pd.Float64Dtype(), pa.string(): pd.StringDtype()}
FRAMES: dict[str, Frame] = {
    "pandas numpy": lambda table: table.to_pandas(),
    "pandas nullable": lambda table: table.to_pandas(types_mapper=NULLABLE.get),
    "polars": polars.from_arrow,
    "Arrow": lambda table: table,
}


def inputs() -> pa.Table:
    """Return the golden table, with gaps in its strings and integers too, as missing values rather than as NaN."""
    data = table()
    gaps = np.arange(len(data)) % 9 == 4
    for name in ("job", "town"):
        data = data.set_column(data.column_names.index(name), name, pa.array(data[name].to_numpy(), mask=gaps))
    age = pa.array(data["age"].to_numpy(), from_pandas=True)
    return data.set_column(data.column_names.index("age"), "age", age)


@dataclass(frozen=True)
class Run:
    """A run folder with the rows that it was trained on, and the path of a file of them."""

    task: str
    threshold: float
    folder: str
    X: pa.Table
    y: np.ndarray[Any, Any]
    file: str


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Return what gives the run of a task with a threshold, trained once by the "command" or the "estimator".

    Those of the estimator are ensembles of two models, those of the command are one. With `calibrate`, "none" among
    them, the command holds some rows out for validation; else it trains on all.
    """

    @cache
    def made(task: str, threshold: float, origin: str, calibrate: str | None = None) -> Run:
        path = tmp_path_factory.mktemp("faces")
        X, y = inputs(), labels(task)
        run = Run(task, threshold, str(path / "run"), X, y, str(path / "rows.parquet"))
        pq.write_table(X.append_column("row", pa.array(range(len(X)))), run.file)
        if origin == "command":
            train(path, run, calibrate)
        else:
            kind = AFMRegressor if task == "regression" else AFMClassifier
            columns = {"town": {"kind": "categorical"}}
            calibrated = {} if calibrate is None else {"calibrate": calibrate}
            kind(**SETTINGS, **calibrated, n_models=2, threshold=threshold, columns=columns).fit(X, y).save(run.folder)
        return run

    return made


def train(path: Path, run: Run, calibrate: str | None) -> None:
    """Train by the command, on all rows where nothing is calibrated."""
    pq.write_table(run.X.append_column("y", pa.array(run.y)), path / "training.parquet")
    settings = {**SETTINGS, "threshold": run.threshold, "columns.town.kind": "categorical"}
    given = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    given += [] if calibrate is None else ["--set", f"calibrate={calibrate}"]
    parts = ["--valid", "none" if calibrate is None else "0.3", "--test", "none", "--no-report", "--quiet"]
    assert main(["train", str(path / "training.parquet"), "--target", "y", "--out", run.folder, *parts, *given]) == 0
