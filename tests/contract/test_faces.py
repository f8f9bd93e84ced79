"""The command, the estimator and `Model` say the same of the same rows: the same bits, and the same decisions."""

import json
import re
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
from attfm.errors import ConfigError
from attfm.explain.what_if import Change
from attfm.model.bundle import Model
from attfm.model.run_folder import load_model
from attfm.report.content import report_content
from attfm.report.rows_shown import Examined
from attfm.serve.tables import load as compiled_of
from tests.contract.conftest import FRAMES, TASKS, THRESHOLDS, Run

RunOf = Callable[..., Run]
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


def same(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], face: str) -> None:
    """Assert the same bits; of the first of two classes, which a table of scores leaves out, to a rounding."""
    if found.ndim == 2 and found.shape[1] == 2:
        np.testing.assert_allclose(found[:, 0], expected[:, 0], rtol=0, atol=2e-16, err_msg=face)
        found, expected = found[:, 1], expected[:, 1]
    np.testing.assert_array_equal(found, expected, face)


@each_run
@each_threshold
@each_task
def test_all_faces_give_the_same_scores_and_decisions(
    task: str, threshold: float, origin: str, run_of: RunOf, tmp_path: Path
) -> None:
    run = run_of(task, threshold, origin)
    model, estimator = load_model(run.folder), load(run.folder)
    expected = model.predict_proba(run.X)
    decided = model.predict(run.X)
    assert model.threshold == threshold
    if task == "binary":
        np.testing.assert_array_equal(decided, np.where(expected[:, 1] > threshold, "yes", "no"))
        assert len(set(decided)) == 2

    # By lookup the sums are taken in another order: not the same bits, and so near to the threshold anything goes.
    # Both add up float32 of the size of the target, also where the sum is near 0.
    compiled, dicts = compiled_of(run.folder), run.X.to_pylist()
    near = max(1e-5, 1e-6 * float(np.abs(expected).max())) if task == "regression" else 1e-5
    np.testing.assert_allclose(compiled.logits(dicts), model.logits(run.X), rtol=0, atol=near)
    np.testing.assert_allclose(compiled.predict_proba(dicts), expected, rtol=0, atol=near)
    assert compiled.threshold == threshold
    if task == "regression":
        np.testing.assert_allclose(compiled.predict(dicts), decided, rtol=0, atol=near)
    else:
        top = np.sort(expected, axis=1)
        clear = np.abs(expected[:, 1] - threshold) > 1e-5 if task == "binary" else top[:, -1] - top[:, -2] > 1e-5
        np.testing.assert_array_equal(compiled.predict(dicts)[clear], decided[clear])

    assert main(["predict", run.folder, run.file, "--id", "row", "-o", str(tmp_path / "scores.parquet"), "-q"]) == 0
    written = pq.read_table(tmp_path / "scores.parquet")
    assert written["row"].to_pylist() == list(range(len(run.X)))
    same(shares(written), expected, "command")
    np.testing.assert_array_equal(written["prediction"].to_numpy(), decided)

    for kind, frame in FRAMES.items():
        rows = frame(run.X)
        same(model.predict_proba(rows), expected, kind)
        np.testing.assert_array_equal(model.predict(rows), decided, kind)
        table = pa.concat_tables(model.score_table(open_source(rows)))
        same(shares(table), expected, kind)
        np.testing.assert_array_equal(table["prediction"].to_numpy(), decided, kind)
        same(scores_of(estimator, rows), expected, kind)
        np.testing.assert_array_equal(estimator.predict(rows), decided, kind)


@pytest.mark.parametrize("threshold", [0.2, 0.9])
def test_a_threshold_given_to_a_face_is_that_of_the_others(threshold: float, run_of: RunOf, tmp_path: Path) -> None:
    run = run_of("binary", 0.5, "command")
    file, asked = str(tmp_path / "scores.csv"), ["--threshold", str(threshold)]
    assert main(["predict", run.folder, run.file, "-o", file, *asked, "-q"]) == 0
    written = pa.Table.from_batches(list(open_source(file).batches()))
    model = load_model(run.folder)
    decided = model.predict(run.X, threshold=threshold)
    np.testing.assert_array_equal(compiled_of(run.folder).predict(run.X.to_pylist(), threshold=threshold), decided)
    np.testing.assert_array_equal(written["prediction"].to_numpy(zero_copy_only=False), decided)
    assert (decided != model.predict(run.X)).any()


