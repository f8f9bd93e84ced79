"""From raw columns to a model: which rows are seen by what, and what the weights do."""

import numpy as np
import pyarrow as pa
import pytest

from attfm.config import Config
from attfm.data.dataset import Dataset, Examples, InMemoryDataset
from attfm.data.inference import infer_schema
from attfm.data.sources.source import open_source
from attfm.data.split import Split
from attfm.errors import ConfigError, TargetError
from attfm.explain.summary import Summary
from attfm.model.calibration import Calibration
from attfm.train.fit import Fitted, fit, measure
from attfm.train.prepare import LabelledTable, Tables
from attfm.train.trainer import choose_batch_size


def run(
    table: pa.Table, labels: list[object], weight: object = None, split: Split | None = None, **settings: object
) -> Fitted:
    config = Config.parse(settings or {"train": {"epochs": 2, "n_seeds": 1}})
    source = open_source(table)
    schema = infer_schema(source.batches(), source.schema, target=None, config=config.data)
    labelled = LabelledTable(source, pa.chunked_array([pa.array(labels)]), None if weight is None else np.array(weight))
    return fit(Tables(labelled, schema, split=split or Split()), config)


def examples(rows: Dataset | None) -> Examples:
    assert rows is not None
    (part,) = rows.ordered()
    return part


def letters(rows: int) -> pa.Table:
    return pa.table({"letter": [f"v{i}" for i in range(rows)], "n": np.arange(rows, dtype=float)})


def test_the_encoder_sees_training_rows_only() -> None:
    train_rows = np.arange(0, 100, 2)
    fitted = run(letters(100), [0, 1, 1, 0] * 25, split=Split(train_rows, np.arange(1, 100, 2)))
    names = fitted.model.encoder.feature_names(0)
    assert set(names[2:]) == {f"v{i}" for i in train_rows}
    valid = examples(fitted.prepared.data.valid)
    assert (valid.rows.ids[:, 0] == fitted.model.encoder.fields[0].start).all()  # all unknown
    assert examples(fitted.prepared.data.train).target.tolist() == [0, 1] * 25
    assert len(valid) == 50


def test_all_rows_but_the_validation_rows_are_trained_on() -> None:
    data = run(letters(100), [0, 1] * 50, split=Split(valid=np.arange(10))).prepared.data
    assert (len(data.train), len(data.valid or ())) == (90, 10)
    parts = run(letters(100), [0, 1] * 50, split=Split(valid=np.arange(10), test=np.arange(10, 30))).prepared
    assert (len(parts.data.train), len(parts.test or ())) == (70, 20)


def test_few_rows_are_all_trained_on() -> None:
    data = run(letters(40), [0, 1] * 20).prepared.data
    assert (len(data.train), data.valid) == (40, None)


def test_in_a_small_table_a_weight_of_two_is_two_rows_to_the_last_bit() -> None:
    labels = [0, 1, 1, 0] * 5
    weight = np.arange(20) % 3
    repeated = np.repeat(np.arange(20), weight)
    table = letters(20).select(["n"])  # the order of a vocabulary follows the counts of rows, that of bins does not
    first = run(table, labels, weight)
    second = run(table.take(repeated), [labels[i] for i in repeated])
    np.testing.assert_array_equal(first.model.logits(table), second.model.logits(table))


def test_class_weights_enter_training_validation_and_metrics() -> None:
    labels = [0] * 75 + [1] * 25
    fitted = run(letters(100), labels, train={"epochs": 2, "class_weight": "balanced"})
    data, module = fitted.prepared.data, fitted.model.module
    valid = examples(data.valid)
    for part in (examples(data.train), valid):
        assert set(np.round(part.weight.numpy(), 5)) == {np.float32(0.66667), np.float32(2.0)}
    plain = InMemoryDataset(Examples(valid.rows, valid.target, valid.weight * 0 + 1))
    losses = [measure(module, part, data.task, threshold=0.5)["log_loss"] for part in (InMemoryDataset(valid), plain)]
    assert losses[0] != pytest.approx(losses[1])
    assert fitted.model.facts.class_weights == pytest.approx([2 / 3, 2])


def test_a_class_without_training_rows_and_weights_of_zero_are_named() -> None:
    labels = ["a", "b"] * 49 + ["c", "c"]
    with pytest.raises(TargetError, match="no training row has the class 'c'"):
        run(letters(100), labels, split=Split(valid=np.array([98, 99])))
    with pytest.raises(TargetError, match="weights of the training rows are zero"):
        run(letters(20), [0, 1] * 10, np.zeros(20))
    with pytest.raises(TargetError, match=r"sample_weight has the shape \(19,\), expected \(20,\)"):
        run(letters(20), [0, 1] * 10, np.ones(19))
    with pytest.raises(ConfigError, match="'class_weight' is for classification"):
        run(letters(20), [float(i) for i in range(20)], train={"class_weight": "balanced", "task": "regression"})


@pytest.mark.parametrize(("rows", "size"), [(1, 16), (600, 16), (20_000, 512), (10**6, 1024)])
def test_the_batch_grows_with_the_table(rows: int, size: int) -> None:
    assert choose_batch_size("auto", rows) == size
    assert choose_batch_size(7, rows) == 7


