"""From raw columns to a trained model: split, encode, train, measure."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from attfm.config import Config, Task
from attfm.data.batch import EncodedBatch
from attfm.data.encoder import Encoder
from attfm.data.schema import Schema
from attfm.data.sources.source import Source
from attfm.data.split import LEAST_ROWS_TO_SPLIT, hold_out
from attfm.data.target import Target
from attfm.errors import ConfigError, DataError, TargetError
from attfm.explain.training import summarise
from attfm.metrics.scores import evaluate
from attfm.model.bundle import Model
from attfm.model.rows import Rows
from attfm.train.refit import OnRefit, bootstrap_refits, train_module
from attfm.train.trainer import Examples, History, OnBatch, OnEpoch

Weights = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class LabelledTable:
    """A table with its labels.

    source : the columns; labels : (rows,) Arrow array of raw labels; weight : (rows,) of each row, or None
    """

    source: Source
    labels: pa.ChunkedArray
    weight: Weights | None = None


@dataclass(frozen=True)
class Fitted:
    """What `fit` returns: the model, its learning curve, and the encoded examples of each part."""

    model: Model
    history: History
    train: Examples
    valid: Examples | None
    test: Examples | None


def fit(
    table: LabelledTable,
    *,
    schema: Schema,
    config: Config,
    target_name: str = "target",
    train_rows: NDArray[np.int64] | None = None,
    valid_rows: NDArray[np.int64] | None = None,
    test_rows: NDArray[np.int64] | None = None,
    valid_table: LabelledTable | None = None,
    test_table: LabelledTable | None = None,
    encoder_rows: NDArray[np.int64] | None = None,
    on_epoch: OnEpoch | None = None,
    on_batch: OnBatch | None = None,
    on_refit: OnRefit | None = None,
) -> Fitted:
    """Fit encoder, target and module.

    Parameters
    ----------
    table : all rows
    schema : what each column is
    train_rows, valid_rows, test_rows : row numbers of `table` to train on, to stop by and to set aside; None: all but
        the others, none, none
    valid_table, test_table : a second table to stop by, and one to set aside
    encoder_rows : rows that the encoder is fitted on; None: the training rows
    on_epoch, on_batch : see `attfm.train.trainer.train`; on_refit : see `attfm.train.refit.bootstrap_refits`

    Without validation rows a part of the training rows (`validation_fraction`) is held out if early stopping is on.
    Without `encoder_rows` the encoder sees training rows only. The model gets a summary of its effects on the training
    rows, for its explanations; with `n_bags` also of refits on bootstrap samples of the training rows.
    """
    started = time.perf_counter()
    target = Target.fit(table.labels, task=config.train.task, name=target_name)
    codes = target.encode(table.labels)
    weight = row_weights(table.weight, len(codes), target_name)
    per_class = _class_weights(config, target, codes, weight)
    weight = weight if per_class is None else weight * per_class[codes]
    train_rows, valid_rows = chosen_rows(
        codes, weight, target.task, config, train_rows=train_rows, valid_rows=valid_rows, test_rows=test_rows,
        hold_some_out=valid_table is None,
    )  # fmt: skip
    if target.classes is not None and len(np.unique(codes[train_rows])) < len(target.classes):
        missing = target.classes[int(np.setdiff1d(np.arange(len(target.classes)), codes[train_rows])[0])]
        raise TargetError(f"Target '{target_name}': no training row has the class {missing!r}. Give more rows of it.")

    known_rows = train_rows if encoder_rows is None else encoder_rows
    try:
        encoder = Encoder.fit(schema, selected(table.source, known_rows, len(codes)), seed=config.train.seed)
    except DataError:
        # Rows are numbered within the training rows there; read all of the table for numbers that people can find.
        Encoder.fit(schema, table.source.batches(), seed=config.train.seed)
        raise
    encoded = encode(encoder, table.source)
    train_part = select_examples(encoded, codes, weight, train_rows, merge=valid_rows is None and valid_table is None)

    def part(rows: NDArray[np.int64] | None, other: LabelledTable | None) -> Examples | None:
        if other is not None:
            return examples_of(other, encoder, target, per_class)
        return select_examples(encoded, codes, weight, rows) if rows is not None and len(rows) else None

    valid_part, test_part = part(valid_rows, valid_table), part(test_rows, test_table)
    module, history = train_module(
        encoder, target, config, train_part, valid_part, on_epoch=on_epoch, on_batch=on_batch
    )
    training = {
        "training_rows": len(train_rows),
        "validation_rows": 0 if valid_part is None else len(valid_part),
        "features": encoder.n_features,
        "fields": len(encoder.fields),
        "epochs": len(history.epochs),
        "best_epoch": history.best_epoch,
        "stopped": history.stopped,
        "seconds": round(time.perf_counter() - started, 3),
    }
    if per_class is not None and target.classes is not None:
        training["class_weights"] = [float(w) for w in per_class]  # in the order of the target's classes
    bags = bootstrap_refits(
        encoder, target, config, train_part, valid_part, on_refit=on_refit, on_epoch=on_epoch, on_batch=on_batch
    )
    model = Model(schema, encoder, target, module, config, history=history.records(), training=training)
    model.background = summarise(module, encoder, train_part.rows, bags=bags)
    return Fitted(model, history, train_part, valid_part, test_part)


def chosen_rows(
    codes: NDArray[Any],
    weight: Weights,
    task: Task,
    config: Config,
    *,
    train_rows: NDArray[np.int64] | None,
    valid_rows: NDArray[np.int64] | None,
    test_rows: NDArray[np.int64] | None,
    hold_some_out: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Return the rows that `fit` trains on and those that it stops by: some are held out if none are given.

    codes : (rows,) of the target; weight : (rows,); rows without weight are not trained on
    """
    if train_rows is None:
        others = [rows for rows in (valid_rows, test_rows) if rows is not None]
        train_rows = np.setdiff1d(np.arange(len(codes)), np.concatenate([np.empty(0, np.int64), *others]))
    train_rows = train_rows[weight[train_rows] > 0]
    if len(train_rows) == 0:
        raise TargetError("All sample weights of the training rows are zero: give at least one row a weight above 0.")
    if config.train.early_stopping and valid_rows is None and hold_some_out:
        return hold_out(
            train_rows, codes, stratify=task != "regression", fraction=config.train.validation_fraction,
            seed=config.train.seed,
        )  # fmt: skip
    return train_rows, valid_rows


