"""The training loop: steps over shuffled batches, epochs, early stopping, and a state from which it goes on."""

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attfm.config import TrainConfig
from attfm.data.dataset import Dataset, Examples, Statistics, batch_count
from attfm.data.folds import BY_CHANCE, Grouping
from attfm.errors import TrainingError
from attfm.metrics.scores import curve_metrics
from attfm.model.modules import FactorizationMachine
from attfm.model.task import Task
from attfm.ops import use_backend
from attfm.train.device import choose_device, drawn_from
from attfm.train.exchange import current_exchange
from attfm.train.losses import Penalties, Strengths, mean_loss, scored
from attfm.train.observer import Epoch, Observer
from attfm.train.optimizer import Optimizer, ParameterAverage
from attfm.train.prior import Prior
from attfm.train.sparse_optimizer import is_lazy

# Multiply-adds of a step below which a second thread gains nothing. It may cost much: each of the step's many short
# parallel regions waits for the other core, for milliseconds where another program keeps that busy.
_SMALL_STEP = 30_000_000
_LEAST_GAIN = 1e-5  # relative gain of the validation loss that counts as better
_LEAST_NOISE = 1e-6  # of a regression, as a share of the target's variance: what is learned exactly has none
# Of the learning rate, for main effects that begin where they are solved: Adam's first steps are as long as the rate
# whatever the slope is, and would lead away from there.
_PACE_OF_SOLVED = 0.1
_ALL_RUN = "ran all epochs"
STOPPED_ON_REQUEST = "stopped on request"


@dataclass
class History:
    """The learning curve, and which epoch's parameters were kept.

    straddling : names of the field pairs whose groups seem to stand on both sides of the split
    additive_start : the share of an additive model's main effects that it began with, or None
    """

    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str = _ALL_RUN
    straddling: list[str] = field(default_factory=list)
    additive_start: float | None = None

    def records(self) -> list[dict[str, float | int | None]]:
        """Return one dictionary for each epoch, as history.jsonl stores it."""
        return [epoch.record() for epoch in self.epochs]


@dataclass(frozen=True)
class TrainingData:
    """What is predicted, the rows to train on and to stop by, and what the training rows' folds must respect.

    `neighbours` are the features i, int64 (n,), of bins beside i + 1.
    """

    task: Task
    train: Dataset
    valid: Dataset | None = None
    neighbours: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    grouping: Grouping = BY_CHANCE


def choose_batch_size(setting: int | str, rows: int) -> int:
    """Return the batch size: as set, or for "auto" a power of two that makes some dozens of steps an epoch."""
    if isinstance(setting, int):
        return setting
    return int(np.clip(2 ** np.round(np.log2(max(rows, 1) / 40)), 16, 1024))


def start_at_base_rate(
    module: FactorizationMachine, statistics: Statistics, task: Task, *, base_rate: bool = True
) -> None:
    """Set w0 to the logit of the weighted base rate, and the scale of a regression to the target's mean and deviation.

    With `base_rate` off, w0 stays 0; the scale of a regression is set all the same.
    """
    mean, deviation = task.scale(statistics)
    with torch.no_grad():
        module.target_mean.copy_(mean)
        module.target_std.copy_(deviation)
        if base_rate:
            module.intercept.copy_(task.start(statistics))


def silence_unseen(module: FactorizationMachine, statistics: Statistics) -> None:
    """Set the embedding of every feature that no training row has to 0, so that it adds nothing to a prediction."""
    if module.has_pairs:
        with torch.no_grad():
            module.embedding.weight[: len(statistics.seen)][~statistics.seen] = 0
            module.embedding.weight[len(statistics.seen) :] = 0


