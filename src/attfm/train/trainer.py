"""The training loop: minibatches from encoded rows, early stopping, history."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from attfm.config import Task, TrainConfig
from attfm.errors import ConfigError, TrainingError
from attfm.metrics.scores import curve_metrics
from attfm.model.modules import FactorizationMachine
from attfm.model.rows import Rows
from attfm.train.optimizer import Optimizer, ParameterAverage
from attfm.train.sparse_optimizer import is_lazy

# Multiply-adds of a step below which a second thread gains nothing. It may cost much: each of the step's many short
# parallel regions waits for the other core, for milliseconds where another program keeps that busy.
_SMALL_STEP = 30_000_000
_LEAST_GAIN = 1e-5  # relative gain of the validation loss that counts as better


@dataclass(frozen=True)
class Examples:
    """Encoded rows with what is to be learned from them.

    rows : the features; target : int64 class codes, or float values for regression, (rows,);
    weight : float (rows,), relative importance of each row
    """

    rows: Rows
    target: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Examples":
        """Return a copy on the device, weights and regression targets in `dtype`."""
        target = self.target.to(device)
        return Examples(
            self.rows.to(device),
            target.to(dtype) if target.is_floating_point() else target,
            self.weight.to(device, dtype),
        )


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training rows gave; losses are means per weighted row.

    valid_metrics : figures of the validation rows, see `attfm.metrics.scores.curve_metrics`
    """

    epoch: int
    train_loss: float
    valid_loss: float | None
    seconds: float
    rows_per_second: float
    valid_metrics: Mapping[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, float | int | None]:
        """Return all numbers in one flat dictionary."""
        values = asdict(self)
        metrics = values.pop("valid_metrics")
        return {**values, **{f"valid_{name}": value for name, value in metrics.items()}}


@dataclass
class History:
    """The learning curve, and which epoch's parameters were kept."""

    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str = ""

    def records(self) -> list[dict[str, float | int | None]]:
        """Return one dictionary for each epoch, as history.jsonl stores it."""
        return [epoch.record() for epoch in self.epochs]


OnEpoch = Callable[[Epoch, FactorizationMachine], None]
OnBatch = Callable[[int], None]


