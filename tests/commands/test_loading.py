"""Loading without Python's search for cycles."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from attfm.commands.loading import loading


class _Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()
    gc.collect()


def test_what_is_loaded_is_never_searched_and_what_comes_later_is() -> None:
    searched = []
    gc.callbacks.append(lambda phase, _: searched.append(phase))
    try:
        with loading():
            loaded = weakref.ref(_Cycle())
            kept = [[] for _ in range(100_000)]
            assert not searched
    finally:
        gc.callbacks.pop()
    assert gc.isenabled()
    later = weakref.ref(_Cycle())
    gc.collect()
    assert loaded() is not None
    assert later() is None
    assert len(kept) == 100_000


def test_the_search_is_as_it_was_after_an_error_too() -> None:
    with pytest.raises(ImportError), loading():
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    with loading():
        pass
    assert not gc.isenabled()
