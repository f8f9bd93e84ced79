"""The averages that the centred view shows effects against."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from attfm.config import PRESETS
from attfm.errors import ConfigError
from attfm.explain import background as background_module
from attfm.explain.background import Background, sample
from attfm.explain.effects import effects_of
from attfm.explain.explainer import Explainer
from attfm.explain.levels import States
from attfm.explain.training import summarise
from attfm.model.bundle import Model
from tests.explain.account import assert_adds_up, encoded, mixed, model, source
from tests.explain.test_effects import ENCODINGS


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_centred_view_adds_up_and_its_base_is_the_mean(task: str, preset: str) -> None:
    made = model(task, preset=preset)
    logits = made.logits(mixed())
    explanation = Explainer(made).of_rows(source(), None)
    assert_adds_up(explanation.logits, logits)
    np.testing.assert_allclose(explanation.base, logits.mean(0), rtol=1e-4, atol=1e-5 * np.abs(logits).max())
    assert explanation.conditional.all()
    np.testing.assert_allclose(explanation.main.mean(0), 0, atol=1e-5 * np.abs(logits).max())
    np.testing.assert_allclose(explanation.pair.mean(0), 0, atol=1e-5 * np.abs(logits).max())


@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_pair_effects_have_mean_zero_given_either_value(encoding: str) -> None:
    made = model(**ENCODINGS[encoding])
    explanation = Explainer(made).of_rows(source(), None)
    background = Background.from_arrays(made.background, made.encoder, made.module)
    states = background.states.of(encoded(made, source()))
    assert background.centred.all()
    for p, ends in enumerate(background.pairs):
        for f in ends:
            held = states.of_field(int(f))
            sums = np.bincount(held.state, held.weight * explanation.pair[held.row, p, 0])
            np.testing.assert_allclose(sums, 0, atol=2e-4 * np.abs(explanation.logits).max())


def test_rows_that_training_never_had_add_up_too() -> None:
    made = model()
    other = pa.table({"job": ["astronaut", None], "age": [-1e6, None], "langs": [["xx"], None], "born": [None, None]})
    other = other.set_column(3, "born", pa.array([None, None], pa.date32()))
    assert_adds_up(Explainer(made).of_rows(source(other), None).logits, made.logits(other))


def test_an_effect_that_does_not_depend_on_one_field_leaves_its_pair() -> None:
    """With equal vectors for all jobs, FM's pair effect of job and age is a function of age alone."""
    made = model(preset="fm", background=False, columns={"langs": {"kind": "ignored"}, "born": {"kind": "ignored"}})
    job = made.encoder.fields[0]
    with torch.no_grad():
        made.module.embedding.weight[job.start : job.stop] = made.module.embedding.weight[job.start]
    rows = encoded(made, source())
    states = States.of_rows(made.encoder, rows)
    effects = effects_of(made.module, rows)
    background = Background.of_sample(effects, states, states.of(rows), training_rows=len(rows))
    centred = background.centre(effects, states.of(rows))
    assert np.abs(effects.pair).max() > 0.5
    np.testing.assert_allclose(centred.pair, 0, atol=1e-5)
    age = effects.main[:, 1] + effects.pair[:, 0]
    np.testing.assert_allclose(centred.main[:, 1], age - age.mean(0), atol=1e-5)


def test_an_effect_that_depends_on_the_members_alone_leaves_its_pair() -> None:
    """With equal vectors for all jobs, FM's pair effect of job and languages is a sum over the languages."""
    made = model(preset="fm", background=False, columns={"age": {"kind": "ignored"}, "born": {"kind": "ignored"}})
    job = made.encoder.fields[0]
    with torch.no_grad():
        made.module.embedding.weight[job.start : job.stop] = made.module.embedding.weight[job.start]
    rows = encoded(made, source())
    made.background = summarise(made.module, made.encoder, rows)
    explanation = Explainer(made).of_rows(source(), None)
    raw = Explainer(made, view="raw").of_rows(source(), None)
    assert raw.pair.std() > 0.5
    np.testing.assert_allclose(explanation.pair, 0, atol=1e-5)
    languages = raw.main[:, 1] + raw.pair[:, 0]
    np.testing.assert_allclose(explanation.main[:, 1], languages - languages.mean(0), atol=1e-5)
    np.testing.assert_allclose(explanation.base, made.logits(mixed()).mean(0), rtol=1e-5)


def test_a_background_that_does_not_fit_the_fields_is_told_of() -> None:
    made = model()
    made.background = {**made.background, "counts": made.background["counts"][1:]}
    with pytest.raises(ConfigError, match=r"of another version of attfm.*ask for the raw view"):
        Explainer(made)


def test_above_the_limit_only_the_mean_is_moved_and_the_output_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_module, "_MOST_PAIRS", 4)
    made = model()
    explanation = Explainer(made).of_rows(source(), None)
    assert explanation.conditional.sum() == 4
    assert len(explanation.to_dict()["only_mean_moved"]) == 6
    assert_adds_up(explanation.logits, made.logits(mixed()))
    np.testing.assert_allclose(explanation.pair.mean(0), 0, atol=1e-4)
    # The ones that vary most were chosen.
    spread = effects_of(made.module, encoded(made, source())).pair.var(0)[:, 0]
    assert spread[explanation.conditional].min() >= spread[~explanation.conditional].max()


@pytest.mark.parametrize("limit", ["_MOST_MEANS", "_MOST_STATES"])
def test_the_limits_of_size_hold(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_module, limit, 30)
    made = model()
    background = Background.from_arrays(made.background, made.encoder, made.module)
    assert 0 < background.centred.sum() < len(background.pairs)
    assert len(background.moved) <= (30 if limit == "_MOST_MEANS" else 10 * 30)
    assert_adds_up(Explainer(made).of_rows(source(), None).logits, made.logits(mixed()))


def test_many_rows_are_sampled_and_the_numbers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_module, "_LEAST_ROWS", 20)
    monkeypatch.setattr(background_module, "_MOST_EFFECTS", 10 * 60)
    made = model()
    rows = encoded(made, source())
    assert len(sample(made.module, rows)) == 60
    background = Background.from_arrays(made.background, made.encoder, made.module)
    assert (background.rows, background.training_rows) == (60, 150)


def test_a_saved_model_keeps_its_background(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = model(bags=2)
    folder = made.save(tmp_path_factory.mktemp("run") / "run")
    again = Model.load(folder)
    assert made.background.keys() == again.background.keys()
    for name, array in made.background.items():
        np.testing.assert_array_equal(again.background[name], array)
    first, second = (Explainer(one).of_rows(source(), None) for one in (made, again))
    np.testing.assert_array_equal(first.values, second.values)


def test_without_a_background_the_raw_view_works_and_the_centred_one_says_why_not(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = model(background=False).save(tmp_path_factory.mktemp("run") / "run")
    assert not (folder / "background.safetensors").exists()
    made = Model.load(folder)
    assert_adds_up(Explainer(made, view="raw").of_rows(source(), None).logits, made.logits(mixed()))
    with pytest.raises(ConfigError, match=r"no background stored.*view='raw'"):
        Explainer(made)
    with pytest.raises(ConfigError, match="no view 'flat': it is one of 'centred', 'raw'"):
        Explainer(made, view="flat")  # type: ignore[arg-type]
