"""Time one training step of pair pooling, compiled kernels against other implementations (make bench-kernels).

Every figure of a shape is taken in turn in the same process, so the ratios hold although the times vary from
machine to machine. `--data DIR` (or ATTFM_DATA) names a folder with the Adult, Frappe and ml-tag tables; without
it their ids are drawn with the same vocabulary sizes and Zipf frequencies.
"""

import argparse
import gzip
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attfm.ops import cpu, distinct, native_info, pair_attention_pool, pair_attention_pool_ids, reference
from benchmarks.machine import processor
from benchmarks.pages import circumstances, table, write_section

# name: (batch, fields, dim, attention_dim), times faster than DeepCTR-Torch: random ids, real ids
SHAPES = {
    "adult": ((1024, 14, 16, 150), 15, 30),
    "criteo": ((4096, 39, 16, 16), 25, 30),
    "frappe": ((4096, 10, 256, 256), 5, 12),
    "ml-tag": ((4096, 3, 256, 8), 4, 4),
}
VOCABULARIES = {
    "adult": [74, 8, 255, 16, 16, 7, 15, 6, 5, 2, 120, 99, 96, 42],
    "frappe": [957, 4082, 7, 7, 2, 3, 2, 9, 80, 233],
    "ml-tag": [17045, 23743, 49657],
}


def read_ids(name: str, folder: Path | None, rows: int, fields: int) -> tuple[Tensor, int, str]:
    """Return ids (rows, fields), the number of features, and where they come from."""
    if name == "criteo":
        return zipf_ids([25_641] * fields, rows), 25_641 * fields, "Zipf, 1 M features"
    libfm = {
        "frappe": "frappe/frappe.train.reconstructed.libfm.gz",
        "ml-tag": "movielens-10m-tags/ml10m-tag.train.libfm.gz",
    }
    if folder is None:
        sizes = VOCABULARIES[name]
        return zipf_ids(sizes, rows), sum(sizes), "Zipf, sizes of the table"
    if name == "adult":
        with gzip.open(folder / "adult/adult.data.gz", "rt") as file:
            table = np.array([line.strip().split(", ") for line in file if line.count(",") == fields])
        columns = [
            quantile_bins(c.astype(float)) if j in (0, 2, 4, 10, 11, 12) else c for j, c in enumerate(table.T[:fields])
        ]
    else:
        with gzip.open(folder / libfm[name], "rt") as file:
            table = np.array([[entry.split(":")[0] for entry in line.split()[1:]] for line in file])
        columns = list(table.T)
    order = np.random.default_rng(0).permutation(len(table))[:rows]
    ids, start = [], 0
    for column in columns:
        values, codes = np.unique(column, return_inverse=True)
        ids.append(codes[order] + start)
        start += len(values)
    return torch.tensor(np.stack(ids, axis=1), dtype=torch.int32), start, "rows of the table"


def quantile_bins(column: np.ndarray) -> np.ndarray:
    """Return the number of each value's bin among at most 255 quantile bins."""
    return np.searchsorted(np.unique(np.quantile(column, np.linspace(0, 1, 256)[1:-1])), column)


def zipf_ids(sizes: list[int], rows: int) -> Tensor:
    """Return ids whose frequencies within each field fall as 1 / rank."""
    rng = np.random.default_rng(0)
    starts = np.cumsum([0, *sizes[:-1]])
    columns = []
    for size, start in zip(sizes, starts, strict=True):
        chances = 1 / np.arange(1, size + 1)
        columns.append(start + rng.choice(size, size=rows, p=chances / chances.sum()))
    return torch.tensor(np.stack(columns, axis=1), dtype=torch.int32)


