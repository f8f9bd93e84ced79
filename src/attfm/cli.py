"""The command `attfm`: its options, exit codes and error sentences. What each command does is in `attfm.commands`."""

import functools
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, ParamSpec

import typer

from attfm.commands.console import Output
from attfm.errors import AttfmError, MissingExtraError, RunFolderError, TrainingError

# The bodies import what they need when they run: `attfm --help` does not wait for torch.

DONE, FAILED, BAD_USE = 0, 1, 2
INTERRUPTED, PIPE_CLOSED = 130, 141  # 128 + the number of the signal, as shells have it

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Attentional factorization machines for tables: train, evaluate, predict, explain.",
    epilog="Example:  attfm train adult",
)
_started = time.perf_counter()
Parameters = ParamSpec("Parameters")

Data = Annotated[str, typer.Argument(metavar="TABLE", help="a bundled table (adult, adult-test), or a file or folder")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="a run folder, as 'attfm train' made it")]
_TEXT = "Reading text"
Names = Annotated[
    str | None,
    typer.Option(metavar="A,B,...", help="column names, where the file has no header", rich_help_panel=_TEXT),
]
Separator = Annotated[str | None, typer.Option(help="between cells (default: found by itself)", rich_help_panel=_TEXT)]
Encoding = Annotated[str, typer.Option(help="of the text, for example latin-1", rich_help_panel=_TEXT)]
Null = Annotated[
    list[str] | None, typer.Option(help="cell that means missing, such as '?' (repeatable)", rich_help_panel=_TEXT)
]
SkipRows = Annotated[int, typer.Option(min=0, help="lines to pass over at the top", rich_help_panel=_TEXT)]
Json = Annotated[bool, typer.Option("--json", help="one JSON object on stdout, all else on stderr")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="the result only")]
Debug = Annotated[bool, typer.Option("--debug", help="a traceback where something fails")]
Threshold = Annotated[
    float | None, typer.Option(help="probability above which the second class is predicted (default: the run's)")
]
Seed = Annotated[int | None, typer.Option(min=0, help="of all random numbers of training (default: 0)")]
Out = Annotated[str | None, typer.Option("--out", "-o", metavar="FOLDER", help="where to save (default: a new folder)")]


