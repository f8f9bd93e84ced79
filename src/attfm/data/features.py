"""The features of one encoded field, of whichever kind."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attfm.data.codecs.categorical import Buckets, Vocabulary
from attfm.data.codecs.numeric import Bins

# The parts of a date and the labels of their features, in order.
CALENDAR: dict[str, tuple[str, ...]] = {
    "hour": tuple(str(hour) for hour in range(24)),
    "weekday": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "month": (
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ),
}


@dataclass(frozen=True)
class Range:
    """One feature whose x is the value, scaled so that training values lie in 0 to 1."""

    low: float
    high: float

    @property
    def size(self) -> int:
        """One feature."""
        return 1

    def scale(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (x - low) / (high - low); 0 where the column was constant or had no value in training."""
        if not self.low < self.high:
            return np.where(np.isnan(x), x, 0.0)
        return (x - self.low) / (self.high - self.low)

    def labels(self) -> list[str]:
        """Return "value"."""
        return ["value"]


@dataclass(frozen=True)
class CalendarPart:
    """The hours of the day, the days of the week or the months of the year."""

    part: str

    @property
    def size(self) -> int:
        """24, 7 or 12."""
        return len(CALENDAR[self.part])

    def labels(self) -> list[str]:
        """Return "0" to "23", "Monday" to "Sunday" or "January" to "December"."""
        return list(CALENDAR[self.part])


@dataclass(frozen=True)
class Features:
    """The features of one encoded field.

    name : of the encoded field
    column : that it is read from
    kind : "categorical", "numeric", "scaled" or "multi-valued"
    values : the features after unknown and missing
    """

    name: str
    column: str
    kind: str
    values: Vocabulary | Buckets | Bins | Range | CalendarPart
