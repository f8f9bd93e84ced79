"""The options of the commands, each declared once."""

from typing import Annotated, Any, Literal

import typer

from attfm.commands.console import Output
from attfm.config import Reading

# Loaded for `attfm --help`: nothing here may need torch or pyarrow.

_TEXT = "Reading text (a run keeps them for later tables)"
Json = Annotated[bool, typer.Option("--json", help="one JSON object on stdout, all else on stderr")]
Debug = Annotated[bool, typer.Option("--debug", help="a traceback where something fails")]

Data = Annotated[
    str,
    typer.Argument(
        metavar="TABLE", help="a bundled table (adult, adult-test), a file, a folder, a pattern or a database's URI"
    ),
]
Trials = Annotated[int, typer.Option(min=1, help="how many the study has in the end")]
Study = Annotated[
    str | None, typer.Option(metavar="FILE", help="SQLite file that keeps the trials (default: RUN.study.db)")
]
TunedOut = Annotated[
    str | None, typer.Option("--out", "-o", metavar="RUN", help="where to save (default: runs/TABLE-tuned)")
]
ScoresOut = Annotated[
    str | None,
    typer.Option("--out", "-o", metavar="FILE", help=".csv, .tsv, .parquet, .arrow (default: CSV on stdout)"),
]
KeptColumns = Annotated[
    list[str] | None, typer.Option("--id", metavar="COLUMN", help="column to keep beside the scores (repeatable)")
]
DataOrGlobal = Annotated[
    str | None,
    typer.Argument(
        metavar="[TABLE]", help="a bundled table, a file, a folder or a database's URI; --global needs none"
    ),
]
RowNumber = Annotated[
    list[int] | None, typer.Option(metavar="NUMBER", help="explain this row, counted from 0 (repeatable)")
]
TrainTable = Annotated[
    str | None, typer.Option(metavar="TABLE", help="with --seeds: what the run was trained on (default: TABLE)")
]
RawTerms = Annotated[
    bool, typer.Option("--raw", help="the formula's own terms, not effects relative to the training rows")
]
EffectsOut = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FILE", help="all rows, to .parquet, .csv, .tsv or .arrow")
]
DataOrSkipBadFiles = Annotated[
    bool, typer.Option("--skip-bad-files", help="leave out files of a folder that can't be read, and list them")
]
DataOrResume = Annotated[
    str | None,
    typer.Argument(
        metavar="TABLE",
        help="a bundled table (adult, adult-test), a file, a folder, a pattern or a database's URI; none with --resume",
    ),
]
CheckpointMinutes = Annotated[
    float, typer.Option(min=0, help="after how many minutes a checkpoint is written beside the run; 0: not by time")
]
CheckpointSteps = Annotated[int, typer.Option(min=0, help="after how many steps one is written; 0: not by steps")]
Stream = Annotated[
    bool | None,
    typer.Option("--stream/--in-memory", help="encode rows to disk, or keep them in memory (default: as they fit)"),
]
Cache = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="where rows are encoded to, and found or gone on with by the next training (default: beside the run)",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="say what it will take (rows, memory, disk, time) and train nothing")
]
SkipBadFiles = Annotated[
    bool, typer.Option("--skip-bad-files", help="leave out files of a folder that can't be read, and list them")
]
Resume = Annotated[
    str | None,
    typer.Option(
        metavar="RUN", help="go on with an interrupted training, or encoding to disk, as it was asked for; alone"
    ),
]
_CONTINUE = "Learning on"
From = Annotated[
    str | None,
    typer.Option("--from", metavar="RUN", help="learn on from this run: its ids, settings and target stay",
                 rich_help_panel=_CONTINUE),
]  # fmt: skip
HalfLife = Annotated[
    float | None,
    typer.Option(metavar="DAYS", help="after which an earlier row counts half in counts, rates and pair memory",
                 rich_help_panel=_CONTINUE),
]  # fmt: skip
EvictUnseen = Annotated[
    float | None,
    typer.Option(metavar="DAYS", help="forget values that no row had for more days", rich_help_panel=_CONTINUE),
]
AsOf = Annotated[
    str | None,
    typer.Option(metavar="DAY", help="of the rows, as 2024-03-01 (default: today)", rich_help_panel=_CONTINUE),
]
RefitBins = Annotated[
    bool, typer.Option("--refit-bins", help="cut numeric bins again, on the new rows", rich_help_panel=_CONTINUE)
]
Run = Annotated[str, typer.Argument(metavar="RUN", help="a run folder, as 'attfm train' made it")]
Target = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="column that holds the target there (default: the run's)")
]
Threshold = Annotated[
    float | None, typer.Option(help="probability above which the second class is predicted (default: the run's)")
]
GroupBy = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="mean AUC of its groups too, such as users, weighted by their rows")
]
Seed = Annotated[int | None, typer.Option(min=0, help="of all random numbers of training (default: 0)")]
ToPredict = Annotated[str | None, typer.Option("--target", help="column to predict (known for adult)")]
Valid = Annotated[
    str | None,
    typer.Option(
        metavar="PART",
        help="rows to stop by: a fraction of the rows, a table, or none (default: 0.2). Those of the default may "
        "teach in the end (setting refit; cross-fitted models); those given only stop, and report",
    ),
]
Test = Annotated[
    str | None, typer.Option(metavar="PART", help="rows to set aside: a fraction, a table, or none (default: 0.2)")
]
SplitBy = Annotated[
    str | None,
    typer.Option(
        metavar="KIND:COLUMN",
        help="divide rows by time:COLUMN (past, next, last) or group:COLUMN (whole groups; default: by chance)",
    ),
]
SplitSeed = Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="of the split into parts (default: 1234)")]
Query = Annotated[
    str | None, typer.Option(metavar="SQL", help="which rows of a database, whose URI is the table (docs/sql.md)")
]
Weight = Annotated[str | None, typer.Option(metavar="COLUMN", help="weight of each row")]
NoInput = Annotated[
    list[str] | None, typer.Option("--id", metavar="COLUMN", help="column that is no input (repeatable)")
]
Preset = Annotated[str | None, typer.Option(help="nested (default), paper, fwfm, fm or linear")]
Settings = Annotated[str | None, typer.Option(metavar="FILE", help="settings as TOML, or adult_2021 of the package")]
SetTo = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="one setting, such as dim=16 or model.dim=16 (repeatable)"),
]
Force = Annotated[bool, typer.Option("--force", help="replace the run in --out")]
WithReport = Annotated[bool, typer.Option("--report/--no-report", help="write report.html into the run folder")]
Out = Annotated[str | None, typer.Option("--out", "-o", metavar="FOLDER", help="where to save (default: a new folder)")]


