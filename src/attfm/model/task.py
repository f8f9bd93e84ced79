"""What is predicted: how logits become probabilities, decisions, losses and columns of scores, for each task."""

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from attfm.config import TaskName
from attfm.data.dataset import Statistics
from attfm.data.target import Label, Target
from attfm.errors import ConfigError
from attfm.model.threshold import decision_threshold

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
LOGIT, UNCALIBRATED = "logit", "uncalibrated logit"  # units of effects, where they are not those of a regression


@dataclass(frozen=True)
class Task(ABC):
    """One task: everything that follows from what the target is.

    Attributes
    ----------
    target : str, name of the target column
    classes : tuple of labels, in the order of their codes; empty for regression
    written : tuple of str or None, the classes as they stood in the training table, where that was text
    curves : callable or None
        From logits to (rows, classes) probabilities, in place of the task's own link; see
        `attfm.model.calibration.Calibration`.
    """

    target: str
    classes: tuple[Label, ...] = ()
    written: tuple[str, ...] | None = None
    curves: Callable[[Floats], Floats] | None = None
    name: ClassVar[TaskName]

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """What each output of the model is of: the second class of two, each class of more, or the target."""

    @property
    def unit(self) -> str:
        """Unit of outputs and effects: "logit", "uncalibrated logit", or the name of a regression's target."""
        return LOGIT if self.curves is None else UNCALIBRATED

    @property
    def is_classification(self) -> bool:
        """Whether the target has classes."""
        return bool(self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes as text, as they stood in the training table; none of a regression."""
        return tuple(str(label) for label in self.classes) if self.written is None else self.written

    @property
    def decisions(self) -> tuple[str, ...]:
        """What can be decided, in the order of the codes that `decide` gives."""
        return self.class_names

    def scores(self, logits: Floats) -> Floats:
        """Return what metrics take: (rows, classes) probabilities, or (rows,) predictions of a regression."""
        return self._linked(logits) if self.curves is None else self.curves(logits)

    @abstractmethod
    def _linked(self, logits: Floats) -> Floats:
        """Return the scores by the task's own link: the logistic function, softmax, or the output as it is."""

    @abstractmethod
    def decide(self, logits: Floats, threshold: float | None) -> Codes:
        """Return the decision about each row, int64 (rows,), from float64 (rows, outputs) logits.

        The threshold is the probability above which the second of two classes is decided, or the value that a
        regression is to cross; several classes have none.
        """

    def margin(self, logits: Floats, threshold: float) -> Floats:
        """Return how far each row is from another decision, in logits, float64 (rows,); 0 of a regression.

        These are the logits of the probabilities, be they curves or the link's.
        """
        return np.zeros(len(logits))

    @property
    def score_names(self) -> tuple[str, ...]:
        """Names of the columns of `score_columns`."""
        return tuple(self.score_columns(np.zeros((0, len(self.outputs))), 0.5))

    @abstractmethod
    def score_columns(self, logits: Floats, threshold: float) -> dict[str, pa.Array]:
        """Return the columns of scores by name, each (rows,): the prediction, and probabilities of classes."""

    @abstractmethod
    def row_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each row, (batch,): log loss in nats from logits, or squared error."""

    @abstractmethod
    def start(self, statistics: Statistics) -> Tensor:
        """Return w0 that predicts the base rate of the training rows in every row; (outputs,)."""

    def scale(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of what the module gives: logits are as they are."""
        return torch.zeros(()), torch.ones(())

    def _shares(self, statistics: Statistics) -> Tensor:
        """Return the weighted share of each class in the training rows, float64 (classes,)."""
        shares = statistics.class_totals.new_zeros(len(self.classes))
        shares[: len(statistics.class_totals)] = statistics.class_totals
        return (shares / statistics.total_weight).clamp(1e-6, 1 - 1e-6)

    def class_weights(
        self, setting: Literal["balanced"] | Mapping[str, float] | None, codes: Codes, weight: Floats
    ) -> Floats | None:
        """Return the weight of each class, (classes,), by the setting `class_weight` and the rows; None for none.

        The names of classes in the setting are texts: "1" names the labels 1, 1.0, True and "1".
        """
        if setting is None:
            return None
        if setting == "balanced":
            total = np.bincount(codes, weight, minlength=len(self.classes))
            return np.asarray(total.sum() / (len(self.classes) * np.maximum(total, 1e-300)), np.float64)
        check_class_weights(setting)
        weights, named = np.ones(len(self.classes)), dict[int, str]()
        for name, value in sorted(setting.items()):
            code = next((code for code, label in enumerate(self.classes) if _is_named(label, name)), None)
            if code is None:
                raise ConfigError(
                    f"Setting 'class_weight' names the class '{name}', the target has "
                    f"{', '.join(str(label) for label in self.classes)}."
                )
            if code in named:
                raise ConfigError(
                    f"Setting 'class_weight' names the class {self.classes[code]!r} twice, as '{named[code]}' and as "
                    f"'{name}': give it one weight."
                )
            weights[code], named[code] = value, name
        return weights

    def threshold_of(self, asked: float | None, *, default: float, called: str = "threshold=") -> float:
        """Return the threshold asked for, or the default; raise ConfigError as `decision_threshold` does."""
        return decision_threshold(asked, task=self.name, usual=default, called=called)

    def reported_threshold(self, threshold: float) -> float | None:
        """Return the threshold where it decides anything: of two classes."""
        return None

    def sentence(self, logits: Floats, threshold: float, *, output: int = 0) -> str:
        """Return the decision about a row, float64 (outputs,) logits, in words, with the figures of an output."""
        shares, decided = self.scores(logits[None])[0], self.decisions[int(self.decide(logits[None], threshold)[0])]
        logit = f"{self.unit} of {self.outputs[output]} {logits[output]:+.4f}"
        return f"{decided}, probability {shares[output]:.4f}, {logit}"

    def labels(self, codes: Codes) -> pa.Array:
        """Return the labels of class codes, as they stood in the training table, or in the type that they had there."""
        return pa.array(list(self.classes if self.written is None else self.written)).take(pa.array(codes))


@dataclass(frozen=True)
class Binary(Task):
    """Two classes: one logit, of the second."""

    name: ClassVar[TaskName] = "binary"

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.decisions[1:]

    def _linked(self, logits: Floats) -> Floats:
        return np.hstack([np.exp(-np.logaddexp(0, logits)), np.exp(-np.logaddexp(0, -logits))])

    def decide(self, logits: Floats, threshold: float | None) -> Codes:
        return (self.scores(logits)[:, 1] > (0.5 if threshold is None else threshold)).astype(np.int64)

    def reported_threshold(self, threshold: float) -> float | None:
        return threshold

    def sentence(self, logits: Floats, threshold: float, *, output: int = 0) -> str:
        share, decided = self.scores(logits[None])[0, 1], self.decisions[int(self.decide(logits[None], threshold)[0])]
        return f"{decided}, probability of {self.outputs[0]} {share:.4f}, {self.unit} {logits[0]:+.4f}"

    def margin(self, logits: Floats, threshold: float) -> Floats:
        own = logits[:, 0] if self.curves is None else np.subtract(*np.log(self.scores(logits)).T[::-1])
        return np.asarray(np.abs(own - np.log(threshold / (1 - threshold))), np.float64)

    def score_columns(self, logits: Floats, threshold: float) -> dict[str, pa.Array]:
        labels, shares = self.labels(self.decide(logits, threshold)), self.scores(logits)
        return {"prediction": labels, "probability": pa.array(shares[:, 1])}

    def row_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits[:, 0], target.to(logits.dtype), reduction="none")

    def start(self, statistics: Statistics) -> Tensor:
        return torch.logit(self._shares(statistics)[1:])


