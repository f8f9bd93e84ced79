"""The encoder: learns each column's features from the training rows, and turns any rows into feature ids."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attfm.data.arrow_columns import calendar_parts, chunks, read_categories, read_members, read_numbers, read_seconds
from attfm.data.bad_values import Problems
from attfm.data.batch import Bag, Batch, FieldFeatures
from attfm.data.codecs.categorical import FIRST_VALUE, MISSING, UNKNOWN, Buckets, Vocabulary
from attfm.data.codecs.numeric import Bins
from attfm.data.encoder_file import features_from_table, features_to_table
from attfm.data.features import CalendarPart, Features, Range
from attfm.data.learning import learn_features
from attfm.data.schema import Schema
from attfm.errors import DataError

_MOST_FEATURES = 2**31


@dataclass(frozen=True)
class EncodedField:
    """One field of the encoded row, which owns the feature ids from `start` up to `stop`.

    Feature `start` is the unknown value, `start + 1` the missing one, the values follow.

    name : the column's name; "when.hour", "when.weekday", "when.month" for the parts of a date
    column : the column that it is read from
    kind : "categorical", "numeric" (bins), "scaled" or "multi-valued"
    ordered : whether neighbouring values are neighbouring features
    """

    name: str
    column: str
    kind: str
    start: int
    stop: int
    ordered: bool


class Encoder:
    """Turns rows of columns into feature ids (DESIGN section 2).

    >>> from attfm.config import DataConfig
    >>> table = pa.table({"job": ["cook", "clerk", "cook"], "age": [17, 42, 60]})
    >>> schema = Schema.infer(table.to_batches(), table.schema, target=None, config=DataConfig())
    >>> encoder = Encoder.fit(schema, table.to_batches())
    >>> encoder.transform(pa.table({"age": [45, None], "job": ["cook", "pilot"]})).ids.tolist()
    [[2, 7], [0, 5]]
    >>> encoder.feature_names(0)
    ['unknown', 'missing', 'cook', 'clerk']
    """

    def __init__(self, schema: Schema, features: Sequence[Features]) -> None:
        self.schema = schema
        self._features = tuple(features)
        fields = []
        start = 0
        for part in self._features:
            stop = start + FIRST_VALUE + part.values.size
            ordered = isinstance(part.values, Bins)
            fields.append(EncodedField(part.name, part.column, part.kind, start, stop, ordered))
            start = stop
        if start > _MOST_FEATURES:
            largest = max(fields, key=lambda field: field.stop - field.start)
            raise DataError(
                f"The columns have {start:,} features, more than 2^31. Column '{largest.column}' alone has "
                f"{largest.stop - largest.start:,}: set or lower its 'hash_buckets', or raise its 'min_count'."
            )
        self.fields: tuple[EncodedField, ...] = tuple(fields)
        self.n_features = start
        self._numbers_of = {
            field.name: [f for f, part in enumerate(self._features) if part.column == field.name]
            for field in schema.inputs
        }

    @classmethod
    def fit(cls, schema: Schema, batches: Iterable[pa.RecordBatch], *, seed: int = 0) -> Self:
        """Return the encoder of the training rows, read in one pass.

        Parameters
        ----------
        schema : the columns
        batches : the training rows, with at least the schema's input columns, in any order
        seed : of the sample that numeric bins are cut on beyond a million rows

        Raises
        ------
        SchemaError : a column is absent
        DataError : no rows; a value can't be read as its column's kind, or is infinite; more than 2^31 features
        """
        return cls(schema, learn_features(schema, batches, seed=seed))

    def transform(self, batch: pa.RecordBatch | pa.Table, *, first_row: int = 0) -> Batch:
        """Return the feature ids of some rows.

        Parameters
        ----------
        batch : columns by name, in any order; columns that the schema does not have are ignored
        first_row : number of the first row in messages (rows count from 0)

        Raises
        ------
        SchemaError : a column is absent
        DataError : a value can't be read as its column's kind, or is infinite
        """
        arrays = self.schema.select(batch)
        rows = batch.num_rows
        problems = Problems()
        ids = np.empty((rows, len(self.fields)), np.int32)
        values = None
        if any(field.kind in ("scaled", "multi-valued") for field in self.fields):
            values = np.ones((rows, len(self.fields)), np.float32)
        bags: dict[int, Bag] = {}
        for field in self.schema.inputs:
            numbers = self._numbers_of[field.name]
            pieces: list[Bag] = []
            start = 0
            for chunk in chunks(arrays[field.name]):
                piece = slice(start, start + len(chunk))
                row = first_row + start
                if field.kind == "datetime":
                    self._encode_dates(chunk, numbers, ids[piece], row, problems)
                elif field.kind == "numeric":
                    x = read_numbers(chunk, column=field.name, row=row, problems=problems)
                    self._encode_numbers(x, numbers[0], ids[piece])
                    if field.bins == "scaled" and values is not None:
                        values[piece, numbers[0]] = self._scaled(x, chunk, numbers[0], row, problems)
                elif field.kind == "categorical":
                    categories = read_categories(chunk, column=field.name, problems=problems)
                    feature_of = np.append(self._find(numbers[0], categories.values), MISSING)
                    ids[piece, numbers[0]] = (feature_of + self.fields[numbers[0]].start)[categories.codes]
                else:
                    bag, members = read_members(
                        chunk, column=field.name, separator=field.separator, row=row, problems=problems
                    )
                    pieces.append(self._encode_members(bag, members, numbers[0]))
                start += len(chunk)
            if field.kind == "multi-valued" and values is not None:
                ids[:, numbers[0]] = self.fields[numbers[0]].start
                values[:, numbers[0]] = 0
                bags[numbers[0]] = Bag.concatenate([_EMPTY, *pieces])
        problems.raise_if_any(rows)
        scaled = [values is not None and field.kind == "scaled" for field in self.fields]
        return Batch.of_fields(
            [
                FieldFeatures(bags[f].ids, bags[f].weights, np.diff(bags[f].offsets)) if f in bags
                else FieldFeatures(ids[:, f], values[:, f] if scaled[f] and values is not None else None)
                for f in range(len(self.fields))
            ]
        )  # fmt: skip

    def _find(self, number: int, values: pa.Array) -> NDArray[np.int32]:
        known = self._features[number].values
        if not isinstance(known, Vocabulary | Buckets):
            raise TypeError(f"field {number} has no categories")
        return known.find(values)

    def _encode_numbers(self, x: NDArray[np.float64], number: int, ids: NDArray[np.int32]) -> None:
        """Write the features of numbers, float64 (rows,) with NaN for missing, into their column of ids."""
        known, start = self._features[number].values, self.fields[number].start
        missing = np.isnan(x)
        if isinstance(known, Bins) and known.size:
            feature = known.find(x) + (start + FIRST_VALUE)
        elif isinstance(known, Range):
            feature = np.full(len(x), start + FIRST_VALUE)
        else:  # no value in training, so any value is unknown
            feature = np.full(len(x), start + UNKNOWN)
        if missing.any():
            feature[missing] = start + MISSING
        ids[:, number] = feature

    def _scaled(
        self, x: NDArray[np.float64], array: pa.Array, number: int, row: int, problems: Problems
    ) -> NDArray[np.float32]:
        """Return numbers scaled to the training range, float32 (rows,), 1 where missing."""
        known = self._features[number].values
        if not isinstance(known, Range):
            raise TypeError(f"field {number} has no range")
        with np.errstate(over="ignore"):
            scaled = np.where(np.isnan(x), 1, known.scale(x)).astype(np.float32)
        problems.add_values(
            self.fields[number].column,
            ~np.isfinite(scaled),
            array,
            row=row,
            one="is too far outside the training range",
            many="are too far outside the training range",
            advice=f"It is {known.low:.6g} to {known.high:.6g}: correct or clip the values.",
        )
        return scaled

    def _encode_dates(
        self, array: pa.Array, numbers: list[int], ids: NDArray[np.int32], row: int, problems: Problems
    ) -> None:
        seconds, missing = read_seconds(array, column=self.fields[numbers[0]].column, row=row, problems=problems)
        parts = calendar_parts(seconds)
        for number in numbers:
            known, start = self._features[number].values, self.fields[number].start
            if isinstance(known, CalendarPart):
                ids[:, number] = start + np.where(missing, MISSING, parts[known.part] + FIRST_VALUE)

    def _encode_members(self, bag: Bag, members: pa.Array, number: int) -> Bag:
        """Return bags of codes into `members` as bags of features, where an empty one holds the missing feature."""
        start = self.fields[number].start
        counts = np.diff(bag.offsets)
        filled = np.maximum(counts, 1)
        held = np.repeat(counts > 0, filled)
        ids = np.full(len(held), start + MISSING, np.int32)
        weights = np.ones(len(held), np.float32)
        ids[held] = self._find(number, members)[bag.ids] + start
        weights[held] = bag.weights
        return Bag(ids, weights, np.concatenate([[0], np.cumsum(filled)]).astype(np.int64))

    def feature_names(self, field: int) -> list[str]:
        """Return what people call a field's features, from its start: "unknown", "missing", "cook", "[17, 23)", ..."""
        return ["unknown", "missing", *self._features[field].values.labels()]

    def bin_edges(self, field: int) -> NDArray[np.float64] | None:
        """Return the edges of a field's bins, float64 (bins + 1,), or None where it has none.

        The first is the smallest training value and the last the greatest; the end bins take in all beyond.
        """
        known = self._features[field].values
        if not isinstance(known, Bins) or known.size == 0:
            return None
        return np.concatenate([[known.low], known.edges, [known.high]])

    def value_range(self, field: int) -> tuple[float, float]:
        """Return the training range that a scaled field's values are scaled from; (0, 1) of other fields."""
        known = self._features[field].values
        return (known.low, known.high) if isinstance(known, Range) and known.low <= known.high else (0.0, 1.0)

    def neighbours(self) -> NDArray[np.int64]:
        """Return the features i, int64 (n,), such that i and i + 1 are neighbouring bins of one field."""
        runs = [np.arange(f.start + FIRST_VALUE, f.stop - 1) for f in self.fields if f.ordered]
        return np.concatenate([np.empty(0, np.int64), *runs]).astype(np.int64)

    def to_table(self) -> pa.Table:
        """Return all that was learned, one row a value, from which `from_table` makes an equal encoder."""
        return features_to_table(self._features)

    @classmethod
    def from_table(cls, schema: Schema, table: pa.Table) -> Self:
        """Return the encoder that `to_table` wrote; raise RunFolderError where the table is something else."""
        return cls(schema, features_from_table(schema, table))


_EMPTY = Bag(np.empty(0, np.int32), np.empty(0, np.float32), np.zeros(1, np.int64))
