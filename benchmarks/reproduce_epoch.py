"""Time an epoch of `attfm reproduce adult`, with the compiled kernels and in eager torch (make bench-kernels).

Both train the same way on the bundled table (19,536 rows, batch 1,024); only the pooling differs. They take turns, each
in processes of its own: eager torch as it comes, the kernels with OpenMP's threads asleep between operations, as the
command `attfm` has them. An epoch is the median of their steps times the number of steps, without validation.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from attfm.data.datasets import DATASETS, adult_split
from attfm.data.inference import infer_schema
from attfm.data.sources.source import open_source
from attfm.data.split import Split
from attfm.model.modules import FactorizationMachine
from attfm.ops import Backend, native_info, use_backend
from attfm.reproduce.adult import Variant, adult_variants
from attfm.train.fit import fit
from attfm.train.observer import Epoch, Observer
from attfm.train.prepare import LabelledTable, Tables
from benchmarks.pages import circumstances, table, write_section

if TYPE_CHECKING:
    from collections.abc import Callable


class Stamps(Observer):
    """Notes when each step of each epoch was done."""

    def __init__(self, clock: "Callable[[], float]") -> None:
        self.clock = clock
        self.epochs: list[list[float]] = [[]]

    def on_batch(self, rows: int) -> None:
        self.epochs[-1].append(self.clock())

    def on_epoch(self, epoch: Epoch, module: FactorizationMachine) -> bool:
        self.epochs.append([])
        return False


def step_seconds(variant: Variant, backend: Backend, clock: "Callable[[], float]") -> tuple[list[float], int]:
    """Return the seconds of each step but the first of an epoch, and the steps of an epoch."""
    dataset = DATASETS["adult"]
    source, labels = open_source(dataset.path), dataset.table()[dataset.target]
    train_rows, valid_rows, _ = adult_split(labels.to_numpy())
    split, everything = Split(train_rows, valid_rows), np.arange(len(labels))
    schema = infer_schema(
        source.batches(), source.schema, target=dataset.target, config=variant.config.data, source=source.name
    )
    table = LabelledTable(source, labels)
    stamps = Stamps(clock)
    with use_backend(backend):
        fit(Tables(table, schema, dataset.target, split, encoder_rows=everything), variant.config, stamps)
    return [later - earlier for epoch in stamps.epochs for earlier, later in pairwise(epoch)], len(stamps.epochs[0])


def in_own_process(backend: str, variant: int, options: argparse.Namespace) -> tuple[list[float], int]:
    """Return what `step_seconds` returns, measured by a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    if backend == "native":
        environment.setdefault("OMP_WAIT_POLICY", "passive")
    command = [
        sys.executable,
        "-m",
        "benchmarks.reproduce_epoch",
        "--one",
        backend,
        str(variant),
        "--threads",
        str(options.threads),
    ]
    command += ["--epochs", str(options.epochs), *(["--busy"] if options.busy else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    seconds, steps = json.loads(done.stdout)
    return seconds, steps


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch and of the kernels")
    parser.add_argument("--turns", type=int, default=2, help="times that each trains")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of a turn")
    parser.add_argument("--one", nargs=2, metavar=("BACKEND", "VARIANT"), help=argparse.SUPPRESS)
    parser.add_argument("--docs", action="store_true", help="write the table into docs/performance.md")
    parser.add_argument("--busy", action="store_true", help="one thread, its processor time: for a machine in use")
    options = parser.parse_args()
    if options.busy:
        options.threads = 1
    clock = time.thread_time if options.busy else time.perf_counter
    if not native_info()["available"]:
        print("attfm was installed without its compiled kernels: nothing to measure.", file=sys.stderr)
        return 1
    torch.set_num_threads(options.threads)
    variants = adult_variants(epochs=options.epochs)[:2]
    if options.one:
        backend, number = options.one
        print(json.dumps(step_seconds(variants[int(number)], backend, clock)))
        return 0
    clock_name = "processor" if options.busy else "wall"
    print(circumstances(options.threads, clock_name))
    rows = []
    for number, variant in enumerate(variants):
        times: dict[str, list[float]] = {"native": [], "reference": []}
        steps = 0
        for _ in range(options.turns):
            for backend, taken in times.items():
                seconds, steps = in_own_process(backend, number, options)
                taken += seconds
        fast, slow = (steps * statistics.median(taken) for taken in times.values())
        print(f"{variant.title}: native {fast:.3f} s, eager {slow:.3f} s an epoch, {slow / fast:.1f} times faster")
        rows.append([variant.title, f"{fast:.3f} s", f"{slow:.3f} s", f"{slow / fast:.1f}"])
    if options.docs:
        head = ["setting", "kernels", "eager torch", "times faster (to reach: 15)"]
        write_section("reproduce", f"{circumstances(options.threads, clock_name)}\n\n{table(head, rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
