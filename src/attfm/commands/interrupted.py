"""Trainings that can be gone on with: what was asked for, beside the run folder, and the checkpoints."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from attfm.commands.asked import Asked
from attfm.commands.console import Output
from attfm.config import Config, Reading
from attfm.data.datasets import DATASETS
from attfm.data.sources.database_uri import DatabaseUri, is_database
from attfm.errors import ConfigError
from attfm.files import written_whole
from attfm.train.checkpoint import Checkpoints

_OPTIONS = "options.json"


class Interruptible:
    """Context manager around a training whose checkpoints lie in RUN.checkpoints; they go when it ends well.

    Where it fails before there is a checkpoint, nothing stays, unless `stay` was called.

    Parameters
    ----------
    run : pathlib.Path, the run folder to be
    asked, config : what `go_on` starts again with
    resumed : bool, whether checkpoints that are there are gone on from; else they are removed
    """

    def __init__(self, run: Path, asked: Asked, config: Config, *, resumed: bool) -> None:
        self.run, self.folder = run, checkpoints_of(run)
        self._asked, self._config, self._resumed, self._stays = asked, config, resumed, False
        self.observer = Checkpoints(self.folder, seconds=60 * asked.checkpoint_minutes, steps=asked.checkpoint_steps)

    def __enter__(self) -> "Interruptible":
        if not self._resumed:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        asked = replace(self._asked, data=_absolute(self._asked.data) or "", valid=_absolute(self._asked.valid),
                        test=_absolute(self._asked.test), cache=_absolute(self._asked.cache, there=False),
                        from_run=_absolute(self._asked.from_run),
                        out=str(self.run.absolute()))  # fmt: skip
        values = {**asdict(asked), "reading": asked.reading.model_dump(exclude_unset=True, mode="json")}
        with written_whole(self.folder / _OPTIONS) as path:
            path.write_text(json.dumps({"asked": values, "config": self._config.model_dump(mode="json")}))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or not (self.has_checkpoint or self._stays):
            shutil.rmtree(self.folder, ignore_errors=True)

    def stay(self) -> None:
        """Keep what was asked for where the training fails: there is something to go on from, elsewhere."""
        self._stays = True

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is one to go on from."""
        return any(self.folder.glob("*.safetensors"))


def checkpoints_of(run: Path) -> Path:
    """Return the folder of the checkpoints of a run."""
    return run.with_name(run.name + ".checkpoints")


def go_on(run: str) -> tuple[Asked, Config]:
    """Return what an interrupted training was asked for; raise ConfigError where there is none of that run folder."""
    file = checkpoints_of(Path(run).expanduser()) / _OPTIONS
    try:
        kept: dict[str, Any] = json.loads(file.read_text())
        asked = Asked(**{**kept["asked"], "reading": Reading.parse(kept["asked"]["reading"]), "force": True})
        return asked, Config.parse(kept["config"])
    except FileNotFoundError:
        raise ConfigError(
            f"There is no interrupted training of '{run}': '{file.parent}' is not there. Give the run folder that an "
            "interrupted 'attfm train' was to write."
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"'{file}' is damaged ({error}): train anew without --resume.") from None


def resume_training(run: str | None, output: Output, *, alone: bool) -> None:
    """Go on with the interrupted training of a run folder; `alone`: no other option was given."""
    from attfm.commands.train import train

    if run is None:
        raise ConfigError("Which table is to be trained on? Give a file, a folder or a bundled table, such as adult.")
    if not alone:
        raise ConfigError("--resume goes on as the training was asked for: give it alone.")
    asked, config = go_on(run)
    train(asked, config, output, resumed=True)


def _absolute(path: str | None, *, there: bool = True) -> str | None:
    """Return a path that another working directory does not change; what is no path, such as "adult", stays.

    The URI of a database is without its passwords, which are not stored: they come from PGPASSWORD or ~/.pgpass then.
    A pattern is a path below a folder that is there; there : whether the path itself has to be.
    """
    if path is not None and is_database(path):
        return DatabaseUri(path).absolute()
    if path is None or path in DATASETS or "://" in path:
        return path
    if there and not Path(path).expanduser().exists() and not any(sign in path for sign in "*?["):
        return path
    return str(Path(path).expanduser().absolute())