def test_a_value_that_no_training_row_has_adds_nothing_in_a_multi_valued_field_too() -> None:
    lists = pa.table({"langs": pa.array([["de", "en"][: 1 + i % 2] for i in range(60)]), "n": np.arange(60.0) % 7})
    module = (model := run(lists, [0, 1] * 30).model).module
    unknown, known = model.encoder.fields[0].start, model.encoder.fields[0].start + 2
    assert module.embedding.weight[unknown].abs().max() == 0
    assert module.embedding.weight[known].abs().min() > 0


def noisy(rows: int = 400) -> tuple[pa.Table, list[int]]:
    """Return a table whose letters tell the classes apart, and labels of which a fifth are wrong."""
    rng = np.random.default_rng(0)
    letter, flipped = rng.integers(0, 8, rows), rng.random(rows) < 0.2
    return pa.table({"letter": [f"v{i}" for i in letter], "n": rng.normal(0, 1, rows)}), (
        (letter > 3) ^ flipped
    ).tolist()


SHARP = {"epochs": 6, "learning_rate": 0.1, "embedding_decay": 0.0, "linear_decay": 0.0, "smoothness": 0.0}


def test_a_calibration_is_fitted_to_the_weighted_validation_rows_and_measured_with() -> None:
    table, labels = noisy()
    weight = np.random.default_rng(1).random(400) + 0.1
    split = Split(np.arange(200), np.arange(200, 300), np.arange(300, 400))
    config = {**SHARP, "class_weight": {"True": 3.0}, "n_bags": 2}
    plain, made = (
        run(table, labels, weight, split, train={**config, **more})
        for more in ({"calibrate": "none"}, {"calibrate": "sigmoid"})
    )
    valid = examples(plain.prepared.data.valid)
    logits = plain.model.logits_of(valid.rows)
    expected = Calibration.fit("sigmoid", plain.model.task, logits, valid.target.numpy(), valid.weight.numpy())
    found = made.model.calibration
    assert (found.kind, found.rows, found.curves) == (expected.kind, expected.rows, expected.curves)
    # Fitted to the logits of the kernels, which a model that scores by lookup adds up in another order.
    np.testing.assert_allclose([found.slope, found.offset], [expected.slope, expected.offset], rtol=1e-5)
    assert expected != Calibration.fit("sigmoid", plain.model.task, logits, valid.target.numpy())
    assert made.model.facts.calibration == str(expected)
    np.testing.assert_allclose(
        made.model.logits(table), expected.slope[0] * plain.model.logits(table) + expected.offset[0], rtol=0, atol=1e-5
    )
    # What is stored of the training rows is calibrated too, that of the refits as well.
    before, after = (Summary.from_arrays(fitted.model.background) for fitted in (plain, made))
    np.testing.assert_allclose(after.field_importance, expected.slope[0] * before.field_importance, rtol=1e-4)
    for old, new in zip(before.refits, after.refits, strict=True):
        np.testing.assert_allclose(new.field_importance, expected.slope[0] * old.field_importance, rtol=1e-4)


def test_by_itself_a_temperature_is_taken_where_it_helps() -> None:
    table, labels = noisy()
    split = Split(np.arange(200), np.arange(200, 300), np.arange(300, 400))
    plain, made = (run(table, labels, split=split, train={**SHARP, "epochs": 30, "early_stopping": False, **more})
                   for more in ({}, {"calibrate": "auto"}))  # fmt: skip
    assert (plain.model.calibration.kind, made.model.calibration.kind) == ("none", "temperature")
    assert abs(made.model.calibration.slope[0] - 1) > 0.1
    losses = [measure(one.model.module, InMemoryDataset(examples(one.prepared.test)), one.model.task, threshold=0.5)
              for one in (plain, made)]  # fmt: skip
    assert losses[1]["log_loss"] < losses[0]["log_loss"]
    assert losses[1]["accuracy"] == losses[0]["accuracy"]


def test_what_is_measured_after_training_is_calibrated() -> None:
    table, labels = noisy()
    config = Config.parse({"train": {**SHARP, "calibrate": "isotonic"}})
    source = open_source(table)
    schema = infer_schema(source.batches(), source.schema, target=None, config=config.data)
    labelled = LabelledTable(source, pa.chunked_array([pa.array(labels)]))
    split = Split(np.arange(200), np.arange(200, 300), np.arange(300, 400))
    model = fit(Tables(labelled, schema, split=split), config, measured=True).model
    shares = model.predict_proba(table.slice(300))
    loss = -np.log(shares[np.arange(100), np.array(labels[300:]).astype(int)]).mean()
    assert model.metrics["test"]["log_loss"] == pytest.approx(loss)


@pytest.mark.parametrize(
    ("labels", "split", "message"),
    [
        (
            [0, 1] * 20,
            None,
            "'calibrate' is 'temperature', but there are no validation rows",
        ),  # too few to hold some out
        ([0, 1] * 50, Split(np.arange(50), np.arange(50, 100, 2)), "all validation rows are of the class '0'"),
        ([1.5 * n for n in range(100)], None, "'calibrate' is 'temperature', but a regression has no probabilities"),
    ],
)
def test_what_can_not_be_calibrated_is_told_before_training(
    labels: list[object], split: Split | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("it was trained")

    monkeypatch.setattr("attfm.train.fit.train", fail)
    with pytest.raises(ConfigError, match=message):
        run(letters(len(labels)), labels, split=split, train={"calibrate": "temperature"})
