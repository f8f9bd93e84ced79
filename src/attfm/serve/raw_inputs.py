"""What an exported model takes of a raw column: a tensor of numbers, whole numbers, seconds or texts."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from attfm.data.arrow_columns import read_members, read_numbers, read_seconds
from attfm.data.arrow_types import is_text, plain, value_type
from attfm.data.bad_values import BadValues
from attfm.data.canonical_text import canonical_text
from attfm.data.codecs.codec import Codec
from attfm.data.schema import Column
from attfm.data.stored_terms import StoredTerms
from attfm.model.bundle import Model, model_given

NO_WHOLE_NUMBER = -(2**63)  # what stands for a missing value among int64, as NumPy's NaT does
Form = Literal["number", "whole", "text", "seconds", "joined", "texts", "weighted"]
_DTYPES: dict[Form, str] = {
    "number": "double", "whole": "int64", "text": "string", "seconds": "int64", "joined": "string", "texts": "string",
    "weighted": "string",
}  # fmt: skip
_MISSING: dict[Form, str] = {
    "number": "NaN",
    "whole": str(NO_WHOLE_NUMBER),
    "text": "the empty string, or a usual marker such as NA or nan",
    "seconds": str(NO_WHOLE_NUMBER),
    "joined": "the empty string, or a usual marker such as NA or nan",
    "texts": "a row of empty strings; a row that has fewer members than another ends in empty strings",
    "weighted": "a row of empty strings; a row that has fewer members than another ends in empty strings",
}


@dataclass(frozen=True)
class RawInput:
    """What stands for one column of the table among the inputs of an exported model.

    Attributes
    ----------
    column : Column, of the schema
    codec : Codec, how it becomes features
    terms : StoredTerms, how its values are read
    form : str
        "number" (double), "whole" (int64, of categories), "text" (string), "seconds" (int64, since 1970, local time),
        "joined" (string, members with the column's separator), "texts" (string, (batch, members) of a column of lists)
        or "weighted" (these, and their weights)
    """

    column: Column
    codec: Codec
    terms: StoredTerms
    form: Form

    @property
    def name(self) -> str:
        """Name of the column, and of its input."""
        return self.column.name

    @property
    def weights_name(self) -> str:
        """Name of the input of members' weights."""
        return f"{self.name}.weights"

    @property
    def dtype(self) -> str:
        """Type of the tensor, as ONNX calls it."""
        return _DTYPES[self.form]

    @property
    def has_members(self) -> bool:
        """Whether a row has several values."""
        return self.form in ("texts", "weighted")

    def card(self) -> dict[str, Any]:
        """Return what the card says of it."""
        told: dict[str, Any] = {"name": self.name, "type": self.dtype, "missing": _MISSING[self.form]}
        told["shape"] = ["batch", "members"] if self.has_members else ["batch"]
        if self.form == "seconds":
            told["unit"] = "seconds since 1970-01-01 00:00 of the clock there" + (
                f" ({self.column.stored_type.tz})" if getattr(self.column.stored_type, "tz", None) else ""
            )
        elif self.form == "number" and (types.is_duration(self.terms.stored) or types.is_time(self.terms.stored)):
            told["unit"] = "seconds"
        if self.dtype == "string":
            told["form"] = "whole numbers without a point; any other form is an unknown value, but for spaces around it"
        if self.form == "text" and types.is_temporal(self.terms.stored):
            told["written"] = "2024-03-01, or 2024-03-01 12:30:00 where it is not midnight; seconds of a duration"
        return told

    def tensors(self, column: pa.Array | pa.ChunkedArray, bad: BadValues) -> dict[str, NDArray[Any]]:
        """Return a column of a table as the tensors that stand for it, by name."""
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if isinstance(whole, pa.ChunkedArray):  # an older pyarrow keeps one of no or of large chunks
            whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], whole.type)
        array = self.terms.apply(whole, bad)
        if self.has_members:
            return self._members(array, bad)
        if self.form == "number":
            return {self.name: read_numbers(array, column=self.name, row=0, bad=bad)}
        if self.form == "seconds":
            seconds, missing = read_seconds(array, column=self.name, row=0, bad=bad)
            return {self.name: np.where(missing, NO_WHOLE_NUMBER, seconds)}
        array = plain(array)
        if types.is_dictionary(array.type):
            array = plain(array.dictionary).take(array.indices)
        if self.form == "whole":
            return {self.name: _whole_numbers(array)}
        texts = canonical_text(array) if not types.is_null(array.type) else array.cast(pa.large_string())
        return {self.name: _objects(texts)}

    def _members(self, array: pa.Array, bad: BadValues) -> dict[str, NDArray[Any]]:
        bags, members = read_members(array, column=self.name, separator=self.column.separator, row=0, bad=bad)
        counts = np.ones(len(array), np.int64) if bags.counts is None else bags.counts
        width = max(int(counts.max(initial=0)), 1)
        row, place = bags.rows, np.arange(len(bags.ids)) - np.repeat(np.cumsum(counts) - counts, counts)
        texts = np.full((len(counts), width), "", object)
        texts[row, place] = _objects(members)[bags.ids]
        if self.form == "texts":
            return {self.name: texts}
        weights = np.zeros((len(counts), width), np.float32)
        weights[row, place] = 1 if bags.values is None else bags.values
        return {self.name: texts, self.weights_name: weights}


