"""The target: which task it makes, which classes it has, and its values as numbers."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from attfm.config import Reading, TaskName
from attfm.data.arrow_columns import n_missing, read_categories, read_column
from attfm.data.arrow_types import is_number, is_scalar, is_text, plain, value_type
from attfm.data.bad_values import BadValues
from attfm.data.codecs.categorical import Vocabulary
from attfm.data.codecs.codec import FIRST_VALUE, MISSING
from attfm.data.lookalikes import lookalike
from attfm.data.schema import damaged, stored_type
from attfm.data.stored_terms import StoredTerms
from attfm.data.texts import PLAIN
from attfm.errors import DataWarning, TargetError

MOST_CLASSES = 20  # integers with more distinct values are amounts, not classes
_SHOWN = 10  # classes listed in a message
_KIND = "its classes by --set task=multiclass"
_PYTHON_TYPES = {str: pa.large_string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
_TASKS = ("binary", "multiclass", "regression")
_SAVED = "saved target"

Column: TypeAlias = "pa.Array | pa.ChunkedArray"
Label = str | bool | int | float


@dataclass(frozen=True)
class Target:
    """The target column as the model sees it, its classes (None for regression) as numpy.unique sorts them.

    `arrow_type` names the type of its column in training, None in folders of older versions; `written` has the classes
    as they stood in a text table, where that is not as Python prints them.

    >>> target = Target.fit(pa.array(["no", "yes", "no"]), task="auto", name="churn")
    >>> target.task, target.classes, target.encode(pa.array(["yes", "no"])).tolist()
    ('binary', ('no', 'yes'), [1, 0])
    """

    name: str
    task: TaskName
    classes: tuple[Label, ...] | None
    arrow_type: str | None = None
    written: tuple[str, ...] | None = None

    @property
    def stored_type(self) -> pa.DataType:
        """The Arrow type of the labels in training, as which every later label is read."""
        if self.arrow_type is not None:
            return stored_type(self.arrow_type)
        return pa.float64() if self.classes is None else _PYTHON_TYPES[type(self.classes[0])]

    @cached_property
    def _codes(self) -> Vocabulary:
        values, stored = pa.array(self.classes), self.stored_type
        texts = values if is_text(stored) else StoredTerms(self.name, stored).apply(values, BadValues())
        _, texts = read_categories(texts, column=self.name, bad=BadValues())
        return Vocabulary(texts, np.zeros(len(texts), np.int64))

    def as_written(self, written: Mapping[str, str]) -> Self:
        """Return the target with its labels as they stand in a text table, given by canonical text."""
        if self.classes is None or not written:
            return self
        names = tuple(str(label) for label in self.classes)
        keys = self._codes.values.to_pylist()
        texts = tuple(written.get(key, name) for key, name in zip(keys, names, strict=True))
        plain = texts == names and type(self.classes[0]) in (int, str)  # which a CSV gets as they are
        return self if plain else replace(self, written=texts)

    @classmethod
    def fit(cls, column: Column, *, task: TaskName | Literal["auto"], name: str) -> Self:
        """Return the target of the training rows.

        Raises TargetError where there are none, where values are missing or infinite or all the same, and where their
        type or the number of classes is not what the task allows.
        """
        if len(column) == 0:
            raise TargetError(f"Target '{name}' has no rows.")
        _check_type(column, f"target '{name}'")
        _check_present(column, name)
        if task == "auto":
            _look_for_numbers(column, name)
        chosen = infer_task(column, f"target '{name}'") if task == "auto" else task
        if chosen == "regression":
            numbers, labels = _numbers(column, name), None
            is_constant = bool((numbers == numbers[0]).all())
        else:
            labels = _labels(_categories(column, f"target '{name}'")[1], value_type(column.type))
            is_constant = len(labels) == 1
        if is_constant:
            raise TargetError(
                f"Target '{name}' has one value only: '{column[0].as_py()}' in all {len(column):,} rows. "
                "Nothing can be learned from it: choose another target, or add rows with other values."
            )
        if labels is not None and chosen == "binary" and len(labels) != 2:
            raise TargetError(
                f"Target '{name}' has {len(labels):,} classes ({_listed(labels)}), but the task is binary. "
                "Set the task to multiclass, or join classes."
            )
        return cls(name, chosen, labels, str(stored_type(str(value_type(column.type)))))

    def encode(self, column: Column, reading: Reading = PLAIN) -> NDArray[Any]:
        """Return the values as numbers: class codes 0 to classes - 1, int64 (rows,), or float64 for regression.

        The labels 1, 1.0 and "1" are the same class; text is read as `reading` says. Raises TargetError where a value
        is missing, is not one of the classes, or is not a finite number (regression).
        """
        _check_type(column, f"target '{self.name}'")
        array, terms = _whole(column), StoredTerms(self.name, self.stored_type, reading)
        bad = BadValues()
        if self.classes is None:
            values = terms.apply(array, bad)
            _check_present(values, self.name)
            return _numbers(values, self.name)
        numbers, found = self._found(array, terms)
        features = np.append(found, MISSING)[numbers]  # a missing label has the code -1, the last one
        _check_present(pa.array(np.zeros(len(features)), mask=features == MISSING), self.name)
        codes: NDArray[np.int64] = features.astype(np.int64) - FIRST_VALUE
        unseen = codes < 0
        if unseen.any():
            row = int(unseen.argmax())
            raise TargetError(
                f"Target '{self.name}': {int(unseen.sum()):,} of {len(codes):,} labels were not seen in training "
                f"(first: {column[row].as_py()!r}, row {row:,}). Its classes are {_listed(self.classes)}."
            )
        return codes

    def _found(self, array: pa.Array, terms: StoredTerms) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """Return codes (-1 where null) into distinct labels, and the feature number of each in the classes."""
        what = f"target '{self.name}'"
        if not is_text(value_type(array.type)):
            numbers, texts = _categories(terms.apply(array, BadValues()), what)
            return numbers, self._codes.find(texts, alike=is_text(terms.stored))
        numbers, texts = _categories(array, what)
        exact = self._codes.find(texts)  # a label with spaces around it is another one, if there is such a class
        _, read = _categories(terms.apply(texts, BadValues()).dictionary_decode(), what)
        return numbers, np.where(exact >= FIRST_VALUE, exact, self._codes.find(read))

    def to_json(self) -> str:
        """Return the target as JSON text; the classes keep their type."""
        optional = {"arrow_type": self.arrow_type, "written": self.written}
        known = {key: value for key, value in optional.items() if value is not None}
        return json.dumps({"name": self.name, "task": self.task, "classes": self.classes, **known})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the target that `to_json` wrote; raise RunFolderError where it is something else."""
        try:
            saved = json.loads(text)
            name, task, classes = saved["name"], saved["task"], saved["classes"]
            arrow_type, written = saved.get("arrow_type"), saved.get("written")
        except (ValueError, KeyError, TypeError):
            raise damaged("it is not the JSON that was written", part=_SAVED) from None
        if not isinstance(name, str) or task not in _TASKS or not isinstance(arrow_type, str | None):
            raise damaged(f"its name is {name!r} and its task {task!r}", part=_SAVED)
        if task == "regression":
            if classes is not None:
                raise damaged("a regression target has no classes", part=_SAVED)
            return cls(name, task, None, arrow_type)
        wrong = not isinstance(classes, list) or len(classes) < 2 or (task == "binary" and len(classes) != 2)
        kinds = set() if wrong else {type(label) for label in classes}
        if len(kinds) != 1 or kinds.pop() not in _PYTHON_TYPES or sorted(set(classes)) != classes:
            raise damaged(f"its classes are {classes!r}", part=_SAVED)
        if written is not None and [type(text) for text in written] != [str] * len(classes):
            raise damaged(f"its classes are written {written!r}", part=_SAVED)
        return cls(name, task, tuple(classes), arrow_type, None if written is None else tuple(written))