def _reported(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Return the command with errors turned into a sentence on stderr and an exit code."""

    @functools.wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except KeyboardInterrupt:
            print("attfm: interrupted, nothing half-written is left.", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Nobody reads any more; Python must not try to flush the rest when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(PIPE_CLOSED) from None
        except AttfmError as error:
            if kwargs.get("debug"):
                traceback.print_exc()
            print(f"attfm: {error}", file=sys.stderr)
            failed = isinstance(error, TrainingError | RunFolderError | MissingExtraError)
            raise typer.Exit(FAILED if failed else BAD_USE) from None
        except typer.Exit:
            raise
        except Exception as error:
            if kwargs.get("debug"):
                traceback.print_exc()
            print(
                f"attfm: {type(error).__name__}: {error or 'no message'}. This was not foreseen; run again with "
                "--debug for the traceback.",
                file=sys.stderr,
            )
            raise typer.Exit(FAILED) from None

    return run


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=lambda asked: _show_version(asked), is_eager=True, help="print the version"),
    ] = False,
) -> None:
    """What stands before a command's name."""


def _show_version(asked: bool) -> None:
    if asked:
        from attfm import __version__

        print(f"attfm {__version__}")
        raise typer.Exit(DONE)


@app.command()
@_reported
def train(
    data: Data,
    target: Annotated[str | None, typer.Option(help="column to predict (known for adult)")] = None,
    valid: Annotated[
        str | None,
        typer.Option(metavar="PART", help="rows to stop by: a fraction of the rows, a table, or none (default: 0.2)"),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(metavar="PART", help="rows to set aside: a fraction, a table, or none (default: 0.2)"),
    ] = None,
    split_seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="of the split into parts (default: 1234)")
    ] = None,
    weight: Annotated[str | None, typer.Option(metavar="COLUMN", help="weight of each row")] = None,
    id_: Annotated[
        list[str] | None, typer.Option("--id", metavar="COLUMN", help="column that is no input (repeatable)")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="nested (default), paper, fwfm, fm or linear")] = None,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="settings as TOML, or adult_2021 of the package")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="one setting, such as dim=16 or model.dim=16 (repeatable)"),
    ] = None,
    seed: Seed = None,
    out: Out = None,
    force: Annotated[bool, typer.Option("--force", help="replace the run in --out")] = False,
    report: Annotated[bool, typer.Option("--report/--no-report", help="write report.html into the run folder")] = True,
    names: Names = None,
    separator: Separator = None,
    encoding: Encoding = "utf-8",
    null: Null = None,
    skip_rows: SkipRows = 0,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train on a table, measure on held-out rows, save a run folder.

    Examples:

    attfm train adult

    attfm train clicks.parquet --target clicked --id user --out runs/clicks

    attfm train loans.csv --target default --test new.csv --preset paper --set dim=16
    """
    from attfm.commands.settings import gather_config

    settings = gather_config(file=config, preset=preset, assignments=set_ or (), seed=seed, ignored=id_ or ())
    from attfm.commands.tables import Reading
    from attfm.commands.train import train as run

    run(
        data, config=settings, target=target, valid=valid, test=test, weight=weight, out=out, force=force,
        split_seed=split_seed, with_report=report,
        reading=Reading.from_options(names, separator, encoding, null, skip_rows),
        output=Output(as_json=json, quiet=quiet), started=_started,
    )  # fmt: skip


@app.command()
@_reported
def evaluate(
    run: Run,
    data: Data,
    threshold: Threshold = None,
    names: Names = None,
    separator: Separator = None,
    encoding: Encoding = "utf-8",
    null: Null = None,
    skip_rows: SkipRows = 0,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure a saved model on a table that has the target.

    Example:

    attfm evaluate runs/adult-1 adult-test
    """
    from attfm.commands.score import evaluate as run_evaluate
    from attfm.commands.tables import Reading

    run_evaluate(
        run, data, threshold=threshold,
        reading=Reading.from_options(names, separator, encoding, null, skip_rows),
        output=Output(as_json=json, quiet=quiet), started=_started,
    )  # fmt: skip


