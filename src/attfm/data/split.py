"""Which rows of a table are trained on, which stop the training, and which are set aside."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from attfm.errors import ConfigError

LEAST_ROWS_TO_SPLIT = 50  # with fewer training rows a held-out tenth says nothing: all epochs are run on all rows
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """The row numbers of each part of a table, int64.

    Attributes
    ----------
    train : (rows,) or None
        To train on; None: all but the others.
    valid : (rows,) or None
        To stop by; None: none of this table.
    test : (rows,) or None
        Set aside; None: none of this table.
    """

    train: Rows | None = None
    valid: Rows | None = None
    test: Rows | None = None


def hold_out(
    rows: Rows, codes: NDArray[Any], *, stratify: bool, fraction: float, seed: int
) -> tuple[Rows, Rows | None]:
    """Split training rows into training and validation rows; too few rows are left whole."""
    if len(rows) < LEAST_ROWS_TO_SPLIT:
        return rows, None
    first, second = split_rows(rows, codes, stratify=stratify, fraction=fraction, seed=seed)
    return np.sort(first), np.sort(second)


def split_rows(rows: Rows, codes: NDArray[Any], *, stratify: bool, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Return (rest, part): a random part of the rows, stratified by class as far as each class has rows for both."""
    strata = None
    if stratify:
        labels = codes[rows]
        smallest = int(np.unique(labels, return_counts=True)[1].min())
        classes = len(np.unique(labels))
        part = round(fraction * len(rows))
        strata = labels if smallest >= 2 and part >= classes and len(rows) - part >= classes else None
    try:
        rest, part_rows = train_test_split(rows, test_size=fraction, stratify=strata, random_state=seed)
    except ValueError as error:
        raise ConfigError(f"{len(rows)} rows can't be split with a part of {fraction:g}: {error}") from None
    return rest, part_rows
