"""Frames to feature ids by the shortest way: values are read where they stand in memory, by the compiled kernels."""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from attfm.data.batch import Batch, FieldFeatures
from attfm.data.codecs.codec import MISSING, UNKNOWN, Cuts, Lookup, Scale
from attfm.data.encoder import Encoder
from attfm.data.sources.columns import column
from attfm.data.sources.frame_columns import FrameColumns, codes_of, decoded, each_category, is_categorical, standing
from attfm.data.sources.in_memory import as_arrow, stripped
from attfm.data.sources.plain_columns import plain_array
from attfm.data.unknown_values import UnknownCounts, UnknownValues
from attfm.errors import AttfmError
from attfm.ops import cpu

_BATCH = 65_536  # rows whose ids stay in the cache from the encoder to the scorer
_ROWS_TO_SHARE = 4_096
_MOST_KEPT = 1 << 20  # values of a column whose features are kept, of each type
_FEW = 16  # rows: their categories are looked up one by one, unless those of the column are known already
_MOST_FRAMES = 64  # that have different names


class NotStanding(Exception):
    """A frame can't be encoded where it stands: `Encoder.transform` says what is wrong with it, or takes it."""


@dataclass(frozen=True)
class Places:
    """Where the input columns stand in frames with some names, and the names that the schema does not have."""

    inputs: list[int]
    unseen: list[str]


