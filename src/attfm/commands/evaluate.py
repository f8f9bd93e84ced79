"""`attfm evaluate`: a saved model measured on a table with its target."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.commands.console import Output, duration, metric_rows
from attfm.commands.predict import threshold_of
from attfm.commands.tables import labelled, open_inputs
from attfm.config import Reading
from attfm.data.sources.source import Source
from attfm.data.split_column import codes_of
from attfm.errors import ConfigError, SchemaError, no_column
from attfm.metrics.scores import auc_by_group
from attfm.metrics.scores import evaluate as metrics_of
from attfm.model.bundle import Model
from attfm.model.run_folder import load_model


def evaluate(
    run: str, data: str, *, query: str | None, threshold: float | None, target: str | None, group_by: str | None,
    reading: Reading, output: Output,
) -> None:  # fmt: skip
    """Measure a saved model on a table with its target; see `attfm.cli.evaluate` for the options."""
    model = load_model(run)
    threshold = threshold_of(model, threshold)
    source = open_inputs(model, data, reading, query=query)
    groups = None if group_by is None else _groups(model, source, group_by)
    labels, weight = labelled(model, source, target)
    if model.schema.weight not in (None, *source.schema.names):
        output.say(f"{source.name} has no weight column '{model.schema.weight}': all rows count the same")
    if model.facts.class_weights is not None:
        output.say("metrics are weighted by class, as training was")
    scores = _scores(model, source, len(labels))
    metrics = metrics_of(model.task.name, labels, scores, weight, threshold=threshold)
    if groups is not None:
        metrics[f"auc_by_{group_by}"], used = auc_by_group(labels, scores[:, 1], groups, weight)
        output.say(f"{used:,} of {groups.max() + 1:,} groups of '{group_by}' have rows of both classes")
    output.say(f"{len(labels):,} rows of {source.name}, {duration(output.seconds)}")
    output.say()
    output.result_table(*metric_rows({"value": metrics}), right=(1,))
    output.result_json({
        "run": run, "data": data, "rows": len(labels), "task": model.task.name,
        "threshold": model.task.reported_threshold(threshold), "metrics": metrics, "seconds": output.seconds,
    })  # fmt: skip


def _scores(model: Model, source: Source, rows: int) -> NDArray[np.floating[Any]]:
    """Return what `Model.predict_proba` does of a table of so many rows, made batch after batch and held once."""
    scores, start = model.task.scores(np.empty((0, model.module.outputs))), 0
    scores = np.empty((rows, *scores.shape[1:]), scores.dtype)
    for part in model.encode(source):
        stop = start + len(part.batch)
        scores[start:stop] = model.task.scores(model.logits_of(part.batch))
        start = stop
    return scores


def _groups(model: Model, source: Source, column: str) -> NDArray[np.int64]:
    """Return the codes of a column's values, int64 (rows,), -1 where they are missing."""
    if model.task.name != "binary":
        raise ConfigError(f"--group-by {column} is for two classes: this model's task is {model.task.name}.")
    if column not in source.schema.names:
        raise SchemaError(no_column("group", column, source.schema.names, source.name))
    return codes_of(column, [batch.column(0) for batch in source.batches([column])])
