"""`attfm explain`: accounts of rows, of the whole model, and whether they can be trusted."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.commands.console import Output, duration
from attfm.commands.tables import Reading, check_columns
from attfm.data.sources.source import Source, TableWriter
from attfm.errors import ConfigError
from attfm.explain.explainer import Explainer, explain_global
from attfm.explain.explanation import Effect, Explanation, View
from attfm.explain.faithfulness import Refits, check
from attfm.explain.global_explanation import GlobalExplanation, Importance
from attfm.explain.stability import Stability
from attfm.model.bundle import Model, probabilities

DEFAULT_ROWS = 3
_BAR = 12  # cells of a bar
_MOST_NAMED = 5  # pairs listed in a sentence


def explain(
    run: str,
    data: str | None,
    *,
    rows: int | None,
    row: Sequence[int],
    top: int,
    raw: bool,
    to: str | None,
    overall: bool,
    checked: bool,
    seeds: int,
    train_table: str | None,
    reading: Reading,
    output: Output,
    started: float,
) -> None:
    """Explain rows of a table, or the model as a whole; see `attfm.cli.explain` for the options."""
    model = Model.load(run)
    whole = overall or checked
    if data is None and not (overall and not checked and to is None and rows is None and not row):
        raise ConfigError("Which rows are to be explained? Give a table after the run; only --global can do without.")
    if (seeds and not checked) or (train_table is not None and not seeds):
        raise ConfigError("--seeds belongs to --check, and --train-table to --seeds: add it, or leave the other out.")
    if whole and (row or rows is not None):
        raise ConfigError("--rows and --row choose rows to print, which --global and --check don't: leave them out.")
    if raw and whole:
        raise ConfigError(f"{'--global shows' if overall else '--check measures'} centred effects: leave --raw out.")
    view: View = "raw" if raw else "centred"
    explainer = Explainer(model, view=view) if not checked or model.background else Explainer(model, view="raw")
    source = None if data is None else reading.open(data)
    if source is not None:
        check_columns(source, [field.name for field in model.schema.inputs], why="of the training table")
    result: dict[str, Any] = {"run": run, "data": data, "task": model.task}
    if overall:
        result["global"] = _overall(
            explain_global(model, source), "training rows" if source is None else f"rows of {source.name}", top, output
        )
    if checked and data is not None and source is not None:
        refits = None
        if seeds:
            from attfm.commands.refits import refits_of_run  # training takes long to load

            refits = refits_of_run(model, train_table or data, reading, seeds=seeds, output=output)
        result["check"] = _check(model, source, refits, output)
    if to is not None and source is not None:
        result["output"] = _write(explainer, source, to, output, started)
    if source is not None and not whole and (to is None or rows is not None or row):
        explanation = _chosen(explainer, source, rows, row, output)
        _print_rows(model, explanation, top, output)
        result |= explanation.to_dict(top=top)
    result["seconds"] = round(time.perf_counter() - started, 3)
    output.result_json(result)


def _chosen(explainer: Explainer, source: Source, rows: int | None, row: Sequence[int], output: Output) -> Explanation:
    """Return the explanation of the rows asked for: those of --row, else the first of the table."""
    if row:
        first = list(range(rows)) if rows is not None else []
        return explainer.of_rows(source, list(dict.fromkeys([*first, *row])))
    count = DEFAULT_ROWS if rows is None else rows
    if source.num_rows is not None and source.num_rows < count:
        output.say(f"{source.name} has {source.num_rows:,} rows, all of which are shown")
        count = source.num_rows
    return explainer.of_rows(source, range(count))


def _print_rows(model: Model, explanation: Explanation, top: int, output: Output) -> None:
    what = "the mean of the training rows" if explanation.view == "centred" else "the intercept"
    logits = explanation.logits
    for place in range(len(explanation)):
        numbers = [int(logits[place].argmax())] if len(explanation.outputs) > 1 else [0]
        for number in numbers:
            account = explanation[place].top(top, output=number)[0]
            effects = np.concatenate([explanation.main[place, :, number], explanation.pair[place, :, number]])
            rest = float(effects.sum() - sum(effect.effect for effect in account))
            output.result_lines(
                "",
                f"row {explanation.rows[place]:,}: {_prediction(model, logits[place], number, explanation)}",
                f"  {explanation.base[number]:+.4g} {what}, {effects.sum():+.4g} effects of this row",
                "",
            )
            others = len(effects) - len(account)
            lines = _effect_rows(account)
            if others:
                lines.append([f"{others:,} others", "", f"{rest:+.4f}", ""])
            output.result_table(("effect", "value", explanation.unit, ""), lines, right=(2,))
    if explanation.view == "centred":
        _say_mean_only(explanation.pair_names, explanation.conditional, output)


def _say_mean_only(pairs: Sequence[str], conditional: NDArray[np.bool_], output: Output) -> None:
    """Name the pairs out of which only the mean was moved, where there are any."""
    left = [name for name, moved in zip(pairs, conditional, strict=True) if not moved]
    if left:
        listed = ", ".join(left[:_MOST_NAMED]) + (", ..." if len(left) > _MOST_NAMED else "")
        output.say()
        output.say(f"{len(left):,} of {len(pairs):,} pairs are centred by their overall mean only: {listed}")


def _prediction(model: Model, logits: Any, number: int, explanation: Explanation) -> str:
    if model.task == "regression":
        return f"{model.target.name} = {logits[0]:.6g}"
    shares = probabilities(logits[None])[0]
    classes = [str(name) for name in model.target.classes or ()]
    if model.task == "binary":
        decided = int(shares[1] > model.config.train.threshold)
        return f"{classes[decided]}, probability of {classes[1]} {shares[1]:.4f}, logit {logits[0]:+.4f}"
    return f"{classes[number]}, probability {shares[number]:.4f}, logit of {classes[number]} {logits[number]:+.4f}"


def _effect_rows(effects: Sequence[Effect]) -> list[list[str]]:
    largest = max((abs(effect.effect) for effect in effects), default=0.0)
    return [[one.name, one.value, f"{one.effect:+.4f}", bar(one.effect, largest)] for one in effects]


def bar(effect: float, largest: float) -> str:
    """Return a signed bar: negative effects go left of the middle line, positive ones right of it."""
    cells = 0 if largest == 0 else round(_BAR * abs(effect) / largest)
    left, right = ("█" * cells, "") if effect < 0 else ("", "█" * cells)
    return f"{left:>{_BAR}}│{right}"


def _overall(overview: GlobalExplanation, rows: str, top: int, output: Output) -> dict[str, Any]:
    unit = "logits" if overview.unit == "logit" else f"the unit of {overview.unit}"
    output.result_lines("", f"mean |effect| over {overview.rows:,} {rows}, in {unit}", "")
    stability = overview.stability()
    for title, found in (("field", overview.field_importance()), ("pair", overview.pair_importance())):
        if found:
            header, lines = _importance_rows(title, found[:top])
            output.result_table(header, lines, right=range(1, len(header) - 1))
            if len(found) > top:
                output.result_lines(f"({len(found) - top:,} more: --top)")
            output.result_lines("")
    if stability is not None:
        output.result_lines(_stability(stability, f"{stability.refits} refits on bootstrap samples agree"))
    _say_mean_only(overview.pair_names, overview.conditional, output)
    return overview.to_dict()


def _importance_rows(title: str, found: Sequence[Importance]) -> tuple[list[str], list[list[str]]]:
    largest = found[0].importance
    with_spread = any(one.spread is not None for one in found)
    with_attention = any(one.attention is not None for one in found)
    header = [title, "mean |effect|", *(["± refits"] if with_spread else []), "share"]
    header += [*(["attention"] if with_attention else []), ""]
    rows = []
    for one in found:
        cells = [one.name, f"{one.importance:.4f}"]
        cells += ["-" if one.spread is None else f"{one.spread:.4f}"] if with_spread else []
        cells.append(f"{100 * one.share:.1f} %")
        cells += ["-" if one.attention is None else f"{one.attention:.4f}"] if with_attention else []
        rows.append([*cells, "█" * (0 if largest == 0 else round(2 * _BAR * one.importance / largest))])
    return header, rows


def _check(model: Model, source: Source, refits: Refits | None, output: Output) -> dict[str, Any]:
    found = check(model, source, refits=refits)
    lines = [
        "",
        f"measured on {found.rows:,} rows of {source.name}",
        f"base + effects = logit: off by at most {found.sum_error:.1e} of the effects' size",
        f"cutting the 1, 3, 10 largest effects out of the model changes the logit by their sum: "
        f"off by at most {found.removal_error:.1e}",
    ]
    if found.deletion is None:
        lines.append("no background is stored: no deletion curve, no stability")
    else:
        curve = found.deletion
        places = [k for k in (1, 3, 10) if k < len(curve.removed)]
        moved = ", ".join(f"{k}: {curve.largest_first[k]:.3f} ({curve.random[k]:.3f})" for k in places)
        lines.append(f"mean change of the logit after removing k effects, largest first (random order): {moved}")
        lines.append(f"area under that curve: {curve.advantage:.2f} times that of random order")
    if found.stability is None:
        lines.append(
            "stability of importance over bootstrap samples is not known: train with --set n_bags=5 to have it measured"
        )
    else:
        lines.append(_stability(found.stability, f"{found.stability.refits} refits on bootstrap samples agree"))
    if found.seeds is None:
        lines.append("stability of importance over seeds is not known: ask for it by --seeds 5, which takes 5 fits")
    else:
        lines.append(_stability(found.seeds, f"the model and {found.seeds.refits} refits with other seeds agree"))
    output.result_lines(*lines)
    return {
        "rows": found.rows,
        "sum_error": found.sum_error,
        "removal_error": found.removal_error,
        "deletion": None if found.deletion is None else {
            "largest_first": found.deletion.largest_first.tolist(),
            "random": found.deletion.random.tolist(),
            "advantage": found.deletion.advantage,
        },
        "stability": None if found.stability is None else vars(found.stability),
        "seeds": None if found.seeds is None else vars(found.seeds),
    }  # fmt: skip


def _stability(stable: Stability, who: str) -> str:
    ranks = [
        f"{name} {rank:.2f}" for name, rank in (("fields", stable.fields), ("pairs", stable.pairs)) if rank is not None
    ]
    return (
        f"{who}: rank correlation of importance {', '.join(ranks) or '-'}; "
        f"{100 * stable.top:.0f} % of the {stable.largest} largest in common"
    )


def _write(explainer: Explainer, source: Source, to: str, output: Output, started: float) -> dict[str, Any]:
    rows, part = 0, None
    with TableWriter(to) as writer:
        for part in explainer.chunks(source):
            writer.write(part.to_arrow())
            rows += len(part)
    if part is not None and part.view == "centred":
        _say_mean_only(part.pair_names, part.conditional, output)
    output.result_lines(f"{rows:,} rows explained: {to}, {duration(time.perf_counter() - started)}")
    return {"file": to, "rows": rows}
