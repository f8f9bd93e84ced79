"""libsvm and libfm text (`label id:value id:value ...`), parsed by array operations alone."""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from attfm.data.sources.files import DataFile, reading
from attfm.errors import SourceError

Layout = Literal["auto", "fields", "bag"]
_BLOCK = 1 << 23
_BAG = pa.map_(pa.string(), pa.float32())


@dataclass(frozen=True)
class _Rows:
    """Parsed rows: lines, labels and numbers of entries of the rows; ids and weights of the entries, row after row."""

    lines: NDArray[np.int64]
    labels: pa.Array  # null where a row has none
    counts: NDArray[np.int64]
    ids: pa.StringArray
    weights: pa.FloatArray


class LibsvmFile:
    """A libsvm or libfm file, checked by one pass when it is opened.

    Its columns are `label` (float64), and either f0 .. f{n-1} (ids as strings), or `features` (map<string, float32>).

    Parameters
    ----------
    file : DataFile, of lines `label id:value ...`; the label may be absent, and is then missing
    layout : {"auto", "fields", "bag"}
        "fields": rows of n entries of value 1, whose ids belong to their positions. "bag": any rows. "auto": fields
        where the rows can be.
    n_fields : int or None
        With "fields": how many entries each row has, known from elsewhere (the file that a model was trained on).
        The ids are then not compared between positions, so that few rows are read as many are.

    Raises
    ------
    SourceError : a line is something else, or is not laid out in fields as asked
    """

    def __init__(self, file: DataFile, *, layout: Layout = "auto", n_fields: int | None = None) -> None:
        if n_fields is not None and layout != "fields":
            raise SourceError(f"A number of fields belongs to the layout 'fields', not to '{layout}': leave it out.")
        self._file = file
        self.num_rows = 0
        look = _FieldLook()
        for rows in self._blocks():
            self.num_rows += len(rows.counts)
            if n_fields is not None:
                _check_fields(rows, n_fields, file.name)
            elif layout != "bag":
                look.observe(rows)
        if self.num_rows == 0:
            raise SourceError(f"{file.name} is empty: a table needs at least one row.")
        if layout == "fields" and n_fields is None and look.why_not():
            raise SourceError(f"{file.name} can't be read as fields: {look.why_not()}. Read it as a bag instead.")
        self._fields = n_fields
        if n_fields is None and layout != "bag" and not look.why_not():
            self._fields = look.fields
        fields = [(f"f{i}", pa.string()) for i in range(self._fields or 0)]
        self.schema = pa.schema([("label", pa.float64()), *(fields or [("features", _BAG)])])

    def read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows from the top, with the given columns."""
        for rows in self._blocks():
            arrays: dict[str, pa.Array] = {}
            for name in columns:
                if name == "label":
                    arrays[name] = rows.labels
                elif self._fields is None:
                    offsets = np.concatenate([[0], np.cumsum(rows.counts)]).astype(np.int32)
                    arrays[name] = pa.MapArray.from_arrays(pa.array(offsets), rows.ids, rows.weights)
                else:
                    places = np.arange(int(name[1:]), len(rows.ids), self._fields)
                    arrays[name] = rows.ids.take(pa.array(places))
            yield pa.RecordBatch.from_pydict(arrays)

    def _blocks(self) -> Iterator[_Rows]:
        line = 1
        for text in _whole_lines(self._file):
            rows = _parse(text, line, self._file.name)
            line += text.count(b"\n")
            if len(rows.counts):
                yield rows


def _check_fields(rows: _Rows, n_fields: int, file: str) -> None:
    """Raise SourceError where a row has not so many entries of value 1."""
    wrong = np.flatnonzero(rows.counts != n_fields)
    if len(wrong):
        raise SourceError(
            f"{file}, line {rows.lines[wrong[0]]} has {rows.counts[wrong[0]]} entries, but there are {n_fields} "
            "fields: give each field one entry."
        )
    unequal = pc.index(pc.equal(rows.weights, 1.0), False).as_py()
    if unequal >= 0:
        raise SourceError(
            f"{file}, line {rows.lines[unequal // n_fields]}: entry {rows.ids[unequal]} has the value "
            f"{rows.weights[unequal].as_py():g}, but the entries of fields have the value 1."
        )


class _FieldLook:
    """Whether every row has the same number of entries of value 1, and no id stands at two positions."""

    def __init__(self) -> None:
        self.fields = -1
        self._reason = ""
        self._ids: list[pa.Array] = []

    def observe(self, rows: _Rows) -> None:
        if self._reason:
            return
        first = int(rows.counts[0])
        if self.fields < 0:
            self.fields = first
            self._ids = [pa.array([], pa.string())] * first
        if not (rows.counts == self.fields).all():
            self._reason = "rows differ in their number of entries"
        elif self.fields == 0:
            self._reason = "rows have no entries"
        elif not pc.all(pc.equal(rows.weights, 1.0)).as_py():
            self._reason = "some values are not 1"
        else:
            for i in range(self.fields):
                new = rows.ids.take(pa.array(np.arange(i, len(rows.ids), self.fields)))
                self._ids[i] = pc.unique(pa.concat_arrays([self._ids[i], pc.unique(new)]))

    def why_not(self) -> str:
        several = self._ids and len(pc.unique(pa.concat_arrays(self._ids))) < sum(len(ids) for ids in self._ids)
        return self._reason or ("an id stands at several positions" if several else "")


def _whole_lines(file: DataFile) -> Iterator[bytes]:
    """Yield blocks of text that end at the end of a line."""
    rest = b""
    with file.open_text() as stream:
        while True:
            with reading(file.name):
                chunk = bytes(stream.read(_BLOCK))
            if not chunk:
                break
            end = chunk.rfind(b"\n") + 1
            if end:
                yield rest + chunk[:end]
                rest = chunk[end:]
            else:
                rest += chunk
    if rest:
        yield rest


def _parse(text: bytes, first_line: int, file: str) -> _Rows:
    if b"\0" in text:
        line = first_line + text[: text.index(b"\0")].count(b"\n")
        raise SourceError(f"{file} has a NUL byte in line {line}: it is damaged, or not text.")
    if b"#" in text:
        text = re.sub(rb"#[^\n]*", b"", text)
    # One byte on either side, so that every token has an edge at its start and its end.
    raw = np.frombuffer(b"\n" + text + b"\n", np.uint8)
    is_space = raw <= 32
    edges = np.flatnonzero(is_space[1:] != is_space[:-1]) + 1
    starts, ends = edges[0::2], edges[1::2]
    token_line = np.cumsum(raw == 10, dtype=np.int32)[starts] - 1  # line of each token, from 0
    is_first = np.ones(len(starts), bool)
    is_first[1:] = token_line[1:] != token_line[:-1]
    firsts = np.flatnonzero(is_first)

    def bad(token: int, what: str) -> SourceError:
        shown = raw[starts[token] : ends[token]].tobytes().decode("utf-8", "replace")
        return SourceError(
            f"{file}, line {first_line + int(token_line[token])}: {shown[:60]!r} {what}. Lines must be "
            "'label id:value id:value ...', or have no label."
        )

    colons = np.flatnonzero(raw == 58)
    # A line whose first token has a colon has no label.
    next_colons = np.append(colons, len(raw))[np.searchsorted(colons, starts[firsts])]
    has_label = next_colons >= ends[firsts]
    is_label = is_first
    is_label[firsts] = has_label
    entries = np.flatnonzero(~is_label)
    one_each = len(colons) == len(entries) and bool(((starts[entries] <= colons) & (colons < ends[entries])).all())
    if not one_each:
        in_token = np.bincount(np.searchsorted(starts, colons, side="right") - 1, minlength=len(starts))
        wrong = int(np.flatnonzero(in_token != ~is_label)[0])
        other = "has more than one colon (libffm files are not supported)" if in_token[wrong] else "has no colon"
        raise bad(wrong, other)
    # Token boundaries and colons as one rising sequence: every other slice of the text is a piece to keep.
    labels = _slices(raw, starts[is_label], ends[is_label])
    ids = _slices(raw, starts[entries], colons)
    values = _slices(raw, colons + 1, ends[entries])
    label_tokens = np.flatnonzero(is_label)
    label_numbers = _numbers(labels, pa.float64())
    if label_numbers is None:
        raise bad(int(label_tokens[_first_bad(labels)]), "is no number, but stands as the label")
    weights = _numbers(values, pa.float32())
    if weights is None:
        raise bad(int(entries[_first_bad(values)]), "has no number after its colon")
    empty = np.flatnonzero(colons == starts[entries])
    if len(empty):
        raise bad(int(entries[empty[0]]), "has no id before its colon")
    try:
        ids.validate(full=True)
    except pa.ArrowInvalid as error:
        raise SourceError(f"{file} is not UTF-8 text after line {first_line}: {error}.") from error
    is_ranking = pc.index(ids, "qid").as_py()
    if is_ranking >= 0:
        raise bad(int(entries[is_ranking]), "belongs to a ranking file, which is not supported: drop the qid entries")
    # Each row's place among the labels; one past them, where the null stands, if it has none.
    places = np.where(has_label, np.cumsum(has_label) - 1, len(label_numbers))
    labels = pa.concat_arrays([label_numbers, pa.nulls(1, pa.float64())]).take(pa.array(places))
    counts = np.diff(np.append(firsts, len(starts))) - has_label
    return _Rows(first_line + token_line[firsts].astype(np.int64), labels, counts, ids, weights)


def _slices(raw: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> pa.StringArray:
    """Return the pieces raw[starts[i]:ends[i]], which rise and don't overlap, as strings."""
    if not len(starts):
        return pa.array([], pa.string())
    # An array over pieces and the gaps between them shares the text; `take` then copies the pieces alone.
    offsets = np.empty(2 * len(starts), np.int32)
    offsets[0::2] = starts
    offsets[1::2] = ends
    both = pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(raw))
    return both.take(pa.array(np.arange(0, len(offsets), 2)))


def _numbers(texts: pa.StringArray, type_: pa.DataType) -> Any:
    plain = pc.if_else(pc.starts_with(texts, "+"), pc.utf8_slice_codeunits(texts, 1), texts)
    try:
        return pc.cast(plain, type_)
    except pa.ArrowInvalid:
        return None


def _first_bad(texts: pa.StringArray) -> int:
    """Return the place of the first text that is no number, by halving: the texts up to it can't be read."""
    return bisect_left(range(1, len(texts)), True, key=lambda stop: _numbers(texts[:stop], pa.float64()) is None)
