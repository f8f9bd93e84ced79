"""Training rows that are not kept in memory: encoded into a cache on disk, or found there."""

import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from attfm.config import Config
from attfm.data.batch import Batch
from attfm.data.cache import CachedDataset, CachedRows
from attfm.data.dealing import TEST, TRAIN, VALID, grouping_of_folds, kept_negatives
from attfm.data.encoder import Encoder
from attfm.data.rows_writer import RowsWriter
from attfm.data.schema import Schema
from attfm.data.sources.source import NumberedBatch, Source, numbered
from attfm.data.split_column import split_by
from attfm.data.survey import StreamedTable, Survey, unwatched
from attfm.data.target import Target
from attfm.data.texts import PLAIN
from attfm.data.training_table import labelled_batches, weights_in
from attfm.data.unknown_values import UnknownCounts, UnknownValues
from attfm.errors import CacheError, DataError, RunFolderError, TargetError
from attfm.model.task import Task, task_of
from attfm.train.prepare import Prepared, check_all_classes, check_negative_rate, finer
from attfm.train.trainer import TrainingData

_PARTS = {TRAIN: "train", VALID: "valid", TEST: "test"}
_FACTS, _SCHEMA, _TARGET, _VOCABULARY = "facts.json", "schema.json", "target.json", "vocabulary.arrow"

# Gives what a function makes of each batch of a table, in order; None where it can't divide the table.
OverBatches = Callable[
    [Source, Callable[[Source], Iterator[pa.RecordBatch]], Callable[[NumberedBatch], Any]], Iterator[Any] | None
]


@dataclass(frozen=True)
class Streamed:
    """What `prepare_streamed` returns: the rows, how many the table has, and where they lie.

    reused : whether they were there already
    """

    prepared: Prepared
    rows: int
    folder: Path
    reused: bool


