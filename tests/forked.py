"""The command in a process of its own that loads nothing: forked from a server that has loaded torch and attfm once.

The start of `python -m attfm` costs seconds; a test worker pays them once here, for all processes that it asks for.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TextIO

import pytest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def start(target: Callable[..., None], *arguments: object) -> ForkServerProcess:
    """Start a process that calls the target; it ends with its parent at the latest."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["attfm.commands.train", "attfm.commands.tune"])  # of the first start alone
    process = context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


@contextmanager
def command(*arguments: str) -> Iterator[tuple[ForkServerProcess, TextIO]]:
    """Run the command `attfm` here; give its process, and what it writes to stderr; at last wait for its end."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = start(_run, arguments, Path.cwd(), sending)
    sending.close()
    with receiving, open(os.dup(receiving.fileno())) as stderr:
        yield process, stderr
        process.join()


def interrupt(process: ForkServerProcess) -> None:
    """Send what Ctrl-C sends."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)


def _run(arguments: Sequence[str], folder: Path, stderr: "multiprocessing.connection.Connection") -> None:
    from attfm.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever a shell's background has made of it
    os.chdir(folder)
    os.dup2(stderr.fileno(), 2)
    stderr.close()
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    sys.exit(main([*arguments]))
