"""What all tests share."""

import os

# Before torch and OpenMP are loaded: the tests' tables are so small that a second thread only waits for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests that ask for two threads share the cores with other workers: a thread that waits must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from attfm.cli import main
from attfm.ops import native_info, use_backend
from tests.shop import FAST, write_shop


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


@pytest.fixture(params=[pytest.param("native", marks=pytest.mark.isa), "reference"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Compute by each backend in turn; return its name."""
    if request.param == "native" and not native_info()["available"]:
        pytest.skip("attfm was installed without its compiled kernels")
    with use_backend(request.param):
        yield request.param


@pytest.fixture(scope="session")
def run(shop: str) -> str:
    """Return a run folder of a model trained on the small table."""
    path = Path(shop).with_name("run")
    assert main(["train", shop, "--target", "bought", "--out", str(path), *FAST]) == 0
    return str(path)
