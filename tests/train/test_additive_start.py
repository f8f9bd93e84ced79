"""The additive model that few rows begin with: where it stands still, how it is held, and when there is none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.special import expit, softmax
from sklearn.metrics import log_loss, mean_squared_error

from attfm import AFMClassifier, AFMRegressor
from attfm.config import TrainConfig
from attfm.data.dataset import gathered
from attfm.model.modules import FactorizationMachine
from attfm.train import additive_model, inner_choice, refit, trainer
from attfm.train import additive_start as room
from attfm.train.additive_model import AdditiveModel, Term
from attfm.train.additive_start import RIDGE_OF_PAIRS, AdditiveStart, _Layout, _of_run, additive_start
from attfm.train.losses import Penalties, Smoothness
from attfm.train.trainer import TrainingData

LEFT = torch.tensor([0, 1, 2, 5, 6, 9])  # runs of 4, 3 and 2 bins
Call = tuple[FactorizationMachine, TrainingData, TrainConfig, Any]


def mixed(rows: int = 900, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    """Return a table of a curve, a 0/1 column that decides, noise, few levels, many levels, tags, and the target."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({
        "curve": rng.normal(size=rows),
        "flag": rng.integers(0, 2, rows),
        "noise": rng.normal(size=rows),
        "level": rng.choice(list("abcde"), rows),
        "city": rng.choice([f"c{k}" for k in range(40)], rows),
        "tags": ["|".join(rng.choice(list("xyz"), rng.integers(0, 3), replace=False)) for _ in range(rows)],
    })  # fmt: skip
    frame.loc[::17, "curve"] = np.nan
    logit = np.sin(2 * frame.curve.fillna(0)) + 4 * frame.flag - 2 + (frame.level == "a")
    return frame, (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(int)


def begun(
    monkeypatch: pytest.MonkeyPatch, X: pd.DataFrame, y: np.ndarray[Any, Any], *, estimator: Any = AFMClassifier,
    **settings: Any,
) -> tuple[Call, AdditiveStart | None, Any]:  # fmt: skip
    """Return what the first model that is trained on a table begins with, and the model."""
    calls = list[tuple[Call, AdditiveStart | None]]()

    def watched(*call: Any) -> AdditiveStart | None:
        found = additive_start(*call)
        calls.append((call, found))  # type: ignore[arg-type]
        return found

    monkeypatch.setattr(refit, "additive_start", watched)
    columns = {"tags": {"kind": "multi-valued", "separator": "|"}} if "tags" in X else None
    settings = {"n_models": 1, "epochs": 1, "refit": False, "n_seeds": 1, **settings}
    model = estimator(random_state=0, verbose=False, columns=columns, **settings).fit(X, y)
    return (*calls[0], model)


@pytest.mark.parametrize("bags", [True, False])
@pytest.mark.parametrize("knots", ["auto", 0])
@pytest.mark.parametrize("rates", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_training_would_not_move_it(
    monkeypatch: pytest.MonkeyPatch, bags: bool, knots: Any, rates: bool, weighted: bool, task: str
) -> None:
    X, y = mixed(400)
    X = X.round(1) if knots == 0 else X  # a bin for each value
    estimator = AFMRegressor if task == "regression" else AFMClassifier
    if task == "regression":
        y = 700 + 30 * y + np.random.default_rng(1).normal(0, 9, len(y))
    if task == "multiclass":
        y = y + np.random.default_rng(1).integers(0, 2, len(y))
    X = X if bags else X.drop(columns="tags")
    settings = {
        "preset": "linear", "knots": knots, "rates": rates, "rate_levels": 20, "estimator": estimator,
        "additive_start": True, "smoothness": 100.0, "linear_ridge": 2.0, "weight_dropout": 0.0,
        "embedding_ridge": 10.0,
    }  # fmt: skip
    (module, data, config, _), start, _ = begun(monkeypatch, X, y, **settings)
    assert start is not None
    if weighted:
        rng = np.random.default_rng(3)
        examples = gathered(data.train)
        examples = replace(examples, weight=torch.from_numpy(rng.uniform(0.2, 3, len(examples))).float())
        data = replace(data, train=type(data.train)(examples))
        start = additive_start(module, data, config, fields_of(monkeypatch, X, y, settings))
        assert start is not None
    module = module.double()
    with torch.no_grad():
        module.linear.weight.zero_()  # it was trained meanwhile
    assert start.set_in(module, replace(data, valid=None)) == 1
    examples = gathered(data.train)
    penalties = Penalties(module, data.neighbours, config, len(examples), strengths=start.strengths)
    module.zero_grad()
    weight = examples.weight.double()
    unit, noise = 1.0, start.strengths.noise
    if task == "regression":
        unit = 2 * float(module.target_std) ** 2
        assert 0.1 < noise < 0.9
    losses = data.task.row_losses(module.train()(examples.rows), examples.target) / unit
    (losses * weight / weight.mean()).mean().backward()
    penalties.add_gradient(noise=noise)
    slopes = module.linear.weight.grad[torch.from_numpy(start.rows)]
    assert float(slopes.abs().max()) < 1e-6
    assert float(module.intercept.grad.abs().max()) < 1e-6
    with torch.no_grad():
        module.linear.weight[int(start.rows[5])] += 0.1
    module.zero_grad()
    (data.task.row_losses(module(examples.rows), examples.target) / unit).mean().backward()
    penalties.add_gradient(noise=noise)
    assert float(module.linear.weight.grad[torch.from_numpy(start.rows)].abs().max()) > 1e-5, "a moved one does move"


def fields_of(monkeypatch: pytest.MonkeyPatch, X: pd.DataFrame, y: np.ndarray[Any, Any], settings: Any) -> Any:
    return begun(monkeypatch, X, y, **settings)[0][3]


def test_the_rows_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = mixed()
    (module, data, config, fields), _, _ = begun(monkeypatch, X[["city", "curve", "flag", "noise"]], y)
    examples = gathered(data.train)
    assert (examples.rows.ids[:, 0] > examples.rows.ids[:, 1]).all(), "ids of a field with rates follow all others"
    before, weight = examples.rows.ids.clone(), module.linear.weight.detach().clone()
    assert additive_start(module, replace(data, train=type(data.train)(examples)), config, fields) is not None
    assert torch.equal(examples.rows.ids, before)
    assert torch.equal(module.linear.weight, weight)


def test_levels_that_have_rates_take_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = mixed()
    for rates in (True, False):
        (_, _, _, fields), start, _ = begun(monkeypatch, X, y, rates=rates)
        assert start is not None
        city = next(field for field in fields if field.name == "city")
        levels = (start.rows >= city.start) & (start.rows < city.stop)
        assert levels.any() is not np.bool_(rates)


def test_what_decides_is_hardly_held_and_noise_is(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = mixed(3000)
    (_, _, _, fields), start, _ = begun(monkeypatch, X[["curve", "flag", "noise"]], y)
    assert start is not None
    of = dict(zip((field.name for field in fields), start.strengths.bins.tolist(), strict=True))
    assert of["flag"][1] < 0.2 < 2 < of["noise"][1], "the line of a flag that decides, and of noise"
    assert of["curve"][0] < of["noise"][0]
    weight = np.zeros(fields[-1].stop)
    weight[start.rows] = start.weight[:, 0]
    noise = next(field for field in fields if field.name == "noise")
    assert np.ptp(weight[noise.start + 2 : noise.stop]) < 0.3


def test_categorical_fields_tell_each_other_how_far_levels_are_apart() -> None:
    fields, levels, rows, deviation = 15, 3, 400, 0.5
    gain, apart = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        truth = rng.normal(0, deviation, (fields, levels))
        truth[0] = [-3, 0, 3]
        columns = rng.integers(0, levels, (rows, fields))
        z = truth[np.arange(fields), columns].sum(1, keepdims=True)
        y = (rng.random((rows, 1)) < expit(z)).astype(float)
        design = np.concatenate([np.eye(levels)[columns[:, k]] for k in range(fields)], 1)
        error, strengths = [], []
        for common in (False, True):
            runs = np.arange(fields * levels).reshape(fields, levels)
            terms = [Term(run, np.eye(levels), levels, 1.0, common=common) for run in runs]
            model = AdditiveModel(
                sparse.csc_matrix(design), y, np.ones(rows), terms, np.zeros(fields * levels), classes=True
            )
            model.fit(np.zeros(1))
            found = model.effects[1:, 0].reshape(fields, levels)
            away = (found - found.mean(1, keepdims=True)) - (truth - truth.mean(1, keepdims=True))
            error.append((away[1:] ** 2).mean())
            strengths.append(model.strengths)
        gain.append(error[1] / error[0])
        apart.append([np.log(of[1:]).std() for of in strengths])
        assert strengths[1][0] < strengths[1][1:].min() / 1.5, "one that decides is held less all the same"
    assert np.mean(gain) < 0.95
    alone, together = np.mean(apart, 0)
    assert together < alone / 1.5


def test_a_field_of_which_no_row_tells_is_held_as_the_others_are() -> None:
    fields, levels, rows = 20, 3, 2000
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.5, (fields, levels))
    columns = rng.integers(0, levels, (rows, fields))
    y = (rng.random((rows, 1)) < expit(truth[np.arange(fields), columns].sum(1, keepdims=True))).astype(float)
    told = np.concatenate([np.eye(levels)[columns[:, k]] for k in range(fields)], 1)
    design = sparse.csc_matrix(np.concatenate([told, np.zeros((rows, levels))], 1))
    runs = np.arange((fields + 1) * levels).reshape(-1, levels)
    terms = [Term(run, np.eye(levels), levels, 1.0, common=True) for run in runs]
    model = AdditiveModel(design, y, np.ones(rows), terms, np.zeros(runs.size), classes=True)
    model.fit(np.zeros(1))
    *others, alone = model.strengths
    assert min(others) < alone < max(others)
    assert alone == pytest.approx(1 / 0.5**2, rel=0.5)


def test_the_levels_of_categorical_fields_have_a_strength_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = mixed()
    (module, data, config, fields), _, _ = begun(monkeypatch, X[["curve", "flag", "level"]].assign(more=X.level), y)
    layout = _Layout.of(module, data, fields, gathered(data.train).rows)
    assert [term.common for term in layout.terms(config, len(y))] == [False] * 4 + [True] * 2


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_strengths_are_at_the_most_of_the_restricted_likelihood(monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    """That is Laplace's approximation, at the effects that are best given the strengths (Wood 2011, eq. 4).

    Of a regression it is exact, and the noise is at the most of it too.
    """
    monkeypatch.setattr(additive_model, "_USUAL_COUNTS", 1e-6)
    monkeypatch.setattr(additive_model, "_CLOSE", 1e-4)
    monkeypatch.setattr(additive_model, "_ROUNDS", 200)
    rng = np.random.default_rng(1)
    classes, outputs = task != "regression", 3 if task == "multiclass" else 1
    rows, bins = 600, 12 if classes else 30
    left, right = rng.integers(0, bins, (2, rows))
    curve, line = np.sin(np.arange(bins) / 1.5), np.arange(bins) / 5
    signal = (2 * curve[left] + line[right] - 1)[:, None]
    if task == "multiclass":  # a number of each class with Gumbel's noise: the largest is drawn by the softmax
        signal = np.concatenate([signal, 1.5 * curve[right][:, None], -signal], 1)
        y = np.eye(outputs)[(signal + rng.gumbel(size=signal.shape)).argmax(1)]
    elif task == "binary":
        y = (rng.random((rows, 1)) < expit(signal)).astype(float)
    else:
        y = signal + rng.normal(0, 1.5, (rows, 1))
    design = np.concatenate([np.eye(bins)[left], np.eye(bins)[right]], 1)
    full = np.concatenate([np.ones((rows, 1)), design], 1)
    terms = [t for k in (0, bins) for t in _of_run(np.arange(k, k + bins), 10.0)]
    fixed = np.full(2 * bins, 1e-5)

    def likelihood(strengths: Any, noise: float = 1.0, *, fit: bool = False) -> tuple[float, Any, float]:
        model = AdditiveModel(sparse.csc_matrix(design), y, np.ones(rows), terms, fixed, classes=classes)
        if fit:
            model.fit(np.zeros(outputs))
        else:
            model.strengths, model.noise = np.asarray(strengths), noise
            model._converge(steps=50)
        z, precision = model._design @ model.effects, np.diag(np.append(0.0, fixed))
        for strength, term in zip(model.strengths, terms, strict=True):
            precision[np.ix_(term.columns + 1, term.columns + 1)] += strength * term.precision
        if task == "multiclass":
            p = softmax(z, axis=1)
            of_rows, of_outputs = (y * np.log(p)).sum(1), np.eye(3) * p[:, None] - p[:, None] * p[:, :, None]
        elif task == "binary":
            of_rows, of_outputs = y * z - np.logaddexp(0, z), (expit(z) * expit(-z))[:, :, None]
        else:
            of_rows = -((y - z) ** 2 / model.noise + np.log(model.noise)) / 2
            of_outputs = np.full((rows, 1, 1), 1 / model.noise)
        curvature = np.einsum("ri,rab,rj->aibj", full, of_outputs, full).reshape(outputs * full.shape[1], -1)
        curvature += np.kron(np.eye(outputs), precision)
        if task == "multiclass":  # what all classes have in common has no curvature
            curvature += 1e-6 * np.kron(np.ones((3, 3)), np.diag(np.arange(full.shape[1]) == 0))
        log_likelihood = of_rows.sum() - 0.5 * (model.effects * (precision @ model.effects)).sum()
        of_prior = outputs * np.linalg.slogdet(precision[1:, 1:])[1]
        most = log_likelihood + 0.5 * of_prior - 0.5 * np.linalg.slogdet(curvature)[1]
        return most, model.strengths, model.noise

    best, strengths, noise = likelihood(None, fit=True)
    inner = [k for k, (s, t) in enumerate(zip(strengths, terms, strict=True)) if abs(np.log(s / t.usual)) < 6]
    assert len(inner) >= 2, "some strength is found between the bounds"
    for k in inner:
        for factor in (0.5, 2.0):
            moved = strengths.copy()
            moved[k] *= factor
            assert likelihood(moved, noise)[0] < best
    if not classes:
        assert max(likelihood(strengths, factor * noise)[0] for factor in (0.997, 1.003)) < best
        assert noise == pytest.approx(1.5**2, rel=0.15)


def test_gradient_of_curve_and_line() -> None:
    neighbours = torch.stack([LEFT, LEFT + 1])
    given = torch.tensor([[3.0, 0.5], [0.2, 2.0], [7.0, 1.5]], dtype=torch.float64)
    table = torch.randn(11, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    smoothness = Smoothness(table, neighbours, 99.0, adaptive=True, given=given)
    with torch.no_grad():
        smoothness.adapt()
    penalty = torch.zeros((), dtype=torch.float64)
    for (curve, line), run in zip(given, ([0, 1, 2], [5, 6], [9]), strict=True):
        steps = table[torch.tensor(run) + 1] - table[run]
        penalty = penalty + curve * (steps - steps.mean()).square().sum() + line * len(run) * steps.mean() ** 2
    (expected,) = torch.autograd.grad(0.25 * penalty, table)
    with torch.no_grad():
        smoothness.add_gradient(0.25)
    torch.testing.assert_close(table.grad, expected)


def test_validation_rows_say_how_far_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = mixed(600)
    (module, data, _, _), start, _ = begun(monkeypatch, X, y, preset="linear")
    assert start is not None
    assert data.valid is not None
    examples = gathered(data.valid)
    shares = list[float]()
    for target in (examples.target, 1 - examples.target):
        with torch.no_grad():
            module.linear.weight.zero_()
            module.intercept.fill_(0.3)
        valid = type(data.train)(replace(examples, target=target))
        shares.append(start.set_in(module, replace(data, valid=valid)))
        whole = torch.zeros(len(module.linear.weight), 1)
        whole[torch.from_numpy(start.rows)] = torch.from_numpy(start.weight).float()
        torch.testing.assert_close(module.linear.weight.detach(), shares[-1] * whole)
        assert float(module.intercept.detach()) == pytest.approx(
            0.3 + shares[-1] * (start.intercept[0] - 0.3), abs=1e-6
        )
    assert shares == [1, 0], "all of the way, but none of it where the rows say the opposite"


def test_the_difference_of_two_columns_that_rise_together_is_found() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.uniform(20, 60, 600)})
    frame["since"] = frame.age - rng.uniform(18, 22, 600)
    y = (frame.age - frame.since + rng.normal(0, 0.3, 600) > 20).astype(int)
    losses = [
        log_loss(y[400:], model.fit(frame[:400], y[:400]).predict_proba(frame[400:])[:, 1])
        for begins in (True, False)
        for model in [AFMClassifier(random_state=0, verbose=False, additive_start=begins)]
    ]
    assert losses[0] < 0.75 * losses[1]


def test_a_regression_finds_the_difference_of_two_columns_by_itself() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"due": rng.uniform(0, 1000, 900)})
    frame["came"] = frame.due + rng.normal(0, 20, 900)
    y = frame.came - frame.due + rng.normal(0, 5, 900)
    settings = {"n_models": 1, "n_seeds": 1, "epochs": 12, "refit": False, "smoothness": 300.0, "knots": 30}
    settings |= {"weight_dropout": 0.0, "embedding_ridge": 10.0, "linear_ridge": 0.7}  # the start alone is chosen
    errors = dict[Any, float]()
    for begins in ("auto", True, False):
        model = AFMRegressor(random_state=0, verbose=False, additive_start=begins, **settings).fit(frame[:600], y[:600])
        errors[begins] = mean_squared_error(y[600:], model.predict(frame[600:]))
        assert (model.model_.facts.chosen or {}).get("additive_start") is (True if begins == "auto" else None)
    assert errors["auto"] == errors[True] < 0.5 * errors[False]


