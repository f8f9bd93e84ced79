"""Learning the features of each column from the training rows, in one pass."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import pyarrow as pa

from attfm.data.arrow_columns import chunks, has_time, read_categories, read_members, read_numbers, read_seconds
from attfm.data.bad_values import Problems
from attfm.data.codecs.categorical import Buckets, Counter, Vocabulary
from attfm.data.codecs.numeric import SAMPLE_SIZE, Bins, Sample, quantile_bins, uniform_bins
from attfm.data.features import CALENDAR, CalendarPart, Features, Range
from attfm.data.field import Field
from attfm.data.schema import Schema
from attfm.errors import DataError


class _Learner(Protocol):
    def add(self, array: pa.Array, *, row: int, problems: Problems) -> None:
        """Take in a chunk of the column, whose first row is `row`."""

    def features(self) -> list[Features]:
        """Return the features of the fields that the column becomes."""


def learn_features(schema: Schema, batches: Iterable[pa.RecordBatch], *, seed: int) -> list[Features]:
    """Return the features of all encoded fields (see Encoder.fit)."""
    learners = [_learner(field, [seed, number]) for number, field in enumerate(schema.inputs)]
    problems = Problems()
    rows = 0
    for batch in batches:
        arrays = schema.select(batch)
        for field, learner in zip(schema.inputs, learners, strict=True):
            row = rows
            for chunk in chunks(arrays[field.name]):
                learner.add(chunk, row=row, problems=problems)
                row += len(chunk)
        rows += batch.num_rows
    if rows == 0:
        raise DataError("There are no training rows to learn features from.")
    problems.raise_if_any(rows)
    return [features for learner in learners for features in learner.features()]


def _learner(field: Field, seed: list[int]) -> _Learner:
    if field.kind == "numeric":
        return _Numeric(field, seed)
    if field.kind == "datetime":
        return _Dates(field)
    return _Categories(field)


class _Categories:
    """Counts the values of a categorical column, or the members of a multi-valued one."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._counter = Counter()

    def add(self, array: pa.Array, *, row: int, problems: Problems) -> None:
        name = self._field.name
        if self._field.kind == "multi-valued":
            bag, values = read_members(array, column=name, separator=self._field.separator, row=row, problems=problems)
            codes = bag.ids
        else:
            categories = read_categories(array, column=name, problems=problems)
            codes, values = categories.codes, categories.values
        if self._field.hash_buckets is None:
            self._counter.add(codes, values)

    def features(self) -> list[Features]:
        values: Vocabulary | Buckets
        if self._field.hash_buckets is None:
            values = self._counter.vocabulary(min_count=self._field.min_count or 1)
        else:
            values = Buckets(self._field.hash_buckets)
        return [Features(self._field.name, self._field.name, self._field.kind, values)]


class _Numeric:
    """Keeps the values of a numeric column, or a sample of them, to cut bins on."""

    def __init__(self, field: Field, seed: list[int]) -> None:
        self._field = field
        self._sample = Sample(seed=seed, size=SAMPLE_SIZE)

    def add(self, array: pa.Array, *, row: int, problems: Problems) -> None:
        x = read_numbers(array, column=self._field.name, row=row, problems=problems)
        x = x[~np.isnan(x)]
        if self._field.bins == "quantile":
            self._sample.add(x)
        else:
            self._sample.widen(x)

    def features(self) -> list[Features]:
        name, max_bins = self._field.name, self._field.max_bins or 2
        low, high = self._sample.low, self._sample.high
        values: Bins | Range
        if self._field.bins == "scaled":
            return [Features(name, name, "scaled", Range(low, high))]
        if self._field.bins == "uniform":
            values = uniform_bins(low=low, high=high, bins=max_bins)
        else:
            values = quantile_bins(self._sample.values(), low=low, high=high, max_bins=max_bins)
        return [Features(name, name, "numeric", values)]


class _Dates:
    """Finds out whether a date column has times of day."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._has_time = False

    def add(self, array: pa.Array, *, row: int, problems: Problems) -> None:
        seconds, _ = read_seconds(array, column=self._field.name, row=row, problems=problems)
        self._has_time = self._has_time or has_time(seconds)

    def features(self) -> list[Features]:
        name = self._field.name
        parts = [part for part in CALENDAR if part != "hour" or self._has_time]
        return [Features(f"{name}.{part}", name, "categorical", CalendarPart(part)) for part in parts]
