"""A run folder as the service holds it: the model, and all that is made of it once."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import types

from attfm.data.codecs.codec import FIRST_VALUE
from attfm.data.schema import Column
from attfm.errors import ConfigError
from attfm.explain.background import Background
from attfm.explain.levels import Levels
from attfm.model.bundle import Model
from attfm.model.run_folder import load_model
from attfm.serve.http.accounts import Accounts
from attfm.serve.http.drift import Drift
from attfm.serve.http.items import Items
from attfm.serve.http.request_models import RequestModels
from attfm.serve.http.scorer import CompiledScorer, RowScorer
from attfm.serve.http.settings import ServiceSettings
from attfm.serve.scores import Scores
from attfm.serve.tables import compile as compile_model

MOST_LISTED = 1000  # values of a field that /schema lists


@dataclass(frozen=True)
class LoadedRun:
    """One run that is served.

    Attributes
    ----------
    folder : pathlib.Path; version : str, the first digits of the SHA-256 of its config.json, which names all others
    usual : by column, a value that many training rows had
    """

    folder: Path
    version: str
    model: Model
    scorer: RowScorer
    scores: Scores
    usual: Mapping[str, Any]
    requests: RequestModels
    drift: Drift
    items: Items

    @classmethod
    def load(cls, folder: str | Path, settings: ServiceSettings) -> "LoadedRun":
        """Read a run folder, and score a row with it once, so that the first request does not wait.

        Raises
        ------
        RunFolderError : the folder is absent, damaged or of a newer format
        AttfmError : the table of items is not one of this model
        """
        path = Path(folder)
        model = load_model(path)
        version = hashlib.sha256((path / "config.json").read_bytes()).hexdigest()[:12]
        usual, drift = usual_row(model), Drift.of_model(model)
        run = cls(
            path, version, model, CompiledScorer(compile_model(model)), Scores(model), usual,
            RequestModels.of(model.schema.inputs, usual, rows=settings.rows), drift,
            Items(model, settings.items, settings.item_key, observe=drift.add_fields),
        )  # fmt: skip
        run.scores.of(run.scorer.logits([usual])[0])
        return run

    @cached_property
    def accounts(self) -> Accounts:
        """What explains rows by this run."""
        return Accounts(self.model)


def usual_row(model: Model) -> dict[str, Any]:
    """Return a row of usual values, as JSON has them: the most frequent category, a middle number, a date."""
    levels, counts = _training_levels(model)
    row = dict[str, Any]()
    for column in model.schema.inputs:
        fields = [f for f, field in enumerate(model.encoder.fields) if field.column == column.name]
        if column.kind == "datetime":
            row[column.name] = _usual_time(column)
            continue
        start, size = int(levels.offsets[fields[0]]), int(levels.sizes[fields[0]])
        of_values = counts[start + FIRST_VALUE : start + size]
        if column.kind == "numeric":
            row[column.name] = _middle(column, levels, fields[0], of_values)
        elif column.hash_buckets or not len(of_values):
            row[column.name] = None
        else:
            name = levels.features(fields[0])[FIRST_VALUE + int(of_values.argmax())]
            row[column.name] = name if column.kind == "categorical" else _bag_of(column, name)
    return row


def _training_levels(model: Model) -> tuple[Levels, NDArray[np.int64]]:
    """Return the levels of the fields, and how many training rows had each; one each where it is not known."""
    try:
        background = Background.of_model(model)
    except ConfigError:
        levels = Levels(model.encoder, {})
        return levels, np.ones(int(levels.sizes.sum()), np.int64)
    return background.levels, background.counts


def _usual_time(column: Column) -> str:
    """Return a time as a column has them: with an offset where its times had a zone."""
    time = pa.scalar(datetime(2024, 3, 1, 12), pa.timestamp("s", getattr(column.stored_type, "tz", None)))
    text: str = time.as_py().isoformat()
    return text


def _bag_of(column: Column, member: str) -> Any:
    return {member: 1.0} if types.is_map(column.stored_type) else [member]


def _middle(column: Column, levels: Levels, field: int, counts: NDArray[np.int64]) -> float | int | None:
    """Return a value of the bin that the middle row of training is in."""
    if column.minimum is None or column.maximum is None:
        return None
    value, edges = (column.minimum + column.maximum) / 2, levels.edges(field)
    if edges is not None and len(counts) == len(edges) - 1:
        middle = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
        value = bin_value(levels.labels(field)[FIRST_VALUE + middle], edges[middle : middle + 2])
    if "int" in column.arrow_type:
        return int(np.clip(round(value), column.minimum, column.maximum))
    return float(f"{value:.6g}")


def bin_value(label: str, ends: NDArray[np.float64]) -> float:
    """Return a value of a bin: the one that it holds, where its label is that, else the middle of its ends."""
    try:
        value = float(label)
    except ValueError:
        return float(ends.mean())
    return value if ends[0] <= value <= ends[1] else float(ends.mean())


def described(run: LoadedRun) -> dict[str, Any]:
    """Return what GET /schema says: the task and every field."""
    model, takes = run.model, run.requests.takes
    listed = []
    for column in model.schema.inputs:
        fields = [f for f, field in enumerate(model.encoder.fields) if field.column == column.name]
        values, total = None, None
        if column.kind in ("categorical", "multi-valued") and not column.hash_buckets and fields:
            names = model.encoder.feature_names(fields[0])[FIRST_VALUE:]
            values, total = names[:MOST_LISTED], len(names)
        listed.append({
            "name": column.name, "kind": column.kind, "takes": takes[column.name], "example": run.usual[column.name],
            "minimum": column.minimum, "maximum": column.maximum, "missing": column.missing,
            "values": values, "values_in_all": total,
        })  # fmt: skip
    task = model.task
    return {
        "task": task.name, "target": task.target, "classes": list(task.class_names),
        "threshold": task.reported_threshold(model.threshold), "version": run.version, "fields": listed,
    }  # fmt: skip
