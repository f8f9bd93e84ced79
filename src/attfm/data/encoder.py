"""The encoder: learns each column's features from the training rows, and turns any rows into feature ids."""

import dataclasses
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attfm.config import Reading
from attfm.data.arrow_columns import chunks
from attfm.data.bad_values import BadValues
from attfm.data.batch import Batch, FieldFeatures
from attfm.data.codecs import KINDS
from attfm.data.codecs.codec import FIRST_VALUE, Codec, Field, Learner, Renewal
from attfm.data.encoder_file import codecs_from_table, codecs_to_table
from attfm.data.schema import Schema
from attfm.data.stored_terms import StoredTerms
from attfm.data.texts import NULL_VALUES, PLAIN
from attfm.errors import DataError

_MOST_FEATURES = 2**31
_ROWS_TO_SHARE = 32_768  # rows of a batch whose columns are encoded at the same time


@contextmanager
def _side_by_side(rows: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Give what maps a function over columns: in threads where the rows are many, since numpy and pyarrow allow it."""
    if rows < _ROWS_TO_SHARE:
        yield map
        return
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield threads.map


class Encoder:
    """Turns rows of columns into feature ids (DESIGN section 2): the loop over the codecs of the columns.

    Attributes
    ----------
    schema : Schema, the columns, of which each input column has one codec
    fields : tuple of Field, those of all codecs, which share the feature ids 0 to n_features - 1 without a gap
    n_features : int, at most 2^31; more of them raise DataError

    Examples
    --------
    >>> from attfm.config import DataConfig
    >>> from attfm.data.inference import infer_schema
    >>> table = pa.table({"job": ["cook", "clerk", "cook"], "age": [17, 42, 60]})
    >>> schema = infer_schema(table.to_batches(), table.schema, target=None, config=DataConfig())
    >>> encoder = Encoder.fit(schema, table.to_batches())
    >>> encoder.transform(pa.table({"age": [45, None], "job": ["cook", "pilot"]})).ids.tolist()
    [[2, 7], [0, 5]]
    >>> encoder.feature_names(0)
    ['unknown', 'missing', 'cook', 'clerk']
    """

    def __init__(self, schema: Schema, codecs: Sequence[Codec]) -> None:
        self.schema = schema
        self._codecs = tuple(codecs)
        self._terms = [
            # A marker of missing values that the codec knows as a value is one: schemas of 0.1 don't say so.
            StoredTerms.of(column, schema.reading, also_kept=codec.known(NULL_VALUES))
            for column, codec in zip(schema.inputs, codecs, strict=True)
        ]
        # The codec of each field, and the field's number within it.
        self._places = [(codec, f) for codec in codecs for f in range(len(codec.fields))]
        fields: list[Field] = []
        start = 0
        for codec, f in self._places:
            fields.append(dataclasses.replace(codec.fields[f], start=start))
            start = fields[-1].stop
        if start > _MOST_FEATURES:
            largest = max(fields, key=lambda field: field.size)
            raise DataError(
                f"The columns have {start:,} features, more than 2^31. Column '{largest.column}' alone has "
                f"{largest.size:,}: set or lower its 'hash_buckets', or raise its 'min_count'."
            )
        self.fields = tuple(fields)
        self.n_features = start

    @classmethod
    def fit(cls, schema: Schema, batches: Iterable[pa.RecordBatch], *, seed: int = 0) -> Self:
        """Return the encoder of the training rows, read in one pass.

        Parameters
        ----------
        batches : iterable of pyarrow.RecordBatch
            The training rows, with at least the schema's input columns, in any order.
        seed : int, of the sample that numeric bins are cut on beyond a million rows

        Raises
        ------
        SchemaError : a column is absent
        DataError : no rows; a value can't be read as its column's kind, or is infinite; more than 2^31 features
        """
        inputs = schema.inputs
        terms = [StoredTerms.of(column, schema.reading) for column in inputs]
        learners = [KINDS[column.kind].learner(column, [seed, number]) for number, column in enumerate(inputs)]
        bads = [BadValues() for _ in inputs]
        rows = 0

        def learn(of_column: StoredTerms, learner: Learner, bad: BadValues, column: pa.Array) -> None:
            for row, chunk in chunks(column, rows):
                learner.add(of_column.apply(chunk, bad), row=row, bad=bad)

        for batch in batches:
            columns = schema.select(batch).values()
            with _side_by_side(batch.num_rows) as each:
                list(each(learn, terms, learners, bads, columns))
            rows += batch.num_rows
        if rows == 0:
            raise DataError("There are no training rows to learn features from.")
        BadValues.joined(bads).tell(rows)
        return cls(schema, [learner.codec() for learner in learners])

    def transform(
        self, batch: pa.RecordBatch | pa.Table, *, first_row: int = 0, reading: Reading | None = None
    ) -> Batch:
        """Return the feature ids of some rows.

        Parameters
        ----------
        batch : pyarrow.RecordBatch or pyarrow.Table
            Columns by name, in any order; columns that the schema does not have are ignored.
        first_row : int, number of the first row in messages (rows count from 0)
        reading : Reading or None, how text in it is read; None: as that of the training table

        Raises
        ------
        SchemaError : a column is absent
        DataError : a value can't be read as its column's kind, or is infinite
        """
        arrays = self.schema.select(batch)

        def encode(number: int) -> tuple[list[FieldFeatures], BadValues]:
            name = self._terms[number].name
            return self.encode_column(number, arrays[name], first_row=first_row, reading=reading)

        with _side_by_side(batch.num_rows) as each:
            columns = list(each(encode, range(len(self._codecs))))
        features = [of_field for of_column, _ in columns for of_field in of_column]
        BadValues.joined([bad for _, bad in columns]).tell(batch.num_rows)
        for field, of_field in zip(self.fields, features, strict=True):
            np.add(of_field.ids, field.start, out=of_field.ids)
        return Batch.of_fields(features)

    def encode_column(
        self, number: int, column: pa.Array | pa.ChunkedArray, *, first_row: int = 0, reading: Reading | None = None
    ) -> tuple[list[FieldFeatures], BadValues]:
        """Return the features of the input column of this number, of each of its fields, and what is wrong with it.

        The ids count from the start of the field. `first_row` and `reading` are as in `transform`.
        """
        own, codec, bad = self._terms[number], self._codecs[number], BadValues()
        foreign = reading is not None and reading != self.schema.reading
        terms = dataclasses.replace(own, reading=reading or PLAIN) if foreign else own
        pieces = chunks(column, first_row)
        encoded = [codec.encode(terms.apply(chunk, bad), row=row, bad=bad) for row, chunk in pieces]
        whole = encoded[0] if len(encoded) == 1 else map(FieldFeatures.concatenate, zip(*encoded, strict=True))
        return list(whole), bad

    @property
    def columns(self) -> list[tuple[StoredTerms, Codec]]:
        """The terms and the codec of each input column."""
        return list(zip(self._terms, self._codecs, strict=True))

    @classmethod
    def counting(cls, schema: Schema, batches: Iterable[pa.RecordBatch], *, seed: int = 0) -> Self:
        """Return the encoder of rows that shall renew another one: it knows all values, however rare; else as `fit`."""
        columns = (column.model_copy(update={"min_count": 1} if column.min_count else {}) for column in schema.columns)
        return cls.fit(schema.model_copy(update={"columns": tuple(columns)}), batches, seed=seed)

    def renewed(self, other: Self, renewal: Renewal) -> tuple[Self, NDArray[np.int64]]:
        """Return the encoder that knows what new rows bring, and where its features come from.

        Parameters
        ----------
        other : the encoder of the new rows (see `counting`), of the same schema

        Returns
        -------
        encoder : the features that it shares with this one mean the same in both
        origin : int64 (n_features,), which feature of this encoder each was; of new values: the field's unknown one
        """
        renewed = [codec.renewed(new, renewal) for codec, new in zip(self._codecs, other._codecs, strict=True)]
        origins = [own for _, of_fields in renewed for own in of_fields]
        starts = [field.start for field in self.fields]
        origin = np.concatenate([own + start for own, start in zip(origins, starts, strict=True)])
        return type(self)(self.schema, [codec for codec, _ in renewed]), origin

    @property
    def parts(self) -> tuple[Sequence[StoredTerms], Sequence[Codec]]:
        """The terms and the codec of each input column, in their order."""
        return tuple(self._terms), self._codecs

    def part(self, columns: Collection[str]) -> Self:
        """Return the encoder of some of the input columns only; their fields own the feature ids that they own here."""
        kept = [c for c in self.schema.columns if c.name in columns or c not in self.schema.inputs]
        codecs = [codec for c, codec in zip(self.schema.inputs, self._codecs, strict=True) if c.name in columns]
        part = type(self)(self.schema.model_copy(update={"columns": tuple(kept)}), codecs)
        part.fields = tuple(field for field in self.fields if field.column in columns)
        part.n_features = self.n_features
        return part

    def feature_names(self, field: int) -> list[str]:
        """Return what people call a field's features, from its start: "unknown", "missing", "cook", "[17, 23)", ..."""
        codec, f = self._places[field]
        return ["unknown", "missing", *codec.labels(f)]

    def bin_edges(self, field: int) -> NDArray[np.float64] | None:
        """Return the edges of a field's bins, float64 (bins + 1,), or None where it has none.

        The first is the smallest training value and the last the greatest; the end bins take in all beyond.
        """
        codec, f = self._places[field]
        return codec.edges(f)

    def value_range(self, field: int) -> tuple[float, float]:
        """Return the training range that a scaled field's values are scaled from; (0, 1) of other fields."""
        codec, f = self._places[field]
        return codec.value_range(f)

    def expected_unknown(self, field: int) -> float | None:
        """Return the share of a field's values that is expected to be unknown in new rows; None: can't be known."""
        codec, f = self._places[field]
        return codec.expected_unknown(f)

    @cached_property
    def expected_unknowns(self) -> list[float | None]:
        """What `expected_unknown` says of each field."""
        return [self.expected_unknown(f) for f in range(len(self.fields))]

    def neighbours(self) -> NDArray[np.int64]:
        """Return the features i, int64 (n,), such that i and i + 1 are neighbouring bins of one field."""
        runs = [np.arange(f.start + FIRST_VALUE, f.stop - 1) for f in self.fields if f.ordered]
        return np.concatenate([np.empty(0, np.int64), *runs]).astype(np.int64)

    def to_table(self) -> pa.Table:
        """Return all that was learned, one row a value, from which `from_table` makes an equal encoder."""
        return codecs_to_table(self._codecs)

    @classmethod
    def from_table(cls, schema: Schema, table: pa.Table) -> Self:
        """Return the encoder that `to_table` wrote; raise RunFolderError where the table is something else."""
        return cls(schema, codecs_from_table(schema, table))
