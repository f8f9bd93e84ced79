"""Whether the account is what the model does: measured, not claimed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attfm.data.batch import Batch
from attfm.data.sources.source import Source
from attfm.explain.explainer import Explainer
from attfm.explain.stability import Stability
from attfm.explain.summary import Summary, averaged
from attfm.model.bundle import Model
from attfm.model.ensemble import Scorer
from attfm.model.terms import Terms, logits_without, terms_of

Floats = NDArray[np.float64]
MOST_ROWS = 2_000
_REMOVED = (1, 3, 10)
_RANDOM_ORDERS = 5


@dataclass(frozen=True)
class Deletion:
    """Mean distance of the logit from the whole one after the first k effects were set to their average.

    removed : int64 (points,), k; largest_first, random : float64 (points,); random is the mean over several orders

    Examples
    --------
    >>> Deletion(np.arange(3), np.array([0.0, 2.0, 2.0]), np.array([0.0, 1.0, 2.0])).advantage
    1.3333333333333333
    """

    removed: NDArray[np.int64]
    largest_first: Floats
    random: Floats

    @property
    def advantage(self) -> float:
        """Area under the curve of the largest first, relative to that of random order; above 1 the order is telling."""
        return float(self.largest_first.sum() / max(float(self.random.sum()), 1e-300))


@dataclass(frozen=True)
class Refits:
    """Modules trained again on the model's training rows with other seeds; rows : those rows, or a sample of them."""

    rows: Batch
    modules: Sequence[Scorer]


@dataclass(frozen=True)
class Faithfulness:
    """How far explanations can be trusted, measured on some rows.

    rows : how many
    sum_error : largest |base + Σ effects − logit|, relative to the row's Σ |effect| + |base|; the logit is the
        model's own, scored in float64
    removal_error : largest |logit without the k largest effects − (logit − their sum)|, by the same measure, over
        k = 1, 3, 10; the terms are cut out of the forward pass, which knows nothing of effects
    deletion : curve of deleting the largest centred effects first, against random order; None without a background
    stability : how far refits on bootstrap samples agree on what is important; None without them (n_bags)
    seeds : how far the model and refits on the same rows with other seeds agree on it; None without them

    Examples
    --------
    >>> import pyarrow as pa
    >>> from attfm import AFMClassifier
    >>> X = pa.table({"job": ["cook", "cook", "pilot", "pilot"] * 20, "age": [25, 61] * 40})
    >>> model = AFMClassifier(epochs=20).fit(X, ["no", "yes"] * 40)
    >>> checked = model.check_explanations(X)
    >>> checked.rows, checked.sum_error < 1e-5, checked.removal_error < 1e-5, checked.seeds
    (80, True, True, None)
    """

    rows: int
    sum_error: float
    removal_error: float
    deletion: Deletion | None
    stability: Stability | None
    seeds: Stability | None = None


def check(
    model: Model, source: Source, *, rows: int = MOST_ROWS, seed: int = 0, refits: Refits | None = None
) -> Faithfulness:
    """Return how far the explanations of a model can be trusted, measured on at most so many first rows of a table.

    The seed is that of the random orders of deletion, the refits have other seeds; see `attfm.train.refit.reseeded`.

    Examples
    --------
    >>> from attfm import AFMRegressor
    >>> from attfm.data.sources.source import open_source
    >>> X = [[0, 5.0], [1, 4.0], [0, 1.0], [1, 0.5]] * 20
    >>> model = AFMRegressor(epochs=5).fit(X, [10.0, 8.0, 2.0, 1.0] * 20)
    >>> check(model.model_, open_source(X), rows=30).rows
    30
    """
    explainer = Explainer(model, view="centred" if model.background else "raw")
    total, sum_error, removal_error = 0, 0.0, 0.0
    curves: list[tuple[Floats, Floats]] = []
    rng = np.random.default_rng(seed)
    for _, part in explainer.encoded(source):
        part = part.slice(0, min(len(part), rows - total))
        total += len(part)
        terms = terms_of(model.module, part)
        size = np.abs(terms.intercept) + np.abs(terms.main).sum(1) + np.abs(terms.pair).sum(1) + 1e-12
        whole = model.scorer.predict(part).double().numpy()
        shown = terms
        if explainer.background is not None:
            shown = explainer.background.centre(terms, explainer.levels.of(part))
            curves.append(_deletion_sums(shown, rng))
        sum_error = max(sum_error, float((np.abs(shown.total() - whole) / size).max(initial=0)))
        removal_error = max(removal_error, *(_removal_error(model, part, terms, whole, k, size) for k in _REMOVED))
        if total >= rows:
            break
    deletion = stability = seeds = None
    if explainer.background is not None:
        largest, random = (np.sum([curve[side] for curve in curves], axis=0) / max(total, 1) for side in (0, 1))
        deletion = Deletion(np.arange(len(largest)), largest, random)
        stored = Summary.from_arrays(model.background).refits
        stability = Stability.between(stored, refits=len(stored)) if len(stored) > 1 else None
    if refits is not None and refits.modules:
        summaries = [averaged(m, model.encoder, refits.rows)[1] for m in (model.module, *refits.modules)]
        seeds = Stability.between(summaries, refits=len(refits.modules))
    return Faithfulness(total, sum_error, removal_error, deletion, stability, seeds)


def _removal_error(model: Model, rows: Batch, terms: Terms, whole: Floats, k: int, size: Floats) -> float:
    """Cut each row's k largest raw effects out of the forward pass, and compare with their sum."""
    worst = 0.0
    both = np.concatenate([terms.main, terms.pair], axis=1)
    fields = terms.main.shape[1]
    for output in range(both.shape[2]):
        order = np.argsort(-np.abs(both[:, :, output]), axis=1)[:, :k]
        cut = np.zeros(both.shape[:2], np.bool_)
        np.put_along_axis(cut, order, True, axis=1)
        left = logits_without(model.scorer, rows, cut[:, :fields], cut[:, fields:])[:, output]
        expected = whole[:, output] - np.where(cut, both[:, :, output], 0).sum(1)
        worst = max(worst, float((np.abs(left - expected) / size[:, output]).max(initial=0)))
    return worst


def _deletion_sums(centred: Terms, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return Σ over rows (and the mean over outputs) of |sum of the first k effects|, for k = 0 ... effects."""
    effects = np.concatenate([centred.main, centred.pair], axis=1)
    outputs = effects.shape[2]
    both = effects.transpose(0, 2, 1).reshape(-1, effects.shape[1])

    def curve(order: NDArray[np.int64]) -> Floats:
        removed = np.abs(np.cumsum(np.take_along_axis(both, order, axis=1), axis=1))
        return np.concatenate([[0.0], removed.sum(0) / outputs])

    largest = curve(np.argsort(-np.abs(both), axis=1, kind="stable"))
    orders = [np.argsort(rng.random(both.shape), axis=1) for _ in range(_RANDOM_ORDERS)]
    return largest, np.mean([curve(order) for order in orders], axis=0)
