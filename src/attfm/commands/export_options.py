"""The options of `attfm export`."""

from dataclasses import dataclass
from typing import Annotated

import typer

# Loaded for `attfm --help`: nothing here may need torch or pyarrow.

_ONNX, _SQL = "Of --onnx", "Of --sql"
OnnxOut = Annotated[str | None, typer.Option("--onnx", metavar="FILE", help="write an ONNX model, with attfm[onnx]")]
SqlOut = Annotated[str | None, typer.Option("--sql", metavar="FILE", help="write a SQL query")]


@dataclass(frozen=True)
class ExportOptions:
    """What an export is to have, see `attfm.serve.onnx` and `attfm.serve.sql`."""

    with_effects: Annotated[
        bool, typer.Option("--with-effects", help="main and pair effects as outputs too", rich_help_panel=_ONNX)
    ] = False
    ids: Annotated[
        bool, typer.Option("--ids", help="take encoded rows (feature ids) in place of columns", rich_help_panel=_ONNX)
    ] = False
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="compare 10,000 rows with the model (onnxruntime)",
                     rich_help_panel=_ONNX),
    ] = True  # fmt: skip
    table: Annotated[
        str, typer.Option(metavar="NAME", help="table that the query reads (default: data)", rich_help_panel=_SQL)
    ] = "data"
    id_: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="COLUMN", help="column beside the scores (repeatable; default: the inputs)",
                     rich_help_panel=_SQL),
    ] = None  # fmt: skip
    limit: Annotated[int, typer.Option(min=1, help="most numbers in the query's tables", rich_help_panel=_SQL)] = (
        300_000
    )
