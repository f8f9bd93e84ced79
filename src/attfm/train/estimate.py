"""Estimates what a training will take: does its work on a sample of the rows, measures, and extrapolates."""

import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from attfm.config import Config
from attfm.data.codecs.codec import Field
from attfm.data.dataset import Examples, batch_count, gathered
from attfm.data.dealing import FOLDS
from attfm.data.sources.source import MOST_KEPT_BYTES, Source
from attfm.data.survey import LOOKING, StreamedTable
from attfm.errors import TargetError
from attfm.model.knots import knots_for
from attfm.train.all_rows import for_epochs
from attfm.train.continued import Continuation, started
from attfm.train.cross_fit import of_fold, without_fold
from attfm.train.footprint import (
    MOST_CELLS,
    Load,
    bytes_of_cache,
    bytes_of_checkpoints,
    bytes_of_run,
    bytes_of_statistics,
    grown,
    memory_at_peak,
)
from attfm.train.inner_choice import MOST_ROWS as MOST_ROWS_OF_CHOICE
from attfm.train.inner_choice import candidates
from attfm.train.model_count import choose_models
from attfm.train.plan import Plan, available_memory
from attfm.train.prepare import Prepared, Tables, prepare
from attfm.train.screening import MOST_ROWS as MOST_SCREENED
from attfm.train.sparse_optimizer import BIG_TABLE
from attfm.train.statistics import Enriched, enrich
from attfm.train.step_time import measured_steps
from attfm.train.streamed import prepare_streamed
from attfm.train.trainer import choose_batch_size

SAMPLE_ROWS = 100_000
_SECONDS = 2.0  # for which a table is read at least
_ROWS_OF_SURFACE = 10_000  # that are counted in
_OF_VALID = 0.25  # of the time that a screened training row takes, of each validation row in memory


@dataclass(frozen=True)
class Whole:
    """What is known of a table whose training is planned.

    rows : of the table; valid_rows, test_rows : of tables of their own, None: they are a part of the rows
    reading : seconds that a pass over the table takes which only reads it, beyond those that the sample says
    base : bytes of memory that the process has before the training
    is_text : whether types are found in its cells
    """

    rows: int
    valid_rows: int | None = None
    test_rows: int | None = None
    reading: float = 0.0
    base: int = 0
    is_text: bool = False


@dataclass(frozen=True)
class Sampled:
    """Rows of a table that were prepared as all of them will be, and what that took.

    rows : of the sample
    looking : seconds that looking at its columns took, of which inference looks at 100,000 rows at most
    seconds : that all else took, which grows with the rows
    table_bytes : of the columns as Arrow has them, where they are kept in memory
    """

    whole: Whole
    prepared: Prepared
    rows: int
    looking: float
    seconds: float
    table_bytes: int
    streamed: bool

    @property
    def times(self) -> float:
        """How many times as many rows the table has."""
        return self.whole.rows / self.rows


def seconds_to_read(source: Source, rows: int) -> float:
    """Return the seconds that a pass over a table takes which only reads it; rows : of the table."""
    started, read = time.perf_counter(), 0
    for batch in source.batches():
        read += batch.num_rows
        if read >= SAMPLE_ROWS and time.perf_counter() - started > _SECONDS:
            break
    return (time.perf_counter() - started) * rows / max(read, 1)


def rows_of(source: Source, column: str) -> int:
    """Return the number of rows of a table, which is read for it where it is not known."""
    if source.num_rows is not None:
        return source.num_rows
    return sum(batch.num_rows for batch in source.batches([column]))


@contextmanager
def of_sample(rows: int, whole: int) -> Iterator[None]:
    """Say of what is wrong with the target that it is so in the first rows only, where these are not all."""
    try:
        yield
    except TargetError as error:
        if rows >= whole:
            raise
        raise TargetError(f"In the {rows:,} rows that a plan looks at: {error}") from None


def sample_in_memory(
    tables: Tables, config: Config, whole: Whole, *, looking: float, continued: Continuation | None = None
) -> Sampled:
    """Prepare the rows of a sample in memory; looking : seconds that looking at its columns has taken."""
    began = time.perf_counter()
    times, split = whole.rows / len(tables.table.labels), tables.split
    if times > 1 and config.train.n_models == "auto" and continued is None:  # as many as for all rows
        apart = 0 if split.test is None else len(split.test)
        if split.valid is not None and tables.own_valid:
            apart += len(split.valid)
        models = choose_models(config, tables.schema, round(whole.rows - times * apart))
        config = config.model_copy(update={"train": config.train.model_copy(update={"n_models": models})})
    prepared = prepare(tables, config, continued=continued)
    seconds = time.perf_counter() - began
    if continued is not None:  # the earlier model is taken over once, however many rows there are
        began = time.perf_counter()
        started(continued, continued.model.encoder)
        once = min(time.perf_counter() - began, seconds)
        looking, seconds = looking + once, seconds - once
    names = [column.name for column in tables.schema.inputs]
    size = sum(batch.nbytes for batch in tables.table.source.batches(names))
    return Sampled(whole, prepared, len(tables.table.labels), looking, seconds, size, streamed=False)


