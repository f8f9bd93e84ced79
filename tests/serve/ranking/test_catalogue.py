"""A catalogue that was added to, changed and cut is that of the items that are left, prepared afresh."""

import threading
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from attfm.errors import ConfigError, DataError, SchemaError
from attfm.serve.ranking.catalogue import Catalogue
from attfm.serve.ranking.ranker import Ranker
from tests.serve.sides import CONTEXT, ITEM, random_model, rows

CONTEXT_TABLE = rows(1, 50).select(CONTEXT)


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    return Ranker(random_model(members=2, remembered=9, seed=4), context=CONTEXT)


def keyed(n: int, seed: int, first: int = 0) -> pa.Table:
    """Return items with a key column, k0, k1, ..."""
    return rows(n, seed).select(ITEM).append_column("key", pa.array([f"k{i}" for i in range(first, first + n)]))


def same(ranker: Ranker, catalogue: Catalogue, fresh: Catalogue) -> bool:
    one, other = (ranker.rank(CONTEXT_TABLE, of, top=None) for of in (catalogue, fresh))
    return one.keys == other.keys and np.array_equal(one.scores, other.scores) and catalogue.keys == fresh.keys


def test_updates_give_what_a_fresh_catalogue_gives(ranker: Ranker, backend: str) -> None:
    items = {row["key"]: row for row in keyed(60, 1).to_pylist()}
    catalogue = ranker.catalogue(pa.Table.from_pylist(list(items.values())), key="key")
    rng = np.random.default_rng(0)
    for step in range(12):
        new = keyed(4, 100 + step, first=1000 + 4 * step).to_pylist()
        catalogue.add(pa.Table.from_pylist(new))
        items |= {row["key"]: row for row in new}
        gone = rng.choice(list(items), 7, replace=False).tolist()
        catalogue.remove(gone)
        items = {key: row for key, row in items.items() if key not in gone}
        chosen = rng.choice(list(items), 5, replace=False).tolist()
        changed = [{**row, "key": key} for key, row in zip(chosen, keyed(5, 200 + step).to_pylist(), strict=True)]
        catalogue.change(pa.Table.from_pylist(changed))
        items |= {row["key"]: row for row in changed}
        fresh = ranker.catalogue(pa.Table.from_pylist(list(items.values())), key="key")
        assert same(ranker, catalogue, fresh)
        assert len(catalogue) == len(items)
    before = fresh
    catalogue.change(pa.Table.from_pylist([{**keyed(1, 999).to_pylist()[0], "key": next(iter(items))}]))
    assert not same(ranker, catalogue, before)


def test_items_that_are_gone_are_forgotten(ranker: Ranker) -> None:
    catalogue = ranker.catalogue(keyed(20, 1), key="key")
    items = keyed(300, 2).to_pylist()
    for _ in range(8):
        catalogue.add(pa.Table.from_pylist([{**row, "key": f"new {row['key']}"} for row in items]))
        catalogue.remove([f"new {row['key']}" for row in items])
    assert len(catalogue._table) <= 2 * 20 + 1000 + 300
    assert same(ranker, catalogue, ranker.catalogue(keyed(20, 1), key="key"))


def test_some_items_by_key(ranker: Ranker) -> None:
    catalogue = ranker.catalogue(keyed(30, 1), key="key")
    whole = ranker.rank(CONTEXT_TABLE, catalogue, top=None)
    wanted = ["k7", "k3", "k21", "k3"]
    some = ranker.rank(CONTEXT_TABLE, wanted, catalogue=catalogue)
    assert sorted(some.keys) == sorted(wanted)
    of_key = dict(zip(whole.keys, whole.scores.tolist(), strict=True))
    assert [of_key[key] for key in some.keys] == some.scores.tolist()
    assert [wanted[n] for n in some.positions] == list(some.keys)
    for keys in (np.array(wanted), pa.array(wanted), tuple(wanted)):
        assert ranker.rank(CONTEXT_TABLE, keys, catalogue=catalogue).keys == some.keys
    assert len(ranker.rank(CONTEXT_TABLE, [], catalogue=catalogue)) == 0


