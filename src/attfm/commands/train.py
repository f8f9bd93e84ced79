"""`attfm train`: from a table to a saved, measured model."""

import shlex
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

from attfm.commands.asked import Asked
from attfm.commands.console import Output, duration, metric_rows, uninterrupted
from attfm.commands.continued import continuation_of, learned_on
from attfm.commands.folders import NewFolder
from attfm.commands.interrupted import Interruptible
from attfm.commands.job import Job
from attfm.commands.tables import check_columns, open_table, target_of
from attfm.commands.train_by_workers import check_by_workers, train_by_workers
from attfm.commands.train_in_memory import FitTables, train_in_memory
from attfm.commands.train_streamed import train_streamed
from attfm.config import Config
from attfm.data.sources.files import table_stem
from attfm.data.sources.source import Source
from attfm.data.split import Part
from attfm.errors import ConfigError
from attfm.model.bundle import Model
from attfm.model.run_folder import REPORT, save_model
from attfm.train.continued import Continuation, settings_of
from attfm.train.plan import is_streamed


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
    valid, test, config = parts_of(asked, config)
    if asked.workers:
        check_by_workers(asked, config)
    with NewFolder(asked.out, stem=table_stem(asked.data), force=asked.force) as folder, ExitStack() as stack:
        continued = continuation_of(asked)
        if continued is not None:
            config = settings_of(continued.model, config)
        source, target = opened(asked, continued)
        kept = None
        if fit_tables is None and (asked.checkpoint_minutes or asked.checkpoint_steps):
            kept = stack.enter_context(Interruptible(folder.path, asked, config, resumed=resumed))
        job = Job(asked, config, output, source, target, valid, test, kept, continued)
        if asked.workers:
            model, page = train_by_workers(job, folder.path)
        elif fit_tables is None and is_streamed(source, config, asked.stream):
            fitted, page = train_streamed(job, folder.path)
            model = fitted.model
        else:
            fitted, page = train_in_memory(job, fit_tables)
            model = fitted.model
        with uninterrupted():
            save_model(model, folder.path, report=page)
    again = "adult-test" if asked.data == "adult" else shlex.quote(asked.data)
    if asked.query is not None:
        again += f" --query {shlex.quote(asked.query)}" if asked.query.isprintable() else ' --query "..."'
    report(model, folder.path, output, again=again, more=more)


def opened(asked: Asked, continued: Continuation | None) -> tuple[Source, str]:
    """Return the table that is asked for and its target; for a model that learns on it is read as that's was."""
    skip = asked.skip_bad_files
    if continued is None:
        source = open_table(asked.data, asked.reading, query=asked.query, skip_bad_files=skip)
        return source, target_of(asked.data, source, asked.target)
    schema, run = continued.model.schema, asked.from_run
    reading = schema.reading.updated(asked.reading)
    source = open_table(asked.data, reading, schema.stored_types, query=asked.query, skip_bad_files=skip)
    for name, given, of_run in (("--target", asked.target, schema.target), ("--weight", asked.weight, schema.weight)):
        if given not in (None, of_run):
            raise ConfigError(f"{name} is '{given}', but that of {run} is {of_run!r}: a model that learns on keeps it.")
    needed = [*(column.name for column in schema.inputs), schema.target, *([schema.weight] if schema.weight else [])]
    check_columns(source, [str(name) for name in needed], why=f"of {run}")
    return source, str(schema.target)


def parts_of(asked: Asked, config: Config) -> tuple[Part, Part, Config]:
    """Return what validation and test rows are asked for, and the settings, without early stopping where none are."""
    valid, test = Part.parse(asked.valid, "--valid"), Part.parse(asked.test, "--test")
    if valid.fraction + test.fraction >= 1:
        raise ConfigError(
            f"--valid {valid.fraction:g} and --test {test.fraction:g} leave no rows to train on: "
            "give fractions that sum to less than 1."
        )
    if valid == Part():
        config = config.model_copy(update={"train": config.train.model_copy(update={"early_stopping": False})})
    return valid, test, config


def report(
    model: Model, path: Path, output: Output, *, again: str, more: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Print metrics, times, the folder and the commands that use it; `again` names a table for them."""
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
    output.result_lines(*learned_on(facts))
    if facts.calibration is not None:
        output.result_lines(f"(probabilities are calibrated; {facts.calibration})")
    run = shlex.quote(str(path))
    page = str(path / REPORT) if (path / REPORT).is_file() else None
    output.result_lines(
        "",
        f"time: {duration(whole)}, of which training {duration(facts.seconds or 0.0)}",
        f"saved: {path}",
        *([] if page is None else [f"report: {page}"]),
        f"next:  attfm evaluate {run} {again}",
        f"       attfm predict {run} {again} -o scores.csv",
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
        seeds = "" if facts.seeds is None else f"; predictions and effects are the means of {facts.seeds} seeds"
        if facts.refit_epochs is None:
            return told + seeds
        plural = "" if facts.refit_epochs == 1 else "s"
        return (
            f"{facts.epochs} epochs ({facts.stopped}), best after {facts.best_epoch}; then trained again for "
            f"{facts.refit_epochs} epoch{plural} on all {facts.training_rows:,} rows, those for validation among "
            f"them{seeds}"
        )
    runs = Counter(record["model"] for record in model.history).values()
    rows = f"{facts.training_rows:,} rows" + ("" if facts.validation_rows else ", those for validation among them")
    return (
        f"{facts.models} models cross-fitted on folds of {rows}; each was stopped by its own fold, after "
        f"{min(runs)} to {max(runs)} epochs; predictions and effects are their means"
    )
