"""A small table for the command line's tests: who buys, and how much, by age, job and town."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attfm.cli import main

HEADER = ["row", "age", "job", "town", "bought", "amount", "likes", "weight"]
INPUTS = ["age", "job", "town"]
# Options of `attfm train` that make it quick.
FAST = (
    "--set",
    "epochs=3",
    "--set",
    "learning_rate=0.05",
    "--set",
    "dim=2",
    "--set",
    "attention_dim=2",
    "--set",
    "n_seeds=1",
    "--id",
    "row",
    "--quiet",
)


def shop_rows(n: int = 200, *, seed: int = 0) -> list[list[object]]:
    """Return rows with the columns of HEADER; `bought` and `amount` depend on age and job."""
    rng = np.random.default_rng(seed)
    ages, jobs, towns = rng.integers(18, 80, n), rng.integers(0, 4, n), rng.integers(0, 3, n)
    logit = (ages - 45) / 10 + np.array([-1.5, 0, 1, 2])[jobs]
    bought = rng.random(n) < 1 / (1 + np.exp(-logit))
    amount = np.round(logit + rng.normal(0, 0.3, n), 3)
    likes = np.where(logit < -1, "tea", np.where(logit < 1, "milk", "coffee"))
    names = ["clerk", "cook", "nurse", "pilot"]
    return [
        [i, ages[i], names[jobs[i]], f"town {towns[i]}", "yes" if bought[i] else "no", amount[i], likes[i], 1 + i % 3]
        for i in range(n)
    ]


def write_csv(
    path: Path, rows: Sequence[Sequence[object]], header: Sequence[str] | None = HEADER, *, separator: str = ","
) -> str:
    """Write the rows and return the path as text."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter=separator)
        if header is not None:
            writer.writerow(header)
        writer.writerows(rows)
    return str(path)


def write_shop(path: Path, n: int = 200, *, seed: int = 0, target: str = "bought") -> str:
    """Write inputs and one target column (and the row number) of the shop, and return the path as text."""
    kept = [HEADER.index(name) for name in ("row", *INPUTS, target)]
    return write_csv(path, [[row[i] for i in kept] for row in shop_rows(n, seed=seed)], [HEADER[i] for i in kept])


def train_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Run `attfm train` with FAST and return its JSON."""
    capsys.readouterr()
    assert main(["train", *arguments, *FAST, "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result
