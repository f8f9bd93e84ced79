"""What a training will take: whether its rows are kept in memory."""

import os
from pathlib import Path

from attfm.config import Config
from attfm.data.sources.source import Source

_SHARE = 0.5  # of the memory, that encoded rows may take while they are prepared
_BYTES_OF_ROW, _BYTES_OF_FIELD = 400, 28  # at the highest: ids twice, composed ones, and sums by value and fold


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
