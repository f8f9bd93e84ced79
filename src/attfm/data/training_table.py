"""The table that a model is trained on, surveyed and labelled in one pass."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attfm.config import DataConfig, Reading
from attfm.data.arrow_columns import read_column
from attfm.data.bad_values import BadValues
from attfm.data.canonical_text import canonical_text
from attfm.data.folds import BY_CHANCE, Grouping
from attfm.data.inference import infer_schema
from attfm.data.schema import Schema
from attfm.data.sources.source import Source
from attfm.data.split_column import ColumnSplit, check_split_column, grouping_of_column
from attfm.data.stored_terms import StoredTerms
from attfm.errors import DataError

MOST_WRITTEN = 10_000  # labels whose spelling is noted: more of them are amounts


class TrainingTable(NamedTuple):
    """What one pass over a table gives: its schema, its target column, and the weights of its rows, if any.

    `written` has the labels of a text table as they stand there, by their canonical text ("true": "True"); `grouping`
    the times or groups of the rows, where they are split by a column.
    """

    schema: Schema
    labels: pa.ChunkedArray
    weights: NDArray[np.float64] | None
    written: Mapping[str, str]
    grouping: Grouping = BY_CHANCE


def read_training_table(
    source: Source, *, target: str, weight: str | None = None, split: ColumnSplit | None = None, config: DataConfig
) -> TrainingTable:
    """Return the schema, the labels, the weights and the times or groups of a table, read once.

    Raises what `infer_schema` and `grouping_of_column` raise, and DataError where a weight is no number, missing,
    negative or infinite.
    """
    reading = source.reading or Reading()
    if split is not None:
        check_split_column(source, split, target=target)
    written = dict[str, str]()
    gathered: dict[str, list[pa.Array]] = {name: [] for name in (target, weight, split and split.column) if name}

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in labelled_batches(source, target, written):
            for name, parts in gathered.items():
                part = batch.column(name)
                parts.append(pa.concat_arrays([part, part[:0]]))  # a copy: a slice could keep the whole batch
            yield batch

    schema = infer_schema(batches(), source.schema, target=target, weight=weight, config=config, source=source)
    weights = None if weight is None else weights_in(pa.chunked_array(gathered[weight]), weight, reading)
    grouping = BY_CHANCE if split is None else grouping_of_column(gathered[split.column], source, schema, split)
    return TrainingTable(schema, pa.chunked_array(gathered[target]), weights, written, grouping)


def labelled_batches(source: Source, target: str, written: dict[str, str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table, its target in the type of its column; note in `written` how labels of text stand."""
    stored = source.schema.field(target).type
    terms = StoredTerms(target, stored, source.reading or Reading())
    for batch in source.verbatim([target]).batches():
        yield batch if batch.schema.field(target).type == stored else _typed(batch, terms, written)


def _typed(batch: pa.RecordBatch, terms: StoredTerms, written: dict[str, str]) -> pa.RecordBatch:
    """Return the batch with its target, which is text, in the column's type; take note of how labels are written."""
    place = batch.schema.get_field_index(terms.name)
    cells = batch.column(place).dictionary_encode()
    values = terms.apply(cells, BadValues()).dictionary
    if len(written) <= MOST_WRITTEN:
        for label, cell in zip(canonical_text(values).to_pylist(), cells.dictionary.to_pylist(), strict=True):
            written.setdefault(label, cell)
    labels = values.take(cells.indices).cast(terms.stored)
    return batch.set_column(place, pa.field(terms.name, terms.stored), labels)


def weights_in(column: pa.ChunkedArray, name: str, reading: Reading, *, first_row: int = 0) -> NDArray[np.float64]:
    """Return the weights of rows, of which the first has the number `first_row`; DataError where some can't be."""
    terms = StoredTerms(name, pa.float64(), reading)
    weights = read_column(pa.chunked_array([terms.apply(part, BadValues()) for part in column.chunks]), name=name)
    wrong = np.flatnonzero(~(weights >= 0))
    if len(wrong):
        first = "missing" if np.isnan(weights[wrong[0]]) else f"{weights[wrong[0]]:g}"
        raise DataError(
            f"Weight column '{name}': {len(wrong):,} of {len(weights):,} weights are missing or negative "
            f"(first: {first}, row {first_row + wrong[0]:,}). Give a number of at least 0 in every row."
        )
    return weights


def column_of(source: Source, name: str) -> pa.ChunkedArray:
    """Return all values of one column, as they come."""
    batches = list(source.batches([name]))
    return pa.chunked_array([batch.column(0) for batch in batches], type=None if batches else pa.null())


def weights_of(source: Source, name: str | None) -> NDArray[np.float64] | None:
    """Return the weights of the rows, None without such a column; raise DataError where some can't be weights."""
    return None if name is None else weights_in(column_of(source, name), name, source.reading or Reading())
