"""Ranking equals scoring the rows that the context and each candidate make."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attfm
from attfm.errors import ConfigError, DataError, SchemaError
from attfm.model.bundle import Model
from attfm.model.calibration import Calibration, Curve
from attfm.ops import use_backend
from attfm.serve.ranking.ranker import Ranker, Ranking
from tests.serve.made import made_model
from tests.serve.made import table as table_of_all_kinds
from tests.serve.sides import CONTEXT, ITEM, joined, random_model, rows

COLUMNS = [*CONTEXT, *ITEM]
PRESETS = ["nested", "paper", "fwfm", "fm", "linear"]
TASKS = ["binary", "multiclass", "regression"]


def expected_logits(model: Model, context: pa.Table, items: pa.Table) -> np.ndarray[Any, Any]:
    """Return the logits of the joined rows, by the formula in float64."""
    with use_backend("reference"):
        return model.scorer.predict(model.encoder.transform(joined(context, items))).numpy()


def size_of(logits: np.ndarray[Any, Any]) -> float:
    """Return how far logits may be from others: 1e-5, of large ones relative to them."""
    return 1e-5 * max(1.0, float(np.abs(logits).max()))


@pytest.mark.parametrize(("members", "remembered"), [(1, 0), (2, 9)])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("preset", PRESETS)
def test_logits_are_those_of_the_joined_rows(
    preset: str, task: str, members: int, remembered: int, backend: str
) -> None:
    model = random_model(preset, task=task, members=members, remembered=remembered, seed=3)
    ranker, table = Ranker(model, context=CONTEXT, item=ITEM), rows(40, 7)
    context, items = table.select(CONTEXT).slice(0, 1), table.select(ITEM)
    expected = expected_logits(model, context, items)
    for candidates in (items, ranker.catalogue(items)):
        assert np.abs(ranker.logits(context, candidates) - expected).max() < size_of(expected)
    assert np.abs(ranker.logits(context, items) - expected[::-1]).max() > 100 * size_of(expected)


@pytest.mark.parametrize("preset", ["nested", "fwfm"])
@pytest.mark.parametrize("members", [1, 2])
def test_a_ranker_and_its_catalogues_follow_a_model_whose_weights_change(preset: str, members: int) -> None:
    model = random_model(preset, members=members, remembered=9, seed=3)
    ranker, table = Ranker(model, context=CONTEXT), rows(40, 7)
    context, items = table.select(CONTEXT).slice(0, 1), table.select(ITEM)
    catalogue = ranker.catalogue(items.slice(0, 30))
    catalogue.add(items.slice(30))
    kept = [n for n in range(40) if n not in (3, 17)]
    before = expected_logits(model, context, items)
    assert np.abs(ranker.logits(context, catalogue) - before).max() < size_of(before)
    changes: list[Any] = [lambda p: p.mul_(0.5), lambda p: p.copy_(torch.randn_like(p)), lambda p: p.add_(0.25)]
    for change in changes:
        with torch.no_grad():
            for parameter in model.module.parameters():
                change(parameter)
        expected = expected_logits(model, context, items)
        assert np.abs(expected - before).max() > 100 * size_of(expected)
        if change is changes[1]:
            catalogue.change(items.slice(5, 1), keys=[5])  # before any request has seen the new weights
            catalogue.remove([3, 17])
        of_catalogue = expected if len(catalogue) == 40 else expected[kept]
        assert np.abs(ranker.logits(context, catalogue) - of_catalogue).max() < size_of(expected)
        assert np.abs(ranker.logits(context, [30, 1], catalogue=catalogue) - expected[[30, 1]]).max() < 1e-4
        assert np.abs(ranker.logits(context, items) - expected).max() < size_of(expected)
        before = expected


@settings(max_examples=15, deadline=None)
@given(
    preset=st.sampled_from(PRESETS), task=st.sampled_from(TASKS), members=st.integers(1, 3),
    remembered=st.integers(0, 12), seed=st.integers(0, 2**31), columns=st.permutations(COLUMNS), of=st.integers(2, 8),
    cut=st.integers(1, 7), n=st.integers(1, 70), top=st.integers(1, 80), spread=st.sampled_from([1.0, 30.0]),
)  # fmt: skip
def test_random_models_sides_and_candidates(
    preset: str, task: str, members: int, remembered: int, seed: int, columns: Sequence[str], of: int, cut: int, n: int,
    top: int, spread: float,
) -> None:  # fmt: skip
    sides = columns[:of]
    context_names = sides[: min(cut, of - 1)]
    order = [name for name in rows(1).column_names if name in sides]
    model = random_model(
        preset, task=task, members=members, remembered=remembered, seed=seed % 1000, only=order, spread=spread
    )
    ranker, table = Ranker(model, context=context_names), rows(n, seed)
    context, items = table.select(ranker.context).slice(n // 2, 1), table.select(ranker.item)
    expected = expected_logits(model, context, items)
    got = ranker.logits(context, items)
    # Attention logits in the hundreds lose digits in float32 wherever they are worked out.
    joint = model.logits_of(model.encoder.transform(joined(context, items)))
    lost = 0.0 if spread == 1 else 4 * np.abs(joint - expected).max()
    assert np.abs(got - expected).max() < max(size_of(expected), lost)
    of_class = "b" if task == "multiclass" else None
    ranking = ranker.rank(context, items, top=top, of=of_class)
    scores = model.task.scores(expected)
    scores = scores if scores.ndim == 1 else scores[:, 1]
    best = np.sort(scores)[::-1][:top]
    assert len(ranking) == min(n, top)
    near = max(size_of(expected), lost)
    assert np.abs(ranking.scores - scores[ranking.positions]).max() < near
    assert np.abs(ranking.scores - best).max() < near


def test_attention_logits_far_apart_stay_exact(backend: str) -> None:
    model = random_model(seed=5, spread=400.0)
    ranker, table = Ranker(model, context=CONTEXT), rows(60, 3)
    context, items = table.select(CONTEXT).slice(1, 1), table.select(ITEM)
    got = ranker.logits(context, items)
    expected = expected_logits(model, context, items)
    assert np.isfinite(got).all()
    assert np.abs(got - expected).max() < 2e-3 * max(1.0, np.abs(expected).max())  # e is in the thousands, in float32


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_a_bit(threads: int) -> None:
    model = random_model(seed=2, remembered=6)
    ranker, table = Ranker(model, context=CONTEXT), rows(3000, 3)
    catalogue, before = ranker.catalogue(table.select(ITEM)), torch.get_num_threads()
    context = table.select(CONTEXT).slice(1, 1)
    one = ranker.logits(context, catalogue)
    torch.set_num_threads(threads)
    try:
        assert np.array_equal(ranker.logits(context, catalogue), one)
        assert np.array_equal(ranker.logits(context, [5, 2_999, 5], catalogue=catalogue), one[[5, 2_999, 5]])
    finally:
        torch.set_num_threads(before)


def test_of_equal_candidates_the_first_stands_first() -> None:
    ranker = Ranker(random_model(seed=1), context=CONTEXT)
    one = rows(30, 1).select(ITEM)
    items = pa.concat_tables([one.slice(4, 1), one.slice(5, 1), one.slice(4, 1), one.slice(4, 1), one.slice(5, 1)])
    context = rows(1, 2).select(CONTEXT)
    whole = ranker.rank(context, items).positions.tolist()
    assert whole in ([0, 2, 3, 1, 4], [1, 4, 0, 2, 3])
    for top in (1, 2, 3, 4):
        assert ranker.rank(context, items, top=top).positions.tolist() == whole[:top]


def test_ranking_by_a_class() -> None:
    table = rows(30, 1)
    context, items = table.select(CONTEXT).slice(0, 1), table.select(ITEM)
    several = Ranker(random_model(task="multiclass", seed=2), context=CONTEXT)
    shares = several.model.task.scores(several.logits(context, items))
    for code, label in enumerate("abc"):
        ranking = several.rank(context, items, of=label, top=None)
        assert ranking.output == label
        assert ranking.positions.tolist() == np.argsort(-shares[:, code], kind="stable").tolist()
        assert np.array_equal(ranking.scores, shares[ranking.positions, code])
    two = Ranker(random_model(seed=2), context=CONTEXT)
    yes, no = two.rank(context, items, top=None), two.rank(context, items, of="no", top=None)
    assert yes.output == "yes"
    assert no.positions.tolist() == yes.positions.tolist()[::-1]
    assert np.allclose(no.scores + yes.scores[::-1], 1)
    assert np.array_equal(no.logits, -yes.logits[::-1])


def test_calibration_is_part_of_the_scores() -> None:
    model, table = random_model(seed=2), rows(30, 1)
    context, items = table.select(CONTEXT).slice(0, 1), table.select(ITEM)
    Calibration(kind="sigmoid", rows=9, slope=(0.5,), offset=(0.25,)).fold_into(model.module)
    ranking = Ranker(model, context=CONTEXT).rank(context, items, top=4)
    expected = expected_logits(model, context, items)[:, 0]
    assert ranking.positions.tolist() == np.argsort(-expected)[:4].tolist()
    assert np.allclose(ranking.logits, expected[ranking.positions], atol=1e-5)
    curve = Curve(logits=(-9.0, 0.0, 9.0), probabilities=(0.2, 0.5, 0.5))
    bent = Model(
        model.schema, model.encoder, model.target, model.module, model.config,
        calibration=Calibration(kind="isotonic", rows=9, curves=(curve,)),
    )  # fmt: skip
    ranking = Ranker(bent, context=CONTEXT).rank(context, items, top=4)
    assert ranking.positions.tolist() == np.argsort(-expected)[:4].tolist()
    assert np.allclose(ranking.scores, bent.task.scores(expected[:, None])[ranking.positions, 1])


def test_what_a_ranking_says() -> None:
    ranking = Ranking(("x", "y"), np.array([4, 0]), np.array([0.75, 0.5]), np.array([1.1, 0.0]), "yes", 9)
    assert ranking[0] == {"rank": 1, "key": "x", "position": 4, "score": 0.75, "logit": 1.1}
    assert [row["key"] for row in ranking] == ["x", "y"]
    assert ranking[-1]["rank"] == 2
    assert ranking[1:] == [ranking[1]]
    assert ranking.to_arrow().column_names == ["rank", "key", "position", "score", "logit"]
    assert str(ranking) == "2 of 9 candidates by yes:\n1. x (0.7500)\n2. y (0.5000)"
    assert ranking.to_arrow().to_pylist() == list(ranking)


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    return Ranker(random_model(seed=1), context=CONTEXT)


CONTEXT_ROW = {"user": "u1", "age": 30.0, "likes": ["tea"], "when": None}
ITEM_ROW = {"film": "f1", "tags": "war|love", "price": 3.0, "year": 1953}


def test_a_context_may_be_a_dict_or_a_table_of_one_row(ranker: Ranker, frame: Any) -> None:
    items = [ITEM_ROW, {**ITEM_ROW, "film": "f2"}]
    expected = ranker.logits(pa.Table.from_pylist([CONTEXT_ROW]), items)
    listed = {name: [value] for name, value in CONTEXT_ROW.items()}
    for context in (CONTEXT_ROW, CONTEXT_ROW, [CONTEXT_ROW], listed, frame(listed)):
        assert np.array_equal(ranker.logits(context, items), expected)
    assert np.array_equal(ranker.logits(CONTEXT_ROW, frame(pa.Table.from_pylist(items).to_pydict())), expected)
    assert not np.array_equal(ranker.logits({**CONTEXT_ROW, "user": "u2"}, items), expected)
    assert not np.array_equal(ranker.logits({**CONTEXT_ROW, "likes": ["rum", "milk"]}, items), expected)


def test_a_context_never_seen_is_read_as_a_table_of_one_row() -> None:
    data = table_of_all_kinds()
    model = made_model(memory=True)
    ranker = Ranker(model, item=["job", "short"])
    items = data.select(ranker.item).slice(0, 9)
    contexts = data.select(ranker.context).slice(0, 24)
    assert {field.kind for field in model.encoder.fields} >= {"scaled", "multi-valued", "numeric", "categorical"}
    known = np.concatenate([ranker.logits(contexts.slice(n, 1), items) for n in range(len(contexts))])
    assert len(np.unique(known)) > 100
    told = [{**row, "weighted": dict(row["weighted"])} for row in contexts.to_pylist()]  # as Python and JSON have it
    for _ in range(2):  # at first, and where its values were seen
        found = np.concatenate([ranker.logits(row, items) for row in told])
        np.testing.assert_array_equal(found, known)
    never = {**told[3], "age": -1e9, "town": 5, "size": None, "tags": ["never"], "weighted": {}, "langs": "x|b"}
    types = {name: contexts.schema.field(name).type for name in contexts.column_names}
    as_table = pa.table({name: pa.array([[] if v == {} else v], types[name]) for name, v in never.items()})
    np.testing.assert_array_equal(ranker.logits(never, items), ranker.logits(as_table, items))


def test_a_row_of_pandas_is_a_context(ranker: Ranker) -> None:
    pandas = pytest.importorskip("pandas")
    series = pandas.DataFrame([CONTEXT_ROW]).iloc[0]
    assert np.array_equal(ranker.logits(series, [ITEM_ROW]), ranker.logits(CONTEXT_ROW, [ITEM_ROW]))


def test_what_a_context_lacks_or_has_too_much_is_said(ranker: Ranker) -> None:
    without = {name: value for name, value in CONTEXT_ROW.items() if name != "user"}
    with pytest.raises(SchemaError, match=r"^The context lacks column 'user'\. Rename or add what is missing"):
        ranker.rank(without, [ITEM_ROW])
    with pytest.raises(SchemaError, match=r"The context lacks column 'user' \(did you mean 'usr'\?\)\."):
        ranker.rank({**without, "usr": "u1"}, [ITEM_ROW])
    with pytest.raises(SchemaError, match=r"The context has column 'agee' \(did you mean 'age'\?\), which the model"):
        ranker.rank({**CONTEXT_ROW, "agee": 3}, [ITEM_ROW])
    assert len(ranker.rank({**CONTEXT_ROW, **ITEM_ROW}, [ITEM_ROW])) == 1  # a whole row of the training table
    with pytest.raises(DataError, match=r"The context has 3 rows, and a request is one: pass one row"):
        ranker.rank(rows(3).select(CONTEXT), [ITEM_ROW])
    with pytest.raises(DataError, match=r"Column 'age': .* 'old'"):
        ranker.rank({**CONTEXT_ROW, "age": "old"}, [ITEM_ROW])


def test_what_candidates_lack_is_said(ranker: Ranker) -> None:
    with pytest.raises(SchemaError, match=r"The items lack columns 'film', 'price'\. Rename"):
        ranker.rank(CONTEXT_ROW, [{"tags": None, "year": 1953}])
    with pytest.raises(DataError, match=r"Column 'price': .* 'dear', row 1"):
        ranker.rank(CONTEXT_ROW, [ITEM_ROW, {**ITEM_ROW, "price": "dear"}])
    with pytest.raises(ConfigError, match="The candidates are keys, and there is no catalogue that they are of"):
        ranker.rank(CONTEXT_ROW, [1, 2])
    assert len(ranker.rank(CONTEXT_ROW, [{**ITEM_ROW, "title": "no column of the model"}])) == 1


@pytest.mark.parametrize("top", [0, -1, 2.5, True, "3"])
def test_top_is_a_number_of_items(ranker: Ranker, top: Any) -> None:
    with pytest.raises(ConfigError, match=r"top is .*: give the number of items wanted, at least 1, or None for all"):
        ranker.rank(CONTEXT_ROW, [ITEM_ROW], top=top)


def test_what_is_no_catalogue_is_said(ranker: Ranker) -> None:
    for wrong in ("films", [ITEM_ROW]):
        with pytest.raises(ConfigError, match=r"^catalogue= is a (str|list): make one by this ranker's catalogue"):
            ranker.rank(CONTEXT_ROW, ["f1"], catalogue=wrong)  # type: ignore[arg-type]


def test_more_than_there_are_and_none_at_all(ranker: Ranker) -> None:
    assert len(ranker.rank(CONTEXT_ROW, [ITEM_ROW], top=99)) == 1
    empty = ranker.rank(CONTEXT_ROW, [])
    assert (len(empty), empty.candidates, empty.keys) == (0, 0, ())
    assert str(empty) == "0 of 0 candidates by yes:"


def test_classes_that_are_not_there_are_named(ranker: Ranker) -> None:
    with pytest.raises(
        ConfigError, match=r"There is no class 'yess' \(did you mean 'yes'\?\): of= takes one of 'no', 'yes'"
    ):
        ranker.rank(CONTEXT_ROW, [ITEM_ROW], of="yess")
    with pytest.raises(ConfigError, match="There are 3 classes: say by which to rank, by of= one of 'a', 'b', 'c'"):
        Ranker(random_model(task="multiclass"), context=CONTEXT).rank(CONTEXT_ROW, [ITEM_ROW])
    with pytest.raises(ConfigError, match="the model predicts a number and has no classes: leave it out"):
        Ranker(random_model(task="regression"), context=CONTEXT).rank(CONTEXT_ROW, [ITEM_ROW], of="yes")


@pytest.mark.parametrize(
    ("context", "item", "told"),
    [
        (None, None, r"Say which columns are the context's or the item's: context= and item= take 'user', 'film'"),
        ("user", None, r"context= is the text 'user': give a list of names, such as \['user'\]"),
        (["usr"], None, r"No input column is called 'usr' \(did you mean 'user'\?\): context= takes 'user', 'film'"),
        (None, [3], r"No input column is called '3': item= takes 'user', 'film'"),
        (3, None, r"context= is 3: give a list of names of columns, such as \['user'\]"),
        (None, b"film", r"item= is b'film': give a list of names of columns"),
        (np.array(["usr"]), None, r"No input column is called 'usr' \(did you mean 'user'\?\)"),
        (["user"], ["user", "film"], r"Column 'user' is in context= and in item=: each is of one side"),
        (["user"], ["film"], r"Column 'age', 'tags', .* is neither in context= nor in item="),
        ([], None, r"No column is left for context=: each side needs at least one"),
        (COLUMNS, None, r"No column is left for item=: each side needs at least one"),
    ],
)
def test_sides_divide_the_columns(ranker: Ranker, context: Any, item: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Ranker(ranker.model, context=context, item=item)


@pytest.mark.parametrize("kind", [np.array, pa.array, tuple, set, dict.fromkeys, iter])
def test_sides_are_given_by_any_names(ranker: Ranker, kind: Any) -> None:
    one, other = Ranker(ranker.model, context=kind(CONTEXT)), Ranker(ranker.model, item=kind(ITEM))
    assert (one.context, one.item) == (other.context, other.item) == (ranker.context, ranker.item)


def test_what_is_no_model_is_said(ranker: Ranker) -> None:
    for wrong in ("runs/adult", attfm.AFMClassifier(), None):
        with pytest.raises(ConfigError, match=rf"A {type(wrong).__name__} is no attfm.Model: give one, such"):
            Ranker(wrong, item=ITEM)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"There is no class array\(\[0, 1\]\): of= takes one of"):
        ranker.rank(CONTEXT_ROW, [ITEM_ROW], of=np.array([0, 1]))
    with pytest.raises(ConfigError, match=r"The candidates are 'f1', no list of keys: give a list, such as \['f1'\]"):
        ranker.rank(CONTEXT_ROW, "f1", catalogue=ranker.catalogue([ITEM_ROW], key="film"))


def test_estimators_and_loaded_runs_rank(run: str) -> None:
    model = attfm.load(run)
    ranker = model.ranker(context=["age", "town"], item=["job"])
    jobs = {"job": ["clerk", "cook", "nurse", "pilot"]}
    ranking = ranker.rank({"age": 30, "town": "town 1"}, jobs, top=None)
    table = {"age": [30] * 4, "town": ["town 1"] * 4, **jobs}
    shares = model.predict_proba(table)[:, 1]
    assert ranking.positions.tolist() == np.argsort(-shares, kind="stable").tolist()
    assert np.allclose(ranking.scores, shares[ranking.positions], atol=1e-6)
