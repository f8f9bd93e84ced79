"""Every term of the formula, once: what a module adds up to its logit, row by row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attfm.data.batch import Batch
from attfm.model.ensemble import Ensemble, Scorer, members_of
from attfm.model.modules import FactorizationMachine
from attfm.ops import all_pairs

Floats = NDArray[np.float64]
_CHUNK_NUMBERS = 1 << 22  # numbers in the largest array of a chunk: bounds the memory


@dataclass(frozen=True)
class Remembered:
    """What the pair memory gives some rows; the pair effects hold it already.

    Attributes
    ----------
    pairs : int64 (remembered,), numbers of the pairs that have a memory
    effect : float64 (batch, remembered, outputs), u of each, in the unit of the terms
    rows : int32 (batch, remembered), training rows that had the same two values; 0: none, the effect is the default
    """

    pairs: NDArray[np.int64]
    effect: Floats
    rows: NDArray[np.int32]

    def slice(self, start: int, stop: int) -> "Remembered":
        """Return what is remembered of the rows start:stop."""
        return Remembered(self.pairs, self.effect[start:stop], self.rows[start:stop])


@dataclass(frozen=True)
class Terms:
    """The terms of some rows: intercept + Σ main + Σ pair is the logit, or a regression's prediction.

    All terms of a regression are in the target's unit; those of a calibrated module are of the calibrated logit.

    Attributes
    ----------
    intercept : float64 (outputs,), w0
    main : float64 (batch, fields, outputs), main effects, Σ_x x·w[feature] of each field
    pair : float64 or float32 (batch, pairs, outputs), pair effects, A_ij (p · q_ij) + u_ij
    attention : float32 (batch, pairs) or None
        Attention weights a_ij, which sum to 1 over the pairs of a row; None without attention.
    applied : float32 (batch, pairs), applied weights A_ij
    memory : Remembered or None, the part u_ij of the pair effects
    members : tuple of Terms, of each member of an ensemble, whose means these are; empty of one machine
    """

    intercept: Floats
    main: Floats
    pair: NDArray[np.floating[Any]]
    attention: NDArray[np.float32] | None
    applied: NDArray[np.float32]
    memory: Remembered | None = None
    members: tuple["Terms", ...] = ()

    def __len__(self) -> int:
        return len(self.main)

    def slice(self, start: int, stop: int) -> "Terms":
        """Return the terms of the rows start:stop."""
        attention = None if self.attention is None else self.attention[start:stop]
        part = slice(start, stop)
        memory = None if self.memory is None else self.memory.slice(start, stop)
        members = tuple(member.slice(start, stop) for member in self.members)
        return Terms(self.intercept, self.main[part], self.pair[part], attention, self.applied[part], memory, members)

    def total(self) -> Floats:
        """Return the sum of all terms, (batch, outputs)."""
        total: Floats = self.intercept + self.main.sum(1) + self.pair.sum(1)
        return total


def all_field_pairs(fields: int) -> NDArray[np.int64]:
    """Return all pairs as field numbers, int64 (pairs, 2)."""
    pairs: NDArray[np.int64] = all_pairs(fields).numpy().T
    return pairs


def field_pairs(module: Scorer) -> NDArray[np.int64]:
    """Return the pairs that have an effect, int64 (pairs, 2); none where the model has no pairs."""
    return all_field_pairs(module.fields if module.has_pairs else 0)


def terms_chunk(module: Scorer) -> int:
    """Return how many rows' terms are worked out at once, so that their memory is bounded."""
    width = len(field_pairs(module)) * module.config.dim or module.fields * module.outputs
    held = max(width, len(members_of(module)) * len(field_pairs(module)) * module.outputs, 1)
    return int(np.clip(_CHUNK_NUMBERS // held, 16, 4096))


def chunks(module: Scorer, batch: Batch) -> Iterator[Batch]:
    """Yield the rows in pieces that bound the memory of their terms."""
    size = terms_chunk(module)
    for start in range(0, len(batch), size):
        yield batch.slice(start, start + size)


def terms_of(module: Scorer, batch: Batch) -> Terms:
    """Return the terms of encoded rows, all at once: the memory is batch · pairs · dim; see `chunks`.

    Those of an ensemble are the means of its members' terms, its weights the means of their weights.
    """
    if not isinstance(module, Ensemble):
        return _terms_of_machine(module, batch)
    members = tuple(_terms_of_machine(machine, batch) for machine in module.machines)
    attention = [member.attention for member in members if member.attention is not None]
    return Terms(
        intercept=np.mean([member.intercept for member in members], axis=0),
        main=np.mean([member.main for member in members], axis=0),
        pair=np.mean([member.pair for member in members], axis=0),
        attention=np.mean(attention, axis=0) if attention else None,
        applied=np.mean([member.applied for member in members], axis=0),
        memory=_mean_memory(members),
        members=members if module.cross_fitted else (),
    )


@torch.no_grad()
def _terms_of_machine(module: FactorizationMachine, batch: Batch) -> Terms:
    module.eval()
    unit = np.broadcast_to(module.target_std.double().numpy(), module.outputs)
    intercept = module.target_mean.double().numpy() + unit * module.intercept.double().numpy()
    main = unit * module.linear(batch).double().numpy()
    if not module.has_pairs:
        none = np.empty((len(batch), 0), np.float32)
        return Terms(intercept, main, np.empty((len(batch), 0, module.outputs)), None, none)
    attention, applied = module.attention.weights(batch, module.embedding)
    # p · (v_i ⊙ v_j) = (v_i ⊙ p) · v_j: a product of two small matrices for each row, without the pair vectors.
    vectors, (i, j) = module.embedding(batch), all_pairs(module.fields)
    pair = np.empty((len(batch), len(i), module.outputs))
    for output, p in enumerate(module.projection.unbind(1)):
        products = torch.bmm(vectors * p, vectors.transpose(1, 2)).reshape(len(batch), -1)
        pair[:, :, output] = (float(unit[output]) * applied * products[:, i * module.fields + j]).numpy()
    weights = None if attention is None else attention.float().numpy()
    memory = remembered_of(module, batch)
    if memory is not None:
        pair[:, memory.pairs] += memory.effect
    return Terms(intercept, main, pair, weights, applied.float().numpy(), memory)


def _mean_memory(members: Sequence[Terms]) -> Remembered | None:
    """Return the mean of what the members of an ensemble remember; one without a pair's memory counts as 0.

    `rows` are those of the member that was trained on most rows with the two values.
    """
    held = [member.memory for member in members if member.memory is not None]
    if not held:
        return None
    pairs = np.unique(np.concatenate([memory.pairs for memory in held]))
    rows, outputs = held[0].effect.shape[0], held[0].effect.shape[2]
    effect, seen = np.zeros((rows, len(pairs), outputs)), np.zeros((rows, len(pairs)), np.int32)
    for memory in held:
        place = np.searchsorted(pairs, memory.pairs)
        effect[:, place] += memory.effect / len(members)
        seen[:, place] = np.maximum(seen[:, place], memory.rows)
    return Remembered(pairs, effect, seen)


def remembered_of(module: FactorizationMachine, batch: Batch) -> Remembered | None:
    """Return what the pair memory of a module gives some rows, or None where it has none."""
    if module.memory is None:
        return None
    effect, rows = module.memory.look_up(batch)
    return Remembered(module.remembered_pairs, module.target_std.double().numpy() * effect.double().numpy(), rows)


def logits_without(module: Scorer, batch: Batch, fields: NDArray[np.bool_], pairs: NDArray[np.bool_]) -> Floats:
    """Return the logits of the module with some of its terms cut out, float64 (batch, outputs).

    This goes the way of the forward pass (pool the pair vectors, then project) and not by `Terms`, so that the two can
    be compared. The attention of the other pairs stays as it was.

    Parameters
    ----------
    fields, pairs : bool (batch, fields) and (batch, pairs), true where the main effect or the pair is cut out
    """
    logits = [_machine_without(machine, batch, fields, pairs) for machine in members_of(module)]
    return np.asarray(np.mean(logits, axis=0), np.float64)


@torch.no_grad()
def _machine_without(
    module: FactorizationMachine, batch: Batch, fields: NDArray[np.bool_], pairs: NDArray[np.bool_]
) -> Floats:
    module.eval()
    logit = module.intercept + (module.linear(batch) * torch.from_numpy(~fields)[..., None]).sum(1)
    if module.has_pairs:
        vectors, (i, j) = module.embedding(batch), all_pairs(module.fields)
        weights = module.attention(batch, module.embedding, return_weights=True).weights
        if weights is None:
            raise TypeError("the applied weights were asked for")
        kept = weights * torch.from_numpy(~pairs)
        logit = logit + (kept[..., None] * vectors[:, i] * vectors[:, j]).sum(1) @ module.projection
    if module.memory is not None:
        effect, _ = module.memory.look_up(batch)
        logit = logit + (effect * torch.from_numpy(~pairs[:, module.remembered_pairs])[..., None]).sum(1)
    result: Floats = (module.target_mean + module.target_std * logit).double().numpy()
    return result
