"""The learning curve as one list, whether one model was trained or several."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Records = Sequence[Mapping[str, Any]]


def mean_curve(history: Records) -> list[dict[str, Any]]:
    """Return one record for each epoch, with the mean losses of the models that were trained.

    Of several models only the epochs that all of them ran are taken: a mean over those that went on would bend where
    one stops.

    Examples
    --------
    >>> runs = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]
    >>> history = [{"model": m, "epoch": e, "train_loss": m / e, "valid_loss": None} for m, e in runs]
    >>> mean_curve(history)[-1]
    {'epoch': 2, 'train_loss': 0.75, 'valid_loss': None}
    """
    models = {record.get("model") for record in history}
    if len(models) < 2:
        return [dict(record) for record in history]
    by_epoch: dict[int, list[Mapping[str, Any]]] = {}
    for record in history:
        by_epoch.setdefault(record["epoch"], []).append(record)
    curve = []
    for epoch, records in by_epoch.items():
        if len(records) < len(models):
            break
        losses: dict[str, list[Any]] = {
            name: [record.get(name) for record in records] for name in ("train_loss", "valid_loss")
        }
        means = {name: None if None in values else float(np.mean(values)) for name, values in losses.items()}
        curve.append({"epoch": epoch, **means})
    return curve
