"""Which kind each column of a table is: read off its type and values, or declared in the settings."""

import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from attfm.config import DataConfig, Reading, unknown_setting
from attfm.data.arrow_columns import n_missing, read_categories
from attfm.data.arrow_types import is_list, is_number, is_scalar, is_text, value_type
from attfm.data.bad_values import BadValues
from attfm.data.codecs import KINDS
from attfm.data.codecs.categorical import Counter
from attfm.data.lookalikes import ZERO_PADDED, lookalike
from attfm.data.schema import INPUT_KINDS, Column, Kind, Schema, stored_type
from attfm.data.sources.source import Source
from attfm.data.stored_terms import StoredTerms
from attfm.data.texts import NULL_VALUES
from attfm.errors import ConfigError, DataWarning, SchemaError, TargetError, nearest, no_column

SAMPLE_ROWS = 100_000
_LONGEST = 1 << 20  # bytes of a value
_MARKERS = pa.array(NULL_VALUES, pa.large_string())
_LONGEST_MARKER = max(map(len, NULL_VALUES))
_ID_ROWS = 1_000  # fewer rows say little about whether a column is an id
_ID_SHARE = 0.95
_ID_NAME = re.compile(r"(?:^|[\W_])(?i:ids?)$|[a-z0-9]I[Dd]s?$")  # id, user_id, item.ID, userId
_FEW_VALUES = 20  # which get a bin of their own anyway
_ROWS_OF_AN_ID = 2  # on average, at least: an id that hardly repeats says nothing of another row
_DECLARED = (*KINDS, "ignored")  # the kinds that a column may be declared to be


@dataclass
class _Survey:
    """What one column holds; values are taken in as `StoredTerms` give them."""

    arrow_type: pa.DataType
    missing: int = 0
    minimum: float = math.inf  # of numbers; greater than the maximum where there was none
    maximum: float = -math.inf
    distinct: int | None = None
    sampled: int = 0  # values in the sample that are not missing
    whole: bool = False  # all numbers of the sample are whole
    partial: bool = False  # the sample is not all rows
    long: tuple[int, int] | None = None  # size in bytes and row of the first value that is too long
    texts: tuple[pa.Array, NDArray[np.int64]] | None = None  # distinct values of a text column's sample, and their rows
    sample: Sequence[pa.Array] = ()  # the sample of a text column
    markers: set[str] = field(default_factory=set)  # usual markers of missing values that stand there as values

    def widen(self, array: pa.Array, row: int) -> None:
        self.missing += n_missing(array)
        if types.is_dictionary(array.type) and is_text(array.type.value_type):
            self._look_at_texts(array, row)
        if is_number(array.type):
            low, high = pc.min_max(array).as_py().values()
            if low is not None and math.isfinite(low) and math.isfinite(high):
                self.minimum, self.maximum = min(self.minimum, float(low)), max(self.maximum, float(high))

    def first_of(self, texts: pa.Array) -> tuple[str, int]:
        """Return the first value of the sample that is one of some texts, and its row."""
        row = 0
        for array in self.sample:
            values = array.cast(pa.large_string())
            place = int(pc.index(pc.is_in(values, texts), True).as_py())
            if place >= 0:
                return values[place].as_py(), row + place
            row += len(array)
        return "", 0

    def _look_at_texts(self, array: pa.DictionaryArray, row: int) -> None:
        texts = array.dictionary.cast(pa.large_string())
        sizes = pc.binary_length(texts)
        if self.long is None and (pc.max(sizes).as_py() or 0) > _LONGEST:
            first = pc.index(pc.greater(sizes.take(array.indices), _LONGEST), True).as_py()
            self.long = sizes[array.indices[first].as_py()].as_py(), row + first
        if (pc.min(sizes).as_py() or 0) <= _LONGEST_MARKER:
            self.markers.update(texts.filter(pc.is_in(texts, _MARKERS)).to_pylist())


def infer_schema(
    batches: Iterable[pa.RecordBatch],
    arrow_schema: pa.Schema,
    *,
    target: str | None,
    weight: str | None = None,
    config: DataConfig,
    source: Source | str = "the table",
) -> Schema:
    """Return the schema of a table, from the types of its columns, its values and the settings.

    One pass over all rows for missing values and ranges; distinct values are counted on the first 100,000. `target`
    and `weight` name these two columns; `source` is what messages call the table, or the table, whose schema keeps how
    its text was read. A text column most of which is numbers or dates gives a DataWarning, as do whole numbers that
    repeat under the name of an id, and a column without values, which is ignored. Raises TargetError without the target
    column, ConfigError for a setting that does not fit its column, SchemaError for all else that is wrong.
    """
    names = list(arrow_schema.names)
    table = source if isinstance(source, Source) else None
    reading = Reading() if table is None or table.reading is None else table.reading
    called = source.name if isinstance(source, Source) else source
    _check_names(names, target=target, weight=weight, config=config, source=called)
    rows, surveys = _survey(batches, arrow_schema, reading)
    if rows == 0:
        raise SchemaError(f"There are no rows in {called}.")
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
            raise TargetError(f"The target column '{name}' has no values in {called}. Choose another target.")
        if survey.missing == rows and kind in INPUT_KINDS:
            _warn(f"Column '{name}' has no values in {called}: it is ignored.")
            kind, reason, settings = "ignored", "no values", {}
        if survey.long is not None and kind != "ignored":
            size, row = survey.long
            sentences.append(
                f"Column '{name}' has a value of {size:,} bytes in {called}, row {row:,}: at most {_LONGEST:,} are "
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
                kept=tuple(sorted(survey.markers)),
                ordered=kind == "categorical" and types.is_dictionary(survey.arrow_type) and survey.arrow_type.ordered,
                **_settings(name, kind, settings, survey, config),
            )
        )
        if kind == "categorical" and "kind" not in config.columns.get(name, {}) and survey.long is None:
            _warn_of_lookalike(name, survey, table)
        if kind == "numeric" and "kind" not in config.columns.get(name, {}):
            _warn_of_id(name, survey, called)
    if sentences:
        raise SchemaError(" ".join(sentences))
    if not any(column.kind in INPUT_KINDS for column in columns):
        raise SchemaError(f"No column of {called} is left to predict from: add columns, or ignore fewer.")
    return Schema(columns=tuple(_with_prefixes(columns)), reading=reading)


