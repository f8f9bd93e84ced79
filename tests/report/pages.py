"""A table with an odd column of each kind, and what stands in a page, shared by the tests."""

import json
import re

import numpy as np
import pyarrow as pa

EVIL = "<script>alert(1)</script>"
QUICK = {"epochs": 2, "dim": 2, "attention_dim": 2, "verbose": False}


def table(n: int = 400, seed: int = 0) -> tuple[pa.Table, np.ndarray]:
    """Return columns with an odd one of each kind, and labels that depend on age."""
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 80, n)
    label = np.where(age + rng.normal(0, 15, n) > 50, "yes", "no")
    columns = {
        "age": age,
        "job": rng.choice(["cook", "clerk", EVIL, "</script><b>bold</b>"], n),
        EVIL: rng.choice(["a & b", 'quote " and \u2028'], n),
        "same": ["one"] * n,
        "leak": np.where(label == "yes", "paid", "open"),
        "number": np.arange(n).astype(str),
    }
    return pa.table(columns), label


def data_of(page: str) -> dict:
    """Return the JSON of a page, as a browser would cut it out."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])
