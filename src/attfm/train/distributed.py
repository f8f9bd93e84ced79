"""Training by several workers of Ray: the loop is that of `Trainer`, which each of them runs on its part of a batch."""

import json
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from attfm import errors
from attfm.config import Config
from attfm.errors import AttfmError, CacheError, ConfigError, TrainingError
from attfm.files import written_whole
from attfm.model.bundle import Model
from attfm.model.facts import RunFacts
from attfm.model.modules import FactorizationMachine
from attfm.model.run_folder import load_model, save_model
from attfm.train.checkpoint import Checkpoints
from attfm.train.cluster import processors_of_worker
from attfm.train.exchange import Gathering, exchanging
from attfm.train.fit import fit_prepared
from attfm.train.observer import Epoch, Observer, Together
from attfm.train.refit import train
from attfm.train.streamed import open_streamed

_TRAINED, _FAILED, _TRAFFIC, _EPOCHS = "trained", "failed.json", "traffic.json", "epochs.jsonl"


@dataclass(frozen=True)
class DistributedFit:
    """What each worker does; all its folders must be the same ones on all machines.

    Attributes
    ----------
    config : Config, all settings
    encoded : pathlib.Path, the encoded rows, as `prepare_streamed` left them
    folder : pathlib.Path, where checkpoints are kept and the model is put
    seconds, steps : after how many a checkpoint is written; 0: not by these
    facts : RunFacts, what is known already of the run
    preparing : float, seconds that the encoding took
    failures : int, how often workers may be lost before the training fails
    observer : what every worker tells of its training too, beside the checkpoints
    """

    config: Config
    encoded: Path
    folder: Path
    seconds: float
    steps: int
    facts: RunFacts
    preparing: float = 0.0
    failures: int = 3
    observer: Observer | None = None


class _Followed(Checkpoints):
    """The checkpoints that the first worker writes, from which the others go on too."""

    def on_step(self, trainer: Any) -> None:
        """Leave it to the first worker."""

    def on_end(self, trainer: Any) -> None:
        """Leave it to the first worker."""


def fit_distributed(ray: Any, workers: int, fit: DistributedFit, observer: Observer | None = None) -> Model:
    """Train by so many workers of a cluster; where one is lost, all go on from the last checkpoint.

    observer : is told of the epochs

    Raises
    ------
    AttfmError : what a worker raised; TrainingError where workers were lost more often than `fit.failures`
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    fit.folder.mkdir(parents=True, exist_ok=True)
    failed, notes = fit.folder / _FAILED, fit.folder / f"ray-{uuid.uuid4().hex[:8]}"
    failed.unlink(missing_ok=True)
    trainer = TorchTrainer(
        _train,
        train_loop_config={"fit": fit},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers, resources_per_worker={"CPU": processors_of_worker(ray, workers)},
            placement_strategy="SPREAD",
        ),
        run_config=RunConfig(
            name="train", storage_path=str(notes.absolute()), failure_config=FailureConfig(max_failures=fit.failures)
        ),
    )  # fmt: skip
    try:
        with _told(fit.folder / _EPOCHS, observer):
            trainer.fit()
        return load_model(fit.folder / _TRAINED)
    except AttfmError:
        raise
    except Exception as error:
        if failed.exists():
            told = json.loads(failed.read_text())
            raise getattr(errors, told["kind"], TrainingError)(told["message"]) from None
        raise TrainingError(
            f"Workers were lost more than {fit.failures} times, or can't start: {_first_line(error)}. What was done is "
            "kept in checkpoints."
        ) from error
    finally:
        shutil.rmtree(notes, ignore_errors=True)
        (fit.folder / _EPOCHS).unlink(missing_ok=True)
        shutil.rmtree(fit.folder / _TRAINED, ignore_errors=True)


class _Epochs(Observer):
    """Writes down the epochs, for the process that waits for them."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def on_epoch(self, epoch: Epoch, module: FactorizationMachine) -> bool:
        """Append the epoch."""
        with self._file.open("a") as stream:
            stream.write(json.dumps(asdict(epoch)) + "\n")
        return False


@contextmanager
def _told(file: Path, observer: Observer | None) -> Iterator[None]:
    """Tell an observer of the epochs that a worker writes into a file, from another thread."""
    file.write_text("")
    ended, told = threading.Event(), 0

    def tell() -> None:
        nonlocal told
        last = False
        while observer is not None and not last:
            last = ended.wait(0.3)
            lines = file.read_text().split("\n")[:-1]
            for line in lines[told:]:
                observer.on_epoch(Epoch(**json.loads(line)), None)  # type: ignore[arg-type]
            told = len(lines)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")


def _train(loop: dict[str, Any]) -> None:
    """Train in a worker; what attfm raises is written down, for it would come again."""
    fit: DistributedFit = loop["fit"]
    failed = fit.folder / _FAILED
    if failed.exists():
        raise RuntimeError("a worker has failed before")
    try:
        _train_part(fit)
    except AttfmError as error:
        with written_whole(failed) as path:
            path.write_text(json.dumps({"kind": type(error).__name__, "message": str(error)}))
        raise


def _train_part(fit: DistributedFit) -> None:
    exchange = Gathering()
    config = _on_processors(fit.config)
    if not fit.encoded.is_dir() or not fit.folder.is_dir():
        raise CacheError(
            f"Worker {exchange.rank} does not see '{fit.encoded if fit.folder.is_dir() else fit.folder}': give --cache "
            "and --out folders that all machines share."
        )
    prepared = replace(open_streamed(fit.encoded, config).prepared, seconds=fit.preparing)
    kind = _Followed if exchange.rank else Checkpoints
    observers: list[Observer] = [kind(fit.folder, seconds=fit.seconds, steps=fit.steps)]
    if exchange.rank == 0:
        observers.append(_Epochs(fit.folder / _EPOCHS))
    if fit.observer is not None:
        observers.append(fit.observer)
    observer = Together(*observers)
    with exchanging(exchange):
        if exchange.rank:
            train(prepared, config, observer)
            return
        fitted = fit_prepared(prepared, config, observer, facts=fit.facts, measured=True)
    shutil.rmtree(fit.folder / _TRAINED, ignore_errors=True)
    save_model(fitted.model, fit.folder / _TRAINED)
    with written_whole(fit.folder / _TRAFFIC) as path:
        path.write_text(json.dumps({"bytes_sent": exchange.bytes_sent, "steps": exchange.steps}))


def _on_processors(config: Config) -> Config:
    """Return the settings for workers, which exchange gradients from the memory of processors."""
    if config.train.device == "cuda":
        raise ConfigError("Setting 'device' is 'cuda', but workers of Ray train on processors: use 'auto' or 'cpu'.")
    return config.model_copy(update={"train": config.train.model_copy(update={"device": "cpu"})})
