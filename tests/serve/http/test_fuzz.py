"""Thousands of bad bodies: each is refused with a sentence, and none breaks anything."""

import json
import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.serve.client import Client, Reply
from tests.serve.conftest import ROW

SHORT, FULL = 600, 10_000
PATHS = ("/predict", "/explain", "/what-if", "/rank", "/page/account", "/page/what-if")
# What no field takes, whatever the schema says of it.
NO_VALUE = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "[[]]",
    '{"a": []}',
    "[{}]",
    "{}",
    "[NaN]",
    '"\\ud800"',
    "tru",
    "'x'",
    "0x1",
)
NAMES = (
    "",
    " ",
    "age ",
    "AGE",
    "__class__",
    "__proto__",
    "0",
    "row",
    "rows",
    "é" * 50,
    "a" * 500,
    "\u0000",
    "{{7*7}}",
    "../x",
)


def _broken(rng: random.Random, text: str) -> bytes:
    """Cut, or put something where it can't be JSON."""
    body = text.encode()
    place = rng.randrange(1, len(body) - 1)
    return rng.choice((
        body[:place], body + rng.choice((b"}", b"x", b",{}", b"\x00", b"[]")), b"\xff\xfe" + body, body[1:],
        body.replace(b'"', b"'"), body.replace(b":", b"=", 1), body.replace(b",", b",,", 1), b"",
        b"[" * rng.randrange(200, 5000), b'{"row":' * rng.randrange(200, 2000), body[:place] + b"\xff" + body[place:],
        b"\x1f\x8b" + body, b"\xef\xbb\xbf" + body,
    ))  # fmt: skip


def _wrong_value(rng: random.Random, row: dict[str, Any]) -> bytes:
    name = rng.choice(list(row))
    cells = {key: json.dumps(value) for key, value in row.items()} | {name: rng.choice(NO_VALUE)}
    return ('{"row": {' + ",".join(f"{json.dumps(key)}: {cell}" for key, cell in cells.items()) + "}}").encode()


def _wrong_names(rng: random.Random, row: dict[str, Any]) -> bytes:
    changed = dict(row)
    if rng.random() < 0.5:
        del changed[rng.choice(list(changed))]
    else:
        changed[rng.choice(NAMES)] = rng.choice((1, None, "x", [], {}))
    return json.dumps({"row": changed}).encode()


def _wrong_shape(rng: random.Random, row: dict[str, Any]) -> bytes:
    body: Any = rng.choice((
        None, 1, "row", True, [], [row], {}, {"rows": []}, {"rows": row}, {"rows": [row, None]}, {"rows": [[row]]},
        {"row": [row]}, {"row": None}, {"row": row, "rows": [row]}, {"row": row, rng.choice(NAMES): 1}, {"row": "x"},
        {"rows": [row] * 51}, {"row": {}, "top": -1}, {"row": row, "top": "many"}, {"row": {"row": row}},
        {"context": row}, {"candidates": [row]}, {"context": {}, "candidates": []}, {"context": row, "candidates": row},
    ))  # fmt: skip
    return json.dumps(body).encode()


MAKERS: tuple[Callable[[random.Random, dict[str, Any]], bytes], ...] = (
    lambda rng, row: _broken(rng, json.dumps({"row": row})), _wrong_value, _wrong_names, _wrong_shape,
)  # fmt: skip


def _check(reply: Reply, body: bytes) -> None:
    assert 400 <= reply.status < 500, (reply.status, body[:300], reply.body[:300])
    answer = reply.json()
    assert answer["detail"]
    assert len(reply.body) < 20_000, body[:300]


def _bad(client: Client, count: int, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(count):
        body = MAKERS[number % len(MAKERS)](rng, ROW)
        path = rng.choice(PATHS)
        _check(client.post(path, body), body)
    assert client.post("/predict", {"row": ROW}).status == 200  # it is none the worse
    assert client.app.service.jobs.open == 0


def test_bad_bodies_are_refused(client: Client) -> None:
    _bad(client, SHORT, seed=1)


@pytest.mark.fuzz
@pytest.mark.skipif("ATTFM_LONG_TESTS" not in os.environ, reason="takes long: 'make test-fuzz' runs it")
def test_ten_thousand_bad_bodies_are_refused(client: Client) -> None:
    _bad(client, FULL, seed=2)


def test_random_changes_of_a_good_body_never_break_anything(client: Client) -> None:
    rng = random.Random(3)
    good = json.dumps({"row": ROW}).encode()
    for _ in range(300):
        body = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        assert client.post("/predict", bytes(body)).status in (200, 400, 422), bytes(body)


@pytest.mark.fuzz
@pytest.mark.skipif("ATTFM_LONG_TESTS" not in os.environ, reason="takes long: 'make test-fuzz' runs it")
def test_schemathesis_finds_no_fault_by_the_document(client: Client, tmp_path: Any) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="not installed: 'make test-fuzz' does it")
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.strategies import just

    document = client.get("/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    asked = dict[str, int]()

    def ask(case: Any, mode: str) -> None:
        body = case.body
        raw = body if isinstance(body, bytes) else json.dumps(body, default=str).encode()
        raw = b"" if type(body).__name__ == "NotSet" else raw
        reply = client.ask(case.method, case.formatted_path, raw)
        assert reply.status < 500, (case.method, case.path, raw[:500], reply.body)
        name = f"{case.method} {case.path} {mode} {reply.status}"
        asked[name] = asked.get(name, 0) + 1

    limits = settings(
        max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
    )
    for operation in (result.ok() for result in schema.get_all_operations()):
        for mode in schemathesis.GenerationMode:
            if operation.method == "get" and mode is schemathesis.GenerationMode.NEGATIVE:
                continue  # takes nothing, so there is nothing that it could be sent wrongly
            cases = operation.as_strategy(generation_mode=mode)
            limits(given(case=cases, mode=just(mode.value))(ask))()
    assert any("/predict positive 200" in name for name in asked), asked
    assert any("/predict negative 4" in name for name in asked), asked