def _with_prefixes(columns: list[Column]) -> list[Column]:
    """Return the columns, dates with another prefix for the names of their fields where these are columns too."""
    taken = {column.name for column in columns}
    renamed = []
    for column in columns:
        while column.kind == "datetime" and taken & set(KINDS["datetime"].field_names(column)):
            column = column.model_copy(update={"prefix": f"{column.prefix or column.name} date"})
        taken.update(KINDS[column.kind].field_names(column) if column.kind in KINDS else ())
        renamed.append(column)
    return renamed


def _warn(sentence: str) -> None:
    warnings.warn(sentence, DataWarning, stacklevel=4)


def _warn_of_lookalike(name: str, survey: _Survey, table: Source | None) -> None:
    """Say so where most values of a text column are numbers or dates."""
    if survey.texts is None:
        return
    values, counts = survey.texts
    alike = lookalike(values, counts)
    if alike is None:
        return
    others = np.flatnonzero(~alike.alike)
    from_text = table is not None and table.is_text
    if len(others) == 0 and not from_text:
        return  # a frame's author may have made them text
    first, row = survey.first_of(values.take(pa.array(others)) if len(others) else values)
    where = f"row {row:,}" if table is None else table.place(row)
    share = f"{counts[alike.alike].sum():,} of {counts.sum():,} values are {alike.what}"
    if survey.partial:
        share += f" in the first {SAMPLE_ROWS:,} rows"
    if len(others):
        count = int(counts[others].sum())
        share += f", {count:,} {'is' if count == 1 else 'are'} not"
    advice = alike.advice([values[i].as_py() for i in others[:3].tolist()], from_text=from_text)
    _warn(
        f"Column '{name}': {share} (first: {first!r:.60}, {where}), so it is read as text, each value "
        f"a category of its own. {advice}"
    )


def _warn_of_id(name: str, survey: _Survey, called: str) -> None:
    """Say so where whole numbers that are read as numbers have the name of an id, and repeat as ids do."""
    distinct = survey.distinct or 0
    repeats = _FEW_VALUES < distinct <= survey.sampled / _ROWS_OF_AN_ID
    if not (survey.whole and repeats and _ID_NAME.search(name)):
        return
    declared = {name: {"kind": "categorical"}}
    _warn(
        f"Column '{name}' of {called} has the name of an id, and {distinct:,} whole numbers that repeat: it is read as "
        f"numbers, of which neighbours count as alike. If they are ids, declare it (columns={declared}; attfm train "
        f"--set columns.{name}.kind=categorical); if not, declare it numeric."
    )


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


def _survey(batches: Iterable[pa.RecordBatch], arrow_schema: pa.Schema, reading: Reading) -> tuple[int, list[_Survey]]:
    surveys = [_Survey(t) for t in arrow_schema.types]
    terms = [
        StoredTerms(name, stored_type(str(t)), reading, kept=tuple(set(NULL_VALUES) - set(reading.null_values) - {""}))
        for name, t in zip(arrow_schema.names, arrow_schema.types, strict=True)
    ]
    sample: list[list[pa.Array]] = [[] for _ in surveys]
    rows = 0
    for batch in batches:
        bad = BadValues()  # what can't be read is an error when it is encoded
        for i, survey in enumerate(surveys):
            array = terms[i].apply(batch.column(i), bad)
            survey.widen(array, rows)
            if rows < SAMPLE_ROWS and len(array):
                sample[i].append(array[: SAMPLE_ROWS - rows])
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
        numbers = np.asarray(unique.drop_null(), np.float64)
        survey.whole = bool((numbers == np.floor(numbers))[np.isfinite(numbers)].all())
        return
    bad = BadValues()  # what can't be read counts as missing here, and is an error when it is encoded
    counter = Counter()
    for array in arrays:
        codes, values = read_categories(array, column="", bad=bad)
        survey.sampled += int((codes >= 0).sum())
        counter.add(codes, values)
    vocabulary = counter.vocabulary(min_count=1)
    survey.distinct = vocabulary.size
    if is_text(t):
        survey.texts, survey.sample = (vocabulary.values, vocabulary.counts), arrays


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
        padded = survey.texts is not None and pc.any(pc.match_substring_regex(survey.texts[0], ZERO_PADDED)).as_py()
        of_digits = ", some of them digits after a zero" if padded else ""
        return "categorical", f"string, {count}" + of_digits + (", looks like an id" if like_id else "")
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
