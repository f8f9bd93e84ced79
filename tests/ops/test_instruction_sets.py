"""The kernels' tests once more on each lower instruction set that this machine has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attfm.ops import native, native_info

FILES = ["test_pool.py", "test_pair_dropout.py", "test_ids.py", "test_bags.py", "test_scoring.py", "test_rows.py"]
# Left out is what does not depend on the instruction set: operators, messages, choices, plain torch.
LEFT_OUT = "contract or compiled or forked or any_shape or hash or named or faster or reference or entries or torch-"


@pytest.mark.skipif(native.compiled is None, reason="attfm was installed without its compiled kernels")
@pytest.mark.skipif("ATTFM_ISA" in os.environ, reason="the instruction set is forced already")
@pytest.mark.parametrize("isa", ["avx2", "portable"])
def test_every_lower_instruction_set(isa: str) -> None:
    if isa not in native_info()["lower"]:
        pytest.skip(f"{isa} is not below what this machine runs")
    code = "import sys, pytest; from attfm.ops import native_info; assert native_info()['isa'] == sys.argv[1]; "
    code += "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-k', sys.argv[2], *sys.argv[3:]]))"
    files = [str(Path(__file__).with_name(name)) for name in FILES]
    done = subprocess.run(
        [sys.executable, "-c", code, isa, f"not ({LEFT_OUT})", *files],
        env={**os.environ, "ATTFM_ISA": isa, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=220,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
