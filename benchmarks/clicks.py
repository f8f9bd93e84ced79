"""Train on made-up clicks from disk and in memory, beside boosted trees: time, peak memory, and how much is found.

    python -m benchmarks.clicks --rows 20000000
    python -m benchmarks.clicks --rows 200000 --models streamed,memory,lightgbm,xgboost
    python -m benchmarks.clicks --table /big/clicks --models streamed --epochs 3 --kept /big/kept

The table is that of `benchmarks.make_clicks`, whose planted effects say which AUC can be reached; what is found is (AUC
- .5) / (planted AUC - .5) on a twentieth of the rows. Each model runs in a process of its own, one after the other.
With `--kept`, encoded rows and the run stay in that folder: rows are found there, and a training of attfm that was
killed goes on from its last checkpoint (peak and time are then those of the last process). LightGBM reads a binary
Dataset that it made itself, XGBoost an external-memory DMatrix; both where they are installed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import peak_megabytes
from benchmarks.make_clicks import auc, make
from benchmarks.pages import circumstances, table, write_section

PAGE = Path(__file__).parents[1] / "docs/scaling.md"
HELD_OUT = 20  # one row in so many is held out of the trees' training
TREES = 200


@dataclass(frozen=True)
class Job:
    """What a model is trained on, and how.

    Attributes
    ----------
    clicks, folder : Path, the table, and where the model's own files go
    epochs : int, of attfm
    settings : tuple of str, further ones of attfm, NAME=VALUE
    """

    clicks: Path
    folder: Path
    epochs: int
    settings: tuple[str, ...] = ()


def attfm(job: Job, *, how: str) -> dict[str, float]:
    """Train by the command in this process; go on with what the folder has of an interrupted training."""
    from attfm.cli import main

    run = job.folder / "run"
    settings = (f"epochs={job.epochs}", "refit=false", *job.settings)
    options = ["--target", "click", "--valid", ".05", "--test", ".05", "--no-report", how, "--out", str(run), "--force"]
    asked = [str(job.clicks), *options, *(text for setting in settings for text in ("--set", setting))]
    begun = run.with_name("run.checkpoints").is_dir()
    if main(["train", *(["--resume", str(run)] if begun else asked)]):
        raise SystemExit(1)
    metrics = json.loads((run / "metrics.json").read_text())
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    features = json.loads((run / "config.json").read_text())["training"]["features"]
    return {
        "auc": metrics["test"]["auc"], "rows_per_second": float(np.median([e["rows_per_second"] for e in history])),
        "tables": 4.0 * 17 * 5 * features,  # V and w: values, two moments, average, best
    }  # fmt: skip


def batches(clicks: Path) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Yield the rows of each file as numbers (ids by hash, since trees can't hold so many), and which are clicks."""
    for path in sorted(clicks.glob("*.parquet")):
        rows = pq.read_table(path)
        columns = []
        for name in rows.schema.names[1:]:
            column = rows[name].combine_chunks()
            if pa.types.is_dictionary(column.type):
                codes = np.array([int(text, 16) % 2**24 for text in column.dictionary.to_pylist()], np.float32)
                columns.append(codes[column.indices.to_numpy()])
            else:
                columns.append(column.to_numpy(zero_copy_only=False).astype(np.float32))
        yield np.column_stack(columns), rows["click"].to_numpy().astype(np.float32)


def held_out(rows: int) -> np.ndarray[Any, Any]:
    """Return which rows of a file are held out."""
    return np.arange(rows) % HELD_OUT == 0


def lightgbm(job: Job) -> dict[str, float]:
    """Train LightGBM from a binary Dataset."""
    import lightgbm as lgb

    class Rows(lgb.Sequence):  # type: ignore[misc]
        batch_size = 65_536

        def __init__(self, x: Any) -> None:
            self._x = x

        def __getitem__(self, index: Any) -> Any:
            return self._x[index]

        def __len__(self) -> int:
            return len(self._x)

    parts, labels, test, target = [], [], [], []
    for number, (x, y) in enumerate(batches(job.clicks)):
        out = held_out(len(x))
        np.save(job.folder / f"{number}.npy", x[~out].astype(np.float64))  # which its sequences ask for
        parts.append(Rows(np.load(job.folder / f"{number}.npy", mmap_mode="r")))
        labels.append(y[~out])
        test.append(x[out])
        target.append(y[out])
    dataset = lgb.Dataset(parts, np.concatenate(labels), params={"max_bin": 255})
    dataset.save_binary(str(job.folder / "rows.bin"))
    booster = lgb.train({"objective": "binary", "verbose": -1}, lgb.Dataset(str(job.folder / "rows.bin")), TREES)
    return {"auc": auc(booster.predict(np.concatenate(test)), np.concatenate(target) > 0)}


