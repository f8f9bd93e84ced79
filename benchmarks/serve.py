"""The service under load by wrk on loopback: single rows of Adult a second, latency, and what three times as much does.

`make bench-serve` trains Adult where no run is given, and writes the figures into docs/serving.md. Two cores are shared
by the service and wrk. wrk asks again as soon as it is answered: with 16 connections the service is always busy, with
600 it is asked for far more than it can do, and must refuse the rest.
"""

import argparse
import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pages import circumstances, table, write_section

PAGE = Path(__file__).parents[1] / "docs/serving.md"
CONNECTIONS, OVERLOAD = 16, 600
# What must hold: rows a second, milliseconds, and the share of memory that a minute of overload may add.
LEAST_RATE, MOST_P99, MOST_GROWTH = 2_000, 20.0, 0.05


@dataclass(frozen=True)
class Load:
    """What wrk says: connections, answers a second, milliseconds at the median and the 99th percentile, refusals."""

    connections: int
    seconds: float
    answers: int
    p50: float
    p99: float
    refused: int

    @property
    def rate(self) -> float:
        """Predictions a second, refusals not counted."""
        return (self.answers - self.refused) / self.seconds

    @property
    def asked(self) -> float:
        """Requests a second, refusals counted."""
        return self.answers / self.seconds


def bodies(rows: int = 200) -> list[str]:
    """Return bodies of requests, each with a row of the bundled table."""
    from attfm import load_dataset

    table = load_dataset("adult-test").drop_columns(["income"])
    return [json.dumps({"row": row}) for row in table.slice(0, rows).to_pylist()]


def write_script(path: Path, texts: list[str]) -> None:
    """Write what wrk sends: the bodies in turn."""
    quoted = ",\n".join(f"[==[{text}]==]" for text in texts)
    path.write_text(
        f"local bodies = {{{quoted}}}\nlocal made, n = {{}}, 0\n"
        'local headers = {["Content-Type"] = "application/json"}\n'
        "function init(args)\n"
        '  for i, body in ipairs(bodies) do made[i] = wrk.format("POST", "/predict", headers, body) end\nend\n'
        "function request() n = n % #made + 1; return made[n] end\n"
    )


def ask(url: str, script: Path, *, connections: int, seconds: int) -> Load:
    """Have wrk ask for some seconds."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    percentile = {share: _milliseconds(value) for share, value in re.findall(r"(\d+)%\s+([\d.]+\w+)", text)}
    answers, took = re.search(r"(\d+) requests in ([\d.]+\w)", text).groups()  # type: ignore[union-attr]
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return Load(
        connections,
        _milliseconds(took) / 1e3,
        int(answers),
        percentile["50"],
        percentile["99"],
        int(refused[1]) if refused else 0,
    )


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(\w+)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}[unit]


def megabytes(pid: int) -> float:
    """Return the memory that a process holds now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


@contextlib.contextmanager
def service(run: str, log: Path) -> Iterator[tuple[str, int]]:
    """Give the address and the process of a service."""
    command = [sys.executable, "-m", "attfm", "serve", run, "--port", "0", "--json"]
    with (
        log.open("w") as stream,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stream, text=True) as process,
    ):
        try:
            lines = ""
            for line in process.stdout or ():
                lines += line
                if line.startswith("}"):
                    break
            yield json.loads(lines)["url"], process.pid
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    """Measure, print, and write into the documentation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", help="run folder of Adult (default: one is trained)")
    parser.add_argument("--seconds", type=int, default=10, help="of the load that is to be met")
    parser.add_argument("--overload", type=int, default=60, help="seconds of the load that is too much; 0: none")
    parser.add_argument("--docs", action="store_true", help="write the figures into docs/serving.md")
    asked = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("no wrk: install it (Debian: apt install wrk), then run this again")
    with tempfile.TemporaryDirectory() as folder:
        run, script = asked.run, Path(folder, "rows.lua")
        if run is None:
            run = str(Path(folder, "adult"))
            subprocess.run([sys.executable, "-m", "attfm", "train", "adult", "--out", run, "--quiet"], check=True)
        write_script(script, bodies())
        with service(run, Path(folder, "log")) as (url, pid):
            ask(url, script, connections=CONNECTIONS, seconds=1)
            usual = ask(url, script, connections=CONNECTIONS, seconds=asked.seconds)
            print(usual)
            lines = [_line("usual", usual, "")]
            holds = usual.rate >= LEAST_RATE and usual.p99 < MOST_P99 and not usual.refused
            if asked.overload:
                too_much, memory = overload(url, pid, script, asked.overload)
                start, end = memory[min(2, len(memory) - 1)], max(memory[-3:])
                print(too_much, [round(size) for size in memory])
                lines.append(_line("three times as much and more", too_much, f"{start:.0f} to {end:.0f} MB"))
                with_room = ask(url, script, connections=CONNECTIONS, seconds=1)
                holds &= too_much.refused > 0 and too_much.asked > 2 * LEAST_RATE and with_room.refused == 0
                holds &= end < (1 + MOST_GROWTH) * start
            head = ["load", "connections", "asked /s", "predicted /s", "refused", "p50 ms", "p99 ms", "memory"]
            took = f"{asked.seconds} and {asked.overload} seconds, service and wrk on two cores"
            text = f"{table(head, lines)}\n\n`make bench-serve`; {took}. {circumstances(1)}"
            print(text)
            if asked.docs:
                write_section("load", text, PAGE)
            print("holds" if holds else "DOES NOT HOLD")
            raise SystemExit(0 if holds else 1)


def overload(url: str, pid: int, script: Path, seconds: int) -> tuple[Load, list[float]]:
    """Ask for too much, and return what came of it and the memory of the service every second or more."""
    memory, over = list[float](), threading.Event()

    def watch() -> None:
        while not over.wait(max(seconds / 20, 0.5)):
            memory.append(megabytes(pid))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        load = ask(url, script, connections=OVERLOAD, seconds=seconds)
    finally:
        time.sleep(0.1)
        over.set()
        watching.join()
    return load, memory


def _line(name: str, load: Load, memory: str) -> list[str]:
    return [
        name, str(load.connections), f"{load.asked:,.0f}", f"{load.rate:,.0f}",
        f"{100 * load.refused / max(load.answers, 1):.0f} %", f"{load.p50:.1f}", f"{load.p99:.1f}", memory,
    ]  # fmt: skip


if __name__ == "__main__":
    main()
