"""benchmarks.leak on a few rows: what it trains on is noise, and what it says is what the model says."""

import numpy as np

from benchmarks import leak


def test_labels_have_nothing_to_do_with_the_ids() -> None:
    X, y = leak.noise(4000, np.random.default_rng(0))
    assert X["id5"].nunique() == 5
    assert X["id20000"].nunique() > 1500
    rates = X.assign(y=y).groupby("id5")["y"].mean()
    assert (abs(rates - 0.5) < 0.1).all()


def test_a_run_is_told() -> None:
    told = leak.run(0, 400, epochs=2)
    assert set(told) == {"seed", "valid_auc", "chosen_pairs"}
    assert 0.35 < told["valid_auc"] < 0.65
