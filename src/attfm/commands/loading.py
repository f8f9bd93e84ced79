"""How a command loads what it needs."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Import, in a with statement, without Python's search for cycles, now and later: all that is loaded stays.

    The search looks through everything each time that it has grown by a quarter, and once more when the command ends:
    with torch and scikit-learn this is a third of the time of their import.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