def xgboost(job: Job) -> dict[str, float]:
    """Train XGBoost from external memory."""
    import xgboost as xgb

    class Files(xgb.DataIter):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(cache_prefix=str(job.folder / "cache"))
            self._files = iter(())

        def reset(self) -> None:
            self._files = batches(job.clicks)  # type: ignore[assignment]

        def next(self, input_data: Any) -> bool:
            for x, y in self._files:
                kept = ~held_out(len(x))
                input_data(data=x[kept], label=y[kept])
                return True
            return False

    booster = xgb.train(
        {"objective": "binary:logistic", "tree_method": "hist"}, xgb.ExtMemQuantileDMatrix(Files()), TREES
    )
    found = [(booster.predict(xgb.DMatrix(x[held_out(len(x))])), y[held_out(len(y))]) for x, y in batches(job.clicks)]
    scores, target = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return {"auc": auc(scores, target > 0)}


MODELS: dict[str, Callable[[Job], dict[str, float]]] = {
    "streamed": lambda job: attfm(job, how="--stream"), "memory": lambda job: attfm(job, how="--in-memory"),
    "lightgbm": lightgbm, "xgboost": xgboost,
}  # fmt: skip


def measured(name: str, clicks: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run one model in a process of its own."""
    started = time.perf_counter()
    of = ["--one", name, "--table", str(clicks), "--epochs", str(options.epochs)]
    of += [text for setting in options.settings for text in ("--set", setting)]
    of += ["--kept", str(options.kept)] if options.kept else []
    done = subprocess.run([sys.executable, "-m", "benchmarks.clicks", *of], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return {"model": name, "failed": done.returncode}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"model": name, **found, "seconds": time.perf_counter() - started}


def run_one(options: argparse.Namespace) -> None:
    """Run one model in this process, and print what came of it."""
    folder = options.kept / options.one if options.kept else Path(tempfile.mkdtemp(dir=options.table.parent))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = MODELS[options.one](Job(options.table, folder, options.epochs, tuple(options.settings)))
    finally:
        if not options.kept:
            shutil.rmtree(folder)
    print(json.dumps({**found, "peak": peak_megabytes() * 1024**2}))


def main() -> None:
    """Make the table, run the models, print and write what they came to."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.clicks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--table", type=Path, help="where the table is, or is made and kept (default: it is removed)")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE", help="of attfm")
    parser.add_argument("--kept", type=Path, help="where encoded rows and runs stay (default: they are removed)")
    parser.add_argument("--docs", action="store_true", help="write the figures into docs/scaling.md")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run_one(options)
        return
    with tempfile.TemporaryDirectory() as removed:
        clicks = options.table or Path(removed) / "clicks"
        if not (clicks / "planted.json").exists():
            make(clicks, options.rows, quiet=True)
        planted = json.loads((clicks / "planted.json").read_text())
        results = [measured(name, clicks, options) for name in options.models.split(",")]
    lines = []
    for of in results:
        if "failed" in of:
            lines.append([of["model"], "did not run", "", "", "", ""])
            continue
        share = (of["auc"] - 0.5) / (planted["auc"] - 0.5)
        apart = f" ({(of['peak'] - of['tables']) / 1e9:.2f} beside V and w)" if "tables" in of else ""
        rate = f"{of['rows_per_second']:,.0f}" if "rows_per_second" in of else ""
        lines.append([of["model"], f"{of['auc']:.4f}", f"{100 * share:.1f} %", f"{of['seconds']:,.0f} s",
                      f"{of['peak'] / 1e9:.2f} GB{apart}", rate])  # fmt: skip
    text = table(["model", "test AUC", "of what is planted", "in all", "peak memory", "rows/s of an epoch"], lines)
    print(f"{planted['rows']:,} rows, planted AUC {planted['auc']:.4f}\n\n{text}")
    if options.docs:
        head = (
            f"{planted['rows']:,} rows × 39 columns, planted AUC {planted['auc']:.4f}, {options.epochs} epochs of attfm"
        )
        write_section("clicks", f"{circumstances(os.cpu_count() or 1)}\n\n{head}:\n\n{text}", PAGE)


if __name__ == "__main__":
    main()
