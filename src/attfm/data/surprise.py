"""How surprising it is that nearly all values of a column are unknown: most likely they are written otherwise."""

import math

_NEARLY_ALL = 0.9
_LEAST_EXPECTED = 0.01  # a new value now and then is expected of any column
_SURPRISE = 14.0  # nats: one in a million


def is_surprising(values: int, unknown: int, expected: float | None) -> bool:
    """Return whether so many of the values are unknown that it is more than chance.

    Parameters
    ----------
    expected : float or None, share that is expected to be unknown; None: can't be known
    """
    if expected is None or unknown < _NEARLY_ALL * values or unknown == 0:
        return False
    return values * _divergence(unknown / values, max(expected, _LEAST_EXPECTED)) >= _SURPRISE


def unknown_sentence(column: str, values: int, unknown: int, *, first: str, row: int) -> str:
    """Return the sentence about a column whose values are unknown beyond chance.

    Parameters
    ----------
    values, unknown : int, how many there are, and how many of them are unknown
    first, row : the first unknown value as Python has it, and the number of its row
    """
    return (
        f"Column '{column}': {100 * unknown / values:.3g} % of the {values:,} values were not seen in "
        f"training, where few were unknown (first: {first}, row {row:,}). Check that they are written as "
        "they were there."
    )


def _divergence(share: float, expected: float) -> float:
    """Return the Kullback-Leibler divergence of two chances, in nats: what the surprise of many values grows with."""
    if expected >= share:
        return 0.0
    rest = (1 - share) * math.log((1 - share) / (1 - expected)) if share < 1 else 0.0
    return share * math.log(share / expected) + rest
