"""The command `attfm`: its options, exit codes and error sentences. What each command does is in `attfm.commands`."""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import typer

from attfm.commands.bundles import arguments_of, signature_of
from attfm.commands.console import Output
from attfm.commands.engine_options import EngineOptions
from attfm.commands.export_options import ExportOptions, OnnxOut, SqlOut
from attfm.commands.loading import loading
from attfm.commands.options import (
    Cache,
    CheckpointMinutes,
    CheckpointSteps,
    Data,
    DataOrGlobal,
    DataOrResume,
    DryRun,
    EffectsOut,
    GroupBy,
    Json,
    KeptColumns,
    Out,
    Query,
    RawTerms,
    Resume,
    RowNumber,
    Run,
    ScoresOut,
    Seed,
    Stream,
    Study,
    Target,
    Threshold,
    TrainTable,
    Trials,
    TunedOut,
)
from attfm.commands.passwords import passwords_apart
from attfm.commands.reported import DONE, FAILED, INTERRUPTED, reported
from attfm.commands.service_options import ServiceOptions
from attfm.commands.training_options import ContinueOptions, TrainingOptions
from attfm.config import Reading

# The bodies import what they need when they run: `attfm --help` does not wait for torch.

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Attentional factorization machines for tables: train, evaluate, predict, explain.",
    epilog="Example:  attfm train adult",
)


def _command(body: Callable[..., None]) -> Callable[..., None]:
    """Register a command: its own options and the shared ones, and errors as a sentence and an exit code."""

    @functools.wraps(body)
    def run(debug: bool, **options: Any) -> None:
        with reported(debug):
            body(**arguments_of(body, options))
            sys.stdout.flush()

    vars(run)["__signature__"] = signature_of(body)  # which typer reads
    app.command()(run)
    return body


def _show_version(asked: bool) -> None:
    if asked:
        from attfm import __version__

        print(f"attfm {__version__}")
        raise typer.Exit(DONE)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """What stands before a command's name."""


@_command
def train(
    *,
    data: DataOrResume = None,
    training: TrainingOptions,
    continuing: ContinueOptions,
    out: Out = None,
    checkpoint_minutes: CheckpointMinutes = 5.0,
    checkpoint_steps: CheckpointSteps = 0,
    stream: Stream = None,
    cache: Cache = None,
    dry_run: DryRun = False,
    resume: Resume = None,
    engine: EngineOptions,
    reading: Reading,
    output: Output,
) -> None:
    """Train on a table, measure on held-out rows, save a run folder.

    Examples:

    attfm train adult

    attfm train clicks.parquet --target clicked --id user --out runs/clicks

    attfm train loans.csv --target default --test new.csv --preset paper --set dim=16

    attfm train flights.parquet --target late --split time:date

    attfm train "clicks/2024-*.csv.gz" --target clicked --cache /big/disk --skip-bad-files

    attfm train clicks.parquet --target clicked --dry-run

    attfm train postgresql://ann@db.example/shop --query "select * from clicks order by id" --target clicked

    attfm train clicks.parquet --target clicked --engine ray --workers 4

    attfm train --resume runs/clicks

    attfm train clicks/2024-03-02.parquet --from runs/clicks --out runs/clicks-2 --half-life 30

    attfm train clicks/2024-03-02.parquet --from runs/clicks --dry-run
    """
    if resume is not None or data is None:
        with loading():
            from attfm.commands.interrupted import resume_training

        given = (data, training, continuing, out, checkpoint_minutes, checkpoint_steps, stream, cache, dry_run, engine,
                 reading)  # fmt: skip
        none = (None, TrainingOptions(), ContinueOptions(), None, 5.0, 0, None, None, False, EngineOptions(), Reading())
        resume_training(resume, output, alone=given == none)
        return
    settings = training.settings(continuing.base())
    workers, address = engine.checked()
    asked = training.asked(
        data, out, reading, checkpoint_minutes=checkpoint_minutes, checkpoint_steps=checkpoint_steps, stream=stream,
        cache=cache, workers=workers, address=address, **continuing.asked(),
    )  # fmt: skip
    if dry_run:
        with loading():
            from attfm.commands.plan import plan

        plan(asked, settings, output)
        return
    with loading():
        from attfm.commands.train import train

    train(asked, settings, output)


@_command
def tune(
    *,
    data: Data,
    trials: Trials = 30,
    study: Study = None,
    training: TrainingOptions,
    out: TunedOut = None,
    reading: Reading,
    output: Output,
) -> None:
    """Find better settings of training by trials, chosen by the validation rows; save the best as a run folder.

    Settings that are given stay as they are. The same command again, after Ctrl-C or with more trials, goes on.

    Examples:

    attfm tune adult --trials 10

    attfm tune clicks.parquet --target clicked --trials 50 --out runs/tuned --set dim=16
    """
    settings = training.settings()
    with loading():
        from attfm.commands import tune as command

    command.tune(training.asked(data, out, reading), command.Trials(trials, study), settings, output)


@_command
def evaluate(
    run: Run,
    data: Data,
    threshold: Threshold = None,
    target: Target = None,
    group_by: GroupBy = None,
    query: Query = None,
    *,
    reading: Reading,
    output: Output,
) -> None:
    """Measure a saved model on a table that has the target.

    Examples:

    attfm evaluate runs/adult-1 adult-test

    attfm evaluate runs/clicks new.parquet --group-by user
    """
    with loading():
        from attfm.commands.evaluate import evaluate as run_evaluate

    run_evaluate(
        run, data, query=query, threshold=threshold, target=target, group_by=group_by, reading=reading, output=output
    )


