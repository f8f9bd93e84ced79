"""The front door: exact accounts of rows of a table, and of the model as a whole."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attfm.data.batch import Batch
from attfm.data.sources.source import Source
from attfm.errors import ConfigError, DataError
from attfm.explain.background import Background
from attfm.explain.explanation import BY_ROW, Explanation, View
from attfm.explain.global_explanation import GlobalExplanation
from attfm.explain.levels import Levels
from attfm.explain.summary import Summary, Tally
from attfm.model.bundle import Model
from attfm.model.terms import Terms, chunks, field_pairs, terms_of

_VIEWS = ("centred", "raw")


class Explainer:
    """Explains rows of tables by one model: "centred", against the averages over the training rows, or "raw".

    Examples
    --------
    >>> import pyarrow as pa
    >>> from attfm import AFMClassifier
    >>> X = pa.table({"job": ["cook", "cook", "pilot", "pilot"] * 20, "age": [25, 61] * 40})
    >>> model = AFMClassifier(epochs=20).fit(X, ["no", "yes"] * 40)
    >>> from attfm.data.sources.source import open_source
    >>> Explainer(model.model_, view="raw").of_rows(open_source(X), [3, 1])
    Explanation(2 rows, 2 fields, 1 pairs, view='raw')
    """

    def __init__(self, model: Model, *, view: View = "centred") -> None:
        if view not in _VIEWS:
            raise ConfigError(f"There is no view {view!r}: it is one of {', '.join(map(repr, _VIEWS))}.")
        self.model = model
        self.view = view
        self.background: Background | None = None
        if view == "centred":
            self.background = Background.of_model(model)
        self.levels = Levels(model.encoder, {}) if self.background is None else self.background.levels
        self.pairs = field_pairs(model.module)

    def encoded(self, source: Source) -> Iterator[tuple[int, Batch]]:
        """Yield the table's encoded rows, chunk by chunk, each with the number of its first row."""
        for rows in self.model.encode(source):
            first = rows.first
            for part in chunks(self.model.module, rows.batch):
                yield first, part
                first += len(part)

    def chunks(self, source: Source) -> Iterator[Explanation]:
        """Yield the explanation of all rows of a table, chunk by chunk: memory is bounded however long it is."""
        for first, rows in self.encoded(source):
            yield self.explain(rows, np.arange(first, first + len(rows)))

    def of_rows(self, source: Source, numbers: Sequence[int] | None) -> Explanation:
        """Return the explanation of some rows of a table in the order given (None: of all), numbered from 0."""
        if numbers is None:
            return _joined(list(self.chunks(source)))
        whole = _joined([self.explain(rows, here) for here, rows in self.encoded_rows(source, numbers)])
        return whole[np.searchsorted(whole.rows, np.array(numbers, np.int64))]

    def encoded_rows(self, source: Source, numbers: Sequence[int]) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        """Yield the encoded rows with these numbers, rising and each once, and their numbers.

        Raise DataError where a number is outside the table, from 0.
        """
        most = np.iinfo(np.int64).max
        wanted = np.array([min(max(int(number), -1), most) for number in numbers], np.int64)
        total = 0
        for first, rows in self.encoded(source):
            total = first + len(rows)
            here = np.unique(wanted[(wanted >= first) & (wanted < total)])
            if len(here):
                yield here, rows.take(torch.from_numpy(here - first))
            if total > wanted.max(initial=-1) and wanted.min(initial=0) >= 0:
                return
        outside = ", ".join(str(int(n)) for n in numbers if not 0 <= n < total)
        raise DataError(f"{source.name} has no row {outside}: it has {total:,} rows, numbered 0 to {total - 1:,}.")

    def explain(self, rows: Batch, numbers: NDArray[np.int64]) -> Explanation:
        """Return the explanation of encoded rows; numbers : int64 (rows,), theirs in the table."""
        terms, task = terms_of(self.model.module, rows), self.model.task
        conditional = np.zeros(len(self.pairs), np.bool_)
        if self.background is not None:
            terms, conditional = self.background.centre(terms, self.levels.of(rows)), self.background.centred
        members: dict[str, Any] = {}
        if terms.members:
            for name in ("main", "pair"):
                of_members = [getattr(member, name).astype(np.float32) for member in terms.members]
                members[f"members_{name}"] = np.stack(of_members, axis=1)
        return Explanation(
            self.view, self.levels.names, self.pairs, task.outputs, task.unit, terms.intercept, terms.main,
            terms.pair.astype(np.float64, copy=False), terms.attention, terms.applied, self.levels.row_labels(rows),
            numbers, conditional, **_memory_columns(terms, len(self.pairs)), **members,
        )  # fmt: skip


def explain_global(
    model: Model, source: Source | None = None, *, pairs: Sequence[tuple[str, str]] | None = None
) -> GlobalExplanation:
    """Return importance, attention, shapes and surfaces: as stored at the end of training, or of a table.

    Of a table, `pairs` names the pairs whose surfaces are wanted; None: those that are stored.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from attfm import AFMClassifier
    >>> X = pa.table({"job": ["cook", "cook", "pilot", "pilot"] * 20, "age": [25, 61] * 40})
    >>> model = AFMClassifier(epochs=20, refit=True).fit(X, ["no", "yes"] * 40)
    >>> explain_global(model.model_)
    GlobalExplanation(80 rows, 2 fields, 1 pairs)
    """
    background, stored = Background.of_model(model), Summary.from_arrays(model.background)
    overview = GlobalExplanation(
        background.levels, background.pairs, model.task.outputs, model.task.unit, stored, background.centred
    )
    present = [surface.pair for surface in stored.surfaces]
    surfaces = present if pairs is None else [_pair_number(model, overview, pair) for pair in pairs]
    if source is not None:
        tally = Tally(background, surfaces)
        for _, rows in Explainer(model, view="raw").encoded(source):
            tally.add(background.levels.of(rows), terms_of(model.module, rows))
        return overview.with_summary(tally.summary())
    absent = [overview.pair_names[p] for p in surfaces if p not in present]
    if absent:
        raise ConfigError(f"The surface of {', '.join(map(repr, absent))} is not stored: give a table too.")
    return overview


def _pair_number(model: Model, overview: GlobalExplanation, pair: tuple[str, str]) -> int:
    names = overview.fields
    unknown = [name for name in pair if name not in names]
    if unknown or len(set(pair)) != 2:
        raise ConfigError(f"{pair} is not a pair of fields: give two of {', '.join(map(repr, names))}.")
    ends = sorted(names.index(name) for name in pair)
    numbers = np.flatnonzero((overview.pairs == ends).all(1))
    if not len(numbers):
        raise ConfigError(f"This model has no pair effects (preset '{model.config.model.preset}').")
    return int(numbers[0])


def _memory_columns(terms: Terms, pairs: int) -> dict[str, NDArray[Any]]:
    """Return what the explanation says of the pair memory: by row and pair, nothing without one."""
    if terms.memory is None:
        return {}
    memory = np.full((len(terms), pairs, len(terms.intercept)), np.nan)
    seen = np.full((len(terms), pairs), -1, np.int32)
    memory[:, terms.memory.pairs], seen[:, terms.memory.pairs] = terms.memory.effect, terms.memory.rows
    return {"memory": memory, "seen": seen}


def _joined(parts: Sequence[Explanation]) -> Explanation:
    """Return the rows of all parts, one after the other (at least one part)."""
    if len(parts) == 1:
        return parts[0]
    names = [name for name in BY_ROW if getattr(parts[0], name) is not None]
    arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return replace(parts[0], **arrays)
