"""Training rows that are not kept in memory: encoded into a cache on disk, or found there."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
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
from attfm.train.begun import KEPT, Begun, begun_of, noted, tell_again
from attfm.train.continued import Continuation, Start, started
from attfm.train.freed_memory import give_back
from attfm.train.prepare import Prepared, check_all_classes, check_negative_rate, finer
from attfm.train.safe_point import SafePoints
from attfm.train.trainer import TrainingData

_PARTS = {TRAIN: "train", VALID: "valid", TEST: "test"}
_FACTS, _SCHEMA, _TARGET, _VOCABULARY = "facts.json", "schema.json", "target.json", "vocabulary.arrow"
_SURVEY = f"{KEPT}/survey.arrow"

# Gives what a function makes of each batch of a table, in order; None where it can't divide the table.
OverBatches = Callable[
    [Source, Callable[[Source], Iterator[pa.RecordBatch]], Callable[[NumberedBatch], Any]], Iterator[Any] | None
]


@dataclass(frozen=True)
class Streamed:
    """What `prepare_streamed` returns: the rows, how many the table has, and where they lie.

    reused : whether they were there already
    before : how many of them an interrupted training had encoded, which were gone on from
    """

    prepared: Prepared
    rows: int
    folder: Path
    reused: bool
    before: int = 0


def prepare_streamed(
    table: StreamedTable, config: Config, *, over: OverBatches | None = None, continued: Continuation | None = None
) -> Streamed:
    """Encode a table into a folder of its cache, in three passes, or find it there.

    What was encoded from the same files, by the same settings and the same version of attfm, is taken again once its
    checksums are right. What was begun of it, and interrupted, is gone on with (see `Begun`): each pass that had ended
    is not made again, and the last one goes on from its latest safe point, to the same bits. Two processes that encode
    the same at a time do not see each other: the first to be done has its folder kept.

    Parameters
    ----------
    over : who encodes the batches of the last pass; None: this process. What is written is the same, byte by byte.
    continued : Continuation or None, a model that learns on from the table: its columns, its target and its encoder,
        with what is new in the rows, are taken

    Raises
    ------
    DataError, ConfigError : bad columns, labels, weights or settings, each with its sentence
    RunFolderError : the cache can't be written
    """
    began = time.perf_counter()
    folder = table.cache / _key(table, config, continued)
    reused = folder.is_dir()
    if reused:
        try:
            return _opened(folder, config, began, continued, reused=True)
        except (CacheError, RunFolderError, OSError, ValueError, KeyError, pa.ArrowException):
            shutil.rmtree(folder)  # damaged, or half removed: it is made anew
    lasting = all(part.is_lasting for part in (table.source, table.valid, table.test) if isinstance(part, Source))
    try:
        with Begun(table.cache, folder.name, lasting=lasting) as begun:
            before = _write(table, config, begun, over, continued)
            begun.finish()
    except OSError as error:
        kept = " What was done is kept there." if is_begun(table, config, continued) else ""
        raise RunFolderError(
            f"The cache '{table.cache}' can't be written ({error.strerror or error}): make room there, or choose "
            f"another folder.{kept}"
        ) from error
    give_back()
    return replace(_opened(folder, config, began, continued, reused=False), before=before)


def open_streamed(folder: Path, config: Config) -> Streamed:
    """Open what `prepare_streamed` has just written; its checksums are not read again."""
    return _opened(folder, config, time.perf_counter(), None, reused=False)


def is_begun(table: StreamedTable, config: Config, continued: Continuation | None = None) -> bool:
    """Return whether the cache has a part of the encoding, which `prepare_streamed` goes on with."""
    return bool(begun_of(table.cache, _key(table, config, continued)))


def _key(table: StreamedTable, config: Config, continued: Continuation | None) -> str:
    """Return the name of the folder of what these settings make of these files."""
    asked = {
        "attfm": version("attfm"), "target": table.target, "weight": table.weight, "seed": table.seed,
        "parts": [part.fingerprint if isinstance(part, Source) else part for part in (table.valid, table.test)],
        "source": table.source.fingerprint, "data": config.data.model_dump(mode="json"),
        "reading": None if table.source.reading is None else table.source.reading.model_dump(mode="json"),
        "train": [config.train.task, config.train.split, config.train.class_weight, config.train.seed,
                  config.train.negative_rate],
        "continued": None if continued is None else continued.key,
    }  # fmt: skip
    text = json.dumps(asked, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _write(
    table: StreamedTable, config: Config, begun: Begun, over: OverBatches | None, continued: Continuation | None
) -> int:
    """Read the table three times: for its columns, for what the encoder learns, and to encode it.

    What the folder has of an interrupted training is not read again; returns how many rows that had encoded.
    """
    folder, seed = begun.folder, config.train.seed
    survey = Survey.from_table(begun.once(_SURVEY, lambda: Survey.of(table, config).to_table()), config)
    per_class = None
    if continued is None:
        target = Target.fit(survey.labels, task=config.train.task, name=table.target).as_written(survey.written)
        task, schema = task_of(target), finer(survey.schema, config.data, task_of(target).name)
    else:
        target, schema, task = continued.model.target, continued.model.schema, task_of(continued.model.target)
        known = continued.model.facts.class_weights
        per_class = None if known is None else np.array(known)
    if continued is None and config.train.class_weight is not None:
        codes = target.encode(survey.labels, table.source.reading or PLAIN)
        per_class = task.class_weights(config.train.class_weight, codes, survey.counts.astype(np.float64))
    check_negative_rate(config, task)
    fit = partial(Encoder.fit if continued is None else Encoder.counting, schema, seed=seed)
    learned = begun.once(_VOCABULARY, lambda: _fitted(table, survey, fit).to_table())
    encoder, _ = _encoder(schema, learned, continued)
    del learned
    pieces = _Pieces(table, survey, schema, encoder, target, task, per_class, config.train.negative_rate)
    points = SafePoints(folder / KEPT / "rows.npz")
    tables = [(table.source, None), *((other, number) for number, other in ((VALID, table.valid), (TEST, table.test))
                                      if isinstance(other, Source))]  # fmt: skip
    with ExitStack() as stack:
        try:
            writers = pieces.writers(folder, points, stack)
        except (CacheError, FileNotFoundError, KeyError):
            points.forget()  # its files are damaged: all rows are encoded anew
            writers = pieces.writers(folder, points, stack)
        before = sum(writer.rows for writer in writers.values())
        for place, (source, only) in enumerate(tables):
            pieces.write(place, source, writers, points, only, over)
        if not writers[TRAIN].rows:
            raise TargetError("No rows are left to train on: give more rows, or hold out fewer.")
        if continued is None:
            check_all_classes(task, writers[TRAIN].class_totals, config)
        for writer in writers.values():
            writer.close()
    (folder / _SCHEMA).write_text(schema.to_json())
    (folder / _TARGET).write_text(target.to_json())
    weights = None if per_class is None else per_class.tolist()
    (folder / _FACTS).write_text(json.dumps({"rows": survey.rows, "class_weights": weights}))
    return before


def _encoder(schema: Schema, learned: pa.Table, continued: Continuation | None) -> tuple[Encoder, Start | None]:
    """Return the encoder, given what one has learned of the training rows, and where a model begins that learns on."""
    encoder = Encoder.from_table(schema, learned)
    if continued is None:
        return encoder, None
    start = started(continued, encoder)
    return start.model.encoder, start


def _fitted(table: StreamedTable, survey: Survey, fit: Callable[[Iterator[pa.RecordBatch]], Encoder]) -> Encoder:
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
        return fit(batches(True))
    except DataError:
        fit(batches(False))  # which numbers rows as people find them
        raise


@dataclass(frozen=True)
class _Piece:
    """A batch, encoded: of each part the rows, targets, weights, folds and numbers; its unknown values and size."""

    rows: dict[int, tuple[Batch, NDArray[Any], NDArray[np.float64], NDArray[np.uint8], NDArray[np.int64]]]
    unknown: UnknownCounts
    size: int


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

    def writers(self, folder: Path, points: SafePoints, stack: ExitStack) -> dict[int, RowsWriter]:
        """Open the writers of the parts, each where the latest safe point left it."""
        classes = len(self.task.classes) if self.task.is_classification else None
        return {
            number: stack.enter_context(RowsWriter(
                folder / name, self.encoder.fields, classes=classes, weighted=self.weighted, folded=number == TRAIN,
                numbered=number != TRAIN, kept=points.latest[name] if points.latest else None,
            )) for number, name in _PARTS.items()
        }  # fmt: skip

    def write(
        self, place: int, source: Source, writers: dict[int, RowsWriter], points: SafePoints, only: int | None,
        over: OverBatches | None,
    ) -> None:  # fmt: skip
        """Encode a table from the latest safe point on, and write each row where it was dealt to.

        Parameters
        ----------
        place : int, the number of the table, of those that are encoded one after the other
        only : int or None, the part that all its rows are in
        over : who encodes its batches; what was begun is gone on with by this process
        """
        latest = points.latest if points.latest.get("place") == place else {}
        if points.latest.get("place", place) > place:
            tell_again(points.latest["told"][place])
            return
        told = list(points.latest.get("told", []))
        first: int = latest.get("first", 0)
        unknown = UnknownValues(self.encoder, latest.get("unknown"))

        def keep(place: int, **more: Any) -> None:
            parts = {_PARTS[number]: writer.flush() for number, writer in writers.items()}
            points.keep({"place": place, "told": told, **more, **parts})

        whole = True
        try:
            for piece in self._encoded(source, only, over, first):
                whole = False
                unknown.add(piece.unknown)
                for number, of_part in piece.rows.items():
                    writers[number].add(*of_part)
                first += piece.size
                whole = True
                if points.is_due:
                    keep(place, first=first, unknown=unknown.state())
        except BaseException:
            if whole and first > latest.get("first", 0):
                with suppress(OSError):
                    keep(place, first=first, unknown=unknown.state())
            raise
        with noted() as sentences:
            unknown.warn()
        told.append(sentences)
        keep(place + 1)
        points.latest = {"place": place + 1, "told": told}

    def _encoded(self, source: Source, only: int | None, over: OverBatches | None, first: int) -> "Iterator[_Piece]":
        """Return the batches of a table, encoded, from a row on."""
        own = replace(self, table=replace(self.table, watch=unwatched))  # which another process may get
        encode, read = partial(own.encoded, source, only), partial(_labelled, self.target.name)
        pieces = None if over is None or first else over(source, read, encode)
        if pieces is not None:
            return pieces
        rows = self.survey.rows if only is None else source.num_rows
        what = "encoding" if not first else f"encoding, from row {first:,} on"
        batches = self.table.watch(_after(first, read(source)), rows if rows is None else rows - first, what)
        return map(encode, numbered(batches, first))

    def encoded(self, source: Source, only: int | None, numbered: NumberedBatch) -> "_Piece":
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
            own = dealt.parts == part if only is None else np.full(len(codes), part == only)
            if part == TRAIN:
                own &= (weight > 0) & kept_negatives(numbers, codes, self.negative_rate, self.table.seed)
            kept = np.flatnonzero(own)
            if len(kept):
                own_rows = encoded if len(kept) == len(codes) else encoded.take(torch.from_numpy(kept))
                folds = dealt.folds[kept] if only is None else np.zeros(len(kept), np.uint8)
                rows[part] = own_rows, codes[kept], weight[kept], folds, numbers[kept]
        return _Piece(rows, unknown, batch.num_rows)

    def _targets(self, column: pa.Array, source: Source, first: int) -> NDArray[Any]:
        try:
            return self.target.encode(column, source.reading or PLAIN)
        except TargetError as error:
            if first == 0:
                raise
            raise TargetError(f"{error} Rows are counted from row {first:,} there.") from None


def _after(rows: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Give the rows after the first so many."""
    for batch in batches:
        if rows < batch.num_rows:
            yield batch.slice(rows)
        rows = max(0, rows - batch.num_rows)


def _opened(folder: Path, config: Config, began: float, continued: Continuation | None, *, reused: bool) -> Streamed:
    """Return the rows of a folder, all of which is read for its checksums where it was there already."""
    schema = Schema.from_json((folder / _SCHEMA).read_text())
    target = Target.from_json((folder / _TARGET).read_text())
    facts = json.loads((folder / _FACTS).read_text())
    with pa.OSFile(str(folder / _VOCABULARY)) as file:
        encoder, start = _encoder(schema, pa.ipc.open_file(file).read_all(), continued)
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
        None if per_class is None else np.array(per_class), len(train), time.perf_counter() - began,
        start=start,
    )  # fmt: skip
    return Streamed(prepared, int(facts["rows"]), folder, reused)
