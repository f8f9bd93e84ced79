"""How many models are cross-fitted, and on which folds: what `n_models` says, or else what can be afforded."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.config import Config
from attfm.data.codecs import KINDS
from attfm.data.folds import Folds, Grouping
from attfm.data.schema import Schema
from attfm.data.split import LEAST_ROWS_TO_SPLIT, lone_rows
from attfm.data.target import Label
from attfm.errors import ConfigError, DataWarning

AUTO_MODELS = 8
LEAST_ROWS, MOST_ROWS = 500, 12_000  # between which several models are trained without being asked for
# Rows times effects of a row. Eight fits are some 240 epochs, of 0.1 s for about 40 steps and 15 ns for each effect of
# a row: with this many they take about a minute on two cores. No clock is asked: equal tables get equal models.
_MOST_WORK = 1e7
_USUAL_HIDDEN = 256  # dim times attention_dim of the defaults


def choose_models(config: Config, schema: Schema, rows: int) -> int:
    """Return how many models are trained on so many rows: as set, or for "auto" 8 where they take about a minute.

    Parameters
    ----------
    config : Config
        Without early stopping there is one model, for the folds are what stops the models.
    schema : Schema, the columns, whose number says how long a fit takes
    rows : int, to be trained on and held out

    Warns
    -----
    DataWarning : several models were asked for, but there is nothing to stop them by
    """
    asked = config.train.n_models
    few = rows < LEAST_ROWS_TO_SPLIT
    if few or not config.train.early_stopping:
        if asked not in ("auto", 1):
            why = f"{rows} rows are too few for folds" if few else "early stopping is off"
            warnings.warn(f"n_models={asked}, but {why}: one model is trained.", DataWarning, stacklevel=2)
        return 1
    if asked != "auto":
        return asked
    fields = sum(len(KINDS[column.kind].field_names(column)) for column in schema.inputs)
    hidden = max(config.model.dim * config.model.attention_dim / _USUAL_HIDDEN, 1.0)
    effects = fields + (hidden * fields * (fields - 1) / 2 if config.model.pairs else 0)
    affordable = LEAST_ROWS <= rows <= MOST_ROWS and rows * effects <= _MOST_WORK
    return AUTO_MODELS if affordable else 1


def cut_into_folds(
    grouping: Grouping, codes: NDArray[Any], *, classes: Sequence[Label] | None, models: int, seed: int
) -> Folds | None:
    """Return the folds of some rows, one for each model; None where there can't be two.

    A row that is alone in its class is in no fold, number -1: all models are trained on it.

    Parameters
    ----------
    grouping : Grouping, what must stay together in the rows, or their times
    codes : (rows,) class codes, or the values of a regression
    classes : the labels of the codes; None of a regression
    models, seed : how many folds, and what they are drawn by

    Raises
    ------
    ConfigError : more models than rows
    """
    lone = lone_rows(codes, classes)
    others = np.delete(np.arange(len(codes)), lone)
    if models > len(others):
        raise ConfigError(f"n_models={models}, but there are {len(others)} rows to cut into folds: set it lower.")
    strata = None if classes is None else codes[others]
    folds = grouping.take(others).folds(len(others), models, seed, strata)
    if folds.count < 2:
        return None
    number = np.full(len(codes), -1)
    number[others] = folds.number
    return Folds(number, folds.ordered)
