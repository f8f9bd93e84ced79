"""Looking pairs of values up in a hash table: the kernel, and what it must give in plain numpy."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attfm.ops import backends, cpu
from attfm.ops.slots import find_slots


class PairTable(NamedTuple):
    """A hash table of value pairs with open addressing.

    The key of a row's pair p = (i, j) is offset[p] + level[id in i] · width[p] + level[id in j]; key k stands at the
    first free slot from `home` on.

    Attributes
    ----------
    level : int32 (features,), level of each feature within its field
    pairs : int64 (2, pairs), fields
    width, offset : int64 (pairs,)
    slots : int64 (slots,), keys, `slots.FREE` where there is none; a power of two, with one free at least
    effects : float32 (slots, outputs); rows : int32 (slots,), of each key
    unknown : float32 (pairs, outputs), effect of a pair of values that is not there
    """

    level: NDArray[np.int32]
    pairs: NDArray[np.int64]
    width: NDArray[np.int64]
    offset: NDArray[np.int64]
    slots: NDArray[np.int64]
    effects: NDArray[np.float32]
    rows: NDArray[np.int32]
    unknown: NDArray[np.float32]


def find_remembered(
    table: PairTable, ids: Tensor, offsets: Tensor | None, *, summed: bool = False
) -> tuple[Tensor, NDArray[np.int32]]:
    """Return the effects of each row's pairs, and in how many training rows they were.

    Parameters
    ----------
    ids : integer Tensor of (rows, fields); with offsets (entries,)
    offsets : Tensor of (rows, fields), where the entries of each field start; fields of `pairs` have one a row
    summed : bool, whether the sum over the pairs is wanted, and no numbers of rows

    Returns
    -------
    effects : float32 Tensor of (rows, pairs, outputs), or (rows, outputs) if summed
    rows : int32 (rows, pairs), 0 of a pair of values that is not there; empty if summed
    """
    places = ids if offsets is None else offsets
    (batch, fields), (pairs, outputs) = places.shape, table.unknown.shape
    if not backends.is_compiled():
        return _by_numpy(table, ids, offsets, summed=summed)
    shape = (batch, outputs) if summed else (batch, pairs, outputs)
    effects = torch.zeros(shape)
    rows = np.zeros((0 if summed else batch, pairs), np.int32)
    if batch:
        cpu.compiled.find_remembered(
            ids.to(torch.int32).contiguous(), None if offsets is None else offsets.contiguous(), fields, table.level,
            table.pairs, table.width, table.offset, table.slots, table.effects, table.unknown, table.rows,
            cpu.thread_count(batch, batch * pairs * 100), effects if summed else None, None if summed else effects,
            None if summed else rows,
        )  # fmt: skip
    return effects, rows


def _by_numpy(
    table: PairTable, ids: Tensor, offsets: Tensor | None, *, summed: bool
) -> tuple[Tensor, NDArray[np.int32]]:
    first, second = (
        table.level[(ids[:, fields] if offsets is None else ids[offsets[:, fields]]).numpy()].astype(np.int64)
        for fields in map(torch.from_numpy, table.pairs)
    )
    slots = find_slots(table.slots, table.offset + first * table.width + second)
    known, at = slots >= 0, np.maximum(slots, 0)
    effects = np.where(known[..., None], table.effects[at], table.unknown)
    if summed:
        return torch.from_numpy(effects.sum(1, dtype=np.float32)), np.zeros((0, slots.shape[1]), np.int32)
    return torch.from_numpy(effects), np.where(known, table.rows[at], 0).astype(np.int32)
