"""What is freed among arrays that stay goes back to the system."""

import subprocess
import sys

import pytest

from attfm.train import freed_memory
from attfm.train.freed_memory import give_back

# A process of its own: in one that has worked already, the arrays would lie in what was free before.
FREED = """
import os
from pathlib import Path
import numpy as np
from attfm.train.freed_memory import give_back

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

size, count = 100_000, 1_000  # bytes: too small for pages of their own
freed, kept = [], []
for _ in range(count):
    freed.append(np.ones(size, np.uint8))
    kept.append(np.ones(2_000, np.uint8))
freed.clear()
before = resident()
give_back()
print((before - resident()) / (size * count), all(array.all() for array in kept))
"""


@pytest.mark.skipif(freed_memory._trim() is None, reason="needs the GNU C library on Linux")
def test_what_is_free_between_arrays_that_stay_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, timeout=100, check=True)
    share, whole = done.stdout.split()
    assert float(share) > 0.5
    assert whole == "True"


def test_without_the_gnu_c_library_nothing_of_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freed_memory, "_trim", lambda: None)
    give_back()
    monkeypatch.undo()
    freed_memory._trim.cache_clear()
    monkeypatch.setattr("sys.platform", "darwin")
    assert freed_memory._trim() is None
    freed_memory._trim.cache_clear()