@pytest.mark.parametrize("threshold", [3, -0.1, 0, 1, float("nan"), True, "0.5", np.array([0.5])], ids=repr)
def test_a_threshold_that_is_no_probability_is_refused_by_every_face(threshold: Any, run_of: RunOf) -> None:
    run = run_of("binary", 0.5, "command")
    model, compiled, said = load_model(run.folder), compiled_of(run.folder), "is not a probability: give a number"
    for call in (
        lambda: model.predict(run.X, threshold=threshold),
        lambda: compiled.predict(run.X.to_pylist(), threshold=threshold),
        lambda: list(model.score_table(open_source(run.X), threshold=threshold)),
        lambda: load(run.folder).what_if(run.X, threshold=threshold),
    ):
        with pytest.raises(ConfigError, match=re.escape(f"threshold={threshold!r} {said}")):
            call()


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_a_threshold_that_decides_nothing_is_refused(
    task: str, run_of: RunOf, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(task, 0.5, "command")
    for predict, rows in (
        (load_model(run.folder).predict, run.X), (compiled_of(run.folder).predict, run.X.to_pylist()),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=r"threshold=0.4 is of no use to a model that .*: leave it out"):
            predict(rows, threshold=0.4)
    for command in ("predict", "evaluate"):
        assert main([command, run.folder, run.file, "--threshold", "0.4"]) == 2
        assert "--threshold 0.4 is of no use to a model that" in capsys.readouterr().err


def calibrated_scores(model: Model, plain: Model, X: pa.Table) -> np.ndarray[Any, Any]:
    """Return the probabilities of a model's twin without calibration, calibrated here, class by class."""
    found, logits = model.calibration, plain.logits(X)
    if found.kind != "isotonic":
        return plain.task.scores(np.array(found.slope) * logits + np.array(found.offset))
    shares = plain.task.scores(logits)
    odds = np.log(shares) - np.log1p(-shares)
    odds = odds[:, 1:] if logits.shape[1] == 1 else odds
    bent = [np.interp(odds[:, c], curve.logits, curve.probabilities) for c, curve in enumerate(found.curves)]
    each = np.stack([1 - bent[0], bent[0]] if len(bent) == 1 else bent, axis=1)
    return each / each.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("task", "kind", "origin"),
    [  # each kind with both tasks and both origins
        ("binary", "temperature", "command"), ("multiclass", "temperature", "estimator"),
        ("binary", "sigmoid", "estimator"), ("multiclass", "sigmoid", "command"),
        ("binary", "isotonic", "command"), ("multiclass", "isotonic", "estimator"),
    ],
)  # fmt: skip
def test_no_face_forgets_the_calibration(
    task: str, kind: str, origin: str, run_of: RunOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threshold = 0.4
    run, twin = run_of(task, threshold, origin, kind), run_of(task, threshold, origin, "none")
    model, plain, X = load_model(run.folder), load_model(twin.folder), run.X
    expected = calibrated_scores(model, plain, X)
    assert np.abs(expected - plain.predict_proba(X)).max() > 1e-4  # ten times what the faces may differ by
    codes = (expected[:, 1] > threshold).astype(int) if task == "binary" else expected.argmax(1)
    top = np.sort(expected, axis=1)
    clear = np.abs(expected[:, 1] - threshold) > 1e-4 if task == "binary" else top[:, -1] - top[:, -2] > 1e-4
    assert clear.mean() > 0.9
    decided = np.array(model.task.class_names)[codes]

    def tell(shares: np.ndarray[Any, Any], labels: Any) -> None:
        np.testing.assert_allclose(shares, expected, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(labels)[clear], decided[clear])

    estimator = load(run.folder)
    tell(model.predict_proba(X), model.predict(X))
    tell(estimator.predict_proba(X), estimator.predict(X))
    compiled = compiled_of(run.folder)
    tell(compiled.predict_proba(X.to_pylist()), compiled.predict(X.to_pylist()))
    tell(np.concatenate([compiled.predict_proba([row]) for row in X.to_pylist()]), compiled.predict(X.to_pylist()))
    table = pa.concat_tables(model.score_table(open_source(X)))
    tell(shares(table), table["prediction"].to_numpy())
    assert main(["predict", run.folder, run.file, "-o", str(tmp_path / "scores.parquet"), "-q"]) == 0
    written = pq.read_table(tmp_path / "scores.parquet")
    tell(shares(written), written["prediction"].to_numpy())

    labelled = str(tmp_path / "labelled.parquet")
    pq.write_table(X.append_column(model.target.name, pa.array(run.y)), labelled)
    capsys.readouterr()
    assert main(["evaluate", run.folder, labelled, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["metrics"]
    target = np.searchsorted(model.task.class_names, run.y)
    loss = -np.log(expected[np.arange(len(target)), target]).mean()
    assert measured["log_loss"] == pytest.approx(loss, abs=1e-4)
    assert measured["accuracy"] == pytest.approx(np.mean(codes == target), abs=0.02)

    account = estimator.explain(X)
    values = account.base + (account.values.sum(1) if task == "multiclass" else account.values.sum(1)[:, None])
    logits = estimator.decision_function(X).reshape(values.shape)
    np.testing.assert_allclose(values, logits, rtol=0, atol=1e-5)
    assert account.unit == ("uncalibrated logit" if kind == "isotonic" else "logit")
    assert main(["explain", run.folder, run.file, "--rows", "1"]) == 0
    printed = capsys.readouterr().out
    output = int(codes[0]) if task == "multiclass" else 1
    assert f"{account.unit} " in printed
    [(label, share)] = re.findall(r"row 0: (\w+), probability(?: of yes)? ([\d.]+), ", printed)
    assert float(share) == pytest.approx(expected[0, output], abs=1e-3)
    assert label == decided[0] or not clear[0]

    examined = Examined.of_table(model, open_source(X), target)
    content = report_content(model, examined)
    assert content["unit"] == account.unit
    assert content["training"]["calibration"].startswith(kind)
    for row in content["table"]["rows"]:
        code = list(model.task.class_names).index(row["of"])
        assert row["p"] == pytest.approx(expected[row["n"], code], abs=1e-3)
        assert row["predicted"] == decided[row["n"]] or not clear[row["n"]]
    [stored] = [one[1] for one in content["metrics"] if one[0] == "log_loss"]
    assert stored == pytest.approx(loss, abs=1e-4)
    for row in np.flatnonzero(clear)[:4].tolist():
        changes = estimator.what_if(X, row=row)
        assert changes.decision == decided[row]
        assert all(change.decision_after != decided[row] for change in changes)


@pytest.mark.parametrize(("origin", "kind"), [*(("command", kind) for kind in FRAMES), ("estimator", "Arrow")])
@each_task
def test_a_loaded_estimator_fitted_again_is_the_run(task: str, origin: str, kind: str, run_of: RunOf) -> None:
    run = run_of(task, 0.9, origin)  # a threshold that is not the default's
    estimator, rows = load(run.folder), FRAMES[kind](run.X)
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
    hour = int(label) if part == "hour" else now.hour
    times = (now.replace(hour=hour) + timedelta(days) for days in range(-400, 400))
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

    def decisions(X: pa.Table) -> list[set[str]]:
        """Return what the faces decide about each row of a table."""
        shown = pa.concat_tables(model.score_table(open_source(X)))["prediction"].to_pylist()
        told = zip(estimator.predict(X), model.predict(X), shown, strict=True)
        return [
            {str(one) if crossed is None else "above" if one > crossed else "below" for one in values}
            for values in told
        ]

    logits, tried = model.logits(run.X), set[str]()
    margin = model.task.margin(logits, threshold) if crossed is None else np.abs(logits[:, 0] - crossed)
    asked, answers = [], []
    for row in np.argsort(margin)[:6].tolist():  # the nearest to another decision, so that many changes are found
        one = run.X.slice(row, 1)
        changes = estimator.what_if(run.X, row=row, threshold=crossed)
        asked.append(one)
        answers.append((changes.decision, None))
        for change in changes:
            assert change.decision_before == changes.decision != change.decision_after
            asked.append(changed(one, change))
            answers.append((change.decision_after, change))
            tried.add(change.field)
    for found, (decision, change) in zip(decisions(pa.concat_tables(asked)), answers, strict=True):
        assert found == {decision}, change
    assert tried >= {"age", "langs"}


def test_columns_that_a_decision_at_another_threshold_needs_are_not_named(run_of: RunOf) -> None:
    # The decision that is to flip is that of the run's threshold, 0.9: a row at 0.6 is a "no" there.
    run = run_of("binary", 0.9, "command")
    model = load_model(run.folder)
    between = np.flatnonzero((model.predict_proba(run.X)[:, 1] > 0.5) & (model.predict(run.X) == "no"))
    assert len(between)
    assert load(run.folder).what_if(run.X, row=int(between[0])).decision == "no"
