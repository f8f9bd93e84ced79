"""What a user does with an explanation."""

import builtins
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from attfm.errors import ConfigError, MissingExtraError
from attfm.explain.explainer import Explainer, explain_global
from attfm.explain.explanation import Explanation
from tests.explain.account import clashing, mixed, model, source


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    return Explainer(model()).of_rows(source(), None)


@pytest.fixture(scope="module")
def classes() -> Explanation:
    return Explainer(model("multiclass")).of_rows(source(), range(6))


def test_names_and_labels_are_those_of_the_columns(explanation: Explanation) -> None:
    table = mixed().to_pylist()
    assert explanation.fields == ("job", "age", "langs", "born.weekday", "born.month")
    assert explanation.pair_names[:2] == ("job × age", "job × langs")
    assert explanation.outputs == ("yes",)
    assert explanation.labels[:, 0].tolist() == [row["job"] for row in table]
    assert explanation.labels[:4, 2].tolist() == ["missing", "de", "de, en", "de, en, fr"]
    assert explanation.labels[:, 3].tolist() == [row["born"].strftime("%A") for row in table]
    missing = [row["age"] != row["age"] or row["age"] is None for row in table]
    assert (explanation.labels[:, 1] == "missing").tolist() == missing


def test_scaled_values_are_shown_in_their_own_unit() -> None:
    labels = Explainer(model(numeric="scaled")).of_rows(source(), None).labels[:, 1]
    ages = mixed()["age"].to_pylist()
    for text, age in zip(labels, ages, strict=True):
        assert text == "missing" if age is None or np.isnan(age) else float(text) == pytest.approx(age, rel=1e-5)


def test_top_is_sorted_and_names_value_and_weights(explanation: Explanation) -> None:
    row = explanation.top(15)[3]
    values = explanation.values[3]
    assert [effect.effect for effect in row] == sorted(values, key=lambda value: -abs(value))
    assert sum(effect.effect for effect in row) + explanation.base[0] == pytest.approx(explanation.logits[3, 0])
    for effect in row:
        number = explanation.names.index(effect.name)
        assert effect.effect == values[number]
        if number < 5:
            assert effect.attention is None
            assert effect.value == explanation.labels[3, number]
        else:
            i, j = explanation.pairs[number - 5]
            assert effect.value == f"{explanation.labels[3, i]} × {explanation.labels[3, j]}"
            assert effect.attention == pytest.approx(explanation.attention[3, number - 5])
            assert effect.applied == pytest.approx(explanation.applied[3, number - 5])
    assert [effect.name for effect in explanation.top(2)[3]] == [effect.name for effect in row[:2]]


def test_rows_are_taken_by_number_slice_and_mask(explanation: Explanation) -> None:
    assert len(explanation) == 150
    assert explanation[3].rows.tolist() == [3]
    assert explanation[-1].rows.tolist() == [149]
    assert explanation[2:5].rows.tolist() == [2, 3, 4]
    assert explanation[[7, 1]].labels[:, 0].tolist() == explanation.labels[[7, 1], 0].tolist()
    mask = explanation.labels[:, 0] == "cook"
    np.testing.assert_array_equal(explanation[mask].values, explanation.values[mask])
    assert explanation[2:5][1].rows.tolist() == [3]
    with pytest.raises(IndexError, match="no row 150: the explanation has 150 rows, 0 to 149"):
        explanation[150]


def test_groups_sum_fields_and_the_pairs_between_them(explanation: Explanation) -> None:
    grouped = explanation.grouped({"person": ["age", "job"], "birth": ["born.weekday", "born.month"]})
    assert grouped.fields == ("person", "langs", "birth")
    assert grouped.pair_names == ("person × langs", "person × birth", "langs × birth")
    np.testing.assert_allclose(grouped.logits, explanation.logits)
    values, names = explanation.values, explanation.names
    person = sum(values[:, names.index(name)] for name in ("job", "age", "job × age"))
    np.testing.assert_allclose(grouped.main[:, 0, 0], person)
    both = [f"{one} × {other}" for one in ("job", "age") for other in ("born.weekday", "born.month")]
    np.testing.assert_allclose(grouped.pair[:, 1, 0], sum(values[:, names.index(name)] for name in both))
    held = [explanation.pair_names.index(name) for name in both]
    np.testing.assert_allclose(grouped.attention[:, 1], explanation.attention[:, held].sum(1), rtol=1e-5)
    assert grouped.labels[0, 0] == f"{explanation.labels[0, 0]}, {explanation.labels[0, 1]}"


