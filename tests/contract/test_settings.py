"""Every setting of a run survives loading, clone, get_params, set_params and a refit."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.base import clone

from attfm import AFMClassifier, AFMRegressor, load
from attfm.cli import main
from attfm.config import Config, DataConfig, ModelConfig, TrainConfig
from attfm.data.inference import infer_schema
from attfm.data.sources.source import open_source
from attfm.model.run_folder import load_model, save_model
from attfm.train.fit import fit
from attfm.train.prepare import LabelledTable, Tables
from tests.shop import FAST, write_shop

SECTIONS = {"data": DataConfig, "model": ModelConfig, "train": TrainConfig}
# For each setting a value that is not its default.
OTHER: dict[str, dict[str, Any]] = {
    "data": {"numeric": "uniform", "max_bins": 7, "min_count": 2, "columns": {"town": {"kind": "categorical"}}},
    "model": {
        "preset": "paper",
        "dim": 3,
        "attention_dim": 5,
        "pairs": False,
        "attention": False,
        "scale": "one",
        "pair_gate": False,
        "pair_bias": False,
        "learned_projection": False,
        "pair_dropout": 0.1,
        "weight_dropout": 0.2,
        "pooled_dropout": 0.1,
        "embedding_std": 0.03,
        "attention_std": 0.2,
        "projection_std": 0.2,
        "memory_pairs": 2,
        "memory_min_count": 2,
        "memory_entries": 9,
    },
    "train": {
        "task": "multiclass",
        "epochs": 2,
        "batch_size": 32,
        "optimizer": "adagrad",
        "learning_rate": 0.02,
        "falling_rate": True,
        "embedding_decay": 1.0,
        "linear_decay": 0.2,
        "embedding_ridge": 4.0,
        "linear_ridge": 1.0,
        "memory_ridge": 5.0,
        "statistic_smoothness": 7.0,
        "adam_eps": 1e-6,
        "rates": False,
        "rate_levels": 2,
        "attention_l2": 0.1,
        "smoothness": 3.0,
        "knots": 5,
        "smoothness_by_field": False,
        "additive_start": False,
        "base_rate_start": False,
        "split": "group:job",
        "validation_fraction": 0.3,
        "averaging": 0.0,
        "refit": False,
        "early_stopping": False,
        "patience": 2,
        "warm_start_from": "fm",
        "negative_rate": 0.6,
        "class_weight": "balanced",
        "n_models": 2,
        "n_seeds": 2,
        "n_bags": 1,
        "threshold": 0.9,
        "calibrate": "sigmoid",
        "seed": 5,
        "device": "cpu",
        "backend": "reference",
    },
}
ONE_BY_ONE = [(section, name, value) for section, values in OTHER.items() for name, value in values.items()]
# One model, where "auto" would train eight of so few rows: that "auto" survives a run of the command shows.
QUICK = {"model": {"dim": 2, "attention_dim": 2}, "train": {"epochs": 1, "n_models": 1}}


def table() -> tuple[pa.Table, np.ndarray[Any, Any]]:
    """Return a table of a string and two numbers, and its labels."""
    rng = np.random.default_rng(3)
    age, job, town = rng.integers(20, 70, 80), rng.choice(["cook", "pilot"], 80), rng.integers(0, 3, 80)
    label = np.where(age + 20 * (job == "pilot") + rng.normal(0, 9, 80) > 55, "yes", "no")
    return pa.table({"age": age, "job": job, "town": town}), label


def run_of(config: Config, folder: Path) -> None:
    """Train with these settings and save the run."""
    X, y = table()
    source = open_source(X)
    schema = infer_schema(source.batches(), source.schema, target=None, config=config.data)
    labelled = LabelledTable(source, pa.chunked_array([pa.array(y)]))
    save_model(fit(Tables(labelled, schema), config).model, folder)


def settings(config: Config) -> dict[str, Any]:
    """Return the settings as they were asked for, without the task: an estimator knows which of them "auto" is."""
    values = config.model_dump()
    del values["train"]["task"]
    return values


def with_settings(section: str, values: dict[str, Any]) -> Config:
    return Config.parse({**QUICK, section: {**QUICK.get(section, {}), **values}})


def assert_survives(config: Config, folder: Path) -> None:
    run_of(config, folder)
    run = load_model(folder)
    assert run.config == config
    loaded = load(folder)
    again = clone(loaded)
    assert again.get_params() == loaded.get_params()
    other = type(again)().set_params(**again.get_params())
    assert other.get_params() == again.get_params()
    fitted = other.fit(*table()).model_
    assert settings(fitted.config) == settings(config)
    assert fitted.task.name == run.task.name
    np.testing.assert_array_equal(fitted.predict_proba(table()[0]), run.predict_proba(table()[0]))
    with_new_seed = clone(loaded).set_params(random_state=99)._config(2)
    assert settings(with_new_seed)["train"] == {**settings(config)["train"], "seed": 99}


@pytest.mark.parametrize(("section", "name", "value"), ONE_BY_ONE, ids=[name for _, name, _ in ONE_BY_ONE])
def test_a_setting_survives(section: str, name: str, value: object, tmp_path: Path) -> None:
    config = with_settings(section, {name: value})
    assert getattr(getattr(config, section), name) == value
    assert_survives(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("model", {"attention": False, "embedding_std": 0.03, "pair_gate": False}),
        ("model", {"preset": "fm", "pair_gate": True}),
        ("model", {"preset": "paper", "learned_projection": False, "scale": "pairs"}),
        ("model", {"preset": "linear"}),
        ("model", {"embedding_std": 0.0, "attention_std": None}),
        ("train", {"class_weight": {"yes": 3.0}}),
        ("train", {"batch_size": 80, "early_stopping": False, "threshold": 0.01, "averaging": 0.5}),
        ("data", {"columns": {"age": {"kind": "numeric", "bins": "uniform", "max_bins": 4}}, "max_bins": 9}),
    ],
)
def test_settings_survive_together(section: str, values: dict[str, Any], tmp_path: Path) -> None:
    assert_survives(with_settings(section, values), tmp_path / "run")


def test_every_setting_is_tried_with_another_value_than_its_default() -> None:
    for section, kind in SECTIONS.items():
        assert OTHER[section].keys() == kind.model_fields.keys()
        for name, value in OTHER[section].items():
            assert value != getattr(kind(), name), name


@pytest.mark.parametrize("kind", [AFMClassifier, AFMRegressor])
def test_every_setting_is_a_parameter(kind: type) -> None:
    named = {"random_state" if name == "seed" else name for of in SECTIONS.values() for name in of.model_fields}
    assert set(inspect.signature(kind).parameters) == named | {"verbose"}


def test_a_run_of_the_command_is_refitted_with_its_settings(tmp_path: Path) -> None:
    shop, run = write_shop(tmp_path / "shop.csv"), str(tmp_path / "run")
    given = ["attention=false", "threshold=0.9", "embedding_std=0.03", "base_rate_start=false", "pair_gate=false"]
    options = [part for one in given for part in ("--set", one)]
    assert main(["train", shop, "--target", "bought", "--out", run, "--no-report", *FAST, *options]) == 0
    config = load_model(run).config
    assert (config.model.attention, config.model.pair_gate, config.train.base_rate_start) == (False, False, False)
    rows = pa.Table.from_batches(list(open_source(shop).batches()))
    fitted = clone(load(run)).fit(rows.drop_columns(["bought"]), rows["bought"].to_pylist()).model_
    assert settings(fitted.config) == settings(config)
    assert fitted.module.attention.W is None
    assert fitted.module.attention.pair_gate is None
