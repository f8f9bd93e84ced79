"""The strengths of a regression are chosen by the validation rows, and a warning tells of groups on both sides."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from attfm import AFMClassifier, AFMRegressor
from attfm.config import Config, TrainConfig
from attfm.data.codecs.codec import Field
from attfm.data.dataset import Dataset
from attfm.model.ensemble import members_of
from attfm.train import inner_choice, refit
from attfm.train.inner_choice import SLOW_RATE, STRENGTHS, TrainModule, _was_fast, candidates
from attfm.train.losses import mean_loss
from attfm.train.observer import Epoch
from attfm.train.prepare import Prepared
from attfm.train.trainer import History


def test_only_what_is_auto_is_tried() -> None:
    many, few, ids = (
        [Field("x", "x", "numeric", size, ordered)] for size, ordered in ((300, True), (9, True), (300, False))
    )
    assert len(candidates(Config(), many, 400)) - 1 == len(STRENGTHS) == 6
    first, solved = candidates(Config(), many, 400)[:2]
    assert (first.train.additive_start, solved.train.additive_start) == ("auto", True)
    assert first.model_copy(update={"train": solved.train}) == solved, "and else the same"
    large = [Field("x", "x", "numeric", 300, True)] * 60  # of 60,000 rows, 245 knots each
    for fields, rows in ((many, 60_000), (large, 40_000)):
        assert len(candidates(Config(), fields, rows)) == len(STRENGTHS)
    given = Config.parse({"model": {"weight_dropout": 0.2}, "train": {"additive_start": False}})
    tried = [(c.train.smoothness, c.train.knots, c.train.embedding_ridge) for c in candidates(given, many, 400)]
    assert tried == [
        (1000.0, "auto", 10.0), (1000.0, "auto", 1.0), (1000.0, "auto", 30.0), (1000.0, 255, 10.0),
        (30.0, "auto", 3.0), (300.0, "auto", 30.0),
    ]  # fmt: skip
    assert {c.model.weight_dropout for c in candidates(given, many, 400)} == {0.2}
    assert [c.train.smoothness for c in candidates(given, few, 400)] == [1000.0, 1000.0, 1000.0, 30.0, 300.0]
    from_zero = Config.parse({"train": {"additive_start": False}})
    assert [
        (c.train.smoothness, c.model.weight_dropout, c.train.linear_ridge) for c in candidates(from_zero, ids, 400)
    ] == [("auto", 0.0, 0.7), ("auto", 0.0, 0.07), ("auto", 0.0, 2.0), ("auto", 0.0, 0.2), ("auto", 0.4, 2.0)]
    ridges = {"embedding_ridge": 4.0, "linear_ridge": 0.0}
    both = Config.parse({"model": {"weight_dropout": 0.2}, "train": {"smoothness": 5.0, **ridges}})
    assert candidates(both, few, 400) == [both]
    assert [c.train.knots for c in candidates(both, many, 400)] == ["auto", 255]


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_of_the_strengths_that_beat_the_first_beyond_chance_the_best_is_kept(
    monkeypatch: pytest.MonkeyPatch, noise: float
) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=400), "z": rng.normal(size=400)})
    y = frame.x * 3 + frame.z + noise * rng.normal(size=400)
    errors, tried, plain = list[np.ndarray](), list[Config](), refit.choose_strength

    def watched(prepared: Prepared, config: Config, observer: object, train_module: TrainModule) -> object:
        def counted(prepared: Prepared, config: Config, observer: Any) -> Any:
            tried.append(config)
            module, history = train_module(prepared, config, observer)
            (valid,) = prepared.data.valid.ordered()
            errors.append((module.predict(valid.rows)[:, 0] - valid.target).square().double().numpy())
            return module, history

        chosen, trained = plain(prepared, config, observer, counted)
        assert trained is not None
        means = [error.mean() for error in errors]
        able = [0] + [k for k, error in enumerate(errors) if (g := errors[0] - error).mean() > g.std() / len(g) ** 0.5]
        best = min(able, key=means.__getitem__)
        assert (best == np.argmin(means)) == (noise == 0), "of noise the lowest loss is but the luckiest"
        of = trained[1].epochs[trained[1].best_epoch - 1]
        assert of.valid_loss == pytest.approx(means[best])
        assert chosen == tried[best]
        begins = [config.train.additive_start for config in tried]
        assert begins[:2] == ["auto", True]
        assert set(begins[2:]) == {True if 1 in able else "auto"}, "what is better of both is for the others"
        return chosen, trained

    monkeypatch.setattr(refit, "choose_strength", watched)
    AFMRegressor(epochs=8, n_models=1).fit(frame, y)
    assert len(errors) == len(STRENGTHS) + 1


def test_groups_on_both_sides_of_the_split_are_told_and_not_remembered(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    user, film = rng.integers(0, 300, 1200), rng.integers(0, 200, 1200)
    # One of three rows of each (user, film) is true: the others of a group say which.
    frame = pd.DataFrame({"user": np.repeat(user, 3), "film": np.repeat(film, 3), "tag": rng.integers(0, 90, 3600)})
    frame = frame.astype(str)
    y, order = np.tile([1, 0, 0], 1200), rng.permutation(3600)
    model = AFMClassifier(epochs=2, n_models=1).fit(frame.iloc[order], y[order])
    assert model.model_.facts.straddling == ["user × film"]
    memory = model.model_.module.memory
    assert memory is None or [0, 1] not in memory.pairs.tolist()
    page = model.report(tmp_path / "page.html", frame.iloc[:300], y[:300]).read_text(encoding="utf-8")
    assert "rows of one group stand on both sides of the split" in page
    honest = AFMClassifier(epochs=2, n_models=1).fit(frame, rng.random(3600) < 0.3)
    assert honest.model_.facts.straddling is None


def test_what_was_learned_too_fast_is_learned_again_at_a_slower_rate() -> None:
    def after(best: int, epochs: int, **settings: Any) -> bool:
        history = History([Epoch(n, 0.5, 0.5, 1.0, 1.0) for n in range(epochs)], best)
        return _was_fast(history, TrainConfig.parse(settings))

    assert after(3, 13)
    assert not after(4, 14)
    assert not after(2, 2), "all epochs were run: it is not known to be at its best"
    assert not after(1, 11, learning_rate=0.1)


@pytest.mark.parametrize(("classes", "by_time"), [(2, True), (3, True), (2, False)])
def test_a_slower_rate_that_only_knows_the_base_rate_is_not_taken_of_later_rows(
    monkeypatch: pytest.MonkeyPatch, classes: int, by_time: bool
) -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, classes, 600)
    frame = pd.DataFrame({"x": y + rng.normal(size=600), "day": np.arange(600)})
    plain = refit.choose_strength

    def logits_of(prepared: Prepared, knows: float, base: float) -> torch.Tensor:
        (valid,) = prepared.data.valid.ordered()
        known = knows * torch.nn.functional.one_hot(valid.target.long(), classes)[:, 1:].float() + base
        return known if classes == 2 else torch.cat([torch.zeros(len(known), 1), known], 1)

    def kept(prepared: Prepared, config: Config, observer: object, first: float, second: float) -> str:
        modules = {"auto": ("fast", first), SLOW_RATE: ("slow", second)}

        def scored(module: tuple[str, float], dataset: Dataset) -> Any:
            (valid,) = dataset.ordered()
            return logits_of(prepared, module[1], 3.0 if module[0] == "fast" else 0.0), valid.target, valid.weight

        def train_module(prepared: Prepared, config: Config, observer: object) -> Any:
            module = modules[config.train.learning_rate]
            loss = mean_loss(prepared.data.task, *scored(module, prepared.data.valid))
            losses.append(loss)
            return module, History([Epoch(n, 0.5, loss, 1.0, 1.0) for n in range(20)], 1)

        monkeypatch.setattr(inner_choice, "scored", scored)
        losses = list[float]()
        _, trained = plain(prepared, config, observer, train_module)
        assert losses[1] < losses[0]  # that of the base rate alone is lower, as it is
        return trained[0][0]

    def watched(prepared: Prepared, config: Config, observer: object, train_module: TrainModule) -> Any:
        assert kept(prepared, config, observer, 1.0, 0.0) == ("fast" if by_time else "slow")
        assert kept(prepared, config, observer, 1.0, 1.5) == "slow"
        return plain(prepared, config, observer, train_module)

    monkeypatch.setattr(refit, "choose_strength", watched)
    AFMClassifier(epochs=1, n_models=1, split="time:day" if by_time else None).fit(frame, y)


def test_the_more_rows_the_less_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.choice(list("abc"), 300), "b": rng.choice(list("xyz"), 300)})
    y = rng.integers(0, 2, 300)

    def dropout_of(model: AFMClassifier) -> float:
        (machine,) = members_of(model.fit(frame, y, eval_set=(frame, y)).model_.module)
        return float(machine.config.weight_dropout)

    monkeypatch.setattr(inner_choice, "DROPOUT_ROWS", 120)
    quick = {"epochs": 1, "n_models": 1, "refit": False, "memory_pairs": 0}
    model = AFMClassifier(**quick)
    assert dropout_of(model) == pytest.approx(0.4 * 120 / 300)
    assert model.model_.facts.chosen["weight_dropout"] == pytest.approx(0.16)
    assert dropout_of(AFMClassifier(**quick, weight_dropout=0.3)) == 0.3
    monkeypatch.setattr(inner_choice, "DROPOUT_ROWS", 300)
    assert dropout_of(AFMClassifier(**quick)) == 0.4


def test_a_plain_fm_has_a_weaker_ridge_where_none_is_given() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.choice(list("abc"), 300), "b": rng.choice(list("xyz"), 300)})
    quick = {"epochs": 1, "n_models": 1, "refit": False}

    def chosen(preset: str, **settings: Any) -> float | None:
        facts = AFMClassifier(preset=preset, **quick, **settings).fit(frame, y).model_.facts
        return (facts.chosen or {}).get("embedding_ridge")

    y = rng.integers(0, 2, 300)
    presets = ("nested", "paper", "fwfm", "fm", "linear")
    from_zero = {preset: chosen(preset, additive_start=False) for preset in presets}
    assert from_zero == {**dict.fromkeys(presets), "fm": 10.0}
    beside_main_effects = {preset: chosen(preset) for preset in presets}
    assert beside_main_effects == {**dict.fromkeys(presets, 10.0), "linear": None}
    assert chosen("fm", embedding_ridge=30.0) is None


@pytest.mark.parametrize(("kind", "patience"), [(AFMClassifier, 10), (AFMRegressor, 25)])
def test_a_regression_is_given_more_epochs_to_get_better(kind: type, patience: int) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.choice(list("uvwxyz"), 300), "b": rng.choice(list("uvwxyz"), 300)})
    y = rng.random(300) if kind is AFMRegressor else rng.random(300) < 0.5  # nothing to learn
    quick = {"epochs": 150, "n_models": 1, "refit": False, "weight_dropout": 0.0, "smoothness": 9.0, "knots": 16}
    facts = kind(learning_rate=0.05, **quick).fit(frame, y).model_.facts
    assert facts.stopped == f"no better validation loss for {patience} epochs"
    assert facts.epochs - facts.best_epoch == patience