@dataclass(frozen=True)
class Multiclass(Task):
    """Three or more classes: a logit of each."""

    name: ClassVar[TaskName] = "multiclass"

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.decisions

    def _linked(self, logits: Floats) -> Floats:
        shifted = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(shifted / shifted.sum(1, keepdims=True), np.float64)

    def decide(self, logits: Floats, threshold: float | None) -> Codes:
        return np.asarray((logits if self.curves is None else self.scores(logits)).argmax(1), np.int64)

    def margin(self, logits: Floats, threshold: float) -> Floats:
        ordered = np.sort(logits if self.curves is None else np.log(self.scores(logits)), axis=1)
        return np.asarray(ordered[:, -1] - ordered[:, -2], np.float64)

    def score_columns(self, logits: Floats, threshold: float) -> dict[str, pa.Array]:
        shares = zip(self.decisions, self.scores(logits).T, strict=True)
        columns = {f"probability_{label}": pa.array(share) for label, share in shares}
        return {"prediction": self.labels(self.decide(logits, None)), **columns}

    def row_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target, reduction="none")

    def start(self, statistics: Statistics) -> Tensor:
        return self._shares(statistics).log()


@dataclass(frozen=True)
class Regression(Task):
    """A number: one output, in the target's unit."""

    name: ClassVar[TaskName] = "regression"

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.target,)

    @property
    def unit(self) -> str:
        return self.target

    @property
    def decisions(self) -> tuple[str, ...]:
        return ("below", "above")

    def _linked(self, logits: Floats) -> Floats:
        return logits[:, 0]

    def decide(self, logits: Floats, threshold: float | None) -> Codes:
        return (logits[:, 0] > (0.0 if threshold is None else threshold)).astype(np.int64)

    def score_columns(self, logits: Floats, threshold: float) -> dict[str, pa.Array]:
        return {"prediction": pa.array(logits[:, 0])}

    def row_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return (logits[:, 0] - target) ** 2

    def start(self, statistics: Statistics) -> Tensor:
        return torch.zeros(1)

    def scale(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of the target, on whose standardised values a regression is trained."""
        return statistics.mean, statistics.deviation if statistics.deviation > 0 else torch.ones(())

    def class_weights(
        self, setting: Literal["balanced"] | Mapping[str, float] | None, codes: Codes, weight: Floats
    ) -> Floats | None:
        if setting is not None:
            raise ConfigError("Setting 'class_weight' is for classification: remove it for a regression.")
        return None

    def threshold_of(self, asked: float | None, *, default: float, called: str = "threshold=") -> float:
        if asked is None:
            raise ConfigError("A regression has no decision to flip: give threshold=, the value that is to be crossed.")
        if isinstance(asked, bool) or not isinstance(asked, Real) or not math.isfinite(asked):
            raise ConfigError(f"{called}{asked!r:.60} is not a number: give the value that is to be crossed.")
        return float(asked)

    def sentence(self, logits: Floats, threshold: float, *, output: int = 0) -> str:
        return f"{self.target} = {logits[0]:.6g}"


def check_class_weights(setting: Mapping[Any, object]) -> None:
    """Raise ConfigError where the weight of a class is a number that can't be one."""
    for name, value in setting.items():
        if isinstance(value, Real) and not 0 < float(value) < math.inf:
            raise ConfigError(
                f"Setting 'class_weight' gives the class '{name}' the weight {float(value):g}: give a finite number "
                "above 0, or leave the rows of that class out."
            )


def _is_named(label: Label, name: str) -> bool:
    """Return whether a text names a class: as Python writes the label, or, where it is no text, as another number."""
    if str(label) == name or isinstance(label, str):
        return str(label) == name
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return bool(number({"true": "1", "false": "0"}.get(name.lower(), name)) == label)
    return False


TASKS: dict[str, type[Task]] = {kind.name: kind for kind in (Binary, Multiclass, Regression)}


def task_of(target: Target) -> Task:
    """Return the task that a target makes."""
    return TASKS[target.task](target.name, target.classes or (), target.written)