def raw_inputs(model: Model) -> list[RawInput]:
    """Return what stands for each input column of a model, in the order of the schema."""
    parts = zip(model.schema.inputs, *model.encoder.parts, strict=True)
    return [RawInput(column, codec, terms, _form_of(column)) for column, terms, codec in parts]


def tensors_of(model: Model, data: object) -> dict[str, NDArray[Any]]:
    """Return a table as the inputs of the model's export: what `predict_proba` takes, as onnxruntime takes it.

    Raises
    ------
    SchemaError, DataError : a column is absent, or a value can't be read as its column's kind
    """
    source = model_given(model).open(data)
    batches = list(source.batches(model.columns_with(())))
    schema = batches[0].schema if batches else source.schema
    columns = model.schema.select(pa.Table.from_batches(batches, schema))
    bad, tensors = BadValues(), dict[str, NDArray[Any]]()
    for taken in raw_inputs(model):
        tensors |= taken.tensors(columns[taken.name], bad)
    bad.tell(sum(batch.num_rows for batch in batches))
    return tensors


def _form_of(column: Column) -> Form:
    stored = value_type(column.stored_type)
    if column.kind == "numeric":
        return "number"
    if column.kind == "datetime":
        return "seconds"
    if column.kind == "multi-valued":
        return "joined" if is_text(stored) else "weighted" if types.is_map(stored) else "texts"
    if types.is_integer(stored):
        return "whole"
    if types.is_floating(stored) or types.is_decimal(stored):
        return "number"
    return "text"


def _whole_numbers(array: pa.Array) -> NDArray[np.int64]:
    """Return whole numbers as int64; others, which are no known value, as the greatest one."""
    if types.is_null(array.type):
        return np.full(len(array), NO_WHOLE_NUMBER)
    numbers = pa.array(canonical_text(array).to_pylist(), pa.large_string())
    whole = pc.fill_null(pc.match_substring_regex(numbers, r"^-?\d{1,19}$"), False).to_numpy(zero_copy_only=False)
    missing = numbers.is_null().to_numpy(zero_copy_only=False)
    values = [int(text) if is_whole else 0 for text, is_whole in zip(numbers.to_pylist(), whole, strict=True)]
    inside = [whole and -(2**63) < value < 2**63 for whole, value in zip(whole.tolist(), values, strict=True)]
    kept = np.array([value if fits else 2**63 - 1 for value, fits in zip(values, inside, strict=True)], np.int64)
    return np.where(missing, NO_WHOLE_NUMBER, kept)


def _objects(texts: pa.Array) -> NDArray[np.object_]:
    """Return texts as an array of Python strings, empty where missing."""
    filled = pc.fill_null(texts.cast(pa.large_string()), "")
    objects = np.empty(len(filled), object)
    objects[:] = filled.to_pylist()
    return objects
