"""Run folders: a model as files that hold no code, with a format version and checksums."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from attfm.config import Config, Reading
from attfm.data.encoder import Encoder
from attfm.data.schema import Schema
from attfm.data.target import Target
from attfm.errors import AttfmError, RunFolderError
from attfm.files import finite, sha256, system_errors
from attfm.model.bundle import Model, build_ensemble, build_module
from attfm.model.calibration import Calibration
from attfm.model.card import model_card
from attfm.model.ensemble import Ensemble, Scorer, members_of
from attfm.model.facts import RunFacts
from attfm.model.memory import PairMemory
from attfm.model.run_files import (
    BACKGROUND,
    CALIBRATION,
    FILES,
    FORMAT,
    MEMORY,
    OPTIONAL,
    SETTINGS,
    SUMS,
    check_files,
    folder_path,
    read_settings,
)
from attfm.model.sums import TrainingSums

Array = NDArray[Any]
REPORT = "report.html"  # for people, like the card: it may be deleted, replaced or absent
# Settings that folders of 0.1 don't have, as models were trained then.
_BEFORE: dict[str, dict[str, Any]] = {
    "model": {"memory_pairs": 0},
    "train": {
        "embedding_ridge": 0.0,
        "linear_ridge": 0.0,
        "adam_eps": 1e-8,
        "rates": False,
        "knots": 0,
        "smoothness_by_field": False,
        "additive_start": False,
        "refit": False,
        "averaging": 1.0,
    },
}


def save_model(model: Model, folder: str | Path, *, report: str | None = None) -> Path:
    """Write a run folder; an older run folder of that name is replaced, nothing half-written stays.

    Parameters
    ----------
    report : str or None, an HTML page for people to stand beside the model; loading does not look at it

    Raises
    ------
    RunFolderError : the folder exists and is not a run folder, can't be written, or can't be read back; what stood
        there before then stays as it is
    """
    path = folder_path(folder)
    check_writable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    except OSError as error:
        raise RunFolderError(f"Can't write the run folder '{path}': {error.strerror}. Choose another.") from None
    try:
        with system_errors():
            _write(model, part, report)
        _check_readable(part, path)
        part.chmod(0o777 & ~_umask())
        if path.exists():
            old = part.with_suffix(".old")
            path.rename(old)
            part.rename(path)
            shutil.rmtree(old)
        else:
            part.rename(path)
    except OSError as error:
        raise RunFolderError(f"Can't write the run folder '{path}': {error.strerror}. Choose another.") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return path


def _check_readable(part: Path, path: Path) -> None:
    """Raise RunFolderError where what was written in `part`, to become `path`, is no model for the loader."""
    try:
        settings = read_settings(part)
        check_files(part, settings["sha256"])
        _read(part, settings)
    except Exception as error:  # whatever it is, it would come again when the folder is loaded
        reason = _one_line(error).replace(str(part), str(path))
        raise RunFolderError(
            f"The model was not saved as '{path}', because it can't be loaded from what was written ({reason}). "
            "Keep it by pickle for now, and report this as a fault of attfm."
        ) from error


def _write(model: Model, part: Path, report: str | None) -> None:
    if report is not None:
        (part / REPORT).write_text(report, encoding="utf-8")
    (part / "schema.json").write_text(model.schema.to_json() + "\n", encoding="utf-8")
    table = model.encoder.to_table()
    with pa.OSFile(str(part / "vocabulary.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    state = {name: tensor.contiguous() for name, tensor in model.module.state_dict().items()}
    save_file(state, part / "weights.safetensors")
    (part / "metrics.json").write_text(json.dumps(finite(model.metrics), indent=2) + "\n", encoding="utf-8")
    history = "".join(json.dumps(finite(record)) + "\n" for record in model.history)
    (part / "history.jsonl").write_text(history, encoding="utf-8")
    (part / "README.md").write_text(model_card(model), encoding="utf-8")
    if model.background:
        arrays = {name: np.ascontiguousarray(array) for name, array in model.background.items()}
        save_arrays(arrays, part / BACKGROUND)
    if model.calibration.kind != "none":
        (part / CALIBRATION).write_text(model.calibration.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for name, of_machines in ((MEMORY, _remembered(model.module)), (SUMS, _summed(model.module))):
        if of_machines:
            save_arrays(of_machines, part / name)
    files = [*FILES, *(name for name in OPTIONAL if (part / name).is_file())]
    settings = {
        "format": FORMAT,
        "attfm": version("attfm"),
        "task": model.task.name,
        "target": json.loads(model.target.to_json()),
        "settings": model.config.model_dump(mode="json"),
        "training": finite(model.facts.known()),
        "sha256": {name: sha256(part / name) for name in files},
    }
    (part / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


@torch.inference_mode(False)  # in a caller's too: what is made there can't be trained, or kept, later
def load_model(folder: str | Path) -> Model:
    """Read a run folder; predictions are bit for bit those of the model that was saved.

    Raises
    ------
    RunFolderError : the folder is absent, incomplete, damaged or of a newer format
    """
    path = folder_path(folder)
    settings = read_settings(path)
    check_files(path, settings["sha256"])
    try:
        return _read(path, settings)
    except (AttfmError, LookupError, RuntimeError, ValueError, pa.ArrowInvalid, safetensors.SafetensorError) as error:
        raise RunFolderError(
            f"The run folder '{path}' is damaged ({_one_line(error)}): copy it again, or train again."
        ) from None


def _read(path: Path, settings: dict[str, Any]) -> Model:
    """Return the model of a folder whose files are those that were written."""
    training = dict(settings.get("training", {}))
    schema = Schema.from_json((path / "schema.json").read_text(encoding="utf-8"))
    if reading := training.pop("reading", None):  # where folders of before the schema had it
        schema = schema.model_copy(update={"reading": Reading.parse(reading)})
    with pa.memory_map(str(path / "vocabulary.arrow")) as stream, pa.ipc.open_file(stream) as reader:
        encoder = Encoder.from_table(schema, reader.read_all())
    target = Target.from_json(json.dumps(settings["target"]))
    known = {name: {**_BEFORE[name], **values} for name, values in settings["settings"].items() if name in _BEFORE}
    config = Config.parse({**settings["settings"], **known}, where=f"'{path / SETTINGS}'")
    weights = load_file(path / "weights.safetensors")
    # The members of an ensemble have their numbers in the names: "members.0.intercept".
    members = {name.split(".")[1] for name in weights if name.startswith("members.")}
    facts = RunFacts.model_validate(training)
    module: Scorer
    if members:
        module = build_ensemble(encoder, target, config, members=len(members), cross_fitted=facts.seeds is None)
    else:
        module = build_module(encoder, target, config)
    calibration = Calibration()
    if CALIBRATION in settings["sha256"]:
        calibration = Calibration.model_validate_json((path / CALIBRATION).read_text(encoding="utf-8"))
    calibration.fold_into(module)
    module.load_state_dict(weights)
    if not calibration.is_in(module):
        raise ValueError(f"'{CALIBRATION}' is of another model")
    if MEMORY in settings["sha256"]:
        _remember(module, _mapped(path / MEMORY), encoder)
    if SUMS in settings["sha256"]:
        _know_sums(module, _mapped(path / SUMS))
    return Model(
        schema, encoder, target, module.eval(), config,
        facts=facts,
        metrics=json.loads((path / "metrics.json").read_text(encoding="utf-8")),
        history=[json.loads(line) for line in (path / "history.jsonl").read_text(encoding="utf-8").splitlines()],
        background=load_arrays(path / BACKGROUND) if BACKGROUND in settings["sha256"] else {},
        calibration=calibration,
    )  # fmt: skip


def _mapped(file: Path) -> dict[str, Array]:
    """Return the arrays of a file, mapped into memory: what is not looked at is not read."""
    return {name: tensor.numpy() for name, tensor in load_file(file).items()}


def _remembered(module: Scorer) -> dict[str, Array]:
    """Return the arrays of the pair memory, of an ensemble as "members.0.slots"; none where nothing is remembered."""
    return _of_members(module, [{} if of.memory is None else of.memory.to_arrays() for of in members_of(module)])


def _summed(module: Scorer) -> dict[str, Array]:
    """Return the arrays of the sums, by which the machines can learn on; named as those of the memory."""
    return _of_members(module, [{} if of.sums is None else of.sums.to_arrays() for of in members_of(module)])


def _of_members(module: Scorer, arrays: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    if not isinstance(module, Ensemble):
        return dict(arrays[0])
    return {f"members.{number}.{name}": array for number, own in enumerate(arrays) for name, array in own.items()}


def _by_member(module: Scorer, arrays: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Return the arrays of each machine; undoes `_of_members`."""
    if not isinstance(module, Ensemble):
        return [dict(arrays)]
    return [
        {name.removeprefix(f"members.{number}."): array for name, array in arrays.items()
         if name.startswith(f"members.{number}.")} for number in range(len(module.machines))
    ]  # fmt: skip


def _remember(module: Scorer, arrays: Mapping[str, Array], encoder: Encoder) -> None:
    """Give the machines of a module the memory that `_remembered` returned."""
    for machine, own in zip(members_of(module), _by_member(module, arrays), strict=True):
        if own:
            machine.memory = PairMemory.from_arrays(
                own, features=encoder.n_features, fields=machine.fields, outputs=machine.outputs
            )


def _know_sums(module: Scorer, arrays: Mapping[str, Array]) -> None:
    """Give the machines of a module the sums that `_summed` returned."""
    for machine, own in zip(members_of(module), _by_member(module, arrays), strict=True):
        if own:
            machine.sums = TrainingSums.from_arrays(own)


def check_writable(path: Path) -> None:
    """Raise RunFolderError where `path` exists and is something else than an empty or a run folder."""
    if path.exists() and not (path.is_dir() and ((path / SETTINGS).is_file() or not any(path.iterdir()))):
        raise RunFolderError(f"'{path}' exists and is not a run folder: choose another name, or remove it.")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
