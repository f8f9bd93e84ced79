"""Items that are ranked: those of a request, or those of a table that the service was started with."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attfm.data.batch import FieldFeatures
from attfm.data.sources.source import open_source
from attfm.errors import ConfigError
from attfm.model.bundle import Model
from attfm.serve.ranking.catalogue import Catalogue
from attfm.serve.ranking.ranker import Ranker, Ranking

_MOST_RANKERS = 8  # one for each choice of the columns that items have


class Items:
    """Ranks items for contexts by a model.

    Parameters
    ----------
    model : attfm.Model
    table : str or None, a table of items; its columns that are inputs are those of an item
    key : str or None, its column by which items are called; None: they are called by their numbers
    observe : callable or None, gets the features that requests bring, as `Ranker` has it

    Raises
    ------
    SourceError, ConfigError, DataError : the table can't be read, has no input columns, or has all of them
    """

    def __init__(
        self, model: Model, table: str | None = None, key: str | None = None, *,
        observe: Callable[[Mapping[int, FieldFeatures]], None] | None = None,
    ) -> None:  # fmt: skip
        self._model, self._observe = model, observe
        self._rankers = dict[frozenset[str], Ranker]()
        self.columns: tuple[str, ...] = ()
        self._catalogue: Catalogue | None = None
        if table is None:
            if key is not None:
                raise ConfigError(f"--item-key {key} names a column of --items TABLE: add that, or leave it out.")
            return
        names = open_source(table).schema.names
        self.columns = tuple(name for name in model.input_names if name in names)
        if not self.columns or len(self.columns) == len(model.input_names):
            which = "none" if not self.columns else "all"
            raise ConfigError(
                f"The table of items '{table}' has {which} of the model's input columns: give it those that an item "
                "has, and leave out those that a request brings."
            )
        self._catalogue = self.ranker(self.columns).catalogue(table, key=key)

    def __len__(self) -> int:
        return 0 if self._catalogue is None else len(self._catalogue)

    def ranker(self, columns: Sequence[str]) -> Ranker:
        """Return the ranker of items with these columns."""
        chosen = frozenset(columns)
        if chosen not in self._rankers:
            if len(self._rankers) >= _MOST_RANKERS:
                self._rankers.pop(next(iter(self._rankers)))
            item = [name for name in self._model.input_names if name in chosen]
            self._rankers[chosen] = Ranker(self._model, item=item, observe=self._observe)
        return self._rankers[chosen]

    def rank(
        self, context: dict[str, Any], candidates: Sequence[dict[str, Any]] | None, *, top: int, of: str | None
    ) -> Ranking:
        """Return the best candidates; None: of the table of items.

        Raises
        ------
        ConfigError : there is no such table; a class is asked for that there is not, or none where there are several
        DataError, SchemaError : a value can't be read
        """
        if candidates is not None:
            return self.ranker(list(candidates[0])).rank(context, list(candidates), top=top, of=of)
        if self._catalogue is None:
            raise ConfigError("The service has no items of its own: send 'candidates', or start it with --items TABLE.")
        return self.ranker(self.columns).rank(context, self._catalogue, top=top, of=of)