@pytest.mark.parametrize("groups", [
    {"person": ["age", "job"]}, {"all": ["job", "age", "langs", "born.weekday", "born.month"]}, {},
    {"person": ["job", "langs"], "birth": ["born.month", "born.weekday"]},
])  # fmt: skip
def test_no_pair_is_left_out_of_groups(explanation: Explanation, classes: Explanation, groups: Any) -> None:
    for whole in (explanation, classes):
        grouped = whole.grouped(groups)
        np.testing.assert_allclose(grouped.logits, whole.logits, rtol=1e-9)
        attention = grouped.attention.sum(1) + grouped.within_attention.sum(1)
        np.testing.assert_allclose(attention, 1, rtol=1e-5)
        np.testing.assert_allclose(
            grouped.applied.sum(1) + grouped.within_applied.sum(1), whole.applied.sum(1), rtol=1e-3, atol=1e-4
        )
        inside = [any({whole.fields[f] for f in pair} <= set(g) for g in groups.values()) for pair in whole.pairs]
        held = whole.attention[:, inside].sum(1)
        np.testing.assert_allclose(grouped.within_attention.sum(1), held, rtol=1e-4, atol=1e-6)
        row = grouped[2]
        effects = {effect.name: effect for effect in row.top(99, output=0)[0]}
        for f, name in enumerate(grouped.fields):
            assert effects[name].attention == pytest.approx(grouped.within_attention[2, f])
            assert effects[name].applied == pytest.approx(grouped.within_applied[2, f])


def test_groups_may_be_grouped_again(explanation: Explanation) -> None:
    once = explanation.grouped({"all": ["job", "age", "langs"]})
    twice = explanation.grouped({"some": ["job", "age"]}).grouped({"all": ["some", "langs"]})
    assert twice.fields == once.fields
    for name in ("main", "pair", "attention", "applied", "within_attention", "within_applied"):
        np.testing.assert_allclose(getattr(twice, name), getattr(once, name), rtol=1e-4, atol=1e-5)


