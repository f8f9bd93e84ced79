"""A run trained again with other seeds, from the table that it was trained on."""

from dataclasses import replace

from attfm.commands.console import Output
from attfm.commands.tables import Reading, check_columns
from attfm.data.datasets import adult_split
from attfm.data.split import Part, Split, split_table
from attfm.data.training_table import column_of, weights_of
from attfm.errors import ConfigError
from attfm.explain.faithfulness import Refits
from attfm.model.bundle import Model
from attfm.train.fit import LabelledTable
from attfm.train.progress import FitProgress
from attfm.train.reseeded import refit_with_seeds

_BUNDLED = "adult"


def refits_of_run(model: Model, data: str, reading: Reading, *, seeds: int, output: Output) -> Refits:
    """Return refits of a run with other seeds, on the rows of `data` that it was trained on.

    A run that was stopped by a table of its own is refitted for as many epochs as it kept.

    Raises
    ------
    ConfigError : `data` is not the table that the run was trained on
    SchemaError : it lacks a column
    """
    schema, facts = model.schema, model.training
    split, target = facts.get("split"), schema.target
    if split is None or target is None:
        raise ConfigError("This run does not say how its table was split, so --seeds can't repeat it: train again.")
    source = reading.open(data)
    needed = [*(field.name for field in schema.inputs), target, *([schema.weight] if schema.weight else [])]
    check_columns(source, needed, why="of the training table")
    table = LabelledTable(source, column_of(source, target), weights_of(source, schema.weight))
    advice = f"It was '{facts['table']}' with {facts['rows']:,} rows: give that by --train-table."
    if len(table.labels) != facts["rows"]:
        raise ConfigError(f"{source.name} is not the table that the run was trained on. {advice}")
    if split == _BUNDLED:
        rows = Split(*adult_split(table.labels.to_numpy()))
    else:
        valid, test = (Part(part) if isinstance(part, float) else Part() for part in (split["valid"], split["test"]))
        rows = split_table(
            table.labels, name=target, task=model.config.train.task, valid=valid, test=test, seed=split["seed"]
        )
        if isinstance(split["valid"], str):
            settings = model.config.train.model_copy(update={"early_stopping": False, "epochs": facts["best_epoch"]})
            model = replace(model, config=model.config.model_copy(update={"train": settings}))
    output.say(f"{seeds} refits on the {len(rows.train):,} training rows of {source.name}")
    with FitProgress(model.config.train.epochs, show=not output.quiet) as progress:
        return refit_with_seeds(
            model, table, seeds=seeds, train_rows=rows.train, valid_rows=rows.valid, advice=advice,
            on_refit=progress.on_refit, on_epoch=progress.on_epoch, on_batch=progress.on_batch,
        )  # fmt: skip
