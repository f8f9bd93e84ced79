"""The report's content and page; how it behaves in a browser is in tests/browser."""

import json
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from attfm import AFMClassifier, AFMRegressor
from attfm.errors import ConfigError, TargetError
from attfm.explain.density import density, stretch_of
from attfm.plots.style import stretched_ticks
from attfm.report.content import report_content
from attfm.report.page import MOST_BYTES, page_of, render_report, write_report
from attfm.report.rows_shown import RANDOM, RIGHT, WRONG, Examined, decided, shown_rows
from attfm.report.warnings import examine_fields, warnings_of

EVIL = "<script>alert(1)</script>"
QUICK = {"epochs": 2, "dim": 2, "attention_dim": 2, "verbose": False}


def table(n: int = 400, seed: int = 0) -> tuple[pa.Table, np.ndarray]:
    """Return columns with an odd one of each kind, and labels that depend on age."""
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 80, n)
    label = np.where(age + rng.normal(0, 15, n) > 50, "yes", "no")
    columns = {
        "age": age,
        "job": rng.choice(["cook", "clerk", EVIL, "</script><b>bold</b>"], n),
        EVIL: rng.choice(["a & b", 'quote " and \u2028'], n),
        "same": ["one"] * n,
        "leak": np.where(label == "yes", "paid", "open"),
        "number": np.arange(n).astype(str),
    }
    return pa.table(columns), label


@pytest.fixture(scope="module")
def model() -> AFMClassifier:
    return AFMClassifier(columns={"number": {"kind": "categorical"}}, **QUICK).fit(*table())


@pytest.fixture(scope="module")
def examined(model: AFMClassifier) -> Examined:
    X, y = table(300, seed=1)
    return Examined.of_table(model.model_, model._source(X), model.model_.target.encode(pa.array(y)))


