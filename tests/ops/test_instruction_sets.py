"""The kernels' tests that are marked `isa`, once more on each lower instruction set that this machine has.

How rows are dealt to threads is the same code on all of them: `make test-isa` alone tries two threads on each.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attfm.ops import native_info
from tests.ops.pool_cases import needs_native

PROGRAM = """
import os, sys, pytest
from attfm.ops import native_info

class OneThread:
    def pytest_collection_modifyitems(self, items):
        if "ATTFM_LONG_TESTS" not in os.environ:
            items[:] = [one for one in items if not hasattr(one, "callspec") or one.callspec.params.get("threads") != 2]

assert native_info()["isa"] == sys.argv[1]
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-m", "isa", sys.argv[2]], plugins=[OneThread()]))
"""


@needs_native
@pytest.mark.skipif("ATTFM_ISA" in os.environ, reason="the instruction set is forced already")
@pytest.mark.parametrize("isa", ["avx2", "portable"])
def test_every_lower_instruction_set(isa: str) -> None:
    if isa not in native_info()["lower"]:
        pytest.skip(f"{isa} is not below what this machine runs")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, isa, str(Path(__file__).parent)],
        env={**os.environ, "ATTFM_ISA": isa, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=220,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
