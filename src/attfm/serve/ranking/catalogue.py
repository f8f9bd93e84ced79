"""Items prepared for many requests, which may be added to, changed and removed while requests are answered."""

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attfm.data.batch import Batch
from attfm.data.sources.source import Source
from attfm.errors import ConfigError, DataError, SchemaError, listed, near_names, nearest
from attfm.model.derived import Derived
from attfm.ops.ranking import Candidates, ItemParts
from attfm.serve.ranking.item_table import ItemTable, ItemView
from attfm.serve.ranking.two_sided import TwoSidedMachine

_Reader = Callable[[object], tuple[Batch, Source]]
_Machines = Sequence[TwoSidedMachine]
_Chosen = tuple[Sequence[ItemParts], Candidates, Sequence[Any]]


class Catalogue:
    """Items of a ranker, by key; made by `Ranker.catalogue`.

    Requests and updates may come from several threads: a request sees the items before an update or after it. The
    items are those of the model as it is now: the first request after its weights have changed works them out anew.

    Examples
    --------
    >>> import attfm
    >>> X = pa.table({"user": ["ann", "bob"] * 60, "film": ["alien", "brazil", "casablanca"] * 40})
    >>> ranker = attfm.AFMRegressor(epochs=2).fit(X, [1.0, 2.0] * 60).ranker(context=["user"])
    >>> films = ranker.catalogue({"film": ["alien", "brazil"], "id": [7, 8]}, key="id")
    >>> films.add({"film": ["casablanca"], "id": [9]})
    >>> films.remove([8])
    >>> films.keys, 8 in films
    ([7, 9], False)
    """

    def __init__(
        self, read: _Reader, machines: Derived[_Machines], with_values: Sequence[bool], items: object,
        key: str | Sequence[Any] | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(key, str | type(None)) and not isinstance(key, Iterable):
            raise ConfigError(f"key is {key!r}: give the name of a column, one key for each row, or None for numbers.")
        self._read, self.machines = read, machines  # those of the ranker that made it
        self._table = ItemTable(machines.current(), with_values)
        self._key = key if isinstance(key, str) else None
        self._numbered = key is None
        self._lock = threading.Lock()
        self._items: dict[Hashable, int] = {}  # number in the table, by key
        self._key_of: list[Any] = []  # by number
        self._next = 0  # of keys that are numbers
        batch, keys = self._rows(items, key if not isinstance(key, str) else None)
        self._check_new(keys)
        self._view: ItemView = self._table.view(np.empty(0, np.int32))
        self._append(batch, keys)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    @property
    def keys(self) -> list[Any]:
        """The keys of all items, in their order."""
        with self._lock:
            view, key_of = self._view, self._key_of
        return list(_Picked(key_of, view.items))

    def add(self, items: object, *, keys: Sequence[Any] | None = None) -> None:
        """Add items, which then stand after the others.

        Parameters
        ----------
        items : table with the item's columns, and that of the key where the catalogue has one
        keys : one for each row, where the catalogue has keys that are no column

        Raises
        ------
        DataError : a key is there already, missing or stands twice; nothing is added then
        """
        with self._lock:
            batch, new = self._rows(items, keys)
            self._check_new(new)
            self._append(batch, new)

    def change(self, items: object, *, keys: Sequence[Any] | None = None) -> None:
        """Give items that are there new values; they keep their places.

        Raises
        ------
        DataError : a key is not there, or stands twice; nothing is changed then
        """
        with self._lock:
            if self._numbered and keys is None:
                raise DataError("Items that are called by numbers are changed by number: give keys=, one for each row.")
            batch, changed = self._rows(items, keys)
            self._check_distinct(changed)
            old = self._numbers_of(changed)
            new = self._table.append(batch)
            self._key_of.extend(changed)
            moved = np.arange(len(self._table), dtype=np.int32)
            moved[old] = new
            self._items.update(zip(changed, new.tolist(), strict=True))
            self._show(moved[self._view.items])

    def remove(self, keys: Iterable[Any]) -> None:
        """Take items out, by key; raise DataError where one is not there, and then take out none."""
        with self._lock:
            removed = _as_keys(keys)
            numbers = self._numbers_of(removed)
            for key in removed:
                self._items.pop(key, None)
            is_left = np.ones(len(self._table), np.bool_)
            is_left[numbers] = False
            self._show(self._view.items[is_left[self._view.items]])

    def all_items(self, machines: _Machines) -> _Chosen:
        """Return what scores all items by these machines, and their keys."""
        with self._lock:
            self._follow(machines)
            view, key_of = self._view, self._key_of
        return view.parts, view.candidates, _Picked(key_of, view.items)

    def some_items(self, machines: _Machines, keys: object) -> _Chosen:
        """Return what scores the items with these keys, and the keys; raise DataError where one is not there."""
        wanted = _as_keys(keys)
        with self._lock:
            self._follow(machines)
            return self._view.parts, self._view.some(self._numbers_of(wanted)), wanted

    def _follow(self, machines: _Machines) -> None:
        """Work the items out anew where the model is no longer the one that they were worked out by."""
        if self._table.machines is not machines:
            self._table = self._table.by(machines)
            self._view = self._table.view(self._view.items)

    def _rows(self, items: object, keys: Any) -> tuple[Batch, list[Any]]:
        """Return encoded items and their keys."""
        batch, source = self._read(items)
        if self._numbered:
            if keys is None:
                return batch, list(range(self._next, self._next + len(batch)))
        elif self._key is not None:
            if keys is not None:
                raise ConfigError(f"The catalogue's keys are its column '{self._key}': leave keys= out.")
            keys = _column(source, self._key)
        elif keys is None:
            raise ConfigError("The catalogue's keys are no column: give keys=, one for each row.")
        keys = _as_keys(keys)
        if len(keys) != len(batch):
            raise DataError(f"There are {len(batch):,} items and {len(keys):,} keys: give one key for each row.")
        missing = next((row for row, key in enumerate(keys) if _is_missing(key)), None)
        if missing is not None:
            raise DataError(f"The key of row {missing:,} is missing: give each item one.")
        return batch, keys

    def _append(self, batch: Batch, keys: list[Any]) -> None:
        numbers = self._table.append(batch)
        self._key_of.extend(keys)
        self._items.update(zip(keys, numbers.tolist(), strict=True))
        self._next += len(keys)
        self._show(np.concatenate([self._view.items, numbers]))

    def _show(self, items: NDArray[np.int32]) -> None:
        """Let requests see these items, by number; those that are gone are forgotten when they are most of all."""
        if len(self._table) > 2 * len(items) + 1000:
            self._table = self._table.only(items)
            self._key_of = [self._key_of[number] for number in items.tolist()]
            self._items = dict(zip(self._key_of, range(len(items)), strict=True))
            items = np.arange(len(items), dtype=np.int32)
        self._view = self._table.view(items)

    def _check_new(self, keys: list[Any]) -> None:
        self._check_distinct(keys)
        known = [key for key in keys if key in self._items]
        if known:
            raise DataError(
                f"{_counted(known)} in the catalogue already: change() gives items new values, add() takes new keys."
            )

    def _check_distinct(self, keys: list[Any]) -> None:
        if len(set(keys)) < len(keys):
            seen: set[Any] = set()
            doubled = next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise DataError(f"The key {doubled!r} stands twice among the items: give each item its own.")

    def _numbers_of(self, keys: list[Any]) -> NDArray[np.int32]:
        try:
            return np.fromiter(map(self._items.__getitem__, keys), np.int32, len(keys))
        except KeyError:
            unknown = [key for key in keys if key not in self._items]
        names = {str(key): key for key in self._items} if len(self._items) <= 100_000 else {}
        near = near_names(str(unknown[0]), names)
        hint = f" (did you mean {names[near[0]]!r}?)" if near else ""
        raise DataError(f"{_counted(unknown)} not in the catalogue{hint}: add the items, or leave the keys out.")


class _Picked(Sequence[Any]):
    """The values of a list at some places."""

    def __init__(self, values: list[Any], places: NDArray[np.int32]) -> None:
        self._values, self._places = values, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: Any) -> Any:
        return self._values[self._places[place]]


def is_keys(candidates: object) -> bool:
    """Tell keys of items (a list, a one-dimensional array, a column) from rows of items."""
    if isinstance(candidates, list | tuple):
        return not candidates or not isinstance(candidates[0], Mapping | list | tuple | np.ndarray)
    if isinstance(candidates, np.ndarray):
        return candidates.ndim == 1 and candidates.dtype.names is None
    kind, package = type(candidates).__name__, type(candidates).__module__.partition(".")[0]
    is_column = package in ("pandas", "polars") and kind.endswith(("Series", "Index"))
    return is_column or isinstance(candidates, pa.Array | pa.ChunkedArray | range | set | frozenset)


def _as_keys(keys: Any) -> list[Any]:
    """Return keys as Python values; raise ConfigError where they are no list of them."""
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise ConfigError(f"The keys are {keys!r:.60}, no list of keys: give a list, such as [{keys!r:.60}].")
    for name in ("to_pylist", "tolist", "to_list"):  # of Arrow, of numpy and pandas, of polars
        if callable(getattr(keys, name, None)):
            keys = getattr(keys, name)()
            break
    values = [key.item() if isinstance(key, np.generic) else key for key in keys]
    unhashable = next((key for key in values if not isinstance(key, Hashable)), None)
    if unhashable is not None:
        raise ConfigError(f"The key {unhashable!r:.60} is a {type(unhashable).__name__}: keys are texts or numbers.")
    return values


def _is_missing(key: Any) -> bool:
    """Tell whether a key is None, NaN or one of the missing values of pandas."""
    return key is None or type(key).__name__ == "NAType" or bool(key != key)


def _column(source: Source, name: str) -> list[Any]:
    if name not in source.schema.names:
        known = source.schema.names
        raise SchemaError(
            f"The items have no key column '{name}'{nearest(name, known)}. Their columns: {listed(known)}."
        )
    return [key for batch in source.batches([name]) for key in batch.column(0).to_pylist()]


def _counted(keys: list[Any]) -> str:
    """Return the beginning of a sentence about keys: which, and how many."""
    if len(keys) == 1:
        return f"The key {keys[0]!r} is"
    return f"{len(keys):,} keys are ({', '.join(map(repr, keys[:3]))}{', ...' if len(keys) > 3 else ''})"
