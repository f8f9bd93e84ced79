"""The averages that the centred view shows effects against."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from attfm.config import PRESETS
from attfm.errors import ConfigError
from attfm.explain import background as background_module
from attfm.explain.background import Background, sample_size
from attfm.explain.explainer import Explainer
from attfm.explain.levels import Levels, field_weights
from attfm.explain.summary import summarise
from attfm.model.run_folder import load_model, save_model
from attfm.model.terms import terms_of
from tests.explain.account import ENCODINGS, assert_adds_up, dataset, encoded, mixed, model, source


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
    background = Background.of_model(made)
    levels = background.levels.of(encoded(made, source()))
    assert background.centred.all()
    for p, ends in enumerate(background.pairs):
        for f in ends:
            of_field = levels.field(int(f))
            sums = np.bincount(of_field.ids, field_weights(of_field) * explanation.pair[of_field.rows, p, 0])
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
    levels = Levels.of_rows(made.encoder, rows)
    terms = terms_of(made.module, rows)
    background = Background.of_sample(terms, levels, levels.of(rows))
    centred = background.centre(terms, levels.of(rows))
    assert np.abs(terms.pair).max() > 0.5
    np.testing.assert_allclose(centred.pair, 0, atol=1e-5)
    age = terms.main[:, 1] + terms.pair[:, 0]
    np.testing.assert_allclose(centred.main[:, 1], age - age.mean(0), atol=1e-5)


def test_an_effect_that_depends_on_the_members_alone_leaves_its_pair() -> None:
    """With equal vectors for all jobs, FM's pair effect of job and languages is a sum over the languages."""
    made = model(preset="fm", background=False, columns={"age": {"kind": "ignored"}, "born": {"kind": "ignored"}})
    job = made.encoder.fields[0]
    with torch.no_grad():
        made.module.embedding.weight[job.start : job.stop] = made.module.embedding.weight[job.start]
    made = replace(made, background=summarise(made.module, made.encoder, dataset(made, source())))
    explanation = Explainer(made).of_rows(source(), None)
    raw = Explainer(made, view="raw").of_rows(source(), None)
    assert raw.pair.std() > 0.5
    np.testing.assert_allclose(explanation.pair, 0, atol=1e-5)
    languages = raw.main[:, 1] + raw.pair[:, 0]
    np.testing.assert_allclose(explanation.main[:, 1], languages - languages.mean(0), atol=1e-5)
    np.testing.assert_allclose(explanation.base, made.logits(mixed()).mean(0), rtol=1e-5)


def test_a_background_that_does_not_fit_the_fields_is_told_of() -> None:
    made = model()
    made = replace(made, background={**made.background, "counts": made.background["counts"][1:]})
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
    spread = terms_of(made.module, encoded(made, source())).pair.var(0)[:, 0]
    assert spread[explanation.conditional].min() >= spread[~explanation.conditional].max()


@pytest.mark.parametrize("limit", ["_MOST_MEANS", "_MOST_LEVELS"])
def test_the_limits_of_size_hold(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_module, limit, 30)
    made = model()
    background = Background.of_model(made)
    assert 0 < background.centred.sum() < len(background.pairs)
    assert len(background.moved) <= (30 if limit == "_MOST_MEANS" else 10 * 30)
    assert_adds_up(Explainer(made).of_rows(source(), None).logits, made.logits(mixed()))


def test_many_rows_are_sampled_and_the_numbers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_module, "_LEAST_ROWS", 20)
    monkeypatch.setattr(background_module, "_MOST_EFFECTS", 10 * 60)
    made = model()
    assert len(dataset(made, source()).sample(sample_size(made.module))) == 60
    background = Background.of_model(made)
    assert (background.rows, background.training_rows) == (60, 150)


def test_a_saved_model_keeps_its_background(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = model(refits=2)
    again = load_model(save_model(made, tmp_path_factory.mktemp("run") / "run"))
    assert made.background.keys() == again.background.keys()
    for name, array in made.background.items():
        np.testing.assert_array_equal(again.background[name], array)
    first, second = (Explainer(one).of_rows(source(), None) for one in (made, again))
    np.testing.assert_array_equal(first.values, second.values)


def test_without_a_background_the_raw_view_works_and_the_centred_one_says_why_not(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = save_model(model(background=False), tmp_path_factory.mktemp("run") / "run")
    assert not (folder / "background.safetensors").exists()
    made = load_model(folder)
    assert_adds_up(Explainer(made, view="raw").of_rows(source(), None).logits, made.logits(mixed()))
    with pytest.raises(ConfigError, match=r"no background stored.*view='raw'"):
        Explainer(made)
    with pytest.raises(ConfigError, match="no view 'flat': it is one of 'centred', 'raw'"):
        Explainer(made, view="flat")  # type: ignore[arg-type]