def test_keys_may_be_numbers_a_column_or_given(ranker: Ranker) -> None:
    items = keyed(6, 1)
    numbered = ranker.catalogue(items)
    assert numbered.keys == [0, 1, 2, 3, 4, 5]
    numbered.add(items.slice(0, 2))
    numbered.remove([0, 6])
    numbered.add(items.slice(0, 1))
    assert numbered.keys == [1, 2, 3, 4, 5, 7, 8]
    numbered.change(items.slice(3, 1), keys=[8])
    given = ranker.catalogue(items, key=np.arange(10, 16))
    assert given.keys == [10, 11, 12, 13, 14, 15]
    given.add(items.slice(0, 1), keys=["x"])
    assert "x" in given
    assert 10 in given
    assert 9 not in given
    film = ranker.catalogue(rows(1).select(ITEM), key="film")
    assert film.keys == rows(1).column("film").to_pylist()


def test_bad_keys_are_told_and_change_nothing(ranker: Ranker) -> None:
    items = keyed(5, 1)
    catalogue = ranker.catalogue(items, key="key")
    refused: list[tuple[Any, type[Exception], str]] = [
        (lambda: catalogue.add(items.slice(1, 2)), DataError, r"2 keys are \('k1', 'k2'\) in the catalogue already"),
        (lambda: catalogue.add(pa.concat_tables([keyed(1, 1, 9)] * 2)), DataError, "The key 'k9' stands twice"),
        (lambda: catalogue.change(keyed(1, 1, 9)), DataError, "The key 'k9' is not in the catalogue: add"),
        (lambda: catalogue.remove(["kk1"]), DataError, r"not in the catalogue \(did you mean 'k1'\?\): add the items"),
        (lambda: catalogue.remove(["k0", "k77"]), DataError, "The key 'k77' is not in the catalogue"),
        (lambda: catalogue.remove("k0"), ConfigError, "The keys are 'k0', no list of keys"),
        (lambda: catalogue.add(items.drop_columns("key")), SchemaError, "The items have no key column 'key'"),
        (lambda: catalogue.add(keyed(1, 1, 9), keys=["x"]), ConfigError, "keys are its column 'key': leave keys= out"),
        (lambda: catalogue.add(keyed(1, 1, 9).drop_columns("year")), SchemaError, "The items lack column 'year'"),
        (lambda: ranker.rank(CONTEXT_TABLE, ["k0", 1], catalogue=catalogue), DataError, "The key 1 is not"),
        (lambda: ranker.catalogue(items, key="kee"), SchemaError, r"no key column 'kee' \(did you mean 'key'\?\)"),
        (lambda: ranker.catalogue(items, key=[1, 2]), DataError, "There are 5 items and 2 keys"),
        (lambda: ranker.catalogue(items, key=[1, None, 2, 3, 4]), DataError, "The key of row 1 is missing"),
        (lambda: ranker.catalogue(items, key=[1, [2], 2, 3, 4]), ConfigError, r"The key \[2\] is a list"),
        (
            lambda: ranker.catalogue(items, key=np.ones((5, 1))),
            ConfigError,
            r"The key \[1.0\] is a list: keys are texts",
        ),
        (lambda: ranker.catalogue(items, key=[1, pd.NA, 2, 3, 4]), DataError, "The key of row 1 is missing"),
        (lambda: ranker.catalogue([]), DataError, "There are no items: give rows of the item's columns"),
        (lambda: ranker.catalogue(items).change(items), DataError, "changed by number: give keys="),
    ]
    for call, kind, told in refused:
        with pytest.raises(kind, match=told):
            call()
    assert same(ranker, catalogue, ranker.catalogue(items, key="key"))


def test_a_catalogue_of_another_ranker_is_refused(ranker: Ranker) -> None:
    other = Ranker(random_model(seed=9), context=CONTEXT)
    with pytest.raises(
        ConfigError, match="The catalogue was made by another ranker: make one by this ranker's catalogue"
    ):
        ranker.rank(CONTEXT_TABLE, other.catalogue(keyed(3, 1)))
    with pytest.raises(ConfigError, match="made by another ranker"):
        ranker.rank(CONTEXT_TABLE, [0], catalogue=other.catalogue(keyed(3, 1)))


def test_requests_see_the_items_before_an_update_or_after(ranker: Ranker) -> None:
    one, two = keyed(40, 1), keyed(40, 2)
    catalogue = ranker.catalogue(one, key="key")
    logits = [ranker.logits(CONTEXT_TABLE, items) for items in (one, two)]
    wrong, stop = [], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            got = ranker.logits(CONTEXT_TABLE, catalogue)
            if not any(np.array_equal(got, all_logits) for all_logits in logits):
                wrong.append(got)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        catalogue.change(two)
        catalogue.change(one)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
