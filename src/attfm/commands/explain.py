"""`attfm explain`: accounts of rows, of the whole model, and whether they can be trusted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.commands.console import Output, duration
from attfm.commands.tables import open_inputs
from attfm.config import Reading
from attfm.data.sources.source import Source, TableWriter
from attfm.errors import ConfigError
from attfm.explain.explainer import Explainer, explain_global
from attfm.explain.explanation import Explanation
from attfm.explain.faithfulness import check
from attfm.explain.global_explanation import Importance
from attfm.explain.stability import Stability
from attfm.model.bundle import Model
from attfm.model.run_folder import load_model
from attfm.model.task import LOGIT

DEFAULT_ROWS = 3
_BAR = 12  # cells of a bar
_MOST_NAMED = 5  # pairs listed in a sentence


@dataclass(frozen=True)
class Asked:
    """The options of `attfm.cli.explain`."""

    data: str | None
    reading: Reading
    rows: int | None
    row: Sequence[int]
    top: int
    raw: bool
    to: str | None
    overall: bool
    check: bool
    seeds: int
    train_table: str | None
    query: str | None

    def modes(self) -> "list[Mode]":
        """Return what is to be done, in order: --global, --check, a file of all rows, rows printed.

        Options that don't go together, and no table where one is needed, raise ConfigError.
        """
        some_rows, whole = self.rows is not None or bool(self.row), self.overall or self.check
        wanted: list[tuple[bool, Mode]] = [
            (self.overall, explain_whole),
            (self.check, check_trust),
            (self.to is not None, write_all),
            (some_rows or (not whole and self.to is None), print_rows),
        ]
        modes = [mode for chosen, mode in wanted if chosen]
        if self.data is None and modes != [explain_whole]:
            raise ConfigError(
                "Which rows are to be explained? Give a table after the run; only --global can do without."
            )
        if self.data is None and self.query is not None:
            raise ConfigError("--query chooses rows of a database: give its URI after the run, or leave --query out.")
        if (self.seeds and not self.check) or (self.train_table is not None and not self.seeds):
            raise ConfigError(
                "--seeds belongs to --check, and --train-table to --seeds: add it, or leave the other out."
            )
        if whole and some_rows:
            raise ConfigError(
                "--rows and --row choose rows to print, which --global and --check don't: leave them out."
            )
        if whole and self.raw:
            shown = "--global shows" if self.overall else "--check measures"
            raise ConfigError(f"{shown} centred effects: leave --raw out.")
        return modes


@dataclass(frozen=True)
class Subject:
    """The model that is explained, and the rows: None, where --global is content with the training rows."""

    model: Model
    source: Source | None
    asked: Asked

    @property
    def table(self) -> Source:
        """The rows of the table, which all modes but --global have."""
        assert self.source is not None
        return self.source

    def explainer(self) -> Explainer:
        """Return what explains single rows; --check does with raw effects where no background is stored."""
        raw = self.asked.raw or (self.asked.check and not self.model.background)
        return Explainer(self.model, view="raw" if raw else "centred")


Mode = Callable[[Subject, Output], dict[str, Any]]


def explain(run: str, asked: Asked, output: Output) -> None:
    """Explain rows of a table, or the model as a whole; see `attfm.cli.explain` for the options."""
    model, modes = load_model(run), asked.modes()
    source = None if asked.data is None else open_inputs(model, asked.data, asked.reading, query=asked.query)
    result: dict[str, Any] = {"run": run, "data": asked.data, "task": model.task.name}
    for mode in modes:
        result |= mode(Subject(model, source, asked), output)
    output.result_json({**result, "seconds": output.seconds})


def print_rows(subject: Subject, output: Output) -> dict[str, Any]:
    """Print the accounts of some rows: those of --row, else the first of the table."""
    asked, source = subject.asked, subject.table
    numbers: Sequence[int]
    if asked.row:
        numbers = list(dict.fromkeys([*range(asked.rows or 0), *asked.row]))
    else:
        count = DEFAULT_ROWS if asked.rows is None else asked.rows
        if source.num_rows is not None and source.num_rows < count:
            output.say(f"{source.name} has {source.num_rows:,} rows, all of which are shown")
            count = source.num_rows
        numbers = range(count)
    explanation = subject.explainer().of_rows(source, numbers)
    _print_accounts(subject.model, explanation, asked.top, output)
    return explanation.to_dict(top=asked.top)


def _print_accounts(model: Model, explanation: Explanation, top: int, output: Output) -> None:
    what = "the mean of the training rows" if explanation.view == "centred" else "the intercept"
    logits = explanation.logits
    for place in range(len(explanation)):
        number = int(model.decide(logits[place : place + 1])[0]) if len(explanation.outputs) > 1 else 0
        account = explanation[place].top(top, output=number)[0]
        effects = np.concatenate([explanation.main[place, :, number], explanation.pair[place, :, number]])
        output.result_lines(
            "",
            f"row {explanation.rows[place]:,}: {model.task.sentence(logits[place], model.threshold, output=number)}",
            f"  {explanation.base[number]:+.4g} {what}, {effects.sum():+.4g} effects of this row",
            "",
        )
        largest = max((abs(effect.effect) for effect in account), default=0.0)
        remembered, plus_minus = [one.remembered for one in account], explanation.spread is not None
        lines = [
            [one.name, one.value, f"{one.effect:+.4f}", *_plus_minus(one.spread), bar(one.effect, largest), of_it]
            for one, of_it in zip(account, remembered, strict=True)
        ]
        head = ["effect", "value", explanation.unit, *(["±"] if plus_minus else []), "", "of it remembered"]
        others = len(effects) - len(account)
        if others:
            rest = float(effects.sum() - sum(effect.effect for effect in account))
            lines.append([f"{others:,} others", "", f"{rest:+.4f}", *("" for _ in head[3:])])
        shown = len(head) if any(remembered) else len(head) - 1
        right = (2, 3) if plus_minus else (2,)
        output.result_table(head[:shown], [line[:shown] for line in lines], right=right)
    if explanation.view == "centred":
        _say_mean_only(explanation.pair_names, explanation.conditional, output)


def _plus_minus(spread: float | None) -> list[str]:
    return [] if spread is None else [f"{spread:.4f}"]


def _say_mean_only(pairs: Sequence[str], conditional: NDArray[np.bool_], output: Output) -> None:
    """Name the pairs out of which only the mean was moved, where there are any."""
    left = [name for name, moved in zip(pairs, conditional, strict=True) if not moved]
    if left:
        listed = ", ".join(left[:_MOST_NAMED]) + (", ..." if len(left) > _MOST_NAMED else "")
        output.say()
        output.say(f"{len(left):,} of {len(pairs):,} pairs are centred by their overall mean only: {listed}")


def bar(effect: float, largest: float) -> str:
    """Return a signed bar: negative effects go left of the middle line, positive ones right of it."""
    cells = 0 if largest == 0 else round(_BAR * abs(effect) / largest)
    left, right = ("█" * cells, "") if effect < 0 else ("", "█" * cells)
    return f"{left:>{_BAR}}│{right}"


def explain_whole(subject: Subject, output: Output) -> dict[str, Any]:
    """Print how much each field and pair matters, over the rows of the table or those of the training."""
    source, top = subject.source, subject.asked.top
    overview = explain_global(subject.model, source)
    rows = "training rows" if source is None else f"rows of {source.name}"
    unit = f"{overview.unit}s" if overview.in_logits else f"the unit of {overview.unit}"
    output.result_lines("", f"mean |effect| over {overview.rows:,} {rows}, in {unit}", "")
    stability = overview.stability()
    for title, found in (("field", overview.field_importance()), ("pair", overview.pair_importance())):
        if found:
            header, lines = _importance_rows(title, found[:top], spread_of=overview.spread_of)
            output.result_table(header, lines, right=range(1, len(header) - 1))
            if len(found) > top:
                output.result_lines(f"({len(found) - top:,} more: --top)")
            output.result_lines("")
    if overview.spread_of is not None:
        output.result_lines(f"±: {overview.spread_of}")
    if stability is not None:
        output.result_lines(_stability(stability, f"{stability.refits} refits on bootstrap samples agree"))
    _say_mean_only(overview.pair_names, overview.conditional, output)
    return {"global": overview.to_dict()}


def _importance_rows(
    title: str, found: Sequence[Importance], *, spread_of: str | None
) -> tuple[list[str], list[list[str]]]:
    largest = found[0].importance
    with_attention = any(one.attention is not None for one in found)
    header = [title, "mean |effect|", *(["±"] if spread_of else []), "share"]
    header += [*(["attention"] if with_attention else []), ""]
    rows = []
    for one in found:
        cells = [one.name, f"{one.importance:.4f}"]
        cells += ["-" if one.spread is None else f"{one.spread:.4f}"] if spread_of else []
        cells.append(f"{100 * one.share:.1f} %")
        cells += ["-" if one.attention is None else f"{one.attention:.4f}"] if with_attention else []
        rows.append([*cells, "█" * (0 if largest == 0 else round(2 * _BAR * one.importance / largest))])
    return header, rows


def check_trust(subject: Subject, output: Output) -> dict[str, Any]:
    """Print how far the explanations can be trusted, as measured on the rows of the table."""
    asked, source, refits = subject.asked, subject.table, None
    if asked.seeds:
        from attfm.commands.refits import refits_of_run  # training takes long to load

        table, query = (asked.train_table, None) if asked.train_table else (str(asked.data), asked.query)
        refits = refits_of_run(subject.model, table, asked.reading, query=query, seeds=asked.seeds, output=output)
    found = check(subject.model, source, refits=refits)
    logit = subject.model.task.unit if subject.model.task.is_classification else LOGIT
    lines = [
        "",
        f"measured on {found.rows:,} rows of {source.name}",
        f"base + effects = {logit}: off by at most {found.sum_error:.1e} of the effects' size",
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
    measured = {
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
    return {"check": measured}


def _stability(stable: Stability, who: str) -> str:
    ranks = [
        f"{name} {rank:.2f}" for name, rank in (("fields", stable.fields), ("pairs", stable.pairs)) if rank is not None
    ]
    return (
        f"{who}: rank correlation of importance {', '.join(ranks) or '-'}; "
        f"{100 * stable.top:.0f} % of the {stable.largest} largest in common"
    )


def write_all(subject: Subject, output: Output) -> dict[str, Any]:
    """Write the accounts of all rows to a file."""
    explainer, to = subject.explainer(), str(subject.asked.to)
    rows, part = 0, None
    with TableWriter(to) as writer:
        for part in explainer.chunks(subject.table):
            writer.write(part.to_arrow())
            rows += len(part)
    if part is not None and part.view == "centred":
        _say_mean_only(part.pair_names, part.conditional, output)
    output.result_lines(f"{rows:,} rows explained: {to}, {duration(output.seconds)}")
    return {"output": {"file": to, "rows": rows}}
