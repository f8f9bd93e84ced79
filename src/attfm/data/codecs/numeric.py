"""Numeric columns: bins of the training values, or one feature whose x is the scaled value."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heapify, heapreplace
from operator import itemgetter
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attfm.config import DataConfig
from attfm.data.arrow_columns import read_numbers
from attfm.data.bad_values import BadValues, too_far
from attfm.data.batch import FieldFeatures
from attfm.data.codecs.codec import (
    FIRST_VALUE,
    MISSING,
    UNKNOWN,
    Check,
    Codec,
    ColumnKind,
    Cuts,
    Field,
    Renewal,
    Scale,
    integer,
    one_of,
)
from attfm.data.schema import Column, damaged
from attfm.data.texts import short_numbers

Floats = NDArray[np.float64]
SAMPLE_SIZE = 1_000_000
# Most bins of a numeric column where nothing is said. A regression, learned at knots, gains by finer ones; classes do
# not, and their steps would take longer.
USUAL_BINS, BINS_OF_REGRESSION = 255, 1023


class Sample:
    """All values of a column while there are at most `size`; beyond that a uniform random sample of them.

    Each value gets a random key, and the values with the smallest keys stay. The keys follow the order of the values,
    so the sample does not depend on how the rows are cut into batches. The minimum `low` and the maximum `high` are
    of all values; low > high where there was none.
    """

    def __init__(self, *, seed: list[int], size: int = SAMPLE_SIZE) -> None:
        self.low, self.high = np.inf, -np.inf
        self._size = size
        self._rng = np.random.default_rng(seed)
        self._values: list[Floats] = []
        self._keys: list[Floats] = []
        self._held = 0
        self._limit = np.inf

    def add(self, values: Floats) -> None:
        """Take in values, all finite."""
        self.widen(values)
        keys = self._rng.random(len(values))
        if self._limit < np.inf:
            kept = keys < self._limit
            values, keys = values[kept], keys[kept]
        self._values.append(values)
        self._keys.append(keys)
        self._held += len(values)
        if self._held > 2 * self._size:
            self._shrink()

    def widen(self, values: Floats) -> None:
        """Take in values for the minimum and maximum only."""
        if len(values):
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def values(self) -> Floats:
        """Return the sampled values, in no particular order."""
        if self._held > self._size:
            self._shrink()
        return np.concatenate(self._values) if self._values else np.empty(0)

    def _shrink(self) -> None:
        values, keys = np.concatenate(self._values), np.concatenate(self._keys)
        kept = np.argpartition(keys, self._size)[: self._size]
        self._values, self._keys, self._held = [values[kept]], [keys[kept]], self._size
        self._limit = float(self._keys[0].max())


@dataclass(frozen=True)
class Bins:
    """Bins of one numeric column; bin b holds edges[b - 1] <= x < edges[b], the end bins all beyond.

    Attributes
    ----------
    edges : float64 (bins - 1,), increasing; `low` and `high` are the smallest and the greatest training value
    single : float64 (bins,), the training value of a bin that holds only one, else NaN
    """

    edges: Floats
    low: float
    high: float
    single: Floats

    @property
    def size(self) -> int:
        """Number of bins; 0 where the column had no value in training."""
        return len(self.single)

    def find(self, x: Floats) -> NDArray[np.int64]:
        """Return the bin of each value."""
        return np.searchsorted(self.edges, x, side="right")

    def labels(self) -> list[str]:
        """Return what people call the bins: "17" where it is one value, else "[17, 23)"."""
        if self.size == 0:
            return []
        edges = short_numbers(self.edges)
        inner = [f"[{low}, {high})" for low, high in itertools.pairwise(edges)]
        names = [f"< {edges[0]}", *inner, f">= {edges[-1]}"] if edges else ["any value"]
        held = np.flatnonzero(~np.isnan(self.single))
        for b, value in zip(held.tolist(), short_numbers(self.single[held]), strict=True):
            names[b] = value
        return names

    def rows(self) -> dict[str, pa.Array]:
        """Return the columns lower, upper and single of the encoder file."""
        if self.size == 0:
            return {}
        edges = self.outer_edges()
        single = pa.array(self.single, from_pandas=True)
        return {"lower": pa.array(edges[:-1]), "upper": pa.array(edges[1:]), "single": single}

    def outer_edges(self) -> Floats:
        """Return all edges, float64 (bins + 1,), from the smallest to the greatest training value."""
        return np.concatenate([[self.low], self.edges, [self.high]])

    @classmethod
    def from_rows(cls, column: Column, rows: pa.Table) -> Self:
        """Return the bins with these rows in the encoder file; raise RunFolderError where they can't be bins."""
        lower, upper = _bounds(column.name, rows)
        low, high = (float(lower[0]), float(upper[-1])) if len(rows) else (np.inf, -np.inf)
        edges = lower[1:]
        inside = len(edges) == 0 or (low <= edges[0] and edges[-1] <= high)
        if (np.diff(edges) <= 0).any() or (edges != upper[:-1]).any() or not inside or (len(rows) and low > high):
            raise damaged(f"the bins of field '{column.name}' are not in increasing order")
        if column.max_bins is not None and len(rows) > column.max_bins:
            raise damaged(f"field '{column.name}' has {len(rows)} bins, more than the {column.max_bins} of the schema")
        return cls(edges, low, high, _floats(rows, "single"))


