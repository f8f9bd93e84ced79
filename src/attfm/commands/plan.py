"""`attfm train --dry-run`: what a training will take, before anything is spent."""

import time
from dataclasses import replace
from pathlib import Path

from attfm.commands.asked import Asked
from attfm.commands.console import Output
from attfm.commands.continued import continuation_of
from attfm.commands.folders import NewFolder
from attfm.commands.job import Job
from attfm.commands.tables import open_table
from attfm.commands.train import opened, parts_of
from attfm.commands.train_in_memory import read_tables
from attfm.commands.train_streamed import streamed_table
from attfm.config import Config
from attfm.data.sources.files import table_stem
from attfm.data.split import Part
from attfm.errors import ConfigError
from attfm.train.continued import settings_of
from attfm.train.estimate import (
    SAMPLE_ROWS,
    Sampled,
    Whole,
    of_sample,
    plan_of,
    rows_of,
    sample_in_memory,
    sample_streamed,
    seconds_to_read,
    temporary_cache,
)
from attfm.train.footprint import memory_now
from attfm.train.plan import is_streamed


def plan(asked: Asked, config: Config, output: Output) -> None:
    """Print what the training that is asked for will take; nothing of it is begun, and nothing stays on disk."""
    if asked.workers:
        raise ConfigError("--dry-run plans a training by this process: leave out --engine ray (docs/scaling.md).")
    valid, test, config = parts_of(asked, config)
    NewFolder(asked.out, stem=table_stem(asked.data), force=asked.force)  # which says where there can be none
    continued = continuation_of(asked)
    if continued is not None:
        config = settings_of(continued.model, config)
    source, target = opened(asked, continued)
    rows, streamed, base = rows_of(source, target), is_streamed(source, config, asked.stream), memory_now()
    head = source.head(SAMPLE_ROWS)
    job = Job(asked, config, replace(output, quiet=True), head, target, valid, test, None, continued)
    valid_rows, test_rows = (_rows(job, part) for part in (valid, test))
    whole = Whole(rows, valid_rows, test_rows, seconds_to_read(source, rows), base, source.is_text)
    with of_sample(min(rows, SAMPLE_ROWS), rows), temporary_cache() as cache:
        sampled = _sampled(job, whole, Path(cache) if streamed else None)
        found = plan_of(sampled, config, checkpoints=bool(asked.checkpoint_minutes or asked.checkpoint_steps))
    output.result_lines(*str(found).splitlines())
    output.result_json(found.known())


def _sampled(job: Job, whole: Whole, cache: Path | None) -> Sampled:
    """Prepare the sample in a cache, or in memory."""
    if cache is not None:
        return sample_streamed(streamed_table(job, cache), job.config, whole, job.continued)
    started = time.perf_counter()
    tables = read_tables(job)
    return sample_in_memory(tables, job.config, whole, looking=time.perf_counter() - started, continued=job.continued)


def _rows(job: Job, part: Part) -> int | None:
    """Return the number of rows of a table of its own."""
    return None if part.data is None else rows_of(open_table(part.data, job.asked.reading), job.target)