def choose_device(name: str) -> torch.device:
    """Return the torch device of "auto", "cpu" or "cuda"; ConfigError where CUDA is asked for and absent."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("Setting 'device' is 'cuda', but torch sees no CUDA device: use 'auto' or 'cpu'.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def row_losses(prediction: Tensor, target: Tensor, task: Task) -> Tensor:
    """Return the loss of each row: log loss (nats) from logits, or squared error; (batch,)."""
    if task == "binary":
        return F.binary_cross_entropy_with_logits(prediction[:, 0], target.to(prediction.dtype), reduction="none")
    if task == "multiclass":
        return F.cross_entropy(prediction, target, reduction="none")
    return (prediction[:, 0] - target) ** 2


def start_at_base_rate(module: FactorizationMachine, examples: Examples, task: Task, *, base_rate: bool = True) -> None:
    """Set w0 to the weighted base rate's logit, or the scale of regression to the target's mean and deviation.

    With `base_rate` off, w0 stays 0; the scale of a regression is set all the same.
    """
    weight, target = examples.weight.double(), examples.target
    with torch.no_grad():
        if task == "regression":
            mean = (weight * target).sum() / weight.sum()
            std = ((weight * (target - mean) ** 2).sum() / weight.sum()).sqrt()
            module.target_mean.copy_(mean)
            module.target_std.copy_(std if std > 0 else torch.ones(()))
        elif base_rate:
            shares = torch.bincount(target, weight, minlength=max(2, module.outputs)) / weight.sum()
            shares = shares.clamp(1e-6, 1 - 1e-6)
            module.intercept.copy_(torch.logit(shares[1:]) if task == "binary" else shares.log())


def silence_unseen(module: FactorizationMachine, rows: Rows) -> None:
    """Set the embedding of every feature that no training row has to 0, so that it adds nothing to a prediction."""
    if not module.has_pairs:
        return
    seen = torch.zeros(len(module.embedding.weight), dtype=torch.bool, device=rows.ids.device)
    seen[rows.ids.flatten().long()] = True
    for bag in rows.bags.values():
        seen[bag.ids.long()] = True
    with torch.no_grad():
        module.embedding.weight[~seen] = 0


class Penalties:
    """The quadratic penalties, added to the gradients directly.

    smoothness / rows · (Σ‖V[i+1] − V[i]‖² + Σ(w[i+1] − w[i])²) over neighbouring bins, and attention_l2 · ‖W‖²
    (paper, eq. 9). The first is divided by the training rows as a prior is: the more rows, the more they decide.
    """

    def __init__(
        self, module: FactorizationMachine, neighbours: NDArray[np.int64], config: TrainConfig, rows: int
    ) -> None:
        tables = [module.linear.weight] + ([module.embedding.weight] if module.has_pairs else [])
        self._tables = tables if config.smoothness > 0 and len(neighbours) else []
        self._left = torch.as_tensor(neighbours).to(module.intercept.device)
        self._smoothness = config.smoothness / rows
        self._attention = module.attention.W if module.has_pairs and config.attention_l2 > 0 else None
        self._attention_l2 = config.attention_l2

    @property
    def smooth(self) -> bool:
        """Whether bins get a gradient, be they in the batch or not."""
        return bool(self._tables)

    @torch.no_grad()
    def add_gradient(self) -> None:
        """Add the penalties' gradients to those of the loss."""
        for table in self._tables:
            slope = (2 * self._smoothness) * (table[self._left + 1] - table[self._left])
            if table.grad is not None and table.grad.is_sparse:
                places = torch.cat([table.grad._indices()[0], self._left + 1, self._left])
                slopes = torch.cat([table.grad._values(), slope, -slope])
                table.grad = torch.sparse_coo_tensor(places[None], slopes, table.shape, check_invariants=False)
                continue
            gradient = torch.zeros_like(table) if table.grad is None else table.grad
            gradient.index_add_(0, self._left + 1, slope)
            gradient.index_add_(0, self._left, slope, alpha=-1)
            table.grad = gradient
        if self._attention is not None and self._attention.grad is not None:
            self._attention.grad.add_(self._attention, alpha=2 * self._attention_l2)


def _batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    order = torch.randperm(n, generator=generator)
    # A last batch of a few rows would make a noisy step, so it is spread over the others.
    yield from torch.tensor_split(order, _batch_count(n, size))


def _batch_count(n: int, size: int) -> int:
    return max(1, round(n / size))


