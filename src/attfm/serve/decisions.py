"""From logits to probabilities and decisions: the twin of `attfm.model.task`, which needs torch and Arrow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_NEARLY_SURE = 1e-16  # as in `attfm.model.calibration`
Label = str | bool | int | float


@dataclass(frozen=True)
class Link:
    """What stands between logits and decisions.

    Attributes
    ----------
    task : "binary", "multiclass" or "regression"
    target : str, name of the target
    classes : tuple of labels, in the order of their codes; empty for a regression
    class_names : tuple of str, as they stood in the training table
    threshold : float, probability above which the second of two classes is decided
    curves : tuple of (logits, probabilities), the points of an isotonic calibration, of each output; or empty
    """

    task: str
    target: str
    classes: tuple[Label, ...] = ()
    class_names: tuple[str, ...] = ()
    threshold: float = 0.5
    curves: tuple[tuple[Floats, Floats], ...] = ()

    @property
    def is_classification(self) -> bool:
        """Whether the target has classes."""
        return self.task != "regression"

    @property
    def outputs(self) -> tuple[str, ...]:
        """What each output is of: the second class of two, each class of more, or the target."""
        if not self.is_classification:
            return (self.target,)
        return self.class_names[1:] if self.task == "binary" else self.class_names

    def scores(self, logits: Floats) -> Floats:
        """Return (rows, classes) probabilities, or (rows,) predictions of a regression."""
        if not self.is_classification:
            return logits[:, 0]
        if self.curves:
            return self._by_curves(logits)
        if self.task == "binary":
            if len(logits) == 1:  # one row shall not wait for functions of arrays
                logit = float(logits[0, 0])
                less = math.exp(-abs(logit))
                pair = [less / (1 + less), 1 / (1 + less)]
                return np.array([pair if logit >= 0 else pair[::-1]])
            return np.hstack([np.exp(-np.logaddexp(0, logits)), np.exp(-np.logaddexp(0, -logits))])
        shifted = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(shifted / shifted.sum(1, keepdims=True), np.float64)

    def _by_curves(self, logits: Floats) -> Floats:
        scores = logits
        if logits.shape[1] > 1:
            shifted = logits - logits.max(1, keepdims=True)
            log_share = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
            scores = log_share - np.log(-np.expm1(np.minimum(log_share, -_NEARLY_SURE)))
        shares = np.stack([np.interp(s, *curve) for s, curve in zip(scores.T, self.curves, strict=True)], axis=1)
        if shares.shape[1] == 1:
            return np.hstack([1 - shares, shares])
        return np.asarray(shares / shares.sum(1, keepdims=True), np.float64)

    def decide(self, logits: Floats, threshold: float | None = None) -> NDArray[np.int64]:
        """Return the class code of each row, int64 (rows,)."""
        if self.task == "binary":
            limit = self.threshold if threshold is None else threshold
            return (self.scores(logits)[:, 1] > limit).astype(np.int64)
        return np.asarray((self.scores(logits) if self.curves else logits).argmax(1), np.int64)

    def labels(self, codes: NDArray[np.int64]) -> NDArray[Any]:
        """Return the labels of class codes."""
        kind: Any = object if isinstance(self.classes[0], str) else None
        return np.array(self.classes, dtype=kind)[codes]

    def facts(self) -> dict[str, Any]:
        """Return what JSON can hold, of which `of` makes an equal one."""
        curves = [[points.tolist() for points in curve] for curve in self.curves]
        return {
            "task": self.task, "target": self.target, "classes": list(self.classes),
            "class_names": list(self.class_names), "threshold": self.threshold, "curves": curves,
        }  # fmt: skip

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Self:
        """Return the link that `facts` of one tells."""
        curves: Sequence[Any] = facts["curves"]
        return cls(
            facts["task"], facts["target"], tuple(facts["classes"]), tuple(facts["class_names"]), facts["threshold"],
            tuple((np.array(x, np.float64), np.array(p, np.float64)) for x, p in curves),
        )  # fmt: skip
