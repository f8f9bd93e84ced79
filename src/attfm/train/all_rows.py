"""Models trained again on training and validation rows together, once it is known for how many epochs."""

from attfm.config import Config
from attfm.train.prepare import Prepared
from attfm.train.trainer import STOPPED_ON_REQUEST, History, choose_batch_size

# Of the time that was spent to find the number of epochs. Where ids are rare, the best epoch is an early one, each new
# row teaches most, and all rows take about half as long again; a table that needs many epochs would take twice as long.
_MOST_TIME = 2 / 3
# Models of several seeds are more accurate than one, most of it with the second and the third (docs/defaults.md). They
# take at most half as long again as all that came before, and rows by the million teach too much for seeds to matter.
_MOST_SEEDS, _MOST_TIME_OF_SEEDS, _MOST_ROWS_OF_SEEDS = 3, 1.5, 300_000


def learns_from_all(prepared: Prepared, config: Config, history: History, passed: int) -> bool:
    """Return whether a model with this learning curve is trained again on all rows, as `refit` says.

    Parameters
    ----------
    passed : int, rows that were passed over until now, in all epochs
    """
    setting, found = config.train.refit, prepared.spare is not None and config.train.early_stopping
    if setting is False or not found or prepared.data.valid is None or history.stopped == STOPPED_ON_REQUEST:
        return False
    rows = len(prepared.data.train) + len(prepared.data.valid)
    return setting is True or history.best_epoch * rows <= _MOST_TIME * passed


def seeds_for(prepared: Prepared, config: Config, history: History, passed: int) -> int:
    """Return how many models are trained on all rows, as `refit_seeds` says; arguments as of `learns_from_all`.

    A model that learns on keeps as many as it has.
    """
    if prepared.start is not None:
        return len(prepared.start.beginnings)
    if config.train.refit_seeds != "auto":
        return config.train.refit_seeds
    rows = len(prepared.data.train) + len(prepared.data.valid or ())
    if rows > _MOST_ROWS_OF_SEEDS:
        return 1
    affordable = int(_MOST_TIME_OF_SEEDS * passed / max(history.best_epoch * rows, 1))
    return min(max(affordable, 1), _MOST_SEEDS)


def for_epochs(config: Config, epochs: int, rows: int) -> Config:
    """Return the settings of a model that nothing stops before so many epochs have passed.

    Its steps are of as many rows as those were that found the number of epochs, on so many rows in all: larger ones of
    more rows would be fewer.
    """
    batch_size = choose_batch_size(config.train.batch_size, rows)
    train = {"epochs": epochs, "early_stopping": False, "refit": False, "batch_size": batch_size}
    return config.model_copy(update={"train": config.train.model_copy(update=train)})
