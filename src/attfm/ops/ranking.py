"""Scores of many items for one context: what pairs of fields add up to, told apart by the sides that they join.

The fields of a model are those of the context and those of an item. With softmax attention a logit holds a ratio of
sums over pairs, Σ exp(e) g s / Σ exp(e) with s = p · q, and both sums fall apart into three: over pairs within the
context (worked out once for a request), within the item (once for a catalogue), and across. Of these a request works
out one part for each *entry*: a distinct vector that some item has in a field. So a candidate costs as many additions
as an item has fields, whatever the number of context fields.

The kernels are in native/ranking.cpp; here is what they take, and the same in numpy.
"""

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attfm.ops import backends, cpu
from attfm.ops.slots import find_slots

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]
Longs = NDArray[np.int64]
_CHUNK = 1024  # items at once in numpy: bounds the memory of their pair vectors
NOTHING = np.float32(-1e30)  # the logarithm of a sum without terms


class PairNetwork(NamedTuple):
    """How the pairs of a machine are worked out; pairs within a side are ordered as itertools.combinations.

    Attributes
    ----------
    projection : float32 (dim, outputs), p
    scale : float
    W, b, h : float32 (dim, attention_dim), (attention_dim,), (attention_dim,), or None: no attention
    bias, gate : float32 (context, item), c and g of the pairs of a context's and an item's field
    context_bias, context_gate : float32 (context pairs,)
    item_bias, item_gate : float32 (item pairs,)
    """

    projection: Floats
    scale: float
    W: Floats | None
    b: Floats | None
    h: Floats | None
    bias: Floats
    gate: Floats
    context_bias: Floats
    context_gate: Floats
    item_bias: Floats
    item_gate: Floats


class CrossMemory(NamedTuple):
    """The pair memory of the pairs across, ordered by the item's field; see `attfm.ops.remembered.PairTable`.

    Attributes
    ----------
    starts : int64 (item fields + 1,), where the pairs of each item field start
    step : int64 (pairs,), by which a level of the item's field counts in the key
    slots : int64 (slots,); effects : float32 (slots, outputs); unknown : float32 (pairs, outputs)
    """

    starts: Longs
    step: Longs
    slots: Longs
    effects: Floats
    unknown: Floats


class Context(NamedTuple):
    """What a request is.

    vectors : float32 (context fields, dim), of the context's fields
    base : float32 (outputs,), the intercept, main effects and memory of the context
    keys : int64 (pairs of the CrossMemory,), of the level 0 of the item's field
    """

    vectors: Floats
    base: Floats
    keys: Longs


class ItemParts(NamedTuple):
    """What a machine knows of the items of a catalogue, of which each has one entry for each of its fields.

    Attributes
    ----------
    vectors : float32 (entries, dim); level : int32 (entries,), of the pair memory
    log_sum : float32 (items,), log Σ exp(e) of the pairs within an item
    effect : float32 (items, outputs), what these pairs give: Σ a g s, without attention Σ g s
    plain : float32 (items, outputs), main effects and memory of an item
    """

    vectors: Floats
    level: Integers
    log_sum: Floats
    effect: Floats
    plain: Floats


class Candidates(NamedTuple):
    """Which items are scored.

    entries : int32 (items, item fields), the entries of all items
    items : int32 (candidates,), numbers of items
    listed, starts : int32 (n,), int64 (item fields + 1,), or None
        The entries that these items have, field by field, each once; None: they are found.
    """

    entries: Integers
    items: Integers
    listed: Integers | None = None
    starts: Longs | None = None


def item_pairs(network: PairNetwork, vectors: Floats, entries: Integers) -> tuple[Floats, Floats]:
    """Return log_sum and effect of the pairs within some items, see `ItemParts`.

    Parameters
    ----------
    vectors : float32 (entries, dim); entries : int32 (items, item fields)
    """
    items, outputs = len(entries), network.projection.shape[1]
    log_sum, effect = np.full(items, NOTHING), np.zeros((items, outputs), np.float32)
    if not items or entries.shape[1] < 2 or not network.projection.size:
        return log_sum, effect
    if not backends.is_compiled():
        for start in range(0, items, _CHUNK):
            some = slice(start, start + _CHUNK)
            log_sum[some], effect[some] = _pairs_within(
                network, vectors[entries[some]], network.item_bias, network.item_gate
            )
        return log_sum, effect
    cpu.compiled.rank_items(
        network.W, network.b, network.h, network.projection, network.item_bias, network.item_gate, vectors, entries,
        cpu.thread_count(items, items * len(network.item_gate) * vectors.shape[1] * 16), log_sum, effect,
    )  # fmt: skip
    return log_sum, effect


