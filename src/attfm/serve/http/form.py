"""The form of the page: a control for each column, made from the schema."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pyarrow import types

from attfm.data.arrow_types import is_text
from attfm.data.codecs.codec import FIRST_VALUE
from attfm.data.schema import Column
from attfm.model.bundle import Model

MOST_OPTIONS = 24  # of a drop-down; a longer list is searched
MOST_FOUND = 50
_MEMBERS = ";"  # stands between members of a bag that is a list


def controls(model: Model, usual: Mapping[str, Any]) -> str:
    """Return the controls of all input columns, each with the usual value in it."""
    return "".join(
        _control(model, number, column, usual[column.name]) for number, column in enumerate(model.schema.inputs)
    )


def values_like(model: Model, number: int, search: str) -> list[str]:
    """Return known values of an input column that hold some text, those that begin with it first; at most fifty."""
    names = _known_values(model, model.schema.inputs[number])
    wanted = search.casefold()
    held = [name for name in names if wanted in name.casefold()]
    return sorted(held, key=lambda name: not name.casefold().startswith(wanted))[:MOST_FOUND]


def _known_values(model: Model, column: Column) -> list[str]:
    if column.hash_buckets:
        return []
    fields = [f for f, field in enumerate(model.encoder.fields) if field.column == column.name]
    return model.encoder.feature_names(fields[0])[FIRST_VALUE:] if fields else []


def _control(model: Model, number: int, column: Column, value: Any) -> str:
    name, id_ = html.escape(column.name), f"c{number}"
    if column.kind == "numeric":
        body, note = _number(column, id_, value)
    elif column.kind == "datetime":
        has_hour = any(field.name.endswith(".hour") for field in model.encoder.fields if field.column == column.name)
        kind, shown = ("datetime-local", str(value)[:19]) if has_hour else ("date", str(value)[:10])
        body, note = f'<input id={id_} type={kind} value="{html.escape(shown)}" data-kind=text>', ""
    elif column.kind == "multi-valued":
        body, note = _bag(column, id_, value)
    else:
        body, note = _choice(_known_values(model, column), number, value, column)
    hint = f"<span class=hint id={id_}h>{html.escape(note)}</span>" if note else ""
    return (
        f'<div class=control data-name="{name}" data-control={id_}><label for={id_}>{name}</label>{body}{hint}'
        f"<p class=fault id={id_}f hidden></p></div>"
    )


def _number(column: Column, id_: str, value: Any) -> tuple[str, str]:
    low, high = column.minimum, column.maximum
    shown = "" if value is None else f"{value:.15g}"
    number = (
        f'<input id={id_} class=number type=number step=any value="{shown}" data-kind=number '
        f'placeholder="not known" aria-describedby="{id_}h {id_}f">'
    )
    if low is None or high is None or not low < high:
        return number, ""
    step = _step(low, high, whole="int" in column.arrow_type)
    slider = (
        f'<input class=slider type=range min="{low:.15g}" max="{high:.15g}" step="{step:.15g}" value="{shown}" '
        f"tabindex=-1 aria-hidden=true data-of={id_}>"
    )
    return f"<div class=pair>{slider}{number}</div>", f"{_shown(low)} to {_shown(high)}"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:,.6g}"


def _step(low: float, high: float, *, whole: bool) -> float:
    """Return a round step of which a range has some hundreds; 1 of whole numbers in a short one."""
    step = float(10 ** np.floor(np.log10((high - low) / 200)))
    return max(step, 1.0) if whole else step


def _choice(names: Sequence[str], number: int, value: Any, column: Column) -> tuple[str, str]:
    id_ = f"c{number}"
    if names and len(names) <= MOST_OPTIONS:
        options = "".join(
            f'<option value="{html.escape(name)}"{" selected" if name == value else ""}>{html.escape(name)}</option>'
            for name in names
        )
        chosen = "" if value is not None else " selected"
        return (
            f"<select id={id_} data-kind=choice aria-describedby={id_}f>{options}"
            f'<option value="" data-missing{chosen}>(not known)</option></select>',
            "",
        )
    shown = "" if value is None else html.escape(str(value))
    note = f"{len(names):,} values: type to search" if names else ""
    box = (
        f"<div class=combo><input id={id_} type=text role=combobox aria-expanded=false aria-autocomplete=list "
        f'aria-controls={id_}l autocomplete=off spellcheck=false value="{shown}" data-kind=text data-field={number} '
        f'placeholder="not known" aria-describedby="{id_}h {id_}f"><ul id={id_}l role=listbox hidden></ul></div>'
    )
    return box, note


def _bag(column: Column, id_: str, value: Any) -> tuple[str, str]:
    members = list(value or ())
    is_list = not (is_text(column.stored_type) and column.separator)
    between = _MEMBERS if is_list else str(column.separator)
    kind = "map" if types.is_map(column.stored_type) else "list" if is_list else "text"
    shown = html.escape(between.join(str(member) for member in members))
    return (
        f'<input id={id_} type=text value="{shown}" data-kind={kind} spellcheck=false placeholder="none" '
        f'aria-describedby="{id_}h {id_}f">',
        f"'{between}' between several",
    )


def control_value(column: Column, value: Any) -> str:
    """Return what a control of the page holds for a value, as text in quotes of JSON."""
    if isinstance(value, dict | list):
        between = str(column.separator) if column.separator and is_text(column.stored_type) else _MEMBERS
        value = between.join(str(member) for member in value)
    return json.dumps("" if value is None else str(value), ensure_ascii=False)
