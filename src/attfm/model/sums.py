"""What a machine has learned from beside the ids of its rows, kept so that it can learn on from new rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from attfm.data.codecs.codec import UNKNOWN, Field
from attfm.data.codecs.grouped import Floats, Integers, Totals
from attfm.data.codecs.pairs import PairSums
from attfm.data.codecs.rates import RateSums, StatisticBins
from attfm.model.knots import Knots

_FEWEST = 0.5  # rows that a value pair must have left, after earlier ones have faded, to be kept


def base_of(total: Floats) -> Floats:
    """Return the mean outcome, float64 (outputs,), given what is summed of all rows, float64 (outputs + 2,)."""
    mean: Floats = total[:-2] / max(total[-2], 1e-300)
    return mean


def places_of(old: Field, new: Field, origin: Integers) -> Integers:
    """Return where each level of a field is after its encoder was renewed, int64 (old size,), -1: nowhere."""
    if old.ordered:  # its levels are coarse bins, and stay
        return np.arange(old.size)
    own = origin[new.start : new.stop] - old.start
    there = np.flatnonzero((own != UNKNOWN) | (np.arange(new.size) == UNKNOWN))
    places = np.full(old.size, -1)
    places[own[there]] = there
    return places


@dataclass(frozen=True)
class Learned:
    """What was learned of the bins of statistics, float32: rows of w and V, and scalars of the memory.

    Attributes
    ----------
    linear : (bins, outputs); embedding : (bins, dim) or None without pairs, of the rates' bins, field after field
    memory : (n,), of the bins of remembered pairs
    """

    linear: NDArray[np.float32]
    embedding: NDArray[np.float32] | None
    memory: NDArray[np.float32]


@dataclass(frozen=True)
class TrainingSums:
    """Sums over the training rows, by which statistics are found, and what was learned of these.

    Attributes
    ----------
    total : float64 (outputs + 2,), over all rows, see `attfm.data.codecs.grouped.Totals.of`
    scale : mean and deviation of a regression's target in the first training
    rates : by field, of the ids that have rates
    levels : by field, float64 (levels, outputs + 2), over the rows of the levels of fields in remembered pairs
    pairs : by two fields, of the remembered pairs
    rows : float64 (features,), how many training rows had each feature
    stored_knots : what `Knots.to_arrays` tells of numeric fields, or None
    learned : None before training ends
    """

    total: Floats
    scale: tuple[float, float]
    rates: Mapping[int, RateSums] = field(default_factory=dict)
    levels: Mapping[int, Floats] = field(default_factory=dict)
    pairs: Mapping[tuple[int, int], PairSums] = field(default_factory=dict)
    rows: Floats = field(default_factory=lambda: np.empty(0))
    stored_knots: Mapping[str, NDArray[Any]] | None = None
    learned: Learned | None = None

    @cached_property
    def knots(self) -> Knots | None:
        """The knots of numeric fields, or None."""
        return None if self.stored_knots is None else Knots.from_arrays(self.stored_knots)

    @property
    def base(self) -> Floats:
        """Mean outcome of all rows, float64 (outputs,)."""
        return base_of(self.total)

    def __deepcopy__(self, memo: dict[int, Any]) -> "TrainingSums":
        return self  # never changed, and large

    def bins_of(self, f: int, features: int) -> Integers:
        """Return the rows of V of the bins of each feature of a field, int64 (size, outputs + 1); features : of all."""
        start = features
        for other, rates in self.rates.items():
            if other == f:
                rows: Integers = rates.of_features + start + np.cumsum([0, *rates.sizes[:-1]])
                return rows
            start += sum(rates.sizes)
        raise KeyError(f)

    def rows_of_tables(self) -> Floats:
        """Return how many training rows had read each row of w and V: features, then bins of rates; float64."""
        own, features = self.rows, len(self.rows)
        if self.knots is not None:  # bins between knots read those beside them
            at, share = self.knots, self.knots.share
            own = np.bincount(at.left, self.rows * (1 - share), minlength=features).astype(np.float64)
            own = own + np.bincount(at.right, self.rows * share, minlength=features)
        counts: list[Floats] = [own]
        for rates in self.rates.values():
            rows = Totals.of(rates.columns).rows
            for bins, size in zip(rates.of_features.T, rates.sizes, strict=True):
                counts.append(np.bincount(bins, rows, minlength=size).astype(np.float64))
        return np.concatenate(counts)

    def renewed(self, old: Sequence[Field], new: Sequence[Field], origin: Integers, kept: float) -> "TrainingSums":
        """Return the sums for an encoder that was renewed (`Encoder.renewed`), each earlier row counting `kept`."""
        own = [origin[to.start : to.stop] - of.start for of, to in zip(old, new, strict=True)]
        there = [(of != UNKNOWN) | (np.arange(len(of)) == UNKNOWN) for of in own]

        def of_new(f: int, columns: Floats) -> Floats:
            moved: Floats = kept * columns[own[f]] * there[f][:, None]
            return moved

        # Where bins were cut again, knots are chosen again.
        refitted = any(
            of.kind == "numeric" and not np.array_equal(own[f], np.arange(of.size)) for f, of in enumerate(old)
        )
        pairs = {}
        for (i, j), sums in self.pairs.items():
            places = [places_of(old[f], new[f], origin) for f in (i, j)]
            first, second = places[0][sums.first], places[1][sums.second]
            left = np.flatnonzero((first >= 0) & (second >= 0) & (kept * sums.columns[:, -1] >= _FEWEST))
            pairs[i, j] = replace(
                sums, first=first[left], second=second[left], columns=kept * sums.columns[left]
            )  # fmt: skip
        return replace(
            self,
            total=kept * self.total,
            rates={f: replace(rates, columns=of_new(f, rates.columns)) for f, rates in self.rates.items()},
            levels={f: kept * columns if old[f].ordered else of_new(f, columns) for f, columns in self.levels.items()},
            pairs=pairs,
            rows=kept * self.rows[origin] * np.concatenate(there) if len(self.rows) else self.rows,
            stored_knots=None if self.knots is None or refitted else self.knots.renewed(old, new).to_arrays(),
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all arrays by name, from which `from_arrays` makes equal sums."""
        arrays: dict[str, NDArray[Any]] = {"total": self.total, "scale": np.array(self.scale)}
        arrays["rows"] = self.rows.astype(np.float32)
        for f, rates in self.rates.items():
            arrays |= {f"rates.{f}.columns": rates.columns, f"rates.{f}.base": rates.base}
            arrays |= _of_bins(f"rates.{f}", rates.bins)
        arrays |= {f"levels.{f}.columns": columns for f, columns in self.levels.items()}
        for (i, j), pair in self.pairs.items():
            own = {"first": pair.first, "second": pair.second, "columns": pair.columns}
            arrays |= {f"pairs.{i}-{j}.{name}": array for name, array in own.items()}
            arrays |= _of_bins(f"pairs.{i}-{j}", pair.bins)
        arrays |= {f"knots.{name}": array for name, array in (self.stored_knots or {}).items()}
        if self.learned is not None:
            learned = {name: getattr(self.learned, name) for name in ("linear", "embedding", "memory")}
            arrays |= {f"learned.{name}": array for name, array in learned.items() if array is not None}
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the sums that `to_arrays` wrote; raise KeyError or ValueError where they can't be some."""
        parts: dict[str, dict[str, dict[str, NDArray[Any]]]] = {"rates": {}, "levels": {}, "pairs": {}}
        of_knots = {name.removeprefix("knots."): array for name, array in arrays.items() if name.startswith("knots.")}
        for name, array in arrays.items():
            part, _, rest = name.partition(".")
            if part in parts:
                of, _, what = rest.partition(".")
                parts[part].setdefault(of, {})[what] = array
        rates = {int(f): RateSums(own["columns"], own["base"], _bins(own)) for f, own in parts["rates"].items()}
        pairs = {
            (int(of.split("-")[0]), int(of.split("-")[1])): PairSums(
                own["first"], own["second"], own["columns"], _bins(own)
            ) for of, own in parts["pairs"].items()
        }  # fmt: skip
        mean, deviation = arrays["scale"].tolist()
        return cls(
            arrays["total"], (mean, deviation), dict(sorted(rates.items())),
            {int(f): own["columns"] for f, own in parts["levels"].items()}, dict(sorted(pairs.items())),
            arrays["rows"].astype(np.float64),
            of_knots or None,
            Learned(arrays["learned.linear"], arrays.get("learned.embedding"), arrays["learned.memory"])
            if "learned.linear" in arrays else None,
        )  # fmt: skip


def _of_bins(name: str, bins: StatisticBins) -> dict[str, NDArray[Any]]:
    arrays = {f"{name}.edges{output}": edges for output, edges in enumerate(bins.edges)}
    return arrays | {f"{name}.rows": np.array([bins.most_rows, bins.least_rows])}


def _bins(arrays: Mapping[str, NDArray[Any]]) -> StatisticBins:
    most, least = arrays["rows"].tolist()
    outputs = sum(name.startswith("edges") for name in arrays)
    return StatisticBins(tuple(arrays[f"edges{output}"] for output in range(outputs)), most, least)
