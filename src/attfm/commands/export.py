"""`attfm export`: a saved model as an ONNX file or a SQL query."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from attfm.commands.console import Output, duration
from attfm.commands.export_options import ExportOptions
from attfm.errors import ConfigError
from attfm.model.bundle import Model
from attfm.model.run_folder import load_model

_OF_ONNX, _OF_SQL = ("with_effects", "ids", "check"), ("table", "id_", "limit")


def export(run: str, onnx: str | None, sql: str | None, options: ExportOptions, output: Output) -> None:
    """Write the exports that are asked for; see `attfm.cli.export` for the options."""
    if onnx is None and sql is None:
        raise ConfigError("Say what to export to: --onnx model.onnx, or --sql query.sql.")
    _check_needed(onnx, options, _OF_ONNX, "--onnx")
    _check_needed(sql, options, _OF_SQL, "--sql")
    if onnx is not None and sql is not None:  # so that the query is not left alone
        from attfm.serve.onnx.graph import MODEL_FILE

        MODEL_FILE.checked(onnx)
    written: dict[str, Any] = {}
    model = load_model(run)
    if sql is not None:
        written |= _export_sql(model, sql, options, output)
    if onnx is not None:
        written |= _export_onnx(model, onnx, options, output)
    output.result_json({"run": run, **written, "seconds": output.seconds})


def _check_needed(file: str | None, options: ExportOptions, names: tuple[str, ...], of: str) -> None:
    """Raise ConfigError where an option is given whose file is not."""
    usual = {field.name: field.default for field in fields(ExportOptions)}
    for name in names:
        if file is None and getattr(options, name) != usual[name]:
            option = "no-check" if name == "check" else name.rstrip("_").replace("_", "-")
            raise ConfigError(f"--{option} is of {of} FILE: add that, or leave it out.")


def _export_onnx(model: Model, file: str, options: ExportOptions, output: Output) -> dict[str, Any]:
    from attfm.serve.onnx.graph import export_onnx

    path, agreement = export_onnx(model, file, effects=options.with_effects, ids=options.ids, check=options.check)
    told = "not compared with the model"
    if agreement is not None:
        told = f"{agreement.rows:,} rows differ from the model's by {agreement.difference:.1g} at most"
    output.result_lines(f"onnx: {path} ({_size(path)}), {told}, {duration(output.seconds)}")
    return {
        "onnx": str(path), "bytes": path.stat().st_size, "rows_compared": 0 if agreement is None else agreement.rows,
        "difference": None if agreement is None else agreement.difference,
    }  # fmt: skip


def _export_sql(model: Model, file: str, options: ExportOptions, output: Output) -> dict[str, Any]:
    from attfm.serve.sql.query import export_sql

    path = export_sql(model, file, table=options.table, ids=options.id_ or (), limit=options.limit)
    output.result_lines(f"sql: {path} ({_size(path)}), {duration(output.seconds)}")
    return {"sql": str(path), "sql_bytes": path.stat().st_size}


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:.3g} MB" if size >= 1e5 else f"{size / 1e3:.3g} kB"
