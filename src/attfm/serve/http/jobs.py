"""Requests that take longer than a row: many rows, explanations, rankings; one at a time, and some that wait."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from attfm.errors import AttfmError
from attfm.serve.http.monitoring import Monitoring
from attfm.serve.http.refusals import Refused, busy

T = TypeVar("T")


class Jobs:
    """Runs functions in a thread of their own, beside the loop of events, of which so many may wait or run.

    Parameters
    ----------
    most : int

    Attributes
    ----------
    open : int, how many wait or run
    """

    def __init__(self, most: int, monitoring: Monitoring) -> None:
        self._most = most
        self.open = 0
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="attfm-job")
        monitoring.watch("attfm_jobs", "Requests of many rows, explanations and rankings in work.", lambda: self.open)

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return what a function returns; raise Refused where the queue is full, or where it raises an AttfmError."""
        if self.open >= self._most:
            raise busy(f"{self._most:,} longer requests are in work already")
        self.open += 1
        loop = asyncio.get_running_loop()
        job: Future[T] = self._threads.submit(function, *arguments)
        # It is open until it has really ended, even where who asked has given up.
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(self._closed))
        try:
            return await asyncio.wrap_future(job)
        except AttfmError as error:
            raise Refused(422, str(error)) from None

    def _closed(self) -> None:
        self.open -= 1

    def close(self) -> None:
        """Wait for what is in work, and end the thread."""
        self._threads.shutdown()