def data_of(page: str) -> dict:
    """Return the JSON of a page, as a browser would cut it out."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def test_names_that_look_like_markup_are_only_text(model: AFMClassifier, examined: Examined) -> None:
    page = render_report(model.model_, examined)
    assert "alert(1)</script>" not in page.lower()
    assert page.count("<script") == page.count("</script>") == 2
    assert "\u2028" not in page
    data = data_of(page)
    assert EVIL in [column["name"] for column in data["columns"]]
    assert EVIL in next(shape for shape in data["shapes"] if shape["field"] == "job")["labels"]


def test_a_title_is_escaped_and_marks_in_the_data_are_left_alone() -> None:
    page = page_of({"name": "@@title@@ @@data@@"}, title=f"Report: {EVIL}")
    assert '<h1 id="title">Report: &lt;script&gt;' in page
    assert data_of(page) == {"name": "@@title@@ @@data@@"}


def test_the_templates_are_read_as_resources_of_the_package() -> None:
    folder = resources.files("attfm.report") / "templates"
    assert {"report.html", "report.css", "report.js", "charts.js"} <= {file.name for file in folder.iterdir()}
    page = page_of({}, title="t")
    for name in ("report.css", "report.js", "charts.js"):
        assert (folder / name).read_text(encoding="utf-8").strip() in page


def test_the_page_asks_nothing_of_the_network(model: AFMClassifier, examined: Examined) -> None:
    page = render_report(model.model_, examined)
    shell = page.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|@import|url\(|\bsrc=", shell)
    assert "default-src 'none'" in page


def test_warnings_name_constants_leaks_and_unknown_values(model: AFMClassifier, examined: Examined) -> None:
    X, y = table(300, seed=1)
    X = X.set_column(X.schema.get_field_index("job"), "job", pa.array(["pilot"] * 300))
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


def test_a_hundred_rows_are_chosen_right_wrong_and_random(model: AFMClassifier, examined: Examined) -> None:
    groups = shown_rows(model.model_, examined)
    assert list(groups) == [RIGHT, WRONG, RANDOM]
    places = [place for group in groups.values() for place in group]
    assert len(places) == len(set(places)) == 100
    right = decided(model.model_, examined.logits) == examined.target
    assert right[groups[RIGHT]].all()
    assert not right[groups[WRONG]].any()
    certainty = np.abs(examined.logits[:, 0])
    assert certainty[groups[RIGHT]].min() >= np.sort(certainty[right])[-33]
    assert np.all(np.diff(certainty[groups[WRONG]]) <= 0)


def test_few_rows_are_all_shown(model: AFMClassifier) -> None:
    X, y = table(20, seed=2)
    few = Examined.of_table(model.model_, model._source(X), model.model_.target.encode(pa.array(y)))
    groups = shown_rows(model.model_, few)
    assert sorted(place for group in groups.values() for place in group) == list(range(20))


def test_accounts_of_the_rows_add_up(model: AFMClassifier, examined: Examined) -> None:
    content = report_content(model.model_, examined)
    logits = dict(zip(examined.numbers.tolist(), examined.logits[:, 0].tolist(), strict=True))
    assert len(content["table"]["rows"]) == 100
    for row in content["table"]["rows"]:
        total = row["base"] + sum(effect[2] for effect in row["effects"]) + row["rest"]
        assert total == pytest.approx(row["total"], abs=1e-4)
        assert row["total"] == pytest.approx(logits[row["n"]], abs=1e-4)


def test_without_a_target_the_rest_stands(model: AFMClassifier) -> None:
    X, _ = table(150, seed=3)
    content = report_content(model.model_, Examined.of_table(model.model_, model._source(X), None))
    assert content["metrics"] == []
    assert content["curves"] == {}
    assert content["shapes"]
    assert content["importance"]
    assert len(content["table"]["rows"]) == 100
    assert content["table"]["groups"] == ["highest", "lowest", "random"]
    assert all("actual" not in row for row in content["table"]["rows"])


def test_without_a_table_the_stored_parts_stand(model: AFMClassifier) -> None:
    content = report_content(model.model_, None)
    assert content["data"] is None
    assert "table" not in content
    assert content["shapes"]
    assert content["history"]
    assert content["attention"]


def test_a_model_without_background_says_so(model: AFMClassifier, examined: Examined) -> None:
    import dataclasses

    content = report_content(dataclasses.replace(model.model_, background={}), examined)
    assert "no background stored" in content["note"]
    assert content["metrics"]
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
        assert content["table"]["groups"][:2] == ["closest", "farthest off"]
    else:
        assert [curve["name"] for curve in content["curves"]["roc"]]
        assert len(content["outputs"]) == 3
        assert len({shape["field"] for shape in content["shapes"]}) == 2
        assert {row["output"] for row in content["table"]["rows"]} <= {"0", "1", "2"}
    assert len(render_report(estimator.model_, examined)) < MOST_BYTES


def test_a_wide_table_stays_below_five_megabytes() -> None:
    rng = np.random.default_rng(0)
    n, fields = 300, 150
    X = pa.table({f"a rather long column name {f}": rng.normal(size=n) for f in range(fields)})
    y = rng.choice(["no", "yes"], n)
    wide = AFMClassifier(epochs=1, dim=2, attention_dim=2, verbose=False).fit(X, y)
    examined = Examined.of_table(wide.model_, wide._source(X), wide.model_.target.encode(pa.array(y)))
    page = render_report(wide.model_, examined)
    assert len(page.encode()) < MOST_BYTES
    data = data_of(page)
    assert len(data["shapes"]) == fields
    assert len(data["maps"]) == 20
    assert data["attention"]["left"] == fields - len(data["attention"]["fields"])


def test_large_vocabularies_and_several_classes_stay_below_five_megabytes() -> None:
    rng = np.random.default_rng(0)
    n, fields = 20_000, 40
    X = pa.table({f"id of something {f}": rng.integers(0, 10_000, n).astype(str) for f in range(2)} | {
        f"a rather long name of a column {f}": rng.choice(["a rather long name of a category", "other"], n)
        for f in range(2, fields)
    })  # fmt: skip
    settings = {"columns": {f"id of something {f}": {"kind": "categorical"} for f in range(2)}, **QUICK, "epochs": 1}
    large = AFMClassifier(**settings).fit(X, rng.choice(["low", "middle", "high"], n))
    page = render_report(large.model_, Examined.of_table(large.model_, large._source(X.slice(0, 300)), None))
    assert len(page.encode()) < MOST_BYTES
    data = data_of(page)
    assert len(data["shapes"]) == fields
    assert len(data["outputs"]) == 3
    ids = next(shape for shape in data["shapes"] if shape["field"] == "id of something 0")
    assert len(ids["labels"]) == 30
    assert ids["left"] > 3000


def test_the_target_of_the_rows_is_told(model: AFMClassifier, examined: Examined) -> None:
    shares = report_content(model.model_, examined)["targets"]
    counts = {name: int((examined.target == code).sum()) for code, name in enumerate(["no", "yes"])}
    assert {one["name"]: one["rows"] for one in shares} == counts
    assert sum(one["share"] for one in shares) == pytest.approx(1)
    assert report_content(model.model_, None)["targets"] == []


def test_a_field_that_crowds_near_zero_has_a_stretched_axis() -> None:
    rng = np.random.default_rng(0)
    edges = np.unique(np.quantile(np.exp(rng.normal(3, 2, 5000)), np.linspace(0, 1, 100)))
    stretch = stretch_of(np.full(99, 50), edges)
    assert stretch is not None
    assert edges[0] < stretch < np.median(edges)
    heights, bounds = density(np.full(99, 50), edges, stretch=stretch)
    assert heights.sum() == pytest.approx(99 * 50)
    assert np.ptp(np.diff(np.arcsinh(bounds / stretch))) < 1e-9
    assert heights.max() < 0.2 * heights.sum()  # and no longer all in one bar
    ticks = stretched_ticks(edges[0], edges[-1], stretch)
    assert len(ticks) >= 4
    assert np.diff(np.arcsinh(np.array(ticks) / stretch)).min() > 0.1 * np.ptp(np.arcsinh(edges / stretch))
    assert stretch_of(np.full(99, 50), np.linspace(17, 90, 100)) is None
    assert stretch_of(np.array([1, 4900, 1]), np.array([-1000.0, 900, 930, 1000])) is None  # crowded, but not near 0
    assert stretch_of(np.array([5]), np.array([3.0, 3.0])) is None


def test_a_large_table_is_sampled_evenly(model: AFMClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attfm.report.rows_shown.MOST_ROWS", 100)
    X, y = table(1000, seed=4)
    codes = model.model_.target.encode(pa.array(y))
    some = Examined.of_table(model.model_, model._source(X), codes)
    assert some.total == 1000
    assert 50 < len(some) <= 100
    assert some.numbers.max() > 800
    assert some.numbers.min() < 200
    assert some.target is not None
    assert np.array_equal(some.target, codes[some.numbers])


def test_the_estimator_writes_a_report(model: AFMClassifier, tmp_path: Path) -> None:
    X, y = table(100, seed=5)
    path = model.report(tmp_path / "page.html", X, y)
    data = data_of(path.read_text(encoding="utf-8"))
    assert data["data"]["rows"] == 100
    assert len(data["metrics"]) == 9
    assert data_of(model.report(tmp_path / "bare.html").read_text(encoding="utf-8"))["data"] is None
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bare.html", "page.html"]


def test_bad_calls_are_explained(model: AFMClassifier, tmp_path: Path) -> None:
    X, y = table(50)
    with pytest.raises(ConfigError, match=r"no X"):
        model.report(tmp_path / "a.html", None, y)
    with pytest.raises(ConfigError, match=r"a\.txt.*\.html"):
        model.report(tmp_path / "a.txt", X, y)
    with pytest.raises(ConfigError, match=r"is a folder"):
        write_report(model.model_, tmp_path)
    with pytest.raises(ConfigError, match=r"no folder '.*nowhere'"):
        write_report(model.model_, tmp_path / "nowhere" / "a.html")
    with pytest.raises(TargetError, match=r"perhaps"):
        model.report(tmp_path / "a.html", X, np.where(y == "no", "perhaps", y))
    assert list(tmp_path.iterdir()) == []
