"""What people call the value of a field in a row, and on which of its values its effects are averaged."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from attfm.data.codecs.codec import FIRST_VALUE
from attfm.data.codecs.numeric import Bins
from attfm.data.encoder import Encoder
from attfm.model.rows import BagRows, Rows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST_CUTS = 31  # of a scaled field, whose values are averaged within quantile bins


@dataclass(frozen=True)
class Members:
    """The states of a multi-valued field in some rows: each once a row, by rising row.

    row, state : int64 (entries,); weight : float64 (entries,), the x that multiplies the member's embedding
    """

    row: Ints
    state: Ints
    weight: Floats

    def slice(self, start: int, stop: int) -> Self:
        """Return the members of the rows start:stop, numbered from 0."""
        a, b = np.searchsorted(self.row, (start, stop))
        return type(self)(self.row[a:b] - start, self.state[a:b], self.weight[a:b])


@dataclass(frozen=True)
class RowStates:
    """The states that some rows are in.

    single : int64 (rows, fields), the one state of each field; 0 of a multi-valued field
    members : the states of each multi-valued field, by its number
    """

    single: Ints
    members: Mapping[int, Members]

    def __len__(self) -> int:
        return len(self.single)

    def slice(self, start: int, stop: int) -> Self:
        """Return the states of the rows start:stop."""
        members = {f: held.slice(start, stop) for f, held in self.members.items()}
        return type(self)(self.single[start:stop], members)

    def of_field(self, f: int) -> Members:
        """Return the states of one field, whatever its kind."""
        if f in self.members:
            return self.members[f]
        return Members(np.arange(len(self)), self.single[:, f], np.ones(len(self)))

    def sums(self, f: int, values: Floats) -> Floats:
        """Return Σ weight · values[state] over each row's states; values (states, outputs), result (rows, outputs)."""
        if f not in self.members:
            return values[self.single[:, f]]
        held = self.members[f]
        terms = held.weight[:, None] * values[held.state]
        columns = [np.bincount(held.row, term, minlength=len(self)) for term in terms.T]
        return np.stack(columns, axis=1).astype(np.float64)

    def cells(self, i: int, j: int) -> tuple[Ints, Ints, Ints]:
        """Return row, state of field i and state of field j of each combination that a row has; int64 (cells,)."""
        one, other = self.of_field(i), self.of_field(j)
        if i not in self.members and j not in self.members:
            return one.row, one.state, other.state
        count = np.bincount(other.row, minlength=len(self))
        start = np.cumsum(count) - count
        times = count[one.row]
        within = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
        row = np.repeat(one.row, times)
        return row, np.repeat(one.state, times), other.state[start[row] + within]


