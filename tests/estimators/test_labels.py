"""Labels and weights of rows, in whatever holds them."""

import datetime
import decimal
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.exceptions import DataConversionWarning

from attfm import AFMClassifier, AFMRegressor, ConfigError, TargetError
from attfm.estimators.labels import label_column, read_labels, read_weights

X = np.random.default_rng(0).normal(size=(60, 2))
CODES = (X[:, 0] > 0).astype(int)
WORDS = np.where(CODES == 1, "yes", "no")
NAN = float("nan")
NUMBERS: dict[str, Callable[[list[int]], Any]] = {
    "list": list,
    "tuple": tuple,
    "numpy scalars": lambda y: [np.int32(label) for label in y],
    "object array": lambda y: np.array(y, dtype=object),
    "big-endian": lambda y: np.array(y, dtype=">i4"),
    "big-endian float": lambda y: np.array(y, dtype=">f8"),
    "longdouble": lambda y: np.array(y, dtype=np.longdouble),
    "float16": lambda y: np.array(y, dtype=np.float16),
    "masked, none missing": np.ma.array,
    "decimals": lambda y: [decimal.Decimal(label) for label in y],
    "pandas": pd.Series,
    "pandas frame": lambda y: pd.DataFrame({"bought": y}),
    "pandas nullable": lambda y: pd.Series(y, dtype="Int64"),
    "pandas Arrow": lambda y: pd.Series(y, dtype="int64[pyarrow]"),
    "pandas categories": lambda y: pd.Series(y, dtype="category"),
    "pandas sparse": lambda y: pd.Series(pd.arrays.SparseArray(y)),
    "polars": pl.Series,
    "polars frame": lambda y: pl.DataFrame({"bought": y}),
    "Arrow": pa.array,
    "Arrow chunks": lambda y: pa.chunked_array([y[:7], y[7:]]),
    "Arrow dictionary": lambda y: pa.array(y).dictionary_encode(),
    "Arrow table": lambda y: pa.table({"bought": y}),
    "Arrow batch": lambda y: pa.record_batch({"bought": y}),
}
TEXTS: dict[str, Callable[[list[str]], Any]] = {
    "list": list,
    "big-endian": lambda y: np.array(y, dtype=">U3"),
    "objects": lambda y: np.array(y, dtype=object),
    "numpy strings": lambda y: np.array(y, dtype=np.dtypes.StringDType()),
    "pandas": pd.Series,
    "pandas string": lambda y: pd.Series(y, dtype="string"),
    "pandas Arrow": lambda y: pd.Series(y, dtype=pd.ArrowDtype(pa.large_string())),
    "pandas categories": lambda y: pd.Series(y, dtype="category"),
    "polars": pl.Series,
    "polars categories": lambda y: pl.Series(y, dtype=pl.Categorical),
    "Arrow": pa.array,
    "Arrow view": lambda y: pa.array(y, pa.string_view()),
    "Arrow dictionary": lambda y: pa.array(y).dictionary_encode(),
}


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return AFMClassifier(epochs=2, n_models=1).fit(X, CODES).decision_function(X)


@pytest.fixture(scope="module")
def regression() -> np.ndarray:
    return AFMRegressor(epochs=1, n_models=1).fit(X, CODES).predict(X)


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_give_the_same_model_in_whatever_holds_them(
    kind: str, expected: np.ndarray, regression: np.ndarray
) -> None:
    y = NUMBERS[kind](CODES.tolist())
    model = AFMClassifier(epochs=2, n_models=1).fit(X, y)
    np.testing.assert_array_equal(model.decision_function(X), expected)
    assert model.classes_.tolist() == [0, 1]
    assert model.classes_.dtype.isnative
    assert model.model_.target.name == ("bought" if kind.endswith(("frame", "table", "batch")) else "target")
    np.testing.assert_array_equal(AFMRegressor(epochs=1, n_models=1).fit(X, y).predict(X), regression)


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_give_the_same_model_in_whatever_holds_them(kind: str, expected: np.ndarray) -> None:
    model = AFMClassifier(epochs=2, n_models=1).fit(X, TEXTS[kind](WORDS.tolist()))
    np.testing.assert_array_equal(model.decision_function(X), expected)
    assert model.classes_.tolist() == ["no", "yes"]


