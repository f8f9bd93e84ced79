"""One fit in a process of its own, so that its memory and its threads are its own: prints a JSON line for each scorer.

python -m benchmarks.accuracy.worker '{"table": "adult", "model": "lightgbm", "seed": 0, "split_seed": 1234, ...}'
"""

import json
import os
import platform
import statistics
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.accuracy.models import MODELS, Fitted, Job, Model, UnavailableError
from benchmarks.accuracy.tables import AbsentTableError, Floats, RowNumbers, Table, load
from benchmarks.machine import Neighbours, commit, peak_megabytes, processor

IDLE_SHARE = 0.05  # of the processors that others may use while a run still counts as alone
SCORED_TIMES = 3
NOT_MEASURED = 3  # exit code where there is nothing to measure, and a sentence says why


def scores_of(table: Table, rows: RowNumbers, found: Floats) -> dict[str, float]:
    """Return AUC and log loss, or RMSE, of what a model said of some rows."""
    y = table.y[rows]
    if table.task == "regression":
        return {"rmse": round(float(np.sqrt(np.mean((found - y) ** 2))), 6)}
    return {"auc": round(float(roc_auc_score(y, found)), 6), "log_loss": round(float(log_loss(y, found)), 6)}


def measured(fitted: Fitted, table: Table) -> dict[str, Any]:
    """Return the scores of both parts, and how many rows of the test part are scored a second from the frame."""
    parts = table.parts
    X_test, seconds = table.X.iloc[parts.test], []
    found = fitted.score(X_test)
    for _ in range(SCORED_TIMES):
        started = time.perf_counter()
        fitted.score(X_test)
        seconds.append(time.perf_counter() - started)
    taught = fitted.rows != "training"
    return {
        "valid": None if taught else scores_of(table, parts.valid, fitted.score(table.X.iloc[parts.valid])),
        "test": scores_of(table, parts.test, found),
        "rows_per_second": round(len(found) / statistics.median(seconds)),
    }


def circumstances(model: Model, threads: int) -> dict[str, Any]:
    """Return versions, commit and machine of a run."""
    packages = dict.fromkeys((*model.packages, "numpy", "pandas"))
    return {
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in packages if name != "attfm"},
        "commit": commit(),
        "machine": {"processor": processor(), "cores": os.cpu_count()},
        "threads": threads,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def run(job: dict[str, Any], out: Any) -> None:
    """Fit, measure, and write a line for each scorer.

    Parameters
    ----------
    job : table, model, seed, split_seed, threads and data (a folder or None)
    out : file, written to line by line
    """
    table = load(job["table"], job["data"] and Path(job["data"]), job["split_seed"])
    model = MODELS[job["model"]]
    before, neighbours = peak_megabytes(), Neighbours()
    started = time.perf_counter()
    pause = 0.0  # what measuring took
    for fitted in model.fit(Job(table, job["seed"], job["threads"])):
        seconds = time.perf_counter() - started - pause
        share = neighbours.share()
        peak = peak_megabytes()
        record = {
            "table": job["table"], "model": job["model"] + fitted.suffix, "seed": job["seed"],
            "split_seed": job["split_seed"], "taught_by": fitted.rows, **measured(fitted, table),
            "fit_seconds": round(seconds, 2), "peak_mb": round(peak), "table_mb": round(before), **fitted.facts,
            "idle": None if share is None else share < IDLE_SHARE, "others": None if share is None else round(share, 2),
            **circumstances(model, job["threads"]),
        }  # fmt: skip
        print(json.dumps(record), file=out, flush=True)
        pause = time.perf_counter() - started - seconds


def main() -> int:
    """Run the job that the argument describes; libraries that print do so to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        run(json.loads(sys.argv[1]), out)
    except (AbsentTableError, UnavailableError) as error:
        print(error, file=sys.stderr)
        return NOT_MEASURED
    return 0


if __name__ == "__main__":
    sys.exit(main())
