"""Columns of a compiled model, from the facts that its file has about them."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from attfm.serve.cell_texts import TextReading
from attfm.serve.columns import BagColumn, BinsColumn, CategoryColumn, CellColumn, DateColumn, ScaledColumn
from attfm.serve.rows import RowEncoder
from attfm.serve.stored import CellTerms, StoredType
from attfm.serve.vocabulary import LookupBuckets, LookupVocabulary, Values


def column_of(
    facts: Mapping[str, Any], starts: Sequence[int], reading: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> CellColumn:
    """Return a column.

    Parameters
    ----------
    facts : of the column; reading : how the text of all columns is read
    starts : first feature of each field
    arrays : by name, in which those of the column begin with "column.NUMBER."
    """
    own_reading = TextReading(
        reading["decimal"], reading["thousands"], reading["signs"], reading["day_first"], frozenset(facts["nothing"])
    )
    terms = CellTerms(
        facts["name"], StoredType.of(facts["stored"]), own_reading, facts["kind"], frozenset(facts["null_numbers"])
    )
    first, codec, name = starts[facts["fields"][0]], facts["codec"], f"column.{facts['number']}"
    if codec == "bins":
        return BinsColumn(terms, first, arrays[f"{name}.edges"].tolist(), is_empty=facts["is_empty"])
    if codec == "scaled":
        return ScaledColumn(terms, first, float(facts["low"]), float(facts["high"]))
    if codec == "date":
        return DateColumn(terms, first, facts["parts"])
    values = _values(facts, name, arrays)
    if codec == "bag":
        return BagColumn(terms, first, values, facts["separator"])
    return CategoryColumn(terms, first, values)


def row_encoder(facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> RowEncoder:
    """Return what encodes rows, given the facts of an encoder (see `attfm.serve.compiling.encoder_facts`)."""
    starts = [field["start"] for field in facts["fields"]]
    columns = [column_of(own, starts, facts["reading"], arrays) for own in facts["columns"]]
    return RowEncoder(columns, starts, facts["expected_unknown"])


def _values(facts: Mapping[str, Any], name: str, arrays: Mapping[str, NDArray[Any]]) -> Values:
    if facts["buckets"]:
        return LookupBuckets(facts["buckets"])
    return LookupVocabulary(
        *(arrays[f"{name}.{part}"] for part in ("text", "ends", "order")),
        spellings=facts["spellings"], has_whole=facts["has_whole"],
    )  # fmt: skip
