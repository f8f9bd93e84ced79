"""How strongly a regression is regularised: a few strengths are tried, and the validation loss decides."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from attfm.config import Config
from attfm.errors import TrainingError
from attfm.model.modules import FactorizationMachine
from attfm.train.observer import Observer
from attfm.train.prepare import Prepared
from attfm.train.trainer import STOPPED_ON_REQUEST, History

Trained = tuple[FactorizationMachine, History]
TrainModule = Callable[[Prepared, Config, Observer], Trained]
MOST_ROWS = 50_000  # training rows that the choice is made on

# What suits a regression depends on its noise: dropout lets many ids share what they know, and blurs a price that the
# columns say to the cent (docs/defaults.md).
STRENGTHS: tuple[Mapping[str, float], ...] = tuple(
    MappingProxyType({"weight_dropout": dropout, "smoothness": smoothness})
    for dropout, smoothness in ((0.4, 300.0), (0.0, 1000.0), (0.0, 10_000.0))
)


def choose_strength(
    prepared: Prepared, config: Config, observer: Observer, train_module: TrainModule
) -> tuple[Config, Trained | None]:
    """Return the settings with the strengths that gave the lowest validation loss, and what was trained with them.

    There is nothing to choose of a classification, by another method than Adam, without validation rows, and where the
    settings say both strengths. What was trained is None then, and where the choice was made on a part of the rows.
    """
    tried, data = candidates(config), prepared.data
    if data.task.is_classification or config.train.optimizer != "adam" or data.valid is None or len(tried) == 1:
        return config, None
    rows = len(prepared.data.train)
    some = prepared
    if rows > MOST_ROWS:
        kept = np.sort(np.random.default_rng(config.train.seed).choice(rows, MOST_ROWS, replace=False))
        data = replace(prepared.data, train=prepared.data.train.take(kept), grouping=prepared.data.grouping.take(kept))
        some = replace(prepared, data=data)
    best: tuple[float, Config, Trained] | None = None
    for candidate in tried:
        try:
            module, history = train_module(some, candidate, observer)
        except TrainingError:
            if candidate is tried[-1] and best is None:
                raise
            continue  # its loss was not finite
        loss = history.epochs[history.best_epoch - 1].valid_loss
        if best is None or (loss is not None and loss < best[0]):
            best = (np.inf if loss is None else loss), candidate, (module, history)
        if history.stopped == STOPPED_ON_REQUEST:
            break
    assert best is not None  # there are two candidates or more
    return best[1], best[2] if some is prepared else None


def candidates(config: Config) -> list[Config]:
    """Return the settings with each of the strengths in place of what is "auto", none twice."""
    found: list[Config] = []
    for strength in STRENGTHS:
        free: dict[str, Any] = {
            section: {name: value for name, value in strength.items() if getattr(settings, name, None) == "auto"}
            for section, settings in (("model", config.model), ("train", config.train))
        }
        candidate = config.model_copy(
            update={
                "model": config.model.model_copy(update=free["model"]),
                "train": config.train.model_copy(update=free["train"]),
            }
        )
        if candidate not in found:
            found.append(candidate)
    return found
