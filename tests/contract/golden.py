"""Small tables and fits whose results are kept as files, so that a change of the code that moves a bit is seen.

`python -m tests.contract.golden` writes the files anew: only where a change of the results is meant.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from attfm import AFMClassifier, AFMRegressor
from attfm.ops import native_info

FOLDER = Path(__file__).with_name("golden")
ROWS = 240
SETTINGS = {"epochs": 6, "learning_rate": 0.03, "dim": 5, "attention_dim": 3, "random_state": 7}
# The defaults of 0.1, under which the first cases were kept; "remembered" has those of today.
FIRST = {
    "embedding_decay": 3.0, "linear_decay": 0.1, "embedding_ridge": 0.0, "linear_ridge": 0.0, "adam_eps": 1e-8,
    "embedding_std": 0.1, "rates": False, "memory_pairs": 0, "smoothness_by_field": False, "additive_start": False,
    "knots": 0, "max_bins": 255, "n_seeds": 1,
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "binary": FIRST, "multiclass": FIRST, "regression": FIRST, "bags and dates": FIRST,
    "scaled": {**FIRST, "numeric": "scaled"}, "remembered": {"rate_levels": 3},
}  # fmt: skip
CASES = ("binary", "multiclass", "regression", "scaled", "bags and dates", "remembered")


def table(rows: int = ROWS) -> pa.Table:
    """Return a table with strings, numbers with gaps, lists, and dates."""
    rng = np.random.default_rng(11)
    job = rng.choice(["cook", "clerk", "pilot", "nurse"], rows)
    age = np.round(rng.normal(40, 9, rows) + 8 * (job == "pilot"), 1)
    hours = rng.integers(0, 24 * 700, rows)
    return pa.table(
        {
            "job": job,
            "age": np.where(rng.random(rows) < 0.1, np.nan, age),
            "town": rng.integers(0, 5, rows),
            "langs": pa.array([["de", "en", "fr", "nl"][: i % 5][i % 2 :] for i in range(rows)]),
            "seen": pa.array(np.datetime64("2024-01-01T00:30") + (hours * 3600).astype("timedelta64[s]")),
        }
    )


def labels(case: str, rows: int = ROWS) -> np.ndarray[Any, Any]:
    """Return the target of a case, (rows,)."""
    data, rng = table(rows), np.random.default_rng(12)
    age = np.nan_to_num(data["age"].to_numpy(), nan=40.0)
    score = (age - 42) / 6 + np.array([len(x) for x in data["langs"].to_pylist()]) - 1.5 + rng.normal(0, 0.5, rows)
    if case == "multiclass":
        return np.where(score < -0.7, "low", np.where(score < 0.7, "middle", "high"))
    return np.round(100 + 30 * score, 2) if case == "regression" else np.where(score > 0, "yes", "no")


def results(case: str) -> dict[str, np.ndarray[Any, Any]]:
    """Return what a fit of the case gives: predictions, logits or values, and the account of some rows."""
    data = table() if case == "bags and dates" else table().select(["job", "age", "town"])
    y = labels(case)
    model = (AFMRegressor if case == "regression" else AFMClassifier)(**SETTINGS, **OPTIONS.get(case, {})).fit(data, y)
    found: dict[str, np.ndarray[Any, Any]] = {}
    if case == "regression":
        found["predictions"] = model.predict(data)
    else:
        found["predictions"] = model.predict_proba(data)
        found["logits"] = model.decision_function(data)
    account = model.explain(data, rows=range(12))
    return found | {"base": account.base, "main": account.main, "pair": account.pair}


def facts() -> dict[str, Any]:
    """Return what the bits of a result depend on besides the code."""
    return {
        "torch": torch.__version__,
        "isa": native_info()["isa"],
        "capability": torch.backends.cpu.get_cpu_capability(),
        "processor": processor(),
    }


def processor() -> str:
    """Return maker, family and model of the processor, by which BLAS chooses its sums; empty where it is not told."""
    told = Path("/proc/cpuinfo")
    if not told.exists():
        return ""
    values = dict(re.findall(r"^(vendor_id|cpu family|model)\s*: (.*)$", told.read_text(), re.MULTILINE))
    return " ".join(values.get(name, "") for name in ("vendor_id", "cpu family", "model"))


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    for case in CASES:
        np.savez_compressed(FOLDER / f"{case.replace(' ', '-')}.npz", **results(case))
    (FOLDER / "facts.json").write_text(json.dumps(facts(), indent=2) + "\n")


if __name__ == "__main__":
    main()
