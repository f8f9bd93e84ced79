"""Measure training by one and two workers of Ray on this machine, and predict what many machines would take.

    python -m benchmarks.distributed --docs

A table of made-up clicks (benchmarks.make_clicks) is encoded once, and one epoch of it trained by one worker with
small and with large batches and by two workers: to these the constants of `benchmarks.cost_model` are fitted. Two
workers with another batch size are then compared with what the model says. All is processor time, which other programs
change least; rows a second are wall time, beside the machine's load when the epoch had ended.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cost_model import COPIES, CostModel, Shape, sent
from benchmarks.make_clicks import CATEGORICAL, FULL_ROWS, NUMERIC, Planted, make
from benchmarks.pages import circumstances, table, write_section
from benchmarks.worker_clock import PHASES, Clock

PAGE = Path(__file__).parents[1] / "docs/scaling.md"
SETTINGS: dict[str, Any] = {
    "model": {"dim": 16, "attention_dim": 16, "memory_pairs": 0},
    "train": {"epochs": 1, "rates": False, "early_stopping": False},
}
RUNS = ((1, 512), (1, 3072), (2, 3072), (2, 1024))  # workers and rows of a step; the last is predicted
ROWS, FIELDS, FEATURES = 1_000_000_000, NUMERIC + CATEGORICAL, 100_000_000
BATCH, CORES, EFFICIENCY, BANDWIDTH = 65_536, 16, 0.75, 1.25e9  # of the machines that are predicted; 10 Gbit/s


def measured(ray: Any, workers: int, batch: int, encoded: Path, folder: Path) -> dict[str, Any]:
    """Train one epoch; return the figures of the slowest worker."""
    from attfm.config import Config
    from attfm.model.facts import RunFacts
    from attfm.train.distributed import DistributedFit, fit_distributed

    folder.mkdir()
    config = Config.parse({**SETTINGS, "train": {**SETTINGS["train"], "batch_size": batch}})
    fit_distributed(ray, workers, DistributedFit(config, encoded, folder, 0, 0, RunFacts(), observer=Clock(folder)))
    found = [json.loads(file.read_text()) for file in folder.glob("*.json") if file.stem.isdigit()]
    if len(found) != workers:
        raise SystemExit(f"{len(found)} of {workers} workers left figures.")
    first = next(of for of in found if of["rank"] == 0)
    slowest = {name: max(of["seconds"][name] for of in found) for name in PHASES}
    return {
        **first, "workers": workers, "batch": batch, "seconds": slowest,
        "load": os.getloadavg()[0],
        "memory": max(of["memory"] for of in found), "sent": float(np.mean([of["sent"] for of in found])),
    }  # fmt: skip


def touched_by(ids: np.ndarray[Any, Any]) -> Callable[[float], float]:
    """Return how many distinct features so many rows have, between what was counted at powers of two."""
    sizes = 2 ** np.arange(0, int(np.log2(len(ids))) + 1)
    counts = [len(np.unique(ids[:size])) for size in sizes]
    return lambda rows: float(np.exp(np.interp(np.log(rows), np.log(sizes), np.log(counts))))


def touched_of_many() -> Callable[[float], float]:
    """Return the same of rows drawn from a table with 100 million features: ranks of ids, and bins of numbers."""
    rows = int(FULL_ROWS * (FEATURES / 5_000_000) ** 2)  # that such a table of benchmarks.make_clicks has
    drawn, _, _ = Planted.of(rows, 0).chunk(BATCH, [0, 0])
    columns, start = [], 0
    for name in drawn.schema.names[1:]:
        column = drawn[name].combine_chunks()
        if name.startswith("c"):
            codes = column.indices.to_numpy().astype(np.int64)
        else:
            codes = np.nan_to_num(column.to_numpy(zero_copy_only=False), nan=-1.0)
            codes = np.searchsorted(np.unique(np.quantile(codes, np.linspace(0, 1, 254))), codes)
        columns.append(codes + start)
        start += int(codes.max()) + 1
    return touched_by(np.column_stack(columns))


def report(found: list[dict[str, Any]], features: int, touched: Callable[[float], float]) -> str:
    """Return the tables of what was measured and of what is predicted, as Markdown."""
    shape = Shape(17, found[0]["dense"])
    tables = 4.0 * shape.width * features
    model = CostModel.fitted(found[0], found[1], found[2], shape, touched, tables)
    lines = []
    for of in found:
        wanted = sent(shape, of["batch"], of["workers"], touched)
        lines.append([
            f"{of['workers']}", f"{of['batch']:,}", f"{of['rows_per_second']:,.0f}", f"{of['load']:.1f}",
            *(f"{1000 * of['seconds'][name]:.1f}" for name in PHASES),
            f"{of['sent'] / 1e6:.2f} ({wanted / 1e6:.2f})", f"{of['loopback'] / 1e6:.2f}", f"{of['memory'] / 1e6:,.0f}",
        ])  # fmt: skip
    head = ["workers", "rows a step", "rows/s, wall", "load", *(f"{name}, ms" for name in PHASES),
            "MB sent by each (model)", "MB on the loopback", "MB of memory"]  # fmt: skip
    last, said = found[-1], model.seconds(found[-1]["batch"], 2, touched)
    checks = [[name, f"{1000 * said[name]:.1f}", f"{1000 * last['seconds'][name]:.1f}",
               f"{said[name] / last['seconds'][name]:.2f}"] for name in PHASES]  # fmt: skip
    whole = sum(said.values()), sum(last["seconds"].values())
    checks.append(["a step", *(f"{1000 * s:.1f}" for s in whole), f"{whole[0] / whole[1]:.2f}"])
    wanted = sent(shape, last["batch"], 2, touched)
    checks.append(["MB sent", f"{wanted / 1e6:.2f}", f"{last['sent'] / 1e6:.2f}", f"{wanted / last['sent']:.2f}"])
    memory = model.memory(features)
    checks.append(["MB of memory", f"{memory / 1e6:,.0f}", f"{last['memory'] / 1e6:,.0f}",
                   f"{memory / last['memory']:.2f}"])  # fmt: skip
    return "\n\n".join([
        f"{features:,} features, dim 16, one thread a worker. Processor time of each phase of a step, of the slowest "
        "worker:",
        table(head, lines),
        f"The model, fitted to the other three runs, beside the last: 2 workers, {last['batch']:,} rows a step. Of V "
        f"and w {COPIES} copies are {COPIES * tables / 1e6:,.0f} MB here. They are moved by rows, as large tables are.",
        table(["", "model", "measured", "ratio"], checks),
        predictions(model, touched_of_many()),
    ])  # fmt: skip


def predictions(model: CostModel, touched: Callable[[float], float]) -> str:
    """Return what the model says of a large table on several machines."""
    lines = []
    for machines in (1, 8, 64):
        step = model.seconds(BATCH, machines, touched, cores=CORES * EFFICIENCY, bandwidth=BANDWIDTH)
        whole, steps = sum(step.values()), ROWS / BATCH
        parts = ", ".join(f"{name} {100 * seconds / whole:.0f} %" for name, seconds in step.items())
        bytes_sent = sent(model.shape, BATCH, machines, touched)
        lines.append([
            f"{machines}", f"{whole * steps / 3600:,.1f} h", f"{ROWS / (whole * steps):,.0f}", parts,
            f"{bytes_sent / 1e6:,.1f}", f"{model.memory(FEATURES) / 1e9:,.0f}",
        ])  # fmt: skip
    head = ["machines", "an epoch", "rows/s", "where a step's time goes", "MB sent by each in a step", "GB of memory"]
    return (
        f"Predicted: {ROWS:,} rows × {FIELDS} fields × {FEATURES:,} features, {BATCH:,} rows a step "
        f"({touched(BATCH):,.0f} distinct features), machines of {CORES} such cores (compute {EFFICIENCY:.0%} as fast "
        f"as that many times one; the rest on one core) and {8 * BANDWIDTH / 1e9:.0f} Gbit/s. Neither these cores nor "
        "such a network could be measured here. The vocabulary comes on top of the memory.\n\n"
    ) + table(head, lines)


def main() -> None:
    """Measure and predict."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.distributed", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--rows", type=int, default=200_000, help="of the table that is trained on")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--figures", type=Path, help="figures of --json of the same rows, instead of measuring")
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/scaling.md")
    options = parser.parse_args()
    from attfm.config import Config
    from attfm.data.sources.source import open_source
    from attfm.data.survey import StreamedTable
    from attfm.train.cluster import cluster
    from attfm.train.streamed import prepare_streamed

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "clicks", options.rows, quiet=True)
        source = open_source(str(folder / "clicks"))
        config = Config.parse(SETTINGS)
        streamed = prepare_streamed(StreamedTable(source, "click", None, 0.02, 0.0, 1, folder / "cache"), config)
        train, features = streamed.prepared.data.train, streamed.prepared.encoder.n_features
        some = np.random.default_rng(0).choice(len(train), min(len(train), 1 << 14), replace=False)
        touched = touched_by(next(iter(train.take(some).ordered())).rows.ids.numpy())
        found = [] if options.figures is None else json.loads(options.figures.read_text())
        with nullcontext() if found else cluster(2) as ray:
            for number, (workers, batch) in enumerate(() if found else RUNS):
                found.append(measured(ray, workers, batch, streamed.folder, folder / f"run-{number}"))
                print(json.dumps(found[-1]), flush=True)
        text = report(found, features, touched)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    if options.docs:
        write_section("distributed", f"{circumstances(1, 'processor')}\n\n{text}", PAGE)


if __name__ == "__main__":
    main()
