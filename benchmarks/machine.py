"""What a benchmark ran on, without importing torch: processor, commit, memory, and what else the machine was doing."""

import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str:
    """Return the short name of the commit, with + where src or benchmarks differ from it; "?" without git."""
    try:
        name = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", "src", "native", "benchmarks/*.py", "benchmarks/*/*.py")
    except (OSError, subprocess.CalledProcessError):
        return "?"
    return name + ("+" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def peak_megabytes() -> float:
    """Return the most memory that this process has held.

    Linux hands a child its parent's peak as ru_maxrss when it is started, so /proc is asked first.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1024**2 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


class Neighbours:
    """How much of the machine's processors other processes use from now on."""

    def __init__(self) -> None:
        self.started, self.own, self.busy = time.perf_counter(), _own_seconds(), _busy_seconds()

    def share(self) -> float | None:
        """Return their share since the start, 0 to 1; None where the system does not tell."""
        busy = _busy_seconds()
        if busy is None or self.busy is None:
            return None
        others = busy - self.busy - (_own_seconds() - self.own)
        whole = (time.perf_counter() - self.started) * (os.cpu_count() or 1)
        return min(max(others / whole, 0.0), 1.0)


def _own_seconds() -> float:
    return sum(os.times()[:4])


def _busy_seconds() -> float | None:
    try:
        ticks = [int(cell) for cell in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    idle, waiting = ticks[3], ticks[4]
    return float(sum(ticks) - idle - waiting) / os.sysconf("SC_CLK_TCK")
