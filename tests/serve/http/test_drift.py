"""Counts of unknown and missing values, and the drift of fields against training."""

import numpy as np
import pyarrow as pa
import pytest

from attfm import AFMClassifier
from attfm.explain.background import Background
from attfm.model.bundle import Model
from attfm.serve.http.drift import Drift, FieldDrift, stability_index
from attfm.serve.http.scorer import ModelScorer


@pytest.fixture(scope="module")
def model() -> Model:
    rng = np.random.default_rng(0)
    n = 400
    X = pa.table({"age": rng.integers(18, 80, n), "job": rng.choice(["cook", "clerk", "pilot"], n, p=[0.6, 0.3, 0.1]),
                  "tags": [["a", "b"] if number % 2 else ["b"] for number in range(n)]})  # fmt: skip
    y = np.where(np.array(X["age"]) + rng.normal(0, 10, n) > 50, "yes", "no")
    return AFMClassifier(epochs=1, dim=2, attention_dim=2, n_models=1, verbose=False).fit(X, y).model_


def _drift(model: Model, ages: list[object], jobs: list[object], **options: int) -> dict[str, FieldDrift]:
    background = Background.of_model(model)
    drift = Drift(background.levels, background.counts, **options)
    rows = [{"age": age, "job": job, "tags": ["b", "new"]} for age, job in zip(ages, jobs, strict=True)]
    for start in range(0, len(rows), 50):
        drift.add(ModelScorer(model).logits(rows[start : start + 50])[1])
    return {of.field: of for of in drift.fields()}


def test_values_of_training_show_no_more_drift_than_chance(model: Model) -> None:
    rng = np.random.default_rng(1)
    jobs = rng.choice(["cook", "clerk", "pilot"], 1000, p=[0.6, 0.3, 0.1]).tolist()
    fields = _drift(model, rng.integers(18, 80, 1000).tolist(), jobs)
    for name in ("age", "job"):
        drift = fields[name]
        assert drift.values == 1000
        assert drift.unknown == drift.missing == 0
        assert drift.psi is not None
        assert drift.by_chance is not None
        assert drift.psi < 3 * drift.by_chance < 0.2


def test_other_values_show_drift_in_their_field_alone(model: Model) -> None:
    rng = np.random.default_rng(2)
    jobs: list[object] = ["cook"] * 500 + [None] * 100 + ["king"] * 400
    fields = _drift(model, rng.integers(18, 80, 1000).tolist(), jobs)
    assert (fields["job"].unknown, fields["job"].missing) == (400, 100)
    assert fields["job"].psi is not None
    assert fields["job"].psi > 1
    assert fields["age"].psi is not None
    assert fields["age"].psi < 0.2
    assert fields["tags"].unknown == 1000
    assert fields["tags"].values == 2000


def test_the_last_rows_count(model: Model) -> None:
    rng = np.random.default_rng(3)
    ages = [79] * 1000 + rng.integers(18, 80, 2000).tolist()
    recent = _drift(model, ages, ["cook"] * 3000, window=500)["age"]
    all_rows = _drift(model, ages, ["cook"] * 3000)["age"]
    assert recent.psi is not None
    assert all_rows.psi is not None
    assert recent.psi < 0.2 < all_rows.psi
    assert recent.values == all_rows.values == 3000


def test_the_index_is_that_of_the_formula() -> None:
    before, now = np.array([80, 20, 0]), np.array([10, 10, 0])
    p, q = np.array([80.5, 20.5]) / 101, np.array([10.5, 10.5]) / 21
    index, by_chance = stability_index(before, now)
    assert index == pytest.approx(((q - p) * np.log(q / p)).sum())
    assert by_chance == pytest.approx(1 / 100 + 1 / 20)
    rng = np.random.default_rng(0)
    shares = np.full(10, 0.1)
    drawn = [stability_index(rng.multinomial(5000, shares), rng.multinomial(500, shares)) for _ in range(400)]
    assert np.mean([index for index, _ in drawn]) == pytest.approx(drawn[0][1], rel=0.15)


def test_without_a_background_values_are_counted_all_the_same(model: Model) -> None:
    from dataclasses import replace

    drift = Drift.of_model(replace(model, background={}))
    drift.add(ModelScorer(model).logits([{"age": 3, "job": "king", "tags": None}])[1])
    of = {field.field: field for field in drift.fields()}
    assert (of["job"].unknown, of["tags"].missing, of["age"].psi) == (1, 1, None)


def test_fields_alone_are_counted_for_themselves(model: Model) -> None:
    drift = Drift.of_model(model)
    _, whole = ModelScorer(model).logits([{"age": 30, "job": "cook", "tags": ["b", "new"]}] * 3)
    drift.add(whole)
    drift.add_fields({f: whole.field(f) for f in (1, 2)})
    assert [(of.field, of.values, of.unknown) for of in drift.fields()] == [
        ("age", 3, 0), ("job", 6, 0), ("tags", 12, 6)]  # fmt: skip


def test_many_values_of_one_field_do_not_push_out_those_of_another(model: Model) -> None:
    background = Background.of_model(model)
    _, king = ModelScorer(model).logits([{"age": 30, "job": "king", "tags": ["b"]}] * 50)
    _, cook = ModelScorer(model).logits([{"age": 30, "job": "cook", "tags": ["b"]}])

    def job_after(ages: int) -> FieldDrift:
        drift = Drift(background.levels, background.counts, window=100)
        drift.add_fields({1: king.field(1)})
        for _ in range(4):
            for _ in range(ages):
                drift.add_fields({0: king.field(0)})
            drift.add_fields({1: cook.field(1)})
        return drift.fields()[1]

    assert job_after(9) == job_after(0)
    assert job_after(0).unknown == 50
