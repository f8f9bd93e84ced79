"""The protocol of a 2021 write-up on UCI Adult: as it was run, as it was meant, and beside them attfm's defaults."""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from attfm.config import Config
from attfm.data.batch import Batch
from attfm.data.datasets import DATASETS, adult_split
from attfm.data.inference import infer_schema
from attfm.data.sources.source import open_source
from attfm.data.split import Split
from attfm.model.bundle import Model
from attfm.model.facts import RunFacts
from attfm.reproduce import packaged_settings
from attfm.train.fit import fit
from attfm.train.observer import FitProgress
from attfm.train.prepare import LabelledTable, Tables

# What the write-up reports of its test rows. It also has a log loss, of probabilities fed to a loss that takes
# logits, which says nothing.
WRITE_UP: Mapping[str, float] = MappingProxyType({"accuracy": 0.822, "auc": 0.871, "precision": 0.730, "recall": 0.417})
WRITE_UP_EPOCHS, WRITE_UP_SECONDS = 100, 260.0

Numeric = Literal["uniform", "scaled"]
Progress = Callable[["Variant"], AbstractContextManager[FitProgress]]


@dataclass(frozen=True)
class Variant:
    """One row of the comparison; `on_all_rows` fits the encoder on the test rows too, as the write-up did."""

    name: str
    title: str
    about: str
    config: Config
    on_all_rows: bool


@dataclass(frozen=True)
class Figures:
    """Size of the encoded table: features that occur, fields, and the share of zeros of the one-hot table."""

    features: int
    fields: int
    sparsity: float


@dataclass(frozen=True)
class Row:
    """A trained variant, with the size of its encoded table; the metrics are in model.metrics."""

    variant: Variant
    model: Model
    figures: Figures


def adult_variants(*, epochs: int | None = None, numeric: Numeric = "uniform", seed: int = 0) -> list[Variant]:
    """Return the three rows: the protocol with constant attention, with attention over pairs, and the defaults.

    Without `epochs` they are 100 for the protocol, and the defaults stop early. Numeric columns are cut into 10 bins of
    equal width ("uniform"), or enter as their values ("scaled").
    """
    protocol = tomllib.loads(packaged_settings()["adult_2021"])
    protocol["data"]["numeric"] = numeric
    short = {} if epochs is None else {"epochs": epochs}
    protocol["train"] |= {"seed": seed, **short}
    meant = Config.parse(protocol)
    # A softmax over an axis of size one makes every attention weight 1: no attention, scale 1.
    published = Config.parse({**protocol, "model": {**protocol["model"], "attention": False}})
    defaults = Config.parse({"train": {"seed": seed, **short}})
    return [
        Variant("as-published", "as published", "constant attention, encoded on all rows", published, True),
        Variant("as-meant", "as meant", "softmax over pairs, encoded on all rows", meant, True),
        Variant("attfm-defaults", "attfm defaults", "encoded on the training rows", defaults, False),
    ]


def reproduce_adult(variants: list[Variant], *, progress: Progress) -> Iterator[Row]:
    """Train and measure each variant on the same training, validation and test rows of Adult, one after the other."""
    dataset = DATASETS["adult"]
    source = open_source(dataset.path)
    labels = dataset.table()[dataset.target]
    for variant in variants:
        schema = infer_schema(
            source.batches(), source.schema, target=dataset.target, config=variant.config.data, source=source.name
        )
        table = LabelledTable(source, labels)
        everything = np.arange(len(labels)) if variant.on_all_rows else None
        tables = Tables(table, schema, dataset.target, Split(*adult_split(labels.to_numpy())), encoder_rows=everything)
        facts = RunFacts(variant=variant.title, about=variant.about)
        with progress(variant) as shown:
            fitted = fit(tables, variant.config, shown, facts=facts, measured=True)
        data = fitted.prepared.data
        parts = [part for part in (data.train, data.valid, fitted.prepared.test) if part is not None]
        yield Row(variant, fitted.model, figures([part.sample(len(part)) for part in parts]))


def figures(parts: list[Batch]) -> Figures:
    """Return the size of an encoded table given in parts; a feature counts if some row has it."""
    rows = Batch.concatenate(parts)
    features = len(np.unique(rows.ids.numpy()))
    not_zero = rows.ids.numel() if rows.values is None else int((rows.values != 0).sum())
    return Figures(features, rows.fields, 1 - not_zero / (len(rows) * features))
