"""Single rows that come at the same time, scored together; and how many may wait."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from attfm.errors import AttfmError
from attfm.serve.http.loaded_run import LoadedRun
from attfm.serve.http.monitoring import Monitoring
from attfm.serve.http.refusals import Refused, busy

MOST_AT_ONCE = 256


@dataclass(frozen=True)
class _Waiting:
    run: LoadedRun
    row: dict[str, Any]
    answer: asyncio.Future[dict[str, Any]]


class Batcher:
    """A bounded queue of single rows, which are scored as many at a time as have come: nothing waits for company.

    Parameters
    ----------
    queue : int, most rows that wait
    """

    def __init__(self, queue: int, monitoring: Monitoring) -> None:
        self._queue = queue
        self._monitoring = monitoring
        self._waiting: deque[_Waiting] = deque()
        self._is_due = False  # whether some call of `_flush` is to come
        monitoring.watch("attfm_queue_rows", "Single rows that wait to be scored.", lambda: len(self._waiting))

    def check(self) -> None:
        """Raise Refused where the queue is full."""
        if len(self._waiting) >= self._queue:
            raise busy(f"{self._queue:,} rows wait already")

    async def score(self, run: LoadedRun, row: dict[str, Any]) -> dict[str, Any]:
        """Return the answer about a row; raise Refused where a value can't be read, or the queue is full."""
        self.check()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._waiting.append(_Waiting(run, row, answer))
        if not self._is_due:
            # At the end of this turn of the loop: whatever else was read in it comes along.
            self._is_due = True
            loop.call_soon(self._flush)
        return await answer

    def _flush(self) -> None:
        """Score the rows that wait, or the first of them: those of one run."""
        batch = list[_Waiting]()
        while self._waiting and len(batch) < MOST_AT_ONCE and (not batch or self._waiting[0].run is batch[0].run):
            waiting = self._waiting.popleft()
            if not waiting.answer.done():  # who asked has given up
                batch.append(waiting)
        if not batch:
            self._is_due = False
            return
        self._monitoring.batch_rows.observe(len(batch))
        loop, run = asyncio.get_running_loop(), batch[0].run
        if run.scorer.is_quick:
            self._answer(batch, _scored(run, batch))
            self._go_on(loop)
            return

        def scored(done: asyncio.Future[list[dict[str, Any] | Refused]]) -> None:
            self._answer(batch, done.result())
            self._go_on(loop)

        loop.run_in_executor(None, _scored, run, batch).add_done_callback(scored)

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_due = bool(self._waiting)
        if self._is_due:
            loop.call_soon(self._flush)

    def _answer(self, batch: list[_Waiting], answers: list[dict[str, Any] | Refused]) -> None:
        for waiting, answer in zip(batch, answers, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(answer, Refused):
                waiting.answer.set_exception(answer)
            else:
                waiting.answer.set_result(answer)


def _scored(run: LoadedRun, batch: list[_Waiting]) -> list[dict[str, Any] | Refused]:
    """Return what is answered to each; where a value of one can't be read, the others are scored without it."""
    try:
        return list(score_rows(run, [waiting.row for waiting in batch]))
    except Refused as refused:
        if len(batch) == 1:
            return [refused]
    except Exception as error:  # not foreseen: each is told by itself
        if len(batch) == 1:
            return [failed(error)]
    return [_scored(run, [waiting])[0] for waiting in batch]


def score_rows(run: LoadedRun, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the answers about rows, which are counted; raise Refused where a value can't be read."""
    try:
        logits, encoded = run.scorer.logits(rows)
    except AttfmError as error:
        raise Refused(422, str(error)) from None
    run.drift.add(encoded)
    return run.scores.of(logits)


def failed(error: Exception) -> Refused:
    """Return what is answered where something was not foreseen: nothing of the error's text, which may hold values."""
    refused = Refused(500, "The service failed at this request; its log says where.")
    refused.__cause__ = error
    return refused
