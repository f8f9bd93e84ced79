"""What stands in a report, as plain lists and numbers: what the page draws."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attfm.data.codecs.codec import FIRST_VALUE, MISSING, UNKNOWN
from attfm.errors import ConfigError
from attfm.explain.density import density, stretch_of
from attfm.explain.effect import joined
from attfm.explain.explainer import Explainer, explain_global
from attfm.explain.explanation import Explanation
from attfm.explain.global_explanation import GlobalExplanation, PairSurface, Shape
from attfm.explain.pair_grid import pair_grid
from attfm.metrics.intervals import with_intervals
from attfm.model.bundle import Model
from attfm.model.history import mean_curve
from attfm.plots.style import shortened
from attfm.report.curve_points import curves
from attfm.report.rows_shown import Examined, shown_rows
from attfm.report.warnings import examine_fields, warnings_of

Floats = NDArray[np.float64]
Content = dict[str, Any]
_POINTS = 100_000  # of all shape curves together: bounds the size of the page
_MOST_BINS, _LEAST_BINS = 255, 8
_CATEGORIES, _IMPORTANT, _SURFACES, _EFFECTS = 30, 30, 20, 12
_MATRIX_FIELDS, _VALUE_FIELDS, _OUTPUTS = 60, 120, 12
_LONGEST_TEXT = 80
_MOST_SHARES = 4  # classes whose share of the rows is shown


def report_content(model: Model, examined: Examined | None, *, detail: float = 1.0) -> Content:
    """Return all that the page shows; detail : 1, or less for a smaller page of a table with very many fields."""
    try:
        overview = explain_global(model)
    except ConfigError as error:  # no background is stored
        return {**_facts(model, examined), "note": str(error)}
    outputs = min(len(model.task.outputs), _OUTPUTS)
    content: Content = {
        **_facts(model, examined),
        "importance": _importance(overview),
        "attention": _attention(overview),
        "shapes": [_shape(shape, overview, detail) for shape in overview.shapes()],
        "maps": [_map(overview, surface, n) for surface in overview.surfaces()[:_SURFACES] for n in range(outputs)],
        "summaryRows": overview.rows,
        "spreadOf": overview.spread_of,
    }
    if examined is not None and len(examined):
        content["table"] = _table(model, examined)
    return content


def _facts(model: Model, examined: Examined | None) -> Content:
    """Return data summary, warnings, metrics and curves: all that needs no background."""
    findings = [] if examined is None else examine_fields(model, examined)
    warnings = warnings_of(model, examined, findings)
    facts: Content = {
        "target": model.target.name,
        "task": model.task.name,
        "classes": [_text(name) for name in model.task.class_names] or None,
        "outputs": [_text(name) for name in model.task.outputs][:_OUTPUTS],
        "unit": _text(model.task.unit),
        "preset": model.config.model.preset,
        "training": {name: _text(value) for name, value in model.facts.told().items() if not isinstance(value, list)},
        "history": [
            {name: _rounded(record.get(name)) for name in ("epoch", "train_loss", "valid_loss")}
            for record in mean_curve(model.history)
        ],
        "columns": [
            {
                "name": _text(field.name), "kind": field.kind, "type": _text(field.arrow_type, 40),
                "values": field.distinct, "missing": _rounded(field.missing), "why": _text(field.reason),
            }
            for field in model.schema.columns
        ],
        "fields": [
            {
                "name": _text(field.name), "unknown": _rounded(field.unknown), "missing": _rounded(field.missing),
                "values": field.values, "alone": _rounded(field.alone),
            }
            for field in findings
        ],
        "warnings": [{name: _text(text, 300) for name, text in warning.items()} for warning in warnings],
        "stored": {
            part: {name: _rounded(value) for name, value in values.items()} for part, values in model.metrics.items()
        },
        "data": None if examined is None else {
            "name": _text(examined.name), "rows": len(examined), "total": examined.total,
            "labelled": examined.target is not None,
        },
        "targets": [] if examined is None or examined.target is None else _targets(model, examined.target),
        "metrics": [],
        "curves": {},
    }  # fmt: skip
    if examined is not None and examined.target is not None and len(examined) and examined.weight.sum() > 0:
        scores = model.task.scores(examined.logits)
        threshold = model.threshold
        intervals = with_intervals(model.task.name, examined.target, scores, examined.weight, threshold=threshold)
        facts["metrics"] = [[name, *(_rounded(x, 6) for x in values)] for name, values in intervals.items()]
        facts["curves"] = curves(model, examined.target, scores)
        facts["threshold"] = model.task.reported_threshold(threshold)
    return facts


def _targets(model: Model, target: NDArray[Any]) -> list[Content]:
    """Return what the target is in the rows examined: the shares of the classes, or the values' mean and spread."""
    if not len(target):
        return []
    classes = model.task.class_names
    if not classes:
        spread = f"standard deviation {np.std(target):.4g}, from {np.min(target):.4g} to {np.max(target):.4g}"
        return [{"name": f"mean {_text(model.target.name, 40)}", "text": _rounded(np.mean(target)), "more": spread}]
    counts = np.bincount(target, minlength=len(classes))
    return [
        {"name": _text(classes[code], 40), "share": _rounded(counts[code] / len(target)),
         "rows": int(counts[code])}
        for code in np.argsort(-counts, kind="stable")[:_MOST_SHARES]
    ]  # fmt: skip


