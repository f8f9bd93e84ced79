"""Ranking equals scoring the rows that the context and each candidate make."""

import numpy as np
import pytest

from attfm.ops import use_backend
from attfm.serve.ranking import Ranker
from tests.serve.sides import CONTEXT, ITEM, joined, random_model, rows


@pytest.mark.parametrize("remembered", [0, 9])
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("preset", ["nested", "paper", "fwfm", "fm", "linear"])
def test_logits_are_those_of_the_joined_rows(
    preset: str, task: str, members: int, remembered: int, backend: str
) -> None:
    model = random_model(preset, task=task, members=members, remembered=remembered, seed=3)
    ranker, table = Ranker(model, context=CONTEXT, item=ITEM), rows(40, 7)
    context, items = table.select(CONTEXT).slice(0, 1), table.select(ITEM)
    with use_backend("reference"):
        expected = model.scorer.predict(model.encoder.transform(joined(context, items))).numpy()
    size = 1e-5 * max(1, np.abs(expected).max())
    for candidates in (items, ranker.catalogue(items)):
        assert np.abs(ranker.logits(context, candidates) - expected).max() < size
    assert np.abs(ranker.logits(context, items) - expected[::-1]).max() > 100 * size
