"""What would have to be otherwise: the smallest changes of a single field that flip a decision."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray

from attfm.data.codecs.codec import FIRST_VALUE, MISSING
from attfm.data.sources.source import Source
from attfm.errors import ConfigError, nearest
from attfm.explain.background import Background
from attfm.explain.explainer import Explainer
from attfm.model.bundle import Model
from attfm.model.rows import BagRows, Rows

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
        held = f" (left alone: {', '.join(self.immutable)})" if self.immutable else ""
        if not self.fields:
            return f"Nothing could be tried to flip {about}: every column is immutable."
        if not self.found:
            return (
                f"No change of a single field flips {about}: {self.tried:,} values of {self.fields:,} fields were "
                f"tried{held}."
            )
        lines = [f"{c.field}: {c.before} → {c.after} gives '{c.decision_after}' ({c.distance:.2f})" for c in self.found]
        return "\n".join([f"What flips {about}, by itself, and how far it is{held}:", *lines])


@dataclass(frozen=True)
class _Candidates:
    """Copies of one row, each with another value of one field.

    names : what the values are called; distance : of each, with the sign of the direction in an ordered field
    """

    rows: Rows
    names: list[str]
    distance: Floats


def what_if(
    model: Model, source: Source, *, row: int = 0, immutable: Sequence[str] = (), threshold: float | None = None
) -> Changes:
    """Return the smallest single-field changes that flip the decision about one row, at most two a field.

    For an ordered field these are the nearest values that flip it, below and above; for another field, the nearest one.
    What is near is said at `Change.distance`. All values that occur in training are tried (the 4,096 most frequent of
    a larger field), but not missing; a multi-valued field has single members taken out or put in. The smallest come
    first; of equal ones the one that moves the logit most.

    Raises
    ------
    DataError : the row is outside the table
    ConfigError : an immutable column does not exist; a regression without a threshold; no background is stored

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
    explainer = Explainer(model)
    columns = [field.name for field in model.schema.inputs]
    unknown = [f"'{name}'{nearest(name, columns)}" for name in immutable if name not in columns]
    if unknown:
        raise ConfigError(f"No input column is called {', '.join(unknown)}: immutable= takes {', '.join(columns)}.")
    if explainer.background is None:
        raise TypeError("the centred view has a background")
    background = explainer.background
    decide = _decision(model, threshold)
    one = explainer.encoded_row(source, row)
    labels = background.states.row_labels(one)[0]
    start = model.scorer.predict(one).double().numpy()
    before = int(decide(start)[0])
    names = _decision_names(model)
    found, tried, fields = [], 0, 0
    for f, field in enumerate(model.encoder.fields):
        if field.column in immutable:
            continue
        fields += 1
        candidates = _candidates(background, one, f)
        logits = model.scorer.predict(candidates.rows).double().numpy()
        decided = decide(logits)
        tried += len(decided)
        for c in _best(candidates, np.flatnonzero(decided != before), ordered=field.ordered or field.kind == "scaled"):
            after = int(decided[c])
            output = after if logits.shape[1] > 1 else 0
            found.append(
                Change(
                    field.name,
                    str(labels[f]),
                    candidates.names[c],
                    float(abs(candidates.distance[c])),
                    float(start[0, output]),
                    float(logits[c, output]),
                    names[before],
                    names[after],
                )
            )
    found.sort(key=lambda change: (change.distance, -abs(change.logit_after - change.logit_before)))
    return Changes(tuple(found), row, names[before], tried, fields, tuple(immutable))


def _decision(model: Model, threshold: float | None) -> Callable[[Floats], NDArray[np.int64]]:
    """Return what turns logits (rows, outputs) into decisions (rows,)."""
    if model.task == "multiclass":
        return lambda logits: logits.argmax(1)
    if model.task == "regression":
        if threshold is None:
            raise ConfigError("A regression has no decision to flip: give threshold=, the value that is to be crossed.")
        return lambda logits: (logits[:, 0] > threshold).astype(np.int64)
    share = model.config.train.threshold if threshold is None else threshold
    if not 0 < share < 1:
        raise ConfigError(f"threshold={threshold:g} is not a probability: give a number between 0 and 1.")
    return lambda logits: (logits[:, 0] > np.log(share / (1 - share))).astype(np.int64)


def _decision_names(model: Model) -> list[str]:
    return ["below", "above"] if model.target.classes is None else [str(name) for name in model.target.classes]


