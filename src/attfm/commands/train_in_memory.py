"""Training on a table whose encoded rows are kept in memory."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from attfm.commands.console import Output
from attfm.commands.job import Job
from attfm.commands.tables import check_columns, open_as
from attfm.config import Config, Reading
from attfm.data.datasets import adult_split
from attfm.data.folds import BY_CHANCE
from attfm.data.schema import Schema
from attfm.data.split import Split, split_table
from attfm.data.split_column import ColumnSplit, grouping_in, split_by
from attfm.data.texts import PLAIN
from attfm.data.training_table import column_of, read_training_table, weights_of
from attfm.model.facts import RunFacts
from attfm.report.page import render_report
from attfm.report.rows_shown import Examined
from attfm.train.fit import Fitted, fit
from attfm.train.prepare import LabelledTable, Tables


class FitTables(Protocol):
    """What is done with the tables once they are read, such as tuning."""

    def __call__(self, tables: Tables, config: Config, facts: RunFacts, output: Output) -> Fitted: ...


def train_in_memory(job: Job, fit_tables: FitTables | None = None) -> tuple[Fitted, str | None]:
    """Return what was fitted, and the report where it is asked for; fit_tables : what is done, None: one fit."""
    config, output = job.config, job.output
    tables = read_tables(job)
    output.say(_describe(tables, _split_column(job), job.seed))
    facts = job.facts(len(tables.table.labels), split="adult" if _has_own_split(job) else None)
    if fit_tables is not None:
        fitted = fit_tables(tables, config, facts, output)
    else:
        fitted = job.watched(
            lambda observer: fit(tables, config, observer, facts=facts, measured=True, continued=job.continued)
        )
    return fitted, _page(fitted, tables) if job.asked.report else None


def read_tables(job: Job) -> Tables:
    """Read the table once, and those of its own parts; print the table's columns."""
    asked, config, source = job.asked, job.config, job.source
    by = _split_column(job)
    written: Mapping[str, str] = {}
    if job.continued is None:
        read = read_training_table(source, target=job.target, weight=asked.weight, split=by, config=config.data)
        schema, written, grouping = read.schema, read.written, read.grouping
        table = LabelledTable(source, read.labels, read.weights)
        job.show(schema, len(table.labels))
    else:
        schema = job.continued.model.schema
        table = LabelledTable(source, column_of(source, job.target), weights_of(source, schema.weight))
        grouping = BY_CHANCE if by is None else grouping_in(source, schema, by)
        job.show_rows(len(table.labels))
    valid_table, test_table = (
        None if part.data is None else labelled_table(part.data, asked.reading, schema)
        for part in (job.valid, job.test)
    )
    if _has_own_split(job):
        split = Split(*adult_split(table.labels.to_numpy()))
    else:
        split = split_table(
            table.labels, name=job.target, task=config.train.task, valid=job.valid, test=job.test, seed=job.seed,
            grouping=grouping, known=None if job.continued is None else job.continued.model.target,
            reading=source.reading or PLAIN,
        )  # fmt: skip
    own_valid = asked.valid is not None
    return Tables(table, schema, job.target, split, own_valid, valid_table, test_table, written=written)


def _split_column(job: Job) -> ColumnSplit | None:
    return None if job.config.train.split is None else split_by(job.config.train.split)


def _has_own_split(job: Job) -> bool:
    """Return whether the rows are dealt as the bundled table's own split deals them."""
    asked = job.asked
    return asked.data == "adult" and (asked.valid, asked.test, asked.split_seed, _split_column(job)) == (None,) * 4


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


def labelled_table(data: str, reading: Reading, schema: Schema, *, query: str | None = None) -> LabelledTable:
    """Return another table with the columns of the training table, all of which it must have."""
    source, target = open_as(schema, data, reading, query=query), str(schema.target)
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
