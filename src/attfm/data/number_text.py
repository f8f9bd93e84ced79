"""Numbers as people read them: edges of bins and ranges of columns."""

import numpy as np
from numpy.typing import NDArray


def short_numbers(numbers: NDArray[np.float64]) -> list[str]:
    """Return numbers as text: integers in full, others with as few digits as keep different ones apart."""
    if (np.abs(numbers) < 1e15).all() and (numbers == np.trunc(numbers)).all():
        return [str(int(x)) for x in numbers.tolist()]
    for digits in (6, 9, 12):
        texts = [f"{x:.{digits}g}" for x in numbers]
        if len(set(texts)) == len(set(numbers.tolist())):
            return texts
    return [repr(x) for x in numbers.tolist()]
