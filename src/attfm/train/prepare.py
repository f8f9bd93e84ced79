"""From raw columns to encoded rows with targets and weights: all that comes before the first step."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from attfm.config import Config, DataConfig, TaskName
from attfm.data.batch import Batch
from attfm.data.codecs.numeric import BINS_OF_REGRESSION
from attfm.data.dataset import Dataset, Examples, InMemoryDataset, gathered
from attfm.data.dealing import kept_negatives
from attfm.data.encoder import Encoder
from attfm.data.folds import BY_CHANCE, Folds, Grouping
from attfm.data.schema import Schema
from attfm.data.sources.source import Source
from attfm.data.split import LEAST_ROWS_TO_SPLIT, RowNumbers, Split, hold_out
from attfm.data.split_column import TimeSplit, grouping_in, split_by
from attfm.data.target import Label, Target
from attfm.data.texts import PLAIN
from attfm.data.unknown_values import UnknownValues
from attfm.errors import ConfigError, DataError, DataWarning, TargetError
from attfm.model.bundle import Model
from attfm.model.task import Task, task_of
from attfm.train.continued import Continuation, Start, started
from attfm.train.model_count import choose_models, cut_into_folds
from attfm.train.trainer import TrainingData

Weights = NDArray[np.float64]
_FitEncoder = Callable[[Iterator[pa.RecordBatch]], Encoder]


@dataclass(frozen=True)
class LabelledTable:
    """A table with its raw labels and, where they are given, weights of its rows."""

    source: Source
    labels: pa.ChunkedArray
    weight: NDArray[np.floating[Any]] | None = None


@dataclass(frozen=True)
class Tables:
    """What a model is fitted on: a table, which of its rows are what, and tables of their own.

    Attributes
    ----------
    table : LabelledTable, all rows
    schema : Schema, what each column is
    target : str, name of the target
    split : Split, rows of `table`. Without validation rows, and without a table of them, a part of the training rows
        (`validation_fraction`) is held out if early stopping is on, by the column that the settings name, or by chance.
    own_valid : bool
        Whether the validation rows of `split` were asked for. Those that nobody asked for are trained on in the end:
        where several models are cross-fitted, or where one is trained again on all rows. Those of the user, as a table
        of them, never teach.
    valid, test : LabelledTable or None, a second table to stop by, and one to set aside
    written : labels as they stand in a text table, by their canonical text
    encoder_rows : int64 (rows,) or None, rows that the encoder is fitted on; None: the training rows
    """

    table: LabelledTable
    schema: Schema
    target: str = "target"
    split: Split = field(default_factory=Split)
    own_valid: bool = True
    valid: LabelledTable | None = None
    test: LabelledTable | None = None
    written: Mapping[str, str] = field(default_factory=dict)
    encoder_rows: RowNumbers | None = None


@dataclass(frozen=True)
class Prepared:
    """Encoded rows, ready to be trained on, and how raw columns become what the module reads.

    class_weights : float64 (classes,), by which the rows were weighted
    training_rows : how many rows are trained on (equal ones of a tiny table are one in `data`)
    seconds : that preparing took
    folds : of the training rows, for the models that are cross-fitted; None: one model
    numbers : int64 (training rows,), theirs in the table
    spare : int64 (validation rows,), numbers of those that nobody asked for and that may teach in the end; None: none
    spare_grouping : what is known of them
    start : where a model that learns on begins; None: it is new
    """

    schema: Schema
    encoder: Encoder
    target: Target
    data: TrainingData
    test: Dataset | None
    class_weights: Weights | None
    training_rows: int
    seconds: float
    folds: Folds | None = None
    numbers: RowNumbers = field(default_factory=lambda: np.empty(0, np.int64))
    spare: RowNumbers | None = None
    spare_grouping: Grouping = BY_CHANCE
    start: Start | None = None

    def with_spare(self) -> Self:
        """Return the same with all validation rows among the training rows, after them; none is left to stop by."""
        valid = self.data.valid
        if self.spare is None or valid is None:
            raise ValueError("there are no validation rows that may be trained on")
        examples = gathered(self.data.train, valid)
        kept = torch.nonzero(examples.weight > 0).flatten()  # rows without weight are not trained on
        grouping = self.data.grouping.joined(self.spare_grouping).take(kept.numpy())
        data = replace(self.data, train=InMemoryDataset(examples.take(kept)), valid=None, grouping=grouping)
        numbers = np.concatenate([self.numbers, self.spare])[kept.numpy()]
        return replace(self, data=data, training_rows=len(kept), numbers=numbers, spare=None)

    def begun_at(self, number: int) -> Self:
        """Return the same for one of the machines that learn on; those of a new model all begin anew."""
        return self if self.start is None else replace(self, start=self.start.of(number))

    def trained_on(self, train: Dataset) -> Self:
        """Return the same with other training rows, of which nothing is known that folds must respect.

        Validation rows are not to be added to them.
        """
        return replace(self, data=replace(self.data, train=train, grouping=BY_CHANCE), spare=None)


def prepare(
    tables: Tables, config: Config, *, fitted: Model | None = None, continued: Continuation | None = None
) -> Prepared:
    """Fit target and encoder, and encode all rows.

    Parameters
    ----------
    continued : Continuation or None, a model that learns on from these rows: its target and its encoder, with what is
        new in the rows, are taken
    fitted : Model or None, whose target, encoder and class weights are taken; None: they are fitted. Without
        `encoder_rows` the encoder sees the rows that teach, at first or in the end.

    Raises
    ------
    DataError, ConfigError : bad columns, labels, weights or settings, each with its sentence

    Warns
    -----
    DataWarning : `refit` was asked for, but the validation rows are somebody's own
    """
    began = time.perf_counter()
    table, schema = tables.table, tables.schema
    fitted = continued.model if continued is not None else fitted
    if fitted is None:
        target = Target.fit(table.labels, task=config.train.task, name=tables.target).as_written(tables.written)
        schema = finer(schema, config.data, task_of(target).name)
    else:
        target = fitted.target
    task, codes = task_of(target), target.encode(table.labels, table.source.reading or PLAIN)
    weight = row_weights(table.weight, len(codes))
    if fitted is None:
        per_class = task.class_weights(config.train.class_weight, codes, weight)
    else:
        per_class = None if fitted.facts.class_weights is None else np.array(fitted.facts.class_weights)
    weight = weight if per_class is None else weight * per_class[codes]
    tables = replace(tables, split=_grouped(tables, config))
    check_negative_rate(config, task)
    train_rows, valid_rows, folds = _chosen_rows(tables, codes, weight, config, target.classes, fitted)
    rate = config.train.negative_rate
    train_rows = train_rows[kept_negatives(train_rows, codes[train_rows], rate, config.train.seed)]
    asked = tables.valid is not None or rate < 1 or (tables.split.valid is not None and tables.own_valid)
    spare = valid_rows if folds is None and config.train.refit is not False and not asked else None
    if config.train.refit is True and asked and rate == 1 and folds is None:
        sentence = "refit=True, but the validation rows were given: they only stop the training, and never teach."
        warnings.warn(sentence, DataWarning, stacklevel=2)
    if fitted is None:
        check_all_classes(task, np.bincount(codes[train_rows]) if task.is_classification else (), config)
    source = table.source.kept([column.name for column in schema.inputs])  # a small file is read once
    encoder_rows = tables.encoder_rows
    if encoder_rows is None:
        encoder_rows = train_rows if spare is None else np.union1d(train_rows, spare)
    seed = config.train.seed
    start = None
    if continued is not None:
        counting = partial(Encoder.counting, schema, seed=seed)
        start = started(continued, _fitted_encoder(counting, source, encoder_rows, len(codes)))
        encoder = start.model.encoder
    elif fitted is not None:
        encoder = fitted.encoder
    else:
        encoder = _fitted_encoder(partial(Encoder.fit, schema, seed=seed), source, encoder_rows, len(codes))
    rows = _examples(encoder, source, codes, weight)
    train, grouping = _part(rows, train_rows), tables.split.grouping.take(train_rows)
    without_valid = valid_rows is None and tables.valid is None and folds is None
    if without_valid and len(train_rows) < LEAST_ROWS_TO_SPLIT:
        train, grouping = _merge_equal_rows(train, weight[train_rows], grouping)

    def held_out(numbers: RowNumbers | None, given: LabelledTable | None) -> Dataset | None:
        if given is not None:
            labels = target.encode(given.labels, given.source.reading or PLAIN)
            weights = row_weights(given.weight, len(labels)) * (1.0 if per_class is None else per_class[labels])
            return InMemoryDataset(_examples(encoder, given.source, labels, weights))
        return InMemoryDataset(_part(rows, numbers)) if numbers is not None and len(numbers) else None

    valid, test = held_out(valid_rows, tables.valid), held_out(tables.split.test, tables.test)
    data = TrainingData(task, InMemoryDataset(train), valid, encoder.neighbours(), grouping)
    seconds = time.perf_counter() - began
    return Prepared(
        schema, encoder, target, data, test, per_class, len(train_rows), seconds, folds, train_rows, spare,
        BY_CHANCE if spare is None else tables.split.grouping.take(spare), start,
    )  # fmt: skip


def check_all_classes(task: Task, training_rows: Sequence[float] | NDArray[Any], config: Config) -> None:
    """Raise TargetError where a class has no training rows; training_rows : of each class, up to the last with any."""
    lacking = [
        label for code, label in enumerate(task.classes) if code >= len(training_rows) or not training_rows[code]
    ]
    if lacking:
        advice = "Give more rows of it."
        by = None if config.train.split is None else split_by(config.train.split)
        if isinstance(by, TimeSplit):
            advice = f"Rows are split by the time in '{by.column}': give earlier rows of it."
        raise TargetError(f"Target '{task.target}': no training row has the class {lacking[0]!r}. {advice}")


def check_negative_rate(config: Config, task: Task) -> None:
    """Raise ConfigError where a share of the negatives is to be kept, and there are no two classes."""
    if config.train.negative_rate < 1 and task.name != "binary":
        raise ConfigError(f"negative_rate={config.train.negative_rate:g} is for two classes: the task is {task.name}.")


def finer(schema: Schema, config: DataConfig, task: TaskName) -> Schema:
    """Return the schema with finer bins for a regression, in the columns whose bins nobody chose."""
    if task != "regression" or config.max_bins != "auto":
        return schema
    columns = tuple(
        column.model_copy(update={"max_bins": BINS_OF_REGRESSION})
        if column.bins == "quantile" and "max_bins" not in config.columns.get(column.name, {})
        else column
        for column in schema.columns
    )
    return schema.model_copy(update={"columns": columns})


def _grouped(tables: Tables, config: Config) -> Split:
    """Return the split with the times or groups of the rows, where the settings have a column of them."""
    split, by = tables.split, config.train.split
    if by is None or not split.grouping.by_chance:
        return split
    return replace(split, grouping=grouping_in(tables.table.source, tables.schema, split_by(by)))


def _chosen_rows(
    tables: Tables, codes: NDArray[Any], weight: Weights, config: Config, classes: Sequence[Label] | None,
    fitted: Model | None,
) -> tuple[RowNumbers, RowNumbers | None, Folds | None]:  # fmt: skip
    """Return the rows to train on, those to stop by, and the folds of the former where several models are trained.

    Without folds some are held out to stop by if none are given. Rows without weight are not trained on.
    """
    train_rows, valid_rows, test_rows = tables.split.train, tables.split.valid, tables.split.test
    if train_rows is None:
        others = [rows for rows in (valid_rows, test_rows) if rows is not None]
        train_rows = np.setdiff1d(np.arange(len(codes)), np.concatenate([np.empty(0, np.int64), *others]))
    train_rows = train_rows[weight[train_rows] > 0]
    if len(train_rows) == 0:
        raise TargetError("All sample weights of the training rows are zero: give at least one row a weight above 0.")
    settings, grouping = config.train, tables.split.grouping
    own = valid_rows is not None and tables.own_valid
    joined = train_rows if own or valid_rows is None else np.union1d(train_rows, valid_rows[weight[valid_rows] > 0])
    models = choose_models(config, tables.schema, len(joined)) if fitted is None else fitted.facts.models or 1
    enough = fitted is None or len(joined) >= LEAST_ROWS_TO_SPLIT  # fewer new rows are learned by all models
    if models > 1 and enough and settings.negative_rate == 1:  # rows that are not kept can't be judged out of fold
        folds = cut_into_folds(grouping.take(joined), codes[joined], classes=classes, models=models, seed=settings.seed)
        if folds is not None:
            return joined, valid_rows if own else None, folds
    if settings.early_stopping and valid_rows is None and tables.valid is None:
        train, valid = hold_out(
            train_rows, codes, classes=classes, fraction=settings.validation_fraction, seed=settings.seed,
            grouping=grouping,
        )  # fmt: skip
        return train, valid, None
    return train_rows, valid_rows, None


def _fitted_encoder(fit: _FitEncoder, source: Source, rows: RowNumbers, total: int) -> Encoder:
    try:
        return fit(_selected(source, rows, total))
    except DataError:
        # Rows are numbered within the training rows there; read all of the table for numbers that people can find.
        fit(source.batches())
        raise


def _selected(source: Source, rows: RowNumbers, total: int) -> Iterator[pa.RecordBatch]:
    """Yield the source's record batches with the given rows only, in the table's order."""
    keep, start = np.zeros(total, bool), 0
    keep[rows] = True
    for batch in source.batches():
        mask = keep[start : start + batch.num_rows]
        start += batch.num_rows
        yield batch if mask.all() else batch.filter(pa.array(mask))


def _examples(encoder: Encoder, source: Source, codes: NDArray[Any], weight: Weights) -> Examples:
    """Return all rows of a source, encoded, with their target codes or values and their weights."""
    parts, first = [], 0
    unknown = UnknownValues(encoder)
    for columns in source.batches():
        parts.append(encoder.transform(columns, first_row=first, reading=source.reading))
        unknown.observe(parts[-1], columns, first)
        first += columns.num_rows
    unknown.warn()
    weights = torch.from_numpy(weight.astype(np.float32))
    return Examples(Batch.concatenate(parts), torch.from_numpy(codes), weights)


def _part(examples: Examples, rows: RowNumbers) -> Examples:
    if len(rows) == len(examples) and np.array_equal(rows, np.arange(len(rows))):
        return examples
    return examples.take(torch.from_numpy(rows))


def _merge_equal_rows(examples: Examples, weight: Weights, grouping: Grouping) -> tuple[Examples, Grouping]:
    """Return distinct rows with their summed weights, where each field has one feature, and their times or groups.

    A row of weight 2 and two equal rows then train the same model to the last bit. Only tables of a few rows, where
    one row is felt, are worth it.
    """
    rows, target = examples.rows, examples.target
    if rows.offsets is not None:
        return examples, grouping
    values = np.ones((len(target), 0)) if rows.values is None else rows.values.numpy()
    apart = [known for known in (grouping.groups, grouping.times) if known is not None]
    places = [np.unique(known, return_inverse=True)[1].reshape(-1, 1) for known in apart]
    key = np.hstack([rows.ids.numpy().astype(np.float64), values, target.numpy()[:, None], *places])
    _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    summed = np.bincount(inverse.ravel(), weight)
    kept = torch.from_numpy(first)
    merged = Examples(rows.take(kept), target[kept], torch.from_numpy(summed.astype(np.float32)))
    return merged, grouping.take(first)


def row_weights(weight: NDArray[np.floating[Any]] | None, rows: int) -> Weights:
    """Return the weight of each row, (rows,), 1 where none is given; raise TargetError for bad ones."""
    if weight is None:
        return np.ones(rows)
    weights: Weights = np.asarray(weight, np.float64)
    if weights.shape != (rows,):
        raise TargetError(f"sample_weight has the shape {weights.shape}, expected ({rows},): one weight for each row.")
    bad = ~np.isfinite(weights) | (weights < 0)
    if bad.any():
        row = int(bad.argmax())
        raise TargetError(
            f"sample_weight: {bad.sum()} of {rows} weights are negative or not finite (first: {weights[row]}, "
            f"row {row}). Give weights of at least 0."
        )
    return weights
