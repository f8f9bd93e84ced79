"""What all tests share."""

import os

# Before torch and OpenMP are loaded: the tests' tables are so small that a second thread only waits for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from attfm import ops
from attfm.cli import main
from tests.shop import FAST, write_shop

if not ops.native_info()["available"]:
    ops._warned = True  # that they run slowly is what an install without a compiler says; the warning has its own test


def _pandas(columns: Mapping[str, Any]) -> Any:
    return pytest.importorskip("pandas").DataFrame(columns)


def _pandas_nullable(columns: Mapping[str, Any]) -> Any:
    return _pandas(columns).convert_dtypes()


def _polars(columns: Mapping[str, Any]) -> Any:
    return pytest.importorskip("polars").DataFrame(columns)


def _arrow(columns: Mapping[str, Any]) -> pa.Table:
    return pa.table(dict(columns))


_FRAMES = {"pandas": _pandas, "pandas nullable": _pandas_nullable, "polars": _polars, "arrow": _arrow}


@pytest.fixture(params=_FRAMES)
def frame(request: pytest.FixtureRequest) -> Callable[[Mapping[str, Any]], Any]:
    """Return what makes a frame of a dict of columns, in each library in turn; None is a missing value."""
    return _FRAMES[request.param]


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