def _best(candidates: _Candidates, flips: NDArray[np.int64], *, ordered: bool) -> list[int]:
    """Return the nearest candidate below and above, or the nearest of a field without order."""
    distance = candidates.distance[flips]
    sides = [flips[distance < 0], flips[distance >= 0]] if ordered else [flips]
    return [int(side[np.argmin(np.abs(candidates.distance[side]))]) for side in sides if len(side)]


def _candidates(background: Background, one: Rows, f: int) -> _Candidates:
    states, field = background.states, background.states.encoder.fields[f]
    if field.kind == "multi-valued":
        return _bag_candidates(background, one, f)
    start, size = states.offsets[f], states.sizes[f]
    counts = background.counts[start : start + size]
    held = int(states.of(one).single[0, f])
    tried = np.flatnonzero(counts[FIRST_VALUE:]) + FIRST_VALUE
    if f in states.cuts:
        tried = np.arange(FIRST_VALUE, size)
    tried = tried[tried != held]
    tried = tried[np.argsort(-counts[tried], kind="stable")[:_MOST_VALUES]]
    rows = one.take(torch.zeros(len(tried), dtype=torch.int64))
    ids = rows.ids.clone()
    names = [states.labels(f)[state] for state in tried] if f not in states.cuts else []
    values = rows.values
    if f in states.cuts and values is not None:
        ids[:, f] = field.start + FIRST_VALUE
        x = _representatives(states.cuts[f])[tried - FIRST_VALUE]
        values = values.clone()
        values[:, f] = torch.from_numpy(x).to(values.dtype)
        low, high = states.encoder.value_range(f)
        names = [f"{low + v * (high - low):.6g}" for v in x]
    else:
        ids[:, f] = torch.from_numpy(field.start + tried).to(ids.dtype)
    distance = 1 - counts[tried] / max(counts.sum(), 1)
    if (field.ordered or f in states.cuts) and held > MISSING:
        # The share of rows between the middles of the two values, with the sign of the direction.
        known = np.where(np.arange(size) < FIRST_VALUE, 0, counts)
        middle = (np.cumsum(known) - known / 2) / max(known.sum(), 1)
        distance = middle[tried] - middle[held]
        distance = np.where(distance == 0, np.sign(tried - held) * 1e-12, distance)
    return _Candidates(Rows(ids, values, rows.bags), names, distance)


def _representatives(cuts: Floats) -> Floats:
    """Return one scaled value in each bin: the middle of it, and the ends of the range 0 to 1 for the outer ones."""
    if not len(cuts):
        return np.array([0.5])
    return np.concatenate([[min(0.0, float(cuts[0]) - 1e-6)], (cuts[1:] + cuts[:-1]) / 2, [max(1.0, float(cuts[-1]))]])


def _bag_candidates(background: Background, one: Rows, f: int) -> _Candidates:
    """Return the row without each member, and with each other member of the training rows."""
    states, field, bag = background.states, background.states.encoder.fields[f], one.bags[f]
    members, weights, features = bag.ids.tolist(), bag.weights.tolist(), states.features(f)
    counts = background.counts[states.offsets[f] : states.offsets[f] + states.sizes[f]]
    share = counts / max(background.rows, 1)
    missing = field.start + MISSING
    held = [(m, w) for m, w in zip(members, weights, strict=True) if m != missing]
    names, bags, distance = list[str](), list[list[tuple[int, float]]](), list[float]()
    for member in dict.fromkeys(m for m, _ in held):
        names.append(f"without {features[member - field.start]}")
        bags.append([(m, w) for m, w in held if m != member] or [(missing, 1.0)])
        distance.append(share[member - field.start])
    common = np.argsort(-counts[FIRST_VALUE:], kind="stable")[:_MOST_VALUES] + FIRST_VALUE
    for state in common[counts[common] > 0].tolist():
        if field.start + state not in members:
            names.append(f"with {features[state]}")
            bags.append([*held, (field.start + state, 1.0)])
            distance.append(1 - share[state])
    entries = [entry for changed in bags for entry in changed]
    changed = BagRows(
        torch.tensor([member for member, _ in entries], dtype=bag.ids.dtype),
        torch.tensor([weight for _, weight in entries], dtype=bag.weights.dtype),
        torch.tensor(np.cumsum([0] + [len(changed) for changed in bags]), dtype=torch.int64),
    )
    rows = one.take(torch.zeros(len(names), dtype=torch.int64))
    return _Candidates(Rows(rows.ids, rows.values, {**rows.bags, f: changed}), names, np.array(distance))
