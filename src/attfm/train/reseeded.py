"""A model trained again with other seeds on the rows that it was trained on: how much of it is chance."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.errors import ConfigError
from attfm.explain.faithfulness import Refits
from attfm.explain.training import is_of
from attfm.model.bundle import Model
from attfm.train.fit import LabelledTable, chosen_rows, encode, examples_of, row_weights, select_examples
from attfm.train.refit import OnRefit, seed_refits
from attfm.train.trainer import OnBatch, OnEpoch


def refit_with_seeds(
    model: Model,
    table: LabelledTable,
    *,
    seeds: int,
    train_rows: NDArray[np.int64] | None = None,
    valid_rows: NDArray[np.int64] | None = None,
    valid_table: LabelledTable | None = None,
    advice: str = "Give the table of the training.",
    on_refit: OnRefit | None = None,
    on_epoch: OnEpoch | None = None,
    on_batch: OnBatch | None = None,
) -> Refits:
    """Return modules trained as the model was, with the same encoding and rows and other seeds.

    Parameters
    ----------
    table, train_rows, valid_rows, valid_table : as they were given to `attfm.train.fit.fit`; the same part is held out
    seeds : how many refits
    advice : ends the message where the table is another one
    on_refit, on_epoch, on_batch : see `attfm.train.refit.bootstrap_refits`

    Raises
    ------
    ConfigError : the rows are not those that the model was trained on
    """
    encoder, target, config = model.encoder, model.target, model.config
    codes = target.encode(table.labels)
    per_class = _class_weights(model.training)
    weight = row_weights(table.weight, len(codes), target.name)
    weight = weight if per_class is None else weight * per_class[codes]
    train_rows, valid_rows = chosen_rows(
        codes, weight, target.task, config, train_rows=train_rows, valid_rows=valid_rows, test_rows=None,
        hold_some_out=valid_table is None,
    )  # fmt: skip
    encoded = encode(encoder, table.source)
    alone = valid_rows is None and valid_table is None
    examples = select_examples(encoded, codes, weight, train_rows, merge=alone)
    if len(train_rows) != model.training["training_rows"] or not is_of(model.background, model, examples.rows):
        raise ConfigError(f"{table.source.name} does not hold the rows that the model was trained on. {advice}")
    valid = None
    if valid_table is not None:
        valid = examples_of(valid_table, encoder, target, per_class)
    elif valid_rows is not None and len(valid_rows):
        valid = select_examples(encoded, codes, weight, valid_rows)
    modules = seed_refits(
        encoder, target, config, examples, valid, seeds=seeds, on_refit=on_refit, on_epoch=on_epoch, on_batch=on_batch
    )
    return Refits(examples.rows, tuple(modules))


def _class_weights(training: dict[str, Any]) -> NDArray[np.float64] | None:
    weights = training.get("class_weights")
    return None if weights is None else np.array(weights)