def train(
    module: FactorizationMachine,
    examples: Examples,
    valid: Examples | None,
    *,
    task: Task,
    config: TrainConfig,
    batch_size: int,
    neighbours: NDArray[np.int64],
    on_epoch: OnEpoch | None = None,
    on_batch: OnBatch | None = None,
) -> History:
    """Train `module` in place and return the learning curve.

    With validation examples and `config.early_stopping`, training stops after `config.patience` epochs without a lower
    validation loss, and the parameters of the best epoch are restored; otherwise all epochs are run and the last kept.
    What is validated and kept is the average of the parameters over the last `config.averaging` epochs.

    Parameters
    ----------
    module : on the CPU; it is there again afterwards
    neighbours : (n,) feature ids i of bins whose right neighbour is i + 1, for the smoothness penalty
    on_epoch, on_batch : called after each epoch with its record, and after each batch with its number of rows

    Raises
    ------
    TrainingError : the loss is NaN or infinite; the module then holds the last good parameters
    """
    device = choose_device(config.device)
    dtype = module.intercept.dtype
    module.to(device)
    # Relative weights of mean 1, so that the learning rate means the same whatever the unit of the weights is.
    weight = examples.weight / examples.weight.mean()
    examples = Examples(examples.rows, examples.target, weight).to(device, dtype)
    valid = None if valid is None else valid.to(device, dtype)
    generator = torch.Generator().manual_seed(config.seed)
    lazy = is_lazy(module, examples.rows, batch_size)
    module.sparse_gradients(lazy)
    penalties = Penalties(module, neighbours, config, len(examples))
    optimizer = Optimizer(module, config, lazy=lazy, more_rows=penalties.smooth)
    average = ParameterAverage(module, config.averaging * _batch_count(len(examples), batch_size), optimizer.lazy)
    variance = float(module.target_std) ** 2  # the loss of a regression is relative to the target's variance
    threads = torch.get_num_threads()
    if device.type == "cpu" and module.step_work(batch_size) < _SMALL_STEP:
        torch.set_num_threads(1)
    history, best, best_loss = History(stopped="ran all epochs"), copy.deepcopy(module.state_dict()), math.inf
    try:
        for number in range(1, config.epochs + 1):
            started, total = time.perf_counter(), torch.zeros((), dtype=torch.float64, device=device)
            module.train()
            for numbers in _batches(len(examples), batch_size, generator):
                numbers = numbers.to(device)
                rows = examples.rows.take(numbers)
                optimizer.zero_grad()
                losses = row_losses(module(rows), examples.target[numbers], task)
                loss = (losses * examples.weight[numbers]).mean() / variance
                loss.backward()  # type: ignore[no-untyped-call]
                penalties.add_gradient()
                optimizer.step(rows)
                average.update()
                total += loss.detach() * len(rows)
                if on_batch:
                    on_batch(len(rows))
            judged = average.averaged
            seconds = time.perf_counter() - started
            train_loss = float(total) * variance / len(examples)
            predicted = None if valid is None else judged.predict(valid.rows)
            valid_loss = None if predicted is None or valid is None else _mean_loss(predicted, valid, task)
            if not all(math.isfinite(x) for x in (train_loss, valid_loss or 0.0)):
                raise TrainingError(
                    f"The loss became {train_loss if valid_loss is None else valid_loss} in epoch {number}: training "
                    f"stopped, and the parameters of epoch {history.best_epoch} were kept. Try a lower learning_rate "
                    f"(now {config.learning_rate:g}), or look for extreme values in numeric columns and weights."
                )
            metrics: dict[str, float] = {}
            if predicted is not None and valid is not None:
                arrays = (t.double().cpu().numpy() for t in (predicted, valid.weight))
                metrics = curve_metrics(task, valid.target.cpu().numpy(), *arrays, threshold=config.threshold)
            epoch = Epoch(number, train_loss, valid_loss, seconds, len(examples) / seconds, metrics)
            history.epochs.append(epoch)
            if on_epoch:
                on_epoch(epoch, judged)
            stopping = config.early_stopping and valid_loss is not None
            stop_loss = train_loss if valid_loss is None else valid_loss
            if not stopping or stop_loss < best_loss * (1 - _LEAST_GAIN):
                best, best_loss, history.best_epoch = copy.deepcopy(judged.state_dict()), stop_loss, number
            elif number - history.best_epoch >= config.patience:
                history.stopped = f"no better validation loss for {config.patience} epochs"
                break
    finally:
        module.load_state_dict(best)
        module.sparse_gradients(False)
        module.to("cpu").eval()
        torch.set_num_threads(threads)
    return history


def mean_loss(module: FactorizationMachine, examples: Examples, task: Task) -> float:
    """Return the weighted mean loss of the examples in evaluation mode (log loss, or mean squared error)."""
    return _mean_loss(module.predict(examples.rows), examples, task)


def _mean_loss(predicted: Tensor, examples: Examples, task: Task) -> float:
    losses = row_losses(predicted, examples.target, task).double()
    weight = examples.weight.double()
    return float((losses * weight).sum() / weight.sum())
