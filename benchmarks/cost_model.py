"""What a training by several machines costs: time of a step, bytes it sends, memory of a machine; fitted, then used.

A step of B rows on N machines, U(n) being the distinct features of n rows:

    rows      r0 + r1 · B                 every machine reads, shuffles and gathers all rows
    compute   c0 + c1 · B / N             forward and backward of its own part
    exchange  e0 + e1 · received          received = N · U(B / N) rows of 4 (1 + outputs + dim) bytes, and dense ones
    apply     a0 + a1 · U(B)              penalties, optimiser and averages of the rows of all
    network   sent / bandwidth            sent = 2 (N − 1) / N · dense + (N − 1) · U(B / N) · 4 (1 + outputs + dim)

The first four are processor time, measured on one core; where a machine has several, compute is divided by them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

COPIES = 7  # of V and w in a lazy training, see attfm/train/footprint.py


@dataclass(frozen=True)
class Shape:
    """Of a model: floats of a feature's row of w and V, and dense floats that are summed."""

    width: int
    dense: int


def sent(shape: Shape, rows: float, workers: int, touched: Callable[[float], float]) -> float:
    """Return the bytes that a worker sends in a step of so many rows."""
    dense = 4 * (shape.dense + 2 + workers)
    part = touched(rows / workers) * 4 * (1 + shape.width)
    return 2 * (workers - 1) / workers * dense + (workers - 1) * part


def _received(shape: Shape, rows: float, workers: int, touched: Callable[[float], float]) -> float:
    return workers * touched(rows / workers) * 4 * (1 + shape.width) + 4 * (shape.dense + 2 + workers)


@dataclass(frozen=True)
class CostModel:
    """The constants of a step's phases: seconds at the start, and of each unit."""

    rows: tuple[float, float]
    compute: tuple[float, float]
    exchange: tuple[float, float]
    apply: tuple[float, float]
    shape: Shape
    base: float  # bytes of a worker without V and w

    @classmethod
    def fitted(
        cls, small: Mapping[str, Any], large: Mapping[str, Any], two: Mapping[str, Any], shape: Shape,
        touched: Callable[[float], float], tables: float,
    ) -> "CostModel":  # fmt: skip
        """Return the model of three measurements: one worker with few and with many rows a step, and two workers."""

        def line(phase: str, at: Callable[[float], float]) -> tuple[float, float]:
            x, y = [at(of["batch"]) for of in (small, large)], [of["seconds"][phase] for of in (small, large)]
            slope = max(0.0, (y[1] - y[0]) / (x[1] - x[0]))
            return max(0.0, y[0] - slope * x[0]), slope

        packed = small["seconds"]["exchange"]
        received = _received(shape, two["batch"], 2, touched)
        of_byte = max(0.0, (two["seconds"]["exchange"] - packed) / received)
        base = max(of["memory"] for of in (small, large)) - COPIES * tables
        return cls(line("rows", float), line("compute", float), (packed, of_byte), line("apply", touched), shape, base)

    def seconds(
        self, rows: float, workers: int, touched: Callable[[float], float], *, cores: float = 1.0,
        bandwidth: float | None = None,
    ) -> dict[str, float]:  # fmt: skip
        """Return the seconds of each phase of a step; bandwidth : bytes a second of a machine's network, None: none."""
        found = {
            "rows": self.rows[0] + self.rows[1] * rows,
            "compute": self.compute[0] + self.compute[1] * rows / workers / cores,
            "exchange": self.exchange[0] + self.exchange[1] * _received(self.shape, rows, workers, touched),
            "apply": self.apply[0] + self.apply[1] * touched(rows),
        }
        if bandwidth is not None:
            found["network"] = sent(self.shape, rows, workers, touched) / bandwidth
        return found

    def memory(self, features: float) -> float:
        """Return the bytes of a machine; a checkpoint is written from where its tensors lie, and takes none."""
        return self.base + COPIES * 4.0 * self.shape.width * features
