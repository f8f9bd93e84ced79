"""Models of random parameters, for what serves them: raw columns, and every kind of field and factor of the formula."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from attfm.config import Config, DataConfig, ModelConfig, TrainConfig
from attfm.data.codecs.pairs import PairLevels
from attfm.data.encoder import Encoder
from attfm.data.inference import infer_schema
from attfm.data.target import Target
from attfm.model.bundle import Model
from attfm.model.ensemble import Ensemble, Scorer
from attfm.model.memory import PairMemory
from attfm.model.modules import FactorizationMachine

CONTEXT, ITEM = ["user", "age", "likes", "when"], ["film", "tags", "price", "year"]
_SETTINGS: dict[str, dict[str, Any]] = {
    "likes": {"kind": "multi-valued"}, "tags": {"kind": "multi-valued", "separator": "|"}, "price": {"bins": "scaled"},
}  # fmt: skip


def rows(n: int, seed: int = 0) -> pa.Table:
    """Return a table with columns of all kinds: categories, bins, scaled numbers, bags, dates; some are missing."""
    rng = np.random.default_rng(seed)

    def bags(values: Sequence[str], separator: str) -> list[str | None]:
        drawn = [rng.choice(values, rng.integers(0, 4), replace=False) for _ in range(n)]
        return [separator.join(bag) if len(bag) else None for bag in drawn]

    return pa.table(
        {
            "user": [f"u{i}" for i in rng.integers(0, 9, n)],
            "film": [f"f{i}" if i else None for i in rng.integers(0, 12, n)],
            "age": rng.normal(40, 9, n),
            "tags": bags(["war", "love", "crime", "space"], "|"),
            "price": np.where(rng.random(n) < 0.1, np.nan, rng.exponential(9, n).round(1)),
            "likes": [None if bag is None else bag.split("|") for bag in bags(["tea", "rum", "milk"], "|")],
            "year": rng.integers(1950, 1960, n),
            "when": pa.array(rng.integers(1.6e9, 1.61e9, n).astype("datetime64[s]")),
        }
    )


def random_model(
    preset: str = "nested", *, task: str = "binary", members: int = 1, remembered: int = 0, seed: int = 0,
    only: Sequence[str] | None = None, spread: float = 1.0, dim: int = 5, attention_dim: int = 3,
) -> Model:  # fmt: skip
    """Return a model of drawn parameters.

    remembered : how many field pairs have a memory, of known and unknown value pairs; only : columns that it has
    spread : deviation of the attention logits, about
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    table = rows(60, seed)
    table = table if only is None else table.select(only)
    columns = {name: settings for name, settings in _SETTINGS.items() if name in table.schema.names}
    data = DataConfig.parse({"columns": columns, "max_bins": 8}, where="the test")
    schema = infer_schema(table.to_batches(), table.schema, target=None, config=data)
    encoder = Encoder.fit(schema, table.to_batches())
    classes: Any = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": ()}[task]
    target = Target(name="y", task=task, classes=classes or None)  # type: ignore[arg-type]
    formula = {"preset": preset, "dim": dim, "attention_dim": attention_dim}
    config = Config(data=data, model=ModelConfig.parse(formula, where="the test"), train=TrainConfig())
    outputs = max(1, len(classes)) if len(classes) != 2 else 1

    able = [field for field in encoder.fields if field.kind in ("categorical", "numeric")]

    def machine() -> FactorizationMachine:
        made = FactorizationMachine(encoder.n_features, len(encoder.fields), outputs, config.model)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.normal_(0, 0.7)
            if made.has_pairs and made.attention.h is not None:
                made.attention.h.mul_(spread)
        made.target_mean, made.target_std = torch.tensor(0.3), torch.tensor(1.7)
        if remembered and len(able) > 1:
            made.memory = _memory(encoder, outputs, remembered, rng)
        return made

    module: Scorer = machine() if members == 1 else Ensemble([machine() for _ in range(members)])
    return Model(schema, encoder, target, module, config)


def _memory(encoder: Encoder, outputs: int, remembered: int, rng: np.random.Generator) -> PairMemory:
    counts = {f: np.ones(field.size, np.int64) for f, field in enumerate(encoder.fields) if field.ordered}
    levels = PairLevels.of(encoder.fields, counts)
    every = np.array([(i, j) for i in levels.fields for j in levels.fields if i < j])
    pairs = every[np.sort(rng.choice(len(every), min(remembered, len(every)), replace=False))]
    keys = levels.keys(pairs)
    size = int(math.prod(levels.sizes[pairs[-1]]) + keys.offset[-1])
    known = np.flatnonzero(rng.random(size) < 0.5)
    shape = (len(known), outputs)
    unknown = rng.normal(0, 0.3, (len(pairs), outputs))
    return PairMemory.of(levels, keys, known, rng.normal(size=shape), rng.integers(1, 9, len(known)), unknown)


def joined(context: pa.Table, items: pa.Table) -> pa.Table:
    """Return the rows that one context makes with each item."""
    columns = {
        name: pa.concat_arrays([context.column(name).combine_chunks()] * items.num_rows)
        for name in context.schema.names
    }
    return pa.table({**columns, **{name: items.column(name) for name in items.schema.names}})
