"""Ranking: which of many items suit one context best, by a trained model, exactly."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attfm.data.batch import Batch, FieldFeatures
from attfm.data.encoder import Encoder
from attfm.data.sources.source import Source, open_source
from attfm.errors import ConfigError, DataError, SchemaError, absent, listed, nearest
from attfm.model.bundle import Model, model_given
from attfm.model.derived import Derived
from attfm.model.ensemble import Scorer, members_of
from attfm.ops.ranking import Candidates, ItemParts, rank_logits
from attfm.serve.ranking.catalogue import Catalogue, is_keys
from attfm.serve.ranking.context_reader import ContextReader, lacks
from attfm.serve.ranking.item_table import ItemTable
from attfm.serve.ranking.two_sided import Sides, TwoSidedMachine

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranking(Sequence[dict[str, Any]]):
    """The best candidates, the best first; of equal scores the one that stands first among the candidates.

    As a sequence it gives a dict of each: "rank" from 1, "key", "position", "score" and "logit".

    Attributes
    ----------
    keys : tuple, of the items in their catalogue; of candidates that are rows their numbers, from 0
    positions : int64 (n,), where they stand among the candidates, from 0
    scores : float64 (n,), probabilities of the class `output`, or predictions of a regression
    logits : float64 (n,), of that class, as `attfm.Model.logits` gives them; of the first of two classes its own
    output : str, the class that was ranked by, or the target of a regression
    candidates : int, how many were ranked
    """

    keys: tuple[Any, ...]
    positions: NDArray[np.int64]
    scores: Floats
    logits: Floats
    output: str
    candidates: int

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[n] for n in range(len(self))[place]]
        place = range(len(self))[place]
        numbers = {"position": int(self.positions[place]), "score": float(self.scores[place])}
        return {"rank": place + 1, "key": self.keys[place], **numbers, "logit": float(self.logits[place])}

    def to_arrow(self) -> pa.Table:
        """Return the ranking as a table with the columns rank, key, position, score and logit."""
        rank, keys = pa.array(np.arange(1, len(self) + 1)), pa.array(list(self.keys))
        return pa.table(
            {"rank": rank, "key": keys, "position": self.positions, "score": self.scores, "logit": self.logits}
        )

    def __str__(self) -> str:
        lines = [f"{row['rank']}. {row['key']} ({row['score']:.4f})" for row in self]
        return "\n".join([f"{len(self):,} of {self.candidates:,} candidates by {self.output}:", *lines])


class Ranker:
    """Ranks items for a context: the rows that a context and each item make are scored, but not one by one.

    What a pair of columns of the context gives is worked out once for a request, what a pair of columns of an item
    gives once for a catalogue, and the rest once for each distinct value that the items have in a column. The scores
    are those of the joined rows to rounding (docs/ranking.md), by the model as it is now: where its weights have
    changed, the ranker and its catalogues follow at the next request.

    Parameters
    ----------
    model : attfm.Model
    context, item : iterable of str or None, names of the input columns of either side; None: all that the other lacks
    observe : callable or None
        Gets the features of each context, and of candidates that are rows, by number of the model's field: for counts.

    Raises
    ------
    ConfigError : a column is in both or in neither, is no input, or a side has none; it is no attfm.Model

    Examples
    --------
    >>> import attfm
    >>> X = pa.table({"user": ["ann", "bob"] * 60, "film": ["alien", "brazil", "casablanca"] * 40})
    >>> y = [int((user == "ann") == (film == "alien")) for user, film in zip(*X.to_pydict().values())]
    >>> model = attfm.AFMClassifier(epochs=30).fit(X, y)
    >>> ranker = model.ranker(context=["user"], item=["film"])
    >>> ranker.rank({"user": "ann"}, [{"film": "brazil"}, {"film": "alien"}], top=1).positions.tolist()
    [1]
    >>> films = ranker.catalogue({"film": ["alien", "brazil", "casablanca"]}, key="film")
    >>> ranker.rank({"user": "ann"}, films, top=1).keys
    ('alien',)
    """

    def __init__(
        self, model: Model, *, context: Iterable[str] | None = None, item: Iterable[str] | None = None,
        observe: Callable[[Mapping[int, FieldFeatures]], None] | None = None,
    ) -> None:  # fmt: skip
        self.model = model_given(model)
        self._observe = observe
        self.context, self.item = _sides(model.input_names, context, item)
        fields = model.encoder.fields
        of_context = np.array([field.column in self.context for field in fields])
        sides = Sides(np.flatnonzero(of_context).astype(np.int64), np.flatnonzero(~of_context).astype(np.int64))
        self._sides = sides
        self._machines = Derived(model.module, partial(_two_sided, sides=sides))
        self._reader = ContextReader(model.encoder, model.schema, self.context)
        self._item_encoder = model.encoder.part(self.item)
        self._with_values = [field.kind in ("scaled", "multi-valued") for field in self._item_encoder.fields]

    def catalogue(self, items: object, *, key: str | Sequence[Any] | None = None) -> Catalogue:
        """Return items prepared for many requests: encoded, with all that does not depend on the context.

        Parameters
        ----------
        items : a table with the item's columns, as `attfm.Model.open` reads it; other columns may stand there too
        key : name of a column of it by which items are called, or one key for each row; None: numbers from 0

        Raises
        ------
        DataError : a column is absent, a value can't be read, a key is missing or stands twice
        """
        return Catalogue(self._items, self._machines, self._with_values, items, key)

    def rank(
        self,
        context: object,
        candidates: object,
        *,
        catalogue: Catalogue | None = None,
        top: int | None = 20,
        of: Any = None,
    ) -> Ranking:
        """Return the best of some candidates for a context.

        Parameters
        ----------
        context : one row with the context's columns: a dict of values, or a table of one row
        candidates : a Catalogue, all of whose items are ranked; keys of items of `catalogue`; or rows of the item's
            columns, as a table or a list of dicts. An empty list gives an empty ranking.
        catalogue : Catalogue or None, that keys are of
        top : int or None, how many are wanted at most; None: all
        of : class whose probability is ranked by, where the model has classes; None: the second of two

        Raises
        ------
        SchemaError : a column is absent, or the context has one that the model does not know
        DataError : the context is not one row, a value can't be read, or a key is not in the catalogue
        ConfigError : `top` is no number of at least 1; `of` is no class, or absent where there are more than two
        """
        if top is not None and (isinstance(top, bool) or not isinstance(top, int | np.integer) or top < 1):
            raise ConfigError(f"top is {top!r}: give the number of items wanted, at least 1, or None for all.")
        output = self._output(of)
        row = self._reader.read(context)
        self._tell(self._sides.context, row)
        logits, keys = self._logits(row, candidates, catalogue)
        order = self._order(logits, output, top)
        return Ranking(
            tuple(keys[n] for n in order.tolist()) if keys is not None else tuple(order.tolist()), order,
            self._scores(logits[order], output), self._output_logits(logits[order], output),
            self._class_names[output], len(logits),
        )  # fmt: skip

    def logits(self, context: object, candidates: object, *, catalogue: Catalogue | None = None) -> Floats:
        """Return the logits of all candidates in their order, float64 (candidates, outputs); see `rank`."""
        return self._logits(self._reader.read(context), candidates, catalogue)[0]

    def _logits(
        self, row: Sequence[FieldFeatures], candidates: object, catalogue: Catalogue | None
    ) -> tuple[Floats, Sequence[Any] | None]:
        """Return the candidates' logits and keys; None: they have none."""
        keys: Sequence[Any] | None = None
        machines = self._machines.current()
        for given in (candidates, catalogue):
            if given is catalogue is not None and not isinstance(given, Catalogue):
                raise ConfigError(
                    f"catalogue= is a {type(given).__name__}: make one by this ranker's catalogue(ITEMS)."
                )
            if isinstance(given, Catalogue) and given.machines is not self._machines:
                raise ConfigError("The catalogue was made by another ranker: make one by this ranker's catalogue().")
        if catalogue is not None and isinstance(candidates, str):
            raise ConfigError(
                f"The candidates are {candidates!r:.60}, no list of keys: give a list, such as [{candidates!r:.60}]."
            )
        if isinstance(candidates, Catalogue):
            parts, chosen, keys = candidates.all_items(machines)
        elif is_keys(candidates):
            if catalogue is None and len(candidates):  # type: ignore[arg-type]
                raise ConfigError(
                    "The candidates are keys, and there is no catalogue that they are of: give catalogue=, or rows of "
                    "the item's columns."
                )
            if catalogue is None:
                return np.empty((0, self.model.module.outputs)), ()
            parts, chosen, keys = catalogue.some_items(machines, candidates)
        else:
            table = ItemTable(machines, self._with_values)
            batch = self._items(candidates)[0]
            self._tell(self._sides.item, [batch.field(f) for f in range(batch.fields)])
            view = table.view(table.append(batch))
            parts, chosen = view.parts, view.candidates
        return self._scored(machines, row, parts, chosen), keys

    def _tell(self, numbers: NDArray[np.int64], features: Sequence[FieldFeatures]) -> None:
        if self._observe is not None:
            self._observe(dict(zip(numbers.tolist(), features, strict=True)))

    def _scored(
        self, machines: Sequence[TwoSidedMachine], row: Sequence[FieldFeatures], parts: Sequence[ItemParts],
        candidates: Candidates,
    ) -> Floats:  # fmt: skip
        total = np.zeros((len(candidates.items), self.model.module.outputs))
        if not len(total):
            return total
        for machine, of_machine in zip(machines, parts, strict=True):
            logits = rank_logits(machine.network, machine.memory, machine.context(row), of_machine, candidates)
            total += machine.offset + machine.slope.astype(np.float64) * logits
        return total / len(machines)

    @property
    def _class_names(self) -> tuple[str, ...]:
        task = self.model.task
        return task.class_names if task.is_classification else task.outputs

    def _output(self, of: Any) -> int:
        """Return the number of the class that is ranked by; 0 of a regression."""
        task, names = self.model.task, self._class_names
        if not task.is_classification:
            if of is not None:
                raise ConfigError(f"of is {of!r}, but the model predicts a number and has no classes: leave it out.")
            return 0
        if of is None:
            if len(names) > 2:
                raise ConfigError(
                    f"There are {len(names)} classes: say by which to rank, by of= one of {listed(names)}."
                )
            return 1
        for code, (label, name) in enumerate(zip(task.classes, names, strict=True)):
            if str(of) == name or (isinstance(of, bool | int | float | np.generic) and of == label):
                return code
        raise ConfigError(f"There is no class {of!r}{nearest(str(of), names)}: of= takes one of {listed(names)}.")

    def _scores(self, logits: Floats, output: int) -> Floats:
        scores = self.model.task.scores(logits)
        return scores if scores.ndim == 1 else scores[:, output]

    def _output_logits(self, logits: Floats, output: int) -> Floats:
        if logits.shape[1] > 1 or not self.model.task.is_classification:
            return logits[:, output]
        return logits[:, 0] if output else -logits[:, 0]

    def _order(self, logits: Floats, output: int, top: int | None) -> NDArray[np.int64]:
        """Return the places of the best candidates, the best first, equal ones in their order."""
        # One logit tells more apart than its probability, which is rounded, and constant where a curve is flat.
        score = self._output_logits(logits, output) if logits.shape[1] == 1 else self._scores(logits, output)
        if top is None or top >= len(score):
            return np.argsort(-score, kind="stable")
        least = np.partition(score, len(score) - top)[len(score) - top]
        above = np.flatnonzero(score > least)
        chosen = np.concatenate([above, np.flatnonzero(score == least)[: top - len(above)]])
        return chosen[np.argsort(-score[chosen], kind="stable")]

    def _items(self, items: object) -> tuple[Batch, Source]:
        """Return encoded rows of the item's columns, and the table that they were read from."""
        if isinstance(items, list | tuple | Mapping) and not len(items):
            raise DataError("There are no items: give rows of the item's columns.")
        source = self._open(items)
        lacking = absent(self.item, source.schema.names)
        if lacking:
            raise SchemaError(lacks("The items", lacking))
        batches = source.batches(self.item)
        return Batch.concatenate(_encoded(self._item_encoder, batches, source)), source

    def _open(self, data: object) -> Source:
        return open_source(data, self.model.schema.reading, stored=self.model.schema.stored_types)


def _two_sided(module: Scorer, sides: Sides) -> Sequence[TwoSidedMachine]:
    return [TwoSidedMachine(machine, sides) for machine in members_of(module)]


def _encoded(encoder: Encoder, batches: Any, source: Source) -> list[Batch]:
    parts, first = [], 0
    for columns in batches:
        parts.append(encoder.transform(columns, first_row=first, reading=source.reading))
        first += columns.num_rows
    return parts


def _sides(
    inputs: Sequence[str], context: Iterable[str] | None, item: Iterable[str] | None
) -> tuple[list[str], list[str]]:
    """Return the columns of either side in the order of the table; raise ConfigError where they don't divide it."""
    if context is None and item is None:
        raise ConfigError(
            f"Say which columns are the context's or the item's: context= and item= take {listed(inputs)}."
        )
    context, item = _names("context", context, inputs), _names("item", item, inputs)
    context = [name for name in inputs if name not in (item or ())] if context is None else context
    item = [name for name in inputs if name not in context] if item is None else item
    both = [name for name in inputs if name in context and name in item]
    neither = [name for name in inputs if name not in context and name not in item]
    if both:
        raise ConfigError(f"Column {listed(both)} is in context= and in item=: each is of one side.")
    if neither:
        raise ConfigError(f"Column {listed(neither)} is neither in context= nor in item=: each input is of one side.")
    for called, names in (("context", context), ("item", item)):
        if not names:
            raise ConfigError(f"No column is left for {called}=: each side needs at least one.")
    return [name for name in inputs if name in context], [name for name in inputs if name in item]


def _names(called: str, names: Iterable[str] | None, inputs: Sequence[str]) -> list[str] | None:
    """Return the names of a side's columns; raise ConfigError where one is none of an input."""
    if names is None:
        return None
    if isinstance(names, str):
        raise ConfigError(f"{called}= is the text '{names}': give a list of names, such as ['{names}'].")
    if isinstance(names, bytes) or not isinstance(names, Iterable):
        raise ConfigError(f"{called}= is {names!r:.60}: give a list of names of columns, such as ['{inputs[0]}'].")
    names = [str(name) for name in names]
    unknown = absent(names, inputs)
    if unknown:
        raise ConfigError(f"No input column is called {', '.join(unknown)}: {called}= takes {listed(inputs)}.")
    return names
