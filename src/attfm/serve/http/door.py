"""The door of the service: every request passes it, and what is too much, unknown or too late stays outside."""

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from attfm.serve.http.access_log import AccessLog
from attfm.serve.http.answers import Answer
from attfm.serve.http.api_key import OPEN_PATHS, ApiKey
from attfm.serve.http.batching import failed
from attfm.serve.http.monitoring import Monitoring
from attfm.serve.http.refusals import Refused, check_json
from attfm.serve.http.settings import ServiceSettings

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PATHS = frozenset({
    "/", "/predict", "/explain", "/what-if", "/rank", "/schema", "/health", "/ready", "/metrics", "/docs",
    "/openapi.json", "/page.css", "/page.js", "/page/account", "/page/what-if", "/page/values",
})  # fmt: skip
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# Nothing may be loaded from elsewhere, nothing may frame the page, and nothing is kept on the way.
SAFE_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        b"form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    ),
)
_JSON_HEADERS = SAFE_HEADERS[:2]


class Gone(Exception):
    """Who asked has closed the connection."""


class Door:
    """An ASGI middleware: host, key, size of the body, time, one line of the log and the counts of each request.

    POST /predict is answered here, by `predict`: it is what a service is asked most.
    """

    def __init__(
        self, app: App, *, settings: ServiceSettings, log: AccessLog, monitoring: Monitoring,
        predict: Callable[[bytes], Awaitable[Answer]],
    ) -> None:  # fmt: skip
        self._app, self._settings, self._log, self._monitoring, self._predict = app, settings, log, monitoring, predict
        self._key = None if settings.api_key is None else ApiKey(settings.api_key)
        self._hosts = settings.hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(scope, receive, send, self._settings.body_bytes)
        try:
            # The time of a request is bounded, its body included.
            async with asyncio.timeout(self._settings.seconds):
                self._check(request)
                if request.path == "/predict" and request.method == "POST":
                    request.check_json()
                    await request.answer(await self._predict(await request.body()))
                else:
                    await self._app(scope, request.receive, request.send)
        except Refused as refused:
            await self._refuse(request, refused)
        except Gone:
            request.status = 499
        except TimeoutError:
            await self._refuse(request, request.too_late(self._settings.seconds))
        except Exception as error:
            self._log.error(error, id=request.id, path=request.known_path)
            await self._refuse(request, failed(error), logged=True)
        finally:
            self._tell(request)

    def _check(self, request: "_Request") -> None:
        if self._hosts is not None and _host(request.headers.get(b"host", b"")) not in self._hosts:
            raise Refused(
                421, "This service is not asked for by that name: see --allow-host of attfm serve.", closes=True
            )
        if self._key is not None and request.path not in OPEN_PATHS:
            self._key.check(request.headers)
        request.check_length()

    async def _refuse(self, request: "_Request", refused: Refused, *, logged: bool = False) -> None:
        if refused.__cause__ is not None and not logged:
            self._log.error(refused.__cause__, id=request.id, path=request.known_path)
        if not request.has_begun:
            await request.answer(refused.answer)

    def _tell(self, request: "_Request") -> None:
        seconds = time.perf_counter() - request.started
        self._monitoring.answered(request.known_path, request.status, seconds, request.rows)
        client = request.scope.get("client")
        self._log.write(
            id=request.id, client=client[0] if client else None, method=request.method, path=request.known_path,
            status=request.status, ms=round(1000 * seconds, 3), rows=request.rows, bytes=request.received,
        )  # fmt: skip


class _Request:
    """One request on its way: what came of it, and what went back."""

    __slots__ = (
        "_most", "_receive", "_send", "_total", "has_begun", "headers", "id", "method", "path", "received", "rows",
        "scope", "started", "status",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        self.started = time.perf_counter()
        self.scope, self._receive, self._send, self._most = scope, receive, send, most
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.path: str = scope["path"]
        self.method: str = scope["method"]
        asked = self.headers.get(b"x-request-id")
        self.id = asked.decode() if asked is not None and _ID.fullmatch(asked) else secrets.token_hex(8)
        self.received = self.rows = 0
        self.status = 500
        self.has_begun = False
        self._total = False

    @property
    def known_path(self) -> str:
        """The path where it is one of the service's, which the log and the counts may hold; else "other"."""
        return self.path if self.path in PATHS else "other"

    def check_length(self) -> None:
        """Raise Refused where the body says that it is too long."""
        length = self.headers.get(b"content-length")
        if length is not None and (not length.isdigit() or len(length) > 15 or int(length) > self._most):
            raise self._too_large()

    def check_json(self) -> None:
        """Raise Refused where the body is said to be something else than JSON."""
        check_json(self.headers.get(b"content-type", b""), self.headers.get(b"content-encoding", b""))

    def too_late(self, seconds: float) -> Refused:
        """Return the refusal of a request whose time is over."""
        if self._total or self.method not in ("POST", "PUT", "PATCH"):
            return Refused(
                503, f"The service had no answer within {seconds:g} seconds. Ask again in a second.",
                headers={"retry-after": "1"},
            )  # fmt: skip
        return Refused(408, f"The body did not come within {seconds:g} seconds: send it again.", closes=True)

    async def body(self) -> bytes:
        """Return the whole body; raise Refused where it is too long."""
        message = await self.receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            return body
        parts = [body]
        while message.get("more_body"):
            message = await self.receive()
            parts.append(message.get("body", b""))
        return b"".join(parts)

    async def receive(self) -> Message:
        """Return the next message, and count its bytes."""
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.has_begun:
            raise Gone
        self.received += len(message.get("body", b""))
        if self.received > self._most:
            raise self._too_large()
        self._total = not message.get("more_body")
        return message

    async def send(self, message: Message) -> None:
        """Send a message, the head with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.has_begun = True
            self.status = message["status"]
            self.rows = int(self.scope.get("state", {}).get("attfm_rows", 0))
            own = {name for name, _ in message.get("headers", [])}
            extra = [pair for pair in SAFE_HEADERS if pair[0] not in own]
            message["headers"] = [*message.get("headers", []), *extra, (b"x-request-id", self.id.encode())]
        await self._send(message)

    async def answer(self, answer: Answer) -> None:
        """Send a whole answer."""
        self.has_begun, self.status, self.rows = True, answer.status, answer.rows
        headers = [
            (b"content-type", answer.media_type),
            (b"content-length", str(len(answer.body)).encode()),
            (b"x-request-id", self.id.encode()),
            *_JSON_HEADERS,
        ]
        if answer.headers:
            headers += [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer.body})

    def _too_large(self) -> Refused:
        return Refused(
            413, f"The body is larger than the {self._most:,} bytes that are taken: send several requests.", closes=True
        )


def _host(value: bytes) -> bytes:
    """Return a Host header without its port, in lower case."""
    name = value.lower().strip()
    if name.startswith(b"["):
        return name.partition(b"]")[0] + b"]"
    return name.partition(b":")[0]