class States:
    """The states of each field: what the conditional means of the background are kept for.

    A field with one feature a row has a state for each feature. A scaled field has the states unknown, missing and
    its quantile bins. A multi-valued field has a state for each feature too, and a row is in several of them.

    Parameters
    ----------
    encoder : of the model
    cuts : inner edges of the bins of each scaled field, in scaled units, by field number

    Attributes
    ----------
    sizes : int64 (fields,), number of states of each field
    offsets : int64 (fields,), place of each field's first state among all
    """

    def __init__(self, encoder: Encoder, cuts: Mapping[int, Floats]) -> None:
        self.encoder = encoder
        self.cuts = cuts
        self.names = tuple(field.name for field in encoder.fields)
        self.kinds = tuple(field.kind for field in encoder.fields)
        sizes = [self._size(f) for f in range(len(self.names))]
        self.sizes = np.array(sizes, np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(self.sizes)])[:-1].astype(np.int64)
        self._features: dict[int, NDArray[np.object_]] = {}

    @classmethod
    def of_rows(cls, encoder: Encoder, rows: Rows) -> "States":
        """Return the states with the cuts of scaled fields at the quantiles of the rows."""
        cuts = {}
        for f, field in enumerate(encoder.fields):
            if field.kind == "scaled":
                known = (rows.ids[:, f] == field.start + FIRST_VALUE).numpy()
                x = rows.values[:, f].numpy()[known] if rows.values is not None else np.empty(0)
                inner = np.linspace(0, 1, MOST_CUTS + 2)[1:-1]
                cuts[f] = np.unique(np.quantile(x.astype(np.float64), inner)) if len(x) else np.empty(0)
        return cls(encoder, cuts)

    def _size(self, f: int) -> int:
        field = self.encoder.fields[f]
        return FIRST_VALUE + 1 + len(self.cuts[f]) if f in self.cuts else field.stop - field.start

    def of(self, rows: Rows) -> RowStates:
        """Return the states of each row, from 0 in each field."""
        starts = np.array([field.start for field in self.encoder.fields])
        states: Ints = rows.ids.numpy() - starts
        for f, cuts in self.cuts.items():
            if rows.values is not None:
                x = rows.values[:, f].numpy().astype(np.float64)
                known = states[:, f] == FIRST_VALUE
                states[known, f] += np.searchsorted(cuts, x[known], side="right")
        members = {f: _members(bag, start=int(starts[f])) for f, bag in rows.bags.items()}
        states[:, list(members)] = 0
        return RowStates(states, members)

    def features(self, f: int) -> NDArray[np.object_]:
        """Return what a field's features are called, from its start, as an array of strings."""
        if f not in self._features:
            self._features[f] = np.array(self.encoder.feature_names(f), dtype=object)
        return self._features[f]

    def labels(self, f: int) -> list[str]:
        """Return what a field's states are called."""
        if f not in self.cuts:
            return list(self.features(f))
        edges = self.edges(f)
        low, high = (float(edges[0]), float(edges[-1])) if edges is not None else (0.0, 0.0)
        bins = Bins(np.empty(0) if edges is None else edges[1:-1], low, high, np.full(len(self.cuts[f]) + 1, np.nan))
        return ["unknown", "missing", *bins.labels()]

    def edges(self, f: int) -> Floats | None:
        """Return the edges of an ordered field's bins in the column's unit, (bins + 1,); None for other fields."""
        if f not in self.cuts:
            return self.encoder.bin_edges(f)
        low, high = self.encoder.value_range(f)
        return np.concatenate([[low], low + self.cuts[f] * (high - low), [high]])

    def row_labels(self, rows: Rows) -> NDArray[np.object_]:
        """Return what each field's value is called in each row, (rows, fields) strings."""
        labels = np.empty(tuple(rows.ids.shape), dtype=object)
        ids = rows.ids.numpy()
        for f, field in enumerate(self.encoder.fields):
            names = self.features(f)
            if f in rows.bags:
                bag = rows.bags[f]
                members, offsets = names[bag.ids.numpy() - field.start], bag.offsets.tolist()
                labels[:, f] = [", ".join(members[a:b]) for a, b in itertools.pairwise(offsets)]
                continue
            local = ids[:, f] - field.start
            labels[:, f] = names[local]
            if field.kind == "scaled" and rows.values is not None:
                low, high = self.encoder.value_range(f)
                known = np.flatnonzero(local == FIRST_VALUE)
                x = low + rows.values[:, f].numpy()[known].astype(np.float64) * (high - low)
                labels[known, f] = [f"{value:.6g}" for value in x.tolist()]
        return labels


def _members(bag: BagRows, *, start: int) -> Members:
    """Return a field's bags as states; a member that stands twice in a row is there once, with the summed weight."""
    row = np.repeat(np.arange(len(bag.offsets) - 1), np.diff(bag.offsets.numpy()))
    code = row * np.int64(2**31) + (bag.ids.numpy() - start)
    distinct, place = np.unique(code, return_inverse=True)
    weight = np.bincount(place.ravel(), bag.weights.numpy(), minlength=len(distinct)).astype(np.float64)
    return Members(distinct >> 31, distinct & (2**31 - 1), weight)
