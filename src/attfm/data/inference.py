"""Which kind each column of a table is: read off its type and values, or declared in the settings."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from attfm.config import DataConfig, unknown_setting
from attfm.data.arrow_columns import (
    is_list,
    is_number,
    is_scalar,
    is_text,
    n_missing,
    plain,
    read_categories,
    value_type,
)
from attfm.data.bad_values import BadValues
from attfm.data.codecs import KINDS
from attfm.data.schema import INPUT_KINDS, Column, Kind, Schema
from attfm.errors import ConfigError, SchemaError, TargetError, nearest, no_column

SAMPLE_ROWS = 100_000
_LONGEST = 1 << 20  # bytes of a value
_ID_ROWS = 1_000  # fewer rows say little about whether a column is an id
_ID_SHARE = 0.95
_DECLARED = (*KINDS, "ignored")  # the kinds that a column may be declared to be


@dataclass
class _Survey:
    """What one column holds."""

    arrow_type: pa.DataType
    missing: int = 0
    minimum: float = math.inf  # of numbers; greater than the maximum where there was none
    maximum: float = -math.inf
    distinct: int | None = None
    sampled: int = 0  # values in the sample that are not missing
    partial: bool = False  # the sample is not all rows
    long: tuple[int, int] | None = None  # size in bytes and row of the first value that is too long

    def widen(self, array: pa.Array, row: int) -> None:
        self.missing += n_missing(array)
        if self.long is None and is_text(array.type):
            sizes = pc.binary_length(array.cast(pa.large_string()))  # which does not take string views
            if (pc.max(sizes).as_py() or 0) > _LONGEST:
                first = pc.index(pc.greater(sizes, _LONGEST), True).as_py()
                self.long = sizes[first].as_py(), row + first
        array = plain(array)
        if is_number(array.type):
            low, high = pc.min_max(array).as_py().values()
            if low is not None and math.isfinite(low) and math.isfinite(high):
                self.minimum, self.maximum = min(self.minimum, float(low)), max(self.maximum, float(high))


def infer_schema(
    batches: Iterable[pa.RecordBatch],
    arrow_schema: pa.Schema,
    *,
    target: str | None,
    weight: str | None = None,
    config: DataConfig,
    source: str = "the table",
) -> Schema:
    """Return the schema of a table, from the types of its columns, its values and the settings.

    One pass over all rows for missing values and ranges; distinct values are counted on the first 100,000. `target`
    and `weight` name these two columns; messages call the table `source`. Raises TargetError without the target
    column, ConfigError for a setting that does not fit its column, SchemaError for all else that is wrong.
    """
    names = list(arrow_schema.names)
    _check_names(names, target=target, weight=weight, config=config, source=source)
    rows, surveys = _survey(batches, arrow_schema)
    if rows == 0:
        raise SchemaError(f"There are no rows in {source}.")
    sentences: list[str] = []
    columns = []
    for name, survey in zip(names, surveys, strict=True):
        settings = {key: value for key, value in config.columns.get(name, {}).items() if key != "kind"}
        kind, reason = _kind(name, survey, target=target, weight=weight, config=config)
        if kind is None:
            sentences.append(
                f"Column '{name}' is of type {survey.arrow_type}, which can't be encoded. "
                "Flatten it into plain columns, drop it, or mark it ignored."
            )
            continue
        if survey.missing == rows and kind == "target":
            raise TargetError(f"The target column '{name}' has no values in {source}. Choose another target.")
        if survey.missing == rows and kind != "ignored":
            sentences.append(f"Column '{name}' has no values in {source}. Drop it, or mark it ignored.")
        if survey.long is not None and kind != "ignored":
            size, row = survey.long
            sentences.append(
                f"Column '{name}' has a value of {size:,} bytes in {source}, row {row:,}: at most {_LONGEST:,} are "
                "taken. Look for a quote that is never closed, shorten the value, or mark the column ignored."
            )
        has_range = survey.minimum <= survey.maximum
        columns.append(
            Column(
                name=name,
                kind=kind,
                arrow_type=str(survey.arrow_type),
                reason=reason,
                distinct=survey.distinct,
                minimum=survey.minimum if has_range else None,
                maximum=survey.maximum if has_range else None,
                missing=survey.missing / rows,
                **_settings(name, kind, settings, survey, config),
            )
        )
    if sentences:
        raise SchemaError(" ".join(sentences))
    if not any(column.kind in INPUT_KINDS for column in columns):
        raise SchemaError(f"No column of {source} is left to predict from: add columns, or ignore fewer.")
    return Schema(columns=tuple(columns))


def _check_names(names: list[str], *, target: str | None, weight: str | None, config: DataConfig, source: str) -> None:
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        listed = ", ".join(f"'{name}'" for name in doubled)
        raise SchemaError(f"Column name {listed} occurs more than once in {source}. Rename the columns.")
    for role, name, error in (("target", target, TargetError), ("weight", weight, SchemaError)):
        if name is not None and name not in names:
            raise error(no_column(role, name, names, source))
    if weight is not None and weight == target:
        raise SchemaError(f"Column '{weight}' can't be both the target and the weight.")
    sentences = []
    for name, settings in config.columns.items():
        if name not in names:
            sentences.append(
                f"There is no column '{name}' in {source}, but the settings have one{nearest(name, names)}."
            )
            continue
        sentences += _bad_settings(name, settings)
        if name in (target, weight):
            role = "target" if name == target else "weight"
            sentences.append(f"Column '{name}' is the {role}: it can't have settings of its own.")
    if sentences:
        raise ConfigError(" ".join(sentences))


def _bad_settings(name: str, settings: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each setting of a column that is unknown or out of its range."""
    sentences = []
    checks = {key: check for kind in KINDS.values() for key, check in kind.settings.items()}
    known = ("kind", *sorted(checks))
    for key, value in settings.items():
        allowed = ""
        if key not in known:
            sentences.append(unknown_setting(key, known, where=f"the settings of column '{name}'"))
        elif key in checks:
            allowed = checks[key](value)
        elif str(value) not in _DECLARED:
            allowed = f"one of {', '.join(_DECLARED)}{nearest(str(value), _DECLARED)}"
        if allowed:
            sentences.append(f"Setting '{key}' of column '{name}' is {value!r}; it must be {allowed}.")
    return sentences


