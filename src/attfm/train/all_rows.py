"""Models trained again on training and validation rows together, once it is known for how many epochs."""

from attfm.config import Config
from attfm.train.prepare import Prepared
from attfm.train.trainer import STOPPED_ON_REQUEST, History, choose_batch_size

# Of the time that was spent to find the number of epochs. Where ids are rare, the best epoch is an early one, each new
# row teaches most, and all rows take about half as long again; a table that needs many epochs would take twice as long.
MOST_TIME = 2 / 3


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
    return setting is True or history.best_epoch * rows <= MOST_TIME * passed


def for_epochs(config: Config, epochs: int, rows: int) -> Config:
    """Return the settings of a model that nothing stops before so many epochs have passed.

    Its steps are of as many rows as those were that found the number of epochs, on so many rows in all: larger ones of
    more rows would be fewer.
    """
    batch_size = choose_batch_size(config.train.batch_size, rows)
    falling = config.train.falling_rate and 2 * epochs > config.train.epochs  # it had begun to fall when it was best
    train = {
        "epochs": epochs, "early_stopping": False, "refit": False, "batch_size": batch_size, "falling_rate": falling,
    }  # fmt: skip
    return config.model_copy(update={"train": config.train.model_copy(update=train)})
