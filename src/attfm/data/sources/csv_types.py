"""The type of a text column: found block after block, and applied to its cells."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

NULL_VALUES = (
    *("", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "<NA>", "#N/A", "#N/A N/A"),
    *("#NA", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN"),
)
_UTC = pa.timestamp("us", "UTC")
_CANDIDATES = (pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("us"), _UTC, pa.timestamp("ns"))


class TextColumn:
    """One column, whose type widens to hold all cells seen: null, then the narrowest of

    int64 < float64, bool, timestamp (ISO 8601, without a zone or in UTC), and string for anything else.
    """

    def __init__(self, name: str, null_values: Sequence[str]) -> None:
        self.name = name
        self.type = pa.null()
        self._null_values = pa.array(null_values, pa.string())
        self._spaced = False  # some cell has spaces around it

    @property
    def read_type(self) -> pa.DataType:
        """The type to ask of pyarrow's reader, which takes no spaces around missing cells and dates."""
        native = not self._spaced and (pat.is_int64(self.type) or pat.is_float64(self.type))
        return self.type if native else pa.string()

    def observe(self, cells: pa.StringArray) -> None:
        """Widen the type until it holds these cells too."""
        if pat.is_string(self.type) or (not pat.is_null(self.type) and _fits_all(cells.drop_null(), self.type)):
            return  # a cell with spaces around it fits no other type than string
        trimmed = self._trim(cells)
        self._spaced = self._spaced or trimmed is not cells
        if trimmed.null_count == len(trimmed):
            return
        if pat.is_null(self.type):
            candidates: Sequence[pa.DataType] = _CANDIDATES
        else:
            # Cells before these fit the type, so only those can follow that hold them too.
            candidates = [pa.int64(), pa.float64()] if pat.is_int64(self.type) else [self.type]
        self.type = next((type_ for type_ in candidates if _fits(trimmed, type_)), pa.string())

    def convert(self, cells: pa.Array) -> pa.Array:
        """Return the cells, which were read as `read_type`, in the type of the column."""
        if not pat.is_string(cells.type):
            return cells
        if pat.is_null(self.type):
            return pa.nulls(len(cells))
        trimmed = self._trim(cells)
        return pc.cast(pc.ascii_lower(trimmed) if pat.is_boolean(self.type) else trimmed, self.type)

    def _trim(self, cells: pa.StringArray) -> pa.StringArray:
        """Return the cells without spaces around them; the same object where there were none."""
        trimmed = pc.ascii_trim(cells, characters=" \t")
        if pc.sum(pc.binary_length(trimmed)).as_py() == pc.sum(pc.binary_length(cells)).as_py():
            return cells
        return pc.if_else(pc.is_in(trimmed, self._null_values), None, trimmed)


def _fits(cells: pa.StringArray, type_: pa.DataType) -> bool:
    present = cells.drop_null()
    # A cast words an error for each bad cell before it raises the first: a few cells rule out most types.
    return _fits_all(present[:16], type_) and _fits_all(present, type_)


def _fits_all(cells: pa.StringArray, type_: pa.DataType) -> bool:
    if pat.is_boolean(type_):  # a cast would take 0 and 1 too
        return bool(pc.all(pc.is_in(pc.ascii_lower(cells), pa.array(["true", "false"]))).as_py())
    # Local times of other zones stay strings: as instants they would lose the hour that was written.
    if type_ == _UTC and not pc.all(pc.match_substring_regex(cells, r"(Z|[+-]00:?00)$")).as_py():
        return False
    try:
        pc.cast(cells, type_)
    except pa.ArrowInvalid:
        return False
    # Whole numbers that only a float64 could hold are ids; it would round them to others.
    return not (pat.is_float64(type_) and pc.any(pc.match_substring_regex(cells, r"^[+-]?[0-9]{17,}$")).as_py())
