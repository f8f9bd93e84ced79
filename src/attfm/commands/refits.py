"""A run trained again with other seeds, from the table that it was trained on."""

from dataclasses import replace

from attfm.commands.console import Output
from attfm.commands.train_in_memory import labelled_table
from attfm.config import Reading
from attfm.data.datasets import adult_split
from attfm.data.folds import BY_CHANCE
from attfm.data.split import Part, Split, split_table
from attfm.data.split_column import grouping_in, split_by
from attfm.errors import ConfigError
from attfm.explain.faithfulness import Refits
from attfm.model.bundle import Model
from attfm.model.facts import SplitFacts
from attfm.train.observer import FitProgress
from attfm.train.prepare import Tables
from attfm.train.refit import refit_with_seeds


def refits_of_run(
    model: Model, data: str, reading: Reading, *, query: str | None, seeds: int, output: Output
) -> Refits:
    """Return refits of a run with other seeds, on the rows of `data` that it was trained on.

    A run that was stopped by a table of its own is refitted for as many epochs as it kept.
    """
    schema, facts = model.schema, model.facts
    if facts.split is None or schema.target is None or facts.rows is None:
        raise ConfigError("This run does not say how its table was split, so --seeds can't repeat it: train again.")
    table = labelled_table(data, reading, schema, query=query)
    advice = f"It was '{facts.table}' with {facts.rows:,} rows: give that by --train-table."
    if len(table.labels) != facts.rows:
        raise ConfigError(f"{table.source.name} is not the table that the run was trained on. {advice}")
    if isinstance(facts.split, SplitFacts):
        parts = facts.split.valid, facts.split.test
        valid, test = (Part(part) if isinstance(part, float) else Part() for part in parts)
        task = model.config.train.task
        by = facts.split.by
        split = split_table(
            table.labels, name=schema.target, task=task, valid=valid, test=test, seed=facts.split.seed,
            grouping=BY_CHANCE if by is None else grouping_in(table.source, schema, split_by(by)),
        )  # fmt: skip
        if isinstance(facts.split.valid, str) and (facts.models or 1) == 1:
            settings = model.config.train.model_copy(update={"early_stopping": False, "epochs": facts.best_epoch})
            model = replace(model, config=model.config.model_copy(update={"train": settings}))
    else:
        split = Split(*adult_split(table.labels.to_numpy()))
    count = 0 if split.train is None else len(split.train)
    output.say(f"{seeds} refits on the {count:,} training rows of {table.source.name}")
    # Folds, and a model trained again on all rows, took in the validation rows that nobody had asked for.
    own_valid = facts.refit_epochs is None and ((facts.models or 1) == 1 or bool(facts.validation_rows))
    tables = Tables(table, schema, schema.target, split, own_valid)
    with FitProgress(model.config.train.epochs, show=not output.quiet) as progress:
        return refit_with_seeds(model, tables, seeds, advice=advice, observer=progress)
