"""What the tests of the arithmetic share."""

from collections.abc import Callable, Iterator

import pytest
import torch

from attfm.ops import cpu


@pytest.fixture
def set_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Return what sets the number of threads, for this test; small inputs use all of them too."""
    monkeypatch.setattr(cpu, "WORK_PER_THREAD", 1)
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request: pytest.FixtureRequest, set_threads: Callable[[int], None]) -> int:
    """Compute with one thread and with two."""
    set_threads(request.param)
    return int(request.param)
