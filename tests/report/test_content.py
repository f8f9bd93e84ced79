"""What stands in a report."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from attfm import AFMClassifier, AFMRegressor
from attfm.report.content import report_content
from attfm.report.page import MOST_BYTES, render_report
from attfm.report.rows_shown import Examined
from tests.explain.account import clashing, source
from tests.explain.account import model as model_of
from tests.report.pages import QUICK, table


def test_accounts_of_the_rows_add_up(model: AFMClassifier, examined: Examined) -> None:
    content = report_content(model.model_, examined)
    logits = dict(zip(examined.numbers.tolist(), examined.logits[:, 0].tolist(), strict=True))
    assert len(content["table"]["rows"]) == 100
    for row in content["table"]["rows"]:
        total = row["base"] + sum(effect[2] for effect in row["effects"]) + row["rest"]
        assert total == pytest.approx(row["total"], abs=1e-4)
        assert row["total"] == pytest.approx(logits[row["n"]], abs=1e-4)


def test_accounts_say_what_is_remembered_and_the_standard_errors() -> None:
    rng = np.random.default_rng(0)
    users, films = rng.integers(0, 30, 900), rng.integers(0, 25, 900)
    y = (rng.random((30, 25)) < 0.5)[users, films]  # what a pair of values says, and no single one
    X = pa.table({"user": [f"u{i}" for i in users], "film": [f"f{i}" for i in films]})
    model = AFMClassifier(epochs=3, n_models=2, dim=2, attention_dim=2).fit(X, y)
    examined = Examined.of_table(model.model_, model._source(X), y.astype(np.int64))
    account = model.explain(X)
    for row in report_content(model.model_, examined)["table"]["rows"][:20]:
        pair = next(effect for effect in row["effects"] if len(effect[0]) == 2)
        expected = next(effect for effect in account[row["n"]].top(3)[0] if len(effect.fields) == 2)
        times = int(((users == users[row["n"]]) & (films == films[row["n"]])).sum())
        assert expected.spread > 0
        assert pair[3] == pytest.approx(expected.spread, rel=1e-2)
        assert times / 2 <= expected.seen <= times  # by the one of two models that has more of them
        assert pair[4] == f"{expected.memory:+.4f}, seen {'once' if expected.seen == 1 else f'{expected.seen} times'}"


def test_without_a_target_the_rest_stands(model: AFMClassifier) -> None:
    X, _ = table(150, seed=3)
    content = report_content(model.model_, Examined.of_table(model.model_, model._source(X), None))
    assert content["metrics"] == []
    assert content["curves"] == {}
    assert [shape["field"] for shape in content["shapes"]] == [
        one["name"] for one in content["importance"] if one["kind"] == "field"
    ]
    assert len(content["importance"]) == 6 + 15  # fields and pairs
    assert len(content["table"]["rows"]) == 100
    assert content["table"]["groups"] == ["highest", "lowest", "random"]
    assert all("actual" not in row for row in content["table"]["rows"])


def test_without_a_table_the_stored_parts_stand(model: AFMClassifier) -> None:
    content = report_content(model.model_, None)
    assert content["data"] is None
    assert "table" not in content
    assert len(content["shapes"]) == 6
    assert [record["epoch"] for record in content["history"]] == [1, 2]
    matrix = np.array(content["attention"]["cells"], np.float64)
    assert np.isnan(np.diag(matrix)).all()
    assert np.nanmean(matrix) == pytest.approx(1, abs=1e-3)  # in multiples of equal attention


def test_a_model_without_background_says_so(model: AFMClassifier, examined: Examined) -> None:
    content = report_content(dataclasses.replace(model.model_, background={}), examined)
    assert "no background stored" in content["note"]
    assert content["metrics"] == report_content(model.model_, examined)["metrics"]
    assert "shapes" not in content


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks_have_their_curves(task: str) -> None:
    rng = np.random.default_rng(0)
    X = pa.table({"x": rng.normal(size=200), "c": rng.choice(["u", "v"], 200)})
    if task == "regression":
        y = X["x"].to_numpy() + rng.normal(0, 0.3, 200)
        estimator: AFMClassifier | AFMRegressor = AFMRegressor(**QUICK).fit(X, y)
        target = y
    else:
        y = np.digitize(X["x"].to_numpy(), [-0.5, 0.5]).astype(str)
        estimator = AFMClassifier(**QUICK).fit(X, y)
        target = estimator.model_.target.encode(pa.array(y))
    examined = Examined.of_table(estimator.model_, estimator._source(X), target)
    content = report_content(estimator.model_, examined)
    if task == "regression":
        assert set(content["curves"]) == {"scatter", "means"}
        assert sorted(actual for _, actual in content["curves"]["scatter"]) == pytest.approx(np.sort(y), rel=1e-4)
        assert content["table"]["groups"][:2] == ["closest", "farthest off"]
    else:
        frequent = sorted("012", key=lambda name: -(y == name).sum())
        assert [curve["name"] for curve in content["curves"]["roc"]] == frequent
        assert content["outputs"] == ["0", "1", "2"]
        assert {shape["field"] for shape in content["shapes"]} == {"x", "c"}
        assert {row["output"] for row in content["table"]["rows"]} <= {"0", "1", "2"}
    assert len(render_report(estimator.model_, examined)) < MOST_BYTES


def test_the_target_of_the_rows_is_told(model: AFMClassifier, examined: Examined) -> None:
    shares = report_content(model.model_, examined)["targets"]
    counts = {name: int((examined.target == code).sum()) for code, name in enumerate(["no", "yes"])}
    assert {one["name"]: one["rows"] for one in shares} == counts
    assert sum(one["share"] for one in shares) == pytest.approx(1)
    assert report_content(model.model_, None)["targets"] == []


def test_a_field_called_like_a_pair_is_told_apart_from_it() -> None:
    made = model_of(table=clashing())
    content = report_content(made, Examined.of_table(made, source(clashing()), None))
    kinds = {tuple(one["fields"]): (one["name"], one["kind"]) for one in content["importance"]}
    assert kinds["a × b",] == ("a × b", "field")
    assert kinds["a", "b"] == ("a × b", "pair")
    for row in content["table"]["rows"]:
        values = {tuple(fields): values for fields, values, *_ in row["effects"]}
        cells = dict(zip(("a", "b", "a × b"), (column[row["n"]].as_py() for column in clashing().columns), strict=True))
        assert values["a × b",] == [cells["a × b"]]
        assert values["a", "b"] == [cells["a"], cells["b"]]
