"""A factorization machine while it learns from rates of ids and from the memory of value pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from attfm.config import ModelConfig
from attfm.data.batch import Batch
from attfm.data.codecs.grouped import Integers
from attfm.data.codecs.pairs import PairKeys, PairLevels
from attfm.data.codecs.rates import Composition, StatisticBins
from attfm.model.knots import Knots
from attfm.model.memory import PairMemory
from attfm.model.modules import FactorizationMachine
from attfm.model.sums import Learned, TrainingSums
from attfm.ops.sparse import number_rows
from attfm.ops.sparse_gradient import sparse_gradient

_FOLDED_AT_ONCE = 1 << 16  # features: their rows of V, and of their bins, are gathered before they are summed
# Ids up to which all are put together in each step: to find those of a batch, and their parts, takes longer.
_FEW_IDS = 2048


class BinLayout:
    """How the bins of all remembered pairs are numbered: pair after pair, for each output statistic, then count.

    Attributes
    ----------
    rates, counts : int64 (outputs, pairs), number of the first bin of each statistic and count
    size : int, number of bins
    neighbours : list of int64 arrays, bins whose next is a neighbour
    """

    def __init__(self, outputs: int, pairs: int) -> None:
        self.rates, self.counts = np.zeros((2, outputs, pairs), np.int64)
        self.size, self.neighbours = 0, list[Integers]()

    def add(self, pair: int, bins: StatisticBins) -> None:
        """Number the bins of a pair."""
        for output, size in enumerate(bins.sizes):
            self.rates[output, pair] = self.size
            # The first bin is that of unknown value pairs, and has no neighbour.
            self.neighbours.append(np.arange(self.size + 1, self.size + size - 1))
            self.counts[output, pair] = self.size + size
            self.neighbours.append(np.arange(self.size + size, self.size + size + bins.count_size - 1))
            self.size += size + bins.count_size


@dataclass(frozen=True)
class KnownPairs:
    """Value pairs that training rows have: key, number of the field pair, bins (outputs + 1), training rows of each."""

    keys: Integers
    pair: Integers
    bins: NDArray[np.uint8]
    rows: Integers

    @classmethod
    def concatenate(cls, parts: Sequence["KnownPairs"]) -> "KnownPairs":
        """Return all of them."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


@dataclass(frozen=True)
class BinnedPairs:
    """The remembered field pairs while their memory is learned: how bins are numbered, and those of each value pair."""

    levels: PairLevels
    keys: PairKeys
    layout: BinLayout
    known: KnownPairs

    def memory(self, weight: Tensor) -> PairMemory:
        """Return the memory, given the scalar of each bin, (bins,)."""
        scalars, layout, known = weight.detach().double().cpu().numpy(), self.layout, self.known
        effects = scalars[layout.rates[:, known.pair].T + known.bins[:, :-1]]
        effects += scalars[layout.counts[:, known.pair].T + known.bins[:, -1:]]
        unknown = scalars[layout.rates.T] + scalars[layout.counts.T]  # bin 0 is that of unknown value pairs
        return PairMemory.of(self.levels, self.keys, known.keys, effects, known.rows, unknown)


