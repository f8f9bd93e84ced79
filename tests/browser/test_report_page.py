"""The report in a real browser: what is drawn, clicks and keys, widths, and that nothing is fetched."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from attfm import AFMClassifier

EVIL = "<script>alert(1)</script>"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no chromium is installed: 'make test-browser' installs it"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: 'make test-browser' does it")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    n = 500
    age = np.where(rng.random(n) < 0.1, np.nan, rng.integers(18, 80, n))
    y = np.where(np.nan_to_num(age, nan=40) + rng.normal(0, 15, n) > 50, "yes", "no")
    X = pa.table(
        {
            "age": pa.array(age, from_pandas=True),
            "job": rng.choice(["cook", "clerk", EVIL], n),
            EVIL: rng.choice(["a & b", "</script><img src=x onerror=alert(1)>"], n),
            "same": ["one"] * n,
            "paid": np.where((y == "yes") != (np.arange(n) % 170 == 0), "paid", "open"),
            "town": np.char.add("town ", rng.integers(0, 200, n).astype(str)),
        }
    )
    settings = {"columns": {"town": {"kind": "categorical"}}, "min_count": 3}
    model = AFMClassifier(epochs=3, dim=2, attention_dim=2, verbose=False, **settings).fit(X, y)
    return model.report(tmp_path_factory.mktemp("report") / "page.html", X, y)


class Watched:
    """A page, with all that it complained of or asked for."""

    def __init__(self, browser: Any, report: Path, *, width: int = 1440, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.problems.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.as_uri())


# Contrast of a text with what lies behind it, as WCAG 2 defines it.
CONTRAST = """what => {
  const node = document.querySelector(what);
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const style = getComputedStyle(node);
  let behind = node, paper;
  do { paper = getComputedStyle(behind).backgroundColor; behind = behind.parentElement; } while (/, 0\\)$/.test(paper) && behind);
  const [dark, bright] = [light(node.closest("svg") ? style.fill : style.color), light(paper)].sort((a, b) => a - b);
  return (bright + 0.05) / (dark + 0.05);
}"""  # noqa: E501
CUT_OFF = """() => [...document.querySelectorAll("main svg text")].filter((text) => {
  const box = text.getBoundingClientRect(), all = text.closest("svg").getBoundingClientRect();
  return box.left < all.left - 1 || box.right > all.right + 1 || box.top < all.top - 2 || box.bottom > all.bottom + 2;
}).map((text) => text.textContent)"""


def contrast(page: Any, what: str) -> float:
    """Return the contrast of the first such node; 4.5 is the least of readable text."""
    return float(page.evaluate(CONTRAST, what))  # in one go: a picture that is drawn anew takes its nodes away


def cut_off(page: Any) -> list[str]:
    """Return the texts of pictures that end outside them."""
    return list(page.evaluate(CUT_OFF))


@pytest.fixture
def watched(browser: Any, report: Path) -> Iterator[Watched]:
    opened = Watched(browser, report)
    yield opened
    assert opened.problems == []
    assert opened.requests == [report.as_uri()]
    opened.page.close()


def test_every_part_is_drawn(watched: Watched) -> None:
    page = watched.page
    titles = page.locator("main h2").all_text_contents()
    assert titles == ["Data", "Metrics", "Curves", "Importance", "Attention", "Shapes", "Pairs", "Rows"]
    assert page.locator("#shapes figure svg").count() == 6
    assert page.locator("#maps figure svg").count() == 15
    assert page.locator("#curves figure h3").all_text_contents() == [
        "ROC curve", "Precision and recall", "Calibration", "Learning curve",
    ]  # fmt: skip
    assert "Brier score" in page.locator("#curves").inner_text()
    assert page.locator("svg:not([aria-label])").count() == 0
    # A broken scale would leave NaN in the drawing, which browsers pass over in silence.
    assert "NaN" not in page.locator("main").inner_html()


def test_names_that_look_like_markup_are_shown_as_text(watched: Watched) -> None:
    page = watched.page
    assert page.locator("#shapes figure h3").filter(has_text=EVIL).count() == 1
    assert page.locator("main img, main script").count() == 0
    assert EVIL in page.locator("#columns, #summary").first.text_content()


def test_a_click_shows_the_waterfall_and_another_hides_it(watched: Watched) -> None:
    page = watched.page
    row = page.locator("#row-table tr.row").nth(3)
    assert page.locator("tr.account").count() == 0
    row.click()
    account = page.locator("tr.account")
    assert account.count() == 1
    number = row.locator("button").inner_text()
    assert account.locator("h3").inner_text().startswith(f"Row {number}:")
    assert f"waterfall of row {number.replace(',', '')};" in account.locator("svg").get_attribute("aria-label")
    assert account.locator("svg rect").count() >= 4
    assert account.locator("dt").all_text_contents() == ["age", "job", EVIL, "same", "paid", "town"]
    row.click()
    assert page.locator("tr.account").count() == 0


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_keys_show_it_too(watched: Watched, key: str) -> None:
    page = watched.page
    button = page.locator("#row-table tr.row button").first
    button.focus()
    outline = button.evaluate("node => getComputedStyle(node).outlineStyle")
    assert outline == "solid"
    page.keyboard.press(key)
    assert page.locator("tr.account svg").count() == 1
    assert button.get_attribute("aria-expanded") == "true"
    # What is remembered and the standard errors stand in the account: a summary, and a table that may scroll.
    stops = page.locator("tr.account summary, tr.account [tabindex]").count()
    for _ in range(stops):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('tr.account') !== null")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "open"


def test_rows_are_sorted_by_a_column(watched: Watched) -> None:
    page = watched.page
    head = page.locator("#row-table th").filter(has_text="row").first
    numbers = lambda: [int(t.replace(",", "")) for t in page.locator("tr.row button").all_inner_texts()]  # noqa: E731
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert numbers() == sorted(numbers())
    assert len(numbers()) == 100
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert numbers() == sorted(numbers(), reverse=True)
    page.locator("#row-table th button").nth(3).click()
    chances = [float(t.split()[0]) for t in page.locator("tr.row td:nth-child(4)").all_inner_texts()]
    assert chances == sorted(chances)


def test_rows_are_searched(watched: Watched) -> None:
    page = watched.page
    page.locator("#search").fill("most confident wrong")
    shown = page.locator("tr.row")
    assert 0 < shown.count() < 100
    assert page.locator("#found").inner_text() == f"{shown.count()} of 100 rows"
    assert set(page.locator("tr.row td:nth-child(2)").all_inner_texts()) == {"most confident wrong"}
    assert shown.count() == page.locator("tr.row.wrong").count()
    page.locator("#search").fill("<script>")
    assert 0 < shown.count() < 100
    page.locator("#search").fill("nothing like it")
    assert shown.count() == 0


def test_numbers_stand_beside_the_figures(watched: Watched) -> None:
    page = watched.page
    figure = page.locator("#shapes figure").filter(has_text="job").first
    figure.locator("summary").click()
    assert figure.locator("details tbody tr").count() == 3
    assert figure.locator("details thead th").all_inner_texts() == ["value", "effect", "rows"]


def test_warnings_are_listed(watched: Watched) -> None:
    found = {
        (item.get_attribute("data-kind"), item.locator("strong").inner_text()): item.inner_text()
        for item in watched.page.locator("#warnings li").all()
    }
    assert set(found) == {("constant", "same"), ("leak", "paid"), ("unknown", "town")}
    assert "has one value only" in found["constant", "same"]
    assert "a likely leak" in found["leak", "paid"]
    assert "% of these rows: the model knows nothing of them" in found["unknown", "town"]


def test_the_calibration_error_is_within_the_interval_shown(watched: Watched) -> None:
    row = watched.page.locator("#metrics tbody tr").filter(has_text="calibration error").locator("td")
    value, (low, high) = float(row.nth(1).inner_text()), map(float, row.nth(2).inner_text().split(" to "))
    assert low <= value <= high
    assert low < high


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 400])
def test_nothing_is_wider_than_the_window(browser: Any, report: Path, width: int, scheme: str) -> None:
    opened = Watched(browser, report, width=width, scheme=scheme)
    page = opened.page
    page.locator("tr.row").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # A picture may be wider than its room, where it scrolls; no room is wider than the window.
    too_wide = "[...document.querySelectorAll('.room')].filter(s => s.getBoundingClientRect().right > innerWidth)"
    assert page.evaluate(f"{too_wide}.length") == 0
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 26)")
    for what in ("main h2", "figure svg text", "figcaption", "tr.account svg text", "td", "#warnings li"):
        assert contrast(page, what) > 4.5, what
    assert cut_off(page) == []
    assert opened.problems == []
    page.close()


def test_figures_follow_the_window(watched: Watched) -> None:
    page = watched.page
    wide = page.locator("#importance svg").get_attribute("width")
    page.set_viewport_size({"width": 500, "height": 900})
    page.locator(f"#importance svg:not([width='{wide}'])").wait_for()
    assert float(page.locator("#importance svg").get_attribute("width")) < 500 < float(wide)


def test_another_class_has_other_shapes_and_numbers(browser: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = pa.table({"job": rng.choice(["cook", "clerk"], 200), "age": rng.integers(18, 80, 200)})
    y = np.digitize(X["age"].to_numpy(), [40, 60]).astype(str)
    model = AFMClassifier(epochs=3, dim=2, attention_dim=2, verbose=False).fit(X, y)
    opened = Watched(browser, model.report(tmp_path / "page.html", X, y))
    figure = opened.page.locator("#shapes figure").filter(has_text="job").first

    def numbers() -> list[str]:
        figure.locator("summary").click()
        figure.locator("details tbody").wait_for()
        return figure.locator("details td").all_inner_texts()

    before = figure.locator("svg").get_attribute("aria-label"), numbers()
    opened.page.locator("select").select_option("2")
    after = figure.locator("svg").get_attribute("aria-label"), numbers()
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert opened.problems == []
    opened.page.close()


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[AFMClassifier, pa.Table, Path]:
    """Return a model of 40 fields with long names, a table, and their report without labels."""
    rng = np.random.default_rng(0)
    n = 300
    X = pa.table(
        {
            f"WIDE COLUMN NAME WITH MANY LETTERS, number {f}": (
                np.exp(rng.normal(3, 2, n)) if f % 2 else rng.choice(["A RATHER LONG NAME OF A CATEGORY, MMM", "b"], n)
            )
            for f in range(40)
        }
    )
    model = AFMClassifier(epochs=1, dim=2, attention_dim=2, verbose=False).fit(X, rng.choice(["no", "yes"], n))
    return model, X, model.report(tmp_path_factory.mktemp("wide") / "page.html", X)


@pytest.mark.parametrize("width", [1440, 400])
def test_forty_fields_have_readable_labels(
    browser: Any, wide: tuple[AFMClassifier, pa.Table, Path], width: int
) -> None:
    opened = Watched(browser, wide[2], width=width)
    page = opened.page
    page.locator("tr.row button").first.click()
    assert cut_off(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = "[...document.querySelectorAll('main svg text')].map(t => parseFloat(getComputedStyle(t).fontSize))"
    assert min(page.evaluate(sizes)) >= 10
    room = page.locator("#attention .room")
    shown, whole = room.evaluate("node => [node.clientWidth, node.scrollWidth]")
    if width == 400:  # too many columns for the window: the matrix scrolls, by keys too
        assert whole > shown
        room.evaluate("node => { window.moved = new Promise(done => node.addEventListener('scroll', done)); }")
        room.focus()
        page.keyboard.press("ArrowRight")
        assert room.evaluate("async node => { await window.moved; return node.scrollLeft; }") > 0
    else:
        assert whole == shown
        assert room.get_attribute("tabindex") is None
    assert "logarithmic away from 0" in page.locator("#shapes").text_content()
    assert opened.problems == []
    page.close()


def test_without_the_target_nothing_is_measured(browser: Any, wide: tuple[AFMClassifier, pa.Table, Path]) -> None:
    opened = Watched(browser, wide[2])
    page = opened.page
    told = page.locator("#summary").inner_text()
    assert "The target 'target' is not in it, so nothing is measured" in told
    assert "predicts the target alone" not in told
    titles = page.locator("main h2").all_text_contents()
    assert titles == ["Data", "Curves", "Importance", "Attention", "Shapes", "Pairs", "Rows"]
    assert page.locator("#curves figure h3").all_text_contents() == ["Learning curve"]
    assert opened.problems == []
    page.close()


def test_without_a_table_the_page_says_what_adds_the_rest(
    browser: Any, wide: tuple[AFMClassifier, pa.Table, Path], tmp_path: Path
) -> None:
    opened = Watched(browser, wide[0].report(tmp_path / "page.html"))
    page = opened.page
    assert "attfm report RUN --data test.csv" in page.locator("#summary").inner_text()
    titles = page.locator("main h2").all_text_contents()
    assert titles == ["Data", "Curves", "Importance", "Attention", "Shapes", "Pairs"]
    assert page.locator("#shapes figure svg").count() == 40
    assert opened.problems == []
    page.close()


def test_it_prints_without_controls_and_on_white(watched: Watched) -> None:
    page = watched.page
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.locator("nav").is_visible()
    assert not page.locator("#search").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.locator("tr.row").first.dispatch_event("click")
    assert len(page.pdf()) > 10_000
    assert page.locator("#summary details[open]").count() == 2  # paper can't be opened
    page.set_viewport_size({"width": 720, "height": 1000})
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    assert contrast(page, "figure svg text") > 4.5


@pytest.mark.parametrize(
    ("refit", "seeds", "kept", "rows"),
    [
        (False, 1, "the parameters of epoch", "40 more for validation"),
        (True, 1, "the model is one trained for .* on all rows", "40 of them for validation at first"),
        (True, 2, "the model is the mean of 2 seeds trained for .* on all rows", "40 of them for validation at first"),
        (False, 2, "the model is the mean of 2 seeds trained for .* on the training rows", "40 more for validation"),
    ],
)
def test_what_was_kept_is_told(browser: Any, tmp_path: Path, *, refit: bool, seeds: int, kept: str, rows: str) -> None:
    rng = np.random.default_rng(0)
    X = pa.table({"job": rng.choice(["cook", "clerk"], 200), "age": rng.integers(18, 80, 200)})
    y = X["age"].to_numpy() > 50
    settings = {"n_models": 1, "refit": refit, "n_seeds": seeds, "validation_fraction": 0.2}
    model = AFMClassifier(epochs=3, dim=2, attention_dim=2, verbose=False, **settings).fit(X, y)
    page = Watched(browser, model.report(tmp_path / "page.html", X, y)).page
    assert re.search(kept, page.locator("#curves").inner_text())
    assert rows in page.locator("#summary").inner_text()
