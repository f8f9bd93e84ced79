import datetime as dt

import pyarrow as pa
import pytest

from attfm.data import encoder as encoder_module
from attfm.data.encoder import Encoder
from attfm.errors import DataError, SchemaError
from tests.data.encoding import fit, infer


def test_absent_columns_are_all_named_with_the_nearest_there_is() -> None:
    encoder = fit(pa.table({"age": [1, 2], "sex": ["f", "m"], "zip": ["a", "b"]}))
    with pytest.raises(SchemaError, match=r"lacks columns 'age' \(did you mean 'Age'\?\), 'zip'\. "):
        encoder.transform(pa.table({"Age": [1], "sex": ["f"]}))
    with pytest.raises(SchemaError, match=r"lacks column 'sex'\. Rename or add"):
        encoder.transform(pa.table({"age": [1], "zip": ["f"]}))


def test_a_doubled_column_is_an_error_and_a_doubled_extra_one_is_not() -> None:
    encoder = fit(pa.table({"age": [1, 2]}))
    doubled = pa.table([pa.array([1]), pa.array([2])], names=["age", "age"])
    with pytest.raises(SchemaError, match="Column 'age' occurs more than once"):
        encoder.transform(doubled)
    extra = pa.table([pa.array([1]), pa.array([2]), pa.array([2])], names=["age", "x", "x"])
    assert len(encoder.transform(extra)) == 1


def test_strings_that_are_not_numbers_are_counted_and_the_first_shown() -> None:
    encoder = fit(pa.table({"age": [1, 2], "x": [0.5, 1.5], "s": ["a", "b"]}))
    ages = ["4"] * 900
    for row in (17, 400, 401):
        ages[row] = "old"
    rows = pa.table({"age": ages, "x": ["1.5"] * 899 + ["1,5"], "s": ["a"] * 900})
    with pytest.raises(DataError) as caught:
        encoder.transform(rows)
    assert str(caught.value) == (
        "Column 'age': 3 of 900 values are not numbers (first: 'old', row 17). Clean them, or declare the column "
        "categorical. Column 'x': 1 of 900 values is not a number (first: '1,5', row 899). Clean them, or declare "
        "the column categorical."
    )


def test_rows_are_counted_over_chunks_and_from_the_first_row() -> None:
    encoder = fit(pa.table({"age": [1, 2]}))
    chunked = pa.table({"age": pa.chunked_array([["1"], ["2", "x"], ["y"]])})
    with pytest.raises(DataError, match=r"'age': 2 of 4 values are not numbers \(first: 'x', row 1,002\)"):
        encoder.transform(chunked, first_row=1_000)


def test_fitting_counts_over_all_batches() -> None:
    data = pa.table({"age": ["1", "x", "3", "y"]})
    schema = infer(data, columns={"age": {"kind": "numeric"}})
    with pytest.raises(DataError, match=r"'age': 2 of 4 values are not numbers \(first: 'x', row 1\)"):
        Encoder.fit(schema, data.to_batches(max_chunksize=1))


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), "inf", "-Infinity", "1e999"])
def test_infinite_values_are_named_with_their_row(bad: object) -> None:
    encoder = fit(pa.table({"x": [1.0, 2.0]}))
    good = 1.0 if isinstance(bad, float) else "1"
    with pytest.raises(DataError, match=rf"Column 'x': 1 of 3 values is infinite \(first: '?{bad}'?, row 2\)"):
        encoder.transform(pa.table({"x": [good, None, bad]}))
    with pytest.raises(DataError, match="Column 'x': 1 of 2 values is infinite"):
        fit(pa.table({"x": [1.0, float("inf")]}))


def test_a_scaled_value_too_large_for_a_float32_is_an_error() -> None:
    encoder = fit(pa.table({"x": [0.0, 1e-3]}), numeric="scaled")
    with pytest.raises(DataError, match=r"Column 'x': 1 of 2 values is too far outside .*1e\+200, row 1.*0 to 0\.001"):
        encoder.transform(pa.table({"x": [1.0, 1e200]}))


@pytest.mark.parametrize("bad", ["soon", "2024-02-30", "2024-13-01", "2024-00-01", "2024-01-01T24:00", "01/02/2024"])
def test_strings_that_are_not_dates_are_named_with_their_row(bad: str) -> None:
    encoder = fit(pa.table({"when": [dt.datetime(2024, 1, 1, 5)]}))
    with pytest.raises(DataError, match=rf"'when': 1 of 3 values is not a date \(first: '{bad}', row 1\).*ISO 8601"):
        encoder.transform(pa.table({"when": ["2024-01-01", bad, None]}))


def test_weights_of_members_must_be_finite_numbers() -> None:
    kind = pa.map_(pa.string(), pa.float64())
    encoder = fit(pa.table({"x": pa.array([[("a", 1.0)]], kind)}))
    bad = pa.array([[("a", 1.0)], [("a", 1.0), ("b", float("nan"))]], kind)
    with pytest.raises(DataError, match=r"Column 'x': 1 of 2 values has a weight that is not finite .*row 1"):
        encoder.transform(pa.table({"x": bad}))
    words = pa.array([[("a", "much")]], pa.map_(pa.string(), pa.string()))
    with pytest.raises(DataError, match="Column 'x': 1 of 1 values has a weight that is not finite"):
        encoder.transform(pa.table({"x": words}))


def test_columns_of_unfit_types_are_all_named() -> None:
    data = pa.table({"s": ["a", "b"], "x": [1, 2], "when": [dt.date(2024, 1, 1)] * 2, "bag": [["a"], ["b"]]})
    encoder = fit(data)
    struct = pa.array([{"p": 1}, {"p": 2}])
    unfit = pa.table({"s": struct, "x": [dt.date(2024, 1, 1)] * 2, "when": [1, 2], "bag": ["a", "b"]})
    with pytest.raises(DataError) as caught:
        encoder.transform(unfit)
    for sentence in (
        "Column 's' is of type struct<p: int64>, whose values can't be categories.",
        "Column 'x' is of type date32[day], not numbers.",
        "Column 'when' is of type int64, not dates.",
        "Column 'bag' is of type string, but a multi-valued column needs a separator",
    ):
        assert sentence in str(caught.value)


def test_bytes_that_are_not_text_are_an_error() -> None:
    encoder = fit(pa.table({"s": ["a", "b"], "bag": [["a"], ["b"]]}))
    with pytest.raises(DataError, match=r"Column 's' holds bytes.*Column 'bag' holds bytes"):
        encoder.transform(pa.table({"s": [b"\xff"], "bag": [[b"\xff"]]}))


def test_a_long_bad_value_is_cut() -> None:
    encoder = fit(pa.table({"x": [1, 2]}))
    with pytest.raises(DataError) as caught:
        encoder.transform(pa.table({"x": ["no" * 5_000]}))
    assert len(str(caught.value)) < 250


def test_fitting_needs_rows() -> None:
    data = pa.table({"x": [1, 2]})
    with pytest.raises(DataError, match="no training rows"):
        Encoder.fit(infer(data), [])


def test_too_many_features_name_the_largest_column(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"ids": {"hash_buckets": 2**31}}
    with pytest.raises(DataError, match=r"2,147,483,658 features.*Column 'ids' alone has 2,147,483,650.*hash_buckets"):
        fit(pa.table({"ids": ["a", "b"], "x": [1, 2], "s": ["c", "d"]}), columns=settings)
    monkeypatch.setattr(encoder_module, "_MOST_FEATURES", 4)
    assert fit(pa.table({"s": ["a", "b"]})).n_features == 4