def _check_type(column: Column, what: str) -> None:
    t = value_type(column.type)
    if not is_scalar(t) or types.is_temporal(t):
        raise TargetError(f"The type of {what} is {column.type}; a target is numbers, strings or booleans. Convert it.")


def infer_task(column: Column, what: str = "the target") -> TaskName:
    """Return the task that a target column makes; raise TargetError where its type can't be a target.

    Strings, booleans, categories and integers of at most 20 distinct values are classes, and so are any two
    distinct values; all else is regression.
    """
    _check_type(column, what)
    t = value_type(column.type)
    is_plain_number = is_number(t) and t == column.type
    if is_plain_number and len(column.unique()) > MOST_CLASSES + 2:  # two more: null and NaN
        return "regression"
    distinct = len(_categories(column, what)[1].unique().drop_null())
    if distinct == 2:
        return "binary"
    if is_text(t) or types.is_boolean(t) or types.is_dictionary(column.type):
        return "multiclass"
    return "multiclass" if types.is_integer(t) and distinct <= MOST_CLASSES else "regression"


def _categories(column: Column, what: str) -> tuple[NDArray[Any], pa.Array]:
    """Return the labels of a column as categories."""
    bad = BadValues()
    categories = read_categories(_whole(column), column=what, bad=bad)
    bad.raise_if_any(len(column), TargetError)
    return categories


