"""A model whose columns and values are called what an attacker would call them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from attfm import AFMClassifier, AFMRegressor

SCRIPT = "<script>alert(1)</script>"
QUOTED = '" autofocus onfocus="alert(2)" x=\''
NAMES = (SCRIPT, QUOTED, "@@title@@", "{{7*7}}${7*7}<%= 7*7 %>", "../../etc/passwd", "__proto__", "constructor")
VALUES = (SCRIPT, "</select><img src=x onerror=alert(3)>", QUOTED, "@@account@@ & é ☃")
ROW: dict[str, Any] = dict(zip(NAMES, (VALUES * 2)[: len(NAMES)], strict=True))


def evil_run(folder: Path) -> str:
    """Return a run folder of a model with such columns, one of them with a hundred values, and one numeric."""
    rng = np.random.default_rng(0)
    n = 240
    X = {name: rng.choice(np.array(VALUES, object), n).tolist() for name in NAMES}
    X["many"] = [f"{SCRIPT}{number % 100}" for number in range(n)]
    X["how <much>"] = rng.normal(size=n).tolist()
    y = np.where(np.array(X["how <much>"]) > 0, SCRIPT, QUOTED)
    model = AFMClassifier(epochs=2, dim=2, attention_dim=2, n_models=1, verbose=False)
    model.fit(pa.table(X), y).save(folder)
    return str(folder)


def every_kind(folder: Path, task: str) -> tuple[str, dict[str, Any]]:
    """Return a run folder of a model with a column of every kind, and a row of it."""
    rng = np.random.default_rng(1)
    n = 240
    age, tags = rng.integers(18, 80, n), [["a", "b"], ["b"], [], None]
    X = pa.table({
        "age": pa.array(age),
        "pay": pa.array(rng.normal(size=n)),
        "job": pa.array(rng.choice(["cook", "clerk", "pilot"], n)),
        "zip": pa.array(rng.integers(0, 9, n)),
        "is_new": pa.array(rng.random(n) < 0.5),
        "tags": pa.array([tags[number % 4] for number in range(n)]),
        "words": pa.array([("x|y", "y", "z|x")[number % 3] for number in range(n)]),
        "weights": pa.array(
            [[("p", 1.0), ("q", 2.0)] if number % 2 else [("q", 0.5)] for number in range(n)],
            pa.map_(pa.string(), pa.float64()),
        ),
        "when": pa.array(np.datetime64("2024-01-01T00:00:00") + np.arange(n) * np.timedelta64(7, "h")),
        "user": pa.array([f"user {number % 60}" for number in range(n)]),
    })  # fmt: skip
    columns = {
        "pay": {"bins": "scaled"}, "zip": {"kind": "categorical"}, "words": {"kind": "multi-valued", "separator": "|"},
        "user": {"kind": "categorical", "hash_buckets": 20},
    }  # fmt: skip
    logit = (age - 45) / 10
    kind = AFMRegressor if task == "regression" else AFMClassifier
    y = {
        "binary": np.where(logit + rng.normal(size=n) > 0, "yes", "no"),
        "multiclass": np.digitize(logit + rng.normal(size=n), [-1, 1]),
        "regression": logit + rng.normal(0, 0.1, n),
    }[task]
    settings = {} if task == "regression" else {"calibrate": "isotonic"}
    models = 1 if task == "binary" else 2
    model = kind(epochs=2, dim=2, attention_dim=2, n_models=models, verbose=False, columns=columns, **settings)
    model.fit(X, y).save(folder)
    row = {
        "age": 44, "pay": 0.3, "job": "cook", "zip": 3, "is_new": True, "tags": ["a", "never seen"], "words": "x|z",
        "weights": {"p": 1.5, "q": 0.25}, "when": "2024-02-03T14:00:00", "user": "user 3",
    }  # fmt: skip
    return str(folder), row
