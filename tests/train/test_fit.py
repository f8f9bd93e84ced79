"""From raw columns to a model: which rows are seen by what, and what the weights do."""

import numpy as np
import pyarrow as pa
import pytest

from attfm.config import Config
from attfm.data.inference import infer_schema
from attfm.data.sources.source import open_source
from attfm.errors import ConfigError, TargetError
from attfm.train.fit import Fitted, LabelledTable, fit, measure
from attfm.train.refit import choose_batch_size


def run(table: pa.Table, labels: list[object], weight: object = None, **options: object) -> Fitted:
    config = Config.parse(options.pop("config", {"train": {"epochs": 2}}))  # type: ignore[arg-type]
    source = open_source(table)
    schema = infer_schema(source.batches(), source.schema, target=None, config=config.data)
    labelled = LabelledTable(source, pa.chunked_array([pa.array(labels)]), None if weight is None else np.array(weight))
    return fit(labelled, schema=schema, config=config, **options)  # type: ignore[arg-type]


def letters(rows: int) -> pa.Table:
    return pa.table({"letter": [f"v{i}" for i in range(rows)], "n": np.arange(rows, dtype=float)})


def test_the_encoder_sees_training_rows_only() -> None:
    train_rows = np.arange(0, 100, 2)
    fitted = run(letters(100), [0, 1, 1, 0] * 25, train_rows=train_rows, valid_rows=np.arange(1, 100, 2))
    names = fitted.model.encoder.feature_names(0)
    assert set(names[2:]) == {f"v{i}" for i in train_rows}
    assert fitted.valid is not None
    assert (fitted.valid.rows.ids[:, 0] == fitted.model.encoder.fields[0].start).all()  # all unknown
    assert fitted.train.target.tolist() == [0, 1] * 25
    assert len(fitted.valid) == 50


def test_all_rows_but_the_validation_rows_are_trained_on() -> None:
    fitted = run(letters(100), [0, 1] * 50, valid_rows=np.arange(10))
    assert (len(fitted.train), len(fitted.valid or ())) == (90, 10)


def test_few_rows_are_all_trained_on() -> None:
    fitted = run(letters(40), [0, 1] * 20)
    assert (len(fitted.train), fitted.valid) == (40, None)


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
    fitted = run(letters(100), labels, config={"train": {"epochs": 2, "class_weight": "balanced"}})
    for part in (fitted.train, fitted.valid):
        assert part is not None
        assert set(np.round(part.weight.numpy(), 5)) == {np.float32(0.66667), np.float32(2.0)}
    assert fitted.valid is not None
    plain = fitted.valid.__class__(fitted.valid.rows, fitted.valid.target, fitted.valid.weight * 0 + 1)
    assert measure(fitted.model, fitted.valid)["log_loss"] != pytest.approx(measure(fitted.model, plain)["log_loss"])


def test_a_class_without_training_rows_and_weights_of_zero_are_named() -> None:
    labels = ["a", "b"] * 49 + ["c", "c"]
    with pytest.raises(TargetError, match="no training row has the class 'c'"):
        run(letters(100), labels, valid_rows=np.array([98, 99]))
    with pytest.raises(TargetError, match="weights of the training rows are zero"):
        run(letters(20), [0, 1] * 10, np.zeros(20))
    with pytest.raises(TargetError, match=r"sample_weight has the shape \(19,\), expected \(20,\)"):
        run(letters(20), [0, 1] * 10, np.ones(19))
    with pytest.raises(ConfigError, match="'class_weight' is for classification"):
        run(
            letters(20),
            [float(i) for i in range(20)],
            config={"train": {"class_weight": "balanced", "task": "regression"}},
        )


@pytest.mark.parametrize(("rows", "size"), [(1, 16), (600, 16), (20_000, 512), (10**6, 1024)])
def test_the_batch_grows_with_the_table(rows: int, size: int) -> None:
    assert choose_batch_size("auto", rows) == size
    assert choose_batch_size(7, rows) == 7