def quantile_bins(values: Floats, *, low: float, high: float, max_bins: int) -> Bins:
    """Return at most `max_bins` bins that share the values evenly.

    Each distinct value gets its own bin where there are at most `max_bins`; else each value that is at least
    1 / max_bins of all gets its own bin, and the values between share the rest. Edges are midpoints of neighbouring
    values, rounded up to an integer where all values are integers.
    """
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) == 0:
        return Bins(np.empty(0), low, high, np.empty(0))
    bin_of = np.arange(len(distinct)) if len(distinct) <= max_bins else share_out(counts, max_bins)
    cuts = np.flatnonzero(np.diff(bin_of)) + 1  # the first value of each bin but the first
    below, above = distinct[cuts - 1], distinct[cuts]
    edges = 0.5 * below + 0.5 * above
    if (distinct == np.trunc(distinct)).all():
        edges = np.ceil(edges)
    edges = np.where((edges > below) & (edges <= above), edges, above)  # the midpoint of two neighbouring floats
    starts = np.concatenate([[0], cuts, [len(distinct)]])
    single = np.where(np.diff(starts) == 1, distinct[starts[:-1]], np.nan)
    return Bins(edges, low, high, single)


def share_out(counts: NDArray[np.int64], max_bins: int) -> NDArray[np.int64]:
    """Return the bin of each distinct value (in increasing order), given how often each occurs: at most `max_bins`."""
    is_heavy = counts * max_bins >= counts.sum()
    starts_run = ~is_heavy & np.concatenate([[True], is_heavy[:-1]])
    if is_heavy.sum() + starts_run.sum() > max_bins:
        # No room for a bin between all heavy values. A value of twice that share still stands alone below.
        is_heavy[:] = False
        starts_run = np.arange(len(counts)) == 0

    run = np.cumsum(starts_run)[~is_heavy] - 1  # the light values between two heavy ones are a run
    weight = np.asarray(np.bincount(run, counts[~is_heavy]), np.float64)
    bins = _seats(weight, max_bins - int(is_heavy.sum()))
    through = np.cumsum(counts[~is_heavy]) - np.concatenate([[0], np.cumsum(weight)])[run]
    centre = through - counts[~is_heavy] / 2  # of the value's own rows, among those of its run
    within_run = np.empty(len(counts), np.int64)
    within_run[~is_heavy] = (centre * bins[run] / weight[run]).astype(np.int64)
    change = np.ones(len(counts), np.bool_)
    change[1:] = is_heavy[1:] | is_heavy[:-1] | (within_run[1:] != within_run[:-1])
    return np.cumsum(change) - 1


