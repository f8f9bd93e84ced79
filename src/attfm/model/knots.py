"""Numeric fields as linear splines while a model learns: a bin between two knots says what both say, by distance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from attfm.data.codecs.codec import FIRST_VALUE, Field
from attfm.data.codecs.numeric import share_out

Integers = NDArray[np.int64]
FEWEST, MOST = 16, 255  # knots of a field that "auto" allows


@dataclass(frozen=True)
class Knots:
    """Which rows of V and w a feature reads while a model learns: (1 − share) · table[left] + share · table[right].

    A feature that is a knot, or of a field without knots, reads its own row. After training each bin gets a row of its
    own, so that scoring knows nothing of knots.

    Attributes
    ----------
    left, right : int64 (features,); share : float32 (features,), 0 where left is all that is read
    neighbours : int64 (2, n), knots and bins, and the next one of their field
    """

    left: Integers
    right: Integers
    share: NDArray[np.float32]
    neighbours: Integers

    @classmethod
    def of(
        cls, fields: Sequence[Field], counts: Mapping[int, Integers], edges: Sequence[NDArray[np.float64] | None],
        *, most: int,
    ) -> Self:  # fmt: skip
        """Return about `most` knots for each field of more ordered features.

        A bin that has 1 / most of the rows by itself, such as that of the value 0, is a knot, and so are those beside
        it: what is said of it is said of no other value. The bins between share the rest of the knots evenly.

        Parameters
        ----------
        counts : how many training rows each feature of an ordered field has, int64 (size,), by field
        edges : float64 (bins + 1,) of each field, for the distances of bins; None: neighbours are equally far apart
        """
        features = max(field.stop for field in fields)
        left, share = np.arange(features), np.zeros(features, np.float32)
        right, neighbours = left.copy(), [np.empty((2, 0), np.int64)]
        for f, (field, ends) in enumerate(zip(fields, edges, strict=True)):
            bins = field.size - FIRST_VALUE
            if not field.ordered:
                continue
            first = field.start + FIRST_VALUE
            of_bins = counts[f][FIRST_VALUE:]
            if bins <= most or not of_bins.any():
                neighbours.append(first + np.stack([np.arange(bins - 1), np.arange(1, bins)]))
                continue
            knots = _spread(of_bins, most)
            place = np.arange(bins, dtype=np.float64) if ends is None else 0.5 * ends[:-1] + 0.5 * ends[1:]
            after = np.clip(np.searchsorted(knots, np.arange(bins), side="right"), 1, max(len(knots) - 1, 1))
            low, high = knots[after - 1], knots[np.minimum(after, len(knots) - 1)]
            width = np.maximum(place[high] - place[low], np.finfo(np.float64).tiny)
            between = np.clip((place - place[low]) / width, 0, 1)
            low, between = np.where(between == 1, high, low), np.where(between == 1, 0, between)
            own = slice(first, field.stop)
            left[own], right[own], share[own] = first + low, first + np.where(between > 0, high, low), between
            neighbours.append(first + np.stack([knots[:-1], knots[1:]]))
        return cls(left, right, share, np.concatenate(neighbours, axis=1))

    def renewed(self, old: Sequence[Field], new: Sequence[Field]) -> Self:
        """Return the knots of fields that begin elsewhere, and may have got features at their end."""
        places, features = np.zeros(max(field.stop for field in old), np.int64), max(field.stop for field in new)
        left, share = np.arange(features), np.zeros(features, np.float32)
        right = left.copy()
        for of, to in zip(old, new, strict=True):
            if of.ordered:
                own = slice(of.start, of.stop)
                places[own] = np.arange(to.start, to.start + of.size)
                moved = slice(to.start, to.start + of.size)
                left[moved], right[moved] = self.left[own] - of.start + to.start, self.right[own] - of.start + to.start
                share[moved] = self.share[own]
        return type(self)(left, right, share, places[self.neighbours])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return what differs from a table without knots, by name, from which `from_arrays` makes equal knots."""
        every = np.arange(len(self.left))
        own = np.flatnonzero((self.left != every) | (self.right != every))
        return {
            "features": np.array([len(every)]), "own": own, "left": self.left[own], "right": self.right[own],
            "share": self.share[own], "neighbours": self.neighbours,
        }  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the knots that `to_arrays` told; raise KeyError or IndexError where these can't be any."""
        features = int(arrays["features"][0])
        left, share = np.arange(features), np.zeros(features, np.float32)
        right, own = left.copy(), arrays["own"]
        left[own], right[own], share[own] = arrays["left"], arrays["right"], arrays["share"]
        return cls(left, right, share, arrays["neighbours"])

    @property
    def interpolates(self) -> bool:
        """Whether some feature reads what others say."""
        return bool((self.left != np.arange(len(self.left))).any())


def has_knots(fields: Sequence[Field], most: int) -> bool:
    """Return whether some field has more bins than so many knots; 0: there are none."""
    return most > 0 and any(field.ordered and field.size - FIRST_VALUE > most for field in fields)


def _spread(counts: Integers, most: int) -> Integers:
    """Return the bins, rising and of at least one row each, that are knots."""
    seen = np.flatnonzero(counts)
    rows = counts[seen]
    if len(seen) <= most:
        return seen
    first = np.flatnonzero(np.diff(share_out(rows, most), prepend=-1))
    heavy = np.flatnonzero(rows * most >= rows.sum())
    beside = np.clip([heavy - 1, heavy, heavy + 1], 0, len(seen) - 1).ravel()
    kept: Integers = seen[np.unique(np.concatenate([first, beside, [len(seen) - 1]]))]
    return kept


def knots_for(setting: int | Literal["auto"], rows: int) -> int:
    """Return how many knots a field has at most that is learned from so many rows; 0: each bin is learned by itself."""
    return knots_of_rows(rows) if setting == "auto" else setting


def knots_of_rows(rows: int) -> int:
    """Return how many knots so many training rows are good for: their root, 16 to 255."""
    return int(np.clip(round(rows**0.5), FEWEST, MOST))