def test_columns_that_say_nothing_are_learned_as_nothing_from_all_rows_too() -> None:
    """One model, trained again on all of 400 rows of three classes: what the validation rows cut short stays so."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(3400, 12))).add_prefix("x")
    y = rng.integers(0, 3, 3400)
    model = AFMClassifier(random_state=0, verbose=False, refit=True, n_models=1).fit(frame[:400], y[:400])
    assert log_loss(y[400:], model.predict_proba(frame[400:])) < np.log(3) + 0.02


def test_columns_that_say_nothing_are_learned_as_nothing() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(3600, 12))).add_prefix("x")
    frame["id"] = rng.choice([f"i{k}" for k in range(300)], 3600)
    y = rng.integers(0, 2, 3600)
    model = AFMClassifier(random_state=0, verbose=False).fit(frame[:600], y[:600])
    assert log_loss(y[600:], model.predict_proba(frame[600:])[:, 1]) < np.log(2) + 0.012


@pytest.mark.parametrize(
    "settings",
    [
        {"additive_start": False},
        {"smoothness": 0.0},
        {"linear_ridge": 0.0},
        {"warm_start_from": "fm"},
        {"optimizer": "sgd"},
    ],
)
def test_settings_without_it(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    X, y = mixed(300)
    if "warm_start_from" in settings:
        monkeypatch.setattr(refit, "additive_start", None)  # would fail if it were called
        AFMClassifier(random_state=0, verbose=False, n_models=1, epochs=1, **settings).fit(X, y)
        return
    assert begun(monkeypatch, X, y, **settings)[1] is None


@pytest.mark.parametrize(("limit", "most"), [("_MOST_ROWS", {"binary": 100}), ("MOST_EFFECTS", 10)])
def test_large_tables_have_none(monkeypatch: pytest.MonkeyPatch, limit: str, most: Any) -> None:
    X, y = mixed(300)
    assert begun(monkeypatch, X, y)[1] is not None
    monkeypatch.setattr(room, limit, most)
    assert begun(monkeypatch, X, y)[1] is None


def test_tables_of_ids_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = mixed()
    few, many = ["city", "curve", "flag", "noise"], ["city", "curve", "flag"]  # a quarter, and a third, have rates
    assert begun(monkeypatch, X[few], y)[1] is not None
    assert begun(monkeypatch, X[many], y)[1] is None
    assert begun(monkeypatch, X[many], y, rates=False)[1] is not None


def test_effects_of_all_classes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = mixed(300)
    start = begun(monkeypatch, X, y + (X.level == "b"))[1]
    assert start is not None
    monkeypatch.setattr(room, "MOST_EFFECTS", start.weight.size - 1)
    assert begun(monkeypatch, X, y)[1] is not None
    assert begun(monkeypatch, X, y + (X.level == "b"))[1] is None


def test_a_regression_that_has_nothing_to_choose_by_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    X, _ = mixed(300)
    X = X.drop(columns="tags")
    for begins, has in (("auto", False), (True, True), (False, False)):
        settings = {"early_stopping": False, "estimator": AFMRegressor, "additive_start": begins}
        assert (begun(monkeypatch, X, X.noise.to_numpy(), **settings)[1] is not None) is has


@pytest.mark.parametrize(("given", "kept"), [("auto", RIDGE_OF_PAIRS), (7.0, 7.0)])
def test_pairs_are_held_less_unless_a_ridge_is_given(monkeypatch: pytest.MonkeyPatch, given: Any, kept: float) -> None:
    X, y = mixed(300)
    trained = list[TrainConfig]()
    plain = refit.Trainer

    def watched(module: Any, data: Any, settings: TrainConfig, *rest: Any, **named: Any) -> Any:
        trained.append(settings)
        assert named["strengths"] is not None
        return plain(module, data, settings, *rest, **named)

    monkeypatch.setattr(refit, "Trainer", watched)
    begun(monkeypatch, X, y, embedding_ridge=given)
    assert trained[0].embedding_ridge == kept


def test_what_began_with_its_main_effects_is_not_learned_again_more_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = list[Any]()
    plain = inner_choice._Trials.take

    def watched(trials: Any, candidate: Any) -> None:
        rates.append(candidate.train.learning_rate)
        plain(trials, candidate)
        trials.best()[1][1].best_epoch = 1  # at its best at once, and long after

    monkeypatch.setattr(inner_choice._Trials, "take", watched)
    X, y = mixed(300)
    for begins, tried in ((True, ["auto"]), (False, ["auto", inner_choice.SLOW_RATE])):
        rates.clear()
        AFMClassifier(
            random_state=0, verbose=False, n_models=1, epochs=12, patience=11, refit=False, n_seeds=1,
            additive_start=begins,
        ).fit(X.drop(columns="tags"), y)  # fmt: skip
        assert rates == tried


@pytest.mark.parametrize("begins", [True, False])
def test_what_is_solved_is_held_by_what_noise_is_left_and_moves_slowly(
    monkeypatch: pytest.MonkeyPatch, begins: bool
) -> None:
    X, _ = mixed(400)
    rng = np.random.default_rng(7)
    y = 50 * X.noise + 20 * X.flag + rng.normal(0, 10, len(X))
    noises, paces = list[float](), list[float]()
    plain, penalised = trainer.Optimizer, Penalties.add_gradient

    def paced(*of: Any, pace_of_w: float, **named: Any) -> Any:
        paces.append(pace_of_w)
        return plain(*of, pace_of_w=pace_of_w, **named)

    def told(penalties: Penalties, *, noise: float = 1.0) -> None:
        noises.append(noise)
        penalised(penalties, noise=noise)

    monkeypatch.setattr(trainer, "Optimizer", paced)
    monkeypatch.setattr(Penalties, "add_gradient", told)
    settings = {"early_stopping": False, "estimator": AFMRegressor, "additive_start": begins, "batch_size": 100}
    _, start, _ = begun(monkeypatch, X.drop(columns="tags"), y.to_numpy(), **settings)
    assert paces == [0.1 if begins else 1.0]
    if not begins:
        assert noises[0] == 1
        return
    assert start is not None
    assert noises[0] == start.strengths.noise == pytest.approx((10 / y.std()) ** 2, rel=0.3)


@pytest.mark.parametrize("all_rows", [{"refit": True}, {"refit": False, "n_seeds": 2}, {"refit": True, "n_bags": 1}])
def test_all_rows_begin_as_the_part_of_them_did(monkeypatch: pytest.MonkeyPatch, all_rows: dict[str, Any]) -> None:
    X, y = mixed(300)
    monkeypatch.setattr(room, "_MOST_ROWS", {"binary": 250})  # 240 train, and then all 300
    monkeypatch.setattr(AdditiveStart, "_share_for", lambda _, __, data: 1.0 if data.valid is None else 0.35)
    found, size = list[float](), list[float]()
    plain = AdditiveStart.set_in

    def watched(start: AdditiveStart, module: Any, *data: Any, **named: Any) -> float:
        found.append(plain(start, module, *data, **named))
        weight = module.linear.weight.detach().numpy()[start.rows]
        size.append(float(np.abs(weight).sum() / np.abs(start.weight).sum()))
        return found[-1]

    monkeypatch.setattr(AdditiveStart, "set_in", watched)
    settings = {"n_models": 1, "epochs": 2, "n_seeds": 1, "validation_fraction": 0.2, **all_rows}
    for begins, trainings in (("auto", 2 + all_rows.get("n_bags", 0)), (False, 0)):
        found.clear()
        model = AFMClassifier(random_state=0, verbose=False, additive_start=begins, **settings)
        model.fit(X.drop(columns=["tags", "level"]), y)
        assert found == [0.35] * trainings
        assert size == pytest.approx([0.35] * len(size))
