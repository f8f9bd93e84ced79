"""What X may be: tables with column names, and arrays and lists of rows without."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data

from attfm.data.schema import Schema
from attfm.data.sources.frame_columns import FrameColumns
from attfm.data.sources.source import Source, open_source
from attfm.errors import ConfigError, DataWarning, SchemaError, absent, listed
from attfm.estimators.labels import label_column, read_labels, read_weights
from attfm.model.bundle import Model
from attfm.train.prepare import LabelledTable


class Inputs:
    """The part of an estimator that reads X and y."""

    model_: Model
    n_features_in_: int
    feature_names_in_: NDArray[np.object_]

    @property
    def _fitted(self) -> Model:
        """The fitted model; scikit-learn's error where there is none."""
        check_is_fitted(self, "model_")
        return self.model_

    def _training_source(self, X: object) -> Source:
        """Return X as a source, and remember the names and the number of its columns."""
        if not has_names(X) and not is_list_of_rows(X):
            return open_source(validate_data(self, _known(X), dtype=None, ensure_all_finite="allow-nan"))
        source = open_source(X)
        self.n_features_in_ = len(source.schema.names)
        if has_names(X):
            self.feature_names_in_ = np.asarray(source.schema.names, dtype=object)
        elif hasattr(self, "feature_names_in_"):  # of an earlier fit
            del self.feature_names_in_
        return source

    def _source(self, X: object) -> Source:
        """Return X as a source with the columns of the fit."""
        return self._aligned(X, self.model_.schema)

    def _aligned(self, X: object, schema: Schema, called: str = "X") -> Source:
        """Return a table with the columns of a schema; those without names, or of a fit without, are taken in order.

        Raise SchemaError where columns are absent, or are not as many as those of the fit.
        """
        names = names_of_fit(schema)
        was_named = hasattr(self, "feature_names_in_")
        if not has_names(X):
            if was_named:
                self._warn(f"{called} does not have valid feature names, but", "was fitted with feature names")
            rows: Any = X if is_list_of_rows(X) else checked_array(X)
            self._check_width(len(rows[0]), len(names), called)
            return open_source(rows, names=names)
        source = open_source(X)
        missing = absent([column.name for column in schema.inputs], source.schema.names)
        if missing and not was_named:
            self._check_width(len(source.schema.names), len(names), called)
            self._warn(f"{called} has feature names, but", "was fitted without feature names")
            return open_source(pa.Table.from_batches(source.batches()).rename_columns(names))
        if missing:
            raise SchemaError(
                f"{called} lacks {len(missing)} of the {len(schema.inputs)} columns of the fit: {', '.join(missing)}. "
                "Add them, or fit again without them."
            )
        seen = {column.name for column in schema.columns}  # with ignored ones, and a file's own target
        self._warn_of_unseen([name for name in source.schema.names if name not in seen], called, stacklevel=6)
        return source

    def _warn_of_unseen(self, names: Sequence[str], called: str, *, stacklevel: int) -> None:
        if names:
            warnings.warn(
                f"{called} has {len(names)} columns that the fit did not see, ignored: {', '.join(map(repr, names))}.",
                stacklevel=stacklevel,
            )

    def _warn(self, what: str, of_fit: str) -> None:
        warnings.warn(
            f"{what} {type(self).__name__} {of_fit}: its columns are taken in the order of the fit.", stacklevel=6
        )

    def _check_width(self, columns: int, expected: int, called: str) -> None:
        if columns != expected:
            raise SchemaError(
                f"{called} has {columns} features, but {type(self).__name__} is expecting {expected} features as input."
            )

    def _labelled(self, table: Any, argument: str, schema: Schema) -> LabelledTable:
        """Return what an argument of the form (X, y) or (X, y, sample_weight) holds; a list of one such is taken."""
        if isinstance(table, list) and len(table) == 1:
            table = table[0]
        if isinstance(table, tuple | list) and len(table) > 1 and all(map(_is_labelled, table)):
            raise ConfigError(f"{argument} holds {len(table)} tables, and training is stopped by one: give one (X, y).")
        if not isinstance(table, tuple | list) or len(table) not in (2, 3):
            raise ConfigError(f"{argument} is not (X, y) or (X, y, sample_weight): give one tuple.")
        X, y, weight = (*table, None)[:3]
        source = self._aligned(X, schema, f"The X of {argument}")
        labels = self._labels(y, source, f"The y of {argument}")
        return LabelledTable(source, label_column(labels, f"The y of {argument}"), read_weights(weight))

    def _labels(self, y: ArrayLike | None, source: Source, called: str = "y") -> NDArray[Any]:
        """Return the labels of a table's rows, (rows,)."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        labels = self._checked_labels(read_labels(y, called))
        if source.num_rows is not None and source.num_rows != len(labels):
            X = "X" if called == "y" else called.replace(" y ", " X ")
            raise ValueError(f"{X} has {source.num_rows} rows and y has {len(labels)}: give one label for each row.")
        return labels

    def _checked_labels(self, labels: NDArray[Any]) -> NDArray[Any]:
        return labels

    def _logits(self, X: object) -> NDArray[np.float64]:
        model = self._fitted
        logits = self._frame_logits(X, model)
        return model.logits(self._source(X)) if logits is None else logits

    def _frame_logits(self, X: object, model: Model) -> NDArray[np.float64] | None:
        """Return the logits of a frame or array that can be read where it stands; None where it has to be opened.

        What is wrong with X is said then.
        """
        was_named = hasattr(self, "feature_names_in_")
        if was_named != has_names(X) or model.frames is None or is_list_of_rows(X):
            return None
        frame = FrameColumns.of(X) if was_named else FrameColumns.of(checked_array(X), names_of_fit(model.schema))
        logits = None if frame is None else model.frame_logits(frame)
        if frame is not None and logits is not None:
            self._warn_of_unseen(model.frames.places_of(frame.names).unseen, "X", stacklevel=5)
        return logits


def names_of_fit(schema: Schema) -> list[str]:
    """Return the names of the columns that X had in the fit, with those that were ignored."""
    return [column.name for column in schema.columns if column.kind not in ("target", "weight")]


def has_names(X: object) -> bool:
    """Tell a table with column names (a frame, a dict of columns, dicts, records) from an array or a list of rows."""
    if isinstance(X, np.ndarray):
        return X.dtype.names is not None
    if isinstance(X, list | tuple):
        return len(X) > 0 and isinstance(X[0], Mapping)
    is_frame = hasattr(X, "__arrow_c_stream__") or hasattr(X, "__dataframe__") or type(X).__name__ == "LazyFrame"
    return is_frame or isinstance(X, Mapping | pa.Table | pa.RecordBatch)


def is_list_of_rows(X: object) -> bool:
    """Tell a list of rows, whose columns may differ in type, from an array and from a list of numbers."""
    if not isinstance(X, list | tuple) or not X:
        return False
    row = X[0]
    return row.ndim == 1 if isinstance(row, np.ndarray) else isinstance(row, Sequence) and not isinstance(row, str)


def checked_array(X: object) -> NDArray[Any]:
    """Return an array or a list as an array with two axes, or raise what scikit-learn raises."""
    array: NDArray[Any] = check_array(_known(X), dtype=None, ensure_all_finite="allow-nan")
    return array


def _known(X: object) -> object:
    """Return an array of numpy's strings of any length as objects, which scikit-learn knows; all else as it is."""
    return X.astype(object) if isinstance(X, np.ndarray) and X.dtype.kind == "T" else X


def warn_of_numbers_as_text(X: object, schema: Schema) -> None:
    """Warn where a whole column of an array of strings is numbers, which became categories without being told to."""
    if not isinstance(X, np.ndarray) or X.dtype.kind not in "UST" or X.ndim != 2:
        return
    numbers = [
        column.name
        for column, cells in zip(schema.columns, X.T, strict=True)
        if column.kind == "categorical" and not column.reason.startswith("declared") and _is_all_numbers(cells)
    ]
    if numbers:
        warnings.warn(
            f"X is an array of strings, so that the numbers in {listed(numbers)} are taken as categories: "
            "pass a list of rows or a DataFrame, whose columns keep their types.",
            DataWarning,
            stacklevel=5,
        )


def _is_all_numbers(column: NDArray[Any]) -> bool:
    try:
        column.astype(np.float64)
    except ValueError:
        return False
    return True


def _is_labelled(table: object) -> bool:
    """Tell (X, y) from X and from y."""
    if not isinstance(table, tuple | list) or len(table) not in (2, 3):
        return False
    return has_names(table[0]) or is_list_of_rows(table[0]) or getattr(table[0], "ndim", 0) == 2
