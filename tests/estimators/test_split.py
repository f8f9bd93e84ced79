"""`split=` of the estimators: which rows are held out where no eval_set is given."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from attfm import (
    AFMClassifier,
    AFMRegressor,
    ConfigError,
    DataError,
    GroupSplit,
    SchemaError,
    TargetError,
    TimeSplit,
    load,
)
from attfm.estimators import base
from attfm.train.fit import Fitted, fit
from attfm.train.prepare import Prepared

RNG = np.random.default_rng(1)
ROWS = 240
DAYS = RNG.integers(0, 80, ROWS)
COLUMNS: dict[str, Any] = {
    "job": RNG.choice(["cook", "pilot"], ROWS).tolist(),
    "place": RNG.normal(size=ROWS).tolist(),
    "date": (np.datetime64("2024-01-01") + DAYS).astype("datetime64[s]").tolist(),
    "user": [f"user {i}" for i in DAYS % 17],
}
Y = np.where((np.array(COLUMNS["job"]) == "cook") ^ (RNG.random(ROWS) < 0.1), "yes", "no")
IGNORED = {"date": {"kind": "ignored"}, "user": {"kind": "ignored"}}


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[Prepared]:
    """Return the list to which what each fit prepared is added."""
    seen = list[Prepared]()

    def watched(*arguments: Any, **options: Any) -> Fitted:
        fitted = fit(*arguments, **options)
        seen.append(fitted.prepared)
        return fitted

    monkeypatch.setattr(base, "fit", watched)
    return seen


@pytest.mark.parametrize("split", [TimeSplit("date"), "time:date"])
def test_the_latest_rows_are_held_out(
    split: Any, prepared: list[Prepared], frame: Callable[[Mapping[str, Any]], Any]
) -> None:
    model = AFMClassifier(epochs=2, split=split, validation_fraction=0.2).fit(frame(COLUMNS), Y)
    assert model.split is split
    times = prepared[0].data.grouping.times
    assert times is not None
    held = len(prepared[0].data.valid or ())
    assert held == pytest.approx(48, abs=4)
    assert len(times) == len(prepared[0].data.train) == ROWS - held
    # The times of the rows that are trained on are the earliest ones, each with its whole day.
    assert np.unique(times, return_counts=True)[1].tolist() == [
        int((day == DAYS).sum()) for day in np.unique(np.sort(DAYS)[: ROWS - held])
    ]
    assert "date.month" in [field.name for field in model.model_.encoder.fields]
    assert prepared[0].data.grouping.folds(len(times), 5, 0).ordered


def test_whole_groups_are_held_out(prepared: list[Prepared], frame: Callable[[Mapping[str, Any]], Any]) -> None:
    model = AFMClassifier(epochs=2, split=GroupSplit("user"), columns=IGNORED, random_state=3).fit(frame(COLUMNS), Y)
    groups = prepared[0].data.grouping.groups
    assert groups is not None
    counts = np.bincount(groups, minlength=17)
    first_met = list(dict.fromkeys(COLUMNS["user"]))
    for group, count in enumerate(counts):
        assert count in (0, COLUMNS["user"].count(first_met[group]))
    assert 0 < (counts == 0).sum() < 5
    only = {name: COLUMNS[name] for name in ("job", "place")}
    np.testing.assert_array_equal(model.predict(frame(only)), model.predict(frame(COLUMNS)))


def test_training_rows_and_their_times_are_the_same_rows(prepared: list[Prepared]) -> None:
    order = np.random.default_rng(2).permutation(60).astype(float)
    X = pd.DataFrame({"t": order, "x": order})
    columns = {"x": {"kind": "numeric", "bins": "scaled"}}
    AFMRegressor(epochs=1, split="time:t", columns=columns).fit(X, order)
    data = prepared[0].data
    np.testing.assert_array_equal(data.grouping.times, next(iter(data.train.ordered())).target.numpy())
    assert data.valid is not None
    assert next(iter(data.valid.ordered())).target.min() > data.grouping.times.max()


def test_an_eval_set_stops_and_folds_are_in_order_all_the_same(prepared: list[Prepared]) -> None:
    X = pd.DataFrame(COLUMNS)
    AFMClassifier(epochs=2, split="time:date").fit(X, Y, eval_set=(X.head(50), Y[:50]))
    assert len(prepared[0].data.train) == ROWS
    assert prepared[0].data.grouping.folds(ROWS, 4, 0).ordered


def test_columns_of_an_array_are_split_by_their_names() -> None:
    X = np.stack([DAYS, RNG.normal(size=ROWS)], axis=1)
    model = AFMClassifier(epochs=2, split=TimeSplit("x0")).fit(X, Y)
    held = model.model_.facts.validation_rows
    assert held == pytest.approx(24, abs=3)
    with pytest.raises(SchemaError, match=r"There is no split column 'x2' in .*Its columns: 'x0', 'x1'"):
        clone(model).set_params(split=TimeSplit("x2")).fit(X, Y)


def test_few_rows_are_left_whole_and_keep_their_groups(prepared: list[Prepared]) -> None:
    X = pd.DataFrame(COLUMNS)[["job", "user"]].head(40)
    AFMClassifier(epochs=2, split="group:user").fit(X, Y[:40])
    assert (prepared[0].training_rows, prepared[0].data.valid) == (40, None)
    groups, train = prepared[0].data.grouping.groups, prepared[0].data.train  # equal rows are one
    assert groups is not None
    field = [field.name for field in prepared[0].encoder.fields].index("user")
    users = train.sample(len(train)).ids[:, field].numpy()
    assert len(groups) == len(train)
    assert len(np.unique(np.stack([groups, users]), axis=1).T) == len(np.unique(users)) == len(np.unique(groups))


def test_refits_with_other_seeds_hold_out_the_same_rows() -> None:
    X = pd.DataFrame(COLUMNS)
    model = AFMClassifier(epochs=3, split=GroupSplit("user")).fit(X, Y)
    found = model.check_explanations(X, seeds=1, refit_on=(X, Y))
    assert found.seeds is not None
    assert found.seeds.refits == 1


def test_weights_count_as_repeated_rows_in_small_tables() -> None:
    X, y = pd.DataFrame({"x": RNG.normal(size=20), "shop": np.arange(20) % 6}), Y[:20]
    times = 1 + np.arange(20) % 3
    weighted = AFMClassifier(epochs=3, split="group:shop").fit(X, y, sample_weight=times)
    again = X.index.repeat(times)
    repeated = AFMClassifier(epochs=3, split="group:shop").fit(X.loc[again], y[again])
    np.testing.assert_allclose(repeated.decision_function(X), weighted.decision_function(X), atol=1e-6)


@pytest.mark.parametrize("split", [TimeSplit("date"), GroupSplit("user"), "time:date", None])
def test_the_parameter_is_stored_as_it_is(split: Any, tmp_path: Path) -> None:
    model = AFMClassifier(split=split, epochs=2)
    assert model.get_params()["split"] is split
    again = clone(model)
    assert again.split == split
    assert type(again.split) is type(split)
    assert AFMClassifier().set_params(split=split).split is split
    assert pickle.loads(pickle.dumps(model)).split == split
    X = pd.DataFrame(COLUMNS)
    model.fit(X, Y)
    assert model.split is split
    loaded = load(model.save(tmp_path / "run"))
    assert loaded.split == (None if split is None else str(split))
    np.testing.assert_array_equal(clone(loaded).fit(X, Y).decision_function(X), model.decision_function(X))
    card = (tmp_path / "run" / "README.md").read_text()
    assert ("- rows are held out by" in card) == (split is not None)
    assert (str(split) in card) or split is None


def test_splits_may_be_searched() -> None:
    X = pd.DataFrame(COLUMNS)
    grid = GridSearchCV(AFMClassifier(epochs=2), {"split": [None, TimeSplit("date"), GroupSplit("user")]}, cv=2)
    assert "split" in grid.fit(X, Y).best_params_


def test_bad_splits_are_named() -> None:
    X = pd.DataFrame(COLUMNS)
    with pytest.raises(ConfigError, match=r"'split' in the parameters of AFMClassifier is 'date': give time:COLUMN"):
        AFMClassifier(split="date").fit(X, Y)
    with pytest.raises(ConfigError, match=r"'split' in the parameters of AFMClassifier is 3: give time:COLUMN"):
        AFMClassifier(split=3).fit(X, Y)
    with pytest.raises(SchemaError, match=r"There is no split column 'dat' in DataFrame \(did you mean 'date'\?\)"):
        AFMClassifier(split="time:dat").fit(X, Y)
    late = X.assign(date=X.date.mask(np.arange(ROWS) % 100 == 7))
    with pytest.raises(DataError, match=r"Column 'date'.*: 3 of 240 times are missing \(first: row 7\)"):
        AFMClassifier(split="time:date").fit(late, Y)
    with pytest.raises(ConfigError, match=r"Column 'date' has one time only in the 240 rows"):
        AFMClassifier(split="time:date").fit(X.assign(date=X.date[0]), Y)
    with pytest.raises(TargetError, match=r"no training row has the class 'new'.*earlier"):
        AFMClassifier(split="time:date").fit(X, np.where(DAYS.max() == DAYS, "new", Y))
