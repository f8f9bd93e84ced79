"""What every kind of column gives: its settings, a learner, and the codec that the learner makes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attfm.config import DataConfig
from attfm.data.bad_values import BadValues
from attfm.data.batch import FieldFeatures
from attfm.data.schema import Column
from attfm.errors import nearest

UNKNOWN, MISSING, FIRST_VALUE = 0, 1, 2  # the numbers of a field's features, from its start

# Says what a value of a setting must be, or nothing where it is allowed.
Check = Callable[[Any], str]


@dataclass(frozen=True)
class Field:
    """One field of the encoded row, which owns the feature ids from `start` up to `stop`.

    Feature `start` is the unknown value, `start + 1` the missing one, the values follow.

    Attributes
    ----------
    name, column : str, of the field, and of the column that it is read from: of a date, "when.hour" of "when"
    kind : str, "categorical", "numeric" (bins), "scaled" or "multi-valued"
    size : int, number of its features, with unknown and missing
    ordered : bool, whether neighbouring values are neighbouring features
    start : int, its first feature id; a codec counts from 0, the encoder lays its fields one after the other
    """

    name: str
    column: str
    kind: str
    size: int
    ordered: bool = False
    start: int = 0

    @property
    def stop(self) -> int:
        """The feature id after its last."""
        return self.start + self.size


@dataclass(frozen=True)
class Renewal:
    """How what was learned from earlier rows is taken on to new rows.

    Attributes
    ----------
    before, today : int, days since 1970, of the earlier training and of this one
    half_life : float or None, days after which an earlier row counts half; None: as much as a new one
    evict_unseen : float or None, values that were seen last more than so many days ago are forgotten; None: none are
    refit_bins : bool, whether numeric bins are cut again, on the new rows
    """

    before: int
    today: int
    half_life: float | None = None
    evict_unseen: float | None = None
    refit_bins: bool = False

    @property
    def kept(self) -> float:
        """What an earlier row counts now, of a new one."""
        return 1.0 if self.half_life is None else float(0.5 ** ((self.today - self.before) / self.half_life))


@dataclass(frozen=True)
class Cuts:
    """A number's feature is its bin: `edges` are float64 (bins - 1,); `bins` is 0 where training had no value."""

    edges: NDArray[np.float64]
    bins: int


@dataclass(frozen=True)
class Scale:
    """A number has the one feature of its column, with the value that scales low to high to 0 to 1."""

    low: float
    high: float


@dataclass(frozen=True)
class Lookup:
    """A value's feature depends on the value alone, so that it can be kept."""


class Codec(ABC):
    """How one column becomes the features of its fields (each with the start 0), as learned from the training rows.

    Most columns have one field; a date has up to three. A field may have several features a row
    (`FieldFeatures.counts`).
    """

    fields: tuple[Field, ...]
    # How values that need no conversion become features, for those who read them where they stand; None: by `encode`.
    rule: Cuts | Scale | Lookup | None = None

    @abstractmethod
    def encode(self, chunk: pa.Array, *, row: int, bad: BadValues) -> list[FieldFeatures]:
        """Return the features of some rows of the column, for each field, with ids counted from the field's start.

        `row` is the number of the first of them in the table. The caller may change the arrays.
        """

    def renewed(self, other: "Codec", renewal: Renewal) -> tuple["Codec", list[NDArray[np.int64]]]:
        """Return the codec with what is new in that of new rows, and where its features come from.

        These are int64 (size,) for each field: which of this codec's features each was, UNKNOWN where it is new.
        """
        return self, [np.arange(field.size) for field in self.fields]

    @abstractmethod
    def labels(self, field: int = 0) -> list[str]:
        """Return what people call the features of a field that follow unknown and missing."""

    def edges(self, field: int = 0) -> NDArray[np.float64] | None:
        """Return the edges of a field's bins, float64 (bins + 1,), or None where it has none."""
        return None

    def value_range(self, field: int = 0) -> tuple[float, float]:
        """Return the training range that a scaled field's values are scaled from; (0, 1) of other fields."""
        return 0.0, 1.0

    def known(self, texts: Sequence[str]) -> list[str]:
        """Return those of some texts that are values of their own."""
        return []

    def expected_unknown(self, field: int = 0) -> float | None:
        """Return the share of a field's values that is expected to be unknown in new rows; None: not known, or none."""
        return None

    def rows(self, field: int = 0) -> dict[str, pa.Array]:
        """Return a field's rows of the encoder file by column, none where its settings say all (see `encoder_file`)."""
        return {}


class Learner(Protocol):
    """Learns the codec of one column from the training rows, in one pass.

    A kind that uses the target encodes a training row otherwise than a new one: with what the other folds say. Its
    learner will give a `fit_transform(rows, target, folds)` beside `codec`, which the encoder will ask for first.
    """

    def add(self, chunk: pa.Array, *, row: int, bad: BadValues) -> None:
        """Take in a chunk of the column, whose first row has the number `row`; note what can't be read in `bad`."""

    def codec(self) -> Codec:
        """Return the codec of all that was taken in."""


class ColumnKind(ABC):
    """A kind of column, and the checks of what it may be set to, besides its kind."""

    settings: ClassVar[Mapping[str, Check]] = {}

    def defaults(self, config: DataConfig) -> dict[str, Any]:
        """Return the settings of a column that has none of its own."""
        return {}

    def lacking(self, name: str, arrow_type: pa.DataType, settings: Mapping[str, Any]) -> str:
        """Return the sentence that asks for a setting which a column declared to be of this kind needs, or ""."""
        return ""

    def field_names(self, column: Column) -> list[str]:
        """Return the names of the fields that a column can have, in order."""
        return [column.name]

    @abstractmethod
    def learner(self, column: Column, seed: list[int]) -> Learner:
        """Return a learner of a column, with the seed of all that it draws at random."""

    @abstractmethod
    def codec(self, column: Column, rows: Mapping[str, pa.Table]) -> Codec:
        """Return the codec of these rows of the encoder file, by field name, or raise RunFolderError."""


def integer(low: int, high: int) -> Check:
    """Return the check that a setting is an integer between two bounds, both allowed."""
    return lambda value: "" if type(value) is int and low <= value <= high else f"an integer from {low:,} to {high:,}"


def one_of(*names: str) -> Check:
    """Return the check that a setting is one of some names."""
    return lambda value: "" if value in names else f"one of {', '.join(names)}{nearest(str(value), names)}"


def text(value: Any) -> str:
    """Check that a setting is a string that is not empty."""
    return "" if isinstance(value, str) and value else "a string of at least one character"
