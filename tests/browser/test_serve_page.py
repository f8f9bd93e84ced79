"""The service's page in a real browser: what clicks, keys and widths do, and that nothing else is fetched."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.client import Running, running
from tests.serve.conftest import ROW
from tests.serve.evil import SCRIPT, every_kind, evil_run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.skipif(BROWSER is None, reason="no chromium is installed: 'make test-browser' installs it"),
]
KEY = "a key that nobody guesses"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: 'make test-browser' does it")
    pytest.importorskip("fastapi", reason="attfm[serve] is not installed")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def service(run: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(run, tmp_path_factory.mktemp("page") / "log") as started:
        yield started


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("evil")
    with running(evil_run(folder / "run"), folder / "log") as started:
        yield started


class Watched:
    """A page, with all that it complained of or asked for."""

    def __init__(self, browser: Any, service: Running, *, width: int = 1440, **options: Any) -> None:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        self.page = context.new_page()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.problems.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(service.url)

    def share(self) -> float:
        """Return the probability that is shown, in per cent."""
        return float(self.page.inner_text("#prediction .share b").removesuffix(" %"))

    def changed(self, act: Any) -> None:
        """Do something, and wait until the account is of the new row."""
        with self.page.expect_response(re.compile("/page/account$")):
            act()
        self.page.wait_for_selector("#account:not(.stale)")


def _share(service: Running, **changes: Any) -> float:
    return round(100 * float(service.ask("POST", "/predict", {"row": {**ROW, **changes}}).json()["probability"]), 1)


def test_the_account_follows_the_row(browser: Any, service: Running) -> None:
    watched = Watched(browser, service)
    page = watched.page
    for name, value in (("#c1", "pilot"), ("#c1", "cook"), ("#c2", "town 0"), ("#c2", "town 1")):
        if page.input_value(name) != value:
            watched.changed(lambda name=name, value=value: page.select_option(name, value))
    watched.changed(lambda: page.fill("#c0", "70"))
    assert watched.share() == _share(service, age=70)
    assert page.locator(".slider").input_value() == "70"
    # The slider by keys, as one who uses no mouse; the account says what it says.
    watched.changed(lambda: page.locator(".slider").evaluate(
        "s => { s.value = 20; s.dispatchEvent(new Event('input', {bubbles: true})); }"))  # fmt: skip
    assert page.input_value("#c0") == "20"
    assert watched.share() == _share(service, age=20)
    assert "age 20" in page.inner_text("#account")
    watched.changed(lambda: page.fill("#c0", ""))
    assert watched.share() == _share(service, age=None)
    watched.changed(lambda: page.select_option("#c1", label="(not known)"))
    assert watched.share() == _share(service, age=None, job=None)
    watched.changed(lambda: page.click("#again"))
    assert page.locator("#account .waterfall tbody tr").count() > 4
    widths = page.evaluate("[...document.querySelector('#account tbody tr').children].map(c => c.offsetWidth)")
    assert widths[1] > 1.2 * widths[2]  # the bars have the room that the numbers do not need
    assert all(url.startswith((service.url, "data:")) for url in watched.requests)
    assert not watched.problems


def test_what_would_change_it_is_tried_by_a_click(browser: Any, service: Running) -> None:
    watched = Watched(browser, service)
    page = watched.page
    before = page.inner_text("#prediction output")
    page.click("#ask")
    page.wait_for_selector("#changes li")
    for place in range(page.locator("#changes .try").count()):
        if place:
            watched.changed(lambda: page.click("#again"))
            page.click("#ask")
            page.wait_for_selector("#changes li")
        watched.changed(lambda place=place: page.locator("#changes .try").nth(place).click())
        assert page.inner_text("#prediction output") != before
    assert not watched.problems


def test_every_control_is_reached_and_used_by_keys(browser: Any, service: Running) -> None:
    watched = Watched(browser, service)
    page = watched.page
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert {"Skip to the prediction", "again", "c0", "c1", "c2", "ask"} <= set(reached)
    page.focus("#c0")
    watched.changed(lambda: page.keyboard.press("ArrowUp"))
    page.focus("#c1")
    before = page.input_value("#c1")
    watched.changed(lambda: page.keyboard.press("ArrowDown"))
    assert page.input_value("#c1") != before
    assert not watched.problems


def test_a_long_list_is_searched_by_mouse_and_keys(browser: Any, evil: Running) -> None:
    watched = Watched(browser, evil)
    page = watched.page
    box = page.locator("[role=combobox]")
    box.click()
    page.wait_for_selector("[role=option]")
    assert page.locator("[role=option]").count() == 50
    box.fill(">77")
    page.locator("[role=option]").nth(1).wait_for(state="detached")
    watched.changed(lambda: page.click("[role=option]"))
    assert box.input_value() == SCRIPT + "77"
    box.fill(">8")
    page.locator("[role=option]").nth(10).wait_for()
    assert page.locator("[role=option]").count() == 11
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.locator("[role=option][aria-selected=true]").count() == 1
    watched.changed(lambda: page.keyboard.press("Enter"))
    assert box.input_value().startswith(SCRIPT + "8")
    assert box.get_attribute("aria-expanded") == "false"
    box.fill("nobody")
    page.wait_for_selector("#form li.none")
    page.keyboard.press("Escape")
    assert page.locator("#form ul").is_hidden()
    assert not watched.problems


def test_names_and_values_of_an_attacker_stay_text(browser: Any, evil: Running) -> None:
    watched = Watched(browser, evil)
    page = watched.page
    page.click("#ask")
    page.wait_for_selector("#changes li, #changes p")
    watched.changed(lambda: page.select_option("#c0", SCRIPT))
    page.goto(evil.url + "/docs")
    assert page.locator("script").count() == 0
    assert not watched.problems


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks_and_kinds_of_column(browser: Any, tmp_path: Path, task: str) -> None:
    folder, _ = every_kind(tmp_path / "run", task)
    with running(folder, tmp_path / "log") as service:
        watched = Watched(browser, service)
        page = watched.page
        watched.changed(lambda: page.fill("#c1", "-1.23457e-06"))  # as many digits as the form itself writes
        cut = page.evaluate(
            "[...document.querySelectorAll('[type=number]')].filter(i => i.scrollWidth > i.clientWidth).map(i => i.id)"
        )
        assert not cut
        watched.changed(lambda: page.fill("#c1", "1"))
        if task == "multiclass":
            watched.changed(lambda: page.select_option("#output", "2"))
            assert page.input_value("#output") == "2"
            assert page.locator("#prediction .share").count() == 3
        watched.changed(lambda: page.fill("[data-kind=list]", "a; b"))
        watched.changed(lambda: page.fill("[data-kind=map]", "p"))
        watched.changed(lambda: page.fill("[type=datetime-local]", "2024-05-06T07:08"))
        page.click("#ask")
        page.wait_for_selector("#changes li, #changes p.note")
        assert not watched.problems


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1440])
def test_no_width_is_too_narrow(browser: Any, service: Running, width: int) -> None:
    watched = Watched(browser, service, width=width, has_touch=width < 800)
    page = watched.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width < 760:
        page.evaluate("scrollTo(0, 400)")
        assert page.locator("#prediction").bounding_box()["y"] < 5  # it stays in sight while one changes the row
        small = page.evaluate(
            "[...document.querySelectorAll('#form select, #form input, #form button, #ask')]"
            ".filter(c => c.getBoundingClientRect().height < 44).length"
        )
        assert small == 0
    page.goto(service.url + "/docs")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    names = page.evaluate(  # no name of a field is broken into pieces
        "[...document.querySelectorAll('td:first-child')].map(t => t.firstChild)"
        ".map(t => { let r = document.createRange(); r.selectNode(t); return r.getClientRects().length; })"
    )
    assert set(names) == {1}


def test_the_key_is_asked_for_by_the_browser(browser: Any, run: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    with running(run, tmp_path / "log", ["--api-key-file", str(file)]) as service:
        watched = Watched(browser, service, http_credentials={"username": "any", "password": KEY})
        watched.changed(lambda: watched.page.fill("#c0", "30"))
        assert 0 < watched.share() < 100
        assert not [problem for problem in watched.problems if "401" not in problem]


def test_a_fault_stands_at_its_field_and_a_silent_service_is_told(browser: Any, run: str, tmp_path: Path) -> None:
    with running(run, tmp_path / "log", ["--drain", "0"]) as service:
        watched = Watched(browser, service)
        page = watched.page
        page.evaluate("document.getElementById('c1').dataset.kind = 'number'")  # as if a browser sent a number
        with page.expect_response(re.compile("/page/account$")):
            page.select_option("#c1", "cook")
            page.evaluate("document.getElementById('c1').selectedOptions[0].value = '5'")
        page.wait_for_selector("#c1f:not([hidden])")
        assert "Field 'job'" in page.inner_text("#c1f")
        assert page.get_attribute("#c1", "aria-invalid") == "true"
        assert service.end() == 0
        page.fill("#c0", "33")
        page.wait_for_selector("#alert:not([hidden])")
        assert "does not answer" in page.inner_text("#alert")
