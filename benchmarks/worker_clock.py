"""What each worker of `benchmarks.distributed` notes: processor time of each phase of a step, bytes, and memory."""

import json
import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attfm.train import sparse_optimizer
from attfm.train.observer import Epoch, Observer
from attfm.train.trainer import Trainer
from benchmarks.machine import peak_megabytes

# The workers import this module first: tables of the size that is measured are moved by rows, as large ones are.
sparse_optimizer.BIG_TABLE = 1_000_000

PHASES = ("rows", "compute", "exchange", "apply")


def loopback_bytes() -> int:
    """Return the bytes that the loopback has sent; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/net/dev").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[9]) for line in lines if line.strip().startswith("lo:")), 0)


@dataclass
class Clock(Observer):
    """Takes the processor time, of all threads of the worker, between the parts of a step.

    rows : the batch is read, shuffled and gathered; compute : forward and backward on the worker's own part; exchange :
    gradients are packed, sent and summed; apply : penalties, optimiser and averages.
    """

    folder: Path

    def on_start(self, trainer: Trainer) -> None:
        """Put the clock into the trainer's step."""
        self.seconds: dict[str, float] = defaultdict(float)
        self.steps, self.before, self.lo = 0, loopback_bytes(), 0
        step, sums, last = trainer.step, trainer.exchange.sum_gradients, time.process_time()

        def lap(phase: str) -> None:
            nonlocal last
            now = time.process_time()
            self.seconds[phase] += now - last
            last = now

        def timed_sums(*arguments: Any) -> Any:
            lap("compute")
            summed = sums(*arguments)
            lap("exchange")
            return summed

        def timed_step(examples: Any) -> Any:
            lap("rows")
            loss = step(examples)
            lap("apply")
            self.steps += 1
            self.lo, self.sent = loopback_bytes() - self.before, trainer.exchange.bytes_sent
            return loss

        trainer.exchange.sum_gradients = timed_sums  # type: ignore[method-assign]
        trainer.step = timed_step  # type: ignore[method-assign]
        self.exchange = trainer.exchange

    def on_epoch(self, epoch: Epoch, module: Any) -> bool:
        """Write the figures of this worker."""
        figures = {
            "rank": self.exchange.rank, "seconds": {name: self.seconds[name] / self.steps for name in PHASES},
            "steps": self.steps, "sent": self.sent / self.steps, "loopback": self.lo / self.steps,
            "rows_per_second": epoch.rows_per_second, "memory": peak_megabytes() * 1024**2,
            "dense": sum(p.numel() for p in module.parameters()) - module.linear.weight.numel()
            - module.embedding.weight.numel(),
        }  # fmt: skip
        (self.folder / f"{os.getpid()}.json").write_text(json.dumps(figures))
        return False