def deepctr_layer() -> Any:
    """Return DeepCTR-Torch's AFMLayer class, or None where the package is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from deepctr_torch.layers.interaction import AFMLayer
    except ImportError:
        return None
    return AFMLayer


class Step:
    """Inputs of one shape, and one forward and backward step of each implementation."""

    def __init__(self, shape: tuple[int, ...], ids: Tensor, features: int) -> None:
        batch, fields, dim, attention_dim = shape
        pairs = fields * (fields - 1) // 2
        g = torch.Generator().manual_seed(0)

        def leaf(*size: int, std: float = 1.0) -> Tensor:
            return (torch.randn(*size, generator=g) * std).requires_grad_()

        self.ids, self.features = ids, features
        self.table = leaf(features, dim)
        self.embeddings = leaf(batch, fields, dim)
        self.network = [
            leaf(dim, attention_dim, std=dim**-0.5), leaf(attention_dim, std=0.1), leaf(attention_dim, std=0.1),
            leaf(pairs), leaf(pairs),
        ]  # fmt: skip
        self.gradient = torch.randn(batch, dim, generator=g)
        self.options = {"scale": float(pairs)}

    def clear(self) -> None:
        for tensor in (self.table, self.embeddings, *self.network):
            tensor.grad = None

    def rows(self) -> None:
        self.clear()
        pooled = pair_attention_pool(self.embeddings, *self.network, backend="native", **self.options)
        pooled.vector.backward(self.gradient)

    def from_ids(self, path: bool | None = None) -> None:
        self.clear()
        sparse = self.features > 2 * self.ids.numel()
        pooled = pair_attention_pool_ids(
            self.ids, self.table, *self.network, distinct=path, sparse=sparse, backend="native", **self.options
        )
        pooled.vector.backward(self.gradient)

    def eager(self) -> None:
        self.clear()
        pooled, _ = reference.pair_attention_pool(self.embeddings, *self.network, **self.options)
        pooled.backward(self.gradient)

    def compiled(self) -> Callable[[], None]:
        pool = torch.compile(lambda *a: reference.pair_attention_pool(*a, **self.options)[0], dynamic=False)

        def step() -> None:
            self.clear()
            pool(self.embeddings, *self.network).backward(self.gradient)

        return step

    def deepctr(self, layer_class: Any) -> Callable[[], None]:
        layer = layer_class(self.embeddings.shape[2], self.network[0].shape[1])
        gradient = self.gradient[:, :1].contiguous()

        def step() -> None:
            self.clear()
            layer.zero_grad()
            layer(list(self.embeddings.split(1, dim=1))).backward(gradient)

        return step


def take_times(
    steps: dict[str, Callable[[], None]], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return milliseconds a step, the median; the steps take turns so that a busy moment meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, times.values())) < 6:
        for name, step in steps.items():
            # Mostly a step after one of its own kind, as in training: at least three, and a while of the short ones.
            turn = time.perf_counter() + 0.2
            taken = 0
            while taken < 3 or time.perf_counter() < turn:
                start = clock()
                step()
                times[name].append(clock() - start)
                taken += 1
    return {name: 1e3 * float(np.median(taken)) for name, taken in times.items()}


def peak_gflops(threads: int, clock: Callable[[], float]) -> float:
    """Return the multiply-add rate of all threads with everything in registers, by each thread's own clock."""

    def run(_: int) -> float:
        start = clock()
        return cpu.compiled.peak(2_000_000) / (clock() - start) / 1e9

    with ThreadPoolExecutor(threads) as pool:
        return max(sum(pool.map(run, range(threads))) for _ in range(5))


