"""Models with drawn parameters, on a table with every kind of column: an export can't be right by chance."""

import datetime
import decimal
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
from attfm.model.calibration import Calibration
from attfm.model.ensemble import members_of
from attfm.model.memory import PairMemory

ROWS = 300
COLUMNS: dict[str, dict[str, Any]] = {
    "town": {"kind": "categorical"},
    "size": {"kind": "categorical"},
    "width": {"bins": "scaled"},
    "langs": {"kind": "multi-valued", "separator": "|"},
    "started": {"kind": "datetime"},
}
CLASSES = {"binary": ("no", "yes"), "multiclass": ("high", "low", "middle")}
# Columns that a SQL query can read.
PLAIN = ("job", "age", "town", "size", "member", "price", "short")


def table(rows: int = ROWS, *, seed: int = 3) -> pa.Table:
    """Return a table with a column of each kind, with gaps."""
    rng = np.random.default_rng(seed)
    days = rng.integers(0, 9000, rows)
    gaps = np.arange(rows) % 11 == 5
    tags = [["a", "b", "c", "d"][: i % 4] for i in range(rows)]
    started = [datetime.datetime(2000, 1, 1) + datetime.timedelta(hours=int(day) * 7) for day in days]
    weights = [{name: float(x) for name, x in zip(bag, rng.normal(1, 1, 4), strict=False)} for bag in tags]
    return pa.table({
        "job": pa.array(rng.choice(["cook", "clerk", "O'Neil & \"Sons\"", "pilot"], rows), mask=gaps),
        "age": pa.array(np.round(rng.normal(40, 15, rows), 1), mask=np.roll(gaps, 1)),
        "town": pa.array(rng.integers(2**60, 2**60 + 7, rows), mask=np.roll(gaps, 2)),
        "size": pa.array(rng.choice([0.1, 1.5, -2.0, 7e10], rows), mask=np.roll(gaps, 3)),
        "member": pa.array(rng.random(rows) < 0.5, mask=np.roll(gaps, 4)),
        "price": pa.array([decimal.Decimal(int(x)) / 4 for x in rng.integers(0, 99, rows)], pa.decimal128(9, 2)),
        "short": pa.array(rng.normal(0, 1, rows).astype(np.float32)),
        "width": pa.array(rng.normal(100, 20, rows)),
        "langs": pa.array(["|".join(bag) for bag in tags]),
        "tags": pa.array(tags),
        "weighted": pa.array([list(bag.items()) for bag in weights], pa.map_(pa.string(), pa.float64())),
        "started": pa.array(started),
    })  # fmt: skip


def made_model(
    task: str = "binary", *, preset: str = "nested", members: int = 1, memory: bool = False,
    calibration: Calibration | None = None, columns: tuple[str, ...] = (), settings: dict[str, Any] | None = None,
    data: pa.Table | None = None,
) -> Model:  # fmt: skip
    """Return a model with drawn parameters; columns : the inputs, all where none are named."""
    rows = table() if data is None else data
    rows = rows.select(columns) if columns else rows
    declared = {name: own for name, own in {**COLUMNS, **(settings or {})}.items() if name in rows.column_names}
    config = Config.parse(
        {"data": {"columns": declared, "max_bins": 20}, "model": {"preset": preset, "dim": 4, "attention_dim": 3}}
    )
    schema = infer_schema(rows.to_batches(), rows.schema, target=None, config=config.data)
    encoder = Encoder.fit(schema, rows.to_batches())
    target = Target("y", task, CLASSES.get(task))
    if members > 1:
        module: Any = build_ensemble(encoder, target, config, members=members)
    else:
        module = build_module(encoder, target, config)
    generator = torch.Generator().manual_seed(5)
    for number, machine in enumerate(members_of(module)):
        with torch.no_grad():
            for name, parameter in machine.named_parameters():
                if parameter.requires_grad or name == "projection":
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
            machine.target_mean, machine.target_std = torch.tensor(0.0), torch.tensor(1.0)
            if task == "regression":
                machine.target_mean, machine.target_std = torch.tensor(250.0), torch.tensor(40.0)
        if memory:
            machine.memory = _memory(encoder, machine.outputs, number)
    found = calibration or Calibration()
    found.fold_into(module)
    return Model(schema, encoder, target, module.eval(), config, calibration=found)


def _memory(encoder: Encoder, outputs: int, seed: int) -> PairMemory:
    """Return effects of two thirds of the value pairs of three pairs of fields."""
    rng = np.random.default_rng(seed)
    counts = {f: np.full(field.size, 3) for f, field in enumerate(encoder.fields)}
    levels = PairLevels.of(encoder.fields, counts)
    pairs = np.array([[0, 1], [0, 2], [1, 3]])
    keys = levels.keys(pairs)
    known = []
    for p, (i, j) in enumerate(pairs):
        first, second = (a.ravel() for a in np.meshgrid(*(np.arange(levels.sizes[f]) for f in (i, j))))
        of_pair = keys.of(p, first, second)
        known.append(of_pair[rng.random(len(of_pair)) < 0.7])
    every = np.concatenate(known)
    effects = rng.normal(0, 1, (len(every), outputs))
    return PairMemory.of(
        levels, keys, every, effects, rng.integers(1, 9, len(every)), rng.normal(0, 1, (len(pairs), outputs))
    )


def isotonic(outputs: int = 1) -> Calibration:
    """Return curves of a few points, one of them with a jump."""
    curve = {"logits": (-4.0, -1.0, -0.5, 2.0), "probabilities": (0.05, 0.2, 0.6, 0.9)}
    return Calibration.model_validate({"kind": "isotonic", "rows": 100, "curves": [curve] * outputs})