@pytest.mark.parametrize(
    "hold",
    [lambda y: y, lambda y: np.array(y, dtype=object), lambda y: pd.Series(y, dtype="boolean"), pl.Series, pa.array],
)
def test_booleans_stay_booleans(hold: Callable[[list[bool]], Any]) -> None:
    labels = read_labels(hold([True, False, True]))
    assert labels.dtype == bool
    assert labels.tolist() == [True, False, True]


MISSING = {
    "None among words": ["a", None, "b", None],
    "NaN among words": ["a", NAN, "b", NAN],
    "NA among words": ["a", pd.NA, "b", pd.NA],
    "None among numbers": [1, None, 2, None],
    "NaN among numbers": np.array([1.0, NAN, 2.0, NAN]),
    "NaN of a longdouble": np.array([1.0, NAN, 2.0, NAN], np.longdouble),
    "objects": np.array(["a", NAN, 3, None], dtype=object),
    "masked": np.ma.array([1, 2, 3, 4], mask=[0, 1, 0, 1]),
    "nullable": pd.Series([1, None, 2, None], dtype="Int64"),
    "nullable booleans": pd.Series([True, None, False, None], dtype="boolean"),
    "strings": pd.Series(["a", None, "b", None], dtype="string"),
    "categories": pd.Series(["a", None, "b", None], dtype="category"),
    "polars numbers": pl.Series([1, None, 2, None]),
    "polars words": pl.Series(["a", None, "b", None]),
    "Arrow": pa.array([1, None, 2, None]),
    "Arrow dictionary": pa.array(["a", None, "b", None]).dictionary_encode(),
    "a frame": pd.DataFrame({"y": ["a", None, "b", None]}),
}


@pytest.mark.parametrize("kind", MISSING)
def test_a_missing_label_is_told_with_its_row(kind: str) -> None:
    with pytest.raises(TargetError, match=r"^y: 2 of 4 labels are missing \(first: row 1\)\. Drop those rows"):
        AFMClassifier().fit(X[:4], MISSING[kind])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([("a", 1), ("b", 2)], r"y holds no single labels: in row 0 stands a tuple, \('a', 1\)"),
        ([("a", "b"), ("b", "c")], r"in row 0 stands a tuple, \('a', 'b'\)\. Give one number, string or boolean"),
        ([[1], [1, 2]], r"in row 1 stands a list, \[1, 2\]"),
        (pd.Series([[1, 2], [3, 4]]), r"in row 0 stands a list, \[1, 2\]"),
        (pl.Series([[1, 2], [3, 4]]), r"in row 0 stands a ndarray"),
        (pa.array([[1, 2], [3, 4]]), r"in row 0 stands a ndarray"),
        ([{"a": 1}, {"a": 2}], r"y holds values of the type dict \(\{'a': 1\}, row 0\)"),
        (
            np.array(["a", 1, 2, "b"], dtype=object),
            r"of the types int \(1, row 1\), str \('a', row 0\): labels are all",
        ),
        ([2**70, 1], r"of the type int \(1180591620717411303424, row 0\).* numbers of at most 64 bits"),
        (["a", "\ud800b"], r"y holds a string that is no valid text \(first: '\\ud800b', row 1\)"),
        (np.array(["a", "\ud800"]), r"no valid text \(first: '\\ud800', row 1\)"),
        (np.array(["a", "\ud800"], dtype=object), r"no valid text \(first: '\\ud800', row 1\)"),
        (pd.Series(["a", "\ud800"], dtype=object), r"no valid text \(first: '\\ud800', row 1\)"),
        ([b"a", b"b"], r"y holds bytes \(first: b'a', row 0\)\. Decode them"),
        ([datetime.date(2024, 1, 1)] * 2, r"y holds values of type date32\[day\]; labels are numbers"),
        (np.array(["2024-01-01", "NaT"], "M8[D]"), r"y holds values of type datetime64\[D\]"),
        (np.array([1.0, np.inf]), r"y: 1 of 2 labels are infinite \(first: inf, row 1\)"),
        (pd.DataFrame({"a": [1, 2], "b": [1, 2]}), r"y is a DataFrame of 2 columns: give the one that is the target"),
        (pa.table({"a": [1, 2], "b": [1, 2]}), r"y is a Table of 2 columns"),
    ],
)
def test_what_is_no_label_is_told(y: Any, message: str) -> None:
    for kind in (AFMClassifier, AFMRegressor):
        with pytest.raises(TargetError, match=message):
            kind().fit(X[:2] if len(y) == 2 else X[:4], y)


