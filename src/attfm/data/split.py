"""Which rows of a table are trained on, which stop the training, and which measure it."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from attfm.config import TaskName
from attfm.data.folds import Grouping
from attfm.data.sources.files import table_stem
from attfm.data.target import Label, Target
from attfm.errors import ConfigError, DataWarning

DEFAULT_FRACTION = 0.2
LEAST_ROWS_TO_SPLIT = 50  # with fewer training rows a held-out tenth says nothing: all epochs are run on all rows
_SHOWN = 10  # classes listed in a warning

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
    """The row numbers of each part that comes from the table itself; no training rows mean all but the others.

    `grouping` is of all rows of the table: what was not to be taken apart, and is not in folds of the training rows.
    """

    train: RowNumbers | None = None
    valid: RowNumbers | None = None
    test: RowNumbers | None = None
    grouping: Grouping = field(default_factory=Grouping)


def split_table(
    labels: pa.ChunkedArray, *, name: str, task: TaskName | Literal["auto"], valid: Part, test: Part, seed: int
) -> Split:
    """Return the parts that are taken from a table: the test rows first, then the validation rows.

    The labels are the target column; the parts of a classification are stratified.
    """
    target = Target.fit(labels, task=task, name=name)
    codes = target.encode(labels)
    rest, parts = np.arange(len(codes)), dict[str, RowNumbers | None](valid=None, test=None)
    left, never_held_out = 1.0, [np.empty(0, np.int64)]
    for part, asked in (("test", test), ("valid", valid)):
        if asked.fraction:
            fraction = asked.fraction / left
            rest, parts[part], kept = _split(rest, codes, classes=target.classes, fraction=fraction, seed=seed)
            never_held_out.append(kept)
            left -= asked.fraction
    _warn_of(np.unique(np.concatenate(never_held_out)), codes, target.classes)
    return Split(rest, parts["valid"], parts["test"])


def hold_out(
    rows: RowNumbers, codes: NDArray[Any], *, classes: Sequence[Label] | None, fraction: float, seed: int
) -> tuple[RowNumbers, RowNumbers | None]:
    """Return training rows without a part (see `split_rows`), and that part to stop the training by, both increasing.

    Fewer than 50 rows are left whole, and so are those of classes of one row each.
    """
    if len(rows) < LEAST_ROWS_TO_SPLIT or len(lone_rows(codes[rows], classes)) == len(rows):
        return rows, None
    rest, part = split_rows(rows, codes, classes=classes, fraction=fraction, seed=seed)
    return np.sort(rest), np.sort(part)


def split_rows(
    rows: RowNumbers, codes: NDArray[Any], *, classes: Sequence[Label] | None, fraction: float, seed: int
) -> tuple[RowNumbers, RowNumbers]:
    """Return the rest and a random part of some rows, stratified as far as each class has rows for both.

    Each class keeps a row in the rest; a DataWarning names the classes of which the part therefore has none.

    Parameters
    ----------
    rows : int64 (rows,), their numbers
    codes : the target's, of the whole table
    classes : the labels of the codes, by which the part is stratified; None of a regression
    fraction, seed : of the part

    Raises
    ------
    ConfigError : too few rows
    """
    rest, part, kept = _split(rows, codes, classes=classes, fraction=fraction, seed=seed)
    _warn_of(kept, codes, classes)
    return rest, part


def _split(
    rows: RowNumbers, codes: NDArray[Any], *, classes: Sequence[Label] | None, fraction: float, seed: int
) -> tuple[RowNumbers, RowNumbers, RowNumbers]:
    """Return the rest, the part, and those of the rest that are all rows of their classes; see `split_rows`."""
    lone = lone_rows(codes[rows], classes)
    others, kept, strata = np.delete(rows, lone), rows[lone], None
    if classes is not None and len(others):
        labels = codes[others]
        size = round(fraction * len(others))
        enough_for_all = len(np.unique(labels)) <= min(size, len(others) - size)
        strata = labels if enough_for_all else None
    try:
        rest, part = train_test_split(others, test_size=fraction, stratify=strata, random_state=seed)
    except ValueError as error:
        raise ConfigError(f"{len(rows)} rows can't be split with a part of {fraction:g}: {error}") from None
    if classes is not None:
        taken_whole = ~np.isin(codes[part], codes[rest])
        kept = np.concatenate([kept, part[taken_whole]])
        part = part[~taken_whole]
    return np.concatenate([rest, kept]), part, kept


def lone_rows(codes: NDArray[Any], classes: Sequence[Label] | None) -> NDArray[np.int64]:
    """Return the places of the rows that are alone in their class; none of a regression."""
    if classes is None:
        return np.empty(0, np.int64)
    _, first, counts = np.unique(codes, return_index=True, return_counts=True)
    return np.sort(first[counts == 1])


def _warn_of(kept: RowNumbers, codes: NDArray[Any], classes: Sequence[Label] | None) -> None:
    """Warn of classes whose rows are all kept in training, where there are such."""
    if classes is None or not len(kept):
        return
    names = [repr(classes[code]) for code in np.unique(codes[kept])]
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
    one = len(names) == 1
    warnings.warn(
        f"{'Class' if one else 'Classes'} {shown} {'has' if one else 'have'} too few rows to hold one out: "
        f"{'its' if one else 'their'} rows ({len(kept)}) are all kept in training, so {'it is' if one else 'they are'} "
        "not measured on those held out.",
        DataWarning,
        stacklevel=3,
    )
