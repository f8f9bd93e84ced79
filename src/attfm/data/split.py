"""Which rows of a table are trained on, which stop the training, and which measure it."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attfm.config import Reading, TaskName
from attfm.data.folds import BY_CHANCE, Grouping
from attfm.data.sources.database_uri import is_database
from attfm.data.sources.files import table_stem
from attfm.data.target import Label, Target
from attfm.data.texts import PLAIN
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
        if is_database(text):
            raise ConfigError(
                f"{option} names a database, but --query chooses the rows of the table only: give a fraction of them, "
                "another kind of split by --split, or a file."
            )
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
    grouping: Grouping = BY_CHANCE


def split_table(
    labels: pa.ChunkedArray,
    *,
    name: str,
    task: TaskName | Literal["auto"],
    valid: Part,
    test: Part,
    seed: int,
    grouping: Grouping = BY_CHANCE,
    known: Target | None = None,
    reading: Reading = PLAIN,
) -> Split:
    """Return the parts that are taken from a table: the test rows first, then the validation rows.

    The labels are the target column; the parts of a classification are stratified, unless there is a `grouping` of the
    rows: then the test rows are the latest ones and the validation rows those before, or both are whole groups.

    known : the target of a model that learns on from them, which may have classes that no label is of
    """
    target = Target.fit(labels, task=task, name=name) if known is None else known
    codes = target.encode(labels, reading)
    rest, parts = np.arange(len(codes)), dict[str, RowNumbers | None](valid=None, test=None)
    left, never_held_out = 1.0, [np.empty(0, np.int64)]
    for part, asked in (("test", test), ("valid", valid)):
        if asked.fraction:
            fraction = asked.fraction / left
            by = _Cut(target.classes, fraction, seed, grouping)
            rest, parts[part], kept = _split(rest, codes, by)
            never_held_out.append(kept)
            left -= asked.fraction
    _warn_of(np.unique(np.concatenate(never_held_out)), codes, target.classes)
    return Split(rest, parts["valid"], parts["test"], grouping)


@dataclass(frozen=True)
class _Cut:
    """How rows are cut in two; see `split_rows`."""

    classes: Sequence[Label] | None
    fraction: float
    seed: int
    grouping: Grouping


def hold_out(
    rows: RowNumbers,
    codes: NDArray[Any],
    *,
    classes: Sequence[Label] | None,
    fraction: float,
    seed: int,
    grouping: Grouping = BY_CHANCE,
) -> tuple[RowNumbers, RowNumbers | None]:
    """Return training rows without a part (see `split_rows`), and that part to stop the training by, both increasing.

    Fewer than 50 rows are left whole, and so are those of classes of one row each.
    """
    if len(rows) < LEAST_ROWS_TO_SPLIT or len(lone_rows(codes[rows], classes)) == len(rows):
        return rows, None
    rest, part = split_rows(rows, codes, classes=classes, fraction=fraction, seed=seed, grouping=grouping)
    return np.sort(rest), np.sort(part)


def split_rows(
    rows: RowNumbers,
    codes: NDArray[Any],
    *,
    classes: Sequence[Label] | None,
    fraction: float,
    seed: int,
    grouping: Grouping = BY_CHANCE,
) -> tuple[RowNumbers, RowNumbers]:
    """Return the rest and a part of some rows: by chance, or the latest ones, or whole groups.

    By chance they are stratified as far as each class has rows for both. Unless the part is the latest rows, each class
    keeps a row in the rest; a DataWarning names the classes of which the part therefore has none.

    Parameters
    ----------
    rows : int64 (rows,), their numbers
    codes : the target's, of the whole table
    classes : the labels of the codes, by which the part is stratified; None of a regression
    fraction, seed : of the part
    grouping : Grouping, the times or groups of the whole table, if it is not to be cut by chance

    Raises
    ------
    ConfigError : too few rows, times or groups
    """
    rest, part, kept = _split(rows, codes, _Cut(classes, fraction, seed, grouping))
    _warn_of(kept, codes, classes)
    return rest, part


def _split(rows: RowNumbers, codes: NDArray[Any], cut: _Cut) -> tuple[RowNumbers, RowNumbers, RowNumbers]:
    """Return the rest, the part, and those of the rest that are all rows of their classes; see `split_rows`."""
    from sklearn.model_selection import train_test_split  # a second to load, and prediction does without

    if cut.grouping.times is not None:
        later = _latest(cut.grouping.times[rows], cut)
        return rows[~later], rows[later], rows[:0]
    if cut.grouping.groups is not None:
        return _split_groups(rows, codes, cut.grouping.groups[rows], cut)
    classes, fraction = cut.classes, cut.fraction
    lone = lone_rows(codes[rows], classes)
    others, kept, strata = np.delete(rows, lone), rows[lone], None
    if classes is not None and len(others):
        labels = codes[others]
        size = round(fraction * len(others))
        enough_for_all = len(np.unique(labels)) <= min(size, len(others) - size)
        strata = labels if enough_for_all else None
    try:
        rest, part = train_test_split(others, test_size=fraction, stratify=strata, random_state=cut.seed)
    except ValueError as error:
        raise ConfigError(f"{len(rows)} rows can't be split with a part of {fraction:g}: {error}") from None
    if classes is not None:
        taken_whole = ~np.isin(codes[part], codes[rest])
        kept = np.concatenate([kept, part[taken_whole]])
        part = part[~taken_whole]
    return np.concatenate([rest, kept]), part, kept


def _latest(times: NDArray[Any], cut: _Cut) -> NDArray[np.bool_]:
    """Return which rows are the latest ones, as near to the fraction as rows of equal times allow."""
    return np.asarray(times >= first_of_latest(np.sort(times), cut.fraction, str(cut.grouping.column)))


def first_of_latest(in_order: NDArray[Any], fraction: float, column: str) -> Any:
    """Return the first of the latest times, about such a fraction of them; raise ConfigError where all are the same.

    in_order : the times of the rows, rising
    """
    starts = np.flatnonzero(in_order[1:] != in_order[:-1]) + 1  # of the later times
    if not len(starts):
        raise ConfigError(
            f"Column '{column}' has one time only in the {len(in_order):,} rows of which the latest "
            f"{100 * fraction:.3g} % are to be held out. Split by a column with more times."
        )
    # By their odds: half of what was wanted and twice as much are equally far, on either side.
    wanted = np.log((1 - fraction) / fraction)
    nearest = np.abs(np.log(starts / (len(in_order) - starts)) - wanted).argmin()
    return in_order[starts[nearest]]


def _split_groups(
    rows: RowNumbers, codes: NDArray[Any], groups: NDArray[np.int64], cut: _Cut
) -> tuple[RowNumbers, RowNumbers, RowNumbers]:
    """Return what `_split` does: groups in random order are taken where that brings the part nearer to its size.

    scikit-learn's GroupShuffleSplit takes a fraction of the groups, which may have any number of rows.
    """
    _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    taken, lacking = np.zeros(len(sizes), np.bool_), cut.fraction * len(rows)
    shuffled = np.random.default_rng(cut.seed).permutation(len(sizes))
    for group, size in zip(shuffled.tolist(), sizes[shuffled].tolist(), strict=True):
        if size < 2 * lacking:
            taken[group] = True
            lacking -= size
    if taken.all() == taken.any():  # all of them or none: but for the smallest
        taken[sizes.argmin()] = len(sizes) > 1 and not taken.any()
    in_part = taken[groups]
    if cut.classes is not None:
        # A class keeps a row in the rest, and so the groups that hold all of its rows.
        whole = in_part & ~np.isin(codes[rows], codes[rows[~in_part]])
        in_part &= ~np.isin(groups, groups[whole])
        kept = rows[whole]
    else:
        kept = rows[:0]
    if not in_part.any():
        raise ConfigError(
            f"Column '{cut.grouping.column}' has {len(sizes):,} groups in {len(rows):,} rows, too few to hold out "
            f"{100 * cut.fraction:.3g} % as whole groups and keep each class in training. Split by another column."
        )
    return rows[~in_part], rows[in_part], kept


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
