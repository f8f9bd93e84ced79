"""A small table of all kinds of columns, and models of it with random parameters, shared by the tests."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from attfm.config import Config, PresetName
from attfm.data.batch import Batch
from attfm.data.dataset import Examples, InMemoryDataset
from attfm.data.encoder import Encoder
from attfm.data.inference import infer_schema
from attfm.data.sources.source import Source, open_source
from attfm.data.target import Target
from attfm.explain.summary import summarise
from attfm.model.bundle import Model, build_module
from attfm.model.ensemble import Ensemble

ROWS = 150
TARGETS = {"binary": ["no", "yes"], "multiclass": ["a", "b", "c"], "regression": [1.5, 250.25, 90.125]}


ENCODINGS = {
    "binned": {},
    "scaled": {"numeric": "scaled"},
    "hashed": {"columns": {"job": {"hash_buckets": 4}, "langs": {"hash_buckets": 8}}},
    "single-valued": {"columns": {"langs": {"kind": "ignored"}}},
}


def mixed(rows: int = ROWS, *, seed: int = 0) -> pa.Table:
    """Return a table with a string, a number with gaps, a list, and a date; job and age depend on each other."""
    rng = np.random.default_rng(seed)
    job = rng.choice(["cook", "clerk", "pilot"], rows)
    age = rng.normal(40, 9, rows) + 8 * (job == "pilot")
    return pa.table(
        {
            "job": job,
            "age": np.where(rng.random(rows) < 0.1, np.nan, np.round(age, 1)),
            "langs": pa.array([["de", "en", "fr"][: i % 4] for i in range(rows)]),
            "born": pa.array(np.datetime64("2001-01-01") + rng.integers(0, 9000, rows)),
        }
    )


def clashing(rows: int = ROWS) -> pa.Table:
    """Return a table of "a", "b" and "a × b", which is called like the pair of the other two."""
    rng = np.random.default_rng(0)
    values = {"a": ["u", "v"], "b": ["w", "x"], "a × b": ["u × w", "other"]}
    return pa.table({name: rng.choice(of, rows) for name, of in values.items()})


def source(table: pa.Table | None = None) -> Source:
    return open_source(mixed() if table is None else table)


def model(
    task: str = "binary",
    *,
    preset: PresetName = "nested",
    table: pa.Table | None = None,
    background: bool = True,
    seed: int = 0,
    refits: int = 0,
    members: int = 1,
    target_mean: float = 1000.0,
    **data: Any,
) -> Model:
    """Return a model of `mixed` (or another table) with random parameters, as untrained as a model can be.

    With several members it is an ensemble of so many of them.
    """
    rows = source(table)
    config = Config.parse({"data": data, "model": {"preset": preset, "dim": 4, "attention_dim": 3}})
    schema = infer_schema(rows.batches(), rows.schema, target=None, config=config.data)
    encoder = Encoder.fit(schema, rows.batches())
    labels = TARGETS[task]
    target = Target.fit(
        pa.chunked_array([pa.array([labels[i % len(labels)] for i in range(ROWS)])]), task=task, name="y"
    )

    def random_module(number: int) -> Any:
        torch.manual_seed(number)
        module = build_module(encoder, target, config)
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.copy_(torch.randn_like(parameter))
            if task == "regression":
                module.target_mean.fill_(target_mean)
                module.target_std.fill_(25.0)
        return module.eval()

    module = random_module(seed)
    if members > 1:
        module = Ensemble([module, *(random_module(seed + 100 * number) for number in range(1, members))])
    made = Model(schema, encoder, target, module, config)
    if background:
        others = [random_module(seed + 1 + number) for number in range(refits)]
        made = replace(made, background=summarise(made.module, encoder, dataset(made, rows), refits=others))
    return made


def encoded(made: Model, rows: Source) -> Batch:
    return Batch.concatenate([part.batch for part in made.encode(rows)])


def dataset(made: Model, rows: Source) -> InMemoryDataset:
    batch = encoded(made, rows)
    return InMemoryDataset(Examples(batch, torch.zeros(len(batch), dtype=torch.int64), torch.ones(len(batch))))


def assert_adds_up(total: np.ndarray, logits: np.ndarray, *, relative: float = 1e-5) -> None:
    """Assert that accounts give the logits, to a share of the largest logit."""
    worst = float(np.abs(total - logits).max() / np.abs(logits).max())
    assert worst < relative, f"off by {worst:.1e} of the largest logit"
