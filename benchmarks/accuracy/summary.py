"""The measured lines as Markdown: scores, verdicts and costs. `--summary` prints it, `--docs` puts it on the page."""

from collections.abc import Callable, Sequence

from benchmarks.accuracy.goals import LARGEST_AUC_LOSS, OURS, Check, duels, figures, presets
from benchmarks.accuracy.means import METRICS, Cell, Cells, better, cells_of, models_of, tables_of
from benchmarks.accuracy.models import MODELS
from benchmarks.accuracy.records import Record
from benchmarks.accuracy.tables import TABLES

NAMES = {"auc": "AUC", "log_loss": "log loss", "rmse": "RMSE"}


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def number(metric: str, value: float) -> str:
    """Return a score; an RMSE has its target's unit, so its size decides how many places say something."""
    places = 4 if metric != "rmse" or abs(value) < 1 else 2 if abs(value) < 100 else 1
    return f"{value:.{places}f}"


def scores_block(records: Sequence[Record]) -> str:
    """Return a table for each metric: a line for each model, a column for each table; the best is bold."""
    cells = cells_of(records)
    blocks = []
    for metric in METRICS:
        tables = tables_of(cells, metric)
        if not tables:
            continue
        best = {table: _best(cells, table, metric) for table in tables}

        def shown(table: str, model: str, metric: str = metric, best: dict[str, float] = best) -> str:
            cell = cells.get((table, model))
            if cell is None:
                return ""
            if not cell.runs:
                return cell.skipped
            text = number(metric, cell.test[metric])
            text = f"**{text}**" if cell.test[metric] == best[table] else text
            text += f" ± {number(metric, cell.spread[metric])}" if cell.runs > 1 else ""
            splits = TABLES[table].splits if table in TABLES else 1
            return text + (f" ({cell.runs} of {splits} splits)" if cell.runs < splits else "")

        blocks.append(f"{NAMES[metric]} on the test part:\n\n" + _by_model(cells, tables, NAMES[metric], shown))
    return "\n\n".join(blocks)


def costs_block(records: Sequence[Record]) -> str:
    """Return tables of fit seconds, peak memory and rows scored a second; ~ marks times beside other work."""
    cells = cells_of(records)
    tables = [table for metric in ("auc", "rmse") for table in tables_of(cells, metric)]

    def seconds(table: str, model: str) -> str:
        cell = cells.get((table, model), Cell())
        return f"{'' if cell.idle else '~'}{cell.seconds:.1f}" if cell.runs else cell.skipped

    def cpu_seconds(table: str, model: str) -> str:
        cell = cells.get((table, model), Cell())
        return "" if cell.cpu_seconds is None else f"{cell.cpu_seconds:.1f}"

    def megabytes(table: str, model: str) -> str:
        cell = cells.get((table, model), Cell())
        return f"{cell.megabytes:,.0f}" if cell.runs else ""

    def speed(table: str, model: str) -> str:
        cell = cells.get((table, model), Cell())
        return f"{'' if cell.idle else '~'}{cell.rows_per_second / 1000:,.1f}" if cell.runs else ""

    return "\n\n".join(
        f"{what}:\n\n" + _by_model(cells, tables, corner, shown)
        for what, corner, shown in (
            ("Seconds of a fit from a DataFrame (~: other processes ran beside it, so it says little)", "s", seconds),
            ("Processor seconds of a fit, all threads together", "s", cpu_seconds),
            ("Peak memory of the process that fits, in MB, the table and imports included", "MB", megabytes),
            ("Thousand rows scored a second, from a DataFrame", "1,000 rows/s", speed),
        )
    )


def verdict_block(records: Sequence[Record]) -> str:
    """Return attfm against the best peer, against what is to be reached, and against its own presets."""
    cells = cells_of(records)
    blocks = [_duels(cells, ours) for ours in OURS] + [_figures(cells, ours) for ours in OURS]
    blocks.append(_presets(presets(cells)))
    return "\n\n".join(block for block in blocks if block) or "attfm was not measured beside a peer yet."


