"""The background: means over the training rows, against which the centred view shows its effects."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from attfm.data.batch import Batch
from attfm.errors import ConfigError
from attfm.explain.levels import Levels, level_sums
from attfm.explain.purification import Design, conditional_parts
from attfm.model.bundle import Model
from attfm.model.ensemble import Scorer
from attfm.model.terms import Terms, all_field_pairs, field_pairs

Floats = NDArray[np.float64]
Arrays = Mapping[str, NDArray[Any]]

_MOST_EFFECTS = 12_000_000  # pair effects held at once while the summary is made: bounds the rows it is made of
_LEAST_ROWS, _MOST_ROWS = 1_000, 50_000
_MOST_MEANS = 1 << 22  # conditional means kept in all: 32 MiB
_MOST_LEVELS = 1 << 16  # of the two fields of a pair together
_MOST_PAIRS = 1_000  # pairs with conditional means: bounds the time
_PAIRS_AT_ONCE = 64  # whose deviations from the mean are held while the variance is made
_ARRAYS = ("counts", "main_mean", "pair_mean", "centred", "moved")
_MEMBER_ARRAYS = ("main_mean", "pair_mean", "moved")  # of each member of an ensemble; the others are the same in all
NO_BACKGROUND = (
    "This model has no background stored, which the centred view needs: ask for the raw view "
    "(view='raw', or --raw on the command line), or train again."
)
OTHER_BACKGROUND = (
    "The background stored in this model is of another version of attfm and does not fit its fields: ask for the raw "
    "view (view='raw', or --raw on the command line), or train again."
)


@dataclass(frozen=True)
class Background:
    """Means of effects over training rows.

    pairs : int64 (pairs, 2), field numbers; counts : int64 (levels of all fields,), rows with each level
    main_mean, pair_mean : float64 (fields, outputs) and (pairs, outputs), after `moved` was moved
    centred : bool (pairs,), whether the pair's conditional means are kept; else its overall mean only is moved
    moved : float64 (entries, outputs), for each centred pair what is moved to its first field at each of that field's
        levels, and then to its second field; of a multi-valued field the sum over a row's members, by weight
    rows, training_rows : rows that were summarised, and how many there were
    members : backgrounds of the members of an ensemble, against which their own effects are centred
    """

    levels: Levels
    pairs: NDArray[np.int64]
    counts: NDArray[np.int64]
    main_mean: Floats
    pair_mean: Floats
    centred: NDArray[np.bool_]
    moved: Floats
    rows: int
    training_rows: int
    members: tuple["Background", ...] = ()

    @cached_property
    def _starts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places in `moved` of each centred pair's parts, of its first field and of its second."""
        first, second = self.pairs[self.centred].T
        sizes = self.levels.sizes
        start = np.concatenate([[0], np.cumsum(sizes[first] + sizes[second])])[:-1].astype(np.int64)
        return start, start + sizes[first]

    def centre(self, terms: Terms, levels: Batch) -> Terms:
        """Return the terms relative to their averages, whose sum goes to the intercept; levels : of the same rows."""
        main = terms.main - self.main_mean
        pair = terms.pair - self.pair_mean
        pairs = self.pairs[self.centred]
        to_first, to_second = (self._moved(starts, pairs[:, side], levels) for side, starts in enumerate(self._starts))
        pair[:, self.centred] -= to_first + to_second
        for place, (i, j) in enumerate(pairs):
            main[:, i] += to_first[:, place]
            main[:, j] += to_second[:, place]
        base = self.main_mean.sum(0) + self.pair_mean.sum(0)
        members = tuple(own.centre(part, levels) for own, part in zip(self.members, terms.members, strict=False))
        return replace(terms, intercept=terms.intercept + base, main=main, pair=pair, members=members)

    def _moved(self, starts: NDArray[np.int64], fields: NDArray[np.int64], levels: Batch) -> Floats:
        """Return what each centred pair gives to one of its fields, (rows, centred pairs, outputs)."""
        if levels.offsets is None:
            return np.asarray(self.moved[starts + levels.ids.numpy()[:, fields]], np.float64)
        of_field = {int(f): levels.field(int(f)) for f in np.unique(fields)}
        parts = [
            level_sums(of_field[int(f)], self.moved[start : start + int(self.levels.sizes[f])])
            for f, start in zip(fields, starts, strict=True)
        ]
        return np.stack(parts, axis=1) if parts else np.empty((len(levels), 0, self.moved.shape[1]))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that `of_model` needs."""
        arrays = {name: getattr(self, name) for name in _ARRAYS} | {"rows": np.array([self.rows, self.training_rows])}
        for number, member in enumerate(self.members):
            arrays |= {f"member.{number}.{name}": getattr(member, name).astype(np.float32) for name in _MEMBER_ARRAYS}
        return arrays | {f"cuts.{f}": cuts for f, cuts in self.levels.cuts.items()}

    @classmethod
    def of_model(cls, model: Model) -> Self:
        """Return the background that is stored with a model; raise ConfigError where there is none."""
        arrays = model.background
        if not arrays:
            raise ConfigError(NO_BACKGROUND)
        cuts = {int(name.removeprefix("cuts.")): a for name, a in arrays.items() if name.startswith("cuts.")}
        levels = Levels(model.encoder, cuts)
        if len(arrays["counts"]) != levels.sizes.sum():
            raise ConfigError(OTHER_BACKGROUND)
        rows, training_rows = arrays["rows"].tolist()
        means: dict[str, Any] = {name: arrays[name] for name in _ARRAYS}
        whole = cls(levels, field_pairs(model.module), **means, rows=rows, training_rows=training_rows)
        count = sum(name.startswith("member.") and name.endswith(".moved") for name in arrays)
        of_members: list[dict[str, Any]] = [
            {name: arrays[f"member.{number}.{name}"].astype(np.float64) for name in _MEMBER_ARRAYS}
            for number in range(count)
        ]
        return replace(whole, members=tuple(replace(whole, **means) for means in of_members))

    @classmethod
    def of_sample(
        cls, terms: Terms, levels: Levels, of_rows: Batch, *, centred: NDArray[np.bool_] | None = None
    ) -> Self:
        """Return the background of the given terms.

        Parameters
        ----------
        of_rows : Batch, the levels of their rows
        centred : bool (pairs,) or None, which pairs get conditional means; None: as many as are affordable
        """
        fields = range(len(levels.names))
        pairs = all_field_pairs(len(fields)) if terms.pair.shape[1] else np.empty((0, 2), np.int64)
        designs = [Design.of_levels(of_rows.field(f), int(levels.sizes[f])) for f in fields]
        counts = np.concatenate([np.bincount(design.level, minlength=design.size) for design in designs])
        main_mean, pair_mean = terms.main.mean(0), terms.pair.mean(0, dtype=np.float64)
        centred = _affordable(terms.pair, pairs, levels.sizes) if centred is None else centred
        widths = int(levels.sizes[pairs[centred]].sum())
        moved, start = np.empty((widths, len(terms.intercept))), 0
        for p in np.flatnonzero(centred):
            deviation = terms.pair[:, p].astype(np.float64) - pair_mean[p]
            ends = [designs[f] for f in pairs[p]]
            parts = conditional_parts(deviation, *ends)
            for f, design, part in zip(pairs[p], ends, parts, strict=True):
                # Members' sums have a mean: it is moved with them, so that base and the means of effects stay.
                main_mean[f] += design.mean @ part
                pair_mean[p] -= design.mean @ part
                moved[start : start + design.size] = part
                start += design.size
        rows = len(of_rows)
        return cls(levels, pairs, counts, main_mean, pair_mean, centred, moved, rows, rows)


def sample_size(module: Scorer) -> int:
    """Return how many rows a summary is made of at most."""
    effects = max(module.fields * (module.fields - 1) // 2 * module.outputs, 1)
    return int(np.clip(_MOST_EFFECTS // effects, _LEAST_ROWS, _MOST_ROWS))


def _affordable(
    effect: NDArray[np.floating[Any]], pairs: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which pairs get conditional means: the ones that vary most, as far as the limits go; bool (pairs,)."""
    first, second = pairs.T
    width = (sizes[first] + sizes[second]) * effect.shape[2]
    variance = [effect[:, start : start + _PAIRS_AT_ONCE].var(0) for start in range(0, len(pairs), _PAIRS_AT_ONCE)]
    order = np.argsort(-np.concatenate(variance).sum(1), kind="stable") if variance else np.empty(0, np.int64)
    order = order[sizes[first[order]] + sizes[second[order]] <= _MOST_LEVELS][:_MOST_PAIRS]
    centred = np.zeros(len(pairs), np.bool_)
    left = _MOST_MEANS
    for p in order:
        if width[p] <= left:
            centred[p] = True
            left -= width[p]
    return centred
