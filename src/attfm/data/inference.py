"""Which kind each column of a table is: read off its type and values, or declared in the settings."""

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
    missing_count,
    plain,
    read_categories,
    value_range,
    value_type,
)
from attfm.data.bad_values import Problems
from attfm.data.field import OPTIONS, Field, Kind
from attfm.errors import ConfigError, SchemaError, TargetError, nearest

SAMPLE_ROWS = 100_000
_LONGEST = 1 << 20  # bytes of a value
_ID_ROWS = 1_000  # fewer rows say little about whether a column is an id
_ID_SHARE = 0.95
_INTEGERS = {"max_bins": (2, 65_535), "min_count": (1, 2**31), "hash_buckets": (1, 2**31)}  # and their bounds
_BIN_NAMES = ("quantile", "uniform", "scaled")


@dataclass
class _Survey:
    """What one column holds."""

    arrow_type: pa.DataType
    missing: int = 0
    minimum: float | None = None
    maximum: float | None = None
    distinct: int | None = None
    sampled: int = 0  # values in the sample that are not missing
    partial: bool = False  # the sample is not all rows
    long: tuple[int, int] | None = None  # size in bytes and row of the first value that is too long

    def widen(self, array: pa.Array, row: int) -> None:
        self.missing += missing_count(array)
        if self.long is None and is_text(array.type):
            sizes = pc.binary_length(array.cast(pa.large_string()))  # which does not take string views
            if (pc.max(sizes).as_py() or 0) > _LONGEST:
                first = pc.index(pc.greater(sizes, _LONGEST), True).as_py()
                self.long = sizes[first].as_py(), row + first
        ends = value_range(array)
        if ends is not None:
            self.minimum = ends[0] if self.minimum is None else min(self.minimum, ends[0])
            self.maximum = ends[1] if self.maximum is None else max(self.maximum, ends[1])


def infer_fields(
    batches: Iterable[pa.RecordBatch],
    arrow_schema: pa.Schema,
    *,
    target: str | None,
    weight: str | None,
    config: DataConfig,
    source: str,
) -> tuple[Field, ...]:
    """Return the fields of a table (see Schema.infer)."""
    names = list(arrow_schema.names)
    _check_names(names, target=target, weight=weight, config=config, source=source)
    rows, surveys = _survey(batches, arrow_schema)
    if rows == 0:
        raise SchemaError(f"There are no rows in {source}.")
    problems: list[str] = []
    fields = []
    for name, survey in zip(names, surveys, strict=True):
        settings = dict(config.columns.get(name, {}))
        settings.pop("kind", None)
        kind, reason = _kind(name, survey, target=target, weight=weight, config=config)
        if kind is None:
            problems.append(
                f"Column '{name}' is of type {survey.arrow_type}, which can't be encoded. "
                "Flatten it into plain columns, drop it, or mark it ignored."
            )
            continue
        if survey.missing == rows and kind == "target":
            raise TargetError(f"The target column '{name}' has no values in {source}. Choose another target.")
        if survey.missing == rows and kind != "ignored":
            problems.append(f"Column '{name}' has no values in {source}. Drop it, or mark it ignored.")
        if survey.long is not None and kind != "ignored":
            size, row = survey.long
            problems.append(
                f"Column '{name}' has a value of {size:,} bytes in {source}, row {row:,}: at most {_LONGEST:,} are "
                "taken. Look for a quote that is never closed, shorten the value, or mark the column ignored."
            )
        if kind in OPTIONS:
            settings = _options(name, kind, settings, survey, config)
        fields.append(
            Field(
                name=name,
                kind=kind,
                arrow_type=str(survey.arrow_type),
                reason=reason,
                distinct=survey.distinct,
                minimum=survey.minimum,
                maximum=survey.maximum,
                missing=survey.missing / rows,
                **settings,
            )
        )
    if problems:
        raise SchemaError(" ".join(problems))
    if all(field.kind in ("target", "weight", "ignored") for field in fields):
        raise SchemaError(f"No column of {source} is left to predict from: add columns, or ignore fewer.")
    return tuple(fields)