def test_a_group_is_only_conditional_if_all_its_pairs_are(explanation: Explanation) -> None:
    some = np.ones(10, np.bool_)
    some[explanation.pair_names.index("age × langs")] = False
    grouped = replace(explanation, conditional=some).grouped({"person": ["job", "age"]})
    left = [name for name, kept in zip(grouped.pair_names, grouped.conditional, strict=True) if not kept]
    assert left == ["person × langs"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"g": ["agee"]}, "group 'g' has 'agee', which is no field \\(did you mean 'age'\\?\\)"),
        ({"g": ["age"], "h": ["age"]}, "'age' is in the groups 'g' and 'h'"),
        ({"job": ["age"]}, "group 'job' is called like a field outside it"),
    ],
)
def test_groups_that_do_not_fit_are_told_of(explanation: Explanation, groups: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        explanation.grouped(groups)


def test_frames_hold_every_effect(explanation: Explanation, classes: Explanation) -> None:
    frame = explanation.to_frame("pandas")
    assert isinstance(frame, pd.DataFrame)
    assert frame.columns.tolist() == ["row", "base", *(f"effect of {name}" for name in explanation.names), "logit"]
    np.testing.assert_allclose(frame["logit"], explanation.logits[:, 0])
    np.testing.assert_allclose(frame.filter(like="effect").sum(axis=1) + frame["base"], frame["logit"])
    other = classes.to_frame("polars")
    assert isinstance(other, pl.DataFrame)
    assert other.columns[:3] == ["row", "output", "base"]
    assert other["output"].to_list()[:4] == ["a", "b", "c", "a"]
    np.testing.assert_allclose(other["effect of age × langs"].to_numpy().reshape(6, 3), classes.pair[:, 4])
    np.testing.assert_allclose(other["logit"].to_numpy().reshape(6, 3), classes.logits)
    assert isinstance(explanation.to_frame(), pd.DataFrame)


@pytest.mark.parametrize(
    ("method", "arguments", "absent", "message"),
    [
        ("to_frame", ("pandas",), ["pandas"], "pandas is not installed: run 'pip install pandas'"),
        ("to_frame", ("polars",), ["polars"], "polars is not installed"),
        ("to_frame", (), ["pandas", "polars"], "pandas or polars is not installed"),
        ("to_shap", (), ["shap"], "shap is not installed: run 'pip install shap'"),
    ],
)
def test_an_absent_package_is_named(
    explanation: Explanation, method: str, arguments: tuple[str, ...], absent: list[str], message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    real = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name.partition(".")[0] in absent:
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=message):
        getattr(explanation, method)(*arguments)


def test_json_holds_the_account(classes: Explanation) -> None:
    result = json.loads(classes[1].to_json(top=3))
    assert result["unit"] == "logit"
    assert result["view"] == "centred"
    account = result["rows"][0]["accounts"][2]
    assert account["output"] == "c"
    assert account["logit"] == pytest.approx(classes.logits[1, 2])
    assert [effect["name"] for effect in account["effects"]] == [e.name for e in classes.top(3, output="c")[1]]
    whole = json.loads(classes[1].to_json())["rows"][0]["accounts"][2]["effects"]
    assert sum(effect["effect"] for effect in whole) + result["base"]["c"] == pytest.approx(account["logit"])


def test_an_account_of_several_classes_must_be_named(classes: Explanation) -> None:
    with pytest.raises(ConfigError, match="give output=, one of 'a', 'b', 'c'"):
        classes.top(3)
    with pytest.raises(ConfigError, match="no output 'd': it is one of 'a', 'b', 'c'"):
        classes.top(3, output="d")
    assert classes.top(3, output=1) == classes.top(3, output="b")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::PendingDeprecationWarning")
def test_shap_takes_it(explanation: Explanation, classes: Explanation) -> None:
    shap = pytest.importorskip("shap")
    plt = pytest.importorskip("matplotlib.pyplot")
    held = explanation.to_shap()
    np.testing.assert_array_equal(held.values, explanation.values)
    np.testing.assert_allclose(held.values.sum(1) + held.base_values, explanation.logits[:, 0])
    assert held.display_data[0, 0] == explanation.labels[0, 0]
    for draw in (lambda: shap.plots.waterfall(held[0], show=False), lambda: shap.plots.beeswarm(held, show=False),
                 lambda: shap.plots.bar(held, show=False)):  # fmt: skip
        draw()
        texts = [text.get_text() for text in plt.gca().get_yticklabels()]
        assert any("age" in text for text in texts)
        plt.close("all")
    several = classes.to_shap()
    np.testing.assert_allclose(several.values.sum(1) + several.base_values, classes.logits)


def test_a_field_called_like_a_pair_is_told_apart_from_it() -> None:
    table = clashing()
    made = model(table=table)
    explanation = Explainer(made).of_rows(source(table), None)
    assert explanation.names == ("a", "b", "a × b", "a × b", "a × a × b", "b × a × b")
    effects = {effect.fields: effect for effect in explanation[5].top()[0]}
    assert [effects["a × b",].name, effects["a", "b"].name] == ["a × b", "a × b"]
    assert effects["a × b",].effect == explanation.main[5, 2, 0]
    assert effects["a", "b"].effect == explanation.pair[5, 0, 0]
    row = {name: values[5] for name, values in table.to_pydict().items()}
    assert effects["a × b",].values == (row["a × b"],)
    assert effects["a", "b"].values == (row["a"], row["b"])
    assert effects["a × b",].attention is None
    told = {tuple(one["fields"]): one for one in explanation[5].to_dict()["rows"][0]["accounts"][0]["effects"]}
    assert told["a", "b"] == {
        "name": "a × b", "value": f"{row['a']} × {row['b']}", "effect": effects["a", "b"].effect,
        "spread": None, "attention": effects["a", "b"].attention, "applied": effects["a", "b"].applied,
        "fields": ["a", "b"], "values": [row["a"], row["b"]],
    }  # fmt: skip
    assert told["a × b",]["effect"] == effects["a × b",].effect
    frame = explanation.to_frame("pandas")
    np.testing.assert_array_equal(frame["effect of a × b"], explanation.main[:, 2, 0])
    np.testing.assert_array_equal(frame["effect of a × b (2)"], explanation.pair[:, 0, 0])

    overview = explain_global(made)
    assert [set(one.fields) for one in overview.field_importance()] == [{shape.field} for shape in overview.shapes()]
    assert sorted(len(one["fields"]) for one in overview.to_dict()["pairs"]) == [2, 2, 2]
    assert {tuple(one["fields"]): one["name"] for one in overview.to_dict()["fields"]}["a × b",] == "a × b"
