"""Checkpoints: what training leaves behind from time to time, and goes on from, bit for bit, after it was killed."""

import hashlib
import json
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from attfm.errors import ConfigError, RunFolderError
from attfm.files import sha256, system_errors, written_whole
from attfm.train.observer import Observer

if TYPE_CHECKING:
    from attfm.train.trainer import Trainer

State = dict[str, Any]
_TENSOR = "tensor "  # begins the text that stands for a tensor in the JSON of a state


class Checkpoints(Observer):
    """Keeps the states of a fit's trainings in a folder, and gives them back to the same fit when it is run again.

    A fit trains once or several times (candidates, folds, refits), always in the same order, and all that comes between
    is the same again from the same tables and settings. So each training is known by its number: one that had ended
    gets its result back, the one that was under way goes on from its last checkpoint, all others begin.

    A checkpoint is one file, written under another name and renamed, with the checksum of its bytes in its name. A
    damaged one is passed over for the one before.

    Parameters
    ----------
    folder : pathlib.Path, is made where it does not exist
    seconds, steps : float, int
        A checkpoint is written when so many seconds have gone by since the last one, or so many steps; 0: not by these.
    keep : int, how many of a training that is under way are kept
    """

    def __init__(self, folder: Path, *, seconds: float = 300.0, steps: int = 0, keep: int = 2) -> None:
        self._folder, self._seconds, self._steps, self._keep = folder, seconds, steps, keep
        self._number, self._since, self._written = 0, 0, time.monotonic()
        self._identity = ""
        self._ended: dict[str, State] = {}  # results that the next checkpoint writes too

    def on_start(self, trainer: "Trainer") -> None:
        """Give a training that is about to begin what was kept of it."""
        self._number += 1
        self._identity = _identity(trainer)
        for file in sorted(self._folder.glob(f"{self._number:04d}-*.safetensors"), reverse=True):
            state = _read(file)
            if state is None:
                continue
            if state.pop("identity") != self._identity:
                raise ConfigError(
                    f"The checkpoints in '{self._folder}' are of other rows or settings than these: the table, its "
                    "settings or attfm has changed. Train anew without --resume."
                )
            trainer.load_state_dict(state)
            return

    def on_step(self, trainer: "Trainer") -> None:
        """Write a checkpoint where one is due."""
        self._since += 1
        due = self._seconds and time.monotonic() - self._written >= self._seconds
        if due or (self._steps and self._since >= self._steps):
            place = trainer.place
            self._write({f"{self._number:04d}-{place[0]:06d}-{place[1]:08d}": self._signed(trainer.state())})
            self._forget()

    def on_end(self, trainer: "Trainer") -> None:
        """Keep the result of a training until the next checkpoint is written."""
        self._ended[f"{self._number:04d}-ended"] = self._signed(trainer.result())

    def _signed(self, state: State) -> State:
        return {**state, "identity": self._identity}

    def _write(self, states: Mapping[str, State]) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name, state in {**self._ended, **states}.items():
                whole = self._folder / f"{name}.whole"  # no checkpoint yet: its checksum is not in its name
                with written_whole(whole) as path:
                    _save(state, path)
                whole.rename(self._folder / f"{name}-{sha256(whole)[:16]}.safetensors")
        except OSError as error:
            raise RunFolderError(
                f"A checkpoint can't be written into '{self._folder}' ({error.strerror}): make room there. Those "
                "before it are kept."
            ) from error
        self._ended = {}
        self._since, self._written = 0, time.monotonic()

    def _forget(self) -> None:
        """Remove the older checkpoints of this training, and those of trainings that have ended."""
        under_way: dict[str, list[Path]] = {}
        for file in sorted(self._folder.glob("*.safetensors")):
            under_way.setdefault(file.name[:4], []).append(file)
        for files in under_way.values():
            ended = "-ended-" in files[-1].name  # letters come after digits
            for file in files[: -(1 if ended else self._keep)]:
                file.unlink(missing_ok=True)


def _identity(trainer: "Trainer") -> str:
    """Return a digest of what a training learns from: rows, targets, weights, settings, sizes, and by which attfm."""
    digest = hashlib.sha256()
    for dataset in (trainer.data.train, trainer.data.valid):
        for part in () if dataset is None else dataset.ordered():
            rows = part.rows
            for tensor in (rows.ids, rows.values, rows.offsets, rows.bins, part.target, part.weight):
                if tensor is not None:
                    digest.update(tensor.cpu().contiguous().numpy().tobytes())
    if trainer.learns_on:  # from where it began
        for tensor in trainer.module.state_dict().values():
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    shapes = {name: list(tensor.shape) for name, tensor in trainer.module.state_dict().items()}
    settings = (
        trainer.config.model_dump(mode="json"),
        trainer.module.config.model_dump(mode="json"),
        shapes,
        version("attfm"),
    )
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()


def _save(state: State, path: Path) -> None:
    """Write a state of dictionaries, lists, numbers and tensors as one safetensors file, from where the tensors lie."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_plain(state, tensors, {}))  # with Infinity, which Python's own reader knows
    with system_errors():
        save_file(tensors, path, {"state": text})


# Not functions within functions: one that calls itself is in a cycle with what it closes over, so that the tensors of a
# checkpoint, gigabytes perhaps, would stay in memory until Python's collector happens to look.


def _plain(value: Any, tensors: dict[str, Tensor], names: dict[tuple[Any, ...], str]) -> Any:
    """Return a state with names in place of its tensors, which are put into `tensors`; shared ones once."""
    if isinstance(value, Tensor):
        tensor = value.detach().cpu().contiguous()
        place = (tensor.data_ptr(), tensor.shape, tensor.dtype) if tensor.numel() else (id(value),)
        if place not in names:
            names[place] = str(len(tensors))
            tensors[names[place]] = tensor
        return _TENSOR + names[place]
    if isinstance(value, Mapping):
        return {str(key): _plain(item, tensors, names) for key, item in value.items()}
    return [_plain(item, tensors, names) for item in value] if isinstance(value, list | tuple) else value


def _whole(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return what `_plain` was given."""
    if isinstance(value, str) and value.startswith(_TENSOR):
        return tensors[value.removeprefix(_TENSOR)]
    if isinstance(value, dict):
        return {key: _whole(item, tensors) for key, item in value.items()}
    return [_whole(item, tensors) for item in value] if isinstance(value, list) else value


def _read(file: Path) -> State | None:
    """Return the state in a file, or None where its bytes are not those that were written."""
    if sha256(file)[:16] != file.stem.rpartition("-")[2]:
        return None
    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no dictionary)
            text = opened.metadata()["state"]
    except (SafetensorError, KeyError, TypeError):
        return None
    state: State = _whole(json.loads(text), tensors)
    return state
