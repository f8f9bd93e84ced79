"""The family of models: what each preset is, and that it is that exactly."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from attfm.config import PRESETS, ModelConfig
from attfm.data.batch import Batch, FieldFeatures
from attfm.errors import ConfigError
from attfm.model import modules
from attfm.model.modules import FactorizationMachine
from attfm.ops import use_backend

FEATURES, FIELDS = 12, 4


def build(preset: str, outputs: int = 1, **settings: object) -> FactorizationMachine:
    torch.manual_seed(0)
    config = ModelConfig.parse({"preset": preset, "dim": 5, "attention_dim": 3, **settings})
    module = FactorizationMachine(FEATURES, FIELDS, outputs, config).double().eval()
    torch.nn.init.normal_(module.linear.weight)
    torch.nn.init.normal_(module.intercept)
    return module


def draw_rows(batch: int = 7) -> Batch:
    generator = torch.Generator().manual_seed(1)
    start = torch.arange(FIELDS) * 3
    return Batch((start + torch.randint(0, 3, (batch, FIELDS), generator=generator)).int())


def rows_of(kind: str) -> Batch:
    """Return 7 rows: of ids alone, with values, or with bags of 0 to 3 features in the third field."""
    rows, generator = draw_rows(), torch.Generator().manual_seed(2)
    if kind == "ids":
        return rows
    values = torch.rand(rows.ids.shape, generator=generator) + 0.5
    if kind == "values":
        return Batch(rows.ids, values)
    counts = torch.tensor([0, 3, 1, 2, 1, 0, 2])
    bag = FieldFeatures(
        (6 + torch.randint(0, 3, (9,), generator=generator)).int().numpy(),
        torch.rand(9, generator=generator).numpy(),
        counts.numpy(),
    )
    fields = [FieldFeatures(rows.ids[:, f].numpy(), values[:, f].numpy()) for f in range(FIELDS)]
    return Batch.of_fields([*fields[:2], bag, *fields[3:]])


def with_bag(single: list[list[int]], ids: list[int], values: list[float] | None, counts: list[int]) -> Batch:
    """Return rows whose third of four fields is multi-valued."""
    weights = None if values is None else np.array(values, np.float32)
    fields = [FieldFeatures(np.array(column, np.int32)) for column in single]
    bag = FieldFeatures(np.array(ids, np.int32), weights, np.array(counts))
    return Batch.of_fields([*fields[:2], bag, fields[2]])


def entries(rows: Batch, n: int, field: int) -> list[tuple[int, float]]:
    """Return the features of a field of row n and what multiplies each."""
    features = rows.field(field)
    values = np.ones(len(features.ids)) if features.values is None else features.values
    return [(int(features.ids[e]), float(values[e])) for e in np.flatnonzero(features.rows == n)]


def by_hand(module: FactorizationMachine, rows: Batch) -> Tensor:
    """The model's equation, row by row, feature by feature and pair by pair."""
    logits = []
    for n in range(len(rows)):
        features = [entries(rows, n, field) for field in range(FIELDS)]
        logit = module.intercept + sum(x * module.linear.weight[i] for field in features for i, x in field)
        if module.has_pairs:
            attention, zero = module.attention, torch.zeros(5, dtype=torch.float64)
            vectors = [sum((x * module.embedding.weight[i] for i, x in field), zero) for field in features]
            q = [vectors[i] * vectors[j] for i in range(FIELDS) for j in range(i + 1, FIELDS)]
            a = torch.ones(len(q), dtype=torch.float64)
            if attention.W is not None:
                e = torch.stack([attention.h @ torch.relu(x @ attention.W + attention.b) for x in q])
                if attention.pair_bias is not None:
                    e = e + attention.pair_bias
                a = torch.exp(e) / torch.exp(e).sum()
                a = a * (len(q) if module.config.scale == "pairs" else 1)
            if attention.pair_gate is not None:
                a = a * attention.pair_gate
            logit = logit + sum(a[k] * (x @ module.projection) for k, x in enumerate(q))
        logits.append(logit)
    return torch.stack(logits)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_its_formula(preset: str, outputs: int) -> None:
    module = build(preset, outputs)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "pair_" in name:
                parameter.add_(torch.randn(parameter.shape))
        torch.testing.assert_close(module(draw_rows()), by_hand(module, draw_rows()), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["ids", "values", "bags"])
@pytest.mark.parametrize("preset", ["nested", "fwfm", "fm", "linear"])
def test_predict_is_the_formula_whatever_computes(
    preset: str, kind: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules, "_SCORING_ROWS", 3)  # several chunks
    module, rows = build(preset, 2), rows_of(kind)
    expected = by_hand(module, rows)
    single = copy.deepcopy(module).float()
    assert single.scores_natively == (backend == "native")
    torch.testing.assert_close(single.predict(rows).double(), expected, rtol=2e-5, atol=2e-5)
    with use_backend("auto"):
        assert not module.scores_natively  # float64
        torch.testing.assert_close(module.predict(rows), expected, rtol=1e-10, atol=1e-12)
    if backend == "native":
        with pytest.raises(ConfigError, match="linear is float64, and the kernels take float32"):
            module.predict(rows)


