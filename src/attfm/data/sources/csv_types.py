"""The type of a text column: found block after block, or given, and applied to its cells."""

import copy
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from attfm.config import Reading
from attfm.data.texts import as_dates, markers, plain_numbers, typed

_UTC = pa.timestamp("us", "UTC")
# Times of day and durations, as pandas writes them; what is shorter may be anything.
_SPANS = {
    pa.time64("ns"): r"^\d{1,2}:\d{2}:\d{2}(\.\d+)?$",
    pa.duration("ns"): r"^-?\d+ days? [+-]?\d{1,2}:\d{2}:\d{2}(\.\d+)?$",
}
_CANDIDATES = (pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("us"), _UTC, pa.timestamp("ns"), *_SPANS)
_OFFSET = r"(?P<offset>[+-]\d{2}(?::?\d{2})?)$"


class TextColumn:
    """One column, whose type widens to hold all cells seen: null, then the narrowest of

    int64 < float64, bool, timestamp (ISO 8601, without a zone or with one), time of day with seconds, duration, and
    string for anything else: words, and digits with a zero before them, which are codes.
    """

    def __init__(self, name: str, reading: Reading) -> None:
        self.name = name
        self.type = pa.null()
        self._reading = reading
        self._null_values = pa.array(markers(reading), pa.string())
        self._is_plain = reading.decimal == "." and not (reading.thousands or reading.signs)
        self._offsets: set[str] = set()  # from UTC, of the times seen
        self._spaced = False  # some cell has spaces around it

    @property
    def read_type(self) -> pa.DataType:
        """The type to ask of pyarrow's reader, which takes no spaces around missing cells and dates."""
        native = self._is_plain and not self._spaced and (pat.is_int64(self.type) or pat.is_float64(self.type))
        return self.type if native else pa.string()

    def as_text(self) -> "TextColumn":
        """Return the same column as text."""
        other = copy.copy(self)
        other.type = pa.string()
        return other

    def widened(self, wider: pa.DataType) -> "TextColumn":
        """Return the same column with a type that holds more."""
        other = copy.copy(self)
        other.type = wider
        return other

    def observe(self, cells: pa.StringArray) -> None:
        """Widen the type until it holds these cells too."""
        if pat.is_string(self.type) or (not pat.is_null(self.type) and self._fits_all(cells.drop_null(), self.type)):
            return  # a cell with spaces around it fits no other type than string
        trimmed = self._trim(cells)
        self._spaced = self._spaced or trimmed is not cells
        if trimmed.null_count == len(trimmed):
            return
        if pat.is_null(self.type):
            candidates: Sequence[pa.DataType] = _CANDIDATES
        elif pat.is_timestamp(self.type) and self.type.tz is not None:
            candidates = [_UTC]
        else:
            # Cells before these fit the type, so only those can follow that hold them too.
            candidates = [pa.int64(), pa.float64()] if pat.is_int64(self.type) else [self.type]
        self.type = next((type_ for type_ in candidates if self._fits(trimmed, type_)), pa.string())
        if self.type == _UTC and len(self._offsets) == 1:
            (offset,) = self._offsets
            self.type = pa.timestamp("us", "UTC" if offset.strip("+-0:") == "" else offset)

    def convert(self, cells: pa.Array) -> pa.Array:
        """Return the cells, which were read as `read_type`, in the type of the column."""
        if not pat.is_string(cells.type):
            return cells
        if pat.is_null(self.type):
            return pa.nulls(len(cells))
        trimmed = self._trim(cells)
        if pat.is_boolean(self.type):
            return pc.cast(pc.ascii_lower(trimmed), self.type)
        if pat.is_integer(self.type) or pat.is_floating(self.type):
            return pc.cast(plain_numbers(trimmed, self._reading), self.type)
        if pat.is_timestamp(self.type) and (self._reading.day_first is not None or self.type.tz is not None):
            return as_dates(trimmed, self.type.tz, self._reading)[0].cast(self.type)
        return typed(trimmed, self.type)[0] if self.type in _SPANS else pc.cast(trimmed, self.type)

    def _trim(self, cells: pa.StringArray) -> pa.StringArray:
        """Return the cells without spaces around them; the same object where there were none."""
        trimmed = pc.ascii_trim(cells, characters=" \t")
        if pc.sum(pc.binary_length(trimmed)).as_py() == pc.sum(pc.binary_length(cells)).as_py():
            return cells
        return pc.if_else(pc.is_in(trimmed, self._null_values), None, trimmed)

    def _fits(self, cells: pa.StringArray, type_: pa.DataType) -> bool:
        present = cells.drop_null()
        # A cast words an error for each bad cell before it raises the first: a few cells rule out most types.
        return self._fits_all(present[:16], type_) and self._fits_all(present, type_)

    def _fits_all(self, cells: pa.StringArray, type_: pa.DataType) -> bool:
        if pat.is_boolean(type_):  # a cast would take 0 and 1 too
            return bool(pc.all(pc.is_in(pc.ascii_lower(cells), pa.array(["true", "false"]))).as_py())
        if pat.is_timestamp(type_):
            return self._are_times(cells, type_)
        if type_ in _SPANS:
            has_form = pc.all(pc.match_substring_regex(cells, _SPANS[type_])).as_py()
            return bool(has_form) and not typed(cells, type_)[1].any()
        cells = plain_numbers(cells, self._reading)
        try:
            pc.cast(cells, type_)
        except pa.ArrowInvalid:
            return False
        # Digits with a zero before them are codes, and whole numbers that only a float64 could hold are ids; a number
        # would give neither back.
        if pat.is_float64(type_):
            return not pc.any(pc.match_substring_regex(cells, r"^[+-]?[0-9]{17,}$|^0[0-9]")).as_py()
        after_zero = pc.starts_with(cells, "0")
        return not after_zero.true_count or bool(pc.max(pc.binary_length(cells.filter(after_zero))).as_py() == 1)

    def _are_times(self, cells: pa.StringArray, type_: pa.DataType) -> bool:
        if len(cells) and not pc.match_substring_regex(cells[:1], r"^\d")[0].as_py():
            return False
        if self._reading.day_first is not None or type_.tz is not None:
            _, lost, misplaced = as_dates(cells, type_.tz, self._reading)
            fits = not (lost.any() or misplaced.any())
        else:
            try:
                pc.cast(cells, type_)
                fits = True
            except pa.ArrowInvalid:
                fits = False
        if fits and type_.tz is not None:
            # Times of one offset keep their hours; of several, such as summer and winter, only the instants agree.
            found = pc.struct_field(pc.extract_regex(cells, _OFFSET), "offset")
            new = {_spelled(offset or "+00:00") for offset in found.unique().to_pylist()}
            self._offsets |= new
            return type_ == _UTC or new <= {_spelled(type_.tz)}
        return fits


