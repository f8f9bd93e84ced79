"""Mean and spread over the runs of a model on a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import TypeAlias

from benchmarks.accuracy.models import MODELS
from benchmarks.accuracy.records import Record
from benchmarks.accuracy.tables import TABLES

METRICS = ("auc", "log_loss", "rmse")


@dataclass(frozen=True)
class Cell:
    """What the runs of one model on one table gave.

    Attributes
    ----------
    test : mapping, mean of each metric on the test part
    spread : mapping, its standard deviation over the runs; 0 for one run
    runs : int, 0 where none finished
    taught_by : str, which rows taught the model
    seconds, cpu_seconds, megabytes, rows_per_second : float, means; processor seconds are None where not recorded
    idle : bool, whether nobody else used the machine in any run, as far as is known
    skipped : str, why a run is lacking, or ""
    """

    test: Mapping[str, float] = field(default_factory=dict)
    spread: Mapping[str, float] = field(default_factory=dict)
    runs: int = 0
    taught_by: str = "training"
    seconds: float = 0.0
    cpu_seconds: float | None = None
    megabytes: float = 0.0
    rows_per_second: float = 0.0
    idle: bool = False
    skipped: str = ""


Cells: TypeAlias = dict[tuple[str, str], Cell]


def cells_of(records: Sequence[Record]) -> Cells:
    """Return the cell of each table and model that has a line."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["table"], record["model"]), []).append(record)
    return {names: _cell(group) for names, group in groups.items()}


def _cell(records: Sequence[Record]) -> Cell:
    skipped = next((record["skipped"] for record in records if "skipped" in record), "")
    records = [record for record in records if "skipped" not in record]
    if not records:
        return Cell(skipped=skipped)
    values = {name: [record["test"][name] for record in records] for name in METRICS if name in records[0]["test"]}
    return Cell(
        {name: mean(of) for name, of in values.items()},
        {name: stdev(of) if len(of) > 1 else 0.0 for name, of in values.items()},
        len(records),
        records[0]["taught_by"],
        mean(record["fit_seconds"] for record in records),
        mean(record["cpu_seconds"] for record in records)
        if all("cpu_seconds" in record for record in records)
        else None,
        mean(record["peak_mb"] for record in records),
        mean(record["rows_per_second"] for record in records),
        all(record["idle"] for record in records),
        skipped,
    )


def main_metric(cell: Cell) -> str:
    """Return the metric that a table is judged by."""
    return "rmse" if "rmse" in cell.test else "auc"


def better(metric: str, ours: float, theirs: float) -> float:
    """Return by how much the first is better than the second; negative: worse."""
    return ours - theirs if metric == "auc" else theirs - ours


def models_of(cells: Cells) -> list[str]:
    """Return the models that have a cell, refits after what they refit, in the order of MODELS."""
    known = [name + suffix for name in MODELS for suffix in ("", "_refit")]
    present = {model for _, model in cells}
    return [name for name in known if name in present] + sorted(present - set(known))


def tables_of(cells: Cells, metric: str) -> list[str]:
    """Return the tables that have this metric, in the order of TABLES."""
    present = {table for (table, _), cell in cells.items() if metric in cell.test}
    return [name for name in TABLES if name in present] + sorted(present - set(TABLES))