def selected(source: Source, rows: NDArray[np.int64], total: int) -> Iterator[pa.RecordBatch]:
    """Yield the source's record batches with the given rows only, in the table's order."""
    keep, start = np.zeros(total, bool), 0
    keep[rows] = True
    for batch in source.batches():
        mask = keep[start : start + batch.num_rows]
        start += batch.num_rows
        yield batch if mask.all() else batch.filter(pa.array(mask))


def encode(encoder: Encoder, source: Source) -> EncodedBatch:
    """Return all rows of a source, encoded."""
    parts, row = [], 0
    for batch in source.batches():
        parts.append(encoder.transform(batch, first_row=row))
        row += batch.num_rows
    return EncodedBatch.concatenate(parts)


def measure(model: Model, examples: Examples) -> dict[str, float]:
    """Return the metrics of encoded examples; see `attfm.metrics.scores`."""
    logits = model.module.predict(examples.rows).numpy().astype(np.float64)
    return evaluate(
        model.task, examples.target.numpy(), model.scores(logits), examples.weight.numpy().astype(np.float64),
        threshold=model.config.train.threshold,
    )  # fmt: skip


def examples_of(
    table: LabelledTable, encoder: Encoder, target: Target, per_class: NDArray[np.float64] | None
) -> Examples:
    """Return all rows of a table as a fitted encoder and target see them; per_class : (classes,) weights, or None."""
    codes = target.encode(table.labels)
    weight = row_weights(table.weight, len(codes), target.name)
    weight = weight if per_class is None else weight * per_class[codes]
    return select_examples(encode(encoder, table.source), codes, weight, np.arange(len(codes)))


def select_examples(
    encoded: EncodedBatch,
    codes: NDArray[Any],
    weight: Weights,
    rows: NDArray[np.int64],
    *,
    merge: bool = False,
) -> Examples:
    """Return some of the encoded rows with their targets and weights; merge : equal rows of a tiny table as one."""
    part = Rows.from_encoded(encoded)
    target, weights = codes[rows], weight[rows]
    if len(rows) != len(encoded) or not np.array_equal(rows, np.arange(len(rows))):
        part = part.take(torch.from_numpy(rows))
    if merge and len(rows) < LEAST_ROWS_TO_SPLIT and not part.bags:
        part, target, weights = _merge_equal_rows(part, target, weights)
    return Examples(part, torch.from_numpy(target), torch.from_numpy(weights.astype(np.float32)))


def _merge_equal_rows(
    rows: Rows, target: NDArray[Any], weight: Weights
) -> tuple[Rows, NDArray[Any], NDArray[np.float64]]:
    """Return distinct rows with their summed weights.

    A row of weight 2 and two equal rows then train the same model to the last bit. Only tables of a few rows, where
    one row is felt, are worth it.
    """
    values = np.ones((len(target), 0)) if rows.values is None else rows.values.numpy()
    key = np.hstack([rows.ids.numpy().astype(np.float64), values, target[:, None]])
    _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    summed = np.bincount(inverse.ravel(), weight).astype(np.float64)
    return rows.take(torch.from_numpy(first)), target[first], summed


def row_weights(weight: Weights | None, rows: int, target_name: str) -> NDArray[np.float64]:
    """Return the weight of each row, (rows,), 1 where none is given; raise TargetError for bad ones."""
    if weight is None:
        return np.ones(rows)
    weights: NDArray[np.float64] = np.asarray(weight, np.float64)
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


def _class_weights(config: Config, target: Target, codes: NDArray[Any], weight: Weights) -> NDArray[np.float64] | None:
    """Return the weight of each class, (classes,), or None where the settings have none."""
    setting = config.train.class_weight
    if setting is None:
        return None
    if target.classes is None:
        raise ConfigError("Setting 'class_weight' is for classification: remove it for a regression.")
    if setting == "balanced":
        total = np.bincount(codes, weight, minlength=len(target.classes))
        return np.asarray(total.sum() / (len(target.classes) * np.maximum(total, 1e-300)), np.float64)
    names = [str(name) for name in target.classes]
    unknown = sorted(set(setting) - set(names))
    if unknown:
        raise ConfigError(f"Setting 'class_weight' names the class '{unknown[0]}', the target has {', '.join(names)}.")
    return np.array([setting.get(name, 1.0) for name in names])
