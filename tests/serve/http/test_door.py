"""What stays outside: no key, another name, too much, no JSON, and what a field can't hold."""

import base64
from pathlib import Path

import pytest

from attfm.serve.http.settings import ServiceSettings
from tests.serve.client import Client
from tests.serve.conftest import ROW, Opened

KEY = "a key that nobody guesses"


@pytest.fixture(scope="module")
def locked(opened: Opened, run: str) -> Client:
    return opened(run, api_key=KEY, cors_origins=("https://shop.example",), allow_hosts=("models.example",))


def test_nothing_but_probes_is_told_without_the_key(locked: Client) -> None:
    for path in ("/", "/schema", "/metrics", "/docs", "/openapi.json", "/page.js", "/nowhere"):
        reply = locked.get(path)
        assert reply.status == 401, path
        assert reply.headers["www-authenticate"].startswith("Basic ")
    assert locked.post("/predict", {"row": ROW}).status == 401
    assert locked.post("/predict", {"row": ROW}, authorization=f"Bearer {KEY}x").status == 401
    assert locked.post("/predict", {"row": ROW}, authorization="Basic !!").status == 401
    assert locked.get("/health").status == locked.get("/ready").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"x_api_key": KEY},
        {"authorization": "Basic " + base64.b64encode(f"anybody:{KEY}".encode()).decode()},
    ],
)
def test_the_key_opens(locked: Client, headers: dict[str, str]) -> None:
    assert locked.post("/predict", {"row": ROW}, **headers).status == 200
    assert locked.get("/schema", **headers).status == 200


def test_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    from attfm.serve.http.api_key import ApiKey
    from attfm.serve.http.refusals import Refused

    compared = list[tuple[int, int]]()
    real = hmac.compare_digest

    def counted(sent: bytes, kept: bytes) -> bool:
        compared.append((len(sent), len(kept)))
        return real(sent, kept)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    for sent in (b"", b"x", KEY.encode()[:-1], b"y" * 5000):
        with pytest.raises(Refused):
            ApiKey(KEY).check({b"x-api-key": sent})
    assert compared == [(32, 32)] * 4  # digests of one length, whatever was sent


def test_other_names_and_origins(client: Client, locked: Client) -> None:
    assert client.get("/health", host="evil.example").status == 421
    assert client.get("/health", host="127.0.0.1:8000").status == 200
    assert client.get("/health", host="[::1]:8000").status == 200
    assert locked.get("/health", host="models.example").status == 200
    assert "access-control-allow-origin" not in client.get("/schema", origin="https://shop.example").headers
    headers = {"authorization": f"Bearer {KEY}"}
    allowed = locked.get("/schema", origin="https://shop.example", **headers).headers
    assert allowed["access-control-allow-origin"] == "https://shop.example"
    assert "access-control-allow-origin" not in locked.get("/schema", origin="https://evil.example", **headers).headers


def test_open_to_all_names_where_it_listens_to_all() -> None:
    assert ServiceSettings(host="0.0.0.0").hosts is None
    assert ServiceSettings(host="::1").hosts is not None
    assert ServiceSettings(host="0.0.0.0", allow_hosts=("a.example",)).hosts is not None


def test_every_answer_forbids_to_guess_and_keep(client: Client) -> None:
    for reply in (client.get("/"), client.get("/schema"), client.post("/predict", {"row": ROW}), client.get("/none")):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, None),
        (b"{", 400, None),
        (b"null", 422, None),
        (b"[]", 422, None),
        (b"{}", 422, None),
        (b'{"row": {}, "rows": []}', 422, "age"),
        (b'{"row": [1]}', 422, "row"),
        (b'{"rows": []}', 422, "rows"),
        (b'{"rows": [3]}', 422, "rows"),
        (b'{"rows": {"0": {}}}', 422, "rows"),
        (b'{"sort": 1}', 422, "sort"),
        (b'{"row": {"age": NaN, "job": "cook", "town": null}}', 422, "age"),
        (b'{"row": {"age": 1e999, "job": "cook", "town": null}}', 422, "age"),
        (b'{"row": {"age": -Infinity, "job": "cook", "town": null}}', 422, "age"),
        (b'{"row": {"age": "41", "job": "cook", "town": null}}', 422, "age"),
        (b'{"row": {"age": true, "job": "cook", "town": null}}', 422, "age"),
        (b'{"row": {"age": 41, "job": 5, "town": null}}', 422, "job"),
        (b'{"row": {"age": 41, "job": ["cook"], "town": null}}', 422, "job"),
        (b'{"row": {"age": 41, "job": {"a": 1}, "town": null}}', 422, "job"),
        (b'{"row": {"age": 41, "job": "cook"}}', 422, "town"),
        (b'{"row": {"age": 41, "job": "cook", "town": null, "towm": 1}}', 422, "towm"),
        (b'{"row": {"age": 41, "job": "cook", "town": "\xff"}}', 400, None),
        (b'{"row": {"age": 41, "job": "cook", "town": "\\ud800"}}', 400, None),
        (b'{"row": ' + b"[" * 9000 + b"]" * 9000 + b"}", 400, None),
        (b'{"row": {"age": ' + b"9" * 6000 + b', "job": "cook", "town": null}}', 400, None),
        (b'{"rows": [' + b",".join([b'{"age": 41, "job": "cook", "town": null}'] * 51) + b"]}", 413, "rows"),
        (b'{"rows": ["' + b"x" * 30_000 + b'"]}', 413, None),
    ],
)
def test_bad_bodies_are_refused_and_the_field_is_named(
    client: Client, body: bytes, status: int, field: str | None
) -> None:
    for path in ("/predict", "/explain"):
        reply = client.post(path, body)
        assert reply.status == status, reply.body
        assert reply.json()["detail"].endswith(".")
        if field is not None:
            assert field in reply.fields


