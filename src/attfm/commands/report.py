"""`attfm report`: a saved model as one HTML file."""

import time

import numpy as np

from attfm.commands.console import Output, duration
from attfm.commands.tables import Reading, check_columns
from attfm.data.training_table import column_of, weights_of
from attfm.model.bundle import Model
from attfm.report.page import checked_path, write_report
from attfm.report.rows_shown import Examined


def report(run: str, data: str | None, *, to: str, reading: Reading, output: Output, started: float) -> None:
    """Write the report of a run, on a table's rows where one is given; see `attfm.cli.report` for the options."""
    checked_path(to)
    model = Model.load(run)
    examined = None if data is None else _examined(model, data, reading, output)
    file = write_report(model, to, examined)
    if examined is None:
        output.say("no table is given, so the report has no curves and no rows: --data TABLE adds them")
    seconds = time.perf_counter() - started
    output.result_lines(f"report: {file} ({file.stat().st_size / 1e6:.2g} MB), {duration(seconds)}")
    output.result_json(
        {
            "run": run,
            "data": data,
            "report": str(file),
            "bytes": file.stat().st_size,
            "rows": None if examined is None else len(examined),
            "seconds": round(seconds, 3),
        }
    )


def _examined(model: Model, data: str, reading: Reading, output: Output) -> Examined:
    """Return the rows of a table, with their labels where it has the target."""
    source = reading.open(data)
    check_columns(source, [field.name for field in model.schema.inputs], why="of the training table")
    target, weight = None, None
    if model.target.name in source.schema.names:
        target = model.target.encode(column_of(source, model.target.name))
        weight = np.ones(len(target))
        given = weights_of(source, model.schema.weight) if model.schema.weight in source.schema.names else None
        per_class = model.training.get("class_weights")
        weight = weight if given is None else given
        weight = weight if per_class is None else weight * np.asarray(per_class)[target]
    else:
        output.say(f"{source.name} has no column '{model.target.name}', the target: nothing is measured")
    return Examined.of_table(model, source, target, weight)
