"""The page; how it behaves in a browser is in tests/browser."""

import re
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from attfm import AFMClassifier
from attfm.errors import ConfigError, TargetError
from attfm.report.page import MOST_BYTES, page_of, render_report, write_report
from attfm.report.rows_shown import Examined
from tests.report.pages import EVIL, QUICK, data_of, table


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


def test_a_wide_table_stays_below_five_megabytes() -> None:
    rng = np.random.default_rng(0)
    n, fields = 300, 150
    X = pa.table({f"a rather long column name {f}": rng.normal(size=n) for f in range(fields)})
    y = rng.choice(["no", "yes"], n)
    wide = AFMClassifier(memory_pairs=0, n_models=1, **QUICK).fit(X, y)
    examined = Examined.of_table(wide.model_, wide._source(X), wide.model_.target.encode(pa.array(y)))
    page = render_report(wide.model_, examined)
    assert len(page.encode()) < MOST_BYTES
    data = data_of(page)
    assert len(data["shapes"]) == fields
    assert len(data["maps"]) == 20
    assert data["attention"]["left"] == fields - len(data["attention"]["fields"])


def test_large_vocabularies_and_several_classes_stay_below_five_megabytes() -> None:
    rng = np.random.default_rng(0)
    n, fields = 6000, 40
    X = pa.table({f"id of something {f}": rng.integers(0, 10_000, n).astype(str) for f in range(2)} | {
        f"a rather long name of a column {f}": rng.choice(["a rather long name of a category", "other"], n)
        for f in range(2, fields)
    })  # fmt: skip
    ids = {f"id of something {f}": {"kind": "categorical"} for f in range(2)}
    large = AFMClassifier(columns=ids, memory_pairs=0, n_models=1, batch_size=1000, **QUICK).fit(
        X, rng.choice(["low", "middle", "high"], n)
    )
    page = render_report(large.model_, Examined.of_table(large.model_, large._source(X.slice(0, 300)), None))
    assert len(page.encode()) < MOST_BYTES
    data = data_of(page)
    assert len(data["shapes"]) == fields
    assert len(data["outputs"]) == 3
    shape = next(shape for shape in data["shapes"] if shape["field"] == "id of something 0")
    assert len(shape["labels"]) == 30
    assert shape["left"] > 3000


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
