"""Run folders to be: chosen and claimed before the work, and gone again if it comes to nothing."""

import contextlib
import itertools
from pathlib import Path
from types import TracebackType
from typing import Self

from attfm.errors import ConfigError, RunFolderError
from attfm.model.run_folder import check_writable

RUNS = Path("runs")


class NewFolder:
    """Context manager that makes an empty folder; if nothing was written into it, it is removed at the end.

    It is `out`, where with `force` an older run may be replaced, or else the next free of runs/<stem>-1,
    runs/<stem>-2, ..
    """

    def __init__(self, out: str | None, *, stem: str, force: bool = False) -> None:
        self._made: list[Path] = []
        self._stem = stem
        self._chosen = out is not None
        self.path = RUNS if out is None else Path(out).expanduser()
        if out is None:
            return
        try:
            check_writable(self.path)
        except RunFolderError as error:
            raise ConfigError(str(error)) from None
        if not force and self.path.is_dir() and any(self.path.iterdir()):
            raise ConfigError(f"'{out}' holds a run already: choose another --out, or replace it by --force.")

    def __enter__(self) -> Self:
        if self._chosen:
            self._make(self.path)
            return self
        numbered = (RUNS / f"{self._stem}-{number}" for number in itertools.count(1))
        self.path = next(path for path in numbered if not path.exists() and self._make(path))
        return self

    def _make(self, path: Path) -> bool:
        """Make a folder and those above it; return False where another process just has."""
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            try:
                folder.mkdir()
            except FileExistsError:
                if folder == path:
                    return False
            except OSError as error:
                self._remove()
                raise ConfigError(
                    f"Can't make the folder '{folder}' ({error.strerror}): choose another by --out."
                ) from None
            else:
                self._made.append(folder)
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):  # it holds something now
                folder.rmdir()
