"""The rows that a report looks at: read from a table or taken as encoded, scored, and the hundred of them to show."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from attfm.data.batch import Batch
from attfm.data.dataset import Dataset
from attfm.data.sources.source import Source
from attfm.explain.explainer import Explainer
from attfm.model.bundle import Model

Floats = NDArray[np.float64]
MOST_ROWS = 300_000  # of a table that are looked at: bounds memory and time
SHOWN = 100
_EACH = 33
RIGHT, WRONG, RANDOM = "most confident right", "most confident wrong", "random"


@dataclass(frozen=True)
class Examined:
    """Encoded rows with scores, and with labels where the table has them.

    name : of the table; total : rows in it
    rows : encoded; numbers : int64 (rows,), theirs in the table
    logits : float64 (rows, outputs), or (rows, 1) predictions of a regression
    target : (rows,) class codes or values, or None; weight : float64 (rows,)
    """

    name: str
    total: int
    rows: Batch
    numbers: NDArray[np.int64]
    logits: Floats
    target: NDArray[Any] | None
    weight: Floats

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of_rows(
        cls, model: Model, name: str, rows: Batch, target: NDArray[Any] | None, weight: Floats | None = None,
        numbers: NDArray[np.int64] | None = None, logits: Floats | None = None,
    ) -> Self:  # fmt: skip
        """Return encoded rows with their scores, or those given; a random part of very many."""
        total = len(rows)
        numbers = np.arange(total) if numbers is None else numbers
        weight = np.ones(total) if weight is None else weight.astype(np.float64)
        if total > MOST_ROWS:
            kept = np.sort(np.random.default_rng(0).choice(total, MOST_ROWS, replace=False))
            rows, numbers, weight = rows.take(torch.from_numpy(kept)), numbers[kept], weight[kept]
            target, logits = (None if array is None else array[kept] for array in (target, logits))
        logits = model.logits_of(rows) if logits is None else logits
        return cls(name, total, rows, numbers, logits, target, weight)

    @classmethod
    def of_dataset(
        cls, model: Model, name: str, dataset: Dataset, numbers: NDArray[np.int64] | None = None,
        logits: Floats | None = None,
    ) -> Self:  # fmt: skip
        """Return the rows of a data set with their scores.

        Parameters
        ----------
        numbers : int64 (rows,) or None, theirs in the table
        logits : float64 (rows, outputs) or None
            What was predicted out of fold, instead of the model's own scores; rows where that is NaN are left out.
        """
        if logits is not None:
            kept = np.flatnonzero(np.isfinite(logits).all(1))
            dataset, logits = dataset.take(kept), logits[kept]
            numbers = None if numbers is None else numbers[kept]
        total = len(dataset)
        if total > MOST_ROWS:  # they may not all fit in memory
            kept = np.sort(np.random.default_rng(0).choice(total, MOST_ROWS, replace=False))
            dataset, numbers = dataset.take(kept), kept if numbers is None else numbers[kept]
            logits = None if logits is None else logits[kept]
        parts = list(dataset.ordered())
        target = np.concatenate([part.target.numpy() for part in parts])
        weight = np.concatenate([part.weight.numpy() for part in parts])
        rows = Batch.concatenate([part.rows for part in parts])
        return replace(cls.of_rows(model, name, rows, target, weight, numbers, logits), total=total)

    @classmethod
    def of_table(
        cls, model: Model, source: Source, target: NDArray[Any] | None, weight: Floats | None = None,
        name: str | None = None,
    ) -> Self:  # fmt: skip
        """Return the rows of a table with their scores; of a very long one a random part, evenly from all of it.

        The target holds class codes or values of all rows; without a name the table is called as its file is.
        """
        rng = np.random.default_rng(0)
        total = source.num_rows if target is None else len(target)
        share = 1.0 if not total else min(MOST_ROWS / total, 1.0)
        parts, kept, seen = list[Batch](), [np.empty(0, np.int64)], 0
        for first, rows in Explainer(model, view="raw").encoded(source):
            seen = first + len(rows)
            chosen = np.flatnonzero(rng.random(len(rows)) < share)
            parts.append(rows.take(torch.from_numpy(chosen)))
            kept.append(first + chosen)
            if not total and sum(map(len, kept)) >= MOST_ROWS:  # without a count the first rows must do
                break
        numbers = np.concatenate(kept)
        examined = cls.of_rows(
            model, name or source.name, Batch.concatenate(parts), None if target is None else target[numbers],
            None if weight is None else weight[numbers], numbers,
        )  # fmt: skip
        return replace(examined, total=max(total or 0, seen))


def shown_rows(model: Model, examined: Examined) -> dict[str, list[int]]:
    """Return places of at most 100 rows by the reason they are shown: confident right and wrong ones, and random ones.

    Of a regression the right ones are those with the smallest errors and the wrong ones those with the largest.
    Without a target, the rows with the highest and the lowest predictions (or the most and least certain of several
    classes).
    """
    certainty = model.task.margin(examined.logits, model.threshold)
    if examined.target is None:
        several = examined.logits.shape[1] > 1
        first = np.argsort(-(certainty if several else examined.logits[:, 0]), kind="stable")
        last, names = first[::-1], ("most certain", "least certain") if several else ("highest", "lowest")
    elif model.task.is_classification:
        order = np.argsort(-certainty, kind="stable")
        right = (model.decide(examined.logits) == examined.target)[order]
        first, last, names = order[right], order[~right], (RIGHT, WRONG)
    else:
        first = np.argsort(np.abs(examined.logits[:, 0] - examined.target), kind="stable")
        last, names = first[::-1], ("closest", "farthest off")
    taken = dict[int, None]()
    groups = dict[str, list[int]]()
    shuffled = np.random.default_rng(0).permutation(len(examined))
    for name, candidates in zip((*names, RANDOM), (first, last, shuffled), strict=True):
        most = _EACH if name != RANDOM else SHOWN - len(taken)  # too few wrong ones leave room for more random ones
        groups[name] = [int(r) for r in candidates[: most + len(taken)] if int(r) not in taken][:most]
        taken |= dict.fromkeys(groups[name])
    return groups
