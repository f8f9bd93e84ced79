"""How many models of several seeds are trained on the same rows: what `n_seeds` says, or else what can be afforded."""

from attfm.config import Config
from attfm.data.cache import CachedDataset
from attfm.train.all_rows import MOST_TIME
from attfm.train.prepare import Prepared
from attfm.train.trainer import STOPPED_ON_REQUEST, History

# Models of several seeds are more accurate than one, most of it with the second and the third, of a regression with two
# more (docs/defaults.md). Where the best epoch is an early one, another seed is short beside what it took to find its
# length; a table that needs many epochs would take several times as long. Rows by the million teach too much for seeds
# to matter.
MOST_SEEDS, MOST_SEEDS_OF_REGRESSION, MOST_ROWS = 3, 5, 300_000
_MOST_TIME = 2.0  # of what it took to find the number of epochs


def seeds_for(prepared: Prepared, config: Config, history: History, passed: int, *, all_rows: bool) -> int:
    """Return how many models are trained for as many epochs as were best, and averaged.

    A model that learns on keeps as many as it has.

    Parameters
    ----------
    history : History, of the model that was stopped by the validation rows
    passed : int, rows that were passed over until now, in all epochs
    all_rows : bool
        Whether they are trained on training and validation rows together; else on the training rows, and the first of
        them is there already.
    """
    if prepared.start is not None:
        return len(prepared.start.beginnings)
    if history.stopped == STOPPED_ON_REQUEST:
        return 1
    if config.train.n_seeds != "auto":
        return config.train.n_seeds
    if config.train.n_models != "auto":
        return 1  # somebody said how many
    rows = len(prepared.data.train) + (len(prepared.data.valid or ()) if all_rows else 0)
    of_one = history.best_epoch * rows
    if rows > MOST_ROWS or isinstance(prepared.data.train, CachedDataset) or of_one > MOST_TIME * passed:
        return 1
    affordable = int(_MOST_TIME * passed / max(of_one, 1)) + (not all_rows)
    most = MOST_SEEDS if prepared.data.task.is_classification else MOST_SEEDS_OF_REGRESSION
    return min(max(affordable, 1), most)
