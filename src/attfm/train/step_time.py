"""How long a training step takes: some are done on a sample of the rows, on tables of the size that they will have."""

import time
from dataclasses import dataclass, replace

import torch
from torch import nn

from attfm.config import Config
from attfm.errors import ConfigError
from attfm.model.modules import FactorizationMachine
from attfm.train.device import drawn_from
from attfm.train.footprint import Load
from attfm.train.losses import scored
from attfm.train.observer import Epoch, Observer
from attfm.train.prepare import Prepared
from attfm.train.prior import Prior
from attfm.train.sparse_optimizer import BIG_TABLE
from attfm.train.statistics import Enriched
from attfm.train.trainer import Trainer, start_at_base_rate

_STEPS, _SECONDS, _FIRST_STEPS = 30, 3.0, 5  # that are measured, and those before that are not


@dataclass(frozen=True)
class StepTime:
    """Seconds of a training step, and of a validation row that is scored."""

    of_batch: float
    of_valid_row: float


class _Enough(Exception):
    """The steps that were to be measured are done."""


class _Clock(Observer):
    """Measures steps, but the first of all and the first of each epoch, and ends the training when there are enough."""

    def __init__(self) -> None:
        self.seconds, self.steps = 0.0, 0
        self._left, self._last = _FIRST_STEPS, 0.0

    def on_batch(self, rows: int) -> None:
        now = time.perf_counter()
        if self._last and not self._left:
            self.seconds += now - self._last
            self.steps += 1
        self._left, self._last = max(self._left - 1, 0), now
        if (self.steps >= _STEPS and self.seconds >= 0.1) or self.seconds >= _SECONDS:
            raise _Enough

    def on_epoch(self, epoch: Epoch, module: FactorizationMachine) -> bool:
        self._last = 0.0
        return False


def measured_steps(prepared: Prepared, config: Config, enriched: Enriched | None, load: Load) -> StepTime:
    """Train some steps on the sample, with as many features as all rows have."""
    encoder, data = prepared.encoder, prepared.data
    model, generator = config.model.of_task(data.task.name), torch.Generator().manual_seed(config.train.seed)
    with drawn_from(generator):
        if enriched is None:
            module = FactorizationMachine(encoder.n_features, len(encoder.fields), load.outputs, model)
        else:
            module = enriched.machine(len(encoder.fields), load.outputs, model)
        start_at_base_rate(module, data.train.statistics, data.task)
    _enlarge(module, load)
    clock = _Clock()
    settings = config.train.model_copy(update={"epochs": 1_000, "early_stopping": False})
    trainer = Trainer(module, replace(data, valid=None), settings, clock, generator, prior=_prior(prepared, module))
    try:
        for _ in range(1_000):
            trainer.run_epoch()
    except _Enough:
        pass
    if not clock.steps:
        raise ConfigError("No training step could be measured: give more rows.")
    of_valid = 0.0
    if data.valid is not None and len(data.valid):
        started = time.perf_counter()
        scored(trainer.average.averaged, data.valid)
        of_valid = (time.perf_counter() - started) / len(data.valid)
    return StepTime(clock.seconds / clock.steps, of_valid)


def _prior(prepared: Prepared, module: FactorizationMachine) -> Prior | None:
    """Return the prior of a model that learns on, as large as the tables; features that it lacks have no rows."""
    if prepared.start is None:
        return None
    prior, size = Prior.of(prepared.start.one.machine, prepared.data.task), len(module.linear.weight)
    return Prior(torch.cat([prior.rows, prior.rows.new_zeros(max(size - len(prior.rows), 0))]), prior.total)


def _enlarge(module: FactorizationMachine, load: Load) -> None:
    """Give the tables as many rows as they will have, or as many as tables are moved row by row from."""
    most = 2 * BIG_TABLE // max(load.dim, 1)
    for layer in (module.linear, *([module.embedding] if module.has_pairs else [])):
        more = min(load.table_rows, max(most, len(layer.weight))) - len(layer.weight)
        if more > 0:
            zeros = layer.weight.new_zeros(more, layer.weight.shape[1])
            layer.weight = nn.Parameter(torch.cat([layer.weight.detach(), zeros]))
