"""What the service says of a row: the decision, the probabilities and the logits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.model.bundle import Model

Floats = NDArray[np.float64]


class Scores:
    """Turns logits into answers.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from attfm import AFMClassifier
    >>> X = pa.table({"job": ["cook", "cook", "pilot", "pilot"] * 20, "age": [25, 61] * 40})
    >>> model = AFMClassifier(epochs=20).fit(X, ["no", "yes"] * 40).model_
    >>> [row["prediction"] for row in Scores(model).of(np.array([[-1.0], [1.0]]))]
    ['no', 'yes']
    """

    def __init__(self, model: Model) -> None:
        self.task = model.task
        self.threshold = model.threshold
        self._labels = [str(label) if isinstance(label, bytes) else label for label in self._classes()]

    def _classes(self) -> list[Any]:
        """Return the classes as JSON has them: as they stood in the training table, where that was text."""
        return list(self.task.classes if self.task.written is None else self.task.written)

    @property
    def names(self) -> tuple[str, ...]:
        """What can be decided, as text; nothing of a regression."""
        return self.task.class_names

    def of(self, logits: Floats) -> list[dict[str, Any]]:
        """Return the answer about each row: float64 (rows, outputs) logits."""
        task = self.task
        scores = task.scores(logits).tolist()
        if not task.is_classification:
            return [{"prediction": score} for score in scores]
        decided = task.decide(logits, self.threshold).tolist()
        if task.name == "binary":
            return [
                {"prediction": self._labels[code], "probability": shares[1], "logit": logit[0]}
                for code, shares, logit in zip(decided, scores, logits.tolist(), strict=True)
            ]
        names = self.names
        return [
            {"prediction": self._labels[code], "probability": shares[code],
             "probabilities": dict(zip(names, shares, strict=True))}
            for code, shares in zip(decided, scores, strict=True)
        ]  # fmt: skip
