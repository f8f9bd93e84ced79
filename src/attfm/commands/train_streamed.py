"""Training on a table that is not kept in memory: its rows are encoded into a cache on disk first."""

import shlex
from pathlib import Path

from attfm.commands.job import Job
from attfm.commands.passes import Passes
from attfm.commands.tables import open_table
from attfm.data.cache import CachedDataset
from attfm.data.sources.source import Source
from attfm.data.split import Part
from attfm.data.split_column import split_by
from attfm.data.survey import StreamedTable, Watch, unwatched
from attfm.errors import SourceError
from attfm.model.bundle import Model
from attfm.report.page import render_report
from attfm.report.rows_shown import Examined
from attfm.train.fit import Fitted, fit_prepared
from attfm.train.prepare import Prepared
from attfm.train.streamed import Streamed, is_begun, prepare_streamed

_CACHE = ".attfm-cache"


def train_streamed(job: Job, run: Path) -> tuple[Fitted, str | None]:
    """Return what was fitted, and the report where it is asked for; run : the folder to be."""
    asked, config, output = job.asked, job.config, job.output
    streamed = _encoded(job, streamed_table(job, cache_of(job, run), Passes(output)))
    prepared = streamed.prepared
    if job.continued is None:
        job.show(prepared.schema, streamed.rows)
    else:
        job.show_rows(streamed.rows)
    output.say(describe(job, streamed))
    facts = job.facts(streamed.rows)
    fitted = job.watched(lambda observer: fit_prepared(prepared, config, observer, facts=facts, measured=True))
    return fitted, page_of(job, fitted.model, fitted.prepared) if asked.report else None


def cache_of(job: Job, run: Path) -> Path:
    """Return the folder under which encoded rows are kept."""
    return run.parent / _CACHE if job.asked.cache is None else Path(job.asked.cache).expanduser()


def _encoded(job: Job, table: StreamedTable) -> Streamed:
    """Encode the rows, or find them; where that ends early, say what is kept of it and how to go on."""
    try:
        return prepare_streamed(table, job.config, continued=job.continued)
    except BaseException as error:
        if is_begun(table, job.config, job.continued):
            how = "the same command" if job.kept is None else f"attfm train --resume {shlex.quote(str(job.kept.run))}"
            told = f"What was done is kept in {table.cache}: {how} goes on."
            if isinstance(error, SourceError):
                told += " A table with a changed file, or without it, is another one, and is read from the start."
            job.output.say(told)
            if job.kept is not None:
                job.kept.stay()
        raise


def streamed_table(job: Job, cache: Path, watch: Watch = unwatched) -> StreamedTable:
    """Return the table as it is encoded into a cache; watch : sees the batches of each pass over it."""
    parts = [_part(job, part) for part in (job.valid, job.test)]
    return StreamedTable(job.source, job.target, job.asked.weight, parts[0], parts[1], job.seed, cache, watch)


def _part(job: Job, part: Part) -> float | Source:
    if part.data is None:
        return part.fraction
    stored = dict(zip(job.source.schema.names, job.source.schema.types, strict=True))
    return open_table(part.data, job.asked.reading, stored)


def describe(job: Job, streamed: Streamed) -> str:
    """Return the sentence that says how many rows each part has and where they lie."""
    data, by = streamed.prepared.data, job.config.train.split
    texts = [f"{len(data.train):,} rows to train on"]
    for name, rows in (("validation", data.valid), ("test", streamed.prepared.test)):
        texts.append(f"none for {name}" if rows is None else f"{len(rows):,} for {name}")
    texts.append(f"split {split_by(by).told}" if by is not None else f"split with seed {job.seed}")
    size = sum(file.stat().st_size for file in streamed.folder.rglob("*") if file.is_file())
    how = "found, encoded before, in" if streamed.reused else "encoded into"
    if streamed.before:
        how = f"{streamed.before:,} of them encoded by a training that was interrupted; {how}"
    return f"{'; '.join(texts)}; {how} {streamed.folder} ({size / 1e9:.2g} GB, kept for the next training)"


def page_of(job: Job, model: Model, prepared: Prepared) -> str:
    """Return the report on a sample of the test rows, or else of the validation rows, or on the model alone."""
    for what, rows in (("test", prepared.test), ("validation", prepared.data.valid)):
        if isinstance(rows, CachedDataset):
            name = f"{job.source.name} ({what} rows)"
            return render_report(model, Examined.of_dataset(model, name, rows, rows.numbers))
    return render_report(model)
