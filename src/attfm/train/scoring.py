"""Scores of a table by actors of Ray, each of which has loaded the run folder once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from attfm.config import Reading
from attfm.data.sources.source import NumberedBatch, Source
from attfm.data.unknown_values import UnknownCounts, UnknownValues
from attfm.model.bundle import Model
from attfm.model.run_folder import load_model
from attfm.train.ray_tables import over_batches


@dataclass(frozen=True)
class _Scoring:
    """What an actor does with each batch: its scores beside kept columns, and its unknown values."""

    model: Model
    reading: Reading | None
    keep: tuple[str, ...]
    threshold: float

    @classmethod
    def of(cls, run: str, *options: Any) -> "_Scoring":
        return cls(load_model(run), *options)

    def __call__(self, numbered: NumberedBatch) -> tuple[pa.Table, UnknownCounts]:
        first, columns = numbered
        encoded = self.model.encode_batch(columns, first, self.reading)
        unknown = UnknownValues(self.model.encoder).counted(encoded.batch, columns, first)
        return self.model.scores_of(encoded, self.keep, self.threshold), unknown


def _columns(names: list[str], source: Source) -> Iterator[pa.RecordBatch]:
    return source.batches(names)


def score_by_workers(
    ray: Any, workers: int, run: str, model: Model, source: Source, keep: Sequence[str], threshold: float
) -> Iterator[pa.Table] | None:
    """Yield what `Model.score_table` does, scored by actors; None where the table is not files.

    Parameters
    ----------
    run : the model's folder, which all machines must see
    """
    read = partial(_columns, model.columns_with(keep))
    make = partial(_Scoring.of, run, source.reading, tuple(keep), threshold)
    made = over_batches(ray, workers, source, read, make)
    return None if made is None else _tables(model, made)


def _tables(model: Model, made: Iterator[tuple[pa.Table, UnknownCounts]]) -> Iterator[pa.Table]:
    unknown = UnknownValues(model.encoder)
    for table, counts in made:
        unknown.add(counts)
        yield table
    unknown.warn()
