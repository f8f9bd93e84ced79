"""The smallest single-field changes that flip a decision, each tried on the raw table again."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from attfm.errors import ConfigError, DataError
from attfm.explain.what_if import Change, what_if
from attfm.model.bundle import Model
from tests.explain.account import mixed, model, source

THRESHOLDS = {"binary": None, "multiclass": None, "regression": 1000.0}


def changed(row: int, change: Change) -> pa.Table:
    """Return the one row with the change made in the raw columns."""
    record: dict[str, Any] = mixed().slice(row, 1).to_pylist()[0]
    if change.field == "langs":
        verb, member = change.after.split()
        kept = [member_ for member_ in record["langs"] if member_ != member]
        record["langs"] = kept if verb == "without" else [*record["langs"], member]
    else:
        record[change.field] = float(change.after) if change.field == "age" else change.after
    return pa.Table.from_pylist([record], schema=mixed().schema)


def decision(made: Model, table: pa.Table) -> str:
    if not made.task.is_classification:
        return "above" if made.predict(table)[0] > 1000 else "below"
    return str(made.predict(table)[0])


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("numeric", ["quantile", "scaled"])
def test_every_change_flips_the_decision_of_the_raw_row(task: str, numeric: str) -> None:
    made = model(task, numeric=numeric, columns={"born": {"kind": "ignored"}})
    tried = 0
    for row in range(0, 150, 10):
        found = what_if(made, source(), row=row, threshold=THRESHOLDS[task])
        assert [change.distance for change in found] == sorted(change.distance for change in found)
        before = decision(made, mixed().slice(row, 1))
        for change in found:
            if change.field == "age" and not change.after.replace(".", "").replace("-", "").isdigit():
                continue  # the name of a bin, not of one value
            assert change.decision_before == before
            assert change.decision_after != before
            assert decision(made, changed(row, change)) == change.decision_after
            tried += 1
    assert tried > 5


def test_the_nearest_value_of_an_ordered_field_is_found() -> None:
    """All bins between the old value and the new one leave the decision as it is."""
    made = model(columns={"born": {"kind": "ignored"}, "langs": {"kind": "ignored"}})
    field = made.encoder.fields[1]
    labels = made.encoder.feature_names(1)
    checked = 0
    for row in range(60):
        table = mixed().slice(row, 1)
        held = made.encoder.transform(table).field(1).ids[0] - field.start
        before = decision(made, table)
        for change in what_if(made, source(), row=row):
            if change.field != "age" or held < 2:
                continue
            new = labels.index(change.after)
            assert 0 < change.distance < 1
            between = [
                label for label in labels[min(held, new) + 1 : max(held, new)] if not label.startswith(("[", "<", ">"))
            ]
            for label in between:
                other = table.set_column(1, "age", pa.array([float(label)]))
                assert decision(made, other) == before
            checked += 1
    assert checked > 3


def test_immutable_columns_are_left_alone() -> None:
    made = model()
    fields = {change.field for row in range(20) for change in what_if(made, source(), row=row)}
    assert {"job", "born.month"} <= fields
    kept = {change.field for row in range(20) for change in what_if(made, source(), row=row, immutable=["born", "job"])}
    assert kept == fields - {"job", "born.weekday", "born.month"}
    none = what_if(made, source(), immutable=["job", "age", "langs", "born"])
    assert (list(none), none.tried, none.fields) == ([], 0, 0)
    assert str(none) == f"Nothing could be tried to flip the decision '{none.decision}' about row 0: " + (
        "every column is immutable."
    )


def test_what_was_tried_without_success_is_said() -> None:
    made = model("regression")
    found = what_if(made, source(), row=3, immutable=["langs"], threshold=1e9)
    assert len(found) == 0
    values = sum(len(made.encoder.feature_names(f)) - 2 for f in (0, 1, 3, 4))
    assert str(found) == (
        f"No change of a single field flips the decision 'below' about row 3: {found.tried} values of 4 fields were "
        "tried (left alone: langs)."
    )
    assert values - 4 <= found.tried <= values  # all but those that the row has
    some = what_if(made, source(), row=3, threshold=1000.0)
    text = str(some)
    assert text.startswith(f"What flips the decision '{some.decision}' about row 3, by itself, and how far it is:")
    first = some[0]
    assert f"{first.field}: {first.before} → {first.after} gives '{first.decision_after}'" in text
    assert some[:1] == (first,)


def test_the_distance_is_the_share_of_rows_that_lie_between_or_differ() -> None:
    made = model()
    table = mixed().to_pydict()
    age = made.encoder.fields[1]
    held = made.encoder.transform(mixed()).field(1).ids - age.start
    bins = np.bincount(held, minlength=age.stop - age.start)
    seen = set()
    for row in range(60):
        for change in what_if(made, source(), row=row):
            if change.field == "job":
                expected = np.mean([job != change.after for job in table["job"]])
            elif change.field == "langs":
                verb, member = change.after.split()
                expected = np.mean([(member in langs) == (verb == "without") for langs in table["langs"]])
            elif change.field == "age":
                new = made.encoder.feature_names(1).index(change.after)
                if change.before == "missing":
                    expected = 1 - bins[new] / 150
                else:
                    low, high = sorted((held[row], new))
                    between = bins[low] / 2 + bins[low + 1 : high].sum() + bins[high] / 2
                    expected = between / bins[2:].sum()
                seen.add(change.before == "missing")
            else:
                continue
            assert change.distance == pytest.approx(expected)
            seen.add(change.field)
    assert seen == {"job", "langs", "age", True, False}


def test_of_an_unordered_field_the_most_common_value_that_flips_is_taken() -> None:
    made = model(columns={"born": {"kind": "ignored"}})
    jobs = mixed()["job"].to_pylist()
    checked = 0
    for row in range(60):
        for change in what_if(made, source(), row=row):
            if change.field != "job":
                continue
            for other in set(jobs) - {change.before, change.after}:
                if jobs.count(other) > jobs.count(change.after):
                    table = pa.Table.from_pylist(
                        [mixed().slice(row, 1).to_pylist()[0] | {"job": other}], mixed().schema
                    )
                    assert decision(made, table) == change.decision_before
                    checked += 1
    assert checked > 0


def test_the_threshold_decides() -> None:
    made = model(columns={"born": {"kind": "ignored"}})
    found = what_if(made, source(), threshold=0.999)
    assert {change.decision_before for change in found} <= {"no"}
    assert all(change.logit_after > np.log(999) for change in found)


def test_bad_use_is_told_of() -> None:
    made = model()
    with pytest.raises(DataError, match="no row 150: it has 150 rows"):
        what_if(made, source(), row=150)
    with pytest.raises(ConfigError, match="No input column is called 'jobb' \\(did you mean 'job'\\?\\)"):
        what_if(made, source(), immutable=["jobb"])
    with pytest.raises(ConfigError, match="no decision to flip: give threshold="):
        what_if(model("regression"), source())
    with pytest.raises(ConfigError, match="threshold=7 is not a probability"):
        what_if(made, source(), threshold=7)
    with pytest.raises(ConfigError, match="no background stored"):
        what_if(model(background=False), source())
