"""Kinds of columns: what each learns from the training rows, and how it turns values into features."""

from collections.abc import Mapping
from types import MappingProxyType

from attfm.data.codecs.categorical import Categorical
from attfm.data.codecs.codec import ColumnKind
from attfm.data.codecs.datetime import DateTime
from attfm.data.codecs.multi_valued import MultiValued
from attfm.data.codecs.numeric import Numeric

__all__ = ["KINDS"]

KINDS: Mapping[str, ColumnKind] = MappingProxyType(
    {"categorical": Categorical(), "numeric": Numeric(), "multi-valued": MultiValued(), "datetime": DateTime()}
)
