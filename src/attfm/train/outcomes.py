"""Targets and weights of rows as the statistics of ids and pairs sum them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.data.codecs.grouped import Floats
from attfm.data.dataset import Statistics
from attfm.model.task import Task


def outcome_values(task: Task, target: NDArray[Any], scale: tuple[float, float]) -> Floats:
    """Return what is summed of targets, float64 (rows, outputs): 0 or 1 of classes, else the standardised value.

    scale : mean and deviation of a regression's target (see `Task.scale`)
    """
    column = np.asarray(target, np.float64)[:, None]
    if not task.is_classification:
        mean, deviation = scale
        return np.asarray((column - mean) / deviation, np.float64)
    classes = len(task.outputs)
    return np.asarray(column if classes == 1 else column == np.arange(classes), np.float64)


def total_of(task: Task, statistics: Statistics, scale: tuple[float, float]) -> Floats:
    """Return what is summed of all training rows, float64 (outputs + 2,), see `Totals.of`; scale : of a regression."""
    if task.is_classification:
        mean = np.zeros(len(task.classes))
        mean[: len(statistics.class_totals)] = statistics.class_totals.numpy() / float(statistics.class_totals.sum())
        mean = mean[1:2] if len(task.outputs) == 1 else mean
    else:
        mean = np.array([(float(statistics.mean) - scale[0]) / scale[1]])
    total: Floats = np.append(mean, [1.0, 1.0]) * statistics.rows
    return total


def relative(weight: NDArray[Any]) -> Floats:
    """Return the weights of rows, float64 (rows,), relative to their mean."""
    weights = np.asarray(weight, np.float64)
    return weights / max(float(weights.mean()), 1e-300)