@_command
def predict(
    run: Run,
    data: Data,
    out: ScoresOut = None,
    id_: KeptColumns = None,
    threshold: Threshold = None,
    query: Query = None,
    *,
    engine: EngineOptions,
    reading: Reading,
    output: Output,
) -> None:
    """Score the rows of a table with a saved model, batch after batch.

    Examples:

    attfm predict runs/adult-1 adult-test -o scores.csv

    attfm predict runs/clicks new.parquet --id user -o scores.parquet

    attfm predict runs/clicks new/ -o scores.parquet --engine ray --workers 4
    """
    with loading():
        from attfm.commands.predict import Scored
        from attfm.commands.predict import predict as run_predict

    scored = Scored(data, query, out, id_ or (), threshold, *engine.checked())
    run_predict(run, scored, reading=reading, output=output)


@_command
def explain(
    run: Run,
    data: DataOrGlobal = None,
    rows: Annotated[int | None, typer.Option(min=1, help="explain so many rows from the top (default: 3)")] = None,
    row: RowNumber = None,
    top: Annotated[int, typer.Option(min=1, help="effects shown for each row, or fields and pairs")] = 10,
    raw: RawTerms = False,
    to: EffectsOut = None,
    global_: Annotated[bool, typer.Option("--global", help="importance of fields and pairs, over all rows")] = False,
    check: Annotated[bool, typer.Option("--check", help="measure how far the explanations can be trusted")] = False,
    seeds: Annotated[int, typer.Option(min=0, help="with --check: refits with other seeds, as long as training")] = 0,
    train_table: TrainTable = None,
    query: Query = None,
    *,
    reading: Reading,
    output: Output,
) -> None:
    """Say what made a saved model predict what it does: exact, signed effects.

    Examples:

    attfm explain runs/adult-1 adult-test --rows 3

    attfm explain runs/adult-1 --global

    attfm explain runs/clicks new.parquet --output effects.parquet
    """
    with loading():
        from attfm.commands import explain as command

    asked = command.Asked(
        data, reading, rows, row or (), top, raw=raw, to=to, overall=global_, check=check, seeds=seeds,
        train_table=train_table, query=query,
    )  # fmt: skip
    command.explain(run, asked, output)


@_command
def report(
    run: Run,
    data: Annotated[
        str | None, typer.Option(metavar="TABLE", help="rows to measure and show: a bundled table, a file or a folder")
    ] = None,
    target: Target = None,
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="the HTML file to write")] = "report.html",
    query: Query = None,
    *,
    reading: Reading,
    output: Output,
) -> None:
    """Show a saved model as one HTML file: metrics, curves, what matters, and 100 rows with their accounts.

    Examples:

    attfm report runs/adult-1 --data adult-test -o adult.html

    attfm report runs/adult-1
    """
    with loading():
        from attfm.commands.report import report as run_report

    run_report(run, data, query=query, to=out, target=target, reading=reading, output=output)


@_command
def export(run: Run, onnx: OnnxOut = None, sql: SqlOut = None, *, exporting: ExportOptions, output: Output) -> None:
    """Write a saved model as one ONNX file from raw columns to probabilities, or as a SQL query.

    Examples:

    attfm export runs/adult-1 --onnx adult.onnx --with-effects

    attfm export runs/adult-1 --sql adult.sql --table people --id person
    """
    with loading():
        from attfm.commands.export import export as run_export

    run_export(run, onnx, sql, exporting, output)


@_command
def serve(run: Run, *, service: ServiceOptions, output: Output) -> None:
    """Serve a saved model over HTTP: predictions, explanations, rankings, metrics, and a page to try it.

    Examples:

    attfm serve runs/adult-1

    attfm serve runs/clicks --host 0.0.0.0 --port 8080 --api-key-file key.txt
    """
    settings = service.settings()
    with loading():
        from attfm.commands.serve import serve as run_serve

    run_serve(run, settings, output=output)


@_command
def reproduce(
    name: Annotated[Literal["adult"], typer.Argument(help="which published protocol")],
    epochs: Annotated[int | None, typer.Option(min=1, help="fewer epochs than the protocol's (default: 100)")] = None,
    numeric: Annotated[
        Literal["uniform", "scaled"],
        typer.Option(help="numeric columns of the protocol: 10 bins each, or none and scaled"),
    ] = "uniform",
    seed: Seed = None,
    out: Out = None,
    *,
    output: Output,
) -> None:
    """Train by the protocol of a published experiment, beside attfm's defaults, on the same test rows.

    Examples:

    attfm reproduce adult

    attfm reproduce adult --epochs 5 --numeric scaled --json
    """
    with loading():
        from attfm.commands.reproduce import reproduce as run

    run(epochs=epochs, numeric=numeric, seed=seed, out=out, output=output)


@_command
def datasets(json: Json = False) -> None:
    """List the tables that come with attfm.

    Example:

    attfm datasets
    """
    from attfm.commands.datasets import datasets as run

    run(output=Output(as_json=json))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `attfm` with these arguments, or those of the process, and return its exit code."""
    # Before torch is loaded: threads of OpenMP that spin after each operation would hold up those of the kernels.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        with passwords_apart(sys.argv[1:] if arguments is None else arguments) as bare:
            app(bare, prog_name="attfm")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE
