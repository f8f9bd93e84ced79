"""Write the pictures of report.md: trains on Adult, writes its report, and photographs it in a headless browser.

Needs chromium and playwright, which `make test-browser` installs. Example: python -m benchmarks.report_pictures
"""

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from attfm import AFMClassifier, load_dataset
from attfm.data.datasets import adult_split

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
WIDTH, MOST_BYTES = 1000, 150_000


def photograph(page: Page, first: str, last: str, name: str) -> None:
    """Write what the page shows from the top of one element to the bottom of another."""
    page.evaluate("document.querySelector('nav').style.position = 'static'")
    down = page.evaluate("scrollY")
    top, bottom = (page.locator(one).bounding_box() for one in (first, last))
    if top is None or bottom is None:
        raise SystemExit(f"the report has no '{first}' or '{last}'")
    high = bottom["y"] + bottom["height"] - top["y"] + 16
    file = PICTURES / f"{name}.png"
    page.screenshot(
        path=file, full_page=True, clip={"x": 0, "y": max(top["y"] + down - 8, 0), "width": WIDTH, "height": high}
    )
    with Image.open(file) as image:
        image.convert("RGB").quantize(64).save(file, optimize=True)  # a page has few colours: a third of the bytes
    if file.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{file} has {file.stat().st_size:,} bytes: at most {MOST_BYTES:,} are wanted")


def main() -> None:
    """Train, write the report, photograph its head and a row's account."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        raise SystemExit("no chromium is installed: 'make test-browser' installs it")
    adult = load_dataset("adult")
    X, y = adult.drop_columns(["income"]), adult["income"].to_numpy()
    train, valid, test = adult_split(y)
    model = AFMClassifier(random_state=0, verbose=False).fit(
        X.take(train), y[train], eval_set=(X.take(valid), y[valid])
    )
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report = model.report(Path(folder) / "report.html", X.take(test), y[test])
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = opened.new_page(viewport={"width": WIDTH, "height": 900}, reduced_motion="reduce")
        page.goto(report.as_uri())
        photograph(page, "header", "#curves figure:nth-of-type(2)", "report")
        page.locator("#search").fill("most confident wrong")
        page.locator("tr.row").first.click()
        photograph(page, "#rows", "tr.account", "report-row")
        opened.close()


if __name__ == "__main__":
    sys.exit(main())
