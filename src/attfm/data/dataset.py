"""Encoded rows with what is to be learned from them: what training reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attfm.data.batch import Batch


@dataclass(frozen=True)
class Examples:
    """Encoded rows with their targets, int64 class codes or float values (rows,), and relative weights (rows,)."""

    rows: Batch
    target: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: Tensor) -> Self:
        """Return the given rows, by int64 row numbers, in their order."""
        return type(self)(self.rows.take(rows), self.target.index_select(0, rows), self.weight.index_select(0, rows))

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of all parts (at least one, all of one encoder), one after the other."""
        if len(parts) == 1:
            return parts[0]
        rows = Batch.concatenate([part.rows for part in parts])
        return cls(rows, torch.cat([part.target for part in parts]), torch.cat([part.weight for part in parts]))

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Return the examples on a device, weights and the values of a regression in `dtype`."""
        target = self.target.to(device)
        target = target.to(dtype) if target.is_floating_point() else target
        return type(self)(self.rows.to(device), target, self.weight.to(device, dtype))


@dataclass(frozen=True)
class Statistics:
    """What training must know of all rows before the first step.

    entries : how many features all rows have
    mean_weight, total_weight : scalars, in the weights' dtype, and in float64
    class_totals : float64 (classes,), summed weight of each class that occurs; empty of a regression
    mean, deviation : float64 scalars, weighted, of the values of a regression
    seen : bool (features,), whether some row has the feature, up to the highest that one has
    """

    rows: int
    entries: int
    mean_weight: Tensor
    total_weight: Tensor
    class_totals: Tensor
    mean: Tensor
    deviation: Tensor
    seen: Tensor

    @classmethod
    def of(cls, examples: Examples) -> Self:
        """Return the statistics of rows that are all at hand."""
        weight, target, ids = examples.weight.double(), examples.target, examples.rows.ids
        mean, deviation, totals = weight.new_zeros(()), weight.new_ones(()), weight.new_zeros(0)
        if target.is_floating_point():
            mean = (weight * target).sum() / weight.sum()
            deviation = ((weight * (target - mean) ** 2).sum() / weight.sum()).sqrt()
        else:
            totals = torch.bincount(target, weight)
        seen = torch.zeros(int(ids.max()) + 1, dtype=torch.bool)
        seen[ids.flatten().long()] = True
        mean_weight = examples.weight.mean()
        return cls(len(examples), ids.numel(), mean_weight, weight.sum(), totals, mean, deviation, seen)


class Dataset(Protocol):
    """Encoded rows that are read batch by batch, wherever they lie."""

    def __len__(self) -> int: ...

    @property
    def statistics(self) -> Statistics:
        """Of all rows, gathered while they were encoded."""

    def shuffled(self, size: int, generator: torch.Generator) -> Iterator[Examples]:
        """Yield all rows once in random order, in batches of about `size` rows."""

    def ordered(self) -> Iterator[Examples]:
        """Yield all rows once, in their order, in pieces that fit in memory."""

    def sample(self, most: int) -> Batch:
        """Return all rows, or `most` of them by chance, always the same ones, in their order."""

    def take(self, rows: NDArray[np.int64]) -> "Dataset":
        """Return the given rows, by their numbers, in their order."""

    def bootstrap(self, seed: int) -> "Dataset":
        """Return a bootstrap sample: the rows that were drawn, weighted by how often; see `bootstrap_draws`."""


@dataclass(frozen=True)
class InMemoryDataset:
    """A data set whose rows are all in memory; given : statistics that are known already, or None."""

    examples: Examples
    given: Statistics | None = None

    def __len__(self) -> int:
        return len(self.examples)

    @cached_property
    def statistics(self) -> Statistics:
        return Statistics.of(self.examples) if self.given is None else self.given

    def shuffled(self, size: int, generator: torch.Generator) -> Iterator[Examples]:
        order = torch.randperm(len(self), generator=generator)
        # A last batch of a few rows would make a noisy step, so it is spread over the others.
        for numbers in torch.tensor_split(order, batch_count(len(self), size)):
            yield self.examples.take(numbers)

    def ordered(self) -> Iterator[Examples]:
        yield self.examples

    def sample(self, most: int) -> Batch:
        if len(self) <= most:
            return self.examples.rows
        kept = np.sort(np.random.default_rng(0).choice(len(self), most, replace=False))
        return self.examples.rows.take(torch.from_numpy(kept))

    def take(self, rows: NDArray[np.int64]) -> "InMemoryDataset":
        return InMemoryDataset(self.examples.take(torch.from_numpy(rows)))

    def bootstrap(self, seed: int) -> "InMemoryDataset":
        times = torch.from_numpy(bootstrap_draws(len(self), seed))
        kept = times.nonzero()[:, 0]
        weight = (self.examples.weight * times)[kept]
        if not weight.any():  # only rows without weight were drawn
            return self
        return InMemoryDataset(Examples(self.examples.rows.take(kept), self.examples.target[kept], weight))


@dataclass(frozen=True)
class Reweighted:
    """The rows of another data set, to be measured on, with the weights of each class multiplied by a factor."""

    dataset: Dataset
    factors: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def statistics(self) -> Statistics:
        return self.dataset.statistics

    def shuffled(self, size: int, generator: torch.Generator) -> Iterator[Examples]:
        return map(self._weighted, self.dataset.shuffled(size, generator))

    def ordered(self) -> Iterator[Examples]:
        return map(self._weighted, self.dataset.ordered())

    def sample(self, most: int) -> Batch:
        return self.dataset.sample(most)

    def take(self, rows: NDArray[np.int64]) -> "Reweighted":
        return Reweighted(self.dataset.take(rows), self.factors)

    def bootstrap(self, seed: int) -> "Reweighted":
        return Reweighted(self.dataset.bootstrap(seed), self.factors)

    def _weighted(self, examples: Examples) -> Examples:
        factors = examples.weight.new_tensor(self.factors)
        return Examples(examples.rows, examples.target, examples.weight * factors[examples.target])


def bootstrap_draws(rows: int, seed: int) -> NDArray[np.int64]:
    """Return how often each row is drawn in a bootstrap sample, int64 (rows,)."""
    drawn = np.random.default_rng(seed).integers(0, rows, rows)
    return np.bincount(drawn, minlength=rows).astype(np.int64)


def batch_count(rows: int, size: int) -> int:
    """Return how many batches of about `size` rows an epoch has."""
    return max(1, round(rows / size))


def gathered(*datasets: Dataset) -> Examples:
    """Return all rows of some data sets, one set after the other, each in its order."""
    return Examples.concatenate([part for dataset in datasets for part in dataset.ordered()])