def rank_logits(
    network: PairNetwork, memory: CrossMemory, context: Context, parts: ItemParts, candidates: Candidates
) -> Floats:
    """Return the logits of some items for a context, float32 (candidates, outputs)."""
    logits = np.zeros((len(candidates.items), network.projection.shape[1]), np.float32)
    if not len(logits):
        return logits
    if not backends.is_compiled():
        for start in range(0, len(logits), _CHUNK):
            some = slice(start, start + _CHUNK)
            logits[some] = _by_numpy(network, memory, context, parts, candidates.entries, candidates.items[some])
        return logits
    cpu.compiled.rank(
        network.W, network.b, network.h, network.projection, network.context_bias, network.context_gate, network.bias,
        network.gate, network.scale, context.vectors, context.base, context.keys, *memory, *parts, *candidates,
        cpu.thread_count(len(logits), _work(network, candidates)), logits,
    )  # fmt: skip
    return logits


def _work(network: PairNetwork, candidates: Candidates) -> int:
    """Return about how many multiply-adds a request takes."""
    looked_up = len(candidates.items) * candidates.entries.shape[1]
    entries = looked_up if candidates.listed is None else len(candidates.listed)
    hidden = 1 if network.b is None else len(network.gate) * len(network.b)
    return int(entries * len(network.projection) * hidden + 50 * looked_up)


def _by_numpy(
    network: PairNetwork, memory: CrossMemory, context: Context, parts: ItemParts, entries: Integers, items: Integers
) -> Floats:
    entries = entries[items]
    logits = context.base + parts.plain[items]
    for field, start, stop in zip(itertools.count(), memory.starts[:-1], memory.starts[1:], strict=False):
        keys = context.keys[start:stop] + memory.step[start:stop] * parts.level[entries[:, field]][:, None]
        slots = find_slots(memory.slots, keys)
        known = np.where(slots[..., None] >= 0, memory.effects[slots], memory.unknown[start:stop])
        logits = logits + known.sum(1, dtype=np.float32)
    if not network.projection.size:
        return logits
    within = _pairs_within(network, context.vectors[None], network.context_bias, network.context_gate)
    across = _pairs_across(network, context.vectors, parts.vectors[entries])
    sums = [within, (parts.log_sum[items], parts.effect[items]), across]
    if network.W is None:
        return np.asarray(logits + network.scale * sum(effect for _, effect in sums), np.float32)
    shares = np.stack(np.broadcast_arrays(*(log_sum for log_sum, _ in sums)))
    shares = np.exp(shares - shares.max(0))
    ratio = sum(share[:, None] * effect for share, (_, effect) in zip(shares, sums, strict=True))
    return np.asarray(logits + network.scale * ratio / shares.sum(0)[:, None], np.float32)


def _pairs_within(network: PairNetwork, vectors: Floats, bias: Floats, gate: Floats) -> tuple[Floats, Floats]:
    """Return log_sum (rows,) and effect (rows, outputs) of the pairs of fields of vectors (rows, fields, dim)."""
    i, j = np.array(list(itertools.combinations(range(vectors.shape[1]), 2)), np.int64).reshape(-1, 2).T
    return _summed(network, vectors[:, i] * vectors[:, j], bias, gate)


def _pairs_across(network: PairNetwork, context: Floats, items: Floats) -> tuple[Floats, Floats]:
    """Return log_sum and effect of the pairs of context (fields, dim) and items (rows, item fields, dim)."""
    q = context[None, :, None] * items[:, None]
    return _summed(network, q.reshape(len(items), -1, q.shape[3]), network.bias.ravel(), network.gate.ravel())


def _summed(network: PairNetwork, q: Floats, bias: Floats, gate: Floats) -> tuple[Floats, Floats]:
    s = q @ network.projection  # p · q
    if not q.shape[1]:
        return np.full(len(q), NOTHING), np.zeros((len(q), s.shape[2]), np.float32)
    if network.W is None or network.b is None or network.h is None:
        return np.zeros(len(q), np.float32), (gate[:, None] * s).sum(1)
    e = np.maximum(q @ network.W + network.b, 0) @ network.h + bias
    most = e.max(1, keepdims=True)
    share = np.exp(e - most)
    total = share.sum(1, keepdims=True)
    return (most + np.log(total))[:, 0], ((share / total * gate)[..., None] * s).sum(1)
