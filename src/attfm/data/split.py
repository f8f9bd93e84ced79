"""Which rows of a table are trained on, which stop the training, and which measure it."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from attfm.config import TaskName
from attfm.data.sources.files import table_stem
from attfm.data.target import Target
from attfm.errors import ConfigError

DEFAULT_FRACTION = 0.2
LEAST_ROWS_TO_SPLIT = 50  # with fewer training rows a held-out tenth says nothing: all epochs are run on all rows

RowNumbers = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """What is asked for as validation or test rows: a fraction of the table, a table of its own, or nothing."""

    fraction: float = 0.0
    data: str | None = None

    @property
    def asked(self) -> float | str | None:
        """The fraction, the name of the table without its folder, or None for nothing."""
        return self.fraction or (None if self.data is None else table_stem(self.data))

    @classmethod
    def parse(cls, text: str | None, option: str) -> "Part":
        """Return the part that an option asks for: a number is a fraction, "none" nothing, all else a table."""
        if text is None:
            return cls(DEFAULT_FRACTION)
        if text.lower() == "none":
            return cls()
        try:
            fraction = float(text)
        except ValueError:
            return cls(data=text)
        if not 0 < fraction < 1:
            raise ConfigError(f"{option} {text} is not a fraction between 0 and 1; give one, a table, or none.")
        return cls(fraction)


@dataclass(frozen=True)
class Split:
    """The row numbers of each part that comes from the table itself; no training rows mean all but the others."""

    train: RowNumbers | None = None
    valid: RowNumbers | None = None
    test: RowNumbers | None = None


def split_table(
    labels: pa.ChunkedArray, *, name: str, task: TaskName | Literal["auto"], valid: Part, test: Part, seed: int
) -> Split:
    """Return the parts that are taken from a table: the test rows first, then the validation rows.

    The labels are the target column; the parts of a classification are stratified.
    """
    target = Target.fit(labels, task=task, name=name)
    codes = target.encode(labels)
    rest, parts = np.arange(len(codes)), dict[str, RowNumbers | None](valid=None, test=None)
    left = 1.0
    for part, asked in (("test", test), ("valid", valid)):
        if asked.fraction:
            rest, parts[part] = split_rows(
                rest, codes, stratify=target.classes is not None, fraction=asked.fraction / left, seed=seed
            )
            left -= asked.fraction
    return Split(rest, parts["valid"], parts["test"])


def hold_out(
    rows: RowNumbers, codes: NDArray[Any], *, stratify: bool, fraction: float, seed: int
) -> tuple[RowNumbers, RowNumbers | None]:
    """Return training rows without a part (see `split_rows`), and that part to stop the training by, both increasing.

    Fewer than 50 rows are left whole.
    """
    if len(rows) < LEAST_ROWS_TO_SPLIT:
        return rows, None
    rest, part = split_rows(rows, codes, stratify=stratify, fraction=fraction, seed=seed)
    return np.sort(rest), np.sort(part)


def split_rows(
    rows: RowNumbers, codes: NDArray[Any], *, stratify: bool, fraction: float, seed: int
) -> tuple[RowNumbers, RowNumbers]:
    """Return the rest and a random part of some rows, stratified as far as each class has rows for both.

    The codes are the target's of the whole table. Raises ConfigError where there are too few rows.
    """
    strata = None
    if stratify:
        labels = codes[rows]
        counts = np.unique(labels, return_counts=True)[1]
        size = round(fraction * len(rows))
        strata = labels if counts.min() >= 2 and len(counts) <= min(size, len(rows) - size) else None
    try:
        rest, part = train_test_split(rows, test_size=fraction, stratify=strata, random_state=seed)
    except ValueError as error:
        raise ConfigError(f"{len(rows)} rows can't be split with a part of {fraction:g}: {error}") from None
    return rest, part