class BinnedMemory(nn.Module):
    """The effect of remembered pairs, learned from their statistics: u = s[bin of rate] + t[bin of count]."""

    rates: Tensor
    counts: Tensor

    def __init__(self, pairs: BinnedPairs) -> None:
        super().__init__()
        self.pairs = pairs
        self.weight = nn.Parameter(torch.zeros(pairs.layout.size, dtype=torch.float32))
        self.register_buffer("rates", torch.from_numpy(pairs.layout.rates), persistent=False)
        self.register_buffer("counts", torch.from_numpy(pairs.layout.counts), persistent=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> "BinnedMemory":
        copied = BinnedMemory(self.pairs).to(self.weight)  # the pairs are never changed, and large
        copied.load_state_dict(self.state_dict())
        memo[id(self)] = copied
        return copied

    def forward(self, bins: Tensor) -> Tensor:
        """Return the summed effects, (batch, outputs), of bins, uint8 (batch, outputs + 1, pairs)."""
        # By number, not as an embedding: the gradient is then a plain sum, which is faster for single numbers.
        rates, counts = (bins[:, :-1] + self.rates).flatten(), (bins[:, -1:] + self.counts).flatten()
        scalars = self.weight.index_select(0, torch.cat([rates, counts]))
        return scalars.view(2, len(bins), -1, bins.shape[2]).sum((0, 3))


@dataclass(frozen=True)
class _Reading:
    """Which rows of a table are put together, for n features.

    Attributes
    ----------
    rows : int64, of each feature's own row (n of them), then right knots, then the bins of each with statistics
    between, share : int64 and floating (features, 1), the features that stand between two knots, and how far
    composed : int64 (features,), those with statistics
    statistics : int, bins of each of these
    """

    rows: Tensor
    between: Tensor
    share: Tensor
    composed: Tensor
    statistics: int

    def split(self, read: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what was read of own rows, right knots, and bins."""
        right, bins = len(self.between), len(self.composed) * self.statistics
        own, right_knots, of_bins = read.split_with_sizes([len(read) - right - bins, right, bins])
        return own, right_knots, of_bins


class _Composed(torch.autograd.Function):
    """Rows of a table as a reading puts them together: own + share · (right − own) + Σ bins."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, reading: _Reading, sparse: bool) -> Tensor:
        ctx.reading, ctx.shape, ctx.sparse = reading, table.shape, sparse
        own, right, bins = reading.split(table.index_select(0, reading.rows))
        if len(reading.between):
            own.index_add_(0, reading.between, right.sub_(own.index_select(0, reading.between)).mul_(reading.share))
        if len(reading.composed):
            own.index_add_(0, reading.composed, bins.view(-1, reading.statistics, table.shape[1]).sum(1))
        return own

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        reading: _Reading = ctx.reading
        slopes = gradient.new_empty((len(reading.rows), gradient.shape[1]))
        own, right, bins = reading.split(slopes)
        own.copy_(gradient)
        if len(reading.between):
            torch.mul(gradient.index_select(0, reading.between), reading.share, out=right)
            own.index_add_(0, reading.between, right, alpha=-1)
        if len(reading.composed):
            of_bins = gradient.index_select(0, reading.composed)
            bins.view(-1, reading.statistics, gradient.shape[1]).copy_(of_bins[:, None])
        if ctx.sparse:
            return sparse_gradient(reading.rows, slopes, ctx.shape), None, None
        if slopes.device.type != "cpu":  # sums of one order, whatever runs beside
            summed = torch.ops.aten.embedding_dense_backward(slopes, reading.rows, ctx.shape[0], -1, False)
        elif slopes.shape[1] == 1:  # single numbers are summed faster than rows of one
            summed = slopes.new_zeros(ctx.shape[0]).index_add_(0, reading.rows, slopes[:, 0])[:, None]
        else:
            summed = slopes.new_zeros(ctx.shape).index_add_(0, reading.rows, slopes)
        return summed, None, None


class StatisticalMachine(FactorizationMachine):
    """A factorization machine while it is trained with rates, knots and pair memory; `folded` is what is kept of it.

    Training rows have composed ids (`Composition`), all other rows those of the encoder. Rows of both have the bins of
    remembered pairs.
    """

    parts: Tensor
    left: Tensor
    right: Tensor
    share: Tensor
    all_rows: Tensor
    all_between: Tensor
    all_share: Tensor
    all_composed: Tensor

    def __init__(
        self, composition: Composition, knots: Knots | None, pairs: BinnedPairs | None, fields: int, outputs: int,
        config: ModelConfig, sums: TrainingSums | None = None,
    ) -> None:  # fmt: skip
        super().__init__(composition.rows, fields, outputs, config)
        self.composition, self.sums = composition, sums
        self.knots = knots if knots is not None and knots.interpolates else None
        if self.knots is not None:
            # All rows of the tables have them, so that none is asked what it is; those of bins of rates are knots.
            own = np.arange(composition.rows)
            for name, rest in (("left", own), ("right", own), ("share", np.zeros(len(own), np.float32))):
                of_features = getattr(self.knots, name)
                of_all = np.concatenate([of_features, rest[len(of_features) :]])
                self.register_buffer(name, torch.from_numpy(of_all), persistent=False)
        self.binned = None if pairs is None else BinnedMemory(pairs)
        self.register_buffer("parts", torch.from_numpy(composition.parts), persistent=False)
        self._statistics = self.parts.shape[1] - 1
        self._has_few = self.ids <= _FEW_IDS
        if self._has_few:
            reading = self._reading(torch.arange(self.ids))
            for name in ("rows", "between", "share", "composed"):
                self.register_buffer(f"all_{name}", getattr(reading, name), persistent=False)

    def tables(self, batch: Batch) -> tuple[Batch, Tensor | None, Tensor | None]:
        if not len(self.parts) and self.knots is None:
            return super().tables(batch)
        sparse = self.linear.sparse_gradient
        if self._has_few and not sparse:
            slots, reading = batch.ids, self._reading_of_all
        else:
            ids = batch.ids if batch.offsets is None else batch.ids[:, None]
            slots, numbers = number_rows(ids, self.ids)
            slots, reading = slots.view(batch.ids.shape), self._reading(numbers)
        w = _Composed.apply(self.linear.weight, reading, sparse)  # type: ignore[no-untyped-call]
        V = _Composed.apply(self.embedding.weight, reading, sparse) if self.has_pairs else None  # type: ignore[no-untyped-call]
        return Batch(slots, batch.values, batch.offsets), w, V

    @property
    def ids(self) -> int:
        """Number of ids that training rows may have: rows of the tables, then composed features."""
        return self.composition.rows + len(self.parts)

    def reading_matrix(self) -> sparse.csr_matrix:
        """Return by which share each id reads each row of the tables, (ids, rows)."""
        reading = self._reading(torch.arange(self.ids))
        own, right, bins = (part.numpy() for part in reading.split(reading.rows))
        between, share = reading.between.numpy(), reading.share[:, 0].double().numpy()
        shares = np.ones(len(own))
        shares[between] -= share
        numbers = np.concatenate([np.arange(len(own)), between, reading.composed.numpy().repeat(reading.statistics)])
        values = np.concatenate([shares, share, np.ones(len(bins))])
        rows = np.concatenate([own, right, bins])
        return sparse.csr_matrix((values, (numbers, rows)), (self.ids, self.composition.rows))

    @property
    def _reading_of_all(self) -> _Reading:
        return _Reading(self.all_rows, self.all_between, self.all_share, self.all_composed, self._statistics)

    def _reading(self, numbers: Tensor) -> _Reading:
        """Return which rows of a table are put together for ids, int64 (n,), none of them twice."""
        composed = (numbers >= self.composition.rows).nonzero()[:, 0]
        parts = self.parts.index_select(0, numbers.index_select(0, composed) - self.composition.rows)
        first = numbers.index_copy(0, composed, parts[:, 0])
        between, right, share = composed[:0], composed[:0], self.linear.weight.new_empty((0, 1))
        if self.knots is not None:
            shares = self.share.index_select(0, first)
            between = shares.nonzero()[:, 0]
            share, right = shares.index_select(0, between)[:, None], self.right[first.index_select(0, between)]
            first = self.left.index_select(0, first)
        rows = torch.cat([first, right, parts[:, 1:].flatten()])
        return _Reading(rows, between, share, composed, self._statistics)

    def features_of(self, batch: Batch) -> Tensor:
        ids = batch.ids.flatten().long()
        composed = ids >= self.composition.rows
        own = ids[~composed]
        if self.knots is not None:
            own = torch.cat([self.left[own], self.right[own]])
        return torch.cat([own, self.parts[ids[composed] - self.composition.rows].flatten()])

    def remembered(self, batch: Batch) -> Tensor | None:
        if self.binned is None:
            return None
        if batch.bins is None:
            raise TypeError("rows without the bins of the remembered pairs can't be scored before training ends")
        remembered: Tensor = self.binned(batch.bins)
        return remembered

    def predictor(self) -> Callable[[Batch], Tensor]:
        """Return what gives the logits (rows, outputs) of rows with the encoder's ids, in evaluation mode."""
        with torch.no_grad():
            folded = self._folded()

        @torch.no_grad()
        def predict(rows: Batch) -> Tensor:
            self.eval()
            logits = folded.predict(replace(rows, bins=None))
            remembered = self.remembered(rows)
            return logits if remembered is None else logits + self.target_std * remembered

        return predict

    def predict(self, rows: Batch) -> Tensor:
        """Return the logits (rows, outputs) of rows with the encoder's ids, in evaluation mode."""
        return self.predictor()(rows)

    @torch.no_grad()
    def folded(self) -> FactorizationMachine:
        """Return the machine that is kept: the bins are added to each id's own row, and pairs have a memory."""
        machine = self._folded()
        machine.memory = None if self.binned is None else self.binned.pairs.memory(self.binned.weight)
        machine.sums = None if self.sums is None else replace(self.sums, learned=self._learned())
        return machine

    def _learned(self) -> Learned:
        def array(tensor: Tensor) -> NDArray[np.float32]:
            return tensor.detach().float().cpu().numpy().copy()

        features = self.composition.features
        embedding = array(self.embedding.weight[features:]) if self.has_pairs else None
        return Learned(
            array(self.linear.weight[features:]),
            embedding,
            np.empty(0, np.float32) if self.binned is None else array(self.binned.weight),
        )

    def _folded(self) -> FactorizationMachine:
        device, features = self.intercept.device, self.composition.features
        with torch.random.fork_rng(devices=[]):  # what it draws at first is not kept; nor are its tables
            machine = FactorizationMachine(1, self.fields, self.outputs, self.config).to(self.intercept)
        folded = torch.from_numpy(self.composition.folded).to(device)
        own = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("binned.")}
        tables = {name: own.pop(name) for name in ("linear.weight", "embedding.weight") if name in own}
        for name, learned in tables.items():
            table = own[name] = learned[:features].clone()
            machine.get_submodule(name.removesuffix(".weight")).weight = nn.Parameter(table)
            if self.knots is not None:  # knots themselves stay
                between = (self.left[:features] != torch.arange(features, device=device)).nonzero()[:, 0]
                left, right = self.left[between], self.right[between]
                table[between] = torch.lerp(table[left], table[right], self.share[between, None])
            for part in torch.split(folded, _FOLDED_AT_ONCE):
                table[part[:, 0]] = learned[part].sum(1)
        machine.load_state_dict(own)
        return machine
