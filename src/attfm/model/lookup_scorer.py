"""Scoring by lookup for a model in memory: when it is worth its tables, and how long they hold."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attfm.data.batch import Batch
from attfm.data.encoder import Encoder
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

    They are made at the first call, and again after the module has changed: when a parameter or a memory is another
    one, or torch has counted a change of a parameter's numbers. (What is written in place through `.data` or NumPy it
    does not count.)

    Parameters
    ----------
    module : one machine or an ensemble, on the CPU
    fields : the features of each field
    """

    def __init__(self, module: Scorer, fields: Sequence[FieldRange]) -> None:
        self._module, self._fields = module, tuple(fields)
        self._machines = members_of(module)
        # The dicts in which torch keeps parameters and buffers: walking through the modules takes longer than scoring.
        self._tensors = [own for part in module.modules() for own in (part._parameters, part._buffers)]
        self._made: _Made | None = None

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
        """Return the lookup of the module as it is now, or None where tables are not worth it."""
        tensors = [tensor for own in self._tensors for tensor in own.values() if tensor is not None]
        state = [*map(id, tensors), *(tensor.data_ptr() for tensor in tensors), *_changes(tensors)]
        state += [id(machine.memory) for machine in self._machines]
        made = self._made
        if made is None or made.state != state:
            # Two threads may both make it: it is the same, and no lock is held while a process forks.
            held = [*tensors, *(tensor.detach() for tensor in tensors), *(machine.memory for machine in self._machines)]
            made = self._made = _Made(state, held, self._lookup())
        return made.lookup

    def _lookup(self) -> Lookup | None:
        machines = [Machine.of(machine) for machine in self._machines]
        if not is_worth_tables(machines, self._fields):
            return None
        arrays = lookup_arrays(machines, self._fields, MOST_BYTES)
        # Pairs whose attention logits leave the range of a float have no table in spite of their size.
        return None if arrays["computed_pairs"].size else Lookup(arrays)


class _Made(NamedTuple):
    """What was made of a module, and of what: the state tells where its numbers stand and how often they changed.

    held : the tensors and memories themselves, so that nothing else comes to stand in their place
    """

    state: list[int]
    held: list[Any]
    lookup: Lookup | None


def _changes(tensors: Sequence[Tensor]) -> list[int]:
    """Return how often the numbers of each tensor were changed in place."""
    try:
        return [tensor._version for tensor in tensors]
    except RuntimeError:  # those of an inference mode don't count
        return [0 if tensor.is_inference() else tensor._version for tensor in tensors]
