"""What a service sends: a status, headers and a body."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JSON = b"application/json"
HTML = b"text/html; charset=utf-8"


@dataclass(frozen=True)
class Answer:
    """A whole answer; rows : how many rows it is about, for the log."""

    status: int
    body: bytes
    media_type: bytes = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    rows: int = 0


def json_answer(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None, rows: int = 0) -> Answer:
    """Return a value as a JSON answer."""
    return Answer(status, to_json(value), JSON, headers or {}, rows)


def to_json(value: Any) -> bytes:
    """Return JSON in UTF-8; ValueError where a number is not finite."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
