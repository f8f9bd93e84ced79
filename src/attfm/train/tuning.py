"""Settings found by trials: the space that is searched, and the search."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from attfm.config import Config, ModelConfig, TrainConfig
from attfm.errors import ConfigError, TrainingError
from attfm.model.facts import RunFacts, TuningFacts
from attfm.model.modules import FactorizationMachine
from attfm.train.fit import Fitted, fit, fit_prepared
from attfm.train.inner_choice import suited
from attfm.train.model_count import choose_models
from attfm.train.observer import Epoch, Observer
from attfm.train.prepare import Prepared, Tables, prepare
from attfm.train.refit import train_module
from attfm.train.statistics import enrich
from attfm.train.study import Study, open_study, require_optuna
from attfm.train.trainer import STOPPED_ON_REQUEST, History, choose_batch_size
from attfm.train.tuning_progress import TuningProgress

if TYPE_CHECKING:
    from optuna import Trial

DEFAULT_TRIALS = 30
_NO_MATTER = {
    "device",
    "backend",
    "n_bags",
    "n_models",
    "calibrate",
    "threshold",
}  # settings that change no validation loss

Value = int | float


def _always(config: Config, prepared: Prepared) -> bool:
    return True


def _of_pairs(config: Config, prepared: Prepared) -> bool:
    return config.model.pairs and len(prepared.encoder.fields) > 1


def _of_memory(config: Config, prepared: Prepared) -> bool:
    return config.model.memory_pairs != 0 and _of_pairs(config, prepared)


def _of_bins(config: Config, prepared: Prepared) -> bool:
    return len(prepared.data.neighbours) > 0


def _of_adam(config: Config, prepared: Prepared) -> bool:
    return config.train.optimizer == "adam"


def _of_others(config: Config, prepared: Prepared) -> bool:
    return config.train.optimizer != "adam"


@dataclass(frozen=True)
class Range:
    """Where a setting of the model or of training is looked for.

    Attributes
    ----------
    name : str, the setting
    low, high : float, both included
    log : bool, whether it is drawn by its logarithm
    step : int or None, for whole numbers: the distance between them
    usual : callable or None, of the number of training rows
        Gives the whole number that `low` and `high` are multiples of.
    matters : callable, of the settings and the prepared rows, whether it changes anything
    """

    name: str
    low: float
    high: float
    log: bool = False
    step: int | None = None
    usual: Callable[[int], int] | None = None
    matters: Callable[[Config, Prepared], bool] = _always

    def for_rows(self, rows: int) -> Range:
        """Return the range with its ends as they are for so many training rows."""
        if self.usual is None:
            return self
        usual = self.usual(rows)
        return Range(self.name, max(1, round(self.low * usual)), round(self.high * usual), log=self.log, step=1)

    def suggest(self, trial: Trial) -> Value:
        """Return the value that a trial is to have."""
        value: Value
        if self.step is not None:
            value = trial.suggest_int(self.name, int(self.low), int(self.high), step=self.step, log=self.log)
        else:
            value = trial.suggest_float(self.name, self.low, self.high, log=self.log)
        return value

    def described(self) -> list[Any]:
        """Return what makes it another range, as JSON values."""
        return [self.low, self.high, self.log, self.step]


# The settings that are tuned, a line each; the number of epochs is found by early stopping. All of them change training
# only: the table is encoded once.
SPACE = (
    Range("learning_rate", 1e-3, 2e-2, log=True, matters=_of_adam),
    Range("learning_rate", 1e-3, 0.3, log=True, matters=_of_others),
    Range("batch_size", 0.5, 4, log=True, usual=lambda rows: choose_batch_size("auto", rows)),
    Range("dim", 8, 32, step=8, matters=_of_pairs),
    Range("weight_dropout", 0.0, 0.7, matters=_of_pairs),
    Range("embedding_ridge", 1.0, 300.0, log=True, matters=_of_pairs),
    Range("linear_ridge", 0.05, 20.0, log=True),
    Range("memory_ridge", 1, 100, log=True, matters=_of_memory),
    Range("smoothness", 3.0, 30_000.0, log=True, matters=_of_bins),
)


@dataclass(frozen=True)
class Search:
    """What is asked of a tuning.

    Attributes
    ----------
    trials : int, how many the study has in the end, those of earlier calls included
    study : pathlib.Path or None, the SQLite file that keeps it; None: in memory
    given : names of settings that stay as they are
    """

    trials: int = DEFAULT_TRIALS
    study: Path | None = None
    given: Collection[str] = ()


@torch.inference_mode(False)
@torch.enable_grad()  # in a caller's torch.no_grad() or torch.inference_mode() too
def fit_tuned(
    tables: Tables,
    config: Config,
    search: Search,
    progress: TuningProgress,
    *,
    facts: RunFacts | None = None,
    measured: bool = False,
) -> Fitted:
    """Fit with the settings that give the lowest validation loss of all trials; else as `attfm.train.fit.fit`.

    The rows are prepared once. Validation rows alone decide; test rows are measured once, of the model that is kept.
    The first trial has the settings as they are given.

    Raises
    ------
    MissingExtraError : Optuna is not installed
    ConfigError : there are no validation rows, or nothing to tune; the study is of something else, or unusable
    TrainingError : no trial has a finite loss
    """
    require_optuna()  # before the work
    one_model = with_settings(config, {"n_models": 1})  # trials that are folds of one model take as much longer
    prepared = prepare(tables, one_model)
    best, tuning = tune(prepared, one_model, search, progress)
    progress.on_winner(tuning.best_trial)
    facts = (facts or RunFacts()).with_facts(tuning=tuning)
    best = with_settings(best, {"n_models": config.train.n_models})
    if choose_models(best, tables.schema, prepared.training_rows + len(prepared.data.valid or ())) > 1:
        return fit(tables, best, progress, facts=facts, measured=measured)
    return fit_prepared(prepared, best, progress, facts=facts, measured=measured)


def tune(prepared: Prepared, config: Config, search: Search, progress: TuningProgress) -> tuple[Config, TuningFacts]:
    """Return the best settings of a study, after as many trials as are asked for, and the facts of it."""
    if prepared.data.valid is None:
        raise ConfigError(
            "Tuning chooses by the loss of validation rows, and there are none: give some by --valid or eval_set, or "
            "more rows."
        )
    config = suited(prepared, config).of_task(prepared.data.task.name)
    rows = len(prepared.data.train)
    space = [
        place.for_rows(rows) for place in SPACE if place.name not in search.given and place.matters(config, prepared)
    ]
    if not space:
        raise ConfigError("All settings that could be tuned are given: leave some of them out.")
    enriched = enrich(prepared.data, prepared.encoder, config)  # once too: no setting that is tuned changes it
    train_one = partial(train_module, prepared, enriching=lambda *_: enriched)
    with open_study(search.study, _made_of(prepared, config, space)) as study:
        study.begin({place.name: _value(config, place.name, rows) for place in space})
        while (number := len(study.tried) + 1) <= search.trials:
            progress.on_trial(number, search.trials)
            # Seeded by its number, so that a study that was interrupted goes on as if it had not been.
            trial, started = study.ask(config.train.seed + number), time.perf_counter()
            values = {place.name: place.suggest(trial) for place in space}
            loss, outcome = _outcome(train_one, with_settings(config, values), _Watched(trial, progress))
            best = loss is not None and all(other.loss is None or loss < other.loss for other in study.tried)
            study.tell(trial, loss)
            seconds = f"{time.perf_counter() - started:.1f} s"
            progress.on_tried(f"{outcome}, {seconds}{', the best so far' if best else ''}", values)
        facts = _facts(study, [place.name for place in space])
    return with_settings(config, facts.settings), facts


def _outcome(
    train_one: Callable[[Config, Observer], tuple[FactorizationMachine, History]], config: Config, observer: Observer
) -> tuple[float | None, str]:
    """Return the validation loss of a training, None where it was given up, and what came of it in words."""
    try:
        _, history = train_one(config, observer)
    except TrainingError:  # a loss that is not finite is a bad one
        return None, "its loss was not finite"
    epochs = f"{len(history.epochs)} epochs"
    if history.stopped == STOPPED_ON_REQUEST:
        return None, f"given up, {epochs}"
    loss = loss_of(history.epochs[history.best_epoch - 1])
    return loss, f"validation loss {loss:.5g}, {epochs}"


class _Watched(Observer):
    """Tells a trial's validation losses to its study, and stops it where those of others were lower."""

    def __init__(self, trial: Trial, progress: Observer) -> None:
        self._trial, self._progress = trial, progress

    def on_batch(self, rows: int) -> None:
        self._progress.on_batch(rows)

    def on_epoch(self, epoch: Epoch, module: FactorizationMachine) -> bool:
        asked = self._progress.on_epoch(epoch, module)
        self._trial.report(loss_of(epoch), epoch.epoch)
        return asked or self._trial.should_prune()


