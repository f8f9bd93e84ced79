"""Scoring by lookup for a model in memory: when it is worth its tables."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attfm.data.batch import Batch
from attfm.data.encoder import Encoder
from attfm.model.derived import Derived
from attfm.model.ensemble import Scorer, members_of
from attfm.model.lookup_arrays import FieldRange, Machine, lookup_arrays, table_cost
from attfm.ops.lookup import Lookup

Floats = NDArray[np.float64]

# Tables are made when the first row is scored, which then waits for them: 25 ms a machine on Adult, at most some 0.3 s.
MOST_WORK = 600_000_000  # multiply-adds
# So much more memory a model takes; and tables that are far larger than the cache are no faster than the kernels.
MOST_BYTES = 32_000_000


def field_ranges(encoder: Encoder) -> list[FieldRange]:
    """Return the features of each field of an encoder."""
    return [FieldRange(of.start, of.stop, is_single=of.kind not in ("scaled", "multi-valued")) for of in encoder.fields]


def is_worth_tables(machines: Sequence[Machine], fields: Sequence[FieldRange]) -> bool:
    """Return whether a model scores by lookup: where every pair of fields can have a table, and all of them are small.

    It is the model that decides and never its rows, so that a row's score is the same bits whoever asks for it, alone
    or beside others. Where some pairs had to be computed row by row, the kernels would be faster, which work once on a
    pair of features that many rows have.
    """
    if not all(field.is_single for field in fields):
        return False
    cost = table_cost(machines, fields)
    return cost.bytes <= MOST_BYTES and cost.work <= MOST_WORK


class LookupScorer:
    """Scores encoded rows by tables of the pairs of a module, where `is_worth_tables` says so.

    They are those of the module as it is now (`Derived`).

    Parameters
    ----------
    module : one machine or an ensemble, on the CPU
    fields : the features of each field
    """

    def __init__(self, module: Scorer, fields: Sequence[FieldRange]) -> None:
        self._module, self._fields = module, tuple(fields)
        self._lookup = Derived(module, self._lookup_of)

    def __reduce__(self) -> tuple[Any, ...]:
        return LookupScorer, (self._module, self._fields)  # the tables are made again

    def logits(self, batch: Batch) -> Floats | None:
        """Return the logits of encoded rows, float64 (rows, outputs); None where the module has to score them."""
        lookup = self._current()
        if lookup is None or batch.values is not None:
            return None
        ids, offsets = batch.ids.to(torch.int32).contiguous().numpy(), None
        if batch.offsets is not None:
            offsets = np.append(batch.offsets.numpy(), len(ids))
        return lookup.logits(ids, offsets=offsets, threads=torch.get_num_threads())

    def _current(self) -> Lookup | None:
        return self._lookup.current()

    def _lookup_of(self, module: Scorer) -> Lookup | None:
        """Return the lookup of the module as it is now, or None where tables are not worth it."""
        machines = [Machine.of(machine) for machine in members_of(module)]
        if not is_worth_tables(machines, self._fields):
            return None
        arrays = lookup_arrays(machines, self._fields, MOST_BYTES)
        # Pairs whose attention logits leave the range of a float have no table in spite of their size.
        return None if arrays["computed_pairs"].size else Lookup(arrays)