def _survey(batches: Iterable[pa.RecordBatch], arrow_schema: pa.Schema) -> tuple[int, list[_Survey]]:
    surveys = [_Survey(t) for t in arrow_schema.types]
    sample: list[list[pa.Array]] = [[] for _ in surveys]
    rows = 0
    for batch in batches:
        for i, survey in enumerate(surveys):
            array = batch.column(i)
            survey.widen(array, rows)
            if rows < SAMPLE_ROWS and len(array):
                sample[i].append(plain(array[: SAMPLE_ROWS - rows]))
        rows += len(batch)
    for survey, arrays in zip(surveys, sample, strict=True):
        survey.partial = rows > SAMPLE_ROWS
        _count_distinct(survey, arrays)
    return rows, surveys


def _count_distinct(survey: _Survey, arrays: list[pa.Array]) -> None:
    t = value_type(survey.arrow_type)
    if is_list(t):
        arrays, t = [pc.list_flatten(array) for array in arrays], value_type(t.value_type)
    if not is_scalar(t):
        return
    if arrays and is_number(arrays[0].type):
        values = pa.chunked_array(arrays)
        survey.sampled = len(values) - values.null_count
        unique = values.unique()
        survey.distinct = len(unique) - n_missing(unique)
        return
    bad = BadValues()  # what can't be read counts as missing here, and is an error when it is encoded
    texts = []
    for array in arrays:
        codes, values = read_categories(array, column="", bad=bad)
        survey.sampled += int((codes >= 0).sum())
        texts.append(values.take(pa.array(np.unique(codes[codes >= 0]))))
    survey.distinct = len(pa.chunked_array(texts, pa.large_string()).unique().drop_null())


def _kind(
    name: str, survey: _Survey, *, target: str | None, weight: str | None, config: DataConfig
) -> tuple[Kind | None, str]:
    """Return a column's kind (None where there is none for its type) and the reason."""
    if name == target:
        return "target", "declared"
    if name == weight:
        return "weight", "declared"
    found, reason = _kind_of_type(survey)
    if (survey.distinct == 1 and not survey.partial) or survey.minimum == survey.maximum:
        reason += ", constant"
    declared: Kind | None = config.columns.get(name, {}).get("kind")
    if declared is None:
        return found, reason
    if declared == "ignored":
        return "ignored", "declared"
    if found is None:
        return None, ""
    return declared, f"declared ({reason})"


def _kind_of_type(survey: _Survey) -> tuple[Kind | None, str]:
    t = value_type(survey.arrow_type)
    count = f"{survey.distinct or 0:,} distinct value{'s' * (survey.distinct != 1)}"
    if survey.partial:
        count += f" in the first {SAMPLE_ROWS:,} rows"
    if types.is_boolean(t):
        return "categorical", "boolean"
    if types.is_dictionary(survey.arrow_type):
        return "categorical", f"dictionary, {count}"
    if is_text(t):
        like_id = survey.sampled > _ID_ROWS and (survey.distinct or 0) > _ID_SHARE * survey.sampled
        return "categorical", f"string, {count}" + (", looks like an id" if like_id else "")
    if types.is_integer(t):
        return "numeric", f"integer, {count}"
    if is_number(t):
        return "numeric", "float" if types.is_floating(t) else "decimal"
    if types.is_duration(t) or types.is_time(t):
        return "numeric", "duration in seconds" if types.is_duration(t) else "time of day in seconds"
    if types.is_timestamp(t) or types.is_date(t):
        return "datetime", "timestamp" if types.is_timestamp(t) else "date"
    if types.is_map(t) and is_scalar(value_type(t.key_type)) and is_number(value_type(t.item_type)):
        return "multi-valued", "map from members to weights"
    if is_list(t) and is_scalar(value_type(t.value_type)):
        return "multi-valued", f"list, {count}"
    if types.is_null(t):
        return "categorical", "no type"
    return None, ""


def _settings(name: str, kind: Kind, own: Mapping[str, Any], survey: _Survey, config: DataConfig) -> dict[str, Any]:
    """Return the settings of a column: its own, else the defaults of its kind."""
    of_kind = KINDS.get(kind)
    misplaced = [key for key in own if of_kind is None or key not in of_kind.settings]
    if misplaced:
        raise ConfigError(
            f"Setting '{misplaced[0]}' does not apply to column '{name}', which is {kind}. "
            "Drop the setting, or declare another kind."
        )
    if of_kind is None:
        return {}
    lacking = of_kind.lacking(name, survey.arrow_type, own)
    if lacking:
        raise ConfigError(lacking)
    return {**of_kind.defaults(config), **own}
