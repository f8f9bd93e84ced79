"""One fit in a process of its own, so that its memory and its threads are its own: prints a JSON line for each scorer.

python -m benchmarks.accuracy.worker '{"table": "adult", "model": "lightgbm", "seed": 0, "split_seed": 1234, ...}'
"""

import json
import math
import os
import platform
import statistics
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.accuracy.models import MODELS, Fitted, Job, Model, UnavailableError
from benchmarks.accuracy.scores import scores
from benchmarks.accuracy.tables import AbsentTableError, Table, load
from benchmarks.machine import Neighbours, commit, peak_megabytes, processor

IDLE_SHARE = 0.05  # of the processors that others may use while a run still counts as alone
SCORED_ROWS, SCORED_TIMES = 20_000, 3
NOT_MEASURED = 3  # exit code where there is nothing to measure, and a sentence says why


def measured(fitted: Fitted, table: Table) -> dict[str, Any]:
    """Return the scores of both parts, and how many rows are scored a second from a DataFrame.

    A small test part is repeated, so that the speed is of rows and not of the call.
    """
    parts, seconds = table.parts, []
    X_test = table.X.iloc[parts.test]
    found = fitted.score(X_test)
    many = pd.concat([X_test] * math.ceil(SCORED_ROWS / len(X_test)), ignore_index=True)
    for _ in range(SCORED_TIMES):
        started = time.perf_counter()
        fitted.score(many)
        seconds.append(time.perf_counter() - started)
    regression, valid = table.task == "regression", None
    if fitted.rows == "training":
        valid = scores(table.y[parts.valid], fitted.score(table.X.iloc[parts.valid]), regression=regression)
    return {
        "valid": valid,
        "test": scores(table.y[parts.test], found, regression=regression),
        "rows_per_second": round(len(many) / statistics.median(seconds)),
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
    started, processor_started = time.perf_counter(), time.process_time()
    pause = processor_pause = 0.0  # what measuring took
    for fitted in model.fit(Job(table, job["seed"], job["threads"])):
        seconds = time.perf_counter() - started - pause
        processor_seconds = time.process_time() - processor_started - processor_pause
        share = neighbours.share()
        peak = peak_megabytes()
        record = {
            "table": job["table"], "model": job["model"] + fitted.suffix, "seed": job["seed"],
            "split_seed": job["split_seed"], "taught_by": fitted.rows, **measured(fitted, table),
            "fit_seconds": round(seconds, 2), "cpu_seconds": round(processor_seconds, 2),
            "peak_mb": round(peak), "table_mb": round(before), **fitted.facts,
            "idle": None if share is None else share < IDLE_SHARE, "others": None if share is None else round(share, 2),
            **circumstances(model, job["threads"]),
        }  # fmt: skip
        print(json.dumps(record), file=out, flush=True)
        pause = time.perf_counter() - started - seconds
        processor_pause = time.process_time() - processor_started - processor_seconds


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
