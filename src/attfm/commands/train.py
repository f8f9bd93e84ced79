"""`attfm train`: from a table to a saved, measured model."""

import shlex
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np

from attfm.commands.asked import Asked
from attfm.commands.console import Output, duration, metric_rows, uninterrupted
from attfm.commands.folders import NewFolder
from attfm.commands.interrupted import Interruptible
from attfm.commands.tables import check_columns, open_as, open_table, target_of
from attfm.config import Config, Reading
from attfm.data.datasets import adult_split
from attfm.data.schema import Schema
from attfm.data.sources.files import table_stem
from attfm.data.split import Part, Split, split_table
from attfm.data.split_column import ColumnSplit, split_by
from attfm.data.training_table import column_of, read_training_table, weights_of
from attfm.errors import ConfigError
from attfm.model.bundle import Model
from attfm.model.facts import RunFacts, SplitFacts
from attfm.model.run_folder import REPORT, save_model
from attfm.report.page import render_report
from attfm.report.rows_shown import Examined
from attfm.train.fit import Fitted, fit
from attfm.train.observer import FitProgress, Together
from attfm.train.prepare import LabelledTable, Tables

SPLIT_SEED = 1234


class FitTables(Protocol):
    """What is done with the tables once they are read, such as tuning."""

    def __call__(self, tables: Tables, config: Config, facts: RunFacts, output: Output) -> Fitted: ...


def fit_once(
    tables: Tables, config: Config, facts: RunFacts, output: Output, interruptible: Interruptible | None = None
) -> Fitted:
    """Fit with the settings as they are, and show the epochs; write checkpoints where it is `interruptible`."""
    with FitProgress(config.train.epochs, show=not output.quiet) as progress:
        if interruptible is None:
            return fit(tables, config, progress, facts=facts, measured=True)
        try:
            return fit(tables, config, Together(interruptible.observer, progress), facts=facts, measured=True)
        except BaseException:
            if interruptible.has_checkpoint:
                output.say(
                    f"What was done is kept: attfm train --resume {shlex.quote(str(interruptible.run))} goes on."
                )
            raise


def train(
    asked: Asked,
    config: Config,
    output: Output,
    fit_tables: FitTables | None = None,
    more: Mapping[str, str] = MappingProxyType({}),
    *,
    resumed: bool = False,
) -> None:
    """Train on a table, measure, save and report; see `attfm.cli.train` for the options.

    Parameters
    ----------
    fit_tables : what is done with the tables; None: one fit, with checkpoints
    more : is told in the JSON object too
    resumed : whether the fit goes on from the checkpoints of an interrupted one
    """
    valid_part, test_part = Part.parse(asked.valid, "--valid"), Part.parse(asked.test, "--test")
    if valid_part.fraction + test_part.fraction >= 1:
        raise ConfigError(
            f"--valid {valid_part.fraction:g} and --test {test_part.fraction:g} leave no rows to train on: "
            "give fractions that sum to less than 1."
        )
    if valid_part == Part():
        config = config.model_copy(update={"train": config.train.model_copy(update={"early_stopping": False})})
    with NewFolder(asked.out, stem=table_stem(asked.data), force=asked.force) as folder:
        source = open_table(asked.data, asked.reading)
        target_name = target_of(asked.data, source, asked.target)
        by = None if config.train.split is None else split_by(config.train.split)
        read = read_training_table(source, target=target_name, weight=asked.weight, split=by, config=config.data)
        schema, table = read.schema, LabelledTable(source, read.labels, read.weights)
        count = "?" if source.num_rows is None else f"{source.num_rows:,}"
        output.say(f"{source.name}: {count} rows, target '{target_name}'")
        output.say()
        output.table(("column", "kind", "type", "values", "missing", "why"), schema.rows(), right=(4,))
        output.say()
        valid_table, test_table = (
            None if part.data is None else labelled_table(part.data, asked.reading, schema)
            for part in (valid_part, test_part)
        )
        own_split = (asked.data, asked.valid, asked.test, asked.split_seed, by) == ("adult", None, None, None, None)
        seed = SPLIT_SEED if asked.split_seed is None else asked.split_seed
        if own_split:
            split = Split(*adult_split(table.labels.to_numpy()))
        else:
            task = config.train.task
            split = split_table(
                table.labels, name=target_name, task=task, valid=valid_part, test=test_part, seed=seed,
                grouping=read.grouping,
            )  # fmt: skip
        own_valid = asked.valid is not None
        tables = Tables(table, schema, target_name, split, own_valid, valid_table, test_table, written=read.written)
        output.say(_describe(tables, by, seed))
        facts = RunFacts(
            table=source.name,
            rows=len(table.labels),
            split="adult"
            if own_split
            else SplitFacts(valid=valid_part.asked, test=test_part.asked, seed=seed, by=config.train.split),
        )
        with ExitStack() as stack:
            if fit_tables is not None:
                fitted = fit_tables(tables, config, facts, output)
            else:
                keeps = asked.checkpoint_minutes or asked.checkpoint_steps
                kept = Interruptible(folder.path, asked, config, resumed=resumed) if keeps else None
                fitted = fit_once(tables, config, facts, output, kept and stack.enter_context(kept))
            page = _page(fitted, tables) if asked.report else None
            with uninterrupted():
                save_model(fitted.model, folder.path, report=page)
    report(fitted.model, folder.path, output, again="adult-test" if asked.data == "adult" else asked.data, more=more)


