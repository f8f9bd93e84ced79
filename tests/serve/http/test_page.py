"""The page and its parts as HTML: controls of every kind, and nothing of the data that becomes markup."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest

from attfm.model.run_folder import load_model
from tests.serve.client import Client
from tests.serve.conftest import ROW, Opened
from tests.serve.evil import NAMES, QUOTED, SCRIPT, VALUES, every_kind, evil_run
from tests.serve.evil import ROW as EVIL_ROW

EVIL = {**EVIL_ROW, "many": SCRIPT + "3", "how <much>": 0.5}


class Parsed(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def harmless(self) -> bool:
        """Return whether no tag runs or loads anything but the page's own files."""
        for tag, attributes in self.tags:
            if tag in ("img", "iframe", "object", "style") or any(name.startswith("on") for name in attributes):
                return False
            if "style" in attributes or (tag == "script" and attributes.get("src") != "page.js"):
                return False
            links = [str(attributes[name]) for name in ("src", "href") if name in attributes]
            if any(link not in ("page.js", "page.css", "docs", "data:,", "./", "openapi.json") and link[0] != "#"
                   for link in links):  # fmt: skip
                return False
        return True


@pytest.fixture(scope="module")
def evil(opened: Opened, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return opened(evil_run(tmp_path_factory.mktemp("evil") / "run"))


def test_the_page_has_a_control_for_each_column_and_a_first_account(client: Client) -> None:
    reply = client.get("/")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    page = Parsed(reply.body)
    named = [attributes["data-name"] for _, attributes in page.tags if "data-name" in attributes]
    assert named == list(ROW)
    [slider] = [attributes for _, attributes in page.tags if attributes.get("type") == "range"]
    assert (slider["min"], slider["max"]) == ("18", "79")
    options = [attributes["value"] for tag, attributes in page.tags if tag == "option"]
    assert {"cook", "clerk", "nurse", "pilot", "town 0", "town 1", "town 2"} <= set(options)
    assert "What matters in general" in page.text
    assert "average of the training rows" in page.text
    assert page.harmless()


def test_the_account_is_that_of_the_row(client: Client) -> None:
    answer = client.post("/explain", {"row": ROW}).json()
    part = Parsed(client.post("/page/account", {"row": ROW}).body)
    assert f"{100 * answer['probability']:.1f} %" in part.text
    assert str(answer["prediction"]) in part.text
    largest = answer["accounts"][0]["effects"][0]
    assert f"{abs(largest['effect']):.3f}" in part.text
    assert largest["values"][0] in part.text
    assert client.post("/page/account", {"row": {**ROW, "age": "x"}}).fields == {"age"}


def test_the_tries_are_what_flips_the_decision(client: Client) -> None:
    part = Parsed(client.post("/page/what-if", {"row": ROW}).body)
    tries = [attributes for tag, attributes in part.tags if tag == "button"]
    assert tries
    before = client.post("/predict", {"row": ROW}).json()["prediction"]
    for attributes in tries:
        number, text = int(str(attributes["data-control"])[1:]), json.loads(str(attributes["data-value"]))
        name = list(ROW)[number]
        value = float(text) if name == "age" else text
        assert client.post("/predict", {"row": {**ROW, name: value}}).json()["prediction"] != before, name


def test_nothing_of_the_data_becomes_markup(evil: Client) -> None:
    for reply in (
        evil.get("/"), evil.get("/docs"), evil.post("/page/account", {"row": EVIL}),
        evil.post("/page/what-if", {"row": EVIL}),
    ):  # fmt: skip
        assert reply.status == 200
        page = Parsed(reply.body)
        assert page.harmless()
        assert b"<script>alert" not in reply.body
        assert b"<img" not in reply.body
    page = Parsed(evil.get("/").body)
    named = [attributes["data-name"] for _, attributes in page.tags if "data-name" in attributes]
    assert named == [*NAMES, "many", "how <much>"]
    options = {attributes["value"] for tag, attributes in page.tags if tag == "option"}
    assert set(VALUES) <= options
    assert "49" not in page.text.split("trained on")[0]  # no template has counted 7 * 7
    assert page.text.strip().splitlines()[0] == evil.app.service.run.model.target.name


def test_harmless_is_not_said_of_harm() -> None:
    for harm in (b"<img src=x>", b"<p onclick=x>", b"<script>1</script>", b"<a href='//evil.example'>", b"<p style=x>"):
        assert not Parsed(harm).harmless()


def test_evil_names_and_values_are_answered(evil: Client) -> None:
    assert evil.post("/predict", {"row": EVIL}).json()["prediction"] in (SCRIPT, QUOTED)
    assert len(evil.post("/explain", {"row": EVIL}).json()["accounts"][0]["effects"]) > len(NAMES)
    metrics = evil.get("/metrics").body.decode()
    assert all("\n" not in line and line for line in metrics.splitlines())
    assert 'field="../../etc/passwd"' in metrics
    document = evil.get("/openapi.json").json()
    assert set(document["components"]["schemas"]["Row"]["properties"]) == set(EVIL)
    lacking = {name: value for name, value in EVIL.items() if name != "__proto__"}
    assert evil.post("/predict", {"row": lacking}).fields == {"__proto__"}


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/page.css/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/templates/page.html",
     "/config.json", "//etc/passwd", "/page.css%00.js"],
)  # fmt: skip
def test_no_path_leads_to_a_file(client: Client, path: str) -> None:
    assert client.get(path).status == 404


def test_long_lists_are_searched(evil: Client, client: Client) -> None:
    column = [*NAMES, "many"].index("many")
    found = evil.get(f"/page/values?field={column}&search=%3E7").json()["values"]
    assert SCRIPT + "7" in found
    assert len(evil.get(f"/page/values?field={column}&search=").json()["values"]) == 50
    assert evil.get(f"/page/values?field={column}&search=zzz").json()["values"] == []
    for field in ("", "99", "-1", "1e3", "x", "²", "9" * 40):
        assert client.get(f"/page/values?field={field}&search=a").status == 422


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_every_kind_of_column_and_task(opened: Opened, tmp_path: Path, task: str) -> None:
    folder, row = every_kind(tmp_path / "run", task)
    client, model = opened(folder), load_model(folder)
    table = {name: [value] for name, value in row.items()}
    table["weights"] = [list(row["weights"].items())]
    columns = {name: pa.array(values) for name, values in table.items() if name != "weights"}
    columns["weights"] = pa.array(table["weights"], pa.map_(pa.string(), pa.float64()))
    expected = model.predict_proba(pa.table(columns))[0]
    answer = client.post("/predict", {"row": row}).json()
    if task == "regression":
        assert answer["prediction"] == pytest.approx(expected, abs=1e-5)
    elif task == "multiclass":
        assert list(answer["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-5)
        assert answer["prediction"] == int(expected.argmax())
    else:
        assert answer["probability"] == pytest.approx(expected[1], abs=1e-5)
    missing = dict.fromkeys(row)
    assert client.post("/predict", {"row": missing}).status == 200
    example = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert client.post("/predict", example["application/json"]["example"]).status == 200
    page = Parsed(client.get("/").body)
    assert page.harmless()
    assert len([1 for _, attributes in page.tags if "data-name" in attributes]) == len(row)
    for path in ("/explain", "/page/account"):
        assert client.post(path, {"row": row}).status == 200
    flips = client.post("/page/what-if", {"row": row, **({"threshold": 0.0} if task == "regression" else {})})
    assert flips.status == 200
    assert Parsed(flips.body).harmless()
    wrong = {"age": "4", "job": 4, "tags": "a", "words": 3, "weights": ["p"], "when": 3, "is_new": [True], "zip": {}}
    assert client.post("/predict", {"row": {**row, **wrong}}).fields == set(wrong)
    assert "when" in client.post("/predict", {"row": {**row, "when": "no date"}}).json()["detail"]


def test_no_control_hides_what_a_form_can_do(client: Client, evil: Client) -> None:
    # In a browser `form.reset` is the control with that id or name, if there is one, and no function any more.
    properties = {
        "reset", "submit", "requestSubmit", "elements", "length", "name", "action", "method", "target", "querySelector",
        "querySelectorAll", "addEventListener", "children", "parentElement", "classList", "dataset",
    }  # fmt: skip
    for asked in (client, evil):
        tags = Parsed(asked.get("/").body).tags
        named = {attributes.get(key) for _, attributes in tags for key in ("id", "name")}
        assert "again" in named
        assert not named & properties
