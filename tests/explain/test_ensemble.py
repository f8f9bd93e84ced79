"""The account of an ensemble: the mean of its members' accounts, exact, and how far they differ."""

from dataclasses import replace

import numpy as np
import pytest

from attfm.config import PRESETS
from attfm.errors import ConfigError
from attfm.explain.explainer import Explainer, explain_global
from attfm.explain.explanation import Explanation
from attfm.explain.faithfulness import check
from attfm.explain.summary import summarise
from attfm.explain.what_if import what_if
from attfm.model.bundle import Model
from attfm.model.ensemble import Ensemble, jackknife_error
from tests.explain.account import TARGETS, assert_adds_up, clashing, dataset, encoded, mixed, model, source

MEMBERS = 3


def explained(made: Model, view: str = "centred") -> Explanation:
    return Explainer(made, view=view).of_rows(source(), None)


def alone(made: Model, number: int) -> Model:
    """Return one member as a model of its own, with a background of its own."""
    assert isinstance(made.module, Ensemble)
    machine = made.module.machines[number]
    return replace(made, module=machine, background=summarise(machine, made.encoder, dataset(made, source())))


@pytest.mark.parametrize("task", TARGETS)
@pytest.mark.parametrize("preset", PRESETS)
def test_the_account_adds_up_and_terms_can_be_cut_out(preset: str, task: str) -> None:
    made = model(task, preset=preset, members=MEMBERS)
    logits = made.logits(mixed())
    for view in ("centred", "raw"):
        assert_adds_up(explained(made, view).logits, logits)
    checked = check(made, source(), rows=40)
    assert checked.sum_error < 1e-5
    assert checked.removal_error < 1e-5
    other = replace(made, module=made.module.machines[0])  # the comparison can fail
    with pytest.raises(AssertionError, match="off by"):
        assert_adds_up(explained(made).logits, other.logits(mixed()))


@pytest.mark.parametrize("view", ["centred", "raw"])
def test_effects_and_weights_are_the_means_of_the_members(view: str) -> None:
    made = model("multiclass", members=MEMBERS)
    whole, each = explained(made, view), [explained(alone(made, number), view) for number in range(MEMBERS)]
    for name in ("main", "pair"):
        of_members = np.stack([getattr(one, name) for one in each], axis=1)
        np.testing.assert_allclose(getattr(whole, name), of_members.mean(1), atol=2e-4)
        np.testing.assert_allclose(getattr(whole, f"members_{name}"), of_members, atol=2e-4)
    for name in ("attention", "applied"):
        np.testing.assert_allclose(getattr(whole, name), np.mean([getattr(one, name) for one in each], 0), rtol=1e-5)
    assert whole.attention is not None
    np.testing.assert_allclose(whole.attention.sum(1), 1, rtol=1e-5)
    assert np.ptp(whole.attention, axis=1).min() > 1e-3
    assert np.abs(each[0].main - each[1].main).max() > 0.1  # the members differ, so the means are telling


def test_the_spread_is_the_jackknife_error_of_what_is_shown() -> None:
    made = model("binary", members=MEMBERS)
    whole = explained(made)
    assert whole.spread is not None
    values = np.stack([explained(alone(made, number)).values for number in range(MEMBERS)])
    # (k − 1) / k · Σ (value − mean)²
    expected = np.sqrt((MEMBERS - 1) / MEMBERS * ((values - values.mean(0)) ** 2).sum(0))
    np.testing.assert_allclose(whole.spread, expected, atol=1e-3)
    np.testing.assert_allclose(jackknife_error(values), expected)
    top = whole.top(3)[5]
    numbers = {name: number for number, name in enumerate(whole.names)}
    assert [effect.spread for effect in top] == [whole.spread[5, numbers[effect.name]] for effect in top]
    assert whole[5:7].spread.tolist() == whole.spread[5:7].tolist()
    assert whole.to_dict(top=1)["rows"][5]["accounts"][0]["effects"][0]["spread"] == top[0].spread
    single = explained(alone(made, 0))
    assert (single.spread, single.top(1)[0][0].spread) == (None, None)


def test_of_several_classes_each_has_a_spread_of_its_own() -> None:
    whole = explained(model("multiclass", members=MEMBERS))
    assert whole.spread is not None
    assert whole.spread.shape == whole.values.shape
    for number in range(3):
        effect = whole.top(1, output=number)[0][0]
        assert effect.spread == whole.spread[0, whole.names.index(effect.name), number]


def test_a_group_has_the_spread_of_its_sum() -> None:
    made = model("binary", members=MEMBERS)
    groups = {"person": ["age", "job"]}
    whole, each = explained(made).grouped(groups), [explained(alone(made, n)).grouped(groups) for n in range(MEMBERS)]
    np.testing.assert_allclose(whole.spread, jackknife_error([one.values for one in each]), atol=1e-3)


def test_the_whole_has_the_members_spread_and_keeps_it_for_other_rows() -> None:
    made = model("binary", members=MEMBERS)
    overview = explain_global(made)
    assert overview.spread_of == "standard error by the jackknife over 3 cross-fitted models"
    each = [explain_global(alone(made, number)) for number in range(MEMBERS)]
    sizes = [{one.name: one.importance for one in of_member.importance()} for of_member in each]
    for effect in overview.importance():
        assert effect.spread == pytest.approx(float(jackknife_error([size[effect.name] for size in sizes])), rel=1e-3)
    shapes = [of_member.shape("job").effect for of_member in each]
    np.testing.assert_allclose(overview.shape("job").spread, jackknife_error(shapes), atol=1e-4)
    again = explain_global(made, source())
    assert again.importance()[0].spread == overview.importance()[0].spread
    assert overview.stability() is None
    assert explain_global(model("binary")).spread_of is None


def test_refits_go_before_members() -> None:
    made = model("binary", members=2)
    refits = [model("binary", seed=seed).module for seed in (7, 8, 9)]
    arrays = summarise(made.module, made.encoder, dataset(made, source()), refits=refits)
    assert explain_global(replace(made, background=arrays)).spread_of == "standard deviation over 3 refits"


def test_what_if_scores_with_all_members() -> None:
    made = model("binary", members=MEMBERS)
    logits = made.logits_of(encoded(made, source()))[:, 0]
    doubtful = int(np.abs(logits).argmin())
    found = what_if(made, source(), row=doubtful)
    assert found[0].logit_before == logits[doubtful]
    assert found[0].decision_after != found.decision


def test_raw_effects_need_no_background_and_have_a_spread_too() -> None:
    made = model("binary", members=2, background=False, table=clashing())
    raw = Explainer(made, view="raw").of_rows(source(clashing()), [0, 1])
    assert raw.spread is not None
    assert raw.spread.shape == raw.values.shape
    with pytest.raises(ConfigError, match="no background"):
        explain_global(made)
