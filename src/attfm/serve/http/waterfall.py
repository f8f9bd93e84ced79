"""An account as HTML: what is predicted, and bars from the average to the row's own logit."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from attfm.explain.effect import Effect
from attfm.explain.explanation import Explanation
from attfm.explain.global_explanation import GlobalExplanation
from attfm.model.task import Task

MOST_BARS = 12
_WIDTH = 1000  # of a drawing, in its own units


def number(value: float) -> str:
    """Return a signed number as people read it."""
    size = abs(value)
    text = f"{size:.3f}" if size < 10 else f"{size:.2f}" if size < 100 else f"{size:,.0f}"
    return ("−" if value < 0 else "+") + text


def plain(value: float) -> str:
    """Return a number without the sign of a positive one."""
    return f"{value:,.6g}".replace("-", "−")


def headline(task: Task, score: dict[str, Any], threshold: float | None) -> str:
    """Return what is predicted of a row: the decision, and how sure it is."""
    esc = html.escape
    if not task.is_classification:
        return (
            f"<p class=what>{esc(task.target)}</p><p class=big><output>{esc(plain(score['prediction']))}</output></p>"
        )
    decided = esc(str(score["prediction"]))
    if "probabilities" in score:
        shares = sorted(score["probabilities"].items(), key=lambda share: -share[1])[:8]
        return f"<p class=what>{esc(task.target)}</p><p class=big><output>{decided}</output></p>" + "".join(
            f"<div class=share><span>{esc(name)}</span>{_meter(share)}<b>{100 * share:.1f} %</b></div>"
            for name, share in shares
        )
    share = score["probability"]
    limit = 0.5 if threshold is None else threshold
    mark = f"<line class=limit x1={_WIDTH * limit:.0f} x2={_WIDTH * limit:.0f} y1=0 y2=20 />"
    return (
        f"<p class=what>{esc(task.target)}</p><p class=big><output>{decided}</output></p>"
        f"<div class=share><span>probability of {esc(task.outputs[0])}</span>{_meter(share, mark)}"
        f"<b>{100 * share:.1f} %</b></div>"
    )


def _meter(share: float, mark: str = "") -> str:
    return (
        f'<svg class=meter viewBox="0 0 {_WIDTH} 20" preserveAspectRatio=none aria-hidden=true>'
        f"<rect class=cell width={_WIDTH} height=20 /><rect class=f-ink width={_WIDTH * share:.1f} height=20 />"
        f"{mark}</svg>"
    )


# Their widths are said here, as the style of cells is not asked where a head that is not seen comes first.
_COLUMNS = "<colgroup><col><col><col></colgroup>"


def waterfall(account: Explanation, output: int) -> str:
    """Return the account of its first row: base, the largest effects, the rest, and their sum."""
    effects = account.top(len(account.names), output=output)[0]
    shown, rest = effects[:MOST_BARS], effects[MOST_BARS:]
    base, total = float(account.base[output]), float(account.logits[0, output])
    left = sum(effect.effect for effect in rest)
    ends = np.cumsum([base, *(effect.effect for effect in shown), left])
    low, high = min(ends.min(), total, 0.0), max(ends.max(), total, 0.0)
    scale = _Scale(low, high)
    start = "average of the training rows" if account.view == "centred" else "intercept"
    unit = account.unit if account.in_logits else "prediction"
    rows = [f"<tr class=end><th scope=row>{start}<td>{scale.dot(base)}<td class=number>{number(base)}"]
    for effect, end in zip(shown, ends[1:], strict=False):
        rows.append(_bar(effect, scale, float(end)))
    if rest:
        rows.append(
            f"<tr><th scope=row>{len(rest):,} smaller effects<td>{scale.bar(total - left, total)}"
            f"<td class=number>{number(left)}"
        )
    rows.append(
        f"<tr class=end><th scope=row>{html.escape(unit)}<td>{scale.dot(total)}<td class=number>{number(total)}"
    )
    return (
        f"<table class=waterfall>{_COLUMNS}<thead class=away><tr><th scope=col>effect<th scope=col>from, to"
        f"<th scope=col>{html.escape(unit)}</thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _bar(effect: Effect, scale: "_Scale", end: float) -> str:
    spread = "" if effect.spread is None else f" <small>± {2 * effect.spread:.2g}</small>"
    parts = " × ".join(
        f"<span class=name>{html.escape(name)}</span> <span class=value>{html.escape(value)}</span>"
        for name, value in zip(effect.fields, effect.values, strict=True)
    )
    return (
        f"<tr><th scope=row>{parts}<td>{scale.bar(end - effect.effect, end)}"
        f"<td class=number>{number(effect.effect)}{spread}"
    )


class _Scale:
    """Places of logits in a drawing."""

    def __init__(self, low: float, high: float) -> None:
        pad = 0.03 * (high - low) or 1.0
        self._low, self._size = low - pad, high - low + 2 * pad

    def _x(self, value: float) -> float:
        return float(_WIDTH * (value - self._low) / self._size)

    def bar(self, start: float, end: float) -> str:
        """Return a bar from one logit to another."""
        left, right = sorted((self._x(start), self._x(end)))
        colour = "f-orange" if end >= start else "f-blue"
        return self._drawn(f"<rect class={colour} x={left:.1f} y=3 width={max(right - left, 2):.1f} height=14 />")

    def dot(self, value: float) -> str:
        """Return a mark at a logit."""
        return self._drawn(f"<rect class=f-ink x={self._x(value) - 3:.1f} y=1 width=6 height=18 />")

    def _drawn(self, shape: str) -> str:
        zero = self._x(0.0)
        return (
            f'<svg class=bar viewBox="0 0 {_WIDTH} 20" preserveAspectRatio=none aria-hidden=true>'
            f"<line class=rule x1={zero:.1f} x2={zero:.1f} y1=0 y2=20 />{shape}</svg>"
        )


def importance(overview: GlobalExplanation | None, columns: Sequence[str]) -> str:
    """Return the most important fields and pairs of the model; a field's name leads to its control."""
    if overview is None:
        return "<p class=note>This model holds no averages over its training rows.</p>"
    effects = overview.importance()[:MOST_BARS]
    largest = max((effect.importance for effect in effects), default=0.0) or 1.0
    rows = []
    for effect in effects:
        names = " × ".join(html.escape(name) for name in effect.fields)
        if len(effect.fields) == 1 and effect.fields[0] in columns:
            names = f'<a href="#c{columns.index(effect.fields[0])}">{names}</a>'
        rows.append(
            f'<tr><th scope=row>{names}<td><svg class=bar viewBox="0 0 {_WIDTH} 20" preserveAspectRatio=none '
            f"aria-hidden=true><rect class=f-green y=3 width={_WIDTH * effect.importance / largest:.1f} height=14 />"
            f"</svg><td class=number>{100 * effect.share:.1f} %"
        )
    return f"<table class=waterfall>{_COLUMNS}<tbody>{''.join(rows)}</tbody></table>"
