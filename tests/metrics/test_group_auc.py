"""The mean AUC of groups: that of each by scikit-learn, weighted by rows."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from attfm.metrics.scores import auc_by_group


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_it_is_the_mean_of_each_groups_own(weighted: bool, ties: bool) -> None:
    rng = np.random.default_rng(0)
    groups, target = rng.integers(-1, 30, 400), rng.integers(0, 2, 400)
    score = rng.normal(size=400) + target
    score = np.round(score) if ties else score
    weight = rng.integers(0, 4, 400).astype(float) if weighted else np.ones(400)
    areas, weights = [], []
    for group in range(30):
        own = (groups == group) & (weight > 0)
        if len(np.unique(target[own])) == 2:
            areas.append(roc_auc_score(target[own], score[own], sample_weight=weight[own]))
            weights.append(weight[own].sum())
    auc, used = auc_by_group(target, score, groups, weight if weighted else None)
    assert used == len(areas) > 20
    assert auc == pytest.approx(np.average(areas, weights=weights))


def test_groups_of_one_class_have_none() -> None:
    auc, used = auc_by_group(np.array([1, 1, 0]), np.array([0.1, 0.5, 0.3]), np.array([0, 0, 1]))
    assert np.isnan(auc)
    assert used == 0
    assert auc_by_group(np.array([]), np.array([]), np.array([], np.int64))[1] == 0
