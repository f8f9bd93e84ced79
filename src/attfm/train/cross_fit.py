"""Cross-fitted models: each is trained on all folds of the rows but one, and stopped by that one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from attfm.config import Config
from attfm.data.batch import Batch
from attfm.data.folds import Folds
from attfm.model.ensemble import Ensemble
from attfm.model.modules import FactorizationMachine
from attfm.train.observer import Observer
from attfm.train.prepare import Prepared
from attfm.train.trainer import STOPPED_ON_REQUEST, History

Floats = NDArray[np.float64]
TrainModule = Callable[[Prepared, Config, Observer], tuple[FactorizationMachine, History]]


@dataclass(frozen=True)
class CrossFitted:
    """The models of all folds as one.

    histories : of each model
    out_of_fold : float64 (training rows, outputs), logits (or predictions of a regression) of the rows, each by the
        model that was not trained on it; NaN of rows in no fold
    """

    module: Ensemble
    histories: tuple[History, ...]
    out_of_fold: Floats


def cross_fit(
    prepared: Prepared,
    config: Config,
    observer: Observer,
    train_module: TrainModule,
    known: Mapping[int, tuple[FactorizationMachine, History]] = MappingProxyType({}),
) -> CrossFitted:
    """Return a model for each of the `prepared.folds`, trained by `train_module` on the rows of the others.

    Those of some folds may be `known` already: they come first. Validation rows are not looked at: they are somebody's
    own measure. Where the observer asks to stop, the models that were not begun are left out.
    """
    if prepared.folds is None:
        raise ValueError("the rows are not cut into folds")
    number = prepared.folds.number
    machines, histories = list[FactorizationMachine](), list[History]()
    out_of_fold = np.full((len(number), len(prepared.data.task.outputs)), np.nan)
    folds = sorted(np.unique(number[number >= 0]).tolist(), key=lambda fold: fold not in known)
    for place, fold in enumerate(folds, start=1):
        held_out = np.flatnonzero(number == fold)
        if fold in known:
            module, history = known[fold]
        else:
            observer.on_model(place, len(folds))
            module, history = train_module(without_fold(prepared, fold), of_fold(config, fold), observer)
        out_of_fold[held_out] = module.predict(_rows(prepared, held_out)).double().numpy()
        machines.append(module)
        histories.append(history)
        if history.stopped == STOPPED_ON_REQUEST:
            break
    return CrossFitted(Ensemble(machines), tuple(histories), out_of_fold)


def without_fold(prepared: Prepared, fold: int) -> Prepared:
    """Return the rows of all other folds, and those of none, to train on, and those of this one to stop by."""
    if prepared.folds is None:
        raise ValueError("the rows are not cut into folds")
    train, held_out = (np.flatnonzero(mask) for mask in _sides(prepared.folds, fold))
    data = prepared.data
    parts = replace(
        data, train=data.train.take(train), valid=data.train.take(held_out), grouping=data.grouping.take(train)
    )
    start = None if prepared.start is None else prepared.start.of(fold)
    numbers = prepared.numbers[train]
    return replace(prepared, data=parts, training_rows=len(train), folds=None, numbers=numbers, start=start)


def of_fold(config: Config, fold: int) -> Config:
    """Return the settings of the model of a fold: with a seed of its own, which no other seed's folds have too."""
    seed = int(np.random.SeedSequence([config.train.seed, fold]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})


def _sides(folds: Folds, fold: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return folds.number != fold, folds.number == fold


def _rows(prepared: Prepared, numbers: NDArray[np.int64]) -> Batch:
    return Batch.concatenate([part.rows for part in prepared.data.train.take(numbers).ordered()])
