"""How often a command that refuses a small table ends with exit code 2, as it should, and not by a signal.

    python -m benchmarks.refusals --runs 100 --tables ragged,labels

Threads of pyarrow that still held Python's objects aborted the process when it ended; each run is a process of its own.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROWS = "".join(f"{i},{i % 7},{'uv'[i % 2]}\n" for i in range(100))
REFUSED = {
    "ragged": "a,b,y\n1,2,u\n3\n",
    "quote": 'a,b,y\n1,"2,u\n3,4,v\n',  # never closed
    "labels": "a,b,y\n1,2,p\n3,4,q\n",  # not those of the training
    "words": "a,b,y\n1,x,u\n3,y,v\n",  # where there were numbers
    "target": "a,b\n1,2\n3,4\n",  # lacks it
}


def attfm(*arguments: str) -> int:
    """Run the command in a process of its own, and return its exit code."""
    done = subprocess.run([sys.executable, "-m", "attfm", *arguments], capture_output=True, timeout=120, check=False)
    return done.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="of each table, as many at a time as there are cores")
    parser.add_argument("--tables", default=",".join(REFUSED), help=f"some of {', '.join(REFUSED)}")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table, run = Path(folder) / "table.csv", str(Path(folder) / "run")
        table.write_text("a,b,y\n" + ROWS)
        quick = ("--set", "epochs=1", "--no-report", "-q")
        assert attfm("train", str(table), "--target", "y", "--out", run, *quick) == 0
        for name in asked.tables.split(","):
            table.write_text(REFUSED[name])
            with ThreadPoolExecutor(os.cpu_count()) as cores:
                codes = Counter(cores.map(lambda _: attfm("evaluate", run, str(table)), range(asked.runs)))
            print(f"{name}: " + ", ".join(f"code {code} {count} times" for code, count in sorted(codes.items())))


if __name__ == "__main__":
    main()