class FrameEncoder:
    """Encodes frames as `Encoder.transform` does, whose features it keeps for the values that it has seen.

    Numbers are cut into bins, texts are found in a table of the texts that stood there before, and categories by their
    codes: for all columns in one call. What such a table lacks is encoded by `Encoder`, and kept. So is each column of
    a type that is not read here, in every frame. Anything that is wrong with a frame, or is worth a warning, raises
    NotStanding: the encoder then says so, as it does of any table.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._names = [terms.name for terms, _ in encoder.columns]
        self._plan = cpu.compiled.ColumnPlan(len(self._names), len(encoder.fields))
        self._first: list[int] = []  # field of each column
        seed, field = secrets.randbits(64), 0
        for number, (terms, codec) in enumerate(encoder.columns):
            self._first.append(field)
            place = (number, field, encoder.fields[field].start)
            rule = codec.rule
            if isinstance(rule, Cuts) and terms.keeps_numbers:
                self._plan.add_bins(*place, np.ascontiguousarray(rule.edges, np.float64), rule.bins, terms.is_short)
            elif isinstance(rule, Scale) and terms.keeps_numbers:
                self._plan.add_scale(*place, rule.low, rule.high, terms.is_short)
            elif isinstance(rule, Lookup):
                self._plan.add_values(
                    *place, terms.keeps_texts, not pa.types.is_decimal(terms.stored), seed, _MOST_KEPT
                )
            field += len(codec.fields)
        self._weighted = any(field.kind == "scaled" for field in encoder.fields)
        self._places: dict[tuple[Any, ...], Places] = {}  # of the columns in frames with such names
        self._last: tuple[Any, Places] = None, Places([], [])  # the names of the frame before, and its places
        self._features: dict[
            int, tuple[Any, NDArray[np.int32] | None]
        ] = {}  # categories of a column, and their features

    def __reduce__(self) -> tuple[Any, ...]:
        return FrameEncoder, (self._encoder,)  # the tables fill again

    def places_of(self, names: Sequence[Any]) -> "Places":
        """Return where the columns stand in a frame with such names; raise NotStanding where inputs are absent."""
        last, places = self._last
        if names is last or (last is not None and hasattr(names, "is_") and names.is_(last)):  # pandas' own
            return places
        key = tuple(names)
        # Texts are equal where they are the same; other names count by their text.
        kept = self._places.get(key) if all(type(name) is str for name in key) else None
        if kept is None:
            try:
                own = {name: place for place, name in enumerate(stripped(key, "the frame"))}
            except AttfmError as error:
                raise NotStanding from error
            if not own.keys() >= set(self._names):
                raise NotStanding
            known = {column.name for column in self._encoder.schema.columns}
            kept = Places([own[name] for name in self._names], [name for name in own if name not in known])
            if len(self._places) >= _MOST_FRAMES:
                self._places.clear()
            self._places[key] = kept
        self._last = names, kept
        return kept

    def batches(self, frame: FrameColumns) -> Iterator[Batch]:
        """Yield the rows, encoded, at most 65,536 in a batch; raise NotStanding, at the latest at the end."""
        if not frame.rows:
            raise NotStanding
        places, fields = self.places_of(frame.names).inputs, len(self._encoder.fields)
        arrays = [self._readable(number, frame.columns[place], frame.rows) for number, place in enumerate(places)]
        bound = cpu.compiled.BoundColumns(self._plan, arrays, frame.rows)
        others = self._others(frame, places, bound.slow) if bound.slow else {}
        told, counts = np.zeros((len(arrays), 2), np.int64), Counts.of(fields)  # missing and unknown values by column
        for start in range(0, frame.rows, _BATCH):
            size = min(_BATCH, frame.rows - start)
            ids = np.empty((size, fields), np.int32)
            values = np.ones(ids.shape, np.float32) if self._weighted else None
            threads = torch.get_num_threads() if size >= _ROWS_TO_SHARE else 1
            wrong, absent = bound.encode(start, ids, values, told, threads)
            if wrong:
                raise NotStanding
            for number in absent:
                self._look_up(number, arrays[number], start, ids, counts)
            yield self._with_others(others, start, ids, values, counts) if others else _batch(ids, values)
        if bound.has_unknown or counts.unknown.any():
            counts.missing[self._first] += told[:, 0]
            counts.unknown[self._first] += told[:, 1]
            if self._is_surprising(counts, frame.rows):
                raise NotStanding

    def _readable(self, number: int, values: Any, rows: int) -> Any:
        """Return what the kernel takes: an array, codes with the feature of each, or None."""
        array = standing(values)
        if array is None or not is_categorical(array):
            return array
        codes, categories = codes_of(array)
        kept, features = self._features.get(number, (None, None))
        is_kept = kept is not None and (categories is kept or categories.is_(kept))
        if is_kept and features is not None:
            return codes, features
        if rows <= _FEW and not is_kept:  # worth the features of all categories when they come again
            self._features[number] = categories, None
            return decoded(array)
        features = self._encoded(number, each_category(array))
        if categories is not None:
            self._features[number] = categories, features
        return codes, features

    def _encoded(self, number: int, values: Any) -> NDArray[np.int32]:
        """Return the features of values of a column with one field, counted from its start, by the encoder."""
        (features, *more), bad = self._encoder.encode_column(number, self._as_arrow(number, values))
        if more or features.values is not None or features.counts is not None or not bad.is_empty:
            raise NotStanding
        return features.ids

    def _as_arrow(self, number: int, values: Any) -> pa.Array:
        """Return an array as any table has it."""
        try:
            array = values if isinstance(values, pa.Array) else column(values, self._names[number])
        except AttfmError as error:
            raise NotStanding from error
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        return plain_array(array, pa.field("", array.type))

    def _look_up(self, number: int, array: Any, start: int, ids: NDArray[np.int32], counts: "Counts") -> None:
        """Encode the values of a column that are not kept yet, and keep them."""
        f = self._first[number]
        rows = np.flatnonzero(ids[:, f] < 0)
        if isinstance(array, pa.Array):
            values = self._as_arrow(number, array.slice(start, len(ids))).take(pa.array(rows))
        else:
            values = self._as_arrow(number, array[start + rows])
        features = self._encoded(number, values)
        ids[rows, f] = features + self._encoder.fields[f].start
        counts.add(f, features)
        self._plan.learn(number, values, features)

    def _others(self, frame: FrameColumns, places: Sequence[int], numbers: Sequence[int]) -> dict[int, pa.ChunkedArray]:
        """Return the columns that are not read where they stand, as any table has them."""
        names = [self._names[number] for number in numbers]
        try:
            table = as_arrow(
                frame.select([places[number] for number in numbers]),
                names if isinstance(frame.frame, np.ndarray) else None,
            )
        except AttfmError as error:
            raise NotStanding from error
        return dict(zip(numbers, table.columns, strict=True))

    def _with_others(
        self,
        others: dict[int, pa.ChunkedArray],
        start: int,
        ids: NDArray[np.int32],
        values: NDArray[np.float32] | None,
        counts: "Counts",
    ) -> Batch:
        """Return the batch of encoded rows with the columns that are encoded as those of any table."""
        own: dict[int, FieldFeatures] = {}
        for number, whole in others.items():
            features, bad = self._encoder.encode_column(number, whole.slice(start, len(ids)), first_row=start)
            if not bad.is_empty:
                raise NotStanding
            for f, of_field in enumerate(features, self._first[number]):
                counts.add(f, of_field.ids, len(ids))
                np.add(of_field.ids, self._encoder.fields[f].start, out=of_field.ids)
                own[f] = of_field
        if any(of_field.counts is not None for of_field in own.values()):
            every = [
                own.get(f, FieldFeatures(ids[:, f], None if values is None else values[:, f]))
                for f in range(ids.shape[1])
            ]
            return Batch.of_fields(every)
        for f, of_field in own.items():
            ids[:, f] = of_field.ids
            if values is not None and of_field.values is not None:
                values[:, f] = of_field.values
        return _batch(ids, values)

    def _is_surprising(self, counts: "Counts", rows: int) -> bool:
        """Return whether a field's values are nearly all unknown, which is worth a warning."""
        unknown = UnknownValues(self._encoder)
        unknown.add(UnknownCounts(rows - counts.missing, counts.unknown, {}))
        return bool(unknown.surprising())


@dataclass(frozen=True)
class Counts:
    """How many values of each field are missing (less than none where a row has several values), and unknown."""

    missing: NDArray[np.int64]
    unknown: NDArray[np.int64]

    @classmethod
    def of(cls, fields: int) -> "Counts":
        """Return the counts of no rows."""
        return cls(np.zeros(fields, np.int64), np.zeros(fields, np.int64))

    def add(self, field: int, features: NDArray[np.int32], rows: int | None = None) -> None:
        """Take in features of so many rows; None: one each."""
        self.missing[field] += (features == MISSING).sum() - (0 if rows is None else len(features) - rows)
        self.unknown[field] += (features == UNKNOWN).sum()


def _batch(ids: NDArray[np.int32], values: NDArray[np.float32] | None) -> Batch:
    return Batch(torch.from_numpy(ids), None if values is None else torch.from_numpy(values))
