"""The front door: rows chosen from a table, and the model as a whole."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from attfm.errors import ConfigError, DataError
from attfm.explain import summary as summary_module
from attfm.explain.explainer import Explainer, explain_global
from attfm.explain.global_explanation import GlobalExplanation
from attfm.explain.summary import summarise
from attfm.model import terms as terms_module
from attfm.model.bundle import Model
from tests.explain.account import dataset, mixed, model, source


@pytest.fixture(scope="module")
def made() -> Model:
    return model(refits=3)


@pytest.fixture(scope="module")
def overview(made: Model) -> GlobalExplanation:
    return explain_global(made)


def test_rows_come_in_the_order_asked_for_whatever_the_chunks(made: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Explainer(made).of_rows(source(), None)
    monkeypatch.setattr(terms_module, "_CHUNK_NUMBERS", 1)
    explainer = Explainer(made)
    chosen = explainer.of_rows(source(), [149, 3, 20, 3])
    assert chosen.rows.tolist() == [149, 3, 20, 3]
    np.testing.assert_allclose(chosen.values, whole.values[[149, 3, 20, 3]], rtol=1e-4, atol=1e-4)
    assert chosen.labels.tolist() == whole.labels[[149, 3, 20, 3]].tolist()
    assert [len(part) for part in explainer.chunks(source())] == [16] * 9 + [6]
    np.testing.assert_allclose(explainer.of_rows(source(), None).values, whole.values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [[150, 2], [-1]])
def test_a_row_outside_the_table_is_named(made: Model, rows: list[int]) -> None:
    with pytest.raises(DataError, match=f"Table has no row {rows[0]}: it has 150 rows, numbered 0 to 149"):
        Explainer(made).of_rows(source(), rows)


def test_importance_is_the_mean_absolute_centred_effect(made: Model, overview: GlobalExplanation) -> None:
    whole = Explainer(made).of_rows(source(), None)
    size = np.abs(whole.values).mean(0)
    for one in overview.importance():
        assert one.importance == pytest.approx(size[whole.names.index(one.name)], rel=1e-5)
        assert one.share == pytest.approx(one.importance / size.sum(), rel=1e-5)
    sizes = [one.importance for one in overview.importance()]
    assert sizes == sorted(sizes, reverse=True)
    for one in overview.pair_importance():
        weights = whole.attention[:, whole.pair_names.index(one.name)]
        assert one.attention == pytest.approx(weights.mean(), rel=1e-5)
        assert one.attention_spread == pytest.approx(weights.std(), rel=1e-3)
    assert np.nansum(overview.attention_matrix()) == pytest.approx(2, rel=1e-5)


def test_a_shape_is_the_mean_effect_of_each_value_with_its_rows(made: Model, overview: GlobalExplanation) -> None:
    whole = Explainer(made).of_rows(source(), None)
    for field in ("job", "age", "born.weekday"):
        shape = overview.shape(field)
        f = whole.fields.index(field)
        for label, effect, rows in zip(shape.labels, shape.effect[:, 0], shape.rows, strict=True):
            here = whole.labels[:, f] == label
            assert rows == here.sum()
            if rows:
                # Given its value, a single-valued field's main effect is one number.
                np.testing.assert_allclose(whole.main[here, f, 0], effect, rtol=1e-4, atol=1e-5)
    age = overview.shape("age")
    assert age.edges is not None
    assert len(age.edges) == len(age.labels) - 1
    assert overview.shape("job").edges is None
    assert [shape.field for shape in overview.shapes()] == [one.name for one in overview.field_importance()]


def test_the_shape_of_a_multi_valued_field_is_over_the_rows_that_have_a_member(
    made: Model, overview: GlobalExplanation
) -> None:
    whole = Explainer(made).of_rows(source(), None)
    shape = overview.shape("langs")
    assert shape.labels == ["unknown", "missing", "de", "en", "fr"]
    for label, effect, rows in zip(shape.labels, shape.effect[:, 0], shape.rows, strict=True):
        here = np.array([label in text.split(", ") for text in whole.labels[:, 2]])
        assert rows == here.sum()
        if rows:
            assert effect == pytest.approx(whole.main[here, 2, 0].mean(), rel=1e-4, abs=1e-5)


def test_the_shape_of_a_scaled_field_has_edges_in_its_unit() -> None:
    shape = explain_global(model(numeric="scaled")).shape("age")
    ages = np.array([age for age in mixed()["age"].to_pylist() if age == age])
    assert shape.edges is not None
    assert shape.edges[[0, -1]] == pytest.approx([ages.min(), ages.max()], rel=1e-5)
    assert shape.rows[2:].sum() == len(ages)
    low = (ages < shape.edges[5]).sum()
    assert abs(int(shape.rows[2:7].sum()) - int(low)) <= 1  # float32 may put one value on the other side


def test_a_surface_is_the_mean_effect_of_each_cell(made: Model, overview: GlobalExplanation) -> None:
    whole = Explainer(made).of_rows(source(), None)
    surface = overview.surface("born.weekday", "job")
    assert surface.name == "job × born.weekday"
    assert surface.rows.sum() == 150
    p = whole.pair_names.index(surface.name)
    for u, v, effect, rows in zip(surface.first, surface.second, surface.effect, surface.rows, strict=True):
        here = (whole.labels[:, 0] == surface.labels[0][u]) & (whole.labels[:, 3] == surface.labels[1][v])
        assert rows == here.sum()
        assert effect[0] == pytest.approx(whole.pair[here, p, 0].mean(), rel=1e-4, abs=1e-5)
    assert len(overview.surfaces()) == len(overview.pairs)


@pytest.mark.parametrize("step", [7, 1024])
def test_a_surface_of_a_multi_valued_field_has_a_cell_for_each_member(
    made: Model, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary_module, "_JOINED_ROWS", step)
    whole = Explainer(made).of_rows(source(), None)
    overview = explain_global(made, source(), pairs=[("job", "langs")])
    surface = overview.surface("langs", "job")
    p = whole.pair_names.index("job × langs")
    for u, v, effect, rows in zip(surface.first, surface.second, surface.effect, surface.rows, strict=True):
        job, lang = surface.labels[0][u], surface.labels[1][v]
        here = (whole.labels[:, 0] == job) & np.array([lang in text.split(", ") for text in whole.labels[:, 2]])
        assert rows == here.sum() > 0
        assert effect[0] == pytest.approx(whole.pair[here, p, 0].mean(), rel=1e-4, abs=1e-5)
    assert surface.rows.sum() == sum(text.count(",") + 1 for text in whole.labels[:, 2])


def test_a_surface_of_two_multi_valued_fields_has_a_cell_for_each_combination() -> None:
    lists = [["a", "b"], ["b"], [], ["a", "b", "c"]] * 25
    table = pa.table({"one": pa.array(lists), "two": pa.array([["x", "y"], ["y"], ["x"], ["y"]] * 25)})
    made = model(table=table)
    surface = explain_global(made).surface("one", "two")
    pair = Explainer(made).of_rows(source(table), None).pair[:, 0, 0]
    found = {
        (surface.labels[0][u], surface.labels[1][v]): (rows, effect)
        for u, v, rows, effect in zip(
            surface.first, surface.second, surface.rows.tolist(), surface.effect[:, 0], strict=True
        )
    }
    assert {cell: rows for cell, (rows, _) in found.items()} == {
        ("a", "x"): 25, ("a", "y"): 50, ("b", "x"): 25, ("b", "y"): 75, ("missing", "x"): 25, ("c", "y"): 25,
    }  # fmt: skip
    assert found["a", "y"][1] == pytest.approx((pair[0] + pair[3]) / 2, abs=1e-5)


def test_a_pair_without_a_surface_is_named(made: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    half = explain_global(made, source(), pairs=[("age", "job")])
    with pytest.raises(ConfigError, match="'job × langs' is not at hand; it is for 'job × age'"):
        half.surface("job", "langs")
    monkeypatch.setattr(summary_module, "STORED_SURFACES", 1)
    few = model()
    (held,) = explain_global(few).surfaces()
    other = next(pair for pair in (("job", "langs"), ("job", "age")) if pair != held.fields)
    with pytest.raises(ConfigError, match=f"'{' × '.join(other)}' is not stored: give a table too"):
        explain_global(few, pairs=[other])


def test_a_table_may_stand_for_the_training_rows(made: Model, overview: GlobalExplanation) -> None:
    same = explain_global(made, source())
    np.testing.assert_allclose(same.summary.field_importance, overview.summary.field_importance, rtol=1e-5)
    np.testing.assert_allclose(same.summary.shape, overview.summary.shape, rtol=1e-4, atol=1e-5)
    half = explain_global(made, source(mixed().slice(0, 75)), pairs=[("age", "job")])
    assert half.rows == 75
    assert [surface.name for surface in half.surfaces()] == ["job × age"]
    assert half.stability() == overview.stability()
    assert half.shape("job").rows.sum() == 75


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("job", "nope")], "\\('job', 'nope'\\) is not a pair of fields: give two of 'job', 'age'"),
        ([("job", "job")], "is not a pair of fields"),
    ],
)
def test_pairs_that_are_not_there_are_named(made: Model, pairs: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        explain_global(made, pairs=pairs)


def test_refits_give_spread_and_stability(made: Model, overview: GlobalExplanation) -> None:
    stability = overview.stability()
    assert stability is not None
    assert stability.refits == 3
    assert -1 <= stability.fields <= 1
    assert 0 < stability.top <= 1
    sizes = np.array([refit.field_importance[:, 0] for refit in overview.summary.refits])
    for one in overview.field_importance():
        f = overview.fields.index(one.name)
        assert one.spread == pytest.approx(sizes[:, f].std(ddof=1))
    assert overview.shape("age").spread is not None
    without = explain_global(model())
    assert without.stability() is None
    assert without.shape("age").spread is None
    assert all(one.spread is None for one in without.importance())


def test_equal_refits_are_perfectly_stable(made: Model) -> None:
    rows = dataset(made, source())
    arrays = summarise(made.module, made.encoder, rows, refits=[made.module, made.module])
    same = explain_global(replace(made, background=arrays))
    stability = same.stability()
    assert stability is not None
    assert (stability.fields, stability.pairs, stability.top) == pytest.approx((1, 1, 1))
    assert all(one.spread == pytest.approx(0, abs=1e-12) for one in same.importance())


@pytest.mark.parametrize("preset", ["fm", "linear"])
def test_models_without_attention_or_pairs_have_an_overview(preset: str) -> None:
    overview = explain_global(model(preset=preset))
    assert np.isnan(overview.attention_matrix()).all()
    assert all(one.attention is None for one in overview.importance())
    assert len(overview.pair_importance()) == (0 if preset == "linear" else 10)
    overview.to_json()


def test_one_column_is_enough() -> None:
    table = pa.table({"job": ["cook", "clerk"] * 75})
    made = model(table=table)
    explanation = Explainer(made).of_rows(source(table), [0, 1])
    assert explanation.names == ("job",)
    np.testing.assert_allclose(explanation.logits, made.logits(table)[:2], rtol=1e-5)
