"""The options that several commands share, each declared once; a command takes them as `reading` and `output`."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from attfm.commands.console import Output

# Loaded for `attfm --help`: nothing here may need torch or pyarrow.

_TEXT = "Reading text"
Json = Annotated[bool, typer.Option("--json", help="one JSON object on stdout, all else on stderr")]
Debug = Annotated[bool, typer.Option("--debug", help="a traceback where something fails")]


@dataclass(frozen=True)
class Reading:
    """How text is read; see `attfm.data.sources.source.open_source`."""

    names: Sequence[str] | None = None
    separator: str | None = None
    encoding: str = "utf-8"
    null_values: Sequence[str] = ()
    skip_rows: int = 0


def reading_of(
    names: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="column names, where the file has no header", rich_help_panel=_TEXT),
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="between cells (default: found by itself)", rich_help_panel=_TEXT)
    ] = None,
    encoding: Annotated[str, typer.Option(help="of the text, for example latin-1", rich_help_panel=_TEXT)] = "utf-8",
    null: Annotated[
        list[str] | None, typer.Option(help="cell that means missing, such as '?' (repeatable)", rich_help_panel=_TEXT)
    ] = None,
    skip_rows: Annotated[int, typer.Option(min=0, help="lines to pass over at the top", rich_help_panel=_TEXT)] = 0,
) -> Reading:
    """Return the options as typed: names joined by commas, "\\t" or "tab" for a tab."""
    split = None if names is None else [name.strip() for name in names.split(",")]
    separator = {"\\t": "\t", "tab": "\t"}.get(separator or "", separator)
    return Reading(split, separator, encoding, tuple(null or ()), skip_rows)


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
