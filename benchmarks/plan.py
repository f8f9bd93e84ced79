"""Compare what `attfm train --dry-run` says with what a training of one epoch then takes.

    python -m benchmarks.plan --rows 200000,1000000 --docs

For each number of rows a table of made-up clicks (benchmarks.make_clicks) is planned and trained on, encoded into a
cache on disk and in memory. Each runs in a process of its own, so that its peak memory is its own. Ratios are estimate
over measured. Other programs on the machine change the times of both, and not at the same moments: the share of the
processors that others used is printed beside them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import Neighbours, peak_megabytes
from benchmarks.make_clicks import make
from benchmarks.pages import circumstances, table, write_section

PAGE = Path(__file__).parents[1] / "docs/scaling.md"
FIGURES = {"memory": "memory", "disk": "disk", "prepare": "seconds_to_prepare", "epoch": "seconds_an_epoch"}


def train_one_epoch(arguments: list[str], folder: Path) -> dict[str, float]:
    """Train in this process; return the figures that a plan estimates."""
    import pyarrow.dataset  # noqa: F401  # what imports take is not the table's

    from attfm.cli import main
    from attfm.commands import train  # noqa: F401
    from attfm.train.observer import FitProgress, Observer
    from attfm.train.trainer import Trainer

    measured: dict[str, float] = {}
    before = FitProgress.on_start

    def on_start(self: Observer, trainer: Trainer) -> None:
        measured.setdefault("prepare", time.perf_counter() - started)
        measured.setdefault("disk", bytes_below(folder))  # of the cache and of the statistics
        before(self, trainer)  # type: ignore[arg-type]

    FitProgress.on_start = on_start  # type: ignore[method-assign, assignment]
    started = time.perf_counter()
    if main(["train", *arguments, "--out", str(folder / "run"), "--quiet"]) != 0:
        raise SystemExit(1)
    measured["disk"] += bytes_below(folder / "run")
    history = (folder / "run" / "history.jsonl").read_text().splitlines()
    measured["epoch"] = json.loads(history[0])["seconds"]
    measured["memory"] = peak_megabytes() * 1024**2
    return measured


def bytes_below(folder: Path) -> float:
    return float(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))


def in_child(arguments: list[str]) -> dict[str, Any]:
    """Run Python and return the JSON object that it prints."""
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ}  # as the command attfm does
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return found


def compare(rows: int, folder: Path, *, in_memory: bool) -> dict[str, Any]:
    """Return estimated and measured figures of a table, which is made where it is not there."""
    clicks = folder / f"clicks-{rows}"
    if not clicks.exists():
        make(clicks, rows, quiet=True)
    options = [str(clicks), "--target", "click", "--no-report", "--checkpoint-minutes", "0",
               "--set", "epochs=1", "--in-memory" if in_memory else "--stream"]  # fmt: skip
    others = Neighbours()
    planned = in_child(["-m", "attfm", "train", *options, "--dry-run", "--json"])
    while_planned, others = others.share(), Neighbours()
    with tempfile.TemporaryDirectory(dir=folder) as out:
        measured = in_child(["-m", "benchmarks.plan", "--train", json.dumps(options), "--folder", out])
    return {
        "rows": rows, "in_memory": in_memory, "others": [while_planned, others.share()], "planned": planned,
        "measured": measured, "ratios": {name: planned[of] / measured[name] for name, of in FIGURES.items()},
    }  # fmt: skip


def figures_table(found: list[dict[str, Any]]) -> str:
    """Return estimates, measured figures and their ratios as a Markdown table."""
    units = {"memory": (1e6, "MB"), "disk": (1e6, "MB"), "prepare": (1, "s"), "epoch": (1, "s")}
    lines = []
    for one in found:
        cells = [f"{one['rows']:,}, {'in memory' if one['in_memory'] else 'streamed'}"]
        for name, (unit, called) in units.items():
            planned, measured = one["planned"][FIGURES[name]] / unit, one["measured"][name] / unit
            cells.append(f"{planned:,.0f} / {measured:,.0f} {called} = {one['ratios'][name]:.2f}")
        shares = ["?" if share is None else f"{100 * share:.0f} %" for share in one["others"]]
        lines.append([*cells, ", ".join(shares)])
    header = ["rows", "memory", "disk", "to prepare", "an epoch", "processors used by others: plan, training"]
    return table(header, lines)


def main() -> None:
    """Plan, train and compare."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default="200000,1000000", help="comma-separated sizes of the tables")
    parser.add_argument("--ways", default="streamed,memory", help="how rows are kept: streamed, memory")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/scaling.md")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="where the tables are made and kept (default: they are removed)")
    options = parser.parse_args()
    if options.train:
        print(json.dumps(train_one_epoch(json.loads(options.train), options.folder)))
        return
    with tempfile.TemporaryDirectory() as removed:
        folder = options.folder or Path(removed)
        found = []
        for rows in map(int, options.rows.split(",")):
            for way in options.ways.split(","):
                found.append(compare(rows, folder, in_memory=way == "memory"))
                print(json.dumps({name: found[-1][name] for name in ("rows", "in_memory", "others", "ratios")}),
                      flush=True)  # fmt: skip
    print(figures_table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    if options.docs:
        write_section("plan", f"{circumstances(os.cpu_count() or 1)}\n\n{figures_table(found)}", PAGE)


if __name__ == "__main__":
    main()
