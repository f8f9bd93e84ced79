"""Scoring by lookup: encoded rows to logits by the compiled kernel, or by NumPy where there is none."""

import contextlib
import importlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.errors import DataError
from attfm.ops.lookup_reference import lookup_logits

Array = NDArray[Any]
Floats = NDArray[np.float64]
compiled: Any = None
with contextlib.suppress(ModuleNotFoundError):  # a pure-Python install: no compiler was there
    compiled = importlib.import_module("attfm.ops._native")

# Pairs of a call below which a second thread costs more than it brings.
_PAIRS_PER_THREAD = 50_000


class Lookup:
    """What scores encoded rows.

    Parameters
    ----------
    arrays : as `attfm.model.lookup_arrays.lookup_arrays` gives them
    native : bool, whether the compiled kernel is used where it is there
    """

    def __init__(self, arrays: Mapping[str, Array], *, native: bool = True) -> None:
        self.arrays = dict(arrays)
        self.fields, self.outputs = len(arrays["singles"]), len(arrays["base"])
        self.threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
        self._kernel = compiled.Lookup(self.arrays) if native and compiled is not None else None
        self._row_pairs = arrays["grid"].shape[1] + 20 * arrays["computed_pairs"].shape[1] + self.fields

    def logits(
        self, ids: Array, values: Array | None = None, offsets: Array | None = None, *, threads: int | None = None
    ) -> Floats:
        """Return the logits of encoded rows, float64 (rows, outputs); raise DataError for ids that are no features.

        Parameters
        ----------
        ids : int32 (rows, fields), or (entries,) with offsets
        values : float32, as ids, what multiplies each feature, or None: 1
        offsets : int64 (rows · fields + 1,) or None
            Where the entries of each field of each row start, and the end; None: each has one.
        threads : int or None, at most so many; None: OMP_NUM_THREADS, or all cores
        """
        places = ids.size if offsets is None else len(offsets) - 1
        count = places // self.fields
        if self._kernel is None:
            self._check(ids, offsets)
            return lookup_logits(self.arrays, ids, values, offsets)
        logits = np.empty((count, self.outputs))
        threads = min(threads or self.threads, count * self._row_pairs // _PAIRS_PER_THREAD + 1)
        try:
            self._kernel.logits(ids, values, offsets, threads, logits)
        except ValueError as error:
            raise _no_rows(error) from None
        return logits

    def row(self, ids: list[int]) -> float | list[float]:
        """Return the logit of a row with one feature in each field, or the list of its logits; as `logits` else."""
        logits: Any
        if self._kernel is None:
            logits = self.logits(np.array([ids], np.int32))[0].tolist()
            return logits[0] if self.outputs == 1 else logits  # type: ignore[no-any-return]
        try:
            logits = self._kernel.row(ids)
        except ValueError as error:
            raise _no_rows(error) from None
        return logits  # type: ignore[no-any-return]

    def _check(self, ids: Array, offsets: Array | None) -> None:
        fields = np.arange(self.fields)
        if offsets is not None:
            fields = np.repeat(np.arange(len(offsets) - 1) % self.fields, np.diff(offsets))
        good = (ids >= self.arrays["field_starts"][fields]) & (ids < self.arrays["field_stops"][fields])
        if not good.all():
            raise _no_rows("ids must be features of their fields")


def _no_rows(reason: object) -> DataError:
    return DataError(f"These are no encoded rows of this model: {reason}.")
