"""One object from raw columns to score: schema, encoder, target, module and settings; saved as one folder."""

import copy
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from attfm.config import Config, Task
from attfm.data.encoder import Encoder
from attfm.data.schema import Schema
from attfm.data.sources.source import Source, open_source
from attfm.data.target import Target
from attfm.errors import AttfmError, RunFolderError
from attfm.model.card import model_card
from attfm.model.modules import FactorizationMachine
from attfm.model.rows import Rows

FORMAT = 1
_SETTINGS = "config.json"
_FILES = (
    "schema.json",
    "vocabulary.arrow",
    "weights.safetensors",
    "metrics.json",
    "history.jsonl",
    "README.md",
)
REPORT = "report.html"  # for people, like the card: it may be deleted, replaced or absent
_BACKGROUND = "background.safetensors"  # not in every folder: a model may have none


@dataclass
class Model:
    """A trained model with all that it needs to score raw columns.

    schema, encoder, target, module, config : the parts
    metrics : what was measured after training, by part ("valid", "test") and metric
    history : one dictionary for each epoch
    training : facts of the run: rows, seconds, best epoch
    background : summary of the training rows, arrays by name, that `attfm.explain` made and reads; empty where none is
    """

    schema: Schema
    encoder: Encoder
    target: Target
    module: FactorizationMachine
    config: Config
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    background: dict[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        """What is predicted: "binary", "multiclass" or "regression"."""
        return self.target.task

    def logits(self, data: object) -> NDArray[np.float64]:
        """Return (rows, outputs) logits of a table, or (rows, 1) predictions of a regression.

        data : whatever `attfm.data.sources.source.open_source` reads; columns by name, in any order.
        """
        parts = list(self.iterate_logits(open_source(data)))
        return np.concatenate(parts) if parts else np.empty((0, self.module.outputs))

    def iterate_logits(self, source: Source) -> Iterator[NDArray[np.float64]]:
        """Yield the logits of each record batch, in order."""
        row = 0
        for batch in source.batches():
            yield self.batch_logits(batch, first_row=row)
            row += batch.num_rows

    def batch_logits(self, batch: pa.RecordBatch, *, first_row: int = 0) -> NDArray[np.float64]:
        """Return the logits of one record batch; `first_row` is its place in the file, for messages."""
        rows = Rows.from_encoded(self.encoder.transform(batch, first_row=first_row))
        # The compiled kernels give a row the same bits whatever rows are beside it.
        scorer = self.module if self.module.scores_natively(rows) else self.scorer
        logits: NDArray[np.float64] = scorer.predict(rows).numpy().astype(np.float64)
        return logits

    @cached_property
    def scorer(self) -> FactorizationMachine:
        """The module in float64: what explanations are checked against, and what scores where the kernels can't."""
        # In float64 a row's score does not depend on the rows beside it by more than 1e-15: the matrix products of
        # torch sum in another order for another number of rows.
        return copy.deepcopy(self.module).double()

    def predict_proba(self, data: object) -> NDArray[np.float64]:
        """Return (rows, classes) probabilities, in the order of `target.classes`; rows sum to 1."""
        return probabilities(self.logits(data))

    def scores(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what the metrics take: (rows, classes) probabilities, or (rows,) predictions of a regression."""
        return logits[:, 0] if self.task == "regression" else probabilities(logits)

    def save(self, folder: str | Path, *, report: str | None = None) -> Path:
        """Write the run folder; an older run folder of that name is replaced, nothing half-written stays.

        report : an HTML page for people to stand beside the model; loading does not look at it

        Raises
        ------
        RunFolderError : the folder exists and is not a run folder, or can't be written
        """
        path = Path(folder)
        check_writable(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        except OSError as error:
            raise RunFolderError(f"Can't write the run folder '{path}': {error.strerror}. Choose another.") from None
        try:
            self._write(part)
            if report is not None:
                (part / REPORT).write_text(report, encoding="utf-8")
            part.chmod(0o777 & ~_umask())
            if path.exists():
                old = part.with_suffix(".old")
                path.rename(old)
                part.rename(path)
                shutil.rmtree(old)
            else:
                part.rename(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return path

    def _write(self, part: Path) -> None:
        (part / "schema.json").write_text(self.schema.to_json() + "\n")
        table = self.encoder.to_table()
        with (
            pa.OSFile(str(part / "vocabulary.arrow"), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as writer,
        ):
            writer.write_table(table)
        state = {name: tensor.contiguous() for name, tensor in self.module.state_dict().items()}
        save_file(state, part / "weights.safetensors")
        (part / "metrics.json").write_text(json.dumps(_finite(self.metrics), indent=2) + "\n")
        (part / "history.jsonl").write_text("".join(json.dumps(_finite(record)) + "\n" for record in self.history))
        (part / "README.md").write_text(model_card(self))
        if self.background:
            save_arrays(
                {name: np.ascontiguousarray(array) for name, array in self.background.items()}, part / _BACKGROUND
            )
        files = [*_FILES, *([_BACKGROUND] if self.background else [])]
        settings = {
            "format": FORMAT,
            "attfm": _version(),
            "task": self.task,
            "target": json.loads(self.target.to_json()),
            "settings": self.config.model_dump(mode="json"),
            "training": _finite(self.training),
            "sha256": {name: _sha256(part / name) for name in files},
        }
        (part / _SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a run folder; predictions are bit for bit those of the model that was saved.

        Raises
        ------
        RunFolderError : the folder is absent, incomplete, damaged or of a newer format
        """
        path = Path(folder)
        settings = _read_settings(path)
        for name, digest in settings["sha256"].items():
            file = path / name
            if not file.is_file():
                raise RunFolderError(f"The run folder '{path}' lacks '{name}': copy it again, or train again.")
            # The texts are for people: they may be edited, and nothing is loaded from them.
            if name != "README.md" and _sha256(file) != digest:
                raise RunFolderError(
                    f"'{name}' in the run folder '{path}' is not what was saved (its sha256 differs): "
                    "copy the folder again, or train again."
                )
        try:
            schema = Schema.from_json((path / "schema.json").read_text())
            with pa.memory_map(str(path / "vocabulary.arrow")) as file, pa.ipc.open_file(file) as reader:
                encoder = Encoder.from_table(schema, reader.read_all())
            target = Target.from_json(json.dumps(settings["target"]))
            config = Config.parse(settings["settings"], where=f"'{path / _SETTINGS}'")
            module = build_module(encoder, target, config)
            module.load_state_dict(load_file(path / "weights.safetensors"))
            metrics = json.loads((path / "metrics.json").read_text())
            background = load_arrays(path / _BACKGROUND) if _BACKGROUND in settings["sha256"] else {}
            history = [json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()]
        except (
            AttfmError,
            KeyError,
            RuntimeError,
            ValueError,
            pa.ArrowInvalid,
            safetensors.SafetensorError,
        ) as error:
            reason = " ".join(str(error).split())
            raise RunFolderError(
                f"The run folder '{path}' is damaged ({reason}): copy it again, or train again."
            ) from None
        module.eval()
        return cls(schema, encoder, target, module, config, metrics, history, settings.get("training", {}), background)


def build_module(encoder: Encoder, target: Target, config: Config) -> FactorizationMachine:
    """Return an untrained module of the size that the encoder and the target ask for."""
    outputs = len(target.classes or ()) if target.task == "multiclass" else 1
    return FactorizationMachine(encoder.n_features, len(encoder.fields), outputs, config.model)


def probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (rows, classes) probabilities from logits (rows, 1) of class 1, or (rows, classes)."""
    if logits.shape[1] == 1:
        positive = np.exp(-np.logaddexp(0, -logits))
        return np.hstack([np.exp(-np.logaddexp(0, logits)), positive])
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    result: NDArray[np.float64] = shifted / shifted.sum(1, keepdims=True)
    return result


def check_writable(path: Path) -> None:
    """Raise RunFolderError where `path` exists and is something else than an empty or a run folder."""
    if path.exists() and not (path.is_dir() and ((path / _SETTINGS).is_file() or not any(path.iterdir()))):
        raise RunFolderError(f"'{path}' exists and is not a run folder: choose another name, or remove it.")


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise RunFolderError(f"There is no run folder '{path}': give the folder that 'attfm train' printed.")
    try:
        settings = json.loads((path / _SETTINGS).read_text())
        version, digests = settings["format"], settings["sha256"]
    except FileNotFoundError:
        raise RunFolderError(f"'{path}' is not a run folder: it has no '{_SETTINGS}'.") from None
    except (ValueError, KeyError, TypeError):
        raise RunFolderError(f"'{path / _SETTINGS}' is damaged: copy the run folder again, or train again.") from None
    if not isinstance(version, int) or version > FORMAT:
        raise RunFolderError(
            f"The run folder '{path}' has format {version}, this attfm reads up to {FORMAT}: install a newer attfm."
        )
    if not isinstance(digests, dict) or set(digests) - {_BACKGROUND} != set(_FILES):
        raise RunFolderError(f"'{path / _SETTINGS}' is damaged: copy the run folder again, or train again.")
    return dict(settings)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _finite(value: Any) -> Any:
    """Return the value with NaN and infinities as None: JSON has no word for them."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _version() -> str:
    from importlib.metadata import version

    return version("attfm")