def prepare_streamed(table: StreamedTable, config: Config, over: OverBatches | None = None) -> Streamed:
    """Encode a table into a folder of its cache, in three passes, or find it there.

    over : who encodes the batches of the last pass; None: this process. What is written is the same, byte by byte.

    What was encoded from the same files, by the same settings and the same version of attfm, is taken again once its
    checksums are right. Two processes that encode the same at a time do not see each other: the first to be done has
    its folder kept.

    Raises
    ------
    DataError, ConfigError : bad columns, labels, weights or settings, each with its sentence
    RunFolderError : the cache can't be written
    """
    started = time.perf_counter()
    folder = table.cache / _key(table, config)
    reused = folder.is_dir()
    if reused:
        try:
            return _opened(folder, config, started, reused=True)
        except (CacheError, RunFolderError, OSError, ValueError, KeyError, pa.ArrowException):
            shutil.rmtree(folder)  # damaged, or half removed: it is made anew
    try:
        table.cache.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(table.cache)
        part = table.cache / f"{folder.name}.{socket.gethostname()}.{os.getpid()}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
    except OSError as error:
        raise RunFolderError(
            f"The cache '{table.cache}' can't be written: {error.strerror}. Choose another."
        ) from error
    try:
        _write(table, config, part, over)
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    except OSError as error:
        raise RunFolderError(
            f"The cache '{table.cache}' can't be written ({error.strerror}): make room there, or choose another folder."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return _opened(folder, config, started, reused=False)


def open_streamed(folder: Path, config: Config) -> Streamed:
    """Open what `prepare_streamed` has just written; its checksums are not read again."""
    return _opened(folder, config, time.perf_counter(), reused=False)


def _key(table: StreamedTable, config: Config) -> str:
    """Return the name of the folder of what these settings make of these files."""
    asked = {
        "attfm": version("attfm"), "target": table.target, "weight": table.weight, "seed": table.seed,
        "parts": [part.fingerprint if isinstance(part, Source) else part for part in (table.valid, table.test)],
        "source": table.source.fingerprint, "data": config.data.model_dump(mode="json"),
        "reading": None if table.source.reading is None else table.source.reading.model_dump(mode="json"),
        "train": [config.train.task, config.train.split, config.train.class_weight, config.train.seed,
                  config.train.negative_rate],
    }  # fmt: skip
    text = json.dumps(asked, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _remove_abandoned(cache: Path) -> None:
    """Remove what processes of this machine have begun that are no more."""
    for part in cache.glob(f"*.{socket.gethostname()}.*.part"):
        try:
            os.kill(int(part.suffixes[-2][1:]), 0)
        except (ProcessLookupError, ValueError):
            shutil.rmtree(part, ignore_errors=True)
        except PermissionError:
            pass  # it is somebody else's, and alive


def _write(table: StreamedTable, config: Config, part: Path, over: OverBatches | None) -> None:
    """Read the table three times: for its columns, for what the encoder learns, and to encode it."""
    survey = Survey.of(table, config)
    target = Target.fit(survey.labels, task=config.train.task, name=table.target).as_written(survey.written)
    task, schema = task_of(target), finer(survey.schema, config.data, task_of(target).name)
    per_class = None
    if config.train.class_weight is not None:
        codes = target.encode(survey.labels, table.source.reading or PLAIN)
        per_class = task.class_weights(config.train.class_weight, codes, survey.counts.astype(np.float64))
    check_negative_rate(config, task)
    encoder = _fitted(table, survey, schema, config.train.seed)
    pieces = _Pieces(table, survey, schema, encoder, target, task, per_class, config.train.negative_rate)
    with ExitStack() as stack:
        writers = {
            number: stack.enter_context(RowsWriter(
                part / name, encoder.fields, classes=len(task.classes) if task.is_classification else None,
                weighted=pieces.weighted, folded=number == TRAIN, numbered=number != TRAIN,
            )) for number, name in _PARTS.items()
        }  # fmt: skip
        pieces.write(table.source, writers, over)
        for number, other in ((VALID, table.valid), (TEST, table.test)):
            if isinstance(other, Source):
                pieces.write(other, {number: writers[number]}, over, only=number)
        if not writers[TRAIN].rows:
            raise TargetError("No rows are left to train on: give more rows, or hold out fewer.")
        check_all_classes(task, writers[TRAIN].class_totals, config)
        for writer in writers.values():
            writer.close()
    (part / _SCHEMA).write_text(schema.to_json())
    (part / _TARGET).write_text(target.to_json())
    vocabulary = encoder.to_table()
    with pa.OSFile(str(part / _VOCABULARY), "wb") as sink, pa.ipc.new_file(sink, vocabulary.schema) as writer:
        writer.write_table(vocabulary)
    weights = None if per_class is None else per_class.tolist()
    (part / _FACTS).write_text(json.dumps({"rows": survey.rows, "class_weights": weights}))


def _fitted(table: StreamedTable, survey: Survey, schema: Schema, seed: int) -> Encoder:
    """Return the encoder of the training rows."""
    by = survey.dealing.by

    def batches(only_training: bool) -> Any:
        first = 0
        read = table.source.batches()
        for batch in table.watch(read, survey.rows, "learning the vocabulary") if only_training else read:
            column = None if by is None else batch.column(by.column)
            dealt = survey.dealing.deal(column, table.source, survey.schema, first, batch.num_rows)
            first += batch.num_rows
            yield batch.filter(pa.array(dealt.parts == TRAIN)) if only_training else batch

    try:
        return Encoder.fit(schema, batches(True), seed=seed)
    except DataError:
        Encoder.fit(schema, batches(False), seed=seed)  # which numbers rows as people find them
        raise


@dataclass(frozen=True)
class _Piece:
    """A batch, encoded: of each part the rows, targets, weights, folds and numbers; and its unknown values."""

    rows: dict[int, tuple[Batch, NDArray[Any], NDArray[np.float64], NDArray[np.uint8], NDArray[np.int64]]]
    unknown: UnknownCounts


def _labelled(target: str, source: Source) -> Iterator[pa.RecordBatch]:
    return labelled_batches(source, target, {})


@dataclass(frozen=True)
class _Pieces:
    """What a batch of the table becomes: rows with their targets, weights and folds, each in its part."""

    table: StreamedTable
    survey: Survey
    schema: Schema
    encoder: Encoder
    target: Target
    task: Task
    per_class: NDArray[np.float64] | None
    negative_rate: float

    @property
    def weighted(self) -> bool:
        """Whether rows have weights."""
        return self.table.weight is not None or self.per_class is not None

    def write(
        self, source: Source, writers: dict[int, RowsWriter], over: OverBatches | None, *, only: int | None = None
    ) -> None:
        """Encode a table, and write each row where it was dealt to, or all to one part."""
        unknown = UnknownValues(self.encoder)
        rows = self.survey.rows if only is None else source.num_rows
        own = replace(self, table=replace(self.table, watch=unwatched))
        encode = partial(own.encoded, source, None if only is None else {only})
        read = partial(_labelled, self.target.name)
        pieces = None if over is None else over(source, read, encode)
        if pieces is None:
            pieces = map(encode, numbered(self.table.watch(read(source), rows, "encoding")))
        for piece in pieces:
            unknown.add(piece.unknown)
            for number, rows_of_part in piece.rows.items():
                writers[number].add(*rows_of_part)
        unknown.warn()

    def encoded(self, source: Source, only: Container[int] | None, numbered: NumberedBatch) -> "_Piece":
        """Encode a batch; only : the part that all rows go to, or None for those that they are dealt to."""
        first, batch = numbered
        by, reading = self.survey.dealing.by, source.reading
        encoded = self.encoder.transform(batch, first_row=first, reading=reading)
        unknown = UnknownValues(self.encoder).counted(encoded, batch, first)
        codes = self._targets(batch.column(self.target.name), source, first)
        weight = np.ones(len(codes))
        if self.table.weight is not None:
            column = pa.chunked_array([batch.column(self.table.weight)])
            weight = weights_in(column, self.table.weight, reading or PLAIN, first_row=first)
        weight = weight if self.per_class is None else weight * self.per_class[codes]
        column = None if by is None or only is not None else batch.column(by.column)
        dealt = self.survey.dealing.deal(column, source, self.survey.schema, first, batch.num_rows)
        numbers = np.arange(first, first + batch.num_rows)
        rows = {}
        for part in _PARTS:
            own = dealt.parts == part if only is None else np.full(len(codes), part in only)
            if part == TRAIN:
                own &= (weight > 0) & kept_negatives(numbers, codes, self.negative_rate, self.table.seed)
            kept = np.flatnonzero(own)
            if len(kept):
                own_rows = encoded if len(kept) == len(codes) else encoded.take(torch.from_numpy(kept))
                folds = dealt.folds[kept] if only is None else np.zeros(len(kept), np.uint8)
                rows[part] = own_rows, codes[kept], weight[kept], folds, numbers[kept]
        return _Piece(rows, unknown)

    def _targets(self, column: pa.Array, source: Source, first: int) -> NDArray[Any]:
        try:
            return self.target.encode(column, source.reading or PLAIN)
        except TargetError as error:
            if first == 0:
                raise
            raise TargetError(f"{error} Rows are counted from row {first:,} there.") from None


def _opened(folder: Path, config: Config, started: float, *, reused: bool) -> Streamed:
    """Return the rows of a folder, all of which is read for its checksums where it was there already."""
    schema = Schema.from_json((folder / _SCHEMA).read_text())
    target = Target.from_json((folder / _TARGET).read_text())
    facts = json.loads((folder / _FACTS).read_text())
    with pa.OSFile(str(folder / _VOCABULARY)) as file:
        encoder = Encoder.from_table(schema, pa.ipc.open_file(file).read_all())
    train, valid, test = (
        CachedDataset(CachedRows.open(folder / name, encoder.fields, check=reused)) for name in _PARTS.values()
    )
    task = task_of(target)
    by = None if config.train.split is None else split_by(config.train.split)
    grouping = grouping_of_folds(train.rows, by)
    data = TrainingData(task, train, valid if len(valid) else None, encoder.neighbours(), grouping)
    per_class = facts["class_weights"]
    prepared = Prepared(
        schema, encoder, target, data, test if len(test) else None,
        None if per_class is None else np.array(per_class), len(train), time.perf_counter() - started,
    )  # fmt: skip
    return Streamed(prepared, int(facts["rows"]), folder, reused)