@app.command()
@_reported
def predict(
    run: Run,
    data: Data,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE", help=".csv, .tsv, .parquet, .arrow (default: CSV on stdout)"),
    ] = None,
    id_: Annotated[
        list[str] | None, typer.Option("--id", metavar="COLUMN", help="column to keep beside the scores (repeatable)")
    ] = None,
    threshold: Threshold = None,
    names: Names = None,
    separator: Separator = None,
    encoding: Encoding = "utf-8",
    null: Null = None,
    skip_rows: SkipRows = 0,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Score the rows of a table with a saved model, batch after batch.

    Examples:

    attfm predict runs/adult-1 adult-test -o scores.csv

    attfm predict runs/clicks new.parquet --id user -o scores.parquet
    """
    from attfm.commands.score import predict as run_predict
    from attfm.commands.tables import Reading

    run_predict(
        run, data, to=out, ids=id_ or (), threshold=threshold,
        reading=Reading.from_options(names, separator, encoding, null, skip_rows),
        output=Output(as_json=json, quiet=quiet), started=_started,
    )  # fmt: skip


@app.command()
@_reported
def explain(
    run: Run,
    data: Annotated[
        str | None, typer.Argument(metavar="[TABLE]", help="a bundled table, a file or a folder; --global needs none")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="explain so many rows from the top (default: 3)")] = None,
    row: Annotated[
        list[int] | None, typer.Option(metavar="NUMBER", help="explain this row, counted from 0 (repeatable)")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="effects shown for each row, or fields and pairs")] = 10,
    raw: Annotated[
        bool, typer.Option("--raw", help="the formula's own terms, not effects relative to the training rows")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="all rows, to .parquet, .csv, .tsv or .arrow"),
    ] = None,
    global_: Annotated[bool, typer.Option("--global", help="importance of fields and pairs, over all rows")] = False,
    check: Annotated[bool, typer.Option("--check", help="measure how far the explanations can be trusted")] = False,
    seeds: Annotated[int, typer.Option(min=0, help="with --check: refits with other seeds, as long as training")] = 0,
    train_table: Annotated[
        str | None, typer.Option(metavar="TABLE", help="with --seeds: what the run was trained on (default: TABLE)")
    ] = None,
    names: Names = None,
    separator: Separator = None,
    encoding: Encoding = "utf-8",
    null: Null = None,
    skip_rows: SkipRows = 0,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say what made a saved model predict what it does: exact, signed effects.

    Examples:

    attfm explain runs/adult-1 adult-test --rows 3

    attfm explain runs/adult-1 --global

    attfm explain runs/clicks new.parquet --output effects.parquet
    """
    from attfm.commands.explain import explain as run_explain
    from attfm.commands.tables import Reading

    run_explain(
        run, data, rows=rows, row=row or (), top=top, raw=raw, to=output, overall=global_, checked=check,
        seeds=seeds, train_table=train_table,
        reading=Reading.from_options(names, separator, encoding, null, skip_rows),
        output=Output(as_json=json, quiet=quiet), started=_started,
    )  # fmt: skip


@app.command()
@_reported
def report(
    run: Run,
    data: Annotated[
        str | None,
        typer.Option(metavar="TABLE", help="rows to measure and show: a bundled table, a file or a folder"),
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="the HTML file to write")] = "report.html",
    names: Names = None,
    separator: Separator = None,
    encoding: Encoding = "utf-8",
    null: Null = None,
    skip_rows: SkipRows = 0,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show a saved model as one HTML file: metrics, curves, what matters, and 100 rows with their accounts.

    Examples:

    attfm report runs/adult-1 --data adult-test -o adult.html

    attfm report runs/adult-1
    """
    from attfm.commands.report import report as run_report
    from attfm.commands.tables import Reading

    run_report(
        run, data, to=out, reading=Reading.from_options(names, separator, encoding, null, skip_rows),
        output=Output(as_json=json, quiet=quiet), started=_started,
    )  # fmt: skip


@app.command()
@_reported
def reproduce(
    name: Annotated[Literal["adult"], typer.Argument(help="which published protocol")],
    epochs: Annotated[int | None, typer.Option(min=1, help="fewer epochs than the protocol's (default: 100)")] = None,
    numeric: Annotated[
        Literal["uniform", "scaled"],
        typer.Option(help="numeric columns of the protocol: 10 bins each, or none and scaled"),
    ] = "uniform",
    seed: Seed = None,
    out: Out = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train by the protocol of a published experiment, beside attfm's defaults, on the same test rows.

    Examples:

    attfm reproduce adult

    attfm reproduce adult --epochs 5 --numeric scaled --json
    """
    from attfm.commands.reproduce import reproduce as run

    run(epochs=epochs, numeric=numeric, seed=seed, out=out, output=Output(as_json=json, quiet=quiet), started=_started)


@app.command()
@_reported
def datasets(json: Json = False, debug: Debug = False) -> None:
    """List the tables that come with attfm.

    Example:

    attfm datasets
    """
    from attfm.commands.datasets import datasets as run

    run(output=Output(as_json=json))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `attfm` and return its exit code.

    Parameters
    ----------
    arguments : without the command's name; None: those of the process
    """
    global _started
    _started = time.perf_counter()
    # Before torch is loaded: threads of OpenMP that spin after each operation would hold up those of the kernels.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app(list(sys.argv[1:] if arguments is None else arguments), prog_name="attfm")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE
