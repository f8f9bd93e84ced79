"""The service as an ASGI application: routes, their documentation, and what begins and ends with it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response

from attfm.errors import ConfigError
from attfm.serve.http import openapi
from attfm.serve.http.access_log import AccessLog
from attfm.serve.http.answers import HTML, Answer, json_answer
from attfm.serve.http.batching import failed
from attfm.serve.http.door import PATHS, App, Door
from attfm.serve.http.loaded_run import described
from attfm.serve.http.monitoring import MEDIA_TYPE
from attfm.serve.http.page import page, static
from attfm.serve.http.refusals import Refused, check_json, no_path, wrong_method
from attfm.serve.http.service import Service
from attfm.serve.http.settings import ServiceSettings

_Body = Callable[[bytes], Awaitable[Answer]]


class ServiceApp(FastAPI):
    """A FastAPI application that serves one run folder.

    Attributes
    ----------
    service : Service
    """

    def __init__(self, folder: str | Path, settings: ServiceSettings, log: AccessLog) -> None:
        self.service = service = Service(folder, settings, log)
        super().__init__(
            title=f"attfm: {service.run.model.target.name}", docs_url=None, redoc_url=None, lifespan=_lifespan
        )
        for path, body, about in (
            ("/predict", service.predict, openapi.PREDICT),
            ("/explain", service.explain, openapi.EXPLAIN),
            ("/what-if", service.what_if, openapi.WHAT_IF),
            ("/rank", service.rank, openapi.RANK),
        ):
            self.add_api_route(path, _of_body(body), methods=["POST"], **about)
        for path, give, about in (
            ("/schema", lambda: json_answer(described(service.run)), openapi.SCHEMA),
            ("/health", lambda: json_answer({"status": "ok"}), openapi.HEALTH),
            ("/ready", service.ready, openapi.READY),
            ("/metrics", lambda: Answer(200, service.monitoring.text(), MEDIA_TYPE), openapi.METRICS),
        ):
            self.add_api_route(path, _of_nothing(give), methods=["GET"], **about)
            self.add_api_route(path, _of_nothing(give), methods=["HEAD"], include_in_schema=False)
        docs = _of_nothing(lambda: Answer(200, openapi.page(self.openapi()), HTML))
        self.add_api_route("/docs", docs, methods=["GET"], include_in_schema=False)
        for path, name, kind in (("/page.css", "page.css", b"text/css"), ("/page.js", "page.js", b"text/javascript")):
            self.add_api_route(path, _of_nothing(_static(name, kind)), methods=["GET"], include_in_schema=False)
        for path, part in (("/page/account", service.page_account), ("/page/what-if", service.page_what_if)):
            self.add_api_route(path, _of_body(part), methods=["POST"], include_in_schema=False)
        self.add_api_route("/page/values", _values(service), methods=["GET"], include_in_schema=False)
        self.add_api_route("/", _page(service), methods=["GET"], include_in_schema=False)
        self.add_exception_handler(Refused, _refused)
        self.add_exception_handler(404, _not_there)
        self.add_exception_handler(405, _not_so)
        self.add_exception_handler(Exception, _failed)
        self._door: App = Door(
            super().__call__, settings=settings, log=log, monitoring=service.monitoring, predict=service.predict
        )
        if settings.cors_origins:
            from fastapi.middleware.cors import CORSMiddleware

            self._door = CORSMiddleware(
                self._door, allow_origins=settings.cors_origins, allow_methods=["GET", "POST"],
                allow_headers=["authorization", "content-type", "x-api-key", "x-request-id"],
            )  # fmt: skip

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Let a request through the door, which is outside of all that FastAPI does."""
        await self._door(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document of the run that is served now."""
        return openapi.document(self, self.service.run)


def create_app(
    folder: str | Path, settings: ServiceSettings | None = None, *, log: AccessLog | None = None
) -> ServiceApp:
    """Return the service of a run folder, for any ASGI server.

    Raises
    ------
    RunFolderError : the folder is absent, damaged or of a newer format
    """
    return ServiceApp(folder, settings or ServiceSettings(), log or AccessLog())


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Watch the run folder while the service runs, and finish what is in work when it ends."""
    if not isinstance(app, ServiceApp):
        raise ConfigError("The service's lifespan is for its own application.")
    watching = asyncio.create_task(app.service.current.watch())
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        app.service.jobs.close()
        app.service.log.flush()


def _of_body(give: _Body) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint that answers a body of JSON."""

    async def endpoint(request: Request) -> Response:
        headers = request.headers
        check_json(headers.get("content-type", "").encode(), headers.get("content-encoding", "").encode())
        return _response(request, await give(await request.body()))

    return endpoint


def _of_nothing(give: Callable[[], Answer]) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint that answers without being told anything."""

    async def endpoint(request: Request) -> Response:
        return _response(request, give())

    return endpoint


def _static(name: str, media_type: bytes) -> Callable[[], Answer]:
    return lambda: Answer(200, static(name), media_type + b"; charset=utf-8")


def _page(service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return _response(request, Answer(200, (await service.jobs.run(page, service.run)).encode(), HTML))

    return endpoint


def _values(service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        asked = request.query_params
        return _response(request, await service.page_values(asked.get("field", ""), asked.get("search", "")))

    return endpoint


async def _refused(request: Request, error: Exception) -> Response:
    """Return what is sent for a request that an endpoint refuses."""
    if not isinstance(error, Refused):
        raise error
    return _response(request, error.answer)


async def _not_there(request: Request, error: Exception) -> Response:
    return _response(request, no_path(request.url.path, PATHS).answer)


async def _not_so(request: Request, error: Exception) -> Response:
    """Return what is sent for a method that a path does not take."""
    allowed = getattr(error, "headers", None) or {}
    return _response(request, wrong_method(request.method, request.url.path, allowed.get("Allow", "GET")).answer)


async def _failed(request: Request, error: Exception) -> Response:
    """Return what is sent where something was not foreseen; the door logs it."""
    return _response(request, failed(error).answer)


def _response(request: Request, answer: Answer) -> Response:
    request.scope.setdefault("state", {})["attfm_rows"] = answer.rows
    return Response(answer.body, answer.status, headers={**answer.headers, "content-type": answer.media_type.decode()})