def _whole(column: Column) -> pa.Array:
    """Return a column as one array."""
    if not isinstance(column, pa.ChunkedArray):
        return plain(column)
    if types.is_string(column.type):
        column = column.cast(pa.large_string())  # one array of plain strings holds at most 2 GiB
    return plain(column.combine_chunks())


def _look_for_numbers(column: Column, name: str) -> None:
    """Say so where most labels are numbers, but some are not: raise TargetError where they would be many classes."""
    if not is_text(value_type(column.type)):
        return
    codes, values = _categories(column, f"target '{name}'")
    alike = lookalike(values, np.bincount(codes, minlength=len(values)))
    if alike is None or (alike.alike.all() and len(values) <= MOST_CLASSES):
        return
    others = np.flatnonzero(~alike.alike)
    row = int((~alike.alike[codes]).argmax()) if len(others) else 0
    advice = alike.advice(values.take(pa.array(others[:3])).to_pylist(), from_text=True, kind=_KIND)
    sentence = (
        f"Target '{name}': {alike.alike[codes].sum():,} of {len(codes):,} values are {alike.what}, but it is text "
        f"(first: {values[int(codes[row])].as_py()!r:.60}, row {row:,}) and would make "
        f"{len(values):,} classes. {advice}"
    )
    if len(values) > MOST_CLASSES:
        raise TargetError(sentence)
    warnings.warn(sentence, DataWarning, stacklevel=3)


def _labels(values: pa.Array, t: pa.DataType) -> tuple[Label, ...]:
    """Return the distinct labels in numpy.unique's order, in the Python type of the column."""
    texts = values.unique().drop_null().to_pylist()
    if types.is_boolean(t):
        return tuple(sorted(text == "true" for text in texts))
    python_type = int if types.is_integer(t) else float if is_number(t) else str
    return tuple(sorted(python_type(text) for text in texts))


def _numbers(column: Column, name: str) -> NDArray[np.float64]:
    before = "The target of a regression must be finite numbers. "
    return read_column(column, name=name, error=TargetError, before=before)


def _check_present(column: Column, name: str) -> None:
    """Raise TargetError where a value of the target is missing."""
    array = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    count = sum(n_missing(chunk) for chunk in array.chunks)
    if count:
        floating = types.is_floating(array.type)
        missing = pc.is_null(array, nan_is_null=True) if floating else array.is_null()
        raise missing_labels(name, count, len(array), first=pc.index(missing, True).as_py())


def missing_labels(name: str, count: int, rows: int, *, first: int) -> TargetError:
    """Return the error of a target that so many of its rows lack; first : the number of the first of them."""
    return TargetError(
        f"Target '{name}' is missing in {count:,} of {rows:,} rows (first: row {first:,}). Drop those rows, or fill "
        "them in."
    )


def _listed(labels: tuple[Label, ...]) -> str:
    shown = ", ".join(repr(label) for label in labels[:_SHOWN])
    return shown + (f" and {len(labels) - _SHOWN:,} more" if len(labels) > _SHOWN else "")
