"""The service under load on loopback: single rows of Adult a second, their latency, and what three times as many do.

`make bench-serve` trains Adult where no run is given, and writes the figures into docs/serving.md. The service and what
asks it share two cores. Three loads: wrk on 16 connections, which ask again as soon as they are answered, so that the
service is always busy; then by a timetable (open_loop.py) 2,000 requests a second, and three times what it can do, so
that it must refuse the rest. `--load` chooses one part, where the machine is quiet for a short time only.
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
from urllib.parse import urlsplit

from benchmarks.machine import Neighbours
from benchmarks.open_loop import Offered, offer
from benchmarks.pages import circumstances, table, write_section

PAGE = Path(__file__).parents[1] / "docs/serving.md"
CONNECTIONS, OVERLOAD_CONNECTIONS = 16, 600
# What must hold: rows a second, milliseconds, and the share of memory that a minute of too much may add. Too much is so
# many times what must hold, or what the service can do where that is more.
LEAST_RATE, MOST_P99, TIMES, MOST_GROWTH = 2_000, 20.0, 3, 0.05
HEAD = ["load", "connections", "asked /s", "predicted /s", "refused", "p50 ms", "p99 ms", "memory"]


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


def requests(url: str, texts: list[str]) -> list[bytes]:
    """Return whole requests of HTTP with these bodies."""
    head = f"POST /predict HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Type: application/json\r\n"
    return [f"{head}Content-Length: {len(text.encode())}\r\n\r\n{text}".encode() for text in texts]


def main() -> None:
    """Measure, print, and write into the documentation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", help="run folder of Adult (default: one is trained)")
    parser.add_argument("--load", choices=("usual", "overload", "both"), default="both")
    parser.add_argument("--seconds", type=int, default=10, help="of each load that is to be met")
    parser.add_argument("--overload", type=int, default=60, help="seconds of the load that is too much")
    parser.add_argument("--asked", type=int, help="a second, in that load (default: three times what it can do now)")
    parser.add_argument("--docs", action="store_true", help="write the figures into docs/serving.md")
    asked = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("no wrk: install it (Debian: apt install wrk), then run this again")
    holds = True
    with tempfile.TemporaryDirectory() as folder:
        run = asked.run
        if run is None:
            run = str(Path(folder, "adult"))
            subprocess.run([sys.executable, "-m", "attfm", "train", "adult", "--out", run, "--quiet"], check=True)
        for name, seconds, measure in (
            ("usual", asked.seconds, measure_usual),
            ("overload", asked.overload, measure_overload),
        ):
            if asked.load not in (name, "both"):
                continue
            neighbours = Neighbours()
            with service(run, Path(folder, "log")) as (url, pid):
                lines, does_hold = measure(url, pid, Path(folder), seconds, asked.asked)
            holds &= does_hold
            took = f"{seconds} seconds{' each' if name == 'usual' else ''}, service and what asks it on two cores"
            share = neighbours.share()
            beside = "" if share is None else f" Other processes used {100 * share:.0f} % of them."
            text = f"{table(HEAD, lines)}\n\n`make bench-serve`; {took}.{beside} {circumstances(1)}"
            print(text)
            print(f"{name}: {'holds' if does_hold else 'DOES NOT HOLD'}")
            if asked.docs:
                write_section({"usual": "load", "overload": "overload"}[name], text, PAGE)
    raise SystemExit(0 if holds else 1)


def measure_usual(url: str, pid: int, folder: Path, seconds: int, _: int | None) -> tuple[list[list[str]], bool]:
    """Return the lines of the loads that must be met, and whether they were."""
    script, texts = folder / "rows.lua", bodies()
    write_script(script, texts)
    ask(url, script, connections=CONNECTIONS, seconds=1)
    busy = ask(url, script, connections=CONNECTIONS, seconds=seconds)
    timed = offer(url, requests(url, texts), rate=LEAST_RATE, seconds=seconds, connections=CONNECTIONS)
    print(busy, timed, sep="\n")
    holds = busy.rate >= LEAST_RATE and busy.p99 < MOST_P99 and not busy.refused
    holds &= timed.answers[200] == LEAST_RATE * seconds and timed.p99 < MOST_P99
    return [_line_of_wrk("as fast as it answers", busy), _line(f"{LEAST_RATE:,} a second", timed, "")], holds


def measure_overload(
    url: str, pid: int, folder: Path, seconds: int, wanted: int | None
) -> tuple[list[list[str]], bool]:
    """Return the line of the load that is too much, and whether the service shed it and was none the worse."""
    script, texts = folder / "rows.lua", bodies()
    write_script(script, texts)
    ask(url, script, connections=CONNECTIONS, seconds=1)
    can_do = ask(url, script, connections=CONNECTIONS, seconds=3).rate
    asked, rate = requests(url, texts), wanted or round(TIMES * max(LEAST_RATE, can_do), -2)
    print(f"answers {can_do:,.0f} a second; asked for {rate:,.0f}")
    # First so much that every connection has had all that it may hold, then the minute over which nothing may be added.
    overload(url, pid, asked, rate, max(seconds // 6, 1))
    load, memory = overload(url, pid, asked, rate, seconds)
    start, end = memory[0], max(memory[-3:])
    after = offer(url, asked, rate=LEAST_RATE // 4, seconds=1, connections=CONNECTIONS)
    print(load, after, [round(size) for size in memory], sep="\n")
    holds = load.asked > 0.95 * rate and not load.others and load.answers[503] > 0 and load.answers[200] > 0
    holds &= after.answers[200] == after.sent and end < (1 + MOST_GROWTH) * start
    return [_line(f"{rate:,.0f} a second", load, f"{start:.0f} to {end:.0f} MB")], holds


def overload(url: str, pid: int, asked: list[bytes], rate: float, seconds: int) -> tuple[Offered, list[float]]:
    """Ask for too much, and return what came of it and the memory of the service every second or more."""
    memory, over = list[float](), threading.Event()

    def watch() -> None:
        while not over.wait(max(seconds / 20, 0.5)):
            memory.append(megabytes(pid))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        load = offer(url, asked, rate=rate, seconds=seconds, connections=OVERLOAD_CONNECTIONS, patience=60)
    finally:
        time.sleep(0.1)
        over.set()
        watching.join()
    return load, memory


def _line_of_wrk(name: str, load: Load) -> list[str]:
    return [
        name, str(load.connections), f"{load.asked:,.0f}", f"{load.rate:,.0f}",
        f"{100 * load.refused / max(load.answers, 1):.0f} %", f"{load.p50:.1f}", f"{load.p99:.1f}", "",
    ]  # fmt: skip


def _line(name: str, load: Offered, memory: str) -> list[str]:
    refused = load.answers[503] / max(load.sent, 1)
    return [
        name, str(load.connections), f"{load.asked:,.0f}", f"{load.predicted:,.0f}", f"{100 * refused:.0f} %",
        f"{load.p50:.1f}", f"{load.p99:.1f}", memory,
    ]  # fmt: skip


if __name__ == "__main__":
    main()