def _text_option(*names: str, **options: Any) -> Any:
    return typer.Option(*names, rich_help_panel=_TEXT, **options)


def reading_of(
    names: Annotated[
        str | None, _text_option(metavar="A,B,...", help="column names, where the file has no header")
    ] = None,
    separator: Annotated[str | None, _text_option(help="between cells (default: found by itself)")] = None,
    encoding: Annotated[str | None, _text_option(help="of the text, for example latin-1 (default: utf-8)")] = None,
    skip_rows: Annotated[int | None, _text_option(help="lines to pass over at the top")] = None,
    comment: Annotated[str | None, _text_option(metavar="CHAR", help="begins lines to pass over, such as #")] = None,
    null: Annotated[list[str] | None, _text_option(help="cell that means missing, such as '?' (repeatable)")] = None,
    keep: Annotated[
        list[str] | None, _text_option(help="cell that is a value though it usually means missing, such as NA")
    ] = None,
    decimal: Annotated[str | None, _text_option(metavar="CHAR", help="sign before a fraction: . or ,")] = None,
    thousands: Annotated[str | None, _text_option(metavar="CHAR", help="between thousands, such as , or .")] = None,
    signs: Annotated[
        bool | None, _text_option("--signs/--no-signs", help="numbers may have a percent or currency sign")
    ] = None,
    day_first: Annotated[
        bool | None, _text_option("--day-first/--month-first", help="how 01/02/2024 is read (default: as text)")
    ] = None,
    layout: Annotated[
        Literal["auto", "fields", "bag"] | None, _text_option(help="of libsvm: a column a place, or one bag")
    ] = None,
) -> Reading:
    """Return the options that are given: names joined by commas, "\\t" or "tab" for a tab."""
    given = {
        "names": None if names is None else [name.strip() for name in names.split(",")],
        "separator": {"\\t": "\t", "tab": "\t"}.get(separator or "", separator),
        "encoding": encoding,
        "skip_rows": skip_rows,
        "comment": comment,
        "null_values": null or None,
        "keep": keep or None,
        "decimal": decimal,
        "thousands": thousands,
        "signs": signs,
        "day_first": day_first,
        "layout": layout,
    }
    return Reading.parse({name: value for name, value in given.items() if value is not None}, where="the options")


def output_of(
    json: Json = False, quiet: Annotated[bool, typer.Option("--quiet", "-q", help="the result only")] = False
) -> Output:
    """Return where messages and the result go; the command's seconds count from here."""
    return Output(as_json=json, quiet=quiet)