def _page(fitted: Fitted, tables: Tables) -> str:
    """Return the report on the test rows, or else on the validation rows, or on the training rows out of fold.

    Without any of them it is on what the model holds alone.
    """
    prepared, split = fitted.prepared, tables.split
    for what, rows, numbers, own in (
        ("test", prepared.test, split.test, tables.test),
        ("validation", prepared.data.valid, split.valid, tables.valid),
    ):
        if rows is not None:
            name = f"{tables.table.source.name} ({what} rows)" if own is None or what != "test" else own.source.name
            numbers = numbers if numbers is not None and len(numbers) == len(rows) else None
            before, logits = fitted.trained.before, None
            if what == "validation" and before is not None:
                name = f"{tables.table.source.name} (validation rows, by the model before it learned from them)"
                logits = np.concatenate([before.predict(part.rows).double().numpy() for part in rows.ordered()])
            return render_report(fitted.model, Examined.of_dataset(fitted.model, name, rows, numbers, logits))
    if fitted.trained.out_of_fold is not None:
        name = f"{tables.table.source.name} (training rows, out of fold)"
        logits, rows = fitted.trained.out_of_fold, prepared.data.train
        return render_report(fitted.model, Examined.of_dataset(fitted.model, name, rows, prepared.numbers, logits))
    return render_report(fitted.model)


def report(
    model: Model, path: Path, output: Output, *, again: str, more: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Print metrics, times, the folder and the commands that use it; `again` is the table they name."""
    facts, whole = model.facts, output.seconds
    output.say(f"{_epochs(model)}; {facts.features:,} features in {facts.fields} fields")
    output.result_lines("")
    output.result_table(*metric_rows(model.metrics), right=range(1, 1 + len(model.metrics)))
    if facts.models != 1 and not facts.validation_rows:
        output.result_lines("(valid: out of fold, each row by the model that was not trained on it)")
    if facts.refit_epochs is not None and "valid" in model.metrics:
        output.result_lines("(valid: of the model before it was trained on those rows too)")
    if facts.class_weights is not None:
        output.result_lines("(metrics are weighted by class, as training was)")
    if facts.calibration is not None:
        output.result_lines(f"(probabilities are calibrated; {facts.calibration})")
    run, table = shlex.quote(str(path)), shlex.quote(again)
    page = str(path / REPORT) if (path / REPORT).is_file() else None
    output.result_lines(
        "",
        f"time: {duration(whole)}, of which training {duration(facts.seconds or 0.0)}",
        f"saved: {path}",
        *([] if page is None else [f"report: {page}"]),
        f"next:  attfm evaluate {run} {table}",
        f"       attfm predict {run} {table} -o scores.csv",
    )
    output.result_json({
        "run": str(path), "report": page,
        "task": model.task.name, "target": model.target.name, "classes": model.target.written or model.target.classes,
        "metrics": model.metrics, "training": facts.known(),
        "columns": [column.model_dump(exclude_none=True) for column in model.schema.columns],
        "settings": model.config.model_dump(mode="json"),
        "seconds": {"whole": whole, "training": facts.seconds}, **more,
    })  # fmt: skip


def _epochs(model: Model) -> str:
    """Return how many epochs were run, and which one's parameters were kept, of one model or of several."""
    facts = model.facts
    if facts.models == 1:
        told = f"{facts.epochs} epochs ({facts.stopped}); kept those parameters of epoch {facts.best_epoch}"
        if facts.refit_epochs is None:
            return told
        plural = "" if facts.refit_epochs == 1 else "s"
        return (
            f"{facts.epochs} epochs ({facts.stopped}), best after {facts.best_epoch}; then trained again for "
            f"{facts.refit_epochs} epoch{plural} on all {facts.training_rows:,} rows, those for validation among them"
        )
    runs = Counter(record["model"] for record in model.history).values()
    rows = f"{facts.training_rows:,} rows" + ("" if facts.validation_rows else ", those for validation among them")
    return (
        f"{facts.models} models cross-fitted on folds of {rows}; each was stopped by its own fold, after "
        f"{min(runs)} to {max(runs)} epochs; predictions and effects are their means"
    )


def labelled_table(data: str, reading: Reading, schema: Schema) -> LabelledTable:
    """Return another table with the columns of the training table, all of which it must have."""
    source, target = open_as(schema, data, reading), str(schema.target)
    needed = [*(field.name for field in schema.inputs), target, *([schema.weight] if schema.weight else [])]
    check_columns(source, needed, why="of the training table")
    return LabelledTable(source, column_of(source, target), weights_of(source, schema.weight))


def _describe(tables: Tables, by: ColumnSplit | None, seed: int) -> str:
    """Return the sentence that says how many rows each part has and where they come from."""
    split, rows = tables.split, len(tables.table.labels)
    texts = [f"{0 if split.train is None else len(split.train):,} rows to train on"]
    for name, part, table in (("validation", split.valid, tables.valid), ("test", split.test, tables.test)):
        if part is not None:
            texts.append(f"{len(part):,} for {name} ({100 * len(part) / rows:.3g} %)")
        elif table is not None:
            texts.append(f"{len(table.labels):,} for {name} (all of {table.source.name})")
        else:
            texts.append(f"none for {name}")
    if split.valid is not None or split.test is not None:
        how = [] if by is None else [by.told]
        texts.append(" ".join(["split", *how, *([f"with seed {seed}"] if split.grouping.times is None else [])]))
    return "; ".join(texts)
