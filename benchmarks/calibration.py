"""Does calibration help? Measured on training rows that were held out of training, so that no test row is looked at.

    python -m benchmarks.calibration --data DIR --tables adult,german --seeds 3 >> benchmarks/results/calibration.jsonl

For each table and seed the training and validation rows are shuffled together and cut anew: validation rows as many as
before, a fifth of the rest set aside to judge by, the others to train on. A model is trained with its defaults, stopped
by the validation rows, and calibrated by them, once in each way; each prints one JSON line with what it comes to on the
rows set aside. The tables are those of `benchmarks.search_defaults`.

    python -m benchmarks.calibration --write

writes the table of the records into docs/defaults.md.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import torch

from attfm.config import CalibrationName, Config
from attfm.data.inference import infer_schema
from attfm.data.sources.source import open_source
from attfm.data.split import Split
from attfm.metrics.scores import calibration_error, evaluate
from attfm.model.calibration import Calibration
from attfm.train.fit import fit
from attfm.train.losses import scored
from attfm.train.prepare import LabelledTable, Tables
from benchmarks.pages import table as markdown
from benchmarks.pages import write_section
from benchmarks.search_defaults import TABLES

KINDS = (*get_args(CalibrationName), "auto")
ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks/results/calibration.jsonl"
_DRAWS = 200


def judged(name: str, data: Path | None, seed: int) -> Iterator[dict[str, Any]]:
    """Yield what each kind of calibration comes to on rows that were set aside of those for training."""
    table, labels, train, valid, columns = TABLES[name](data)
    order = np.random.default_rng(seed).permutation(np.concatenate([train, valid]))
    cuts = len(valid), len(valid) + len(train) // 5
    valid, aside, rest = (np.sort(rows) for rows in np.split(order, cuts))
    config = Config.parse({"data": {"columns": columns}, "train": {"seed": seed, "calibrate": "none"}})
    source = open_source(table)
    schema = infer_schema(source.batches(), source.schema, target=None, config=config.data, source=name)
    labelled = LabelledTable(source, pa.chunked_array(labels.chunks))
    fitted = fit(Tables(labelled, schema, split=Split(rest, valid, aside)), config)
    task, module, prepared = fitted.model.task, fitted.model.module, fitted.prepared
    (z_valid, y_valid, _), (z, y, _) = (
        (part.numpy() for part in scored(module, rows)) for rows in (prepared.data.valid, prepared.test) if rows
    )
    rng = np.random.default_rng(seed)
    for kind in KINDS:
        found = Calibration.fit(kind, task, z_valid, y_valid)
        shares = found.applied_to(task).scores(found.logits(z))
        metrics = evaluate(task.name, y, shares)
        chance = [calibration_error(rng.random(len(y)) < shares[:, 1], shares[:, 1]) for _ in range(_DRAWS)]
        yield {
            "table": name, "seed": seed, "kind": kind, "said": str(found), "rows": len(y),
            **{metric: round(metrics[metric], 5) for metric in ("log_loss", "brier", "auc", "calibration_error")},
            "by_chance": round(float(np.mean(chance)), 5),
        }  # fmt: skip


def summary(records: list[dict[str, Any]]) -> str:
    """Return the Markdown table: a line for each table, log loss and calibration error of each kind."""
    rows = []
    for name in dict.fromkeys(record["table"] for record in records):
        cells, of_table = [name], [record for record in records if record["table"] == name]
        for kind in KINDS:
            loss, error = (
                np.mean([record[metric] for record in of_table if record["kind"] == kind])
                for metric in ("log_loss", "calibration_error")
            )
            cells.append(f"{loss:.4f} / {error:.4f}")
        chance = np.mean([record["by_chance"] for record in of_table if record["kind"] == "temperature"])
        seeds = len({record["seed"] for record in of_table})
        rows.append([*cells, f"{chance:.4f}", f"{of_table[0]['rows']:,}", str(seeds)])
    return markdown(["log loss / calibration error", *KINDS, "by chance", "rows", "seeds"], rows)


def main() -> None:
    """Measure, or write what was measured into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("ATTFM_DATA"), help="folder of the tables")
    parser.add_argument("--tables", default="adult")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="write the records into docs/defaults.md and stop")
    options = parser.parse_args()
    if options.write:
        records = [json.loads(line) for line in RECORDS.read_text().splitlines()]
        write_section("calibration", summary(records), ROOT / "docs/defaults.md")
        return
    torch.set_num_threads(options.threads)
    for name in options.tables.split(","):
        if options.data is None and name != "adult":
            sys.exit("Give the folder of the tables with --data or the variable ATTFM_DATA.")
        for seed in range(options.seeds):
            for record in judged(name, options.data and Path(options.data), seed):
                print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
