"""Time `predict_proba` of frames of the Adult table, one row and many, beside LightGBM, CatBoost and EBM.

Example: python -m benchmarks.frames --rows 200000. Rivals that are not installed are left out. All take turns, in one
process: of one row the median over different rows, of many the best of some calls.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from attfm import AFMClassifier, load, load_dataset
from attfm.ops import native_info
from benchmarks.pages import circumstances, table, write_section

MOST_MICROSECONDS, LEAST_ROWS = 500, 1_500_000
ROWS_ALONE = 200


def frames_of(rows: pa.Table) -> dict[str, Any]:
    """Return the rows as frames of several kinds, by what their text columns are."""
    frame = rows.to_pandas()
    texts = [name for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name])]
    found: dict[str, Any] = {
        "pandas": frame.astype(dict.fromkeys(texts, "str")),
        "pandas, text as objects": frame.astype(dict.fromkeys(texts, object)),
        "pandas, text as categories": frame.astype(dict.fromkeys(texts, "category")),
        "pyarrow": rows,
    }
    if importlib.util.find_spec("polars"):
        import polars

        found["polars"] = polars.from_arrow(rows)
    return found


def rivals(train: pd.DataFrame, y: np.ndarray[Any, Any], names: list[str], threads: int) -> dict[str, tuple[Any, str]]:
    """Return other models with their defaults, fitted, and which frame each is fed with."""
    texts = [name for name in train.columns if not pd.api.types.is_numeric_dtype(train[name])]
    objects, categories = train.astype(dict.fromkeys(texts, object)), train.astype(dict.fromkeys(texts, "category"))
    objects[texts] = objects[texts].fillna("missing")
    found: dict[str, tuple[Any, str]] = {}
    if "lightgbm" in names and importlib.util.find_spec("lightgbm"):
        from lightgbm import LGBMClassifier

        model = LGBMClassifier(n_jobs=threads, verbose=-1).fit(categories, y)
        found["LightGBM (100 trees)"] = model, "pandas, text as categories"
    if "catboost" in names and importlib.util.find_spec("catboost"):
        from catboost import CatBoostClassifier

        model = CatBoostClassifier(iterations=300, thread_count=threads, verbose=False, allow_writing_files=False)
        found["CatBoost (300 trees)"] = model.fit(objects, y, cat_features=texts), "pandas, text as objects"
    if "ebm" in names and importlib.util.find_spec("interpret"):
        from interpret.glassbox import ExplainableBoostingClassifier

        model = ExplainableBoostingClassifier(outer_bags=1, n_jobs=1).fit(objects, y)
        found["EBM (one bag)"] = model, "pandas, text as objects"
    return found


def measure(cases: dict[str, tuple[Any, Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Return of each case (a model and its frame) the median µs of one row, and rows a second of all."""
    alone: dict[str, list[float]] = {name: [] for name in cases}
    whole: dict[str, list[float]] = {name: [] for name in cases}
    for name, (model, frame) in cases.items():
        each = [
            frame.iloc[[i]].copy() if isinstance(frame, pd.DataFrame) else frame[i : i + 1] for i in range(ROWS_ALONE)
        ]
        for row in [*each[:20], *each]:
            alone[name].append(_seconds(model.predict_proba, row))
        alone[name] = alone[name][20:]
    for _ in range(repeats):
        for name, (model, frame) in cases.items():
            whole[name].append(_seconds(model.predict_proba, frame))
    return {
        name: {"microseconds": 1e6 * float(np.median(alone[name])), "rows_per_second": len(frame) / min(whole[name])}
        for name, (_, frame) in cases.items()
    }


def _seconds(action: Callable[[Any], object], rows: Any) -> float:
    start = time.perf_counter()
    action(rows)
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch and of the kernels")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the large frames")
    parser.add_argument("--repeats", type=int, default=5, help="times that the large frames are scored")
    parser.add_argument("--run", type=Path, help="run folder of an attfm model of Adult; else one is trained")
    parser.add_argument("--rivals", default="lightgbm,catboost,ebm", help="comma-separated, or none")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--docs", action="store_true", help="write the result into docs/performance.md")
    options = parser.parse_args()
    if not native_info()["available"]:
        print("attfm was installed without its compiled kernels: nothing to measure.", file=sys.stderr)
        return 1
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    torch.set_num_threads(options.threads)
    training, asked = load_dataset("adult"), load_dataset("adult-test").drop_columns("income")
    X, y = training.drop_columns("income"), training["income"].to_numpy(zero_copy_only=False)
    model = load(options.run) if options.run else AFMClassifier(random_state=0, verbose=False).fit(X, y)
    places = np.random.default_rng(0).integers(0, len(asked), options.rows)
    frames = frames_of(asked.take(places).combine_chunks())
    cases = {f"attfm, {name}": (model, frame) for name, frame in frames.items()}
    for name, (rival, kind) in rivals(X.to_pandas(), y, options.rivals.split(","), options.threads).items():
        frame = frames[kind]
        if "objects" in kind:
            texts = [column for column in frame.columns if frame[column].dtype == object]
            frame = frame.assign(**{column: frame[column].fillna("missing") for column in texts})
        cases[f"{name}, {kind}"] = rival, frame
    found = measure(cases, options.repeats)
    if options.json:
        print(json.dumps(found))
    lines = [
        [name, f"{figures['microseconds']:,.0f}", f"{figures['rows_per_second']:,.0f}",
         f"at most {MOST_MICROSECONDS} µs, at least {LEAST_ROWS:,}" if name == "attfm, pandas" else ""]
        for name, figures in found.items()
    ]  # fmt: skip
    head = ["`predict_proba` of Adult rows", "one row, µs", f"rows a second of {options.rows:,}", "to reach"]
    text = table(head, lines)
    if not options.json:
        print(text)
    if options.docs:
        write_section("frames", f"{circumstances(options.threads)}\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