def _importance(overview: GlobalExplanation) -> list[Content]:
    return [
        {
            "name": joined(_texts(effect.fields)), "fields": _texts(effect.fields),
            "kind": "pair" if len(effect.fields) > 1 else "field", "size": _rounded(effect.importance),
            "share": _rounded(effect.share), "spread": _rounded(effect.spread), "attention": _rounded(effect.attention),
        }
        for effect in overview.importance()[:_IMPORTANT]
    ]  # fmt: skip


def _attention(overview: GlobalExplanation) -> Content | None:
    """Return the matrix of the mean attention, 1 = equal, of the most important fields where they are many."""
    matrix = overview.attention_matrix() * len(overview.pairs)
    if not np.isfinite(matrix).any():
        return None
    kept = np.sort(np.argsort(-overview.summary.field_importance.sum(1), kind="stable")[:_MATRIX_FIELDS])
    return {
        "fields": [_text(overview.fields[f]) for f in kept],
        "left": len(overview.fields) - len(kept),
        "cells": _numbers(matrix[np.ix_(kept, kept)], 3),
    }


def _shape(shape: Shape, overview: GlobalExplanation, detail: float) -> Content:
    outputs = min(shape.effect.shape[1], _OUTPUTS)
    effect, rows = shape.effect[:, :outputs], shape.rows
    special = [
        {"name": name, "rows": int(rows[level]), "effect": _numbers(effect[level])}
        for level, name in ((MISSING, "missing"), (UNKNOWN, "unknown"))
        if len(rows) > level and rows[level]
    ]
    content: Content = {"field": _text(shape.field), "kind": shape.kind, "rows": int(rows.sum())}
    most = detail * _POINTS / (len(overview.fields) * outputs)
    if shape.edges is not None and len(shape.edges) == len(rows) - FIRST_VALUE + 1 and len(rows) > FIRST_VALUE:
        edges, means, counts, spread = _merged(shape, effect, int(np.clip(most, _LEAST_BINS, _MOST_BINS)))
        stretch = stretch_of(counts, edges)
        heights, bounds = density(counts, edges, stretch=stretch)
        return content | {
            "edges": _numbers(edges, 6), "effect": _numbers(means.T), "counts": counts.tolist(), "special": special,
            "spread": None if spread is None else _numbers(spread.T),
            "density": _numbers(heights, 3), "bounds": _numbers(bounds[[0, -1]], 6),
            "stretch": _rounded(stretch),
        }  # fmt: skip
    kept = shape.shown(int(np.clip(most, _LEAST_BINS, _CATEGORIES)))
    return content | {
        "labels": [_text(shape.labels[level]) for level in kept], "effect": _numbers(effect[kept].T),
        "counts": rows[kept].tolist(), "left": len(shape.most_frequent()) - len(kept),
        "spread": None if shape.spread is None else _numbers(shape.spread[kept][:, :outputs].T),
    }  # fmt: skip


