"""Measure models on tables, one process for each fit, and write what came out.

    python -m benchmarks.accuracy --data DIR                                      # all tables and models, three seeds
    python -m benchmarks.accuracy --tables adult --models attfm,lightgbm --seeds 1
    python -m benchmarks.accuracy --summary                                       # of the recorded lines; runs nothing
    python -m benchmarks.accuracy --docs                                          # writes docs/benchmarks.md from them

Adult is bundled; the other tables lie in the folder that --data or the variable ATTFM_DATA names, and are skipped
without it. `tags` is measured only where it is named (docs/benchmarks.md says why). Needs `pip install -e ".[bench]"`.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.accuracy.models import MODELS
from benchmarks.accuracy.page import write_page
from benchmarks.accuracy.records import RESULTS, append, key, read
from benchmarks.accuracy.summary import summary
from benchmarks.accuracy.tables import SPLIT_SEED, TABLES, AbsentTableError, load
from benchmarks.accuracy.worker import NOT_MEASURED

ROOT = Path(__file__).parents[2]


def chosen(given: str | None, known: list[str], what: str, parser: argparse.ArgumentParser) -> list[str]:
    """Return the names of a comma-separated list, or all that are known."""
    if given in (None, "all"):
        return known
    names = given.split(",")
    allowed = TABLES if what == "table" else MODELS
    if unknown := [name for name in names if name not in allowed]:
        parser.error(f"there is no {what} '{unknown[0]}': there are {', '.join(allowed)}")
    return names


def seeds_of(table: str, seeds: int, splits: int | None = None) -> list[tuple[int, int]]:
    """Return the seed and the split's seed of each run; a table with several splits has one run for each of them.

    Parameters
    ----------
    splits : of a table with several; None: as many as the goals are about
    """
    if TABLES[table].splits > 1:
        splits = splits or TABLES[table].splits
        return [(split, SPLIT_SEED + split) for split in range(splits)]
    return [(seed, SPLIT_SEED) for seed in range(seeds)]


def run(job: dict[str, Any], limit: float | None) -> tuple[list[dict[str, Any]], int]:
    """Run one fit in a process of its own; return its lines and its exit code.

    A run that takes longer than `limit` seconds is given up, and leaves a line that says so.
    """
    command = [sys.executable, "-m", "benchmarks.accuracy.worker", json.dumps(job)]
    settings = os.environ | {"OMP_NUM_THREADS": str(job["threads"])}
    where = f"{job['table']}, {job['model']}, seed {job['seed']}, split {job['split_seed']}"
    try:
        done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        print(f"{where}: given up after {limit:.0f} s", flush=True)
        skipped = {name: job[name] for name in ("table", "model", "seed", "split_seed", "threads")}
        return [skipped | {"skipped": f"took longer than {limit:.0f} s"}], 0
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        print(f"{where}: {said[-1]}", flush=True)
    return [json.loads(line) for line in done.stdout.splitlines()], done.returncode


def main() -> int:
    """Run what is asked for; return 1 where a run failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("ATTFM_DATA"), help="folder of the tables")
    parser.add_argument("--tables", help="comma-separated, or all but tags: all")
    parser.add_argument("--models", help="comma-separated, or all")
    parser.add_argument(
        "--seeds", type=int, default=3, help="runs of each model on a table (German credit: ten splits)"
    )
    parser.add_argument("--splits", type=int, help="of a table that has several, for more of them than ten")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each run")
    parser.add_argument("--limit", type=float, help="seconds after which a run is given up")
    parser.add_argument("--missing", action="store_true", help="leave out runs that FILE has already")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FILE", help="JSON lines, added to")
    parser.add_argument("--summary", action="store_true", help="print means, spreads and verdicts")
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md")
    options = parser.parse_args()
    failed = False
    if options.tables or options.models or not (options.summary or options.docs):
        tables = chosen(options.tables, [name for name in TABLES if TABLES[name].by_default], "table", parser)
        models = chosen(options.models, list(MODELS), "model", parser)
        failed = measure(tables, models, options)
    if options.summary:
        print(summary(read(options.out)))
    if options.docs:
        write_page(read(options.out))
    return int(failed)


def measure(tables: list[str], models: list[str], options: argparse.Namespace) -> bool:
    """Run each model on each table; return whether a run failed."""
    for name in models:
        if absent := MODELS[name].absent():
            print(f"{name}: skipped, {' and '.join(absent)} not installed (pip install {' '.join(absent)})", flush=True)
    models = [name for name in models if not MODELS[name].absent()]
    failed = False
    for table in tables:
        try:
            load(table, options.data)
        except AbsentTableError as error:
            print(error, flush=True)
            continue
        for model in models:
            for seed, split_seed in seeds_of(table, options.seeds, options.splits):
                job = {"table": table, "model": model, "seed": seed, "split_seed": split_seed,
                       "threads": options.threads, "data": options.data and str(options.data)}  # fmt: skip
                if options.missing and key(job) in {key(record) for record in read(options.out)}:
                    continue
                records, code = run(job, options.limit or MODELS[model].limit)
                append(options.out, records)
                for record in records:
                    print(line(record), flush=True)
                if code == NOT_MEASURED:
                    break  # the other seeds would say the same
                failed |= code != 0
    return failed


def line(record: dict[str, Any]) -> str:
    """Return what is printed of a run."""
    if "skipped" in record:
        return f"{record['table']} {record['model']}: {record['skipped']}"
    scores = ", ".join(f"{name} {value:.4f}" for name, value in record["test"].items())
    return (
        f"{record['table']} {record['model']} seed {record['seed']} split {record['split_seed']}: test {scores}; "
        f"{record['fit_seconds']:.1f} s, {record['peak_mb']} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
