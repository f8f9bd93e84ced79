"""`attfm predict`: the scores of a table's rows, batch after batch."""

import csv
import io
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv

from attfm.commands.console import Output, duration
from attfm.commands.tables import check_columns, open_inputs
from attfm.config import Reading
from attfm.data.sources.source import TableWriter
from attfm.errors import ConfigError
from attfm.model.bundle import Model
from attfm.model.run_folder import load_model
from attfm.model.threshold import decision_threshold
from attfm.train.cluster import cluster
from attfm.train.scoring import score_by_workers


@dataclass(frozen=True)
class Scored:
    """The options of `attfm.cli.predict`; workers, address : of Ray, see `attfm.commands.asked.Asked`."""

    data: str
    query: str | None
    to: str | None
    ids: Sequence[str]
    threshold: float | None
    workers: int = 0
    address: str | None = None


def predict(run: str, asked: Scored, *, reading: Reading, output: Output) -> None:
    """Write the scores of a table, beside its columns `ids`; see `attfm.cli.predict` for the options."""
    data, to, ids = asked.data, asked.to, asked.ids
    to_stdout = to in (None, "-")
    if to_stdout and output.as_json:
        raise ConfigError("--json writes its object to stdout, where the scores would go: give -o FILE too.")
    model = load_model(run)
    threshold = threshold_of(model, asked.threshold)
    source = open_inputs(model, data, reading, query=asked.query)
    check_columns(source, ids, why="named by --id")
    source = source.verbatim(ids)  # a column that is an input too keeps its cells as they stand
    names = model.task.score_names
    clashing = [name for name in ids if name in names]
    if clashing or len(set(ids)) < len(ids):
        name = clashing[0] if clashing else max(ids, key=list(ids).count)
        raise ConfigError(f"--id {name} would make two columns of that name in the scores: leave it out or rename it.")
    rows = 0
    with ExitStack() as stack:
        tables = model.score_table(source, keep=ids, threshold=threshold)
        if asked.workers:
            folder = str(Path(run).expanduser().absolute())
            ray = stack.enter_context(cluster(asked.workers, asked.address))
            tables = score_by_workers(ray, asked.workers, folder, model, source, ids, threshold) or tables
        writer = _StdoutCsv() if to is None or to == "-" else stack.enter_context(TableWriter(to))
        for table in tables:
            writer.write(table)
            rows += table.num_rows
    if not to_stdout:
        output.result_lines(f"{rows:,} rows scored: {to}, {duration(output.seconds)}")
    output.result_json(
        {"run": run, "data": data, "rows": rows, "scores": to, "columns": [*ids, *names], "seconds": output.seconds}
    )


def threshold_of(model: Model, asked: float | None) -> float:
    """Return the probability above which the second class is predicted."""
    return decision_threshold(asked, task=model.task.name, usual=model.threshold, called="--threshold ")


class _StdoutCsv:
    """Writes tables to stdout as CSV."""

    def __init__(self) -> None:
        self._started = False

    def write(self, rows: pa.Table) -> None:
        """Write rows, and the header before the first."""
        text, header = io.BytesIO(), io.StringIO()
        if not self._started:
            csv.writer(header, lineterminator="\n").writerow(rows.schema.names)
            text.write(header.getvalue().encode())
            self._started = True
        # pyarrow does not tell a broken pipe from other failures, so Python writes what it formats.
        pacsv.write_csv(rows, text, pacsv.WriteOptions(include_header=False))
        rest = memoryview(text.getvalue())
        while rest:  # an unbuffered stdout may take a part only, when its reader goes
            rest = rest[sys.stdout.buffer.write(rest) :]
        sys.stdout.buffer.flush()