def summary(records: Sequence[Record]) -> str:
    """Return all of it."""
    if not records:
        return "Nothing is measured yet."
    return "\n\n".join((scores_block(records), verdict_block(records), costs_block(records)))


def circumstances(records: Sequence[Record]) -> str:
    """Return one paragraph of machines, versions and commits."""
    done = [record for record in records if "skipped" not in record]
    machines = sorted({f"{r['machine']['processor']}, {r['machine']['cores']} cores" for r in done})
    versions = sorted({f"{name} {of}" for record in done for name, of in record["versions"].items()})
    threads = sorted({record["threads"] for record in done})
    commits = sorted(
        {record["commit"] for record in done if "attfm" in MODELS[record["model"].removesuffix("_refit")].packages}
    )
    text = f"{len(done)} runs, each in a process of its own, on {' and '.join(machines)}, "
    text += f"threads: {' or '.join(map(str, threads))}; {', '.join(versions)}"
    return text + (f"; attfm at {', '.join(commits)}." if commits else ".")


def _by_model(cells: Cells, tables: Sequence[str], corner: str, shown: Callable[[str, str], str]) -> str:
    rows = [[f"`{model}`", *(shown(table, model) for table in tables)] for model in models_of(cells)]
    return markdown([corner, *tables], [row for row in rows if any(row[1:])])


def _best(cells: Cells, table: str, metric: str) -> float:
    values = [cell.test[metric] for (name, _), cell in cells.items() if name == table and cell.runs]
    return max(values, key=lambda value: better(metric, value, 0.0))


def _duels(cells: Cells, ours: str) -> str:
    held = duels(cells, ours)
    if not held:
        return ""
    rows = [
        [duel.table, NAMES[duel.metric], number(duel.metric, duel.our_value), f"`{duel.peer}`",
         number(duel.metric, duel.peer_value), _signed(duel.metric, duel.margin), "won" if duel.margin >= 0 else "lost"]
        for duel in held
    ]  # fmt: skip
    won = sum(duel.margin >= 0 for duel in held)
    two_thirds = -(-2 * len(held) // 3)
    text = f"`{ours}` is at or above the best peer on {won} of {len(held)} tables (two thirds are {two_thirds})"
    by_auc = [duel for duel in held if duel.metric == "auc"]
    if by_auc:
        worst = min(by_auc, key=lambda duel: duel.margin)
        text += f"; its least good AUC beside the best peer is {worst.margin:+.4f}, on {worst.table} "
        text += f"(not below −{LARGEST_AUC_LOSS:g} is to be held)"
    head = ["table", "by", f"`{ours}`", "best peer", "its score", "margin", "verdict"]
    return f"{text}.\n\n{markdown(head, rows)}"


def _figures(cells: Cells, ours: str) -> str:
    checks = figures(cells, ours)
    if all(check.measured is None for check in checks):
        return ""
    decided = [check for check in checks if check.held is not None]
    text = f"`{ours}` reaches {sum(bool(check.held) for check in decided)} of {len(decided)} of what was set for it"
    return f"{text}:\n\n{_checked(ours, checks)}"


def _presets(checks: Sequence[Check]) -> str:
    if not checks:
        return ""
    below = [check for check in checks if not check.held]
    text = (
        f"The defaults are at least as good as the smaller presets in {len(checks) - len(below)} of {len(checks)} cases"
    )
    if not below:
        return text + "."
    return f"{text}; not here:\n\n" + _checked("attfm", below)


def _checked(ours: str, checks: Sequence[Check]) -> str:
    return markdown(["table", "to reach", f"`{ours}`", "margin", "verdict"], [_row(check) for check in checks])


def _row(check: Check) -> list[str]:
    metric = "rmse" if check.measured is not None and check.measured > 1 else "auc"
    shown = "" if check.measured is None else number(metric, check.measured)
    margin = "" if check.margin is None else _signed(metric, check.margin)
    verdict = {None: "not measured", True: "reached", False: "not reached"}[check.held]
    return [check.table, check.what, shown, margin, verdict]


def _signed(metric: str, value: float) -> str:
    return f"{value:+.4f}" if metric != "rmse" or abs(value) < 0.1 else f"{value:+.2f}"
