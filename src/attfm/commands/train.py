"""`attfm train`: from a table to a saved, measured model."""

import shlex
import time
from pathlib import Path

import numpy as np

from attfm.commands.console import Output, duration, metric_rows, uninterrupted
from attfm.commands.folders import NewFolder
from attfm.commands.tables import Reading, check_columns, target_of
from attfm.config import Config
from attfm.data.datasets import adult_split
from attfm.data.inference import infer_schema
from attfm.data.schema import Schema
from attfm.data.sources.files import table_stem
from attfm.data.split import Part, Split, split_table
from attfm.data.training_table import column_of, weights_of
from attfm.errors import ConfigError
from attfm.model.bundle import REPORT
from attfm.report.page import render_report
from attfm.report.rows_shown import Examined
from attfm.train.fit import Fitted, LabelledTable, fit, measure
from attfm.train.progress import FitProgress

SPLIT_SEED = 1234


def train(
    data: str,
    *,
    config: Config,
    target: str | None,
    valid: str | None,
    test: str | None,
    weight: str | None,
    reading: Reading,
    out: str | None,
    force: bool,
    split_seed: int | None,
    with_report: bool,
    output: Output,
    started: float,
) -> None:
    """Train on a table, measure, save and report; see `attfm.cli.train` for the options."""
    valid_part, test_part = Part.parse(valid, "--valid"), Part.parse(test, "--test")
    if valid_part.fraction + test_part.fraction >= 1:
        raise ConfigError(
            f"--valid {valid_part.fraction:g} and --test {test_part.fraction:g} leave no rows to train on: "
            "give fractions that sum to less than 1."
        )
    if valid_part == Part():
        config = config.model_copy(update={"train": config.train.model_copy(update={"early_stopping": False})})
    with NewFolder(out, stem=table_stem(data), force=force) as folder:
        source = reading.open(data)
        target_name = target_of(data, source, target)
        schema = infer_schema(
            source.batches(), source.schema, target=target_name, weight=weight, config=config.data, source=source.name
        )
        output.say(f"{source.name}: {_count(source.num_rows)} rows, target '{target_name}'")
        output.say()
        output.table(("column", "kind", "type", "values", "missing", "why"), schema.rows(), right=(4,))
        output.say()
        table = LabelledTable(source, column_of(source, target_name), weights_of(source, weight))
        valid_table, test_table = (_other(part, reading, schema) for part in (valid_part, test_part))
        own_split = data == "adult" and valid is None and test is None and split_seed is None
        seed = SPLIT_SEED if split_seed is None else split_seed
        split = (
            Split(*adult_split(table.labels.to_numpy()))
            if own_split
            else split_table(
                table.labels, name=target_name, task=config.train.task, valid=valid_part, test=test_part, seed=seed
            )
        )
        output.say(_describe(split, valid_part, test_part, valid_table, test_table, seed))
        with FitProgress(config.train.epochs, show=not output.quiet) as progress:
            fitted = fit(
                table, schema=schema, config=config, target_name=target_name,
                train_rows=split.train, valid_rows=split.valid, test_rows=split.test,
                valid_table=valid_table, test_table=test_table,
                on_epoch=progress.on_epoch, on_batch=progress.on_batch, on_refit=progress.on_refit,
            )  # fmt: skip
        model = fitted.model
        parts = {"valid": fitted.valid, "test": fitted.test}
        model.metrics = {name: measure(model, part) for name, part in parts.items() if part is not None}
        test_rows = 0 if fitted.test is None else len(fitted.test)
        model.training = {
            "table": source.name,
            "rows": len(table.labels),
            "test_rows": test_rows,
            "split": "adult"
            if own_split
            else {
                "valid": valid_part.asked,
                "test": test_part.asked,
                "seed": seed,
            },
            **model.training,
        }
        page = None
        if with_report:
            page = _page(fitted, source.name, split, test_table.source.name if test_table else None)
        with uninterrupted():
            model.save(folder.path, report=page)
    report(fitted, folder.path, output, again="adult-test" if data == "adult" else data, started=started)


