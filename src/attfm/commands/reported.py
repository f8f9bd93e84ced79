"""What a command ends with: an exit code, and where it fails a sentence on stderr."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from attfm.errors import AttfmError, DataWarning, MissingExtraError, TrainingError

DONE, FAILED, BAD_USE = 0, 1, 2
INTERRUPTED, PIPE_CLOSED = 130, 141  # 128 + the number of the signal, as shells have it


@contextmanager
def reported(debug: bool) -> Iterator[None]:
    """Turn errors into a sentence on stderr (and a traceback, to debug) and an exit code; print warnings of data."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", DataWarning)
            warnings.showwarning = _warning_printer(warnings.showwarning)
            yield
    except KeyboardInterrupt:
        print("attfm: interrupted, nothing half-written is left.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # Nobody reads any more; Python must not try to flush the rest when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(PIPE_CLOSED) from None
    except typer.Exit:
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, AttfmError):
            print(f"attfm: {error}", file=sys.stderr)
            failed = isinstance(error, TrainingError | MissingExtraError)
            raise typer.Exit(FAILED if failed else BAD_USE) from None
        print(
            f"attfm: {type(error).__name__}: {error or 'no message'}. This was not foreseen; run again with "
            "--debug for the traceback.",
            file=sys.stderr,
        )
        raise typer.Exit(FAILED) from None


def _warning_printer(others: Callable[..., None]) -> Callable[..., None]:
    """Return what shows warnings: those of data on stderr as a sentence, each once, and others as ever."""
    printed = set[str]()

    def show(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
        if not issubclass(category, DataWarning):
            others(message, category, *place, **options)
        elif str(message) not in printed:
            printed.add(str(message))
            print(f"attfm: warning: {message}", file=sys.stderr)

    return show
