"""What a report warns of: constant columns, likely leaks, values that the model does not know, and missing ones."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.data.batch import FieldFeatures
from attfm.data.codecs.codec import MISSING, UNKNOWN
from attfm.metrics.intervals import area_under_roc
from attfm.model.bundle import Model
from attfm.report.rows_shown import Examined

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
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
        features = examined.rows.field(f)
        row, level = features.rows, features.ids.astype(np.int64) - field.start
        # A bag counts as unknown or missing as far as its members are.
        part = 1 / np.maximum(np.bincount(row, minlength=len(examined)), 1)[row]
        shares = [float(((level == special) * part).sum() / max(len(examined), 1)) for special in (UNKNOWN, MISSING)]
        alone = None
        if examined.target is not None and len(examined) >= _LEAST_ROWS:
            figure = _figure_of(model)
            alone = figure.alone(examined.target, row, level)
            if alone is not None and (field.ordered or field.kind == "scaled"):
                alone = max(alone, figure.by_size(examined.target, features))
        findings.append(FieldFinding(field.name, shares[0], shares[1], len(np.unique(level)), alone))
    return findings


def warnings_of(model: Model, examined: Examined | None, findings: list[FieldFinding]) -> list[dict[str, str]]:
    """Return the warnings, each with its kind ("leak", "unknown", "missing", "constant", "few"), field and sentence."""
    says_nothing = "has one value only in the training table: it says nothing. Drop it."
    warnings = [
        ("constant", column.name, says_nothing)
        for column in model.schema.inputs
        if column.distinct is not None and column.distinct <= 1 and not column.missing
    ]
    for pair in model.facts.straddling or ():
        text = (
            "rows of one group stand on both sides of the split: what training rows say of a pair of values gives the "
        )
        text += "others away. Keep groups together, by --split group:COLUMN, before the figures are believed."
        warnings.append(("leak", pair, text))
    figure = _figure_of(model).name
    for field in findings:
        if field.alone is not None and field.alone > LEAK:
            text = f"predicts the target nearly perfectly alone ({figure} {field.alone:.4f}): a likely leak."
            warnings.append(("leak", field.name, f"{text} Check that it is known before the target is."))
        if field.unknown > _MOST_UNKNOWN:
            text = f"has values that training did not see, or too seldom, in {100 * field.unknown:.1f} % of these rows"
            warnings.append(("unknown", field.name, f"{text}: the model knows nothing of them."))
        if field.missing > _MOST_MISSING:
            warnings.append(("missing", field.name, f"is missing in {100 * field.missing:.1f} % of these rows."))
    if examined is not None and examined.target is not None and len(examined) < 200:
        text = f"There are only {len(examined):,} rows: all figures are uncertain, see the intervals."
        warnings.append(("few", "", text))
    return [{"kind": kind, "field": field, "text": text} for kind, field, text in warnings]


class _Area:
    """How well one field alone predicts classes: the area under the ROC curve, a mean over the classes."""

    name = "AUC"

    def alone(self, target: NDArray[Any], row: Ints, level: Ints) -> float | None:
        """Return the figure of each half of the rows, predicted by the means of the field's values in the other half.

        A column of names or numbers of the rows has no value in both halves, so it does not look like a leak here.
        """
        classes = np.unique(target)
        if len(classes) < 2:
            return None
        hits = [target == c for c in (classes[1:] if len(classes) == 2 else classes)]
        return float(np.mean([area_under_roc(hit, _mean_of_other_half(hit, row, level)) for hit in hits]))

    def by_size(self, target: NDArray[Any], features: FieldFeatures) -> float:
        """Return the figure of a numeric field by its size alone, which needs fewer rows than its bins do."""
        x = _size(features)
        if np.ptp(x) == 0 or target.max() > 1:
            return 0.0
        area = area_under_roc(target == 1, x)
        return max(area, 1 - area)


class _Explained(_Area):
    """How well one field alone predicts a number: the explained share of its variance."""

    name = "R²"

    def alone(self, target: NDArray[Any], row: Ints, level: Ints) -> float | None:
        spread = float(((target - target.mean()) ** 2).sum())
        error = float(((target - _mean_of_other_half(target, row, level)) ** 2).sum())
        return 1 - error / spread if spread > 0 else None

    def by_size(self, target: NDArray[Any], features: FieldFeatures) -> float:
        x = _size(features)
        return 0.0 if np.ptp(x) == 0 else float(np.corrcoef(x, target)[0, 1] ** 2)


def _figure_of(model: Model) -> _Area:
    return _Area() if model.task.is_classification else _Explained()


def _size(features: FieldFeatures) -> Floats:
    x = features.ids.astype(np.float64)
    return x if features.values is None else x + features.values


def _mean_of_other_half(target: NDArray[Any], row: Ints, level: Ints) -> Floats:
    y, predicted = target.astype(np.float64), np.zeros(len(target))
    half = np.random.default_rng(0).permutation(len(y)) % 2
    members = np.maximum(np.bincount(row, minlength=len(y)), 1)
    for side in (0, 1):
        fitted = half[row] != side
        prior = float(y[half != side].mean()) if (half != side).any() else float(y.mean())
        size = int(level.max(initial=0)) + 1
        sums = np.bincount(level[fitted], y[row[fitted]], minlength=size) + _PRIOR * prior
        means = sums / (np.bincount(level[fitted], minlength=size) + _PRIOR)
        predicted += np.bincount(row[~fitted], means[level[~fitted]], minlength=len(y))
    return predicted / members
