"""Write a table of made-up clicks as Parquet files, with planted effects, so that the reachable AUC is known.

    python -m benchmarks.make_clicks OUT --rows 20000000

13 numeric and 26 categorical columns, as in the Criteo logs; ids follow Zipf's law, 5 million features in all at 20
million rows. A click's logit is a sum of planted effects of single values and of pairs of values. Only frequent ids
have effects: no model can learn those of ids that occur twice. OUT/planted.json says the AUC of the planted
probabilities themselves, which no model can beat but by chance.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NUMERIC, CATEGORICAL = 13, 26
FEATURES = 5_000_000  # of 20 million rows; in proportion to the root of the rows for fewer
FULL_ROWS = 20_000_000
CHUNK = 500_000  # rows of a file
KNOWN = 500  # ids of a column that have effects
PAIRS = ((0, 1), (2, 5), (3, 8), (4, 12), (6, 20), (7, 9), (10, 15), (11, 21), (13, 14), (16, 2))  # categorical columns
DIM = 4
INTERCEPT = -1.6


@dataclass(frozen=True)
class Planted:
    """The effects: of ids by their rank, of numbers, and factors of pairs of ids."""

    sizes: np.ndarray[Any, Any]
    exponents: np.ndarray[Any, Any]
    main: np.ndarray[Any, Any]
    factors: np.ndarray[Any, Any]
    waves: np.ndarray[Any, Any]

    @classmethod
    def of(cls, rows: int, seed: int) -> "Planted":
        rng = np.random.default_rng(seed)
        shape = np.geomspace(8, 1, CATEGORICAL // 2)
        small = np.geomspace(5, 2_000, CATEGORICAL - len(shape))
        large = shape / shape.sum() * (FEATURES * (rows / FULL_ROWS) ** 0.5 - small.sum())
        sizes = np.maximum(np.concatenate([small, large[::-1]]), 3).astype(np.int64)
        return cls(
            sizes, rng.uniform(1.05, 1.4, CATEGORICAL), rng.normal(0, 0.22, (CATEGORICAL, KNOWN)),
            rng.normal(0, 0.42, (CATEGORICAL, KNOWN, DIM)), rng.uniform(0.5, 2.0, (NUMERIC, 2)),
        )  # fmt: skip

    def chunk(self, rows: int, seed: list[int]) -> tuple[pa.Table, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return some rows, their planted logits and whether they are clicks."""
        rng = np.random.default_rng(seed)
        logit, columns = np.full(rows, INTERCEPT), dict[str, Any]()
        for n in range(NUMERIC):
            x = np.round(np.exp(rng.normal(2, 1.2, rows)), 1)
            missing = rng.random(rows) < 0.1
            logit += np.where(missing, -0.1, 0.25 * np.sin(self.waves[n, 0] * np.log1p(x)) * self.waves[n, 1])
            columns[f"i{n + 1}"] = pa.array(x, mask=missing)
        ranks = []
        for c in range(CATEGORICAL):
            power = 1 - self.exponents[c]
            u = rng.random(rows)
            rank = ((float(self.sizes[c]) ** power - 1) * u + 1) ** (1 / power) - 1
            rank = np.minimum(rank.astype(np.int64), self.sizes[c] - 1)
            ranks.append(rank)
            has = rank < KNOWN
            logit += np.where(has, self.main[c, np.where(has, rank, 0)], 0)
            distinct, codes = np.unique(rank, return_inverse=True)
            texts = pa.array([f"{(int(r) * 2654435761 + c * 97) % 2**32:08x}" for r in distinct])
            columns[f"c{c + 1}"] = pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), texts)
        for i, j in PAIRS:
            both = (ranks[i] < KNOWN) & (ranks[j] < KNOWN)
            a, b = np.where(both, ranks[i], 0), np.where(both, ranks[j], 0)
            logit += np.where(both, (self.factors[i, a] * self.factors[j, b]).sum(1), 0)
        click = rng.random(rows) < 1 / (1 + np.exp(-logit))
        return pa.table({"click": pa.array(click.astype(np.int8)), **columns}), logit, click


def auc(logit: np.ndarray[Any, Any], click: np.ndarray[Any, Any]) -> float:
    """Return the AUC."""
    order = np.argsort(logit, kind="stable")
    ranks = np.empty(len(order))
    ranks[order] = np.arange(1, len(order) + 1)
    ones = click.sum()
    return float((ranks[click].sum() - ones * (ones + 1) / 2) / (ones * (len(click) - ones)))


def make(out: Path, rows: int, seed: int = 0, *, quiet: bool = False) -> float:
    """Write the files; return the planted AUC, of at most the last two million rows."""
    out.mkdir(parents=True, exist_ok=True)
    planted, started = Planted.of(rows, seed), time.perf_counter()
    kept: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
    for number, start in enumerate(range(0, rows, CHUNK)):
        table, logit, click = planted.chunk(min(CHUNK, rows - start), [seed, number])
        pq.write_table(table, out / f"part-{number:04d}.parquet", row_group_size=100_000)
        kept = [*kept[-3:], (logit, click)]
        if not quiet:
            print(f"{start + len(click):,} rows, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    reached = auc(*(np.concatenate(arrays) for arrays in zip(*kept, strict=True)))
    (out / "planted.json").write_text(json.dumps({"rows": rows, "seed": seed, "auc": reached}) + "\n")
    return reached


def main() -> None:
    """Make the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.make_clicks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=FULL_ROWS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"planted AUC {make(options.out, options.rows, options.seed):.4f}")


if __name__ == "__main__":
    main()