def sample_streamed(
    table: StreamedTable, config: Config, whole: Whole, continued: Continuation | None = None
) -> Sampled:
    """Encode the rows of a sample into the table's cache, which is to be a folder that goes when the plan is made."""
    passes = dict[str, float]()

    def timed(batches: Iterator[pa.RecordBatch], rows: int | None, what: str) -> Iterator[pa.RecordBatch]:
        started = time.perf_counter()
        yield from batches
        passes[what] = passes.get(what, 0.0) + time.perf_counter() - started

    started = time.perf_counter()
    streamed = prepare_streamed(replace(table, watch=timed), config, continued=continued)
    seconds = sum(passes.values()) - passes[LOOKING]
    looking = time.perf_counter() - started - seconds
    return Sampled(whole, streamed.prepared, streamed.rows, looking, seconds, 0, streamed=True)


def temporary_cache() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for the encoded rows of a sample, which goes with its context."""
    return tempfile.TemporaryDirectory(prefix="attfm-plan-", ignore_cleanup_errors=True)


@torch.inference_mode(False)
@torch.enable_grad()
def plan_of(sampled: Sampled, config: Config, *, checkpoints: bool = False) -> Plan:
    """Return what a training on all rows will take, from a sample of them that is prepared.

    Parameters
    ----------
    checkpoints : whether some are written while it trains
    """
    prepared, models, start = sampled.prepared, 1, sampled.prepared.start
    sample_rows = len(prepared.data.train), len(prepared.data.valid or ())
    if prepared.folds is not None:
        models, prepared = prepared.folds.count, without_fold(prepared, 0)
        config = of_fold(config, 0)
    elif prepared.start is not None:  # each of its models learns on from the same rows
        models, prepared = len(prepared.start.beginnings), prepared.begun_at(0)
    train = round(len(prepared.data.train) * sampled.times)
    if prepared.start is not None and prepared.data.valid is None:
        config = for_epochs(config, prepared.start.epochs, train)
    settings = config.train
    knots = knots_for(settings.knots, train)
    asked = {"batch_size": choose_batch_size(settings.batch_size, train), "knots": knots}
    fits = _fits(prepared, config, models, train)
    config = config.model_copy(update={"train": settings.model_copy(update=asked)})
    statistics = _statistics(prepared, config)
    load, sizes = _load(sampled, prepared, config, statistics.enriched, models)
    data = prepared.data if statistics.enriched is None else statistics.enriched.data
    steps = measured_steps(replace(prepared, data=data), config, statistics.enriched, load)
    screened = min(train, MOST_SCREENED) + (0 if sampled.streamed else _OF_VALID * load.valid)
    screened /= min(len(data.train), MOST_SCREENED) + (0 if sampled.streamed else _OF_VALID * sample_rows[1])
    of_statistics = statistics.linear * sampled.times + statistics.screening * screened
    epoch = steps.of_batch * batch_count(train, int(asked["batch_size"]))
    validation = steps.of_valid_row * load.valid
    passes = _passes(sampled)
    # The sample of an Arrow file is in memory, so that reading is not in its times; that of text is read anew.
    reading = 1 - 1 / sampled.times if sampled.whole.is_text else passes
    preparing = sampled.looking + sampled.seconds * sampled.times + sampled.whole.reading * reading
    fields = prepared.encoder.fields
    cache = statistics_bytes = 0
    if sampled.streamed:
        entries, valued = _entries(prepared.data.train, fields)
        task = prepared.data.task
        encoded = load if start is None else _of_new_values(load, prepared, sampled.times)
        cache = bytes_of_cache(
            encoded, sizes, fields, entries, valued=valued,
            classes=len(task.classes) if task.is_classification else None,
            weighted=prepared.class_weights is not None or prepared.schema.weight is not None,
        )  # fmt: skip
        statistics_bytes = bytes_of_statistics(load)
    kept = bytes_of_checkpoints(load) if checkpoints else 0
    run = bytes_of_run(load, exact=sampled.times == 1)
    return Plan(
        rows=sampled.whole.rows, training_rows=round(sampled.prepared.training_rows * sampled.times),
        fields=len(fields), features=load.features, remembered_pairs=load.pairs, models=models,
        streamed=sampled.streamed, passes=passes, epochs=settings.epochs,
        memory=memory_at_peak(load, sampled.whole.base, streamed=sampled.streamed), memory_available=available_memory(),
        disk=cache + statistics_bytes + run + kept, cache=cache, statistics=statistics_bytes, run=run, checkpoints=kept,
        seconds_to_prepare=preparing + of_statistics, seconds_an_epoch=epoch,
        seconds_at_most=preparing + models * of_statistics + fits * settings.epochs * (epoch + validation),
        sampled_rows=sampled.rows,
        known_features=None if start is None else prepared.encoder.n_features - sum(start.new.values()),
    )  # fmt: skip


def _passes(sampled: Sampled) -> int:
    opening = 1 if sampled.whole.is_text else 0  # in which the types of its cells are found
    if sampled.streamed:
        return 3 + opening
    return (2 if sampled.table_bytes * sampled.times <= MOST_KEPT_BYTES else 3) + opening


def _fits(prepared: Prepared, config: Config, models: int, train: int) -> float:
    """Return how many times a model is trained, on all training rows; of trials on a part of them their share."""
    settings, task = config.train, prepared.data.task
    tried = 0.0
    chooses = settings.optimizer == "adam" and settings.early_stopping and prepared.data.valid is not None
    chooses = chooses and prepared.start is None
    if chooses and not task.is_classification:
        number = len(candidates(config, prepared.encoder.fields, train))
        share = min(1.0, MOST_ROWS_OF_CHOICE / max(train, 1))
        tried = number * share - (share == 1) if number > 1 else 0.0  # one of those on all rows is the model
    return (models + tried) * (2 if settings.warm_start_from == "fm" else 1)


@dataclass(frozen=True)
class _Statistics:
    """What rows were enriched with, and the seconds of it: those that grow with the rows, and those of screening."""

    enriched: Enriched | None
    linear: float
    screening: float


def _statistics(prepared: Prepared, config: Config) -> _Statistics:
    machine = None if prepared.start is None else prepared.start.one.machine
    began = time.perf_counter()
    enriched = enrich(prepared.data, prepared.encoder, config, start=machine)
    seconds = time.perf_counter() - began
    if enriched is None or machine is not None:  # a model that learns on keeps its pairs
        return _Statistics(enriched, seconds, 0.0)
    pairs = [] if enriched.pairs is None else [(i, j) for i, j in enriched.pairs.keys.pairs.tolist()]
    began = time.perf_counter()
    enrich(prepared.data, prepared.encoder, config, chosen=pairs)
    linear = min(time.perf_counter() - began, seconds)
    return _Statistics(enriched, linear, seconds - linear)


def _load(
    sampled: Sampled, prepared: Prepared, config: Config, enriched: Enriched | None, models: int
) -> tuple[Load, list[int]]:
    """Return what the training on all rows has to hold, and the size of each field."""
    data, encoder, times = prepared.data, prepared.encoder, sampled.times
    rows, outputs = gathered(data.train), len(data.task.outputs)
    start = prepared.start
    sizes = [_size(rows, f, field, prepared, config, times) for f, field in enumerate(encoder.fields)]
    features = sum(sizes)
    entries, _ = _entries(data.train, encoder.fields)
    bins, rated, cells = 0, list[int](), 0.0
    pairs, known, level_features, pair_cells = 0, 0.0, 0, 0.0
    folds = np.random.default_rng(0).integers(0, FOLDS, len(rows))
    if enriched is not None:
        bins = enriched.composition.rows - enriched.composition.features
        folded = enriched.composition.folded[:, 0]
        rated = [f for f, field in enumerate(encoder.fields) if len(folded) and (folded == field.start).any()]
        for f in rated:
            of = rows.rows.field(f)
            each = folds if of.counts is None else np.repeat(folds, of.counts)
            cells += _distinct_grown(of.ids.astype(np.int64) * FOLDS + each, times)
        if enriched.pairs is not None:
            pairs = len(enriched.pairs.keys.pairs)
            # Of a model that learns on, what is known already stays, and what the sample lacks comes to it.
            known = 0.0 if start is None else float(len(enriched.pairs.known.keys))
            levels = {f: enriched.pairs.levels.of_rows(rows.rows, f) for f in np.unique(enriched.pairs.keys.pairs)}
            level_features = sum(sizes[f] for f in levels)
            for i, j in enriched.pairs.keys.pairs.tolist():
                keys = levels[i] * int(enriched.pairs.levels.sizes[j]) + levels[j]
                known += _distinct_grown(keys, times, least=config.model.memory_min_count)
                known -= 0 if start is None else _distinct(keys, config.model.memory_min_count)
                pair_cells = max(pair_cells, _distinct_grown(keys * FOLDS + folds, times))
    vocabulary = encoder.to_table().nbytes * features / max(encoder.n_features, 1)
    dim = config.model.dim if config.model.pairs and len(encoder.fields) > 1 else 0
    load = Load(
        train=round(len(data.train) * times),
        valid=_part(len(data.valid or ()), times, sampled.whole.valid_rows),
        test=_part(len(prepared.test or ()), times, sampled.whole.test_rows),
        fields=len(encoder.fields), outputs=outputs, dim=dim, features=features, table_rows=features + bins,
        entries=sum(entries), rated=sum(entries[f] for f in rated), pairs=pairs,
        known=min(int(known), config.model.memory_entries), levels=level_features,
        cells=int(cells), pair_cells=int(pair_cells), surface=_cells_of_surface(rows),
        vocabulary=int(vocabulary), table_bytes=int(sampled.table_bytes * times), models=models,
        begun=0 if start is None else len(start.beginnings),
        lazy=(features + bins) * max(dim, 1) >= BIG_TABLE,
    )  # fmt: skip
    return load, sizes


def _of_new_values(load: Load, prepared: Prepared, times: float) -> Load:
    """Return the load with the vocabulary that is encoded where a model learns on: of the values of the new rows."""
    rows = gathered(prepared.data.train).rows
    values = sum(_distinct_grown(rows.field(f).ids, times) for f in range(rows.fields))
    return replace(load, vocabulary=round(load.vocabulary * min(1.0, values / load.features)))


def _cells_of_surface(examples: Examples) -> float:
    """Return how many cells, which are combinations of two fields' values, the summary keeps of a pair on average."""
    rows = examples.rows.slice(0, _ROWS_OF_SURFACE)
    fields = range(rows.fields)
    ids = {f: rows.field(f) for f in fields}
    single = [f for f in fields if ids[f].counts is None]
    cells = [
        min(len(np.unique(ids[i].ids.astype(np.int64) << 32 | ids[j].ids)), MOST_CELLS)
        for i, j in itertools.combinations(single, 2)
    ]
    return sum(cells) / max(len(cells), 1)