def _seats(weight: Floats, seats: int) -> NDArray[np.int64]:
    """Return how many of the bins each run gets: at least one, and the next always to the run of the fullest bins."""
    queue = [(-w, run, 1) for run, w in enumerate(weight.tolist())]
    heapify(queue)
    for _ in range(seats - len(queue)):
        _, run, bins = queue[0]
        heapreplace(queue, (-weight[run] / (bins + 1), run, bins + 1))
    return np.array([bins for _, _, bins in sorted(queue, key=itemgetter(1))])


def uniform_bins(*, low: float, high: float, bins: int) -> Bins:
    """Return bins of equal width over low to high, as KBinsDiscretizer(strategy="uniform") on min-max scaled values.

    A value on an edge falls where rounding puts its scaled value. So each edge is the smallest float whose
    scaled value reaches the edge of the scaled range, found by bisection. (pandas.cut closes its bins on the right:
    a value that is exactly on an edge is one bin lower there.)
    """
    if low >= high:  # one value, or none
        return Bins(np.empty(0), low, high, np.array([low] if low == high else []))
    scale = 1 / (high - low)

    def scaled(x: Floats | float) -> Floats:
        return np.asarray(x * scale - low * scale)

    goals = np.linspace(scaled(low), scaled(high), bins + 1)[1:-1]
    under, over = np.full(bins - 1, low), np.full(bins - 1, high)
    while True:
        middle = 0.5 * under + 0.5 * over
        between = (middle > under) & (middle < over)
        if not between.any():
            break
        reached = scaled(middle) >= goals
        over = np.where(between & reached, middle, over)
        under = np.where(between & ~reached, middle, under)
    edges = np.unique(over)
    return Bins(edges, low, high, np.full(len(edges) + 1, np.nan))


class NumericLearner:
    """Keeps the values of a numeric column, or a sample of them, to cut bins on."""

    def __init__(self, column: Column, seed: list[int]) -> None:
        self._column = column
        self._sample = Sample(seed=seed, size=SAMPLE_SIZE)

    def add(self, chunk: pa.Array, *, row: int, bad: BadValues) -> None:
        x = read_numbers(chunk, column=self._column.name, row=row, bad=bad)
        x = x[~np.isnan(x)]
        if self._column.bins == "quantile":
            self._sample.add(x)
        else:
            self._sample.widen(x)

    def codec(self) -> Codec:
        low, high, max_bins = self._sample.low, self._sample.high, self._column.max_bins or 2
        if self._column.bins == "scaled":
            return ScaledCodec(self._column.name, low, high)
        if self._column.bins == "uniform":
            return BinsCodec(self._column.name, uniform_bins(low=low, high=high, bins=max_bins))
        values = self._sample.values()
        return BinsCodec(self._column.name, quantile_bins(values, low=low, high=high, max_bins=max_bins))


class BinsCodec(Codec):
    """One feature for each bin; any value is unknown where the column had no value in training, and so no bins."""

    def __init__(self, column: str, bins: Bins) -> None:
        self._column = column
        self.bins = bins
        self.fields = (Field(column, column, "numeric", FIRST_VALUE + bins.size, ordered=True),)
        self.rule = Cuts(bins.edges, bins.size)

    def encode(self, chunk: pa.Array, *, row: int, bad: BadValues) -> list[FieldFeatures]:
        x = read_numbers(chunk, column=self._column, row=row, bad=bad)
        missing = np.isnan(x)
        if self.bins.size:
            ids = self.bins.find(x).astype(np.int32)
            ids += FIRST_VALUE
        else:
            ids = np.full(len(x), UNKNOWN, np.int32)
        ids[missing] = MISSING
        return [FieldFeatures(ids)]

    def renewed(self, other: Codec, renewal: Renewal) -> tuple[Codec, list[NDArray[np.int64]]]:
        if not renewal.refit_bins or not isinstance(other, BinsCodec) or not other.bins.size:
            return super().renewed(other, renewal)
        # A new bin was that which held its middle.
        edges = other.bins.outer_edges()
        middle = np.where(np.isnan(other.bins.single), 0.5 * edges[:-1] + 0.5 * edges[1:], other.bins.single)
        places = self.bins.find(middle) + FIRST_VALUE if self.bins.size else np.full(len(middle), UNKNOWN)
        return other, [np.concatenate([[UNKNOWN, MISSING], places])]

    def labels(self, field: int = 0) -> list[str]:
        return self.bins.labels()

    def edges(self, field: int = 0) -> Floats | None:
        return self.bins.outer_edges() if self.bins.size else None

    def rows(self, field: int = 0) -> dict[str, pa.Array]:
        return self.bins.rows()