def _page(fitted: Fitted, table: str, split: Split, test_table: str | None) -> str:
    """Return the report on the test rows, or else on the validation rows, or on what the model holds alone."""
    if fitted.test is not None:
        part, numbers, name = fitted.test, split.test, test_table or f"{table} (test rows)"
    elif fitted.valid is not None:
        part, numbers, name = fitted.valid, split.valid, f"{table} (validation rows)"
    else:
        return render_report(fitted.model)
    numbers = numbers if numbers is not None and len(numbers) == len(part) else None
    weight = part.weight.numpy().astype(np.float64)
    return render_report(
        fitted.model, Examined.of_rows(fitted.model, name, part.rows, part.target.numpy(), weight, numbers)
    )


def report(fitted: Fitted, path: Path, output: Output, *, again: str, started: float) -> None:
    """Print metrics, times, the folder and the commands that use it; `again` is the table they name."""
    model = fitted.model
    whole = time.perf_counter() - started
    facts = model.training
    output.say(
        f"{facts['epochs']} epochs ({facts['stopped']}); kept those parameters of epoch {facts['best_epoch']}; "
        f"{facts['features']:,} features in {facts['fields']} fields"
    )
    output.result_lines("")
    output.result_table(*metric_rows(model.metrics), right=range(1, 1 + len(model.metrics)))
    if "class_weights" in facts:
        output.result_lines("(metrics are weighted by class, as training was)")
    run, table = shlex.quote(str(path)), shlex.quote(again)
    output.result_lines(
        "",
        f"time: {duration(whole)}, of which training {duration(facts['seconds'])}",
        f"saved: {path}",
        *([f"report: {path / REPORT}"] if (path / REPORT).is_file() else []),
        f"next:  attfm evaluate {run} {table}",
        f"       attfm predict {run} {table} -o scores.csv",
    )
    output.result_json(
        {
            "run": str(path),
            "report": str(path / REPORT) if (path / REPORT).is_file() else None,
            "task": model.task,
            "target": model.target.name,
            "classes": model.target.classes,
            "metrics": model.metrics,
            "training": facts,
            "columns": [field.model_dump(exclude_none=True) for field in model.schema.columns],
            "settings": model.config.model_dump(mode="json"),
            "seconds": {"whole": round(whole, 3), "training": facts["seconds"]},
        }
    )


def _other(part: Part, reading: Reading, schema: Schema) -> LabelledTable | None:
    """Return the table of its own that a part is, checked for all columns."""
    if part.data is None:
        return None
    source = reading.open(part.data)
    if schema.target is None:
        return None
    needed = [*(field.name for field in schema.inputs), schema.target, *([schema.weight] if schema.weight else [])]
    check_columns(source, needed, why="of the training table")
    return LabelledTable(source, column_of(source, schema.target), weights_of(source, schema.weight))


def _describe(
    split: Split,
    valid: Part,
    test: Part,
    valid_table: LabelledTable | None,
    test_table: LabelledTable | None,
    seed: int,
) -> str:
    """Return the sentence that says how many rows each part has and where they come from."""
    texts = [f"{len(split.train):,} rows to train on"]
    own = False
    for name, rows, part, table in (
        ("validation", split.valid, valid, valid_table),
        ("test", split.test, test, test_table),
    ):
        if rows is not None:
            own = True
            texts.append(f"{len(rows):,} for {name} ({100 * part.fraction:g} %)")
        elif table is not None:
            texts.append(f"{len(table.labels):,} for {name} (all of {table.source.name})")
        else:
            texts.append(f"none for {name}")
    return "; ".join(texts) + (f"; split with seed {seed}" if own else "")


def _count(rows: int | None) -> str:
    return "?" if rows is None else f"{rows:,}"
