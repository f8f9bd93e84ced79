"""`attfm report`: a saved model as one HTML file."""

from attfm.commands.console import Output, duration
from attfm.commands.tables import labelled, open_inputs
from attfm.config import Reading
from attfm.errors import ConfigError
from attfm.model.run_folder import load_model
from attfm.report.page import REPORT_FILE, write_report
from attfm.report.rows_shown import Examined


def report(
    run: str, data: str | None, *, query: str | None, to: str, target: str | None, reading: Reading, output: Output
) -> None:
    """Write the report of a run, on a table's rows where one is given; see `attfm.cli.report` for the options."""
    REPORT_FILE.checked(to)
    if data is None and target is not None:
        raise ConfigError(f"--target {target} names a column of --data TABLE: add that, or leave --target out.")
    if data is None and query is not None:
        raise ConfigError("--query chooses rows of --data URI: add that, or leave --query out.")
    model = load_model(run)
    examined = None
    if data is not None:
        source = open_inputs(model, data, reading, query=query)
        labels, weight = None, None
        if target is not None or model.target.name in source.schema.names:
            labels, weight = labelled(model, source, target)
        else:
            output.say(f"{source.name} has no column '{model.target.name}', the target: nothing is measured")
        examined = Examined.of_table(model, source, labels, weight)
    file = write_report(model, to, examined)
    if examined is None:
        output.say("no table is given, so the report has no curves and no rows: --data TABLE adds them")
    size = file.stat().st_size
    output.result_lines(f"report: {file} ({size / 1e6:.2g} MB), {duration(output.seconds)}")
    output.result_json({
        "run": run, "data": data, "report": str(file), "bytes": size,
        "rows": None if examined is None else len(examined), "seconds": output.seconds,
    })  # fmt: skip