def _copied(module: FactorizationMachine) -> dict[str, Tensor]:
    """Return a copy of a module's parameters; copy.deepcopy copies bytes, and small tensors on several threads too."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@dataclass
class _Place:
    """How far an epoch has come: the state that its order was drawn from, batches done, their summed loss, and rows."""

    order: Tensor
    batches: int = 0
    loss: float = 0.0
    rows: int = 0


class Trainer:
    """Trains a module in place.

    With validation rows and `config.early_stopping`, training stops after `config.patience` epochs without a lower
    validation loss, and the parameters of the best epoch are restored; otherwise all epochs are run and the last kept.
    What is validated and kept is the average of the parameters over the last `config.averaging` epochs.

    The module is on the CPU, and there again after `run`. The generator is that of the dropout. With a `prior`
    the module has learned before, and begins where it stands (see `Penalties`); `strengths` are those of its w, which
    is solved then and moves at a tenth of the rate.
    """

    def __init__(
        self,
        module: FactorizationMachine,
        data: TrainingData,
        config: TrainConfig,
        observer: Observer | None = None,
        generator: torch.Generator | None = None,
        *,
        prior: Prior | None = None,
        strengths: Strengths | None = None,
    ) -> None:
        config = config.of_task(data.task.name)
        self.batch_size = choose_batch_size(config.batch_size, len(data.train))
        with use_backend(config.backend):
            self.device = choose_device(config.device, module.step_work(self.batch_size))
        self.module = module.to(self.device)
        self.data, self.config = data, config
        self.observer = Observer() if observer is None else observer
        self._watched = type(self.observer).on_step is not Observer.on_step
        # The order of the rows has a generator of its own: what the model draws, and on which device, leaves it alone.
        self.order = torch.Generator().manual_seed(config.seed)
        self.dropout = torch.Generator().manual_seed(config.seed) if generator is None else generator
        self.exchange = current_exchange()
        if self.exchange.rank:  # workers hold the same parameters, and each drops others of its own rows
            self.dropout = torch.Generator().manual_seed(config.seed + self.exchange.rank)
        self._sparse = is_lazy(module, data.train.statistics, self.batch_size)
        module.sparse_gradients(self._sparse)
        self.learns_on = prior is not None
        self._penalties = Penalties(module, data.neighbours, config, len(data.train), prior=prior, strengths=strengths)
        self.optimizer = Optimizer(
            module, config, lazy=self._sparse, more_rows=self._penalties.smooth, ridges=self._penalties.ridges,
            centres=self._penalties.centres, pace_of_w=1.0 if strengths is None else _PACE_OF_SOLVED,
        )  # fmt: skip
        steps = float(config.averaging) * batch_count(len(data.train), self.batch_size)
        self.average = ParameterAverage(module, steps, self.optimizer.lazy)
        # Relative weights of mean 1, so that the learning rate means the same whatever the unit of the weights is.
        self._mean_weight = data.train.statistics.mean_weight
        # The loss of a regression is that of normal noise of the target's variance, (z - y)² / 2 var. What is as strong
        # as so many rows of noise, penalties and Adam's eps, shrinks with the share of the variance that is left.
        self._unit = 1.0 if data.task.is_classification else 2 * float(module.target_std) ** 2
        self._noise = 1.0 if strengths is None else strengths.noise
        self.history = History()
        self._place: _Place | None = None  # within an epoch only
        self._drawn_on_gpu: Tensor | None = None  # what dropout goes on from there, in an epoch that was begun
        self._best, self._best_loss = _copied(module), math.inf

    @property
    def done(self) -> bool:
        """Whether all epochs were run, or there is a reason to stop."""
        return len(self.history.epochs) >= self.config.epochs or self.history.stopped != _ALL_RUN

    @property
    def place(self) -> tuple[int, int]:
        """How many epochs are done, and how many batches of the next one."""
        return len(self.history.epochs), 0 if self._place is None else self._place.batches

    @property
    def pace(self) -> float:
        """The share of the learning rate that the next step takes: 1, with `falling_rate` ever less in the second half.

        Within an epoch it goes by the rows that its steps took, the next one's among them.
        """
        if not self.config.falling_rate:
            return 1.0
        within = 0.0 if self._place is None else self._place.rows / len(self.data.train)
        return min(1.0, max(0.0, 2 * (1 - (len(self.history.epochs) + within) / self.config.epochs)))

    def step(self, examples: Examples) -> Tensor:
        """Move the parameters by the gradient of one batch on the device; return its mean loss, a scalar."""
        self.optimizer.zero_grad()
        share = self.exchange.share(examples)
        own = share.examples
        losses = self.data.task.row_losses(self.module(own.rows), own.target)
        loss = share.part * (losses * own.weight).mean() / self._unit
        loss.backward()  # type: ignore[no-untyped-call]
        loss, taken = self.exchange.sum_gradients(self.module, own.rows, loss.detach(), share.rows)
        if self._place is not None:
            self._place.rows += taken
        self._penalties.add_gradient(noise=self._noise)
        self.optimizer.step(examples.rows, noise=self._noise, pace=self.pace)
        self.average.update()
        return loss

    def run_epoch(self) -> Epoch:
        """Pass over the training rows once, measure on the validation rows, and note whether it is the best so far."""
        begun, self._drawn_on_gpu = self._drawn_on_gpu, None
        with self._threads(), use_backend(self.config.backend), drawn_from(self.dropout, self.device, begun):
            place = self._place = self._place or _Place(self.order.get_state())
            self.order.set_state(place.order)
            before, started = place.rows, time.perf_counter()
            total = torch.tensor(place.loss, dtype=torch.float64, device=self.device)
            dtype = self.module.intercept.dtype
            self.module.train()
            for part in islice(self.data.train.shuffled(self.batch_size, self.order), place.batches, None):
                relative = Examples(part.rows, part.target, part.weight / self._mean_weight)
                examples = relative.to(self.device, dtype)
                total += self.step(examples) * len(examples)
                place.batches += 1
                self.observer.on_batch(len(examples))
                if self._watched:
                    place.loss = float(total)
                    self.observer.on_step(self)
            kept = self.average.averaged
            self._penalties.adapt()
            seconds = time.perf_counter() - started
            train_loss = float(total) * self._unit / len(self.data.train)
            if not self.data.task.is_classification and math.isfinite(train_loss):
                self._noise = min(1.0, max(2 * train_loss / self._unit, _LEAST_NOISE))
            epoch = self._measured(kept, train_loss, seconds, (place.rows - before) / seconds)
            self._place = None
        self.history.epochs.append(epoch)
        self._judge(epoch, kept, asked=self.observer.on_epoch(epoch, kept))
        return epoch

    def _measured(self, kept: FactorizationMachine, train_loss: float, seconds: float, rate: float) -> Epoch:
        number, task, valid_loss, metrics = len(self.history.epochs) + 1, self.data.task, None, dict[str, float]()
        if self.data.valid is not None:
            logits, target, weight = scored(kept, self.data.valid, self.exchange)
            valid_loss = mean_loss(task, logits, target, weight)
        if not all(math.isfinite(x) for x in (train_loss, valid_loss or 0.0)):
            raise TrainingError(
                f"The loss became {train_loss if valid_loss is None else valid_loss} in epoch {number}: training "
                f"stopped, and the parameters of epoch {self.history.best_epoch} were kept. Try a lower learning_rate "
                f"(now {self.config.learning_rate:g}), or look for extreme values in numeric columns and weights."
            )
        if self.data.valid is not None:
            arrays = (t.double().cpu().numpy() for t in (logits, weight))
            metrics = curve_metrics(task.name, target.cpu().numpy(), *arrays, threshold=self.config.threshold)
        taken = 0 if self._place is None else self._place.rows
        return Epoch(number, train_loss, valid_loss, seconds, rate, metrics, taken)

    def _judge(self, epoch: Epoch, kept: FactorizationMachine, *, asked: bool) -> None:
        """Keep the parameters where they are the best so far, and find out whether training ends."""
        stopping = self.config.early_stopping and epoch.valid_loss is not None
        loss = epoch.train_loss if epoch.valid_loss is None else epoch.valid_loss
        if not stopping or loss < self._best_loss * (1 - _LEAST_GAIN):
            self._best, self._best_loss = _copied(kept), loss
            self.history.best_epoch = epoch.epoch
        elif epoch.epoch - self.history.best_epoch >= int(self.config.patience):
            self.history.stopped = f"no better validation loss for {self.config.patience} epochs"
        if asked and not self.done:
            self.history.stopped = STOPPED_ON_REQUEST

    def run(self) -> History:
        """Train to the end and return the learning curve; the module then holds the parameters to keep.

        Raises
        ------
        TrainingError : the loss is NaN or infinite; the module then holds the last good parameters
        """
        self.observer.on_start(self)
        self.exchange.check_place(self.place)
        try:
            while not self.done:
                self.run_epoch()
            self.observer.on_end(self)
        finally:
            self.module.load_state_dict(self._best)
            self.module.sparse_gradients(False)
            self.module.to("cpu").eval()
        return self.history

    @contextmanager
    def _threads(self) -> Iterator[None]:
        """Let a small step run on one thread."""
        threads = torch.get_num_threads()
        if self.device.type == "cpu" and self.module.step_work(self.batch_size) < _SMALL_STEP:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def result(self) -> dict[str, Any]:
        """Return what has come of a training that is done: the history, and the parameters to keep, as they are."""
        return {"history": self._history(), "best": {"parameters": self._best, "loss": self._best_loss}}

    def _history(self) -> dict[str, Any]:
        return {**asdict(self.history), "epochs": [asdict(epoch) for epoch in self.history.epochs]}

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of all that training goes on from, see `state`."""
        return copy.deepcopy(self.state())

    def state(self) -> dict[str, Any]:
        """Return all that training goes on from: parameters, optimiser, average, history, best epoch, random states.

        They are as they stand: a later step changes them, and to write them takes no memory. Within an epoch it holds
        how far that has come too. Nothing is changed, not even a rounding.
        """
        within = self._place is not None
        return {
            **self.result(),
            "place": None if self._place is None else asdict(self._place),
            "module": self.module.state_dict(),
            "noise": self._noise,
            "penalties": self._penalties.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "random": {
                "order": self.order.get_state(),
                # Within an epoch torch's own generator stands in for that of the dropout.
                "dropout": torch.get_rng_state() if within else self.dropout.get_state(),
                "gpu": torch.cuda.get_rng_state() if within and self.device.type == "cuda" else None,
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` or `result` was taken, of a trainer of the same module, rows and settings.

        Of all tensors copies are kept: one of them would keep the file that they were read from in memory.
        """
        epochs = [Epoch(**epoch) for epoch in state["history"]["epochs"]]
        self.history = History(**{**state["history"], "epochs": epochs})
        self._best, self._best_loss = copy.deepcopy(state["best"]["parameters"]), state["best"]["loss"]
        if "module" not in state:
            return
        self._place = None if state["place"] is None else _Place(**copy.deepcopy(state["place"]))
        self.module.load_state_dict(state["module"])
        self._noise = state["noise"]
        self._penalties.load_state_dict(state["penalties"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])
        self.order.set_state(state["random"]["order"])
        if self.exchange.rank:  # the state is that of the first worker, which the others must not repeat
            self.dropout.manual_seed(self.config.seed + self.exchange.rank + 1000 * (1 + sum(self.place)))
        else:
            self.dropout.set_state(state["random"]["dropout"])
            self._drawn_on_gpu = copy.deepcopy(state["random"].get("gpu"))
