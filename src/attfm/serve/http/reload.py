"""The run that is served at the time, and the next one, which takes its place when it is whole."""

import asyncio
import contextlib
from pathlib import Path

from attfm.errors import AttfmError
from attfm.serve.http.access_log import AccessLog
from attfm.serve.http.loaded_run import LoadedRun
from attfm.serve.http.monitoring import Monitoring
from attfm.serve.http.settings import ServiceSettings

_MOST_SECONDS = 60.0  # between attempts to load a folder that can't be loaded
_Signature = tuple[int, ...] | None


class CurrentRun:
    """Holds a run, and loads the folder again when what stands there is another one.

    A request keeps the run that it began with. A folder that can't be loaded is reported, and the run stays.
    """

    def __init__(self, folder: str | Path, settings: ServiceSettings, log: AccessLog, monitoring: Monitoring) -> None:
        self._folder, self._settings, self._log, self._monitoring = Path(folder), settings, log, monitoring
        self._signature = _signature(self._folder)
        self.run = LoadedRun.load(folder, settings)
        self._asked = asyncio.Event()
        monitoring.watch_run(lambda: self.run)

    def ask(self) -> None:
        """Have the folder looked at now."""
        self._asked.set()

    async def watch(self) -> None:
        """Look at the folder again and again, until it is cancelled."""
        seconds, failed, told = self._settings.watch_seconds, False, ""
        wait = seconds
        while True:
            asked = await self._asked_within(wait)
            signature = _signature(self._folder)
            if signature is None or (signature == self._signature and not asked and not failed):
                wait = seconds
                continue
            try:
                await self.load()
            except AttfmError as error:
                wait, failed = min(max(2 * wait, seconds, 1.0), _MOST_SECONDS), True
                if str(error) != told:
                    self._log.write(level="error", event="reload failed", message=str(error), version=self.run.version)
                    self._monitoring.reloads.labels("failed").inc()
                told = str(error)
            else:
                wait, failed, told, self._signature = seconds, False, "", signature

    async def load(self) -> bool:
        """Load the folder beside the run that is served, then serve it; return whether it is another one.

        Raises
        ------
        RunFolderError : the folder is absent, damaged or of a newer format; the run stays
        """
        loop = asyncio.get_running_loop()
        run = await loop.run_in_executor(None, LoadedRun.load, self._folder, self._settings)
        if run.version == self.run.version:
            return False
        before, self.run = self.run.version, run
        self._log.write(level="info", event="reloaded", before=before, version=run.version)
        self._monitoring.reloads.labels("done").inc()
        return True

    async def _asked_within(self, seconds: float) -> bool:
        """Wait, for ever where it is 0 seconds; return whether somebody asked meanwhile."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._asked.wait(), seconds or None)
        asked = self._asked.is_set()
        self._asked.clear()
        return asked


def _signature(folder: Path) -> _Signature:
    """Return what changes when another run stands in the folder; None while none does."""
    try:
        state = (folder / "config.json").stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size
