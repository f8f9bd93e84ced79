"""What a service is told when it starts: where it listens, what it refuses, and who may ask."""

import ipaddress
import math
import re
from dataclasses import dataclass

from attfm.errors import ConfigError

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class ServiceSettings:
    """The settings of a service.

    Attributes
    ----------
    host, port : where it listens; port 0 is one that is free
    body_bytes : int, most bytes of a request's body
    rows : int, most rows of a request
    seconds : float, most time that a request may take, its body included
    queue : int, most single rows that wait to be scored; a sixteenth of it, but four at least, of other jobs
    connections : int, most connections open at a time
    api_key : str or None, the key that requests must bring; None: none
    cors_origins : tuple of str, origins whose pages may ask; none by default
    allow_hosts : tuple of str
        Names by which the service may be asked for, besides those of the loopback; only those are taken where the
        service listens on the loopback, so that no web page can reach it by a name of its own (DNS rebinding).
    watch_seconds : float, how often the run folder is looked at; 0: never
    items, item_key : str or None, a table of items that POST /rank ranks, and its column of keys
    drain_seconds : float, how long it goes on after it is asked to end: not ready, but answering
    """

    host: str = "127.0.0.1"
    port: int = 8000
    body_bytes: int = 1 << 20
    rows: int = 1000
    seconds: float = 10.0
    queue: int = 256
    connections: int = 1000
    api_key: str | None = None
    cors_origins: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    watch_seconds: float = 2.0
    drain_seconds: float = 1.0
    items: str | None = None
    item_key: str | None = None

    def __post_init__(self) -> None:
        counts = {
            "max-body": (self.body_bytes, 2), "max-rows": (self.rows, 1), "queue": (self.queue, 1),
            "max-connections": (self.connections, 1),
        }  # fmt: skip
        for option, (count, least) in counts.items():
            if count < least:
                raise ConfigError(f"--{option} {count} is too small: give at least {least}.")
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"--port {self.port} is no port: give a number from 0 (any that is free) to 65535.")
        times = {"timeout": self.seconds, "watch": self.watch_seconds, "drain": self.drain_seconds}
        for option, seconds in times.items():
            if not 0 <= seconds < math.inf or (option == "timeout" and seconds == 0):
                wanted = "more than 0" if option == "timeout" else "0 or more"
                raise ConfigError(f"--{option} {seconds:g} is no time: give seconds, {wanted}.")
        for origin in self.cors_origins:
            # As browsers send it: one with more than that would never be met.
            if origin != "*" and not re.fullmatch(r"https?://[^/?#@\s]+", origin):
                raise ConfigError(f"--cors-origin '{origin}' is no origin: write it as https://shop.example, or *.")
        for name in self.allow_hosts:
            if not re.fullmatch(r"[\w.-]+|\[[\da-fA-F:.]+\]", name, re.ASCII):
                raise ConfigError(
                    f"--allow-host '{name}' is no name of a host: write it as models.example, without http:// or port."
                )
        if self.api_key is not None and (len(self.api_key) < 16 or not self.api_key.isascii()):
            raise ConfigError("The API key is shorter than 16 characters, or not ASCII: make a longer one, at random.")

    @property
    def jobs(self) -> int:
        """Most jobs, other than single rows, that are waited for: requests of many rows, explanations and rankings."""
        return max(4, self.queue // 16)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def hosts(self) -> frozenset[bytes] | None:
        """Names by which it may be asked for, in lower case; None: any."""
        if not self.is_loopback and not self.allow_hosts:
            return None
        names = (*self.allow_hosts, *_LOOPBACK_NAMES)
        return frozenset(name.lower().encode() for name in names)
