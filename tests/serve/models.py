"""Models of every formula, task and kind of column, with parameters drawn at random: what is scored by lookup."""

import datetime as dt
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from attfm.config import Config
from attfm.data.codecs.pairs import PairLevels
from attfm.data.encoder import Encoder
from attfm.data.inference import infer_schema
from attfm.data.target import Target
from attfm.model.bundle import Model, build_ensemble, build_module
from attfm.model.ensemble import members_of
from attfm.model.memory import PairMemory
from attfm.model.modules import FactorizationMachine

PRESETS = ("nested", "paper", "fwfm", "fm", "linear")
TASKS = ("binary", "multiclass", "regression")
TARGETS = {
    "binary": ["no", "yes"] * 40,
    "multiclass": ["a", "b", "c", "d"] * 20,
    "regression": [x / 7 for x in range(80)],
}


@lru_cache
def rows(*, seed: int = 0, n: int = 80) -> pa.Table:
    """Return rows of every kind of column, with gaps."""
    rng = np.random.default_rng(seed)
    gaps = rng.random(n) < 0.1
    start = dt.datetime(2024, 1, 1)
    return pa.table({
        "age": pa.array(rng.integers(17, 90, n), mask=gaps),
        "job": pa.array(rng.choice(["cook", "clerk", "pilot", "nurse"], n), mask=np.roll(gaps, 1)),
        "town": pa.array(rng.integers(0, 9, n)),
        "height": pa.array(rng.normal(170, 10, n), mask=np.roll(gaps, 2)),
        "user": pa.array([f"u{i}" for i in rng.integers(0, 60, n)]),
        "langs": pa.array(
            [list(rng.choice(["de", "en", "fr"], rng.integers(0, 3))) for _ in range(n)], pa.list_(pa.string())
        ),
        "seen": pa.array([start + dt.timedelta(hours=int(h)) for h in rng.integers(0, 9000, n)]),
    })  # fmt: skip


PLAIN = ("age", "job", "town", "user", "seen")  # one feature a field, with x = 1
COLUMNS: Mapping[str, dict[str, Any]] = {
    "height": {"kind": "numeric", "bins": "scaled"},
    "user": {"kind": "categorical", "hash_buckets": 16},
    "town": {"kind": "categorical"},
    "age": {"kind": "numeric", "max_bins": 12},
}


def model_of(
    task: str = "binary", *, preset: str = "nested", members: int = 1, memory: bool = True, plain: bool = False,
    seed: int = 0, spread: float = 1.0, table: pa.Table | None = None, columns: Mapping[str, Any] | None = None,
    reading: Mapping[str, Any] | None = None,
) -> Model:  # fmt: skip
    """Return a model whose parameters are drawn at random; nothing is trained.

    plain : without multi-valued and scaled columns; spread : of the attention logits
    """
    table = (rows().select(PLAIN) if plain else rows()) if table is None else table
    columns = COLUMNS if columns is None else columns
    known = {name: settings for name, settings in columns.items() if name in table.column_names}
    config = Config.parse({"data": {"columns": known}, "model": {"preset": preset, "dim": 5, "attention_dim": 3}})
    schema = infer_schema(table.to_batches(), table.schema, target=None, config=config.data)
    if reading:
        schema = schema.model_copy(update={"reading": schema.reading.model_copy(update=dict(reading))})
    encoder = Encoder.fit(schema, table.to_batches())
    target = Target.fit(pa.array(TARGETS[task]), task=task, name="y")
    module = (
        build_module(encoder, target, config)
        if members == 1
        else build_ensemble(encoder, target, config, members=members)
    )
    generator = torch.Generator().manual_seed(seed)
    for machine in members_of(module):
        draw(machine, generator, spread)
        if memory:
            machine.memory = memory_of(machine, encoder, generator)
    return Model(schema, encoder, target, module.eval(), config)


@torch.no_grad()
def draw(machine: FactorizationMachine, generator: torch.Generator, spread: float) -> None:
    """Give a machine parameters that all matter."""
    for name, parameter in machine.named_parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5 + (1.0 if "gate" in name else 0.0))
        if name.endswith(".h"):
            parameter.mul_(spread)
    if machine.outputs == 1:
        machine.target_mean, machine.target_std = torch.tensor(0.25), torch.tensor(1.5)


def memory_of(machine: FactorizationMachine, encoder: Encoder, generator: torch.Generator) -> PairMemory:
    """Return a memory of about half of all value pairs of some field pairs."""
    counts = {f: np.ones(field.size, np.int64) for f, field in enumerate(encoder.fields) if field.ordered}
    levels = PairLevels.of(encoder.fields, counts)
    own = levels.fields
    pairs = np.array([(own[0], own[1]), (own[1], own[-1])], np.int64)
    keys = levels.keys(pairs)
    known = [
        keys.of(p, np.array([a]), np.array([b]))[0]
        for p, (i, j) in enumerate(pairs)
        for a in range(int(levels.sizes[i]))
        for b in range(int(levels.sizes[j]))
        if (a + b) % 2
    ]

    def effects(n: int) -> Any:
        return torch.randn((n, machine.outputs), generator=generator).numpy()

    return PairMemory.of(
        levels, keys, np.array(known), effects(len(known)), np.ones(len(known), np.int64), effects(len(pairs))
    )
