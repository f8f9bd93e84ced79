"""Time whole training and scoring: a Criteo-shaped table, Adult, encoded ids, big tables (make bench-training).

Each measurement runs in a process of its own, so that its peak memory is its own. `--tasks` names some of them:
criteo (one epoch of a synthetic table through the training loop), adult (`attfm train adult`, start to end), score
(rows a second of an Adult-shaped model from encoded ids), rows (a step of lazy Adam on two sizes of table).
"""

import argparse
import copy
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attfm.config import ModelConfig, TrainConfig
from attfm.data.batch import Batch
from attfm.data.dataset import Examples, InMemoryDataset
from attfm.model.modules import FactorizationMachine
from attfm.model.task import Binary
from attfm.ops import adam_rows, native_info
from attfm.train.trainer import Trainer, TrainingData
from benchmarks.machine import processor
from benchmarks.pages import circumstances, table, write_section

ADULT_SIZES = [74, 8, 255, 16, 16, 7, 15, 6, 5, 2, 120, 99, 96, 42]


def zipf_ids(sizes: list[int], rows: int) -> Tensor:
    """Return int32 ids whose frequencies within each field fall as 1 / rank."""
    rng, ids = np.random.default_rng(0), np.empty((rows, len(sizes)), np.int32)
    start = 0
    for f, size in enumerate(sizes):
        ends = np.cumsum(1 / np.arange(1, size + 1))
        ids[:, f] = start + np.minimum(np.searchsorted(ends, rng.random(rows) * ends[-1]), size - 1)
        start += size
    return torch.from_numpy(ids)


def measure_criteo(rows: int) -> dict[str, Any]:
    """One epoch: 39 fields, 1 million features, dim 16, attention_dim 16, batches of 4,096."""
    sizes = [25_641] * 39
    ids, features = zipf_ids(sizes, rows), sum(sizes)
    torch.manual_seed(0)
    target = (ids[:, 0] % 2 ^ torch.randint(0, 4, (rows,)).eq(0)).long()
    module = FactorizationMachine(features, 39, 1, ModelConfig.parse({"dim": 16, "attention_dim": 16}))
    config = TrainConfig.parse({"epochs": 1, "batch_size": 4096, "early_stopping": False, "device": "cpu"})
    start = time.perf_counter()
    dataset = InMemoryDataset(Examples(Batch(ids), target, torch.ones(rows)))
    data = TrainingData(Binary("clicked", (0, 1)), dataset, None, np.empty(0, np.int64))
    history = Trainer(module, data, config).run()
    return {
        "rows": rows, "features": features, "epoch_seconds": history.epochs[0].seconds,
        "with_preparation_seconds": time.perf_counter() - start, "train_loss": history.epochs[0].train_loss,
        "peak_gb": peak_gb(), "at_most": {"epoch_seconds": 30, "peak_gb": 3},
    }  # fmt: skip


def measure_adult() -> dict[str, Any]:
    """`attfm train adult` with its defaults, from the start of the process to its end."""
    times = []
    for _ in range(5):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            command = [sys.executable, "-m", "attfm", "train", "adult", "--out", f"{folder}/run"]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
            times.append(time.perf_counter() - start)
    last = done.stdout.splitlines()[-12:]
    return {"seconds": float(np.median(times)), "all_seconds": times, "last_lines": last, "at_most": {"seconds": 10}}