def _merged(shape: Shape, effect: Floats, most: int) -> tuple[Floats, Floats, NDArray[np.int64], Floats | None]:
    """Return edges, effects, rows and spreads of at most `most` bins: neighbours are averaged."""
    edges = np.empty(0) if shape.edges is None else shape.edges
    rows, effect = shape.rows[FIRST_VALUE:], effect[FIRST_VALUE:]
    starts = np.unique(np.linspace(0, len(rows), min(most, len(rows)) + 1).astype(np.int64)[:-1])
    counts = np.add.reduceat(rows, starts)

    def averaged(values: Floats) -> Floats:
        sums = np.add.reduceat(values * rows[:, None], starts, axis=0)
        return np.asarray(np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.nan), np.float64)

    spread = None if shape.spread is None else averaged(shape.spread[FIRST_VALUE:, : effect.shape[1]])
    return np.append(edges[starts], edges[-1]), averaged(effect), counts, spread


def _map(overview: GlobalExplanation, surface: PairSurface, number: int) -> Content:
    grid = pair_grid(overview, surface, number)
    return {
        "fields": [_text(name) for name in grid.fields], "output": number,
        "labels": [[_text(name, 40) for name in names] for names in grid.labels],
        "mean": _numbers(grid.mean, 3), "counts": grid.counts.astype(np.int64).tolist(), "limit": _rounded(grid.limit),
    }  # fmt: skip


def _table(model: Model, examined: Examined) -> Content:
    """Return the rows shown, with their accounts: of the class predicted where there are several."""
    groups = shown_rows(model, examined)
    places = np.array([place for group in groups.values() for place in group], np.int64)
    why = [name for name, group in groups.items() for _ in group]
    explanation = Explainer(model).explain(examined.rows.take(torch.from_numpy(places)), examined.numbers[places])
    logits = examined.logits[places]
    classes = [_text(name) for name in model.task.class_names]
    shares = model.task.scores(logits) if model.task.is_classification else None
    predicted = np.zeros(len(logits), np.int64) if shares is None else model.decide(logits)
    rows = []
    for place in range(len(places)):
        number = int(predicted[place]) if len(explanation.outputs) > 1 else 0
        row: Content = {"n": int(explanation.rows[place]), "why": why[place], **_account(explanation, place, number)}
        if shares is None:
            row |= {"predicted": _rounded(logits[place, 0])}
        else:
            code = number + len(classes) - len(explanation.outputs)  # of two classes the second has the account
            row |= {"predicted": classes[predicted[place]], "p": _rounded(shares[place, code]), "of": classes[code]}
        if examined.target is not None:
            label = examined.target[places[place]]
            row["actual"] = _rounded(label) if shares is None else classes[int(label)]
            row["right"] = None if shares is None else bool(label == predicted[place])
        rows.append(row)
    fields = explanation.fields[:_VALUE_FIELDS]
    values = [[_text(value, 60) for value in row[:_VALUE_FIELDS]] for row in explanation.labels]
    return {"fields": [_text(name) for name in fields], "values": values, "rows": rows, "groups": list(groups)}


def _account(explanation: Explanation, place: int, number: int) -> Content:
    account = explanation[place]
    effects = account.top(_EFFECTS, output=number)[0]
    base, total = float(account.base[number]), float(account.logits[0, number])
    rest = total - base - sum(effect.effect for effect in effects)
    return {
        "base": _rounded(base, 6), "total": _rounded(total, 6), "output": _text(account.outputs[number]),
        "effects": [
            [_texts(e.fields), _texts(e.values), _rounded(e.effect, 6), _rounded(e.spread, 3), e.remembered]
            for e in effects
        ],
        "others": len(account.names) - len(effects), "rest": _rounded(rest, 6),
    }  # fmt: skip


def _texts(texts: Sequence[str]) -> list[str]:
    """Return the names or values of one field, or of the two of a pair, for the page."""
    return [_text(text, 60) for text in texts]


def _text(text: object, longest: int = _LONGEST_TEXT) -> str:
    return shortened(str(text), longest)


def _rounded(value: object, digits: int = 4) -> float | int | None:
    """Return a number with so many significant digits; None for none and what is not finite."""
    if not isinstance(value, int | float | np.integer | np.floating) or not np.isfinite(value):
        return None
    return int(value) if isinstance(value, int | np.integer) else float(f"{value:.{digits}g}")


def _numbers(array: Floats, digits: int = 4) -> Any:
    """Return an array as lists of rounded numbers."""
    if array.ndim > 1:
        return [_numbers(part, digits) for part in array]
    return [_rounded(x, digits) for x in array.tolist()]