def peak_memory(name: str) -> dict[str, float]:
    """Return the memory of a step by row in a fresh process: peak over (inputs + outputs + batch × pairs floats)."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kernels", "--memory-of", name], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def measure_memory(name: str) -> dict[str, float]:
    shape = SHAPES[name][0]
    batch, fields, dim, _ = shape
    warm = Step((8, *shape[1:]), torch.zeros(8, fields, dtype=torch.int32), 1)
    warm.rows()  # torch's own first-use memory, and threads
    step = Step(shape, torch.zeros(batch, fields, dtype=torch.int32), 1)
    Path("/proc/self/clear_refs").write_text("5")  # starts the high-water mark again
    before = resident("VmRSS")
    step.rows()
    grown = resident("VmHWM") - before
    inputs = 4 * (step.embeddings.numel() + sum(t.numel() for t in step.network))
    outputs = 4 * batch * dim + inputs  # gradients are outputs of a step
    allowed = inputs + outputs + 4 * batch * fields * (fields - 1) // 2
    return {"peak_mb": (inputs + grown) / 1e6, "needed_mb": allowed / 1e6, "ratio": (inputs + grown) / allowed}


def resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def measure_shape(name: str, options: argparse.Namespace) -> dict[str, Any]:
    shape, bar_random, bar_real = SHAPES[name]
    batch, fields, dim, attention_dim = shape
    pairs = fields * (fields - 1) // 2
    ids, features, source = read_ids(name, options.data, batch, fields)
    step = Step(shape, ids, features)
    share = distinct.distinct_share(ids, cpu.pair_numbers(None, fields))
    steps: dict[str, Callable[[], None]] = {
        "native, by row": step.rows,
        "native, ids": step.from_ids,
        "native, ids by row": lambda: step.from_ids(False),
        "native, distinct pairs": lambda: step.from_ids(True),
        "eager": step.eager,
    }
    if options.compile:
        steps["torch.compile"] = step.compiled()
    layer = deepctr_layer()
    if layer is not None:
        steps["DeepCTR-Torch"] = step.deepctr(layer)
    times = take_times(steps, options.seconds, time.thread_time if options.busy else time.perf_counter)
    rate = 6e-6 * batch * pairs * dim * attention_dim / times["native, by row"]
    result: dict[str, Any] = {
        "shape": shape, "ids": source, "features": features, "distinct_share": share, "ms": times,
        "gflops": rate, "chosen": "distinct" if distinct.distinct_is_faster(dim, attention_dim, share) else "row",
    }  # fmt: skip
    if sys.platform == "linux":
        result["memory"] = peak_memory(name)
    if layer is not None:
        result["times faster than DeepCTR-Torch"] = {
            "random ids": (times["DeepCTR-Torch"] / times["native, by row"], bar_random),
            "real ids": (times["DeepCTR-Torch"] / times["native, ids"], bar_real),
        }
    return result


def print_shape(name: str, result: dict[str, Any], peak: float) -> None:
    times, fastest = result["ms"], result["ms"]["native, by row"]
    print(f"\n{name} {result['shape']}: ids {result['ids']}, {result['distinct_share']:.0%} of the pairs are distinct")
    for label, ms in times.items():
        print(f"  {label:24}{ms:9.2f} ms{ms / fastest:8.1f} x")
    print(f"  {result['gflops']:.0f} of {peak:.0f} GFLOP/s; from ids the path is by {result['chosen']}")
    if "memory" in result:
        print(
            f"  memory {result['memory']['peak_mb']:.1f} MB, {result['memory']['ratio']:.2f} of what a step must hold"
        )
    for label, (ratio, bar) in result.get("times faster than DeepCTR-Torch", {}).items():
        print(f"  {label}: {ratio:.1f} times faster than DeepCTR-Torch (to reach: {bar})")


def shapes_table(report: dict[str, Any]) -> str:
    """Return the figures of all shapes as a Markdown table."""
    kinds = ["eager", "torch.compile", "DeepCTR-Torch", "native, by row", "native, ids"]
    rows = []
    for name, result in report["shapes"].items():
        ms = [
            f"{result['ms'][kind]:,.{0 if result['ms'][kind] >= 100 else 1}f}" if kind in result["ms"] else ""
            for kind in kinds
        ]
        ratios = result.get("times faster than DeepCTR-Torch", {})
        faster = [f"{ratio:.1f} ({bar})" for ratio, bar in ratios.values()] or ["", ""]
        memory = f"{result['memory']['ratio']:.2f}" if "memory" in result else ""
        shape = ", ".join(map(str, result["shape"]))
        path = f"{'distinct pairs' if result['chosen'] == 'distinct' else 'by row'}, {result['distinct_share']:.0%}"
        share = f"{result['gflops']:.0f} of {report['peak_gflops']:.0f}"
        rows.append([f"{name} {shape}", *ms, *faster, path, share, memory])
    head = [
        "shape (batch, fields, dim, attention_dim)", "eager torch", "torch.compile", "DeepCTR-Torch", "by row",
        "from ids", "times faster than DeepCTR-Torch, random ids (to reach)", "real ids (to reach)",
        "from ids: path, distinct pairs", "GFLOP/s by row", "memory",
    ]  # fmt: skip
    return table(head, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(SHAPES), help="comma-separated names")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch and of the kernels")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each shape")
    parser.add_argument("--data", type=Path, default=os.environ.get("ATTFM_DATA"), help="folder with real tables")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile (needs a C++ compiler)")
    parser.add_argument("--busy", action="store_true", help="one thread, its processor time: for a machine in use")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/performance.md")
    parser.add_argument("--memory-of", choices=SHAPES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(json.dumps(measure_memory(options.memory_of)))
        return 0
    if not native_info()["available"]:
        print("attfm was installed without its compiled kernels: nothing to measure.", file=sys.stderr)
        return 1
    if options.busy:
        options.threads = 1
    torch.set_num_threads(options.threads)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    peak = peak_gflops(options.threads, time.thread_time if options.busy else time.perf_counter)
    report: dict[str, Any] = {
        "commit": commit, "machine": processor(), "threads": options.threads,
        "torch": torch.__version__, "python": platform.python_version(), "native": native_info(), "peak_gflops": peak,
        "clock": "processor time" if options.busy else "wall", "load": os.getloadavg(),
        "shapes": {},
    }  # fmt: skip
    print(f"{options.threads} threads, {native_info()['isa']}, peak {peak:.0f} GFLOP/s, torch {torch.__version__}")
    for name in options.shapes.split(","):
        report["shapes"][name] = measure_shape(name, options)
        print_shape(name, report["shapes"][name], peak)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2))
    if options.docs:
        write_section("kernels", f"{circumstances(options.threads, report['clock'])}\n\n{shapes_table(report)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