def _part(rows: int, times: float, own: int | None) -> int:
    return round(rows * times) if own is None else own


def _size(rows: Examples, f: int, field: Field, prepared: Prepared, config: Config, times: float) -> int:
    """Return how many features a field has on all rows: those of ids grow, those of bins and of buckets do not."""
    column = next(column for column in prepared.schema.columns if column.name == field.column)
    if times <= 1 or field.ordered or field.kind == "scaled" or column.hash_buckets is not None:
        return field.size
    if column.kind == "datetime":
        return field.size
    ids = rows.rows.field(f).ids
    least = config.data.min_count if column.min_count is None else column.min_count
    if prepared.start is not None:  # its own values are known, and new ones come after them
        ids = ids[ids >= field.stop - prepared.start.new.get(field.column, 0)]
        return field.size + round(_distinct_grown(ids, times, least=least)) - _distinct(ids, least)
    seen = _distinct(ids, least)
    return round(field.size * _distinct_grown(ids, times, least=least) / seen) if seen else field.size


def _distinct(values: NDArray[np.integer], least: int = 1) -> int:
    return int((np.unique(values, return_counts=True)[1] >= least).sum())


def _distinct_grown(values: NDArray[np.integer], times: float, *, least: int = 1) -> float:
    """Return how many distinct values of at least so many rows there are in `times` as many rows."""
    if times <= 1:
        return _distinct(values, least)
    mixed = np.random.default_rng(0).permutation(values)
    n = len(mixed)
    quarter, half, whole = (_distinct(mixed[:size], least) for size in (n // 4, n // 2, n))
    return grown(quarter, half, whole, times)


def _entries(train: object, fields: Sequence[Field]) -> tuple[list[float], list[bool]]:
    """Return how many features of each field a row has, and whether they have values."""
    rows = gathered(train).rows  # type: ignore[arg-type]
    found = [rows.field(f) for f in range(len(fields))]
    numbers = [1.0 if of.counts is None else len(of.ids) / max(len(rows), 1) for of in found]
    return numbers, [of.values is not None for of in found]
