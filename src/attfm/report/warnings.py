"""What a report warns of: constant columns, likely leaks, values that the model does not know, and missing ones."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.data.codecs.codec import MISSING, UNKNOWN
from attfm.metrics.intervals import area_under_roc
from attfm.model.bundle import Model
from attfm.report.rows_shown import Examined

Floats = NDArray[np.float64]
LEAK = 0.99  # AUC (or R² of a regression) that a single field has hardly ever by honest means
_MOST_UNKNOWN, _MOST_MISSING = 0.1, 0.5
_LEAST_ROWS = 40  # with fewer labelled rows a perfect field may be luck
_PRIOR = 1.0  # rows of the overall mean that each value's mean is mixed with


@dataclass(frozen=True)
class FieldFinding:
    """One field in the rows examined.

    unknown, missing : shares of the rows; alone : AUC (R² of a regression) of the field alone, or None
    """

    name: str
    unknown: float
    missing: float
    values: int
    alone: float | None


def examine_fields(model: Model, examined: Examined) -> list[FieldFinding]:
    """Return what was found about each field."""
    findings = []
    for f, field in enumerate(model.encoder.fields):
        row, value = _values(examined, f, field.start)
        n = max(len(examined), 1)
        # A bag counts as unknown or missing as far as its members are.
        size = np.maximum(np.bincount(row, minlength=len(examined)), 1)
        shares = [float(((value == state) / size[row]).sum() / n) for state in (UNKNOWN, MISSING)]
        alone = None
        if examined.target is not None and len(examined) >= _LEAST_ROWS:
            alone = _alone(model.task.name, examined.target, row, value)
            if alone is not None and (field.ordered or field.kind == "scaled"):
                alone = max(alone, _by_size(model.task.name, examined.target, examined, f))
        findings.append(FieldFinding(field.name, shares[0], shares[1], len(np.unique(value)), alone))
    return findings


def warnings_of(model: Model, examined: Examined | None, findings: list[FieldFinding]) -> list[dict[str, str]]:
    """Return the warnings, each with its kind ("leak", "unknown", "missing", "constant"), field and sentence."""
    found = []
    for field in model.schema.inputs:
        if field.distinct is not None and field.distinct <= 1 and not field.missing:
            found.append(
                _warning("constant", field.name, "has one value only in the training table: it says nothing. Drop it.")
            )
    figure = "AUC" if model.task.is_classification else "R²"
    for one in findings:
        if one.alone is not None and one.alone > LEAK:
            found.append(
                _warning(
                    "leak", one.name,
                    f"predicts the target nearly perfectly alone ({figure} {one.alone:.4f}): a likely leak. Check that "
                    "it is known before the target is.",
                )
            )  # fmt: skip
        if one.unknown > _MOST_UNKNOWN:
            found.append(
                _warning(
                    "unknown", one.name,
                    f"has values that training did not see, or too seldom, in {100 * one.unknown:.1f} % of these rows: "
                    "the model knows nothing of them.",
                )
            )  # fmt: skip
        if one.missing > _MOST_MISSING:
            found.append(_warning("missing", one.name, f"is missing in {100 * one.missing:.1f} % of these rows."))
    if examined is not None and examined.target is not None and len(examined) < 200:
        found.append(
            _warning("few", "", f"There are only {len(examined):,} rows: all figures are uncertain, see the intervals.")
        )
    return found


def _warning(kind: str, field: str, text: str) -> dict[str, str]:
    return {"kind": kind, "field": field, "text": text}


def _values(examined: Examined, f: int, start: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the row and the feature (from the field's start) of each value of a field."""
    features = examined.rows.field(f)
    return features.rows, features.ids.astype(np.int64) - start


def _alone(task: str, target: NDArray[Any], row: NDArray[np.int64], value: NDArray[np.int64]) -> float | None:
    """Return how well one field alone predicts: each half of the rows by the means of its values in the other half.

    A column of names or numbers of the rows has no value in both halves, so it does not look like a leak here.
    """
    classes = np.unique(target)
    if task != "regression" and len(classes) < 2:
        return None
    half = np.random.default_rng(0).permutation(len(target)) % 2
    if task == "regression":
        predicted = _mean_of_other_half(target.astype(np.float64), row, value, half)
        spread = float(((target - target.mean()) ** 2).sum())
        return 1 - float(((target - predicted) ** 2).sum()) / spread if spread > 0 else None
    classes = classes[-1:] if task == "binary" else classes
    areas = [
        area_under_roc(target == c, _mean_of_other_half((target == c).astype(np.float64), row, value, half))
        for c in classes
    ]
    return float(np.mean(areas))


def _by_size(task: str, target: NDArray[Any], examined: Examined, f: int) -> float:
    """Return how well a numeric field predicts by its size alone, which needs fewer rows than its bins do."""
    features = examined.rows.field(f)
    x = features.ids.astype(np.float64)
    if features.values is not None:
        x = x + features.values
    if np.ptp(x) == 0 or task == "multiclass":
        return 0.0
    if task == "regression":
        return float(np.corrcoef(x, target)[0, 1] ** 2)
    area = area_under_roc(target == 1, x)
    return max(area, 1 - area)


def _mean_of_other_half(y: Floats, row: NDArray[np.int64], value: NDArray[np.int64], half: NDArray[np.int64]) -> Floats:
    predicted = np.zeros(len(y))
    members = np.maximum(np.bincount(row, minlength=len(y)), 1)
    for side in (0, 1):
        fitted = half[row] != side
        prior = float(y[half != side].mean()) if (half != side).any() else float(y.mean())
        size = int(value.max(initial=0)) + 1
        sums = np.bincount(value[fitted], y[row[fitted]], minlength=size) + _PRIOR * prior
        means = sums / (np.bincount(value[fitted], minlength=size) + _PRIOR)
        scored = ~fitted
        predicted += np.bincount(row[scored], means[value[scored]], minlength=len(y))
    return predicted / members
