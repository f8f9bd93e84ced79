"""The threshold of a decision, as somebody asks for it."""

from numbers import Real
from typing import Any

from attfm.errors import ConfigError


def decision_threshold(asked: Any, *, task: str, usual: float, called: str = "threshold=") -> float:
    """Return the probability above which the second of two classes is decided.

    Parameters
    ----------
    asked : number or None, None: the usual one
    task : "binary", "multiclass" or "regression", what the model predicts
    called : str, the option by which it is asked for, with what stands between it and the value

    Raises
    ------
    ConfigError : one is asked for that is no number between 0 and 1, or of a model that does not decide by one
    """
    if asked is None:
        return usual
    if task != "binary":
        what = "predicts a number" if task == "regression" else "decides for the most probable of its classes"
        raise ConfigError(f"{called}{asked!r:.60} is of no use to a model that {what}: leave it out.")
    if isinstance(asked, bool) or not isinstance(asked, Real) or not 0 < float(asked) < 1:
        raise ConfigError(f"{called}{asked!r:.60} is not a probability: give a number between 0 and 1.")
    return float(asked)