def test_a_column_vector_is_taken_as_scikit_learn_takes_it() -> None:
    for y in (CODES[:, None], CODES[:, None].tolist()):
        with pytest.warns(DataConversionWarning, match="column-vector y was passed"):
            np.testing.assert_array_equal(read_labels(y), CODES)


def test_words_are_no_numbers_to_a_regression() -> None:
    y = ["1.5", "2", "three", "4"] * 15
    with pytest.raises(TargetError, match=r"must be finite numbers.*15 of 60 .*\(first: 'three', row 2\)"):
        AFMRegressor().fit(X, y)


def test_text_of_other_alphabets_is_text() -> None:
    assert label_column(read_labels(["naïve", "日本", "😀"])).to_pylist() == ["naïve", "日本", "😀"]


@pytest.mark.parametrize(
    "weights",
    [
        lambda w: w,
        np.array,
        lambda w: np.array(w, dtype=object),
        lambda w: np.array(w, dtype=">f4"),
        pd.Series,
        lambda w: pd.Series(w, dtype="Float64"),
        pl.Series,
        pa.array,
        lambda w: [decimal.Decimal(weight) for weight in w],
    ],
)
def test_weights_are_the_same_in_whatever_holds_them(weights: Callable[[list[float]], Any]) -> None:
    given = (1.0 + np.arange(60) % 3).tolist()
    model = AFMClassifier(epochs=1, n_models=1).fit(X, CODES, sample_weight=weights(given))
    expected = AFMClassifier(epochs=1, n_models=1).fit(X, CODES, sample_weight=np.array(given))
    np.testing.assert_array_equal(model.decision_function(X), expected.decision_function(X))
    plain = AFMClassifier(epochs=1, n_models=1).fit(X, CODES)
    assert (model.decision_function(X) != plain.decision_function(X)).any()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (["1"] * 59 + ["heavy"], r"sample_weight: '1' in row 0 is no number\. Give weights of at least 0"),
        (pd.Series([1.0] * 7 + ["heavy"] * 53), r"sample_weight: 'heavy' in row 7 is no number"),
        ([1.0, None] * 30, r"sample_weight: None in row 1 is no number"),
        (np.array(["2024-01-01"] * 60, "M8[D]"), r"sample_weight: datetime\.date.* in row 0 is no number"),
        ([[1], [1, 2]] * 30, r"sample_weight is not one column of numbers"),
    ],
)
def test_what_is_no_weight_is_told(weights: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AFMClassifier().fit(X, CODES, sample_weight=weights)


def test_a_missing_weight_is_told_with_its_row() -> None:
    assert read_weights(None) is None
    for weights in (pd.Series([1, 2, None] * 20, dtype="Int64"), pl.Series([1.0, 2.0, None] * 20)):
        with pytest.raises(TargetError, match=r"sample_weight: 20 of 60 .* not finite \(first: nan, row 2\)"):
            AFMClassifier().fit(X, CODES, sample_weight=weights)