def test_the_nested_model_starts_as_the_plain_factorization_machine() -> None:
    module = build("nested")
    module.attention.h.data.zero_()  # equal attention on all pairs
    v = module.embedding.weight[draw_rows().ids.long()]
    pairs = (0.5 * (v.sum(1) ** 2 - (v**2).sum(1)) * module.projection[:, 0]).sum(1)
    linear = module.intercept + module.linear(draw_rows()).sum(1)
    torch.testing.assert_close(module(draw_rows())[:, 0], linear[:, 0] + pairs, rtol=1e-12, atol=1e-12)


def test_pairs_of_the_papers_model_begin_as_large_as_those_of_the_nested_one() -> None:
    def spread(preset: str) -> float:
        torch.manual_seed(0)
        module = FactorizationMachine(400, 20, 1, ModelConfig.parse({"preset": preset})).eval()
        ids = torch.arange(20) * 20 + torch.randint(0, 20, (500, 20))
        return float(module(Batch(ids.int())).detach().std())  # w is 0

    assert spread("nested") == pytest.approx(0.1, rel=0.2)
    assert spread("paper") == pytest.approx(spread("nested"), rel=0.2)


def test_p_begins_at_one_or_where_weights_add_up_to_one_at_their_number() -> None:
    pairs = FIELDS * (FIELDS - 1) / 2

    def first(preset: str, **settings: object) -> list[float]:
        return build(preset, **settings).projection.flatten().tolist()

    for preset in ("nested", "fwfm", "fm"):
        assert first(preset) == [1.0] * 5
    assert first("paper") == [pairs, -pairs, pairs, -pairs, pairs]
    assert first("paper", scale="pairs") == [1.0, -1.0, 1.0, -1.0, 1.0]  # without gates one sign alone is no start
    assert first("nested", scale="one") == [pairs] * 5
    assert first("paper", learned_projection=False) == [1.0] * 5  # nothing of it is learned: it stays at 1
    assert max(map(abs, first("paper", projection_std=0.01))) < 0.1
    drawn, larger = build("nested", outputs=3).projection, build("paper", outputs=3).projection
    assert torch.allclose(larger, pairs * drawn)


def test_presets_learn_what_they_say_and_nothing_else() -> None:
    def learned(preset: str, outputs: int = 1) -> set[str]:
        return {name for name, p in build(preset, outputs).named_parameters() if p.requires_grad}

    common = {"intercept", "linear.weight"}
    attention = {"embedding.weight", "attention.W", "attention.b", "attention.h", "projection"}
    assert learned("linear") == common
    assert learned("fm") == common | {"embedding.weight"}
    assert learned("fwfm") == common | {"embedding.weight", "attention.pair_gate"}
    assert learned("paper") == common | attention
    assert learned("nested") == common | attention | {"attention.pair_gate", "attention.pair_bias"}
    # Equal projections of all classes would cancel in the softmax.
    assert "projection" in learned("fm", 3)


def test_values_multiply_embedding_and_weight() -> None:
    module, rows = build("nested"), draw_rows()
    scaled = Batch(rows.ids, torch.full(rows.ids.shape, 2.0))
    doubled = build("nested")
    with torch.no_grad():
        doubled.embedding.weight.mul_(2)
        doubled.linear.weight.mul_(2)
    torch.testing.assert_close(module(scaled), doubled(rows), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(module(scaled), module(rows))


def test_a_bag_is_the_weighted_sum_of_its_features() -> None:
    module = build("fwfm")
    rows = with_bag([[0, 1], [3, 4], [9, 9]], [7, 8, 8], [0.5, 2.0, 1.0], [2, 1])
    v = module.embedding.weight
    vectors = [[v[0], v[3], 0.5 * v[7] + 2 * v[8], v[9]], [v[1], v[4], v[8], v[9]]]
    torch.testing.assert_close(
        module.embedding(rows), torch.stack([torch.stack(row) for row in vectors]), rtol=1e-12, atol=1e-12
    )
    # One feature of weight 1 in the bag is the same as that feature in a single-valued field.
    single = Batch(torch.tensor([[1, 4, 8, 9]], dtype=torch.int32))
    torch.testing.assert_close(module(rows)[1:], module(single), rtol=1e-12, atol=1e-12)


def test_rows_taken_in_another_order_score_the_same_with_bags() -> None:
    module = build("nested")
    rows = with_bag([[0, 1, 2], [3, 4, 5], [9, 9, 10]], [6, 7, 8, 8], None, [1, 0, 3])
    order = torch.tensor([2, 0, 1, 2])
    torch.testing.assert_close(module(rows.take(order)), module(rows)[order], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(module.predict(rows.slice(1, 3)), module(rows)[1:3], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("place", ["pair_dropout", "weight_dropout", "pooled_dropout"])
def test_dropout_acts_in_training_only(place: str) -> None:
    settings = {"pair_dropout": 0.0, "weight_dropout": 0.0, "pooled_dropout": 0.0, place: 0.5}
    module, rows = build("nested", **settings), draw_rows()
    torch.testing.assert_close(module(rows), module(rows))
    module.train()
    assert not torch.allclose(module(rows), module(rows))


def test_one_field_has_no_pairs_and_is_linear() -> None:
    module = FactorizationMachine(3, 1, 1, ModelConfig.parse({})).double()
    assert not module.has_pairs
    torch.nn.init.normal_(module.linear.weight)
    torch.testing.assert_close(
        module(Batch(torch.tensor([[2]], dtype=torch.int32))), module.intercept + module.linear.weight[2:]
    )


def test_no_rows_give_no_predictions() -> None:
    assert build("nested", 3).predict(Batch(torch.empty(0, FIELDS, dtype=torch.int32))).shape == (0, 3)
