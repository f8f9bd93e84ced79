"""What X and eval_set may be: rows, dicts, records and arrays as well as frames, with names and without."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from attfm import AFMClassifier, ConfigError, DataWarning, SchemaError, SourceError, TargetError, load

ROWS = 60
NAMES = ["age", "job"]
AGES = [None if i % 7 == 3 else 20 + i for i in range(ROWS)]
JOBS = [None if i % 11 == 5 else ["clerk", "cook"][i % 2] for i in range(ROWS)]
LABELS = np.array([i % 3 == 0 for i in range(ROWS)])
FRAME = pd.DataFrame({"age": pd.array(AGES, dtype="Int64"), "job": JOBS})
CELLS = list(zip(AGES, JOBS, strict=True))
WITHOUT_NAMES: dict[str, Any] = {
    "rows": [list(row) for row in CELLS],
    "rows in a tuple": tuple(list(row) for row in CELLS),
    "tuples": CELLS,
    "NaN for None": [tuple(float("nan") if cell is None else cell for cell in row) for row in CELLS],
    "rows of objects": [np.array(row, dtype=object) for row in CELLS],
    "an array of objects": np.array(CELLS, dtype=object),
}
WITH_NAMES: dict[str, Any] = {
    "a dict of columns": {"age": AGES, "job": JOBS},
    "a list of dicts": [dict(zip(NAMES, row, strict=True)) for row in CELLS],
    "dicts without the missing": [
        {name: cell for name, cell in zip(NAMES, row, strict=True) if cell is not None} for row in CELLS
    ],
    "records": np.rec.fromarrays([np.array(AGES, dtype=float), np.array(JOBS, dtype=object)], names=NAMES),
    "polars": pl.DataFrame({"age": AGES, "job": JOBS}),
    "Arrow": pa.table({"age": AGES, "job": JOBS}),
}
NO_NAMES_NOW = "does not have valid feature names, but AFMClassifier was fitted with feature names"
NAMES_NOW = "has feature names, but AFMClassifier was fitted without feature names"


def fitted(X: Any, **given: Any) -> AFMClassifier:
    return AFMClassifier(epochs=2, n_models=1).fit(X, LABELS, **given)


@pytest.fixture(scope="module")
def expected() -> AFMClassifier:
    return fitted(FRAME)


def kinds(model: AFMClassifier) -> list[str]:
    return [column.kind for column in model.model_.schema.columns]


@pytest.mark.parametrize("kind", WITHOUT_NAMES)
def test_each_column_of_a_list_of_rows_has_its_type(kind: str, expected: AFMClassifier, tmp_path: Path) -> None:
    X = WITHOUT_NAMES[kind]
    model = fitted(X)
    assert kinds(model) == ["numeric", "categorical"]
    assert [column.name for column in model.model_.schema.columns] == ["x0", "x1"]
    assert [round(column.missing * ROWS) for column in model.model_.schema.columns] == [9, 5]
    assert model.n_features_in_ == 2
    assert not hasattr(model, "feature_names_in_")
    logits = expected.decision_function(FRAME)
    np.testing.assert_array_equal(model.decision_function(X), logits)
    np.testing.assert_array_equal(model.explain(X).main, expected.explain(FRAME).main)
    np.testing.assert_array_equal(
        fitted(X, eval_set=(X, LABELS)).predict(X), fitted(X, eval_set=[X, LABELS]).predict(X)
    )
    again = load(model.save(tmp_path / "run"))
    np.testing.assert_array_equal(again.decision_function(X), logits)


@pytest.mark.parametrize("kind", WITH_NAMES)
def test_whatever_names_its_columns_is_a_table(kind: str, expected: AFMClassifier) -> None:
    X = WITH_NAMES[kind]
    model = fitted(X)
    assert kinds(model) == ["numeric", "categorical"]
    assert (model.n_features_in_, model.feature_names_in_.tolist()) == (2, NAMES)
    np.testing.assert_array_equal(model.decision_function(X), expected.decision_function(FRAME))
    np.testing.assert_array_equal(expected.decision_function(X), expected.decision_function(FRAME))
    np.testing.assert_array_equal(expected.explain(X).main, expected.explain(FRAME).main)
    assert fitted(FRAME, eval_set=(X, LABELS)).model_.facts.validation_rows == ROWS


def test_an_unseen_dict_of_one_row_is_predicted(expected: AFMClassifier) -> None:
    assert expected.predict([{"job": "cook", "age": 30}]).shape == (1,)
    with pytest.raises(SchemaError, match=r"X lacks 1 of the 2 columns of the fit: 'age'"):
        expected.predict({"job": ["cook"]})


def test_a_refit_forgets_the_names_of_the_fit_before() -> None:
    model = fitted(FRAME)
    model.fit(WITHOUT_NAMES["rows"], LABELS)
    assert not hasattr(model, "feature_names_in_")
    assert model.fit(FRAME, LABELS).feature_names_in_.tolist() == NAMES


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (pl.DataFrame({"age": AGES}).lazy(), r"A LazyFrame holds no rows yet: pass \.collect\(\)"),
        ([[1, 2], [1]], r"Row 1 of the list has 1 cells, but the first has 2"),
        ([[1, 2], "ab"], r"Row 1 of the list is 'ab', no row of a table"),
        ([{"age": 1}, [2]], r"Row 1 of the list is a list, but the first is a dict"),
        ({"age": [1, 2], "job": ["a"]}, r"The columns differ in length: 'age' 2, 'job' 1"),
        ([[], []], r"The list has no columns"),
    ],
)
def test_what_is_no_table_is_told(X: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        AFMClassifier().fit(X, [0, 1])


def test_a_lazy_frame_is_told_wherever_rows_are_taken(expected: AFMClassifier) -> None:
    lazy = pl.DataFrame({"age": AGES, "job": JOBS}).lazy()
    for take in (expected.predict, expected.explain, expected.explain_global, expected.what_if):
        with pytest.raises(SourceError, match=r"A LazyFrame holds no rows yet"):
            take(lazy)
    with pytest.raises(SourceError, match=r"A LazyFrame holds no rows yet"):
        fitted(FRAME, eval_set=(lazy, LABELS))


@pytest.mark.parametrize("dtype", ["<U5", "S5", np.dtypes.StringDType()], ids=str)
def test_an_array_of_strings_with_numbers_in_it_is_told(dtype: Any) -> None:
    X = np.array([["39", "clerk", "1e3"], ["50", "cook", "x"]] * 30, dtype=dtype)
    message = r"the numbers in 'x0' are taken as categories: pass a list of rows or a DataFrame"
    with pytest.warns(DataWarning, match=message):
        assert kinds(fitted(X)) == ["categorical"] * 3
    assert kinds(fitted(X[:, 1:])) == ["categorical"] * 2  # no warning: no column is all numbers
    for kind in ("numeric", "categorical"):  # nor where the kind is declared
        assert kinds(AFMClassifier(epochs=1, n_models=1, columns={0: {"kind": kind}}).fit(X, LABELS))[0] == kind


@pytest.mark.parametrize("X", [FRAME.to_numpy(dtype=object), WITHOUT_NAMES["rows"]], ids=["array", "list"])
def test_an_eval_set_without_names_beside_a_frame_is_taken_in_the_order_of_the_fit(X: Any) -> None:
    with pytest.warns(UserWarning, match=rf"The X of eval_set {NO_NAMES_NOW}: its columns are taken in the order"):
        model = fitted(FRAME, eval_set=(X, ~LABELS))
    assert model.history_[-1]["valid_loss"] == fitted(FRAME, eval_set=(FRAME, ~LABELS)).history_[-1]["valid_loss"]
    short = X[:, :1] if isinstance(X, np.ndarray) else [row[:1] for row in X]
    message = r"The X of eval_set has 1 features, but AFMClassifier is expecting 2 features"
    with pytest.warns(UserWarning, match=NO_NAMES_NOW), pytest.raises(SchemaError, match=message):
        fitted(FRAME, eval_set=(short, LABELS))


def test_a_frame_beside_an_array_is_taken_in_the_order_of_the_fit() -> None:
    X = FRAME.to_numpy(dtype=object)
    with pytest.warns(UserWarning, match=rf"The X of eval_set {NAMES_NOW}"):
        model = fitted(X, eval_set=(FRAME, ~LABELS))
    assert model.history_[-1]["valid_loss"] == fitted(X, eval_set=(X, ~LABELS)).history_[-1]["valid_loss"]
    with pytest.warns(UserWarning, match=rf"X {NAMES_NOW}"):
        np.testing.assert_array_equal(model.predict(FRAME), model.predict(X))
    np.testing.assert_array_equal(model.predict(FRAME.set_axis(["x0", "x1"], axis=1)[["x1", "x0"]]), model.predict(X))
    with pytest.raises(SchemaError, match="X has 1 features, but AFMClassifier is expecting 2"):
        model.predict(FRAME[["age"]])


def test_an_eval_set_that_lacks_columns_is_told() -> None:
    with pytest.raises(SchemaError, match=r"The X of eval_set lacks 1 of the 2 columns of the fit: 'job'"):
        fitted(FRAME, eval_set=(FRAME[["age"]], LABELS))


@pytest.mark.parametrize("rows", [lambda X: X, lambda X: X.to_numpy(dtype=object), lambda X: X.values.tolist()])
def test_one_eval_set_may_stand_in_a_list_and_two_may_not(rows: Callable[[pd.DataFrame], Any]) -> None:
    X = rows(FRAME)
    plain = fitted(X, eval_set=(X, LABELS))
    assert plain.model_.facts.validation_rows == ROWS
    for listed in ([(X, LABELS)], [[X, LABELS]], [(X, LABELS, np.ones(ROWS))]):
        assert fitted(X, eval_set=listed).history_[-1]["valid_loss"] == plain.history_[-1]["valid_loss"]
    for two in ([(X, LABELS), (X, LABELS)], ((X, LABELS), (X, LABELS)), [(X, LABELS)] * 3):
        with pytest.raises(ConfigError, match=r"eval_set holds [23] tables.*give one \(X, y\)"):
            fitted(X, eval_set=two)


def test_an_eval_set_of_two_rows_in_lists_is_no_two_tables() -> None:
    X = [[39, "clerk"], [50, "cook"]]
    assert fitted(WITHOUT_NAMES["rows"], eval_set=[X, [False, True]]).model_.facts.validation_rows == 2
    assert fitted(WITHOUT_NAMES["rows"], eval_set=(tuple(X), (False, True))).model_.facts.validation_rows == 2


@pytest.mark.parametrize("labels", [LABELS, np.arange(ROWS) % 3])
def test_an_eval_set_of_one_class_measures_what_it_can(labels: np.ndarray) -> None:
    model = AFMClassifier(epochs=2, n_models=1).fit(FRAME, labels, eval_set=(FRAME[:10], labels[:1].repeat(10)))
    assert np.isfinite(model.history_[-1]["valid_loss"])
    assert np.isnan(model.history_[-1].get("valid_auc", np.nan))


def test_a_report_on_rows_of_one_class_is_written(expected: AFMClassifier, tmp_path: Path) -> None:
    assert expected.report(tmp_path / "report.html", FRAME, np.zeros(ROWS, bool)).is_file()


def test_what_is_wrong_with_the_labels_of_an_eval_set_is_said_of_them() -> None:
    with pytest.raises(TargetError, match=r"The y of eval_set: 1 of 60 labels are missing \(first: row 0\)"):
        fitted(FRAME, eval_set=(FRAME, [None, *LABELS[1:]]))
    with pytest.raises(ValueError, match=r"The X of eval_set has 60 rows and y has 9"):
        fitted(FRAME, eval_set=(FRAME, LABELS[:9]))
    with pytest.raises(TargetError, match=r"not seen in training \(first: 'maybe', row 0\)"):
        fitted(FRAME, eval_set=(FRAME, ["maybe"] * ROWS))


NUMBERS = np.random.default_rng(0).normal(size=(ROWS, 3))


@pytest.mark.parametrize("X", [NUMBERS, NUMBERS.tolist(), pd.DataFrame(NUMBERS, columns=["x0", "x1", "x2"])])
@pytest.mark.parametrize("place", [1, np.int64(1)])
def test_a_number_names_a_column_by_its_place(X: Any, place: int, tmp_path: Path) -> None:
    model = AFMClassifier(epochs=1, n_models=1, columns={place: {"kind": "ignored"}, "x2": {"max_bins": 3}}).fit(
        X, LABELS
    )
    assert kinds(model) == ["numeric", "ignored", "numeric"]
    assert model.get_params()["columns"] == {1: {"kind": "ignored"}, "x2": {"max_bins": 3}}
    assert model.predict(X).shape == (ROWS,)  # with the ignored column
    again = load(model.save(tmp_path / "run"))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert again.fit(X, LABELS).columns == {"x1": {"kind": "ignored"}, "x2": {"max_bins": 3}}


def test_a_number_is_the_name_that_pandas_gives_a_column() -> None:
    model = AFMClassifier(epochs=1, n_models=1, columns={1: {"kind": "ignored"}}).fit(pd.DataFrame(NUMBERS), LABELS)
    assert model.feature_names_in_.tolist() == ["0", "1", "2"]
    assert kinds(model) == ["numeric", "ignored", "numeric"]


@pytest.mark.parametrize(
    ("columns", "X", "message"),
    [
        ({3: {}}, NUMBERS, r"There is no column 3 in X.*its columns are numbered 0 to 2"),
        ({-1: {}}, NUMBERS, r"There is no column -1 in X.*numbered 0 to 2"),
        ({True: {}}, NUMBERS, r"There is no column True in X"),
        ({0: {}}, FRAME, r"There is no column 0 in X.*its columns are called 'age', 'job'"),
        ({1: {}}, FRAME.set_axis(["x1", "job"], axis=1), r"There is no column 1 in X.*called 'x1', 'job'"),
        ({1: {}, "x1": {}}, NUMBERS, r"The settings have column 'x1' twice"),
        ({"x3": {}}, NUMBERS, r"There is no column 'x3' in ndarray, but the settings have one"),
        ({(0,): {}}, NUMBERS, r"'columns' in the parameters of AFMClassifier is"),
    ],
)
def test_settings_of_no_column_are_told(columns: Any, X: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AFMClassifier(columns=columns).fit(X, LABELS)
