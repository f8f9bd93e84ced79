"""Training on a share of the negatives: the odds are those of all rows again."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attfm import AFMClassifier
from attfm.config import Config
from attfm.data.dealing import kept_negatives
from attfm.errors import ConfigError
from attfm.train.fit import fit_prepared
from tests.train.test_streamed import prepared, table


def clicks(rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"user": rng.integers(0, 30, rows).astype(str), "x": rng.normal(size=rows)})
    logit = -3 + np.linspace(-1.5, 1.5, 30)[frame.user.astype(int)] + frame.x
    return frame, rng.random(rows) < 1 / (1 + np.exp(-logit))


def test_probabilities_are_right_though_few_negatives_are_kept() -> None:
    frame, clicked = clicks(12_000, 0)
    other, wanted = clicks(20_000, 1)
    settings = {"epochs": 30, "n_models": 1, "weight_dropout": 0.0, "random_state": 0}  # dropout flattens both
    whole = AFMClassifier(**settings).fit(frame, clicked)
    few = AFMClassifier(negative_rate=0.25, **settings).fit(frame, clicked)
    assert few.model_.facts.training_rows < 0.45 * whole.model_.facts.training_rows
    for model in (whole, few):
        probability = model.predict_proba(other)[:, 1]
        assert probability.mean() == pytest.approx(wanted.mean(), rel=0.1)
        high = probability > np.quantile(probability, 0.9)
        assert probability[high].mean() == pytest.approx(wanted[high].mean(), rel=0.15)
    assert np.corrcoef(*(model.predict_proba(other)[:, 1] for model in (whole, few)))[0, 1] > 0.95
    account = few.explain(other.head(20))
    np.testing.assert_allclose(account.logits[:, 0], few.model_.logits(other.head(20))[:, 0], atol=1e-5)


def test_what_is_kept_depends_on_row_and_seed_and_never_drops_a_positive() -> None:
    numbers, codes = np.arange(10_000), np.arange(10_000) % 2
    kept = kept_negatives(numbers, codes, 0.3, 5)
    assert kept[codes == 1].all()
    assert kept[codes == 0].mean() == pytest.approx(0.3, abs=0.03)
    np.testing.assert_array_equal(kept[500:], kept_negatives(numbers[500:], codes[500:], 0.3, 5))
    assert (kept != kept_negatives(numbers, codes, 0.3, 6)).any()
    assert kept_negatives(numbers, codes, 1.0, 5).all()


def test_it_is_the_same_for_rows_that_are_not_in_memory(tmp_path: Path) -> None:
    config = Config.parse({"train": {"negative_rate": 0.3, "epochs": 3}})
    streamed = prepared(table(tmp_path), tmp_path / "cache", config).prepared
    totals = streamed.data.train.statistics.class_totals
    assert totals[0] < 0.45 * totals[1]
    model = fit_prepared(streamed, config, None, facts=None, measured=True).model
    shares = pd.read_parquet(tmp_path / "binary.parquet").bought.mean()
    predicted = model.predict_proba(pd.read_parquet(tmp_path / "binary.parquet"))[:, 1].mean()
    assert predicted == pytest.approx(shares, rel=0.1)


def test_other_tasks_are_refused() -> None:
    frame, _ = clicks(300, 0)
    with pytest.raises(ConfigError, match=r"negative_rate=0\.5 is for two classes: the task is multiclass"):
        AFMClassifier(negative_rate=0.5).fit(frame, np.arange(300) % 3)
