"""Compare settings on several tables by their validation rows: the evidence behind the defaults.

    python -m benchmarks.search_defaults --data DIR --tables adult,german --set dim=8 --set smoothness=0.01,0.03

Each `--set name=a,b,c` is one axis; all combinations are run for each table and seed, and each prints one JSON line
with the validation loss. Test rows are not scored.

    python -m benchmarks.search_defaults --summary benchmarks/results/defaults.jsonl

prints the Markdown table of records: mean validation loss (RMSE on movielens) over seeds.
"""

import argparse
import gzip
import itertools
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from sklearn.model_selection import train_test_split

from attfm.config import Config, ModelConfig
from attfm.data.datasets import adult_split, load_dataset
from attfm.data.inference import infer_schema
from attfm.data.sources.source import open_source
from attfm.data.split import Split
from attfm.train.fit import fit, measure
from attfm.train.prepare import LabelledTable, Tables

FLIGHT_ROWS = 60_000


def read_csv(path: Path, **options: object) -> pa.Table:
    source = open_source(path, **options)
    return pa.Table.from_batches(list(source.batches()), source.schema)


def split(labels: np.ndarray, stratify: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return training and validation rows of the 60/20/20 split with seed 1234; test rows are left out."""
    rows = np.arange(len(labels))
    rest, _ = train_test_split(rows, test_size=0.2, stratify=labels if stratify else None, random_state=1234)
    return train_test_split(rest, test_size=0.25, stratify=labels[rest] if stratify else None, random_state=1234)


def adult(_: Path) -> tuple:
    table = load_dataset("adult")
    labels = table["income"].to_numpy()
    train, valid, _ = adult_split(labels)
    return table.drop(["income"]), table["income"], train, valid, {}


def german(data: Path) -> tuple:
    names = [f"a{i}" for i in range(1, 21)] + ["label"]
    table = read_csv(data / "german-credit" / "german.data", names=names, separator=" ")
    labels = table["label"]
    return table.drop(["label"]), labels, *split(labels.to_numpy()), {}


def flights(data: Path) -> tuple:
    table = read_csv(data / "nycflights13" / "flights.csv.gz")
    table = table.filter(pc.is_valid(table["arr_delay"]))
    rows = np.sort(np.random.default_rng(0).choice(table.num_rows, FLIGHT_ROWS, replace=False))
    table = table.take(rows)
    labels = pc.greater(table["arr_delay"], 15)
    known_later = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"]
    columns = {name: {"kind": "categorical"} for name in ("carrier", "flight", "tailnum", "origin", "dest")}
    return table.drop(known_later), labels, *split(labels.to_numpy()), columns


def movielens(data: Path) -> tuple:
    folder = data / "movielens-100k"
    names = ["user", "item", "rating", "time"]
    ratings = read_csv(folder / "u.data.gz", names=names, separator="\t")
    people = read_csv(folder / "u.user", names=["user", "age", "gender", "occupation", "zip"], separator="|")
    table = ratings.join(people, "user").sort_by([("time", "ascending"), ("user", "ascending"), ("item", "ascending")])
    labels = table["rating"].cast(pa.float64())
    columns = {"user": {"kind": "categorical"}, "item": {"kind": "categorical"}, "zip": {"kind": "categorical"}}
    return table.drop(["rating", "time"]), labels, *split(labels.to_numpy(), stratify=False), columns


def libfm(folder: Path, train: str, valid: str) -> tuple:
    def read(name: str) -> tuple[np.ndarray, list[int]]:
        with gzip.open(folder / name, "rt") as lines:
            cells = [line.split() for line in lines]
        return np.array([[int(c.split(":")[0]) for c in row[1:]] for row in cells]), [int(row[0]) for row in cells]

    (x_train, y_train), (x_valid, y_valid) = read(train), read(valid)
    ids = np.concatenate([x_train, x_valid])
    table = pa.table({f"f{i}": pa.array(ids[:, i]).cast(pa.string()) for i in range(ids.shape[1])})
    rows = np.arange(len(ids))
    return table, pa.chunked_array([y_train + y_valid]), rows[: len(x_train)], rows[len(x_train) :], {}


def frappe(data: Path) -> tuple:
    return libfm(data / "frappe", "frappe.train.reconstructed.libfm.gz", "frappe.validation.libfm.gz")


def tags(data: Path) -> tuple:
    return libfm(data / "movielens-10m-tags", "ml10m-tag.train.libfm.gz", "ml10m-tag.validation.libfm.gz")


def amazon(data: Path) -> tuple:
    table = read_csv(data / "amazon-employee-access" / "train.csv.gz")
    labels = table["ACTION"]
    table = table.drop(["ACTION"])
    columns = {name: {"kind": "categorical"} for name in table.column_names}
    return table, labels, *split(labels.to_numpy()), columns


TABLES = {f.__name__: f for f in (adult, german, flights, movielens, frappe, tags, amazon)}


def parse(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


RESULTS = {"stage", "table", "seed", "log_loss", "auc", "rmse", "best_epoch", "epochs", "seconds"}


def summarise(file: Path) -> None:
    """Print a Markdown table for each stage: a line for each setting, a column for each table."""
    means: dict = {}
    for line in file.read_text().splitlines():
        record = json.loads(line)
        chosen = ", ".join(f"{k} {v}" for k, v in record.items() if k not in RESULTS) or "as they stand"
        cells = means.setdefault(record["stage"], {}).setdefault(chosen, {})
        cells.setdefault(record["table"], []).append(record.get("log_loss", record.get("rmse")))
    for stage, rows in means.items():
        tables = [name for name in TABLES if any(name in cells for cells in rows.values())]
        print(f"\n{stage}\n\n| setting | {' | '.join(tables)} |\n|---|{'---|' * len(tables)}")
        for chosen, cells in rows.items():
            values = [f"{np.mean(cells[name]):.4f}" if name in cells else "" for name in tables]
            print(f"| {chosen} | {' | '.join(values)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("ATTFM_DATA"), help="folder of the tables")
    parser.add_argument("--tables", default="adult,german,flights,movielens,frappe")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=A,B", help="an axis of the search")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--summary", type=Path, help="print the table of recorded results and stop")
    options = parser.parse_args()
    if options.summary:
        summarise(options.summary)
        return
    torch.set_num_threads(options.threads)
    axes = [(name, [parse(v) for v in values.split(",")]) for name, values in (s.split("=", 1) for s in options.set)]
    for name in options.tables.split(","):
        if options.data is None and name != "adult":
            sys.exit("Give the folder of the tables with --data or the variable ATTFM_DATA.")
        table, labels, train_rows, valid_rows, columns = TABLES[name](options.data and Path(options.data))
        for values in itertools.product(*(choices for _, choices in axes)):
            chosen = dict(zip((axis for axis, _ in axes), values, strict=True))
            for seed in range(options.seeds):
                run(name, table, labels, train_rows, valid_rows, columns, chosen, seed)


def run(name: str, table: pa.Table, labels: object, train_rows: object, valid_rows: object, columns: dict,
        chosen: dict, seed: int) -> None:  # fmt: skip
    model = {k: v for k, v in chosen.items() if k in ModelConfig.model_fields}
    data = {k: v for k, v in chosen.items() if k in ("max_bins", "min_count", "numeric")} | {"columns": columns}
    train = {k: v for k, v in chosen.items() if k not in model and k not in data} | {"seed": seed, "n_models": 1}
    if name == "movielens":
        train["task"] = "regression"
    config = Config.parse({"model": model, "data": data, "train": train})
    source = open_source(table)
    schema = infer_schema(source.batches(), source.schema, target=None, config=config.data, source=name)
    started = time.perf_counter()
    labelled = LabelledTable(source, pa.chunked_array(labels.chunks if hasattr(labels, "chunks") else [labels]))
    fitted = fit(Tables(labelled, schema, split=Split(train_rows, valid_rows)), config)
    model, data, history = fitted.model, fitted.prepared.data, fitted.trained.histories[0]
    metrics = measure(model.module, data.valid, data.task, threshold=model.threshold)
    shown = {k: round(metrics[k], 5) for k in ("log_loss", "auc", "rmse") if k in metrics}
    record = {"table": name, **chosen, "seed": seed, **shown, "best_epoch": history.best_epoch,
              "epochs": len(history.epochs), "seconds": round(time.perf_counter() - started, 1)}  # fmt: skip
    print(json.dumps({"stage": "unnamed", **record}), flush=True)


if __name__ == "__main__":
    main()
