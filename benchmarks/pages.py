"""Put measured tables into the documentation: what a benchmark prints between its two markers of a page."""

import os
import platform
import subprocess
from pathlib import Path

import torch

from attfm.ops import native_info
from benchmarks.machine import processor

PAGE = Path(__file__).parents[1] / "docs/performance.md"


def circumstances(threads: int, clock: str = "wall") -> str:
    """Return one sentence of machine, threads, versions and commit."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return (
        f"{processor()}, {os.cpu_count()} cores, {native_info()['isa']}, {threads} threads, {clock} time, "
        f"torch {torch.__version__}, Python {platform.python_version()}, commit {commit}, "
        f"load when it ended {os.getloadavg()[0]:.1f}."
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def write_section(name: str, text: str, page: Path = PAGE) -> None:
    """Replace what stands between `<!-- NAME: ... -->` and `<!-- end of NAME -->` of the page."""
    whole = page.read_text(encoding="utf-8")
    head, start, rest = whole.partition(f"<!-- {name}:")
    marker, _, rest = rest.partition("-->\n")
    _, end, tail = rest.partition(f"<!-- end of {name} -->")
    if not start or not end:
        raise SystemExit(f"{page.name} has no section '{name}'.")
    page.write_text(f"{head}{start}{marker}-->\n\n{text}\n\n{end}{tail}", encoding="utf-8")
