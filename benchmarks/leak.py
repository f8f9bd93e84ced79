"""Does a statistic of the target see its own row? Train on random labels of random ids; there is nothing to learn.

    python -m benchmarks.leak

Each seed trains on 20,000 rows and stops by 20,000 others: the validation AUC has to be .5 ± .02 (its own standard
deviation is .003), and hardly any field pair may be chosen for pair memory. Ends with 1 where an AUC is not.
"""

import argparse
import json
import sys
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from attfm import AFMClassifier
from benchmarks.remembered_pairs import remembered_pairs

ROWS = 20_000
LEVELS = (5, 50, 500, 2_000, 5_000, 20_000)  # of the columns: from seen often to seen once
SLACK = 0.02


def noise(rows: int, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """Return columns of ids, the frequent ones first, and labels that have nothing to do with them."""
    columns = {f"id{levels}": (levels * rng.random(rows) ** 2).astype(int).astype(str) for levels in LEVELS}
    return pd.DataFrame(columns), rng.integers(0, 2, rows)


def run(seed: int, rows: int, **settings: Any) -> dict[str, Any]:
    """Train on noise; return the AUC of the validation rows, and how many pairs were chosen."""
    rng = np.random.default_rng(seed)
    (X, y), (X_valid, y_valid) = noise(rows, rng), noise(rows, rng)
    columns = {name: {"kind": "categorical"} for name in X}
    model = AFMClassifier(random_state=seed, verbose=False, columns=columns, **settings)
    model.fit(X, y, eval_set=(X_valid, y_valid))
    auc = roc_auc_score(y_valid, model.predict_proba(X_valid)[:, 1])
    return {"seed": seed, "valid_auc": round(float(auc), 4), "chosen_pairs": remembered_pairs(model.model_)}


def main() -> int:
    """Print a JSON line for each seed, and whether the AUC held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rows", type=int, default=ROWS)
    options = parser.parse_args()
    runs = []
    for seed in range(options.seeds):
        runs.append(run(seed, options.rows))
        print(json.dumps(runs[-1]), flush=True)
    off = [abs(one["valid_auc"] - 0.5) for one in runs]
    pairs = [one["chosen_pairs"] for one in runs if one["chosen_pairs"] is not None]
    told = (
        f"{np.mean(pairs):.1f} of {len(LEVELS) * (len(LEVELS) - 1) // 2} pairs chosen in the mean"
        if pairs
        else "no memory"
    )
    print(f"largest |AUC - .5|: {max(off):.4f}, at most {SLACK} is to be held; {told}")
    return int(max(off) > SLACK)


if __name__ == "__main__":
    sys.exit(main())
