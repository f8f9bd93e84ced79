"""Calibration after training: by which rows it is fitted, and what gets it."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attfm.config import Config
from attfm.model.calibration import Calibration, check_can_calibrate
from attfm.train.losses import scored
from attfm.train.prepare import Prepared
from attfm.train.refit import Trained


def check_setting(prepared: Prepared, config: Config) -> None:
    """Raise ConfigError, before anything is trained, where the settings ask for what these rows can't give."""
    valid = prepared.data.valid
    parts = [] if valid is None else [part.target[part.weight > 0] for part in valid.ordered()]
    target: NDArray[Any] = torch.cat(parts).numpy() if parts else np.empty(0, np.int64)
    check_can_calibrate(config.train.calibrate, prepared.data.task, target)


def calibrate(trained: Trained, prepared: Prepared, config: Config) -> Calibration:
    """Fit the calibration that the settings ask for by the validation rows, fold it into the module, and return it.

    The refits get the same, so that their effects can be compared with the module's.
    """
    kind, data = config.train.calibrate, prepared.data
    if kind == "none" or data.valid is None:
        return Calibration()
    logits, target, weight = (tensor.cpu().numpy() for tensor in scored(trained.module, data.valid))
    calibration = Calibration.fit(kind, data.task, logits, target, weight)
    for module in (trained.module, *trained.refits):
        calibration.fold_into(module)
    return calibration
