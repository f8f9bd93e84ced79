"""What stands between logit and probability: calibration, fitted after training on rows that were not trained on."""

from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from attfm.config import CalibrationName, CalibrationSetting
from attfm.errors import ConfigError
from attfm.model.ensemble import Scorer, members_of
from attfm.model.modules import FactorizationMachine
from attfm.model.task import Task

Floats = NDArray[np.float64]
_LEAST_SLOPE = 1e-3  # above 0: whatever the rows say, a larger logit stays the larger one
_STEPS, _HALVINGS = 100, 40  # of Newton's method, which needs some 10 of the one and hardly any of the other
_LEAST_GAIN = 2.0  # nats, of all rows: by chance one parameter gains as much once in twenty times (Wilks 1938)
_NO_GAIN = 1e-16  # in nats a row
_NEARLY_SURE = 1e-16  # 1 minus the largest probability whose log-odds are told apart


class Curve(BaseModel):
    """A rising curve from logits to probabilities: straight between its points, level outside of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    logits: tuple[FiniteFloat, ...] = Field(min_length=1)
    probabilities: tuple[FiniteFloat, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        x, p = np.array(self.logits), np.array(self.probabilities)
        if x.shape != p.shape or not ((np.diff(x) > 0).all() and (np.diff(p) >= 0).all() and 0 < p[0] <= p[-1] < 1):
            raise ValueError("the points of a calibration curve do not rise, or are no probabilities")
        return self

    def at(self, logits: Floats) -> Floats:
        """Return the probabilities at some logits, (rows,)."""
        return np.asarray(np.interp(logits, self.logits, self.probabilities), np.float64)


class Calibration(BaseModel):
    """How a model's logits are made to mean what they say; kept with the model, and in its run folder as JSON.

    "temperature" (Guo et al. 2017, section 4.2) multiplies all logits by one slope. "sigmoid" (Platt 1999) multiplies
    each output's by a slope of its own and adds an offset; with several classes that is Guo's vector scaling. Both are
    linear, so they are folded into the module (`fold_into`): its logits, and all effects, are the calibrated ones.
    "isotonic" (Zadrozny and Elkan 2002) is a rising curve from an output's logit to its probability, of several classes
    from the log-odds of each, and normalised: logits and effects stay as they were, and `task` has the curves.

    Attributes
    ----------
    kind : "none", "temperature", "sigmoid" or "isotonic"
    rows : int, validation rows that it was fitted on
    slope, offset : tuple of float, one for each output of the model, calibrated logit = slope · logit + offset; empty
        where the kind is not linear
    curves : tuple of Curve, one for each output; empty where the kind is not isotonic

    Examples
    --------
    >>> from attfm.model.task import Binary
    >>> logits, labels = np.array([[-4.0], [4.0]] * 50), np.array([0, 1] * 45 + [1, 0] * 5)
    >>> print(Calibration.fit("temperature", Binary("y", ("no", "yes")), logits, labels))
    temperature: logits times 0.5282, by 100 validation rows
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: CalibrationName = "none"
    rows: int = Field(0, ge=0)
    slope: tuple[FiniteFloat, ...] = ()
    offset: tuple[FiniteFloat, ...] = ()
    curves: tuple[Curve, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        linear, bent = self.kind in ("temperature", "sigmoid"), self.kind == "isotonic"
        if (bool(self.slope), bool(self.offset), bool(self.curves)) != (linear, linear, bent):
            raise ValueError(f"a calibration of the kind '{self.kind}' has other parameters")
        if len(self.slope) != len(self.offset) or min(self.slope, default=1.0) <= 0:
            raise ValueError("a calibration has slopes that are not above 0, or offsets that don't belong to them")
        return self

    def __str__(self) -> str:
        if self.kind == "none":
            return "none"
        if self.curves:
            what = (
                "curves from log-odds to probability" if len(self.curves) > 1 else "a curve from logit to probability"
            )
            what += ", effects are of the uncalibrated logit"
        elif self.kind == "temperature":
            what = f"logits times {self.slope[0]:.4g}"
        elif len(self.slope) == 1:
            what = f"logits times {self.slope[0]:.4g}, {self.offset[0]:+.4g}"
        else:
            what = f"logits times {min(self.slope):.4g} to {max(self.slope):.4g}, and an offset for each class"
        return f"{self.kind}: {what}, by {self.rows:,} validation rows"

    @property
    def outputs(self) -> int | None:
        """Outputs of the models that it is for; None: any."""
        return len(self.slope) or len(self.curves) or None

    @classmethod
    def fit(
        cls, kind: CalibrationSetting, task: Task, logits: NDArray[Any], target: NDArray[Any], weight: Any = None
    ) -> Self:
        """Return the calibration of a model by rows that it was not trained on.

        Parameters
        ----------
        kind : "none", "temperature", "sigmoid", "isotonic" or "auto"
            "auto": a temperature, where there are rows to fit one by and it lowers the sum of their log loss by two
            nats or more, as chance does once in twenty times. Else none.
        task : Task, of two or more classes
        logits : float (rows, outputs), not calibrated
        target : int (rows,), class codes
        weight : float (rows,), at least 0, of which only the ratios count; None: all the same

        Raises
        ------
        ConfigError : a regression; no rows of a weight above 0, or of one class only; not for "none" and "auto"
        """
        weight = np.ones(len(target)) if weight is None else np.asarray(weight, np.float64)
        counting = weight > 0
        check_can_calibrate(kind, task, target[counting])
        if kind == "none" or (kind == "auto" and _obstacle(task, target[counting])):
            return cls()
        logits, target, weight = np.asarray(logits, np.float64)[counting], target[counting], weight[counting]
        weight = weight / weight.mean()
        if kind == "auto":
            found = cls._fitted("temperature", task, logits, target, weight)
            gain = _log_loss(task, logits, target, weight) - _log_loss(
                task, np.array(found.slope) * logits, target, weight
            )
            return found if gain >= _LEAST_GAIN else cls()
        return cls._fitted(kind, task, logits, target, weight)

    @classmethod
    def _fitted(cls, kind: CalibrationName, task: Task, logits: Floats, target: NDArray[Any], weight: Floats) -> Self:
        """Return the calibration by rows of two classes at least, with weights of mean 1."""
        if kind == "isotonic":
            wanted, scores = _smoothed(task, target, weight, apart=True), _curve_scores(logits)
            curves = [_fit_curve(*columns, weight) for columns in zip(scores.T, wanted.T, strict=True)]
            return cls(kind=kind, rows=len(target), curves=tuple(curves))
        shared, platt = kind == "temperature", kind == "sigmoid" and logits.shape[1] == 1
        wanted = _smoothed(task, target, weight, apart=platt)
        slope, offset = _fit_linear(task, logits, wanted, weight, shared=shared)
        return cls(kind=kind, rows=len(target), slope=tuple(slope.tolist()), offset=tuple(offset.tolist()))

    def fold_into(self, module: Scorer) -> None:
        """Make the logits of an uncalibrated module, and all terms that they are made of, the calibrated ones.

        Of "none" and "isotonic" the module stays as it is. Of an ensemble every member gets it: so does their mean.
        """
        if self.slope:
            for member in members_of(module):
                member.target_std, member.target_mean = self._buffers(member)

    def is_in(self, module: Scorer) -> bool:
        """Return whether it was folded into a module of as many outputs, or there is nothing to fold."""
        if self.outputs not in (None, module.outputs):
            return False
        return not self.slope or all(
            torch.equal(buffer, own)
            for member in members_of(module)
            for buffer, own in zip((member.target_std, member.target_mean), self._buffers(member), strict=True)
        )

    def _buffers(self, module: FactorizationMachine) -> tuple[torch.Tensor, torch.Tensor]:
        """Return slope and offset as a module has them: by these a regression's logits get the target's unit."""
        alike, like = len(set(self.slope)) == len(set(self.offset)) == 1, module.intercept.detach()
        slope, offset = (values[0] if alike else values for values in (self.slope, self.offset))
        return like.new_tensor(slope), like.new_tensor(offset)

    def logits(self, uncalibrated: NDArray[Any]) -> Floats:
        """Return the calibrated logits of uncalibrated ones, (rows, outputs); the same where the kind is not linear."""
        logits = np.asarray(uncalibrated, np.float64)
        return logits * np.array(self.slope) + np.array(self.offset) if self.slope else logits

    def applied_to(self, task: Task) -> Task:
        """Return the task with the curves in place of its link; of the other kinds the task itself."""
        return replace(task, curves=self.probabilities) if self.curves else task

    def probabilities(self, logits: Floats) -> Floats:
        """Return the probabilities of uncalibrated logits by the curves, (rows, classes)."""
        scores = _curve_scores(logits)
        shares = np.stack([curve.at(column) for curve, column in zip(self.curves, scores.T, strict=True)], axis=1)
        if shares.shape[1] == 1:
            return np.hstack([1 - shares, shares])
        return np.asarray(shares / shares.sum(1, keepdims=True), np.float64)


def check_can_calibrate(kind: CalibrationSetting, task: Task, target: NDArray[Any]) -> None:
    """Raise ConfigError where a calibration is asked for that can't be had; "auto" then does without.

    Parameters
    ----------
    target : int (rows,), class codes of the validation rows that count
    """
    reason = None if kind in ("none", "auto") else _obstacle(task, target)
    if reason is not None:
        raise ConfigError(f"Setting 'calibrate' is '{kind}', but {reason}, or leave it out.")


def _obstacle(task: Task, target: NDArray[Any]) -> str | None:
    """Return why nothing can be calibrated by these rows, and what to do; None where it can."""
    if not task.is_classification:
        return "a regression has no probabilities to calibrate: set it to 'none'"
    if not len(target):
        return (
            "there are no validation rows to calibrate by: give some (--valid 0.1; in Python eval_set=(X, y), or "
            "early_stopping=True and a table that is not tiny)"
        )
    if (target == target[0]).all():
        only = task.class_names[int(target[0])]
        return f"all validation rows are of the class '{only}': give some of the others"
    return None


def _log_loss(task: Task, logits: Floats, target: NDArray[Any], weight: Floats) -> float:
    """Return the log loss of all rows together, in nats."""
    return float((weight * task.row_losses(torch.from_numpy(logits), torch.from_numpy(target)).numpy()).sum())


def _smoothed(task: Task, target: NDArray[Any], weight: Floats, *, apart: bool) -> Floats:
    """Return what the probabilities of each row are to be, (rows, outputs): nearly 1 of its class, nearly 0 of others.

    A few rows, or rows that are all told apart, then don't call for certainty, and a rare mistake has a finite loss.
    Taken apart, each class against the rest, these are Platt's targets: (n + 1) / (n + 2) of n rows of the class, and
    1 / (n + 2) of n others. A temperature is of all n rows: (n + 1) / (n + 2) of their class, the rest shared alike.
    """
    # DIFFERS FROM PAPER: Guo et al. and Zadrozny and Elkan take 1 and 0.
    classes, total = len(task.classes), weight.sum()
    hit = (target[:, None] == np.arange(classes))[:, -len(task.outputs) :]
    if not apart:
        return np.asarray(np.where(hit, total + 1, 1 / (classes - 1)) / (total + 2), np.float64)
    inside = np.bincount(target, weight, minlength=classes)[-len(task.outputs) :]
    return np.where(hit, (inside + 1) / (inside + 2), 1 / (total - inside + 2))


def _curve_scores(logits: Floats) -> Floats:
    """Return what curves are of: the logit of the second of two classes, or the log-odds of each of several."""
    if logits.shape[1] == 1:
        return logits
    shifted = logits - logits.max(1, keepdims=True)
    log_share = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    odds: Floats = log_share - np.log(-np.expm1(np.minimum(log_share, -_NEARLY_SURE)))
    return odds


def _fit_curve(score: Floats, wanted: Floats, weight: Floats) -> Curve:
    from sklearn.isotonic import IsotonicRegression  # a second to load, and prediction does without

    regression = IsotonicRegression(increasing=True, out_of_bounds="clip").fit(score, wanted, sample_weight=weight)
    x, p = (values.astype(np.float64) for values in (regression.X_thresholds_, regression.y_thresholds_))
    return Curve(logits=tuple(x.tolist()), probabilities=tuple(np.maximum.accumulate(p).tolist()))


def _fit_linear(task: Task, logits: Floats, wanted: Floats, weight: Floats, *, shared: bool) -> tuple[Floats, Floats]:
    """Return slopes and offsets, (outputs,), of the least log loss: one slope and no offset where it is shared.

    The loss is convex in both. No slope is below the least one, so that the order of the rows stays.
    """
    outputs = logits.shape[1]
    unit = float(logits.std()) or 1.0  # slopes and offsets of one size make a better conditioned search
    loss = _LogLoss(task, logits / unit, wanted, weight)
    start = np.repeat([unit, 0.0], outputs)
    least = _LEAST_SLOPE * unit
    if shared:
        slope = loss.minimum(start, np.repeat([[1.0], [0.0]], outputs, axis=0))[:outputs]
        return np.maximum(slope, least) / unit, np.zeros(outputs)
    free, best = np.ones(2 * outputs, np.bool_), start
    for _ in range(outputs + 1):
        best = loss.minimum(start, np.eye(2 * outputs)[:, free])
        falling = np.flatnonzero(best[:outputs] < least)
        if not len(falling):
            break
        free[falling], start[falling] = False, least
    return best[:outputs] / unit, best[outputs:]


class _LogLoss:
    """The mean log loss of slope · logit + offset, as a function of (slopes, offsets), float64 (2 · outputs,)."""

    def __init__(self, task: Task, logits: Floats, wanted: Floats, weight: Floats) -> None:
        self._task, self._logits, self._wanted = task, logits, wanted
        self._weight = weight[:, None] / weight.sum()

    def __call__(self, at: Floats) -> float:
        logits = self._scaled(at)
        zero = np.zeros((len(logits), 1))  # of two classes the logit of the first is 0
        every = np.hstack([zero, logits]) if logits.shape[1] == 1 else logits
        losses = np.logaddexp.reduce(every, axis=1) - (self._wanted * logits).sum(1)
        return float(self._weight[:, 0] @ losses)

    def _scaled(self, at: Floats) -> Floats:
        slope, offset = np.split(at, 2)
        return np.asarray(slope * self._logits + offset, np.float64)

    def _derivatives(self, at: Floats) -> tuple[Floats, Floats]:
        """Return gradient and Hessian, Σ (p − wanted) x and Σ p (δ − p) x x of probabilities p and x = (logits, 1)."""
        x, outputs, weight = self._logits, self._logits.shape[1], self._weight
        shares = self._task.scores(self._scaled(at))[:, -outputs:]
        off = weight * (shares - self._wanted)
        gradient = np.concatenate([(off * x).sum(0), off.sum(0)])
        both = np.hstack([shares * x, shares])
        hessian = -(np.tile(weight, 2 * outputs) * both).T @ both
        c = np.arange(outputs)
        for i, j, power in ((c, c, 2), (c, c + outputs, 1), (c + outputs, c, 1), (c + outputs, c + outputs, 0)):
            hessian[i, j] += (weight * shares * x**power).sum(0)
        return gradient, hessian

    def minimum(self, start: Floats, free: Floats) -> Floats:
        """Return the place of the least loss that is reached from the start along `free`, (2 · outputs, directions)."""
        at, loss = start, self(start)
        for _ in range(_STEPS):
            gradient, hessian = self._derivatives(at)
            slope = free.T @ gradient
            # Offsets of several classes can all grow together: of equal steps the shortest is taken.
            step = free @ np.linalg.lstsq(free.T @ hessian @ free, -slope, rcond=1e-12)[0]
            expected = -float(gradient @ step)
            if expected <= _NO_GAIN:
                break
            size = next((s for s in 0.5 ** np.arange(_HALVINGS) if self(at + s * step) < loss - 1e-4 * s * expected), 0)
            if not size:
                break
            at = at + size * step
            loss = self(at)
        return at
