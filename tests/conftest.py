"""What all tests share."""

import os

# Before torch and OpenMP are loaded: the tests' tables are so small that a second thread only waits for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest

from attfm import ops
from attfm.cli import main
from tests.shop import FAST, write_shop

if not ops.native_info()["available"]:
    ops._warned = True  # that they run slowly is what an install without a compiler says; the warning has its own test


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of a small table, see shop.py."""
    return write_shop(tmp_path_factory.mktemp("shop") / "shop.csv")


@pytest.fixture(scope="session")
def run(shop: str) -> str:
    """Return a run folder of a model trained on the small table."""
    path = Path(shop).with_name("run")
    assert main(["train", shop, "--target", "bought", "--out", str(path), *FAST]) == 0
    return str(path)
