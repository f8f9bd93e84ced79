"""The options of `attfm serve`: where it listens, what it refuses, and who may ask."""

from dataclasses import dataclass
from typing import Annotated

import typer

from attfm.serve.http.settings import ServiceSettings

_LIMITS, _ACCESS = "Limits", "Who may ask"
_Host = Annotated[str, typer.Option(help="address to listen on; 0.0.0.0 is every one of this machine")]
_Port = Annotated[int, typer.Option(help="port to listen on; 0 is any that is free")]
_Watch = Annotated[
    float, typer.Option(metavar="SECONDS", help="how often RUN is looked at for a new run (0: on SIGHUP only)")
]
_Drain = Annotated[
    float, typer.Option(metavar="SECONDS", help="that it goes on after SIGTERM, not ready but answering")
]
_Items = Annotated[
    str | None, typer.Option(metavar="TABLE", help="items that POST /rank ranks: a file with an item's columns")
]
_ItemKey = Annotated[str | None, typer.Option(metavar="COLUMN", help="of --items, by which they are called")]
_Body = Annotated[int, typer.Option("--max-body", metavar="BYTES", help="of a request", rich_help_panel=_LIMITS)]
_Rows = Annotated[int, typer.Option("--max-rows", help="of a request", rich_help_panel=_LIMITS)]
_Seconds = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", help="that a request may take", rich_help_panel=_LIMITS)
]
_Queue = Annotated[
    int, typer.Option(metavar="ROWS", help="that may wait; more get 503 and Retry-After", rich_help_panel=_LIMITS)
]
_Connections = Annotated[int, typer.Option("--max-connections", help="open at a time", rich_help_panel=_LIMITS)]
_Key = Annotated[
    str | None,
    typer.Option("--api-key-file", metavar="FILE", rich_help_panel=_ACCESS,
                 help="holds the key that requests must bring (default: $ATTFM_API_KEY, else none is needed)"),
]  # fmt: skip
_Origins = Annotated[
    list[str] | None,
    typer.Option("--cors-origin", metavar="ORIGIN", rich_help_panel=_ACCESS,
                 help="whose pages may ask, as https://shop.example (repeatable; default: none)"),
]  # fmt: skip
_Names = Annotated[
    list[str] | None,
    typer.Option("--allow-host", metavar="NAME", rich_help_panel=_ACCESS,
                 help="by which it may be asked for, behind a proxy, say (repeatable)"),
]  # fmt: skip


@dataclass(frozen=True)
class ServiceOptions:
    """What is given of them; the defaults are those of `ServiceSettings`."""

    host: _Host = ServiceSettings.host
    port: _Port = ServiceSettings.port
    watch: _Watch = ServiceSettings.watch_seconds
    drain: _Drain = ServiceSettings.drain_seconds
    items: _Items = None
    item_key: _ItemKey = None
    body: _Body = ServiceSettings.body_bytes
    rows: _Rows = ServiceSettings.rows
    seconds: _Seconds = ServiceSettings.seconds
    queue: _Queue = ServiceSettings.queue
    connections: _Connections = ServiceSettings.connections
    api_key_file: _Key = None
    cors_origin: _Origins = None
    allow_host: _Names = None

    def settings(self) -> ServiceSettings:
        """Return the settings of a service; raise ConfigError where they can't be."""
        from attfm.commands.serve import read_api_key

        return ServiceSettings(
            host=self.host, port=self.port, body_bytes=self.body, rows=self.rows, seconds=self.seconds,
            queue=self.queue, connections=self.connections, api_key=read_api_key(self.api_key_file),
            cors_origins=tuple(self.cors_origin or ()), allow_hosts=tuple(self.allow_host or ()),
            watch_seconds=self.watch, drain_seconds=self.drain, items=self.items, item_key=self.item_key,
        )  # fmt: skip
