"""`attfm evaluate`: a saved model measured on a table with its target."""

import numpy as np

from attfm.commands.console import Output, duration, metric_rows
from attfm.commands.options import Reading
from attfm.commands.predict import scored, threshold_of
from attfm.commands.tables import labelled, open_inputs
from attfm.metrics.scores import evaluate as metrics_of
from attfm.model.bundle import Model


def evaluate(
    run: str, data: str, *, threshold: float | None, target: str | None, reading: Reading, output: Output
) -> None:
    """Measure a saved model on a table with its target; see `attfm.cli.evaluate` for the options."""
    model = Model.load(run)
    threshold = threshold_of(model, threshold)
    source = open_inputs(model, data, reading)
    labels, weight = labelled(model, source, target)
    if model.schema.weight not in (None, *source.schema.names):
        output.say(f"{source.name} has no weight column '{model.schema.weight}': all rows count the same")
    if "class_weights" in model.training:
        output.say("metrics are weighted by class, as training was")
    scores = np.concatenate([model.scores(logits) for _, logits in scored(model, source)])
    metrics = metrics_of(model.task, labels, scores, weight, threshold=threshold)
    output.say(f"{len(labels):,} rows of {source.name}, {duration(output.seconds)}")
    output.say()
    output.result_table(*metric_rows({"value": metrics}), right=(1,))
    output.result_json(
        {
            "run": run,
            "data": data,
            "rows": len(labels),
            "task": model.task,
            "threshold": threshold if model.task == "binary" else None,
            "metrics": metrics,
            "seconds": output.seconds,
        }
    )
