"""`attfm evaluate` and `attfm predict`: a saved model on a table, batch after batch."""

import csv
import io
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from attfm.commands.console import Output, duration, metric_rows
from attfm.commands.tables import Reading, check_columns
from attfm.data.sources.source import Source, TableWriter
from attfm.data.training_table import column_of, weights_of
from attfm.errors import ConfigError, TargetError
from attfm.metrics.scores import evaluate as metrics_of
from attfm.model.bundle import Model, probabilities


def evaluate(run: str, data: str, *, threshold: float | None, reading: Reading, output: Output, started: float) -> None:
    """Measure a saved model on a table with its target; see `attfm.cli.evaluate` for the options."""
    model = Model.load(run)
    threshold = _threshold(model, threshold)
    source = reading.open(data)
    name = model.target.name
    if name not in source.schema.names:
        raise TargetError(
            f"{source.name} has no column '{name}', the target that the predictions are compared with: add it, "
            "or use 'attfm predict'."
        )
    check_columns(source, [field.name for field in model.schema.inputs], why="of the training table")
    target = model.target.encode(column_of(source, name))
    weight = np.ones(len(target))
    if model.schema.weight in source.schema.names:
        weight = _given(weights_of(source, model.schema.weight), weight)
    elif model.schema.weight is not None:
        output.say(f"{source.name} has no weight column '{model.schema.weight}': all rows count the same")
    per_class = model.training.get("class_weights")
    if per_class is not None:
        weight = weight * np.asarray(per_class)[target]
        output.say("metrics are weighted by class, as training was")
    scores = np.concatenate([model.scores(logits) for _, logits in _scored(model, source, ())])
    metrics = metrics_of(model.task, target, scores, weight, threshold=threshold)
    output.say(f"{len(target):,} rows of {source.name}, {duration(time.perf_counter() - started)}")
    output.say()
    output.result_table(*metric_rows({"value": metrics}), right=(1,))
    output.result_json(
        {
            "run": run,
            "data": data,
            "rows": len(target),
            "task": model.task,
            "threshold": threshold if model.task == "binary" else None,
            "metrics": metrics,
            "seconds": round(time.perf_counter() - started, 3),
        }
    )


def predict(
    run: str,
    data: str,
    *,
    to: str | None,
    ids: Sequence[str],
    threshold: float | None,
    reading: Reading,
    output: Output,
    started: float,
) -> None:
    """Write the scores of a table; see `attfm.cli.predict` for the options."""
    to_stdout = to in (None, "-")
    if to_stdout and output.as_json:
        raise ConfigError("--json writes its object to stdout, where the scores would go: give -o FILE too.")
    model = Model.load(run)
    threshold = _threshold(model, threshold)
    source = reading.open(data)
    check_columns(source, [field.name for field in model.schema.inputs], why="of the training table")
    check_columns(source, ids, why="named by --id")
    clashing = [name for name in ids if name in _score_names(model)]
    if clashing or len(set(ids)) < len(ids):
        name = clashing[0] if clashing else max(ids, key=list(ids).count)
        raise ConfigError(f"--id {name} would make two columns of that name in the scores: leave it out or rename it.")
    rows = 0
    writer: _Writer = _StdoutCsv() if to is None or to == "-" else TableWriter(to)
    with writer:
        for batch, logits in _scored(model, source, ids):
            columns = {name: batch.column(name) for name in ids}
            writer.write(pa.table({**columns, **_score_columns(model, logits, threshold)}))
            rows += batch.num_rows
    if not to_stdout:
        output.result_lines(f"{rows:,} rows scored: {to}, {duration(time.perf_counter() - started)}")
    output.result_json(
        {
            "run": run,
            "data": data,
            "rows": rows,
            "scores": to,
            "columns": [*ids, *_score_names(model)],
            "seconds": round(time.perf_counter() - started, 3),
        }
    )


class _Writer(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def write(self, rows: pa.Table) -> None: ...


class _StdoutCsv:
    """Writes tables to stdout as CSV."""

    def __init__(self) -> None:
        self._started = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def write(self, rows: pa.Table) -> None:
        """Write rows, and the header before the first."""
        if not self._started:
            header = io.StringIO()
            csv.writer(header, lineterminator="\n").writerow(rows.schema.names)
            self._put(header.getvalue().encode())
            self._started = True
        # pyarrow does not tell a broken pipe from other failures, so Python writes what it formats.
        text = io.BytesIO()
        pacsv.write_csv(rows, text, pacsv.WriteOptions(include_header=False))
        self._put(text.getvalue())

    @staticmethod
    def _put(text: bytes) -> None:
        """Write all of it: an unbuffered stdout may take a part only, when its reader goes."""
        rest = memoryview(text)
        while rest:
            rest = rest[sys.stdout.buffer.write(rest) :]
        sys.stdout.buffer.flush()


def _scored(model: Model, source: Source, ids: Sequence[str]) -> Any:
    """Yield each record batch (the columns needed and `ids`) with its logits (rows, outputs)."""
    needed = dict.fromkeys([*(field.name for field in model.schema.inputs), *ids])
    row = 0
    for batch in source.batches(list(needed)):
        yield batch, model.batch_logits(batch, first_row=row)
        row += batch.num_rows


def _score_names(model: Model) -> list[str]:
    if model.task == "regression":
        return ["prediction"]
    if model.task == "binary":
        return ["prediction", "probability"]
    return ["prediction", *(f"probability_{label}" for label in model.target.classes or ())]


def _threshold(model: Model, asked: float | None) -> float:
    """Return the probability above which the second class is predicted."""
    if asked is not None and not 0 < asked < 1:
        raise ConfigError(f"--threshold {asked:g} is not a probability: give a number between 0 and 1.")
    return model.config.train.threshold if asked is None else asked


def _score_columns(model: Model, logits: NDArray[np.float64], threshold: float) -> dict[str, pa.Array]:
    """Return the columns of scores by name, each (rows,)."""
    if model.task == "regression":
        return {"prediction": pa.array(logits[:, 0])}
    shares = probabilities(logits)
    labels = pa.array(list(model.target.classes or ()))
    if model.task == "binary":
        decided = (shares[:, 1] > threshold).astype(np.int64)
        return {"prediction": labels.take(pa.array(decided)), "probability": pa.array(shares[:, 1])}
    columns = [labels.take(pa.array(shares.argmax(1))), *(pa.array(column) for column in shares.T)]
    return dict(zip(_score_names(model), columns, strict=True))


def _given(weights: NDArray[np.float64] | None, default: NDArray[np.float64]) -> NDArray[np.float64]:
    return default if weights is None else weights