class ScaledCodec(Codec):
    """One feature whose x is the value, scaled so that training values lie in 0 to 1; low > high: there was none."""

    def __init__(self, column: str, low: float, high: float) -> None:
        self._column = column
        self.low = low
        self.high = high
        self._fault = too_far(low, high)
        self.fields = (Field(column, column, "scaled", FIRST_VALUE + 1),)
        self.rule = Scale(low, high)

    def encode(self, chunk: pa.Array, *, row: int, bad: BadValues) -> list[FieldFeatures]:
        x = read_numbers(chunk, column=self._column, row=row, bad=bad)
        missing = np.isnan(x)
        if self.low < self.high:
            with np.errstate(over="ignore"):
                scaled = np.where(missing, 1, (x - self.low) / (self.high - self.low)).astype(np.float32)
        else:  # constant, or without a value in training
            scaled = missing.astype(np.float32)
        bad.add_values(self._column, ~np.isfinite(scaled), chunk, row=row, fault=self._fault)
        return [FieldFeatures(np.where(missing, MISSING, FIRST_VALUE).astype(np.int32), scaled)]

    def labels(self, field: int = 0) -> list[str]:
        return ["value"]

    def value_range(self, field: int = 0) -> tuple[float, float]:
        return (self.low, self.high) if self.low <= self.high else (0.0, 1.0)

    def rows(self, field: int = 0) -> dict[str, pa.Array]:
        if self.low > self.high:
            return {}
        return {"lower": pa.array([self.low]), "upper": pa.array([self.high])}

    @classmethod
    def from_rows(cls, column: Column, rows: pa.Table) -> Self:
        """Return the codec with these rows in the encoder file; raise RunFolderError where they are no range."""
        lower, upper = _bounds(column.name, rows)
        if len(rows) > 1 or (lower > upper).any():
            raise damaged(f"field '{column.name}' needs one range")
        return cls(column.name, *((float(lower[0]), float(upper[0])) if len(rows) else (np.inf, -np.inf)))


class Numeric(ColumnKind):
    """Columns of numbers, durations and times of day."""

    settings: ClassVar[Mapping[str, Check]] = {
        "bins": one_of("quantile", "uniform", "scaled"),
        "max_bins": integer(2, 65_535),
    }

    def defaults(self, config: DataConfig) -> dict[str, Any]:
        return {"bins": config.numeric, "max_bins": USUAL_BINS if config.max_bins == "auto" else config.max_bins}

    def learner(self, column: Column, seed: list[int]) -> NumericLearner:
        return NumericLearner(column, seed)

    def codec(self, column: Column, rows: Mapping[str, pa.Table]) -> Codec:
        if column.bins == "scaled":
            return ScaledCodec.from_rows(column, rows[column.name])
        return BinsCodec(column.name, Bins.from_rows(column, rows[column.name]))


def _bounds(field: str, rows: pa.Table) -> tuple[Floats, Floats]:
    """Return the columns lower and upper of the encoder file, all finite."""
    lower, upper = _floats(rows, "lower"), _floats(rows, "upper")
    if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
        raise damaged(f"an edge of field '{field}' is not a number")
    return lower, upper


def _floats(rows: pa.Table, column: str) -> Floats:
    return np.asarray(rows[column].to_numpy(), np.float64)
