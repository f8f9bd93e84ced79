"""What the tests of distributed training run in the workers: it takes note of each row, and may kill the machine."""

import json
import os
import signal
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attfm.data.dataset import Examples
from attfm.train.exchange import Share
from attfm.train.observer import Observer
from attfm.train.trainer import Trainer

ROW = 0  # the field whose value is another in each row


def _raylet() -> int:
    """Return the process of Ray that started this worker and stands for its machine; this one where there is none."""
    command = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().split(b"\0")[0]
    return os.getppid() if command.endswith(b"/raylet") else os.getpid()


@dataclass
class Ledger(Observer):
    """Writes down, before each step, the rows that this worker takes, and dies once where it is told to.

    Attributes
    ----------
    folder : pathlib.Path, of the files of all workers
    at : epoch and batch before which the last worker dies; None: it lives
    machine : whether its raylet dies too, as of a machine that is lost
    """

    folder: Path
    at: tuple[int, int] | None = None
    machine: bool = False

    def on_start(self, trainer: Trainer) -> None:
        exchange = trainer.exchange
        share = exchange.share

        def noted(examples: Examples) -> Share:
            own = share(examples)
            rows = own.examples.rows.field(ROW).ids[: own.rows].tolist()
            self._note({"place": trainer.place, "rank": exchange.rank, "rows": rows, "time": time.time()})
            if exchange.rank == exchange.workers - 1 and self.at == trainer.place and not self.killed.exists():
                self.killed.touch()
                if self.machine:
                    os.kill(_raylet(), signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
            return own

        exchange.share = noted  # type: ignore[method-assign]

    @property
    def killed(self) -> Path:
        """The file that says that a worker was killed."""
        return self.folder / "killed"

    def _note(self, line: dict[str, Any]) -> None:
        with (self.folder / f"{os.getpid()}.jsonl").open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def taken(self) -> dict[int, list[int]]:
        """Return the rows of each epoch, of all workers, without steps that were lost with a worker and done again."""
        last: dict[tuple[int, int, int], dict[str, Any]] = {}
        for line in self._lines():
            last[(*line["place"], line["rank"])] = line
        rows = defaultdict(list)
        for (epoch, _, _), line in sorted(last.items()):
            rows[epoch] += line["rows"]
        return dict(rows)

    def begun(self) -> list[tuple[int, int]]:
        """Return where each process of the first worker began, in order."""
        files = [[json.loads(text) for text in file.open()] for file in self.folder.glob("*.jsonl")]
        first = sorted((lines[0] for lines in files if lines[0]["rank"] == 0), key=lambda line: float(line["time"]))
        return [tuple(line["place"]) for line in first]

    def _lines(self) -> list[dict[str, Any]]:
        lines = [json.loads(text) for file in self.folder.glob("*.jsonl") for text in file.open()]
        return sorted(lines, key=lambda line: float(line["time"]))