class StoredColumn(TextColumn):
    """One column whose type is that of the training table: numbers are read as such where all cells are."""

    def __init__(self, name: str, reading: Reading, stored: pa.DataType) -> None:
        super().__init__(name, reading)
        whole = pat.is_integer(stored)
        self._candidates = (pa.int64(), pa.float64()) if whole else (pa.float64(),) if pat.is_floating(stored) else ()
        self.type = next(iter(self._candidates), pa.string())

    def observe(self, cells: pa.StringArray) -> None:
        """Keep the type while it holds the cells; leave text to the encoder, which knows what it means."""
        while not pat.is_string(self.type):
            present = cells.filter(pc.invert(pc.is_in(cells, self._null_values)))
            try:
                if self._is_plain and pc.cast(present, self.type) is not None:
                    return
            except pa.ArrowInvalid:
                pass
            place = self._candidates.index(self.type) + 1
            self.type = self._candidates[place] if place < len(self._candidates) else pa.string()

    def convert(self, cells: pa.Array) -> pa.Array:
        return cells


class RawColumn(StoredColumn):
    """One column whose cells stay as they stand."""

    def __init__(self, name: str, reading: Reading) -> None:
        super().__init__(name, reading, pa.string())


def _spelled(offset: str) -> str:
    """Return an offset from UTC as "+02:00"."""
    if offset == "UTC":
        return "+00:00"
    digits = offset[1:].replace(":", "").ljust(4, "0")
    return f"{offset[0]}{digits[:2]}:{digits[2:]}"
