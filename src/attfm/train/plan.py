"""What a training will take, before anything is spent: whether its rows are kept in memory, and all the rest."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attfm.config import Config
from attfm.data.sources.source import Source

_SHARE = 0.5  # of the memory, that encoded rows may take while they are prepared
_BYTES_OF_ROW, _BYTES_OF_FIELD = 400, 28  # at the highest: ids twice, composed ones, and sums by value and fold


@dataclass(frozen=True)
class Plan:
    """What a training will take, as `AFMClassifier.plan` and `attfm train --dry-run` estimate it.

    Attributes
    ----------
    rows, training_rows : int, of the table, and those to train on
    fields, features : int, fields of a row, and distinct features of all fields
    remembered_pairs : int, field pairs whose value pairs are remembered
    models : int, that are cross-fitted, or 1
    streamed : bool, whether the rows are encoded into a cache on disk; else they are kept in memory
    passes : int, times that the table is read, with the one in which the types of text are found
    epochs : int, passes of each model over its training rows, at most
    memory, memory_available : int, bytes at the peak, and bytes that the process may have
    disk : int, bytes at the peak: cache, statistics, run folder and checkpoints
    cache, statistics, run, checkpoints : int, bytes of each: of the encoded rows, which stay for the next training; of
        what goes when training ends; of the run folder; of the two checkpoints of a long training
    seconds_to_prepare : float, from the open table to the first step: reading, encoding, statistics of ids and pairs
    seconds_an_epoch : float, of one model, without what the validation rows take
    seconds_at_most : float, if no model stops early; without refits (`n_bags`), a last training on all rows, the
        summary and the report
    sampled_rows : int, that were looked at; where they are all rows, the numbers above are known and not estimated
    known_features : int, those of them that a run knows which is to learn on; None: a new one is trained
    """

    rows: int
    training_rows: int
    fields: int
    features: int
    remembered_pairs: int
    models: int
    streamed: bool
    passes: int
    epochs: int
    memory: int
    memory_available: int
    disk: int
    cache: int
    statistics: int
    run: int
    checkpoints: int
    seconds_to_prepare: float
    seconds_an_epoch: float
    seconds_at_most: float
    sampled_rows: int
    known_features: int | None = None

    @property
    def exact(self) -> bool:
        """Whether all rows were looked at, so that rows, features and pairs are known."""
        return self.sampled_rows == self.rows

    def known(self) -> dict[str, Any]:
        """Return all figures by name."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Return what people read: names and figures."""
        about = "" if self.exact else "about "
        parts = [("cache", self.cache), ("statistics while it trains", self.statistics), ("run", self.run),
                 ("checkpoints of a long training", self.checkpoints)]  # fmt: skip
        each = ", ".join(f"{name} {_size(size)}" for name, size in parts if size)
        how = "encoded into a cache on disk" if self.streamed else "kept in memory"
        known = "" if self.known_features is None else f", {self.known_features:,} of them known to the run"
        models = "1 model" if self.models == 1 else f"{self.models} models"
        return [
            ("rows", f"{self.rows:,}, {about}{self.training_rows:,} to train on; {how}"),
            ("features", f"{about}{self.features:,} in {self.fields} fields{known}"),
            ("pairs", f"{about}{self.remembered_pairs} field pairs remembered"),
            ("passes", f"{self.passes} over the table; then {models}, at most {self.epochs} epochs"),
            ("memory", f"{_size(self.memory)} at the peak, of {_size(self.memory_available)}"),
            ("disk", f"{_size(self.disk)}: {each}"),
            ("time", f"{_duration(self.seconds_to_prepare)} to prepare, {_duration(self.seconds_an_epoch)} an epoch; "
                     f"at most {_duration(self.seconds_at_most)}"),
            ("seen", "all rows" if self.exact else f"{self.sampled_rows:,} rows, from which the rest is extrapolated"),
        ]  # fmt: skip

    def __str__(self) -> str:
        return "\n".join(f"{name:<10}{text}" for name, text in self.lines())

    __repr__ = __str__


def _size(size: float) -> str:
    """Return "12 kB", "340 MB" or "1.2 GB"."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}" if size < 10 * unit else f"{size / unit:,.0f} {name}"
    return f"{size / 1e3:.0f} kB"


def _duration(seconds: float) -> str:
    """Return "0.8 s", "45 s", "12 min" or "3.5 h"."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def available_memory() -> int:
    """Return the bytes of memory that this process may have: those of the machine, or of its control group."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            whole = min(whole, int(limit.read_text()))
        except (OSError, ValueError):
            continue
    return whole


def bytes_in_memory(rows: int, fields: int) -> int:
    """Return about how many bytes rows take at the highest while they are prepared in memory."""
    return rows * (_BYTES_OF_ROW + _BYTES_OF_FIELD * fields)


def is_streamed(source: Source, config: Config, asked: bool | None) -> bool:
    """Return whether the rows of a table are encoded into a cache on disk: as asked, or by their number."""
    if asked is not None:
        return asked
    if source.num_rows is None:
        return False
    ignored = sum(settings.get("kind") == "ignored" for settings in config.data.columns.values())
    return bytes_in_memory(source.num_rows, len(source.schema) - ignored) > _SHARE * available_memory()
