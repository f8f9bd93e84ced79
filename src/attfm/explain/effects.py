"""The terms of the formula, row by row: what a trained module adds up to its logit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attfm.model.modules import FactorizationMachine
from attfm.model.rows import Rows
from attfm.ops import all_pairs, pair_attention_pool, pair_attention_pool_ids

Floats = NDArray[np.float64]
_CHUNK_NUMBERS = 1 << 22  # numbers in the largest array of a chunk: bounds the memory


@dataclass(frozen=True)
class Effects:
    """The account of some rows: intercept + Σ main + Σ pair is the logit, or a regression's prediction.

    intercept : float64 (outputs,)
    main : float64 (rows, fields, outputs), Σ_x x·w[feature] of each field
    pair : float64 or float32 (rows, pairs, outputs), A_ij (p · q_ij)
    attention : float32 (rows, pairs), a_ij, which sum to 1 over the pairs of a row; None without attention
    applied : float32 (rows, pairs), A_ij

    All effects of a regression are in the target's unit.
    """

    intercept: Floats
    main: Floats
    pair: NDArray[np.floating[Any]]
    attention: NDArray[np.float32] | None
    applied: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.main)

    def slice(self, start: int, stop: int) -> "Effects":
        """Return the effects of the rows start:stop."""
        attention = None if self.attention is None else self.attention[start:stop]
        part = slice(start, stop)
        return Effects(self.intercept, self.main[part], self.pair[part], attention, self.applied[part])

    @classmethod
    def gather(cls, parts: Sequence[Self]) -> "Effects":
        """Return the effects of all parts (at least one) with pair effects in float32, which halves their memory."""
        attention = [part.attention for part in parts if part.attention is not None]
        return Effects(
            parts[0].intercept,
            np.concatenate([part.main for part in parts]),
            np.concatenate([part.pair.astype(np.float32) for part in parts]),
            np.concatenate(attention) if attention else None,
            np.concatenate([part.applied for part in parts]),
        )

    def total(self) -> Floats:
        """Return the sum of all terms, (rows, outputs)."""
        total: Floats = self.intercept + self.main.sum(1) + self.pair.sum(1)
        return total


def all_field_pairs(fields: int) -> NDArray[np.int64]:
    """Return all pairs as field numbers, int64 (pairs, 2)."""
    pairs: NDArray[np.int64] = all_pairs(fields).numpy().T
    return pairs


def field_pairs(module: FactorizationMachine, fields: int) -> NDArray[np.int64]:
    """Return the pairs that have an effect, int64 (pairs, 2); none where the model has no pairs."""
    return all_field_pairs(fields if module.has_pairs else 0)


def chunk_rows(module: FactorizationMachine, fields: int) -> int:
    """Return how many rows to explain at once."""
    width = fields * (fields - 1) // 2 * module.config.dim if module.has_pairs else fields * module.outputs
    return int(np.clip(_CHUNK_NUMBERS // max(width, 1), 16, 4096))


def chunks(module: FactorizationMachine, rows: Rows) -> Iterator[Rows]:
    """Yield the rows in pieces that bound the memory of their effects."""
    size = chunk_rows(module, rows.ids.shape[1])
    for start in range(0, len(rows), size):
        yield rows.slice(start, min(start + size, len(rows)))


@torch.no_grad()
def effects_of(module: FactorizationMachine, rows: Rows) -> Effects:
    """Return the effects of encoded rows, all at once: the memory is rows · pairs · dim; see `chunks`."""
    module.eval()
    unit = float(module.target_std)
    intercept = float(module.target_mean) + unit * module.intercept.double().numpy()
    main = unit * module.linear(rows).double().numpy()
    batch, fields = rows.ids.shape
    if not module.has_pairs:
        none = np.empty((batch, 0), np.float32)
        return Effects(intercept, main, np.empty((batch, 0, module.outputs)), None, none)
    network, i_j = module.attention, all_pairs(fields)
    vectors = module.embedding(rows)
    attention = None
    if network.W is not None:
        attention = _attention(module, rows, vectors)
        applied = network.scale * attention
    else:
        applied = vectors.new_full((batch, i_j.shape[1]), network.scale)
    if network.pair_gate is not None:
        applied = applied * network.pair_gate
    # p · (v_i ⊙ v_j) = (v_i ⊙ p) · v_j: a product of two small matrices for each row, without the pair vectors.
    pair = np.empty((batch, i_j.shape[1], module.outputs))
    place = i_j[0] * fields + i_j[1]
    for output, p in enumerate(module.projection.unbind(1)):
        products = torch.bmm(vectors * p, vectors.transpose(1, 2)).reshape(batch, -1)
        pair[:, :, output] = (unit * applied * products[:, place]).numpy()
    weights = None if attention is None else attention.float().numpy()
    return Effects(intercept, main, pair, weights, applied.float().numpy())


def _attention(module: FactorizationMachine, rows: Rows, vectors: Tensor) -> Tensor:
    """Return a_ij, (rows, pairs), by the fastest way that the rows allow."""
    network = module.attention
    parameters = network.W, network.b, network.h, network.pair_bias, None
    options: dict[str, Any] = {"scale": 1.0, "return_weights": True}
    if rows.bags or rows.values is not None:
        pooled = pair_attention_pool(vectors, *parameters, **options)
    else:
        pooled = pair_attention_pool_ids(rows.ids, module.embedding.weight, *parameters, **options)
    assert pooled.weights is not None
    return pooled.weights


@torch.no_grad()
def logits_without(
    module: FactorizationMachine, rows: Rows, fields: NDArray[np.bool_], pairs: NDArray[np.bool_]
) -> Floats:
    """Return the logits of the module with some of its terms cut out, float64 (rows, outputs).

    This goes the way of the forward pass (pool the pair vectors, then project) and not by the effects, so that the two
    can be compared. The attention of the other pairs stays as it was.

    Parameters
    ----------
    fields, pairs : (rows, fields) and (rows, pairs), true where the main effect or the pair is cut out
    """
    module.eval()
    logit = module.intercept + (module.linear(rows) * torch.from_numpy(~fields)[..., None]).sum(1)
    if module.has_pairs:
        vectors = module.embedding(rows)
        weights = module.attention(rows, module.embedding, return_weights=True).weights
        i, j = all_pairs(vectors.shape[1])
        weights = weights * torch.from_numpy(~pairs)
        logit = logit + (weights[..., None] * vectors[:, i] * vectors[:, j]).sum(1) @ module.projection
    result: Floats = (module.target_mean + module.target_std * logit).double().numpy()
    return result
