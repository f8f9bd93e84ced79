"""How strongly and how slowly a model learns: what suits a table is tried, and the validation rows decide."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attfm.config import Config
from attfm.data.cache import CachedDataset
from attfm.data.codecs.codec import Field
from attfm.errors import TrainingError
from attfm.model.knots import has_knots, knots_of_rows
from attfm.model.modules import FactorizationMachine
from attfm.train.additive_start import RIDGE_OF_PAIRS, begins_additive
from attfm.train.losses import beyond_chance, scored
from attfm.train.observer import Observer
from attfm.train.prepare import Prepared
from attfm.train.trainer import STOPPED_ON_REQUEST, History, TrainingData

Floats = NDArray[np.float64]
Trained = tuple[FactorizationMachine, History]
TrainModule = Callable[[Prepared, Config, Observer], Trained]
MOST_ROWS = 50_000  # training rows that the choice is made on

# What suits a regression depends on its noise: dropout lets many ids share what they know, and blurs a price that the
# columns say to the cent; some prices differ from day to day, others rise with size, or fall from month to month while
# they jump with what is on sale (docs/defaults.md). The first is what the others have to be better than.
STRENGTHS: tuple[Mapping[str, Any], ...] = tuple(
    MappingProxyType(
        {"weight_dropout": dropout, "smoothness": smoothness, "knots": knots,
         "embedding_ridge": of_v, "linear_ridge": of_w}
    )
    for dropout, smoothness, knots, of_v, of_w in (
        (0.0, 1000.0, "auto", 10.0, 0.7),
        (0.0, 1000.0, "auto", 1.0, 0.07),
        (0.0, 1000.0, "auto", 30.0, 2.0),
        (0.0, 1000.0, 255, 10.0, 0.7),
        (0.0, 30.0, "auto", 3.0, 0.2),
        (0.4, 300.0, "auto", 30.0, 2.0),
    )
)  # fmt: skip
# A classification that is at its best after so few epochs was learned too fast to be stopped in time. It is learned
# again at a slower rate.
FAST_EPOCHS = 3
SLOW_RATE = 0.0005
_STEPS = 30  # to the best intercepts, of which each takes away most of what is left
# Dropout pulls a pair effect towards 0 by the same share however many rows tell of it: it is as strong as so many more
# rows that say 0. Up to this many training rows of a classification it is the usual one, of more as many rows' worth.
DROPOUT_ROWS = 100_000
# The ridge of V of a plain FM, whose pair effects have neither gate nor attention to make them larger than V does.
RIDGE_OF_FM = 10.0


def suited(prepared: Prepared, config: Config) -> Config:
    """Return the settings of a classification with what suits its number of training rows and its formula."""
    rows, model, train = len(prepared.data.train), config.model, config.train
    if not model.pairs or not prepared.data.task.is_classification or prepared.start is not None:
        return config
    if rows > DROPOUT_ROWS and model.weight_dropout == "auto":
        usual = float(model.of_task(prepared.data.task.name).weight_dropout)
        model = model.model_copy(update={"weight_dropout": round(usual * DROPOUT_ROWS / rows, 4)})
    if train.embedding_ridge == "auto":
        plain = not model.attention and not model.pair_gate
        if begins_additive(train.of_task(prepared.data.task.name), prepared.data, prepared.encoder.fields):
            train = train.model_copy(update={"embedding_ridge": RIDGE_OF_PAIRS})
        elif plain:
            train = train.model_copy(update={"embedding_ridge": RIDGE_OF_FM})
    return config.model_copy(update={"model": model, "train": train})


def choose_strength(
    prepared: Prepared, config: Config, observer: Observer, train_module: TrainModule
) -> tuple[Config, Trained | None]:
    """Return the settings that suit the validation rows best of those tried, and what was trained with them.

    Of a regression the first strength is kept unless another is better beyond chance. Where the
    validation rows are later ones, the slower rate of classes has to be better at its best intercept too: they may have
    another base rate, and what was stopped before it had learned anything is never far out then.

    There is nothing to choose by another method than Adam, without validation rows, where a model learns on, and where
    the settings say all that there is to choose. What was trained is None then, and where the choice was made on a part
    of the rows.
    """
    data = prepared.data
    choosable = config.train.optimizer == "adam" and config.train.early_stopping and data.valid is not None
    choosable = choosable and prepared.start is None  # one that learns on was chosen before
    strengths = candidates(config, prepared.encoder.fields, len(data.train))
    if not choosable or (not data.task.is_classification and len(strengths) == 1):
        return config, None
    rows = len(data.train)
    some = prepared
    if rows > MOST_ROWS and not data.task.is_classification:
        kept = np.sort(np.random.default_rng(config.train.seed).choice(rows, MOST_ROWS, replace=False))
        data = replace(data, train=data.train.take(kept), grouping=data.grouping.take(kept))
        if isinstance(data.valid, CachedDataset) and len(data.valid) > MOST_ROWS:  # they may not all fit in memory
            kept = np.sort(np.random.default_rng(config.train.seed).choice(len(data.valid), MOST_ROWS, replace=False))
            data = replace(data, valid=data.valid.take(kept))
        some = replace(prepared, data=data)
    best: tuple[float, Config, Trained] | None = None
    usual: Floats | None = None
    tried: list[History] = []
    for candidate in _classifying(config, tried) if data.task.is_classification else strengths:
        try:
            module, history = train_module(some, candidate, observer)
        except TrainingError as error:
            failed = error
            continue  # its loss was not finite
        tried.append(history)
        loss = history.epochs[history.best_epoch - 1].valid_loss
        if best is None:
            best = (np.inf if loss is None else loss), candidate, (module, history)
            usual = None if data.task.is_classification else _losses(module, data)
        elif loss is not None and loss < best[0] and _is_better(module, best[2][0], usual, data):
            best = loss, candidate, (module, history)
        if history.stopped == STOPPED_ON_REQUEST:
            break
    if best is None:
        raise failed
    return best[1], best[2] if some is prepared else None


def _is_better(
    module: FactorizationMachine, than: FactorizationMachine, usual: Floats | None, data: TrainingData
) -> bool:
    """Return whether a lower loss counts; usual : losses of the first strength of a regression, None of classes."""
    if usual is not None:
        return beyond_chance(usual - _losses(module, data))
    if data.grouping.times is None:
        return True
    return _loss_at_best_intercept(module, data) < _loss_at_best_intercept(than, data)


def _losses(module: FactorizationMachine, data: TrainingData) -> Floats:
    """Return the losses of the validation rows, (rows,), whose sum is their mean."""
    if data.valid is None:
        raise ValueError("there are no rows to choose by")
    logits, target, weight = scored(module, data.valid)
    return (data.task.row_losses(logits, target).double() * weight.double() / weight.double().sum()).numpy()


def _loss_at_best_intercept(module: FactorizationMachine, data: TrainingData) -> float:
    """Return the mean log loss of the validation rows with the intercepts that make it least."""
    if data.valid is None:
        raise ValueError("there are no rows to choose by")
    logits, target, weight = (tensor.double() for tensor in scored(module, data.valid))
    every = torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits
    of_class, share = target.long(), weight / weight.sum()
    wanted = torch.zeros_like(every[0]).index_add(0, of_class, share)
    for _ in range(_STEPS):  # each makes the mean probabilities more like the shares of the classes
        every = every + torch.log(wanted.clamp(min=1e-12) / (share @ every.softmax(1)))
    return float(-(share @ every.log_softmax(1).gather(1, of_class[:, None])).sum())


def _classifying(config: Config, tried: list[History]) -> Iterator[Config]:
    """Yield the settings as they are and then, where those were learned too fast, with a slower rate.

    What began with its main effects may be at its best at once.
    """
    yield config
    if config.train.learning_rate != "auto" or not tried or tried[0].additive_start:
        return
    worse = len(tried[0].epochs) - tried[0].best_epoch
    if tried[0].best_epoch <= FAST_EPOCHS and worse >= int(config.train.of_task("binary").patience):
        yield config.model_copy(update={"train": config.train.model_copy(update={"learning_rate": SLOW_RATE})})


def candidates(config: Config, fields: Sequence[Field], rows: int) -> list[Config]:
    """Return the settings of a regression with each of the strengths in place of what is "auto", none twice.

    What makes no difference is left as it is: smoothness where no field's bins have an order, and the number of knots
    where none has more bins than so many training rows have knots.
    """
    idle = set[str]() if any(field.ordered for field in fields) else {"smoothness"}
    if not has_knots(fields, knots_of_rows(rows)):
        idle.add("knots")
    found: list[Config] = []
    for strength in STRENGTHS:
        free: dict[str, Any] = {
            section: {
                name: value
                for name, value in strength.items()
                if getattr(settings, name, None) == "auto" and name not in idle
            }
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
