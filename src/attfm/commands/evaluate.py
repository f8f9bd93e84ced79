"""`attfm evaluate`: a saved model measured on a table with its target."""

from attfm.commands.console import Output, duration, metric_rows
from attfm.commands.predict import threshold_of
from attfm.commands.tables import labelled, open_inputs
from attfm.config import Reading
from attfm.metrics.scores import evaluate as metrics_of
from attfm.model.run_folder import load_model


def evaluate(
    run: str, data: str, *, threshold: float | None, target: str | None, reading: Reading, output: Output
) -> None:
    """Measure a saved model on a table with its target; see `attfm.cli.evaluate` for the options."""
    model = load_model(run)
    threshold = threshold_of(model, threshold)
    source = open_inputs(model, data, reading)
    labels, weight = labelled(model, source, target)
    if model.schema.weight not in (None, *source.schema.names):
        output.say(f"{source.name} has no weight column '{model.schema.weight}': all rows count the same")
    if model.facts.class_weights is not None:
        output.say("metrics are weighted by class, as training was")
    scores = model.predict_proba(source)
    metrics = metrics_of(model.task.name, labels, scores, weight, threshold=threshold)
    output.say(f"{len(labels):,} rows of {source.name}, {duration(output.seconds)}")
    output.say()
    output.result_table(*metric_rows({"value": metrics}), right=(1,))
    output.result_json({
        "run": run, "data": data, "rows": len(labels), "task": model.task.name,
        "threshold": model.task.reported_threshold(threshold), "metrics": metrics, "seconds": output.seconds,
    })  # fmt: skip
