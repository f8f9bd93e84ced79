"""What would have to be otherwise: the smallest changes of a single field that flip a decision."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from attfm.data.batch import Batch, FieldFeatures
from attfm.data.codecs.codec import FIRST_VALUE, MISSING
from attfm.data.sources.source import Source
from attfm.errors import ConfigError, nearest
from attfm.explain.background import Background
from attfm.explain.explainer import Explainer
from attfm.model.bundle import Model

Floats = NDArray[np.float64]
_MOST_VALUES = 4096  # of a field that are tried: the ones that most training rows have


@dataclass(frozen=True)
class Change:
    """One field's change that flips the decision.

    field : its name; before, after : what the value is called
    distance : how far it is, 0 to 1. Between two values of an ordered field: the share of the training rows between
        them (from the middle of one bin to the middle of the other). Values of other fields have no order, nor has
        missing: there it is the share of the training rows that have another value than the new one, so that a common
        value is nearer than a rare one. For a member put into a bag, the share of the rows without it; for one taken
        out, of those with it.
    logit_before, logit_after : of the decision's output (predictions of a regression; of several classes the one
        that is decided after the change)
    decision_before, decision_after : the class decided; "below" or "above" the threshold of a regression

    Examples
    --------
    >>> change = Change("age", "25", "27", 0.04, -0.3, 0.1, "no", "yes")
    >>> f"{change.field}: {change.before} → {change.after}"
    'age: 25 → 27'
    """

    field: str
    before: str
    after: str
    distance: float
    logit_before: float
    logit_after: float
    decision_before: str
    decision_after: str


@dataclass(frozen=True)
class Changes(Sequence[Change]):
    """The changes that were found, the smallest first; printed, it says what was found or that there is nothing.

    found : the changes; row : the row's number; decision : what is decided about it
    tried : how many values were tried, of how many `fields`; immutable : columns that were left alone

    Examples
    --------
    >>> print(Changes((), row=3, decision="no", tried=57, fields=4, immutable=("sex",)))
    No change of a single field flips the decision 'no' about row 3: 57 values of 4 fields were tried (left alone: sex).
    """

    found: tuple[Change, ...]
    row: int
    decision: str
    tried: int
    fields: int
    immutable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.found)

    @overload
    def __getitem__(self, place: int) -> Change: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Change, ...]: ...
    def __getitem__(self, place: int | slice) -> Change | tuple[Change, ...]:
        return self.found[place]

    def __str__(self) -> str:
        about = f"the decision '{self.decision}' about row {self.row:,}"
        untouched = f" (left alone: {', '.join(self.immutable)})" if self.immutable else ""
        if not self.fields:
            return f"Nothing could be tried to flip {about}: every column is immutable."
        if not self.found:
            return (
                f"No change of a single field flips {about}: {self.tried:,} values of {self.fields:,} fields were "
                f"tried{untouched}."
            )
        lines = [f"{c.field}: {c.before} → {c.after} gives '{c.decision_after}' ({c.distance:.2f})" for c in self.found]
        return "\n".join([f"What flips {about}, by itself, and how far it is{untouched}:", *lines])


# Other values of one field: features, names and distances, these with the sign of the direction in an ordered field.
_Candidates = tuple[FieldFeatures, list[str], Floats]


def what_if(
    model: Model, source: Source, *, row: int = 0, immutable: Sequence[str] = (), threshold: float | None = None
) -> Changes:
    """Return the smallest single-field changes that flip the decision about one row, at most two a field.

    For an ordered field these are the nearest values that flip it, below and above; for another field, the nearest one.
    What is near is said at `Change.distance`. All values that occur in training are tried (the 4,096 most frequent of
    a larger field), but not missing; a multi-valued field has single members taken out or put in. The smallest come
    first; of equal ones the one that moves the logit most.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from attfm import AFMClassifier
    >>> from attfm.data.sources.source import open_source
    >>> X = pa.table({"job": ["cook", "cook", "pilot", "pilot"] * 20, "age": [25, 61] * 40})
    >>> model = AFMClassifier(epochs=20).fit(X, ["no", "yes"] * 40)
    >>> print(what_if(model.model_, open_source(X), row=2))
    What flips the decision 'no' about row 2, by itself, and how far it is:
    age: 25 → 61 gives 'yes' (0.50)
    """
    background, task, columns = Background.of_model(model), model.task, model.input_names
    unknown = [f"'{name}'{nearest(name, columns)}" for name in immutable if name not in columns]
    if unknown:
        raise ConfigError(f"No input column is called {', '.join(unknown)}: immutable= takes {', '.join(columns)}.")
    limit = task.threshold_of(threshold, default=model.threshold)
    [(_, encoded)] = Explainer(model, view="raw").encoded_rows(source, [row])
    labels = background.levels.row_labels(encoded)[0]
    start = model.logits_of(encoded)
    before = int(task.decide(start, limit)[0])
    changes, tried, fields = [], 0, 0
    for f, field in enumerate(model.encoder.fields):
        if field.column in immutable:
            continue
        fields += 1
        changed, names, distance = _candidates(background, encoded, f)
        copies = [encoded.field(other).take(np.zeros(len(names), np.int64)) for other in range(encoded.fields)]
        copies[f] = changed
        logits = model.logits_of(Batch.of_fields(copies))
        decided = task.decide(logits, limit)
        tried += len(decided)
        for c in _best(distance, np.flatnonzero(decided != before), ordered=field.ordered or field.kind == "scaled"):
            after = int(decided[c])
            output = after if len(task.outputs) > 1 else 0
            changes.append(
                Change(
                    field.name, str(labels[f]), names[c], float(abs(distance[c])), float(start[0, output]),
                    float(logits[c, output]), task.decisions[before], task.decisions[after],
                )
            )  # fmt: skip
    changes.sort(key=lambda change: (change.distance, -abs(change.logit_after - change.logit_before)))
    return Changes(tuple(changes), row, task.decisions[before], tried, fields, tuple(immutable))


def _best(distance: Floats, flips: NDArray[np.int64], *, ordered: bool) -> list[int]:
    """Return which flips are the nearest below and above, or the nearest of a field without order."""
    sides = [flips[distance[flips] < 0], flips[distance[flips] >= 0]] if ordered else [flips]
    return [int(side[np.argmin(np.abs(distance[side]))]) for side in sides if len(side)]


def _candidates(background: Background, encoded: Batch, f: int) -> _Candidates:
    levels, field = background.levels, background.levels.encoder.fields[f]
    if field.kind == "multi-valued":
        return _bag_candidates(background, encoded.field(f), f)
    start, size = levels.offsets[f], levels.sizes[f]
    counts = background.counts[start : start + size]
    now = int(levels.of(encoded).field(f).ids[0])
    scaled = f in levels.cuts
    tried = np.arange(FIRST_VALUE, size) if scaled else np.flatnonzero(counts[FIRST_VALUE:]) + FIRST_VALUE
    tried = tried[tried != now]
    tried = tried[np.argsort(-counts[tried], kind="stable")[:_MOST_VALUES]]
    if scaled:
        x = _bin_values(levels.cuts[f])[tried - FIRST_VALUE]
        changed = FieldFeatures(np.full(len(tried), field.start + FIRST_VALUE, np.int32), x.astype(np.float32))
        low, high = levels.encoder.value_range(f)
        names = [f"{low + v * (high - low):.6g}" for v in x]
    else:
        changed = FieldFeatures((field.start + tried).astype(np.int32))
        names = levels.features(f)[tried].tolist()
    distance = 1 - counts[tried] / max(counts.sum(), 1)
    if (field.ordered or scaled) and now > MISSING:
        # The share of rows between the middles of the two values, with the sign of the direction.
        known = np.where(np.arange(size) < FIRST_VALUE, 0, counts)
        middle = (np.cumsum(known) - known / 2) / max(known.sum(), 1)
        distance = middle[tried] - middle[now]
        distance = np.where(distance == 0, np.sign(tried - now) * 1e-12, distance)
    return changed, names, distance


def _bin_values(cuts: Floats) -> Floats:
    """Return one scaled value in each bin: the middle of it, and the ends of the range 0 to 1 for the outer ones."""
    if not len(cuts):
        return np.array([0.5])
    return np.concatenate([[min(0.0, float(cuts[0]) - 1e-6)], (cuts[1:] + cuts[:-1]) / 2, [max(1.0, float(cuts[-1]))]])


def _bag_candidates(background: Background, bag: FieldFeatures, f: int) -> _Candidates:
    """Return the bag without each member, and with each other member of the training rows."""
    levels, field = background.levels, background.levels.encoder.fields[f]
    weights = [1.0] * len(bag.ids) if bag.values is None else bag.values.tolist()
    members, features = bag.ids.tolist(), levels.features(f)
    counts = background.counts[levels.offsets[f] : levels.offsets[f] + levels.sizes[f]]
    share = counts / max(background.rows, 1)
    missing = field.start + MISSING
    present = [(m, w) for m, w in zip(members, weights, strict=True) if m != missing]
    names, bags, distance = list[str](), list[list[tuple[int, float]]](), list[float]()
    for member in dict.fromkeys(m for m, _ in present):
        names.append(f"without {features[member - field.start]}")
        bags.append([(m, w) for m, w in present if m != member] or [(missing, 1.0)])
        distance.append(share[member - field.start])
    common = np.argsort(-counts[FIRST_VALUE:], kind="stable")[:_MOST_VALUES] + FIRST_VALUE
    for level in common[counts[common] > 0].tolist():
        if field.start + level not in members:
            names.append(f"with {features[level]}")
            bags.append([*present, (field.start + level, 1.0)])
            distance.append(1 - share[level])
    entries = [entry for changed in bags for entry in changed]
    ids, values = np.array([m for m, _ in entries], np.int32), np.array([w for _, w in entries], np.float32)
    features_of_bags = FieldFeatures(ids, values, np.array([len(changed) for changed in bags], np.int64))
    return features_of_bags, names, np.array(distance)
