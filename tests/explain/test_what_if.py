"""The smallest single-field changes that flip a decision, each tried on the raw table again."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from explain.account import mixed, model, source

from attfm.errors import ConfigError, DataError
from attfm.explain.what_if import Change, what_if
from attfm.model.bundle import Model

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
    logits = made.logits(table)[0]
    if made.task == "regression":
        return "above" if logits[0] > 1000 else "below"
    number = int(logits.argmax()) if len(logits) > 1 else int(logits[0] > 0)
    return str((made.target.classes or ())[number])


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
        held = made.encoder.transform(table).ids[0, 1] - field.start
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
    assert what_if(made, source(), immutable=["job", "age", "langs", "born"]) == []


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
