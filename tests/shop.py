"""A small table for the command line's tests: who buys, and how much, by age, job and town."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

HEADER = ["row", "age", "job", "town", "bought", "amount", "likes", "weight"]
INPUTS = ["age", "job", "town"]


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
