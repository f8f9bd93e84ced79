"""The family of factorization machines of DESIGN section 1, as torch modules."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from attfm.config import ModelConfig
from attfm.data.batch import Batch
from attfm.model.memory import PairMemory
from attfm.model.sums import TrainingSums
from attfm.ops import Pooled, pair_attention_pool_ids, score
from attfm.ops.scoring import is_native
from attfm.ops.sparse import number_rows, read_rows, take_rows

_DTYPE = torch.float32  # whatever torch's default is: the kernels take it, and equal seeds give equal models
_SCORING_ROWS = 4096  # rows scored at once: bounds the memory of the pair vectors


class FeatureEmbedding(nn.Module):
    """One vector for each feature; a field's vector is the sum of x · V[feature] over its active features.

    Parameters
    ----------
    features, dim : size of the table
    std : standard deviation of the normal distribution that the table is drawn from
    """

    def __init__(self, features: int, dim: int, *, std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(features, dim, dtype=_DTYPE).normal_(0, std))
        self.sparse_gradient = False

    def forward(self, batch: Batch, table: Tensor | None = None) -> Tensor:
        """Return each field's vector, (batch, fields, dim).

        Parameters
        ----------
        table : (rows, dim) or None, what the ids of a batch with one feature a field number, instead of V
        """
        sparse = self.sparse_gradient and table is None
        weight = self.weight if table is None else table
        values = None if batch.values is None else batch.values.to(weight.dtype)
        if batch.offsets is None:
            vectors = read_rows(weight, batch.ids, sparse=sparse)
            return vectors if values is None else vectors * values[..., None]
        # Each field's first feature at once, as if it had no other; then the sums of the fields that have several.
        first = batch.offsets.clamp(max=max(len(batch.ids) - 1, 0))  # a field without features may be the last
        vectors = F.embedding(batch.ids[first], weight, sparse=sparse)
        columns = list((vectors if values is None else vectors * values[first][..., None]).unbind(1))
        for f in (batch.counts != 1).any(0).nonzero()[:, 0].tolist():
            place, starts = batch.entries(f)
            columns[f] = F.embedding_bag(
                batch.ids[place], weight, starts.to(batch.ids.dtype), mode="sum", sparse=sparse,
                per_sample_weights=None if values is None else values[place],
            )  # fmt: skip
        return torch.stack(columns, 1)


class PairAttention(nn.Module):
    """Attention over the pairs of a row (Xiao et al. 2017, eq. 4 to 6), with a gate and a bias for each pair.

    Without `config.attention` the applied weight of a pair is its gate (FwFM, Pan et al. 2018), or 1 (FM, Rendle 2010).
    """

    def __init__(self, fields: int, config: ModelConfig) -> None:
        super().__init__()
        self.config = config = config.of_task("binary")  # what is not said yet
        self.pairs = pairs = math.comb(fields, 2)
        # DIFFERS FROM PAPER: scaled by the number of pairs, because a softmax averages over pairs and so shrinks
        # the interaction term; with gate 1 and equal attention the nested model then is the plain FM.
        self.scale = float(max(pairs, 1)) if config.attention and config.scale == "pairs" else 1.0
        if config.attention:
            W_std = 1 / math.sqrt(config.dim) if config.attention_std is None else config.attention_std
            h_std = 0.1 if config.attention_std is None else config.attention_std
            self.W = nn.Parameter(torch.empty(config.dim, config.attention_dim, dtype=_DTYPE).normal_(0, W_std))
            self.b = nn.Parameter(torch.zeros(config.attention_dim, dtype=_DTYPE))
            self.h = nn.Parameter(torch.empty(config.attention_dim, dtype=_DTYPE).normal_(0, h_std))
        else:
            self.register_parameter("W", None)
            self.register_parameter("b", None)
            self.register_parameter("h", None)
        # DIFFERS FROM PAPER: gate and bias of a pair are not in the paper (1 and 0 there).
        self.pair_bias = (
            nn.Parameter(torch.zeros(pairs, dtype=_DTYPE)) if config.attention and config.pair_bias else None
        )
        self.pair_gate = nn.Parameter(torch.ones(pairs, dtype=_DTYPE)) if config.pair_gate else None

    def forward(
        self, batch: Batch, embedding: FeatureEmbedding, table: Tensor | None = None, *, return_weights: bool = False
    ) -> Pooled:
        """Pool each row's pair vectors.

        Parameters
        ----------
        batch : Batch, the rows
        embedding : FeatureEmbedding, V
        table : (rows, dim) or None, what the ids of a batch with one feature a field number, instead of V
        return_weights : bool, whether the applied weights are wanted too

        Returns
        -------
        pooled : Pooled, vector (batch, dim), and applied weights (batch, pairs) or None
        """
        options: dict[str, Any] = {
            "scale": self.scale,
            "pair_dropout": self.config.pair_dropout if self.training else 0.0,
            "weight_dropout": float(self.config.weight_dropout) if self.training else 0.0,
            "return_weights": return_weights,
        }
        return self._pool(batch, embedding, self.pair_gate, table, **options)

    def weights(self, batch: Batch, embedding: FeatureEmbedding) -> tuple[Tensor | None, Tensor]:
        """Return the attention weights a_ij (None without attention) and the applied ones A_ij, each (batch, pairs)."""
        attention = None
        applied = embedding.weight.new_full((len(batch), self.pairs), self.scale)
        if self.W is not None:
            attention = self._pool(batch, embedding, None, None, scale=1.0, return_weights=True).weights
        if attention is not None:
            applied = self.scale * attention
        return attention, applied if self.pair_gate is None else applied * self.pair_gate

    def _pool(
        self, batch: Batch, embedding: FeatureEmbedding, gate: Tensor | None, table: Tensor | None, **options: Any
    ) -> Pooled:
        # Straight from the ids: spares the (batch, fields, dim) tensor, and work on features that rows share.
        sparse = table is None and embedding.sparse_gradient
        table = embedding.weight if table is None else table
        values = None if batch.values is None else batch.values.to(table.dtype)
        return pair_attention_pool_ids(
            batch.ids, table, self.W, self.b, self.h, self.pair_bias, gate,
            values=values, offsets=batch.offsets, sparse=sparse, **options,
        )  # fmt: skip


def _embedding_std(config: ModelConfig, fields: int) -> float:
    """Return the deviation of the first embeddings: such that Σ over pairs of p · q_ij deviates by .1, or as set."""
    if config.embedding_std != "auto":
        return config.embedding_std
    return math.sqrt(0.1 / math.sqrt(max(math.comb(fields, 2), 1) * config.dim))


def _first_projection(config: ModelConfig, outputs: int, fields: int) -> Tensor:
    """Return the first p, (dim, outputs); where it is learned, and not drawn, of the size at which V can stay small.

    Attention weights that add up to 1 over P pairs make an effect a P-th of what it is under a plain FM, so that p
    begins at P: from 1, effects would be next to nothing at the start, and the ridge of V would hold them there.
    Without gates every other of its signs is turned, or any two values whose embeddings are alike would raise the
    logit: a p that large turns too slowly by itself (docs/defaults.md, "The start of p").
    """
    learned = config.learned_projection or outputs > 1
    ones = torch.ones(config.dim, outputs, dtype=_DTYPE)
    sums_to_one = config.attention and config.scale == "one"
    size = float(max(math.comb(fields, 2), 1)) if sums_to_one and learned else 1.0
    if config.projection_std is not None and learned:
        return ones.normal_(0, config.projection_std)
    if outputs > 1:
        # DIFFERS FROM PAPER: equal p for all classes would cancel in the softmax, so p is drawn and learned in every
        # preset.
        return ones.normal_(0, size)
    if config.learned_projection and not config.pair_gate:
        ones[1::2] = -1
    return size * ones


class FactorizationMachine(nn.Module):
    """logit = w0 + Σ_f Σ_x x·w[feature] + Σ_ij A_ij (p · q_ij), for each output.

    Parameters
    ----------
    features, fields : sizes of the encoded table
    outputs : 1, or the number of classes of a multiclass task
    config : which factors of the formula are on, see `attfm.config.PRESETS`
    """

    target_mean: Tensor
    target_std: Tensor

    def __init__(self, features: int, fields: int, outputs: int, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.outputs = outputs
        self.fields = fields
        self.intercept = nn.Parameter(torch.zeros(outputs, dtype=_DTYPE))
        self.linear = FeatureEmbedding(features, outputs, std=0.0)
        self.has_pairs = config.pairs and fields > 1
        if self.has_pairs:
            self.embedding = FeatureEmbedding(features, config.dim, std=_embedding_std(config, fields))
            self.attention = PairAttention(fields, config)
            self.projection = nn.Parameter(
                _first_projection(config, outputs, fields), requires_grad=config.learned_projection or outputs > 1
            )
        self.memory: PairMemory | None = None
        self.sums: TrainingSums | None = None  # by which it can learn on
        # Regression is trained on the standardised target; predictions are in the target's own unit. Of classes these
        # are offset and slope of the calibration (`attfm.model.calibration`), 0 and 1 without one.
        self.register_buffer("target_mean", torch.zeros((), dtype=_DTYPE))
        self.register_buffer("target_std", torch.ones((), dtype=_DTYPE))

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (batch, outputs); for regression the prediction in the target's unit."""
        rows, w, V = self.tables(batch)
        logit = self.intercept + self.linear(rows, w).sum(1)
        if self.has_pairs:
            pooled = self.attention(rows, self.embedding, V).vector
            pooled = F.dropout(pooled, self.config.pooled_dropout, self.training)
            logit = logit + pooled @ self.projection  # Σ A_ij (p · q_ij) = p · Σ A_ij q_ij
        remembered = self.remembered(batch)
        logit = logit if remembered is None else logit + remembered
        prediction: Tensor = self.target_mean + self.target_std * logit
        return prediction

    def tables(self, batch: Batch) -> tuple[Batch, Tensor | None, Tensor | None]:
        """Return a batch with w and V, the rows of which its ids number; None for all of w and V."""
        if not self.linear.sparse_gradient or batch.offsets is not None:
            return batch, None, None
        # Both tables are read, and get their gradients, at the batch's distinct features, found once.
        slots, features = number_rows(batch.ids, len(self.linear.weight))
        w = take_rows(self.linear.weight, features)
        V = take_rows(self.embedding.weight, features) if self.has_pairs else None
        return Batch(slots, batch.values), w, V

    def remembered(self, batch: Batch) -> Tensor | None:
        """Return the sum of what the memory says of each row's value pairs, (batch, outputs); None without one."""
        return None if self.memory is None else self.memory.total(batch).to(self.intercept.dtype)

    @property
    def remembered_pairs(self) -> NDArray[np.int64]:
        """Numbers of the pairs that have a memory, among all pairs of fields, int64 (remembered,)."""
        if self.memory is None:
            return np.empty(0, np.int64)
        first, second = self.memory.pairs.T
        numbers: NDArray[np.int64] = first * (2 * self.fields - first - 1) // 2 + second - first - 1
        return numbers

    def features_of(self, batch: Batch) -> Tensor:
        """Return the rows of V and w that a batch reads, of any shape; a row may come more than once."""
        return batch.ids

    def sparse_gradients(self, on: bool) -> None:
        """Choose whether V and w get sparse gradients, with an entry for each feature of a batch, or dense ones."""
        self.linear.sparse_gradient = on
        if self.has_pairs:
            self.embedding.sparse_gradient = on

    def step_work(self, batch: int) -> int:
        """Return about how many multiply-adds the forward pass of so many rows takes."""
        if not self.has_pairs:
            return batch * self.fields
        hidden = self.config.attention_dim if self.config.attention else 1
        return batch * math.comb(self.fields, 2) * self.config.dim * hidden

    def predictor(self) -> Callable[[Batch], Tensor]:
        """Return `predict` of the parameters as they are, for many calls: what is made once for all of them is kept."""
        return self.predict

    @torch.no_grad()
    def predict(self, rows: Batch) -> Tensor:
        """Return the logits (rows, outputs) in evaluation mode, chunk by chunk to bound memory."""
        if self.training:
            self.eval()
        if self.scores_natively:
            logit = self._score(rows)
            remembered = self.remembered(rows)
            return self.target_mean + self.target_std * (logit if remembered is None else logit + remembered)
        chunks = [self(rows.slice(i, i + _SCORING_ROWS)) for i in range(0, len(rows), _SCORING_ROWS)]
        return torch.cat(chunks) if chunks else self.intercept.new_empty(0, self.outputs)

    @property
    def scores_natively(self) -> bool:
        """Whether `predict` runs on the compiled kernels: a row's score is then the same bits in any company."""
        return is_native(self.linear.weight)

    def _score(self, rows: Batch) -> Tensor:
        values = None if rows.values is None else rows.values.to(self.intercept.dtype)
        entries: dict[str, Any] = {"values": values, "offsets": rows.offsets}
        if not self.has_pairs:
            return score(rows.ids, self.intercept, self.linear.weight, **entries)
        a = self.attention
        return score(
            rows.ids, self.intercept, self.linear.weight, self.embedding.weight, self.projection,
            a.W, a.b, a.h, a.pair_bias, a.pair_gate, scale=a.scale, **entries,
        )  # fmt: skip
