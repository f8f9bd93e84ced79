"""Scoring by lookup: encoded rows to logits by the compiled kernel, or by NumPy where there is none."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.serve.lookup_reference import lookup_logits
from attfm.serve.rows import Encoded

Array = NDArray[Any]
Floats = NDArray[np.float64]


class Lookup:
    """What scores encoded rows, see `lookup_arrays`."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays = dict(arrays)
        self.fields, self.outputs = len(arrays["singles"]), len(arrays["base"])

    def logits(self, rows: Encoded) -> Floats:
        """Return the logits of encoded rows, float64 (rows, outputs); raise DataError for ids that are no features."""
        return lookup_logits(self.arrays, rows.ids, rows.values, rows.offsets)
