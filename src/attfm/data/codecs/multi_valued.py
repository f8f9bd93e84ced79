"""Multi-valued columns: a bag of features a row, with weights where the column has them."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from attfm.data.arrow_columns import read_members
from attfm.data.arrow_types import is_text, value_type
from attfm.data.bad_values import BadValues
from attfm.data.batch import FieldFeatures
from attfm.data.codecs.categorical import Categorical, CategoricalCodec, CategoricalLearner
from attfm.data.codecs.codec import MISSING, Check, text


class MultiValuedCodec(CategoricalCodec):
    """The features of a row's members, or the missing feature where it has none."""

    rule = None

    def encode(self, chunk: pa.Array, *, row: int, bad: BadValues) -> list[FieldFeatures]:
        name, separator = self.column.name, self.column.separator
        bags, members = read_members(chunk, column=name, separator=separator, row=row, bad=bad)
        feature_of = self.values.find(members)
        counts = np.zeros(len(chunk), np.int64) if bags.counts is None else bags.counts
        filled = np.maximum(counts, 1)
        held = np.repeat(counts > 0, filled)
        ids = np.full(len(held), MISSING, np.int32)
        ids[held] = feature_of[bags.ids]
        weights = None
        if bags.values is not None:
            weights = np.ones(len(held), np.float32)
            weights[held] = bags.values
        return [FieldFeatures(ids, weights, filled)]


class MultiValuedLearner(CategoricalLearner):
    """Counts the members of a multi-valued column."""

    codec_type = MultiValuedCodec

    def add(self, chunk: pa.Array, *, row: int, bad: BadValues) -> None:
        name, separator = self.column.name, self.column.separator
        bags, members = read_members(chunk, column=name, separator=separator, row=row, bad=bad)
        self.count(bags.ids, members)


class MultiValued(Categorical):
    """Columns whose values are lists, maps from members to weights, or strings of members with a separator."""

    learner_type = MultiValuedLearner
    settings: ClassVar[Mapping[str, Check]] = {**Categorical.settings, "separator": text}

    def lacking(self, name: str, arrow_type: pa.DataType, settings: Mapping[str, Any]) -> str:
        if not is_text(value_type(arrow_type)) or "separator" in settings:
            return ""
        return (
            f"Column '{name}' is declared multi-valued and holds strings: "
            "give the separator of their members too, as {'kind': 'multi-valued', 'separator': '|'}."
        )
