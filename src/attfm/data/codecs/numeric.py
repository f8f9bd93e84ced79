"""Bins of numeric columns: where to cut, and how a bin is called."""

import itertools
from dataclasses import dataclass
from heapq import heapify, heapreplace
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SAMPLE_SIZE = 1_000_000


class Sample:
    """All values of a column while there are at most `size`; beyond that a uniform random sample of them.

    Each value gets a random key, and the values with the smallest keys stay. The keys follow the order of the values,
    so the sample does not depend on how the rows are cut into batches. Minimum and maximum are of all values.
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
        """Take in float64 (rows,) values, all finite."""
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

    edges : float64 (bins - 1,), increasing
    low, high : smallest and greatest training value
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
        """Return the bin of each value, int64 (rows,)."""
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


def quantile_bins(values: Floats, *, low: float, high: float, max_bins: int) -> Bins:
    """Return at most `max_bins` bins that share the values evenly.

    Each distinct value gets its own bin where there are at most `max_bins`; else each value that is at least
    1 / max_bins of all gets its own bin, and the values between share the rest. Edges are midpoints of neighbouring
    values, rounded up to an integer where all values are integers.
    """
    distinct, counts = np.unique(values, return_counts=True)
    bin_of = np.arange(len(distinct)) if len(distinct) <= max_bins else _share(counts, max_bins)
    cuts = np.flatnonzero(np.diff(bin_of)) + 1  # the first value of each bin but the first
    below, above = distinct[cuts - 1], distinct[cuts]
    edges = 0.5 * below + 0.5 * above
    if (distinct == np.trunc(distinct)).all():
        edges = np.ceil(edges)
    edges = np.where((edges > below) & (edges <= above), edges, above)  # the midpoint of two neighbouring floats
    starts = np.concatenate([[0], cuts, [len(distinct)]])[: len(cuts) + 2]
    if len(distinct) == 0:
        return Bins(np.empty(0), low, high, np.empty(0))
    single = np.where(np.diff(starts) == 1, distinct[starts[:-1]], np.nan)
    return Bins(edges, low, high, single)


def _share(counts: NDArray[np.int64], max_bins: int) -> NDArray[np.int64]:
    """Return the bin of each distinct value (in increasing order), given how often each occurs."""
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
    if low > high:
        return Bins(np.empty(0), low, high, np.empty(0))
    if low == high:
        return Bins(np.empty(0), low, high, np.array([low]))
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


def short_numbers(numbers: Floats) -> list[str]:
    """Return numbers as text: integers in full, others with as few digits as keep different ones apart."""
    if (np.abs(numbers) < 1e15).all() and (numbers == np.trunc(numbers)).all():
        return [str(int(x)) for x in numbers.tolist()]
    for digits in (6, 9, 12):
        texts = [f"{x:.{digits}g}" for x in numbers]
        if len(set(texts)) == len(set(numbers.tolist())):
            return texts
    return [repr(x) for x in numbers.tolist()]