def test_refusals_say_which_row_and_the_nearest_name(client: Client) -> None:
    reply = client.post("/predict", {"rows": [ROW, {**ROW, "age": "x"}]}).json()
    assert reply["problems"] == [
        {
            "field": "age",
            "row": 1,
            "message": "Field 'age' of row 1 is 'x': send a number, or null where it is not known.",
        }
    ]
    renamed = {"age": 3, "jobb": "cook", "town": None}
    assert (
        "There is no field 'jobb' (did you mean 'job'?)" in client.post("/predict", {"row": renamed}).json()["detail"]
    )


def test_a_thousand_unknown_fields_are_not_a_thousand_searches(client: Client) -> None:
    reply = client.post("/predict", {"row": {**ROW, **{f"f{n}": 1 for n in range(1000)}}}).json()
    assert len(reply["problems"]) == 20
    assert reply["detail"].endswith(" And 980 more.")


def test_what_is_not_json_by_its_header_is_refused(client: Client) -> None:
    for path in ("/predict", "/explain", "/rank", "/what-if"):
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            assert client.post(path, {"row": ROW}, content_type=kind).status == 415
    assert client.post("/predict", {"row": ROW}, content_type="application/json; charset=utf-8").status == 200


def test_a_full_queue_refuses_and_says_when_to_ask_again(opened: Opened, run: str) -> None:
    client = opened(run, queue=4)
    body = b'{"row": {"age": 41, "job": "cook", "town": null}}'
    replies = client.all(*[("POST", "/predict", body, {})] * 40)
    statuses = [reply.status for reply in replies]
    assert statuses.count(200) >= 4
    assert statuses.count(503) == 40 - statuses.count(200) > 0
    assert next(reply for reply in replies if reply.status == 503).headers["retry-after"] == "1"
    assert client.post("/predict", body).status == 200


def test_what_is_not_foreseen_is_told_without_its_values(
    opened: Opened, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = opened(run)

    def fail(*_: object) -> None:
        raise RuntimeError("the value of row 3 is a secret")

    monkeypatch.setattr(type(client.app.service.run.scores), "of", fail)
    for path in ("/predict", "/explain"):
        reply = client.post(path, {"row": ROW})
        assert reply.status == 500
        assert b"secret" not in reply.body
    client.app.service.log.flush()
    logged = client.log.getvalue()
    assert "secret" not in logged
    assert logged.count('"error": "RuntimeError"') == 2
    assert Path(__file__).name in logged


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/predicts", 404, "There is no path '/predicts' (did you mean '/predict'?): see /docs"),
        ("GET", "/" + "x" * 5000, 404, "There is no path '/xxx"),
        ("GET", "/predict", 405, "'/predict' is asked by POST, not by GET: see /docs for how."),
        ("POST", "/health", 405, "'/health' is asked by GET, not by POST"),
    ],
)
def test_a_wrong_path_or_method_is_told(client: Client, method: str, path: str, status: int, said: str) -> None:
    reply = client.ask(method, path)
    assert reply.status == status
    assert reply.json()["detail"].startswith(said)
    assert reply.json()["problems"] == []
    assert len(reply.body) < 400
    assert (reply.headers.get("allow") is not None) == (status == 405)


@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_a_compressed_body_is_told(client: Client, path: str) -> None:
    reply = client.post(path, b"\x1f\x8b\x08", content_encoding="gzip")
    assert reply.status == 415
    assert "encoded ('gzip'): send plain JSON" in reply.json()["detail"]
    assert client.post(path, {"row": ROW}, content_encoding="identity").status == 200


def test_the_head_alone_can_be_asked_for(client: Client) -> None:
    for path in ("/health", "/ready", "/schema", "/metrics"):
        assert client.ask("HEAD", path).status == 200
    assert all("head" not in operations for operations in client.get("/openapi.json").json()["paths"].values())


def test_what_is_sent_wrongly_is_told_in_words(client: Client) -> None:
    assert "'top' is 0: send a number greater than or equal to 1." in client.post(
        "/explain", {"row": ROW, "top": 0}).json()["detail"]  # fmt: skip
    row = {"ages" if name == "age" else name: value for name, value in ROW.items()}
    assert "There is no field 'ages' (did you mean 'age'?): rename it, or leave it out." in client.post(
        "/predict", {"row": row}).json()["detail"]  # fmt: skip