def loss_of(epoch: Epoch) -> float:
    """Return the validation loss of an epoch, where there are validation rows."""
    return math.inf if epoch.valid_loss is None else epoch.valid_loss


def with_settings(config: Config, values: Mapping[str, Value | str]) -> Config:
    """Return the settings with other values, by the names of settings of the model and of training."""

    def of(section: type[ModelConfig | TrainConfig]) -> dict[str, Value | str]:
        return {name: value for name, value in values.items() if name in section.model_fields}

    model = config.model.model_copy(update=of(ModelConfig))
    return config.model_copy(update={"model": model, "train": config.train.model_copy(update=of(TrainConfig))})


def _value(config: Config, name: str, rows: int) -> Value:
    """Return the value of a setting that is tuned; of "auto" what it stands for."""
    section = config.model if name in ModelConfig.model_fields else config.train
    value: Any = getattr(section, name)
    return choose_batch_size(value, rows) if name == "batch_size" else value


def _facts(study: Study, names: Sequence[str]) -> TuningFacts:
    tried = study.tried
    losses = [math.inf if trial.loss is None else trial.loss for trial in tried]
    best = losses.index(min(losses))  # the first of equal ones
    if math.isinf(losses[best]):
        raise TrainingError(
            f"None of {len(tried)} trials gave a finite validation loss: look for extreme values in numeric columns "
            "and weights."
        )
    as_given = next(trial for trial in tried if trial.as_given)
    return TuningFacts(
        study=study.id,
        trials=len(tried),
        pruned=losses.count(math.inf),
        best_trial=best + 1,
        validation_loss=losses[best],
        as_given_loss=as_given.loss,
        settings={name: tried[best].settings[name] for name in names},
        as_given={name: as_given.settings[name] for name in names},
        importance=study.importance(names),
    )


def _made_of(prepared: Prepared, config: Config, space: Sequence[Range]) -> dict[str, Any]:
    """Return what two calls must share to go on with one study, as JSON values."""
    tuned = {place.name for place in space}
    settings = {
        name: value
        for section in (config.data, config.model, config.train)
        for name, value in section.model_dump(mode="json").items()
        if name not in tuned | _NO_MATTER
    }
    return {
        "target": prepared.target.name,
        "settings": settings,
        "space": {place.name: place.described() for place in space},
        "rows": _digest(prepared),
    }


def _digest(prepared: Prepared) -> str:
    """Return a digest of the encoded rows that are trained on, and of those that decide."""
    digest = hashlib.sha256()
    for part in (prepared.data.train, prepared.data.valid):
        for examples in () if part is None else part.ordered():
            rows = examples.rows
            for tensor in (rows.ids, rows.values, rows.offsets, examples.target, examples.weight):
                digest.update(b"none" if tensor is None else tensor.contiguous().numpy().data)
    return digest.hexdigest()
