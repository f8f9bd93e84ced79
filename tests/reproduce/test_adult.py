"""`attfm reproduce adult`: the protocol's figures, its three rows, and what it leaves."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from attfm.cli import main
from attfm.commands.reproduce import _table
from attfm.config import Config, ModelConfig
from attfm.data.batch import Batch
from attfm.data.datasets import adult_split, load_dataset
from attfm.data.encoder import Encoder
from attfm.data.inference import infer_schema
from attfm.model.modules import FactorizationMachine
from attfm.model.run_folder import load_model
from attfm.reproduce.adult import adult_variants, figures


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The JSON of one short run."""
    out = tmp_path_factory.mktemp("reproduce") / "adult"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["reproduce", "adult", "--epochs", "1", "--out", str(out), "--json", "--quiet"]) == 0
    values: dict = json.loads(printed.getvalue())
    return values


def test_the_encoded_table_is_the_write_ups(result: dict) -> None:
    assert (result["features"], result["fields"], round(result["sparsity"], 4)) == (157, 14, 0.9108)


def test_all_three_rows_are_measured_on_the_same_rows(result: dict) -> None:
    assert [row["name"] for row in result["rows"]] == ["as published", "as meant", "attfm defaults"]
    table = load_dataset("adult")
    test = table.take(adult_split(table["income"].to_numpy())[2])
    label = np.array(test["income"].to_pylist()) == ">50K"
    for row in result["rows"]:
        assert set(row["metrics"]) == {"valid", "test"}
        assert row["epochs"] == 1
        assert row["seconds"] > 0
        decided = load_model(row["run"]).predict_proba(test)[:, 1] > 0.5
        assert row["metrics"]["test"]["accuracy"] == pytest.approx((decided == label).mean(), abs=1e-3)


def test_the_write_up_stands_beside(result: dict) -> None:
    assert result["write_up"]["test"] == {"accuracy": 0.822, "auc": 0.871, "precision": 0.73, "recall": 0.417}


def test_each_row_leaves_a_run_with_settings_curve_and_scores(result: dict) -> None:
    for row in result["rows"]:
        folder = Path(row["run"])
        (epoch,) = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        assert epoch["valid_auc"] == pytest.approx(row["metrics"]["valid"]["auc"], abs=1e-4)
        assert epoch["valid_accuracy"] == pytest.approx(row["metrics"]["valid"]["accuracy"], abs=1e-4)
        assert json.loads((folder / "metrics.json").read_text()) == row["metrics"]
    settings = load_model(result["rows"][0]["run"]).config
    assert settings.model.attention is False
    assert settings.train.optimizer == "sgd"


def test_the_protocol_is_that_of_the_write_up() -> None:
    published, meant, defaults = (variant.config for variant in adult_variants())
    model, train = meant.model, meant.train
    assert (model.dim, model.attention_dim, model.pair_dropout) == (16, 150, 0.2)
    assert (model.embedding_std, model.attention_std, model.projection_std) == (0.01, 0.1, 0.1)
    assert (train.optimizer, train.learning_rate, train.batch_size, train.epochs) == ("sgd", 0.01, 1024, 100)
    assert not train.early_stopping
    assert train.embedding_decay == train.linear_decay == train.attention_l2 == train.smoothness == 0
    assert (meant.data.numeric, meant.data.max_bins) == ("uniform", 10)
    assert published == meant.model_copy(update={"model": model.model_copy(update={"attention": False})})
    assert defaults == Config()
    assert [v.config.train.epochs for v in adult_variants(epochs=3)] == [3, 3, 3]
    assert {v.config.train.seed for v in adult_variants(seed=8)} == {8}


def test_constant_attention_is_what_a_softmax_over_one_number_gives() -> None:
    published = adult_variants()[0].config.model
    torch.manual_seed(0)
    module = FactorizationMachine(30, 5, 1, published).eval()
    with torch.no_grad():
        module.embedding.weight.normal_()
    rows = Batch(torch.randint(0, 30, (7, 5), dtype=torch.int32))
    v = module.embedding(rows)
    q = torch.stack([v[:, i] * v[:, j] for i in range(5) for j in range(i + 1, 5)], 1)
    scores = torch.randn(7, 10, 1)  # whatever the attention network says
    weights = torch.softmax(scores, dim=-1)  # over an axis of size one, as the write-up has it
    expected = module.intercept + module.linear(rows).sum(1) + (weights * q).sum(1) @ module.projection
    torch.testing.assert_close(module(rows), expected)
    other = FactorizationMachine(30, 5, 1, ModelConfig(preset="paper", dim=16, attention_std=1)).eval()
    other.load_state_dict(module.state_dict(), strict=False)
    assert not torch.allclose(other(rows), expected)


def test_unbinned_numbers_are_one_feature_each() -> None:
    config = adult_variants(numeric="scaled")[0].config.data
    assert config.numeric == "scaled"
    table = load_dataset("adult")
    schema = infer_schema(table.to_batches(), table.schema, target="income", config=config)
    encoder = Encoder.fit(schema, table.to_batches())
    rows = Batch.concatenate([encoder.transform(columns) for columns in table.to_batches()])
    size = figures([rows])
    assert (size.features, size.fields) == (102 + 6, 14)
    assert rows.values is not None
    assert size.sparsity == pytest.approx(1 - np.count_nonzero(rows.values.numpy()) / (len(rows) * 108))
    assert size.sparsity > 1 - 14 / 108  # smallest values are 0


def test_figures_count_features_that_occur_in_any_part() -> None:
    def part(ids: list[list[int]]) -> Batch:
        return Batch(torch.tensor(ids, dtype=torch.int32))

    size = figures([part([[0, 5], [1, 5]]), part([[0, 9]])])
    assert (size.features, size.fields, size.sparsity) == (4, 2, 0.5)


def test_the_table_ends_with_the_write_up() -> None:
    header, lines = _table([])
    assert header == [
        "model", "part", "accuracy", "auc", "precision", "recall", "log loss", "epochs", "seconds"
    ]  # fmt: skip
    assert lines == [["the write-up itself", "test", "0.822", "0.871", "0.730", "0.417", "-", "100", "260.0"]]
