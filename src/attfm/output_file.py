"""Files that people ask for by name, such as a report: checked before the work, and whole or not there after it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from attfm.errors import ConfigError
from attfm.files import written_whole


@dataclass(frozen=True)
class OutputFile:
    """What a file to be holds, and how its name ends.

    Attributes
    ----------
    what : str, such as "report"
    kind : str, such as "an HTML file"
    endings : tuple of str, that the name may have, in lower case; the first is the usual one
    """

    what: str
    kind: str
    endings: tuple[str, ...]

    def checked(self, path: str | Path) -> Path:
        """Return the path of a file to be; raise ConfigError where it is a folder, lies in none, or ends otherwise."""
        usual = self.endings[0]
        if not isinstance(path, str | PathLike):
            raise ConfigError(f"The {self.what} is {path!r:.60}: give its file, such as '{self.what}{usual}'.")
        file = Path(path).expanduser()
        if not str(path):
            raise ConfigError(f"The {self.what} has no name: give its file, such as '{self.what}{usual}'.")
        if file.is_dir():
            example = file / f"{self.what}{usual}"
            raise ConfigError(f"'{path}' is a folder: give the {self.what}'s file, such as '{example}'.")
        if file.suffix.lower() not in self.endings:
            raise ConfigError(f"The {self.what} '{path}' is {self.kind}: end its name in {usual}.")
        if not file.parent.is_dir():
            raise ConfigError(f"The {self.what} '{path}' can't be written: there is no folder '{file.parent}'.")
        return file

    @contextmanager
    def written(self, file: Path) -> Iterator[Path]:
        """Give a temporary name, as `attfm.files.written_whole`; raise ConfigError where the disk refuses."""
        try:
            with written_whole(file) as part:
                yield part
        except OSError as error:
            raise ConfigError(f"Can't write the {self.what} '{file}': {error.strerror}. Choose another path.") from None
