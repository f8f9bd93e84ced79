"""What a report warns of."""

import numpy as np
import pyarrow as pa
import pytest

from attfm import AFMClassifier, AFMRegressor
from attfm.errors import DataWarning
from attfm.report.rows_shown import Examined
from attfm.report.warnings import examine_fields, warnings_of
from tests.report.pages import QUICK, table


def test_warnings_name_constants_leaks_and_unknown_values(model: AFMClassifier, examined: Examined) -> None:
    X, y = table(300, seed=1)
    X = X.set_column(X.schema.get_field_index("job"), "job", pa.array(["pilot"] * 300))
    with pytest.warns(DataWarning, match="Column 'job': 100 % of the 300 values were not seen"):
        other = Examined.of_table(model.model_, model._source(X), model.model_.target.encode(pa.array(y)))
    found = warnings_of(model.model_, other, examine_fields(model.model_, other))
    kinds = {(one["kind"], one["field"]) for one in found}
    assert kinds == {("constant", "same"), ("leak", "leak"), ("unknown", "job")}
    assert any("100.0 % of these rows" in one["text"] for one in found)
    assert any("AUC 1.0000" in one["text"] for one in found)


def test_row_numbers_and_honest_fields_are_no_leaks(model: AFMClassifier, examined: Examined) -> None:
    alone = {one.name: one.alone for one in examine_fields(model.model_, examined)}
    assert alone["leak"] == 1
    assert 0.6 < alone["age"] < 0.95
    assert abs(alone["number"] - 0.5) < 0.1


def test_a_numeric_leak_shows_in_few_rows() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=120)
    y = x * 3 + 1
    leaky = AFMRegressor(**QUICK).fit(pa.table({"x": x, "z": rng.normal(size=120)}), y)
    examined = Examined.of_table(leaky.model_, leaky._source(pa.table({"x": x, "z": x[::-1]})), y)
    found = warnings_of(leaky.model_, examined, examine_fields(leaky.model_, examined))
    assert [one["field"] for one in found if one["kind"] == "leak"] == []  # bins are coarse: R² of ranks is below .99
    labels = np.where(y > 1, "high", "low")
    classified = AFMClassifier(**QUICK).fit(pa.table({"x": x}), labels)
    examined = Examined.of_table(
        classified.model_, classified._source(pa.table({"x": x})), classified.model_.target.encode(pa.array(labels))
    )
    found = warnings_of(classified.model_, examined, examine_fields(classified.model_, examined))
    assert ("leak", "x") in {(one["kind"], one["field"]) for one in found}
