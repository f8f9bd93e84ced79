"""The report: one HTML file that shows a model, opens offline and asks nothing of the network."""

import html
import json
from importlib import resources
from pathlib import Path
from typing import Any

from attfm.model.bundle import Model
from attfm.output_file import OutputFile
from attfm.report.content import report_content
from attfm.report.rows_shown import Examined

REPORT_FILE = OutputFile("report", "an HTML file", (".html", ".htm"))
MOST_BYTES = 5_000_000
_DETAILS = (1.0, 0.3, 0.1, 0.03)
# In JSON inside a <script> these would end it, open another or break a line of old JavaScript; escaped they are
# the same text to a JSON reader.
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def render_report(model: Model, examined: Examined | None = None) -> str:
    """Return the page: data summary, warnings, metrics, curves, importance, attention, shapes, pair maps and rows.

    Without rows to measure and show, it has only what the model holds of its training.
    """
    text = ""
    for detail in _DETAILS:
        text = page_of(report_content(model, examined, detail=detail), title=f"Report: {model.target.name}")
        if len(text.encode()) < MOST_BYTES:
            break
    return text


def write_report(model: Model, path: str | Path, examined: Examined | None = None) -> Path:
    """Write the page of `render_report` and return its path; a failed write leaves no half of it."""
    file = REPORT_FILE.checked(path)
    text = render_report(model, examined)
    with REPORT_FILE.written(file) as part:
        part.write_text(text, encoding="utf-8")
    return file


def page_of(content: dict[str, Any], *, title: str) -> str:
    """Return the template filled: the content as JSON in which no text can end the script that holds it."""
    data = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escaped in _UNSAFE.items():
        data = data.replace(character, escaped)
    parts = {
        "title": html.escape(title),
        "style": _template("report.css"),
        "script": "\n".join(_template(name) for name in ("charts.js", "report.js")),
        "data": data,
    }
    # One pass, so that a value which looks like a mark is not filled in again.
    pieces = _template("report.html").split("@@")
    return "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def _template(name: str) -> str:
    return resources.files("attfm.report").joinpath("templates", name).read_text(encoding="utf-8")