def measure_score(attention_dim: int) -> dict[str, Any]:
    """Rows a second from encoded ids, as `Model` scores them (the module on the kernels), and in float64 without."""
    ids, rows = zipf_ids(ADULT_SIZES, 400_000), 400_000
    torch.manual_seed(0)
    config = ModelConfig.parse({"dim": 16, "attention_dim": attention_dim})
    module = FactorizationMachine(sum(ADULT_SIZES), 14, 1, config)
    encoded = Batch(ids)
    in_float64 = copy.deepcopy(module).double()
    result: dict[str, Any] = {"rows": rows, "attention_dim": attention_dim, "at_least": {"rows_per_second": 1e6}}
    result["rows_per_second"] = rows / fastest(lambda: module.predict(encoded))
    tenth = encoded.slice(0, rows // 10)  # as without compiled kernels
    result["float64_rows_per_second"] = rows // 10 / fastest(lambda: in_float64.predict(tenth), repeats=2)
    return result


def measure_rows(touched: int) -> dict[str, Any]:
    """Milliseconds of a lazy Adam step on `touched` random rows of 1 and of 10 million, dim 16."""
    result: dict[str, Any] = {"touched": touched}
    generator = torch.Generator().manual_seed(0)
    for features in (1_000_000, 10_000_000):
        table, mean, square = (torch.zeros(features, 16) for _ in range(3))
        for tensor in (table, mean, square):
            tensor.fill_(0.1)  # every page is there
        times = []
        for number in range(1, 31):
            rows = torch.randperm(features, generator=generator)[:touched]
            gradient = torch.sparse_coo_tensor(
                rows[None], torch.randn(touched, 16), (features, 16), is_coalesced=True, check_invariants=False
            )
            start = time.perf_counter()
            adam_rows(table, gradient, mean, square, step=number, rate=0.01)
            times.append(time.perf_counter() - start)
        result[f"ms_of_{features}"] = 1e3 * float(np.median(times))
    return result


def fastest(action: Callable[[], object], repeats: int = 5) -> float:
    """Return the seconds of the fastest of some calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_gb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


TASKS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "criteo": lambda options: measure_criteo(options.rows),
    "adult": lambda options: measure_adult(),
    "score": lambda options: {str(size): measure_score(size) for size in (16, 150)},
    "rows": lambda options: {str(touched): measure_rows(touched) for touched in (10_000, 100_000)},
}


def tasks_table(tasks: dict[str, Any]) -> str:
    """Return the figures of the measured tasks as a Markdown table."""
    rows = []
    if "criteo" in tasks:
        found, most = tasks["criteo"], tasks["criteo"]["at_most"]
        what = f"one epoch of {found['rows']:,} rows x 39 fields, {found['features']:,} features, batch 4,096"
        rows.append([what, f"{found['epoch_seconds']:.1f} s", f"at most {most['epoch_seconds']} s"])
        rows.append(["its peak memory", f"{found['peak_gb']:.2f} GB", f"at most {most['peak_gb']} GB"])
    if "adult" in tasks:
        found = tasks["adult"]
        low, *_, high = sorted(found["all_seconds"])
        figure = f"{found['seconds']:.1f} s ({low:.1f} to {high:.1f})"
        rows.append(
            ["`attfm train adult`, start to end, median of 5", figure, f"at most {found['at_most']['seconds']} s"]
        )
    for size, found in tasks.get("score", {}).items():
        if isinstance(found, dict):
            what = f"scoring encoded ids, Adult-shaped, dim 16, attention_dim {size}"
            rows.append([what, f"{found['rows_per_second'] / 1e6:.2f} million rows/s", "at least 1 million"])
            plain = f"{found['float64_rows_per_second']:,.0f} rows/s"
            rows.append(["the same in plain torch, float64", plain, ""])
    for touched, found in tasks.get("rows", {}).items():
        if isinstance(found, dict):
            small, large = found["ms_of_1000000"], found["ms_of_10000000"]
            what = f"a step of lazy Adam, {int(touched):,} touched rows of 1 million / 10 million x 16"
            rows.append([what, f"{small:.2f} / {large:.2f} ms", ""])
    return table(["what", "figure", "to reach"], rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(TASKS), help="comma-separated names")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch and of the kernels")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the Criteo-shaped table")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/performance.md")
    parser.add_argument("--one", choices=TASKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        print(json.dumps(TASKS[options.one](options)))
        return 0
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    report: dict[str, Any] = {
        "commit": commit, "machine": processor(), "threads": options.threads, "torch": torch.__version__,
        "numpy": np.__version__, "python": platform.python_version(), "native": native_info(), "tasks": {},
    }  # fmt: skip
    for name in options.tasks.split(","):
        before = os.getloadavg()[0]
        command = [
            sys.executable,
            "-m",
            "benchmarks.training",
            "--one",
            name,
            "--threads",
            str(options.threads),
            "--rows",
            str(options.rows),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        environment.setdefault("OMP_WAIT_POLICY", "passive")  # as the command attfm does
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        report["tasks"][name] = {**json.loads(done.stdout), "load_before": before, "load_after": os.getloadavg()[0]}
        print(name, json.dumps(report["tasks"][name], indent=2), flush=True)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2))
    if options.docs:
        write_section("training", f"{circumstances(options.threads)}\n\n{tasks_table(report['tasks'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
