"""The options that say who does the work of a command: this process, or several workers of Ray."""

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

_PANEL = "Several processes or machines (docs/scaling.md)"
_Engine = Annotated[
    Literal["ray"] | None, typer.Option(rich_help_panel=_PANEL, help="ray: workers of Ray (default: this process)")
]
_Workers = Annotated[
    int | None, typer.Option(rich_help_panel=_PANEL, help="with --engine: how many workers, from 1 (default: 2)")
]
_Address = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_PANEL, metavar="HOST:PORT", help="with --engine: of a running cluster (default: one here)"
    ),
]


@dataclass(frozen=True)
class EngineOptions:
    """What is given of them; equal to `EngineOptions()` where none is."""

    engine: _Engine = None
    workers: _Workers = None
    address: _Address = None

    def checked(self) -> tuple[int, str | None]:
        """Return how many workers there are, 0 for this process alone, and the address of their cluster.

        Raises ConfigError where workers are asked for without an engine, and MissingExtraError where it is absent.
        """
        from attfm.errors import ConfigError

        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"--workers {self.workers}: give a number of at least 1.")
        if self.engine is None:
            for name in ("workers", "address"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"--{name} is of several workers: give --engine ray too.")
            return 0, None
        from attfm.train.cluster import require_ray

        require_ray()
        return 2 if self.workers is None else self.workers, self.address
