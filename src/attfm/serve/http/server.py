"""The service as a process: its socket, its signals, and an end that finishes what was begun."""

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attfm.errors import ConfigError, MissingExtraError
from attfm.serve.http.access_log import AccessLog, ServerMessages
from attfm.serve.http.door import PATHS
from attfm.serve.http.monitoring import Monitoring
from attfm.serve.http.settings import ServiceSettings

_KEEP_ALIVE = 30  # seconds that a connection may be idle
_SWITCH = 0.0005  # seconds after which a thread that computes lets the loop of events go on


def serve(folder: str | Path, settings: ServiceSettings, *, started: Callable[[str], None] = lambda url: None) -> None:
    """Serve a run folder until SIGTERM or SIGINT; SIGHUP has the folder looked at.

    Parameters
    ----------
    started : callable, gets the address when requests are taken

    Raises
    ------
    ConfigError : the port is in use, or the host is not this machine's
    RunFolderError : the folder is absent, damaged or of a newer format
    MissingExtraError : FastAPI or uvicorn is not installed
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise MissingExtraError(f"{error.name} is not installed: run 'pip install \"attfm[serve]\"'.") from None
    with bound(settings) as listener:
        from attfm.serve.http.app import create_app

        log = AccessLog()
        app = create_app(folder, settings, log=log)
        messages = logging.getLogger("uvicorn.error")
        messages.handlers, messages.propagate = [ServerMessages(log)], False
        config = uvicorn.Config(
            app, http=_protocol(settings, app.service), ws="none", log_config=None, access_log=False,
            server_header=False, proxy_headers=False, lifespan="on", backlog=settings.connections,
            timeout_keep_alive=_KEEP_ALIVE, timeout_graceful_shutdown=int(settings.seconds) + 5,
        )  # fmt: skip
        sys.setswitchinterval(_SWITCH)
        server = _server(uvicorn.Server, config, app.service, lambda: started(address(listener)))
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets=[listener]))


def _server(base: type[Any], config: Any, service: Any, started: Callable[[], None]) -> Any:
    """Return a server of uvicorn that says when it has started, and ends without a signal's exit code."""

    class Server(base):  # type: ignore[misc]
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            started()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            loop = asyncio.get_running_loop()
            asked = {signal.SIGINT: self._end, signal.SIGTERM: self._end, signal.SIGHUP: service.current.ask}
            for number, answer in asked.items():
                loop.add_signal_handler(number, answer)
            try:
                yield
            finally:
                for number in asked:
                    loop.remove_signal_handler(number)

        def _end(self) -> None:
            """Be not ready, but go on for a little: who asks is told to connect elsewhere. Asked again, end now."""
            seconds = 0.0 if service.is_closing else service.settings.drain_seconds
            service.is_closing = True
            asyncio.get_running_loop().call_later(seconds, self.handle_exit, signal.SIGTERM, None)

    return Server(config)


def _protocol(settings: ServiceSettings, service: Any) -> Any:
    try:
        from attfm.serve.http.connection import bounded
    except ImportError:  # httptools is not there: h11 has bounds of its own on a head
        return "h11"

    return bounded(
        seconds=settings.seconds, most=settings.connections, queue=settings.queue + settings.jobs,
        shed=Refusals(service.monitoring, service.log).add, is_closing=lambda: service.is_closing,
    )  # fmt: skip


class Refusals:
    """Requests that were refused before they were read: counted, and in the log one line a second for each path."""

    def __init__(self, monitoring: Monitoring, log: AccessLog) -> None:
        self._monitoring, self._log = monitoring, log
        self._untold = Counter[str]()

    def add(self, path: str, count: int) -> None:
        """Note some requests of one path."""
        path = path if path in PATHS else "other"
        self._monitoring.answered(path, 503, 0.0, 0, count=count)
        if not self._untold:
            asyncio.get_running_loop().call_later(1.0, self._tell)
        self._untold[path] += count

    def _tell(self) -> None:
        untold, self._untold = self._untold, Counter()
        for path, count in untold.items():
            self._log.write(method="POST", path=path, status=503, requests=count)


@contextlib.contextmanager
def bound(settings: ServiceSettings) -> Iterator[socket.socket]:
    """Give a socket that listens where the settings say; raise ConfigError where that can't be.

    It is opened before the model is loaded, so that a port in use is told at once.
    """
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"--host '{host}' is not a name or an address ({error.strerror}): give another.") from None
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(settings.connections)
        except OSError as error:
            raise _cant_listen(error, host, port) from None
        yield listener


def _cant_listen(error: OSError, host: str, port: int) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"Port {port} of {host} is in use: stop what listens there, or choose another by --port (0: any free one)."
        )
    if error.errno == errno.EACCES:
        return ConfigError(f"Port {port} of {host} is not allowed to this user: choose one above 1023 by --port.")
    if error.errno == errno.EADDRNOTAVAIL:
        return ConfigError(
            f"--host {host} is not an address of this machine: 127.0.0.1 is, and 0.0.0.0 is all of them."
        )
    return ConfigError(f"Can't listen on port {port} of {host}: {error.strerror}. Choose others by --host and --port.")


def address(listener: socket.socket) -> str:
    """Return the URL of a socket that listens."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
