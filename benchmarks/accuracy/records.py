"""The measured lines: read from a file of JSON lines and appended to it; of two for one run, the later counts."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

Record: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[str, str, int, int]

RESULTS = Path(__file__).parents[1] / "results/accuracy.jsonl"
SMALL_RESULTS = RESULTS.with_name("small_tables.jsonl")
SPLITS_RESULTS = RESULTS.with_name("german_splits.jsonl")  # more splits of a table whose test parts say little


def key(record: Record) -> Key:
    """Return what names a run: table, model, seed, and the seed of the split."""
    return record["table"], record["model"], record["seed"], record["split_seed"]


def read(file: Path) -> list[Record]:
    """Return the latest line of each run, in the order in which runs first came."""
    latest: dict[Key, Record] = {}
    if file.exists():
        for line in file.read_text().splitlines():
            record = json.loads(line)
            latest[key(record)] = record
    return list(latest.values())


def append(file: Path, records: Iterable[Record]) -> None:
    """Add lines at the end of the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as out:
        for record in records:
            out.write(json.dumps(record) + "\n")
