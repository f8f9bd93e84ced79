"""Calibration after training: by which rows it is fitted, and what gets it."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attfm.config import Config
from attfm.data.dataset import Dataset
from attfm.model.calibration import Calibration, check_can_calibrate
from attfm.model.ensemble import members_of
from attfm.train.losses import scored
from attfm.train.prepare import Prepared
from attfm.train.refit import Trained


def check_setting(prepared: Prepared, config: Config) -> None:
    """Raise ConfigError, before anything is trained, where the settings ask for what these rows can't give."""
    rows: Dataset | None = prepared.data.valid
    if prepared.folds is not None:
        rows = prepared.data.train.take(np.flatnonzero(prepared.folds.number >= 0))
    parts = [] if rows is None else [part.target[part.weight > 0] for part in rows.ordered()]
    target: NDArray[Any] = torch.cat(parts).numpy() if parts else np.empty(0, np.int64)
    check_can_calibrate(config.train.calibrate, prepared.data.task, target)


def calibrate(trained: Trained, prepared: Prepared, config: Config) -> tuple[Trained, Calibration]:
    """Fit the calibration that the settings ask for, and fold it into the module and into what is out of fold.

    It is fitted by the validation rows; of cross-fitted models by the rows in folds, each scored by the model that was
    not trained on it. The refits get the same, so that their effects can be compared with the module's.
    """
    kind, data, logits = config.train.calibrate, prepared.data, trained.out_of_fold
    if kind == "none" or (data.valid is None and logits is None):
        return trained, Calibration()
    if logits is None:
        assert data.valid is not None
        by_member = [scored(machine, data.valid) for machine in members_of(trained.judged)]
        own = np.mean([logits.cpu().numpy() for logits, *_ in by_member], axis=0)
        target, weight = (tensor.cpu().numpy() for tensor in by_member[0][1:])
    else:
        kept = np.flatnonzero(np.isfinite(logits).all(1))
        parts = list(data.train.take(kept).ordered())
        target, weight = (torch.cat([getattr(part, name) for part in parts]).numpy() for name in ("target", "weight"))
        own = logits[kept]
    calibration = Calibration.fit(kind, data.task, own, target, weight)
    before = () if trained.before is None else (trained.before,)
    for module in (trained.module, *before, *trained.refits):
        calibration.fold_into(module)
    return replace(trained, out_of_fold=None if logits is None else calibration.logits(logits)), calibration
