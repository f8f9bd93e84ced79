"""The options that several commands share, each declared once; a command takes them as `reading` and `output`."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import typer

from attfm.commands.console import Output
from attfm.config import Reading

# Loaded for `attfm --help`: nothing here may need torch or pyarrow.

_TEXT = "Reading text (a run keeps them for later tables)"
Json = Annotated[bool, typer.Option("--json", help="one JSON object on stdout, all else on stderr")]
Debug = Annotated[bool, typer.Option("--debug", help="a traceback where something fails")]


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


_BUNDLES: Mapping[str, Callable[..., object]] = {"reading": reading_of, "output": output_of}


def signature_of(command: Callable[..., None]) -> inspect.Signature:
    """Return a command's options: its own, the shared ones in place of `reading` and `output`, and --debug."""
    options: list[inspect.Parameter] = []
    for name, own in inspect.signature(command).parameters.items():
        options += inspect.signature(_BUNDLES[name]).parameters.values() if name in _BUNDLES else [own]
    options.append(inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug))
    return inspect.Signature([option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options])


def arguments_of(command: Callable[..., None], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the command is called with: the options of `signature_of` but --debug, the shared ones bundled."""
    arguments = dict(options)
    for name, bundle in _BUNDLES.items():
        if name in inspect.signature(command).parameters:
            arguments[name] = bundle(**{key: arguments.pop(key) for key in inspect.signature(bundle).parameters})
    return arguments
