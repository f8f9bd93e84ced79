"""How good is a model that learns on? Flights of New York in 2013, each month predicted before it is learned.

    python -m benchmarks.continued --docs

Beside `partial_fit` on the last month stand the first model, left as it is, and one that is trained anew on all months
until then. AUC and log loss are of the month that follows, whose rows no model has seen.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

from attfm import AFMClassifier
from benchmarks.accuracy.tables import load
from benchmarks.pages import circumstances, table, write_section

PAGE = Path(__file__).parents[1] / "docs/continue.md"
FIRST = 6  # months that the first model learns from


def months(data: Path | None) -> list[tuple[pd.DataFrame, np.ndarray]]:
    """Return the rows of each month."""
    flights = load("flights", data)
    month = flights.X["month"].astype(int)
    return [(flights.X[month == m].drop(columns="month"), flights.y[(month == m).to_numpy()]) for m in range(1, 13)]


def scores(model: AFMClassifier, rows: tuple[pd.DataFrame, np.ndarray]) -> tuple[float, float]:
    """Return AUC and log loss."""
    probability = model.predict_proba(rows[0])[:, 1]
    return float(roc_auc_score(rows[1], probability)), float(log_loss(rows[1], probability))


def main() -> None:
    """Print how each way does month by month, and write their means into the documentation."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.continued", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--last", type=int, default=11, help="the last month that is learned from")
    parser.add_argument("--docs", action="store_true", help="write the figures into docs/continue.md")
    options = parser.parse_args()
    by_month = months(options.data)
    settings: dict[str, Any] = {"n_models": 1, "verbose": False}

    def fit(parts: list[tuple[pd.DataFrame, np.ndarray]]) -> tuple[AFMClassifier, float]:
        started = time.perf_counter()
        X, y = pd.concat([X for X, _ in parts]), np.concatenate([y for _, y in parts])
        return AFMClassifier(**settings).fit(X, y), time.perf_counter() - started

    first, _ = fit(by_month[:FIRST])
    going, _ = fit(by_month[:FIRST])
    found: dict[str, list[tuple[float, float, float]]] = {"first": [], "learned on": [], "anew on all": []}
    for month in range(FIRST, options.last):
        started = time.perf_counter()
        going.partial_fit(*by_month[month])
        seconds = time.perf_counter() - started
        anew, whole = fit(by_month[: month + 1])
        for name, model, took in (("first", first, 0.0), ("learned on", going, seconds), ("anew on all", anew, whole)):
            found[name].append((*scores(model, by_month[month + 1]), took))
            print(f"month {month + 2}: {name}: AUC {found[name][-1][0]:.4f}, {took:.0f} s", flush=True)
    lines = [
        [name, *(f"{value:.4f}" for value in np.mean(runs, 0)[:2]), f"{np.mean(runs, 0)[2]:.0f} s"]
        for name, runs in found.items()
    ]
    months_told = f"months {FIRST + 2} to {options.last + 1}"
    text = table(["model", f"AUC, mean of {months_told}", "log loss", "training a month"], lines)
    print(text)
    if options.docs:
        write_section("continued", f"{circumstances(os.cpu_count() or 1)}\n\n{text}", PAGE)


if __name__ == "__main__":
    main()
