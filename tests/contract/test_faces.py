"""The command, the estimator and `Model` say the same of the same rows: the same bits, and the same decisions."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.base import clone

from attfm import load
from attfm.cli import main
from attfm.data.sources.source import open_source
from attfm.explain.what_if import Change
from attfm.model.run_folder import load_model
from tests.contract.conftest import TASKS, THRESHOLDS, Frame, Run

RunOf = Callable[[str, float, str], Run]
each_run = pytest.mark.parametrize("origin", ["command", "estimator"])
each_task = pytest.mark.parametrize("task", TASKS)
each_threshold = pytest.mark.parametrize("threshold", THRESHOLDS)


def shares(scores: pa.Table) -> np.ndarray[Any, Any]:
    """Return the probabilities in a table of scores, (rows, classes); of a regression the predictions, (rows,)."""
    columns = [scores[name].to_numpy() for name in scores.column_names if name.startswith("probability")]
    if not columns:
        return scores["prediction"].to_numpy()
    return np.stack([1 - columns[0], columns[0]] if len(columns) == 1 else columns, axis=1)


def scores_of(estimator: Any, X: object) -> np.ndarray[Any, Any]:
    """Return an estimator's probabilities, or its predictions where it has none."""
    found: np.ndarray[Any, Any] = estimator.predict_proba(X) if hasattr(estimator, "predict_proba") else None
    return estimator.predict(X) if found is None else found


def same(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    """Assert the same bits; of the first of two classes, which a table of scores leaves out, to a rounding."""
    if found.ndim == 2 and found.shape[1] == 2:
        np.testing.assert_allclose(found[:, 0], expected[:, 0], rtol=0, atol=2e-16)
        found, expected = found[:, 1], expected[:, 1]
    np.testing.assert_array_equal(found, expected)


@each_run
@each_threshold
@each_task
def test_all_faces_give_the_same_scores_and_decisions(
    task: str, threshold: float, origin: str, frame: Frame, run_of: RunOf, tmp_path: Path
) -> None:
    run = run_of(task, threshold, origin)
    model, rows = load_model(run.folder), frame(run.X)
    expected = model.predict_proba(run.X)
    decided = model.predict(run.X)
    assert model.threshold == threshold
    if task == "binary":
        np.testing.assert_array_equal(decided, np.where(expected[:, 1] > threshold, "yes", "no"))
        assert len(set(decided)) == 2

    same(model.predict_proba(rows), expected)
    np.testing.assert_array_equal(model.predict(rows), decided)
    table = pa.concat_tables(model.score_table(open_source(rows)))
    same(shares(table), expected)
    np.testing.assert_array_equal(table["prediction"].to_numpy(), decided)

    estimator = load(run.folder)
    same(scores_of(estimator, rows), expected)
    np.testing.assert_array_equal(estimator.predict(rows), decided)

    assert main(["predict", run.folder, run.file, "--id", "row", "-o", str(tmp_path / "scores.parquet"), "-q"]) == 0
    written = pq.read_table(tmp_path / "scores.parquet")
    assert written["row"].to_pylist() == list(range(len(run.X)))
    same(shares(written), expected)
    np.testing.assert_array_equal(written["prediction"].to_numpy(), decided)


@pytest.mark.parametrize("threshold", [0.2, 0.9])
def test_a_threshold_given_to_a_face_is_that_of_the_others(threshold: float, run_of: RunOf, tmp_path: Path) -> None:
    run = run_of("binary", 0.5, "command")
    file, asked = str(tmp_path / "scores.csv"), ["--threshold", str(threshold)]
    assert main(["predict", run.folder, run.file, "-o", file, *asked, "-q"]) == 0
    written = pa.Table.from_batches(list(open_source(file).batches()))
    model = load_model(run.folder)
    decided = model.predict(run.X, threshold=threshold)
    np.testing.assert_array_equal(written["prediction"].to_numpy(zero_copy_only=False), decided)
    assert (decided != model.predict(run.X)).any()


@each_run
@each_threshold
@each_task
def test_a_loaded_estimator_fitted_again_is_the_run(
    task: str, threshold: float, origin: str, frame: Frame, run_of: RunOf
) -> None:
    run = run_of(task, threshold, origin)
    estimator, rows = load(run.folder), frame(run.X)
    again = clone(estimator).fit(rows, run.y)
    np.testing.assert_array_equal(scores_of(again, rows), scores_of(estimator, rows))
    np.testing.assert_array_equal(again.predict(rows), estimator.predict(rows))


def changed(X: pa.Table, change: Change) -> pa.Table:
    """Return a table of one row with the change made in its column."""
    name, _, part = change.field.partition(".")
    (value,) = X[name].to_pylist()
    new: Any
    if name == "langs":
        what, _, member = change.after.partition(" ")
        new = [one for one in value or [] if one != member] + [member] * (what == "with")
    elif name == "seen":
        new = when(value, part, change.after)
    else:
        new = {"job": str, "town": int, "age": float}[name](change.after)
    return X.set_column(X.column_names.index(name), name, pa.array([new], X.schema.field(name).type))


def when(now: datetime, part: str, label: str) -> datetime:
    """Return the time nearest to `now` that has another hour, weekday or month, and its other two."""
    names = {"hour": lambda t: str(t.hour), "weekday": lambda t: f"{t:%A}", "month": lambda t: f"{t:%B}"}
    wanted = {name: label if name == part else of(now) for name, of in names.items()}
    times = (now.replace(hour=hour) + timedelta(days) for days in range(-400, 400) for hour in range(24))
    found = [time for time in times if all(names[name](time) == text for name, text in wanted.items())]
    return min(found, key=lambda time: abs(time - now))


@each_run
@each_threshold
@each_task
def test_what_if_names_only_changes_that_predict_decides_otherwise(
    task: str, threshold: float, origin: str, run_of: RunOf
) -> None:
    run = run_of(task, threshold, origin)
    estimator, model = load(run.folder), load_model(run.folder)
    crossed = float(np.median(model.predict(run.X))) if task == "regression" else None

    def decisions(X: pa.Table) -> set[str]:
        """Return what each face decides about a table's one row."""
        told = [*estimator.predict(X), *model.predict(X), *next(model.score_table(open_source(X)))["prediction"]]
        values = [one.as_py() if isinstance(one, pa.Scalar) else one for one in told]
        return {str(one) if crossed is None else "above" if one > crossed else "below" for one in values}

    logits, tried = model.logits(run.X), set[str]()
    margin = model.task.margin(logits, threshold) if crossed is None else np.abs(logits[:, 0] - crossed)
    for row in np.argsort(margin)[:6].tolist():  # the nearest to another decision, so that many changes are found
        one = run.X.slice(row, 1)
        changes = estimator.what_if(run.X, row=row, threshold=crossed)
        assert decisions(one) == {changes.decision}
        for change in changes:
            assert change.decision_before == changes.decision != change.decision_after
            assert decisions(changed(one, change)) == {change.decision_after}, change
            tried.add(change.field)
    assert tried >= {"age", "langs"}


def test_columns_that_a_decision_at_another_threshold_needs_are_not_named(run_of: RunOf) -> None:
    # The decision that is to flip is that of the run's threshold, 0.9: a row at 0.6 is a "no" there.
    run = run_of("binary", 0.9, "command")
    model = load_model(run.folder)
    between = np.flatnonzero((model.predict_proba(run.X)[:, 1] > 0.5) & (model.predict(run.X) == "no"))
    assert len(between)
    assert load(run.folder).what_if(run.X, row=int(between[0])).decision == "no"
