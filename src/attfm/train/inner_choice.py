"""How strongly and how slowly a model learns: what suits a table is tried, and the validation rows decide."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attfm.config import Config, TrainConfig
from attfm.data.cache import CachedDataset
from attfm.data.codecs.codec import Field
from attfm.errors import TrainingError
from attfm.model.knots import has_knots, knots_of_rows
from attfm.model.modules import FactorizationMachine
from attfm.train.additive_start import RIDGE_OF_PAIRS, begins_additive, may_begin_additive
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
    classes, rows = data.task.is_classification, len(data.train)
    strengths = [] if classes else candidates(config, prepared.encoder.fields, rows)
    if not choosable or len(strengths) == 1:
        return config, None
    some = prepared
    if rows > MOST_ROWS and not classes:
        kept = np.sort(np.random.default_rng(config.train.seed).choice(rows, MOST_ROWS, replace=False))
        data = replace(data, train=data.train.take(kept), grouping=data.grouping.take(kept))
        if isinstance(data.valid, CachedDataset) and len(data.valid) > MOST_ROWS:  # they may not all fit in memory
            kept = np.sort(np.random.default_rng(config.train.seed).choice(len(data.valid), MOST_ROWS, replace=False))
            data = replace(data, valid=data.valid.take(kept))
        some = replace(prepared, data=data)
    trials = _Trials(some, observer, train_module)
    if classes:
        trials.take(config)
        if _was_fast(trials.best()[1][1], config.train):
            trials.take(_with(config, learning_rate=SLOW_RATE))
    for strength in strengths:
        begins = strength.train.additive_start
        if begins == "auto" and trials.found:
            begins = trials.best()[0].train.additive_start
        trials.take(_with(strength, additive_start=begins))
    chosen, trained = trials.best()
    return chosen, trained if some is prepared else None


class _Trials:
    """What was trained with one setting after another, and the best of it; none is begun once the user has stopped."""

    def __init__(self, prepared: Prepared, observer: Observer, train_module: TrainModule) -> None:
        self._prepared, self._observer, self._train = prepared, observer, train_module
        self._best: tuple[float, Config, Trained] | None = None
        self._usual: Floats | None = None  # losses of the first strength of a regression
        self._failed: TrainingError | None = None
        self._stopped = False

    def take(self, candidate: Config) -> None:
        """Train with these settings, and keep what came of it where it is better."""
        if self._stopped:
            return
        data = self._prepared.data
        try:
            module, history = self._train(self._prepared, candidate, self._observer)
        except TrainingError as error:
            self._failed = error
            return  # its loss was not finite
        self._stopped = history.stopped == STOPPED_ON_REQUEST
        loss = history.epochs[history.best_epoch - 1].valid_loss
        if self._best is None:
            self._best = (np.inf if loss is None else loss), candidate, (module, history)
            self._usual = None if data.task.is_classification else _losses(module, data)
        elif loss is not None and loss < self._best[0] and _is_better(module, self._best[2][0], self._usual, data):
            self._best = loss, candidate, (module, history)

    @property
    def found(self) -> bool:
        """Whether anything was trained."""
        return self._best is not None

    def best(self) -> tuple[Config, Trained]:
        """Return the best settings and what was trained with them; raise the error where nothing was."""
        if self._best is None:
            raise self._failed or TrainingError("nothing was trained")
        return self._best[1:]


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


def _was_fast(history: History, config: TrainConfig) -> bool:
    """Return whether classes were learned too fast; what began with its main effects may be at its best at once."""
    if config.learning_rate != "auto" or history.additive_start is not None:
        return False
    worse = len(history.epochs) - history.best_epoch
    return history.best_epoch <= FAST_EPOCHS and worse >= int(config.of_task("binary").patience)


def _with(config: Config, **train: Any) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update=train)})


def candidates(config: Config, fields: Sequence[Field], rows: int) -> list[Config]:
    """Return the settings of a regression with each of the strengths in place of what is "auto", none twice.

    The first is tried with an additive start too, where it may have one; what is better of both is for the others.

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
    first = found[0].train
    if first.additive_start == "auto" and may_begin_additive(first.of_task("regression"), fields, rows, "regression"):
        found.insert(1, _with(found[0], additive_start=True))
    return found