def _check_names(names: list[str], *, target: str | None, weight: str | None, config: DataConfig, source: str) -> None:
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        listed = ", ".join(f"'{name}'" for name in doubled)
        raise SchemaError(f"Column name {listed} occurs more than once in {source}. Rename the columns.")
    known = ", ".join(f"'{name}'" for name in names[:20]) + (", ..." if len(names) > 20 else "")
    if target is not None and target not in names:
        raise TargetError(
            f"There is no target column '{target}' in {source}{nearest(target, names)}. Its columns: {known}."
        )
    if weight is not None and weight not in names:
        raise SchemaError(
            f"There is no weight column '{weight}' in {source}{nearest(weight, names)}. Its columns: {known}."
        )
    if weight is not None and weight == target:
        raise SchemaError(f"Column '{weight}' can't be both the target and the weight.")
    problems = []
    for name, settings in config.columns.items():
        if name not in names:
            problems.append(
                f"There is no column '{name}' in {source}, but the settings have one{nearest(name, names)}."
            )
            continue
        problems += _bad_settings(name, settings)
        if name in (target, weight):
            role = "target" if name == target else "weight"
            problems.append(f"Column '{name}' is the {role}: it can't have settings of its own.")
    if problems:
        raise ConfigError(" ".join(problems))


def _bad_settings(name: str, settings: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each setting of a column that is unknown or out of its range."""
    problems = []
    known = ("kind", *sorted({option for options in OPTIONS.values() for option in options}))
    for key, value in settings.items():
        allowed = ""
        if key not in known:
            problems.append(unknown_setting(key, known, where=f"the settings of column '{name}'"))
        elif key == "kind" and str(value) not in OPTIONS:
            allowed = f"one of {', '.join(OPTIONS)}{nearest(str(value), OPTIONS)}"
        elif key == "bins" and value not in _BIN_NAMES:
            allowed = f"one of {', '.join(_BIN_NAMES)}{nearest(str(value), _BIN_NAMES)}"
        elif key in _INTEGERS:
            low, high = _INTEGERS[key]
            if type(value) is not int or not low <= value <= high:
                allowed = f"an integer from {low:,} to {high:,}"
        elif key == "separator" and (not isinstance(value, str) or value == ""):
            allowed = "a string of at least one character"
        if allowed:
            problems.append(f"Setting '{key}' of column '{name}' is {value!r}; it must be {allowed}.")
    return problems


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
    elif types.is_map(t):
        return
    if not is_scalar(t):
        return
    if arrays and is_number(arrays[0].type):
        values = pa.chunked_array(arrays)
        survey.sampled = len(values) - values.null_count
        unique = values.unique()
        survey.distinct = len(unique) - missing_count(unique)
        return
    problems = Problems()  # what can't be read counts as missing here, and is an error when it is encoded
    texts = []
    for array in arrays:
        categories = read_categories(array, column="", problems=problems)
        survey.sampled += int((categories.codes >= 0).sum())
        used = np.unique(categories.codes[categories.codes >= 0])
        texts.append(categories.values.take(pa.array(used)))
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
    if (survey.distinct == 1 and not survey.partial) or (
        survey.minimum is not None and survey.minimum == survey.maximum
    ):
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


def _options(name: str, kind: str, settings: Mapping[str, Any], survey: _Survey, config: DataConfig) -> dict[str, Any]:
    """Return the options of a field: those of its column, else the defaults."""
    misplaced = [key for key in settings if key not in OPTIONS[kind]]
    if misplaced:
        raise ConfigError(
            f"Setting '{misplaced[0]}' does not apply to column '{name}', which is {kind}. "
            "Drop the setting, or declare another kind."
        )
    t = value_type(survey.arrow_type)
    if kind == "multi-valued" and is_text(t) and "separator" not in settings:
        raise ConfigError(
            f"Column '{name}' is declared multi-valued and holds strings: "
            "give the separator of their members too, as {'kind': 'multi-valued', 'separator': '|'}."
        )
    defaults: dict[str, Any] = {}
    if kind == "numeric":
        defaults = {"bins": config.numeric, "max_bins": config.max_bins}
    elif kind in ("categorical", "multi-valued"):
        defaults = {"min_count": config.min_count}
    return {**defaults, **settings}
