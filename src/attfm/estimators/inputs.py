"""What X and y may be: tables with column names, arrays without, labels."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.validation import check_is_fitted, validate_data

from attfm.data.sources.source import Source, open_source
from attfm.errors import ConfigError, SchemaError, absent
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
        if not is_frame(X):
            return open_source(validate_data(self, X, dtype=None, ensure_all_finite="allow-nan"))
        source = open_source(X)
        self.n_features_in_ = len(source.schema.names)
        self.feature_names_in_ = np.asarray(source.schema.names, dtype=object)
        return source

    def _source(self, X: object) -> Source:
        """Return X as a source with the columns of the fit."""
        names = [column.name for column in self.model_.schema.inputs]
        if not is_frame(X):
            if hasattr(self, "feature_names_in_"):
                warnings.warn(
                    f"X does not have valid feature names, but {type(self).__name__} was fitted with feature names: "
                    "its columns are taken in the order of the fit.",
                    stacklevel=4,
                )
            array = checked_array(X)
            if array.shape[1] != len(names):
                raise SchemaError(
                    f"X has {array.shape[1]} features, but {type(self).__name__} is expecting {len(names)} features "
                    "as input."
                )
            return open_source(array, names=names)
        source = open_source(X)
        missing = absent(names, source.schema.names)
        seen = {column.name for column in self.model_.schema.columns}  # with ignored ones, and a file's own target
        extra = [name for name in source.schema.names if name not in seen]
        if missing:
            raise SchemaError(
                f"X lacks {len(missing)} of the {len(names)} columns of the fit: {', '.join(missing)}. "
                "Add them, or fit again without them."
            )
        if extra:
            warnings.warn(
                f"X has {len(extra)} columns that the fit did not see, ignored: {', '.join(map(repr, extra))}.",
                stacklevel=4,
            )
        return source

    def _labelled(self, table: Any, argument: str) -> LabelledTable:
        """Return what an argument of the form (X, y) or (X, y, sample_weight) holds."""
        if not isinstance(table, tuple | list) or len(table) not in (2, 3):
            raise ConfigError(f"{argument} is not (X, y) or (X, y, sample_weight): give one tuple.")
        X, y, weight = (*table, None)[:3]
        source = open_source(X if is_frame(X) else checked_array(X))
        return LabelledTable(source, pa.chunked_array([pa.array(self._labels(y, source))]), weights(weight))

    def _labels(self, y: ArrayLike, source: Source) -> NDArray[Any]:
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        labels = self._checked_labels(
            check_array(column_or_1d(y, warn=True), ensure_2d=False, dtype=None, input_name="y")
        )
        if source.num_rows is not None and source.num_rows != len(labels):
            raise ValueError(f"X has {source.num_rows} rows and y has {len(labels)}: give one label for each row.")
        return labels

    def _checked_labels(self, labels: NDArray[Any]) -> NDArray[Any]:
        return labels

    def _logits(self, X: object) -> NDArray[np.float64]:
        return self._fitted.logits(self._source(X))


def checked_array(X: object) -> NDArray[Any]:
    """Return an array or a list as an array with two axes, or raise what scikit-learn raises."""
    array: NDArray[Any] = check_array(X, dtype=None, ensure_all_finite="allow-nan")
    return array


def is_frame(X: object) -> bool:
    """Tell a table with column names (a record array, a dict or a list of dicts too) from an array or a list."""
    if isinstance(X, np.ndarray):
        return X.dtype.names is not None
    if isinstance(X, list | tuple):
        return bool(X) and isinstance(X[0], Mapping)
    if isinstance(X, Mapping) or type(X).__name__ == "LazyFrame":  # whose sentence open_source has
        return True
    return hasattr(X, "__arrow_c_stream__") or hasattr(X, "__dataframe__") or isinstance(X, pa.Table | pa.RecordBatch)


def weights(sample_weight: ArrayLike | None) -> NDArray[np.float64] | None:
    """Return weights as an array, None for none."""
    return None if sample_weight is None else np.asarray(sample_weight, np.float64)
