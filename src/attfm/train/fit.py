"""From tables to a model: prepare, train, calibrate, summarise."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attfm.config import Config
from attfm.data.dataset import Dataset
from attfm.explain.summary import summarise
from attfm.metrics.scores import evaluate
from attfm.model.bundle import Model
from attfm.model.calibration import Calibration
from attfm.model.ensemble import Ensemble, Scorer, members_of
from attfm.model.facts import RunFacts
from attfm.model.task import Task
from attfm.train.calibrate import calibrate, check_setting
from attfm.train.continued import Continuation, Start, chosen_of, day_of, day_told, settings_of
from attfm.train.observer import Observer
from attfm.train.prepare import Prepared, Tables, prepare
from attfm.train.refit import Trained, train


@dataclass(frozen=True)
class Fitted:
    """What `fit` returns: the model, and the encoded rows that it was trained and measured on."""

    model: Model
    prepared: Prepared
    trained: Trained


@torch.inference_mode(False)
@torch.enable_grad()  # in a caller's torch.no_grad() or torch.inference_mode() too
def fit(
    tables: Tables,
    config: Config,
    observer: Observer | None = None,
    *,
    facts: RunFacts | None = None,
    measured: bool = False,
    continued: Continuation | None = None,
) -> Fitted:
    """Fit encoder, target and module; summarise the training rows for explanations.

    Parameters
    ----------
    tables : Tables, all rows
    config : Config, all settings; with `n_bags` the model gets a summary of refits too
    observer : Observer or None, is told of batches, epochs and refits, and may ask to stop
    facts : RunFacts or None, what is known already of the run
    measured : bool, whether the validation and test rows are measured, for `Model.metrics`
    continued : Continuation or None, a model that learns on from these rows; None: a new one is trained

    Raises
    ------
    AttfmError : bad columns, labels, weights or settings, or a loss that is not finite
    """
    if continued is not None:
        config = settings_of(continued.model, config)
    return fit_prepared(prepare(tables, config, continued=continued), config, observer, facts=facts, measured=measured)


@torch.inference_mode(False)
@torch.enable_grad()
def fit_prepared(
    prepared: Prepared, config: Config, observer: Observer | None, *, facts: RunFacts | None, measured: bool
) -> Fitted:
    """Fit a module to prepared rows; else as `fit`."""
    check_setting(prepared, config)
    trained = train(prepared, config, observer)
    trained, calibration = calibrate(trained, prepared, config)
    model = summarised(prepared, trained, calibration, config, facts=facts or RunFacts(), measured=measured)
    return Fitted(model, prepared, trained)


def summarised(
    prepared: Prepared, trained: Trained, calibration: Calibration, config: Config, *, facts: RunFacts, measured: bool
) -> Model:
    """Return the model of a trained module, calibrated, with its facts and a summary of the training rows."""
    data, histories, target = prepared.data, trained.histories, prepared.target
    task, threshold = calibration.applied_to(data.task), config.train.threshold
    parts = {"valid": data.valid, "test": prepared.test} if measured else {}
    metrics = {
        name: measure(trained.judged if name == "valid" else trained.module, part, task, threshold=threshold)
        for name, part in parts.items() if part is not None
    }  # fmt: skip
    module = trained.module
    seeds = len(members_of(module)) if isinstance(module, Ensemble) and not module.cross_fitted else None
    if measured and data.valid is None and trained.out_of_fold is not None:
        metrics = {"valid": _out_of_fold(prepared, task, trained.out_of_fold, threshold=threshold), **metrics}
    return Model(
        prepared.schema, prepared.encoder, target, trained.module, config,
        facts=facts.with_facts(
            test_rows=len(prepared.test or ()) if measured else None,
            training_rows=trained.taught.training_rows,
            validation_rows=len(data.valid or ()),
            features=prepared.encoder.n_features,
            fields=len(prepared.encoder.fields),
            models=1 if seeds else len(members_of(trained.module)),
            seeds=seeds,
            epochs=round(np.mean([len(history.epochs) for history in histories])),
            best_epoch=round(np.mean([history.best_epoch for history in histories])),
            refit_epochs=None if trained.before is None else histories[0].best_epoch,
            stopped=Counter(history.stopped for history in histories).most_common(1)[0][0],
            seconds=round(prepared.seconds + trained.seconds, 3),
            class_weights=None if prepared.class_weights is None else prepared.class_weights.tolist(),
            straddling=list(dict.fromkeys(name for history in histories for name in history.straddling)) or None,
            calibration=None if calibration.kind == "none" else str(calibration),
            **{"chosen": chosen_of(config, trained.config) or None, **_of_start(prepared.start, facts)},
        ),
        metrics=metrics,
        history=trained.records(),
        background=summarise(trained.module, prepared.encoder, trained.taught.data.train, refits=trained.refits),
        calibration=calibration,
    )  # fmt: skip


def _of_start(start: Start | None, facts: RunFacts) -> dict[str, Any]:
    """Return the facts of a model that has learned on, or of one that may."""
    as_of = facts.as_of or day_told(day_of(None))
    if start is None:
        return {"as_of": as_of}
    earlier = start.model.facts
    return {
        "as_of": as_of, "trainings": (earlier.trainings or 1) + 1, "new_values": dict(start.new) or None,
        "evicted_values": dict(start.evicted) or None, "chosen": earlier.chosen,
    }  # fmt: skip


def _out_of_fold(prepared: Prepared, task: Task, logits: NDArray[np.float64], *, threshold: float) -> dict[str, float]:
    """Return the metrics of the training rows that were in folds, each by the model that was not trained on it."""
    kept = np.isfinite(logits).all(1)
    examples = list(prepared.data.train.take(np.flatnonzero(kept)).ordered())
    target, weight = (torch.cat([getattr(part, name) for part in examples]).numpy() for name in ("target", "weight"))
    return evaluate(task.name, target, task.scores(logits[kept]), weight.astype(np.float64), threshold=threshold)


def measure(module: Scorer, dataset: Dataset, task: Task, *, threshold: float) -> dict[str, float]:
    """Return the metrics of encoded rows by name; see `attfm.metrics.scores`."""
    parts = [(module.predict(part.rows), part.target, part.weight) for part in dataset.ordered()]
    logits, target, weight = (torch.cat(tensors).numpy() for tensors in zip(*parts, strict=True))
    scores = task.scores(logits.astype(np.float64))
    return evaluate(task.name, target, scores, weight.astype(np.float64), threshold=threshold)
