"""A factorization machine while it learns from rates of ids and from the memory of value pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

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

_FOLDED_AT_ONCE = 1 << 16  # features: their rows of V, and of their bins, are gathered before they are summed


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
        numbers = bins.long()
        # gather, not an embedding: the gradient is then a plain sum, which is faster for single numbers.
        rates = (numbers[:, :-1] + self.rates).flatten()
        counts = (numbers[:, -1:] + self.counts).flatten()
        scalars = self.weight.gather(0, torch.cat([rates, counts]))
        return scalars.view(2, len(bins), -1, bins.shape[2]).sum((0, 3))


class StatisticalMachine(FactorizationMachine):
    """A factorization machine while it is trained with rates, knots and pair memory; `folded` is what is kept of it.

    Training rows have composed ids (`Composition`), all other rows those of the encoder. Rows of both have the bins of
    remembered pairs.
    """

    parts: Tensor
    left: Tensor
    right: Tensor
    share: Tensor

    def __init__(
        self, composition: Composition, knots: Knots | None, pairs: BinnedPairs | None, fields: int, outputs: int,
        config: ModelConfig, sums: TrainingSums | None = None,
    ) -> None:  # fmt: skip
        super().__init__(composition.rows, fields, outputs, config)
        self.composition, self.sums = composition, sums
        self.knots = knots if knots is not None and knots.interpolates else None
        if self.knots is not None:
            for name in ("left", "right", "share"):
                self.register_buffer(name, torch.from_numpy(getattr(self.knots, name)), persistent=False)
        self.binned = None if pairs is None else BinnedMemory(pairs)
        self.register_buffer("parts", torch.from_numpy(composition.parts), persistent=False)

    def tables(self, batch: Batch) -> tuple[Batch, Tensor | None, Tensor | None]:
        if not len(self.parts) and self.knots is None:
            return super().tables(batch)
        ids = batch.ids if batch.offsets is None else batch.ids[:, None]
        slots, numbers = number_rows(ids, self.composition.rows + len(self.parts))
        sparse = self.linear.sparse_gradient
        where = (numbers >= self.composition.rows).nonzero()[:, 0]
        parts = self.parts[numbers[where] - self.composition.rows]
        first = numbers.index_copy(0, where, parts[:, 0])
        between, right = where[:0], where[:0]
        if self.knots is not None:
            binned = first.clamp(max=len(self.left) - 1)  # rows of rates lie beyond the features
            between = ((self.share[binned] > 0) & (first < len(self.left))).nonzero()[:, 0]
            share, right = self.share[first[between], None], self.right[first[between]]
            first = torch.where(first < len(self.left), self.left[binned], first)
        n = len(first)
        rows = torch.cat([first, right, parts[:, 1:].flatten()])

        def composed(weight: Tensor) -> Tensor:
            read = F.embedding(rows, weight, sparse=sparse)
            own = read[:n]
            if len(between):
                own = own.index_add(0, between, share * (read[n : n + len(between)] - own[between]))
            bins = read[n + len(between) :].view(len(where), parts.shape[1] - 1, weight.shape[1]).sum(1)
            return own.index_add(0, where, bins)

        V = composed(self.embedding.weight) if self.has_pairs else None
        return Batch(slots.view(batch.ids.shape), batch.values, batch.offsets), composed(self.linear.weight), V

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
                between = (self.left != torch.arange(features, device=device)).nonzero()[:, 0]
                left, right = self.left[between], self.right[between]
                table[between] = torch.lerp(table[left], table[right], self.share[between, None])
            for part in torch.split(folded, _FOLDED_AT_ONCE):
                table[part[:, 0]] = learned[part].sum(1)
        machine.load_state_dict(own)
        return machine
