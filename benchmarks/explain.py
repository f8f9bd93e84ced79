"""How fast a model trained on Adult explains rows of Adult, in bounded memory, and what the summary costs training.

Example: python -m benchmarks.explain --rows 100000 --json
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

import attfm
from attfm import AFMClassifier, load_dataset
from attfm.data.dataset import Examples, InMemoryDataset
from attfm.data.sources.source import open_source
from attfm.explain.explainer import Explainer
from attfm.explain.summary import summarise
from attfm.ops import native_info


def commit() -> str:
    """Return the commit that is measured, or "?"."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "?"


def memory(kind: str) -> int:
    """Return the process's memory in MiB: "VmRSS" now, "VmHWM" the most since `forget_peak` (Linux only)."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(kind)).split()[1]) // 1024


def forget_peak() -> int:
    """Start a new peak of memory, and return what is held now, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def main() -> None:
    """Measure, and print seconds, rows per second and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2, help="of training, on which the speed does not depend")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    adult = load_dataset("adult")
    X, y = adult.drop_columns(["income"]), adult["income"].to_pylist()
    start = time.perf_counter()
    model = AFMClassifier(epochs=options.epochs).fit(X, y).model_
    training = time.perf_counter() - start
    rows = np.resize(np.arange(X.num_rows), options.rows)
    source = open_source(X.take(pa.array(rows)))

    streamed, scored = [], []
    before = forget_peak()
    for _ in range(options.repeats):
        start = time.perf_counter()
        explained = sum(len(part) for part in Explainer(model).chunks(source))
        streamed.append(time.perf_counter() - start)
        if explained != options.rows:
            raise SystemExit(f"{explained} rows were explained, not {options.rows}")
    growth = memory("VmHWM") - before
    for _ in range(options.repeats):
        start = time.perf_counter()
        model.logits(source)
        scored.append(time.perf_counter() - start)
    before = forget_peak()
    start = time.perf_counter()
    Explainer(model).of_rows(source, None)
    held, held_growth = time.perf_counter() - start, memory("VmHWM") - before
    encoded = model.encoder.transform(X)
    dataset = InMemoryDataset(Examples(encoded, torch.zeros(len(encoded)), torch.ones(len(encoded))))
    start = time.perf_counter()
    summarise(model.module, model.encoder, dataset)
    summary = time.perf_counter() - start

    seconds = statistics.median(streamed)
    result = {
        "rows": options.rows,
        "fields": len(model.encoder.fields),
        "explain_seconds": round(seconds, 3),
        "explain_rows_per_second": round(options.rows / seconds),
        "explain_memory_growth_mib": growth,
        "all_at_once_seconds": round(held, 3),
        "scoring_seconds": round(statistics.median(scored), 3),
        "summary_seconds": round(summary, 3),
        "training_seconds": round(training, 3),
        "training_epochs": options.epochs,
        "all_at_once_memory_growth_mib": held_growth,
        "threads": options.threads,
        "kernels": native_info()["isa"],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "commit": commit(),
        "versions": {
            "attfm": attfm.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"{options.rows:,} rows x {result['fields']} fields on {result['machine']}, {options.threads} threads")
    print(
        f"explained in chunks    {seconds:7.2f} s   {result['explain_rows_per_second']:,} rows/s, memory grew by "
        f"{growth} MiB   (median of {options.repeats})"
    )
    print(f"explained all at once  {held:7.2f} s   memory grew by {held_growth} MiB")
    print(f"scored only            {result['scoring_seconds']:7.2f} s")
    print(f"summary for the folder {summary:7.2f} s   of {X.num_rows:,} rows; the fit took {training:.1f} s")


if __name__ == "__main__":
    sys.exit(main())
