"""The page of the service: a form, the prediction with its account, importance, and what would change the decision."""

import html
from functools import cache
from importlib import resources
from typing import Any

from attfm.errors import AttfmError
from attfm.explain.what_if import Change
from attfm.model.task import LOGIT
from attfm.serve.http.batching import score_rows
from attfm.serve.http.form import control_value, controls
from attfm.serve.http.loaded_run import LoadedRun, bin_value
from attfm.serve.http.refusals import Refused
from attfm.serve.http.waterfall import headline, importance, waterfall


@cache
def static(name: str) -> bytes:
    """Return a file of the page."""
    return resources.files("attfm.serve.http").joinpath("templates", name).read_bytes()


def page(run: LoadedRun) -> str:
    """Return the page of a run, with a usual row in the form and its account beside it."""
    model, esc = run.model, html.escape
    task = model.task
    threshold = ""
    if not task.is_classification:
        mean = float(run.accounts.explain([dict(run.usual)]).base[0])
        threshold = f'<label class=of>to cross <input id=threshold type=number step=any value="{mean:.6g}"></label>'
    parts = {
        "title": esc(task.target),
        "about": esc(_about(run)),
        "controls": controls(model, run.usual),
        "threshold": threshold,
        "importance": importance(run.accounts.overview, model.input_names),
        "account": account(run, dict(run.usual), None),
        "version": esc(run.version),
    }
    # One pass, so that a value which looks like a mark is not filled in again.
    pieces = static("page.html").decode().split("@@")
    return "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def _about(run: LoadedRun) -> str:
    facts, metrics = run.model.facts, run.model.metrics
    rows = "" if facts.training_rows is None else f"trained on {facts.training_rows:,} rows"
    rows = f"{facts.table}, {rows}" if facts.table and rows else rows
    measured = metrics.get("test") or metrics.get("valid") or {}
    shown = [f"{name.replace('_', ' ')} {measured[name]:.3f}" for name in ("auc", "accuracy", "r2") if name in measured]
    return "; ".join(part for part in (rows, ", ".join(shown[:2])) if part)


def account(run: LoadedRun, row: dict[str, Any], output: str | None) -> str:
    """Return the prediction of a row and its account, as two parts of the page.

    Parameters
    ----------
    output : str or None, the class whose account it is; None: the one that is predicted
    """
    [score] = score_rows(run, [row])
    explained, task = run.accounts.explain([row]), run.model.task
    place = 0
    if len(task.outputs) > 1:
        wanted = output or str(score["prediction"])
        if wanted not in task.outputs:
            raise Refused(422, f"There is no class '{wanted:.60}' of {task.target}: choose one of the list.")
        place = task.outputs.index(wanted)
    notes = ""
    if explained.in_logits and explained.unit != LOGIT:
        notes = "<p class=note>Calibrated by curves: the probability follows from this sum, but not by one formula.</p>"
    return (
        f"<section id=prediction class=panel aria-live=polite>{headline(task, score, run.model.threshold)}</section>"
        f"<section id=account class=panel><div class=bar-top><h2>Why</h2>{_choice(run, place)}</div>"
        f"{_key(run, place)}{waterfall(explained, place)}{notes}"
        "</section>"
    )


def _choice(run: LoadedRun, place: int) -> str:
    """Return what chooses the class whose account is shown; nothing of one output."""
    outputs, esc = run.model.task.outputs, html.escape
    if len(outputs) == 1:
        return ""
    options = "".join(
        f'<option value="{esc(name)}"{" selected" if n == place else ""}>{esc(name)}</option>'
        for n, name in enumerate(outputs)
    )
    return f"<label class=of>Account of <select id=output>{options}</select></label>"


def _key(run: LoadedRun, place: int) -> str:
    """Return what the colours mean."""
    task = run.model.task
    up, down = ("speaks for", "against it") if task.is_classification else ("raises", "lowers it")
    of = html.escape(task.outputs[place])
    return f"<p class=key><b class=up>Orange</b> {up} {of}, <b class=down>blue</b> {down}.</p>"


def what_if_part(run: LoadedRun, row: dict[str, Any], threshold: float | None) -> str:
    """Return the smallest changes that flip the decision about a row, each with a button that tries it."""
    try:
        changes = run.accounts.what_if(row, threshold=threshold)
    except AttfmError as error:
        return f"<div id=changes><p class=note>{html.escape(str(error))}</p></div>"
    if not changes:
        said = (
            f"No change of a single field flips it: {changes.tried:,} values of {changes.fields:,} fields were tried."
        )
        return f"<div id=changes><p class=note>{html.escape(said)}</p></div>"
    items = "".join(_change(run, row, change) for change in changes)
    return f"<div id=changes><ul class=changes>{items}</ul></div>"


def _change(run: LoadedRun, row: dict[str, Any], change: Change) -> str:
    esc, button = html.escape, ""
    tried = _tried(run, row, change)
    if tried is not None:
        number, value = tried
        label = esc(f"Try {change.field} {change.after}")
        button = (
            f'<button type=button class=try data-control=c{number} data-value="{esc(value)}" aria-label="{label}">'
            "Try</button>"
        )
    return (
        f"<li><span><span class=name>{esc(change.field)}</span> {esc(change.before)} → <b>{esc(change.after)}</b>"
        f"</span><small>gives {esc(change.decision_after)}; {100 * change.distance:.1f} % of the rows away</small>"
        f"{button}</li>"
    )


def _tried(run: LoadedRun, row: dict[str, Any], change: Change) -> tuple[int, str] | None:
    """Return the number of a control and what it is to hold; None where a change is of a part of a date."""
    model = run.model
    f, field = next((f, field) for f, field in enumerate(model.encoder.fields) if field.name == change.field)
    number = model.input_names.index(field.column)
    column = model.schema.inputs[number]
    value: Any = change.after
    if column.kind == "datetime":
        return None
    if field.kind == "multi-valued":
        how, _, member = change.after.partition(" ")
        held = row[column.name]
        members = held.split(column.separator) if isinstance(held, str) else list(held or ())
        value = [*members, member] if how == "with" else [own for own in members if str(own) != member]
    elif column.kind == "numeric" and field.kind != "scaled":
        edges, names = model.encoder.bin_edges(f), model.encoder.feature_names(f)
        if edges is None or change.after not in names[2:]:
            return None
        place = names.index(change.after, 2) - 2
        value = plain_number(bin_value(change.after, edges[place : place + 2]))
    return number, control_value(column, value)


def plain_number(value: float) -> str:
    """Return a number as a control holds it."""
    return f"{value:.15g}" if value == round(value) else f"{value:.6g}"
